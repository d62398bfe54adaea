"""Run the stages that are not in the store yet: parents first, each once, on any Executor."""

import contextlib
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait

from ..train import progress
from .run import do_run

ONE_THREAD = {"MINITF_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def sweep(stages, store, executor=None, description="runs"):
    """Run what is missing of the stages and of their parents; returns a list of their records, in order.

    executor: a concurrent.futures.Executor (`process_pool`, Dask's `Client.get_executor()`); None runs here.
    Two bars count finished runs and training steps. Stop it at any time: what is finished stays in the store.
    """
    missing = _missing(stages, store)
    if not missing:
        return [store[stage] for stage in stages]
    executor = executor or InProcess()
    runs = progress(None, description, total=len(missing), unit="run")
    steps = progress(None, "steps", total=sum(stage.steps for stage in missing), unit="step")
    with runs, steps:
        running = {}
        while missing or running:
            ready = [stage for stage in missing if stage.parent is None or store.has_weights(stage.parent)]
            # an executor that has more than it can do would hold the weights of many parents in memory
            for stage in ready[: max(0, _slots(executor) - len(running))]:
                parent = store.load_weights(stage.parent) if stage.parent else None
                running[executor.submit(do_run, stage, parent)] = stage
                missing.remove(stage)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                stage = running.pop(future)
                store.save(stage, *future.result())
                runs.update()
                steps.update(stage.steps)
    return [store[stage] for stage in stages]


def _missing(stages, store):
    """Stages to run: those without a record, and those whose weights a stage without a record needs."""
    missing = {}

    def need(stage, for_weights):
        if stage in missing or (store.has_weights(stage) if for_weights else stage in store):
            return
        if stage.parent is not None:
            need(stage.parent, for_weights=True)
        missing[stage] = None

    for stage in stages:
        need(stage, for_weights=False)
    return list(missing)


def _slots(executor):
    """How many stages to hand to an executor at once: twice what it can work on, so that nobody waits."""
    if isinstance(executor, InProcess):
        return 1
    return 2 * (getattr(executor, "_max_workers", None) or 32)


class InProcess(Executor):
    """Runs a call at once, in this process."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def process_pool(workers):
    """An Executor of so many processes with one BLAS thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)  # a spawned process reads them when it imports NumPy
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            yield executor
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
