"""Two thousand steps take no more memory than two hundred, and two trainings in two threads do not mix.

As a program, for people: python tests/test_long_runs.py 20000        # prints the memory of so many steps, with
the bytes that Python and NumPy hold, which tracemalloc counts (too slowly for a test)
"""

import gc
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import fingerprint, tokenformer, transformer

from minitf import checkpoint, init_params, model, train

ROOT = Path(checkpoint.__file__).parents[1]
IDS = np.tile(np.arange(10), 60)
SETTINGS = train.TrainConfig(steps=40, batch_size=2, peak_lr=1e-2, eval_every=10, eval_windows=4)
MODELS = {"tokenformer": tokenformer(n_layers=1), "transformer": transformer(n_layers=1)}


def memory_of_a_run(steps, kind):
    """(step, blocks of memory that Python objects hold, RSS, bytes traced or 0) at ten times of one training."""
    config, lines = MODELS[kind], []

    def watched(*arguments):
        watched.calls += 1
        if watched.calls % (steps // 10) == 0:
            gc.collect()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            lines.append(
                (watched.calls, sys.getallocatedblocks(), resident, tracemalloc.get_traced_memory()[0])
            )
        return model.loss_and_grads(*arguments)

    watched.calls = 0
    train.loss_and_grads = watched
    train.train_model(
        init_params(config), config, IDS, replace(SETTINGS, steps=steps, eval_every=steps // 4), IDS
    )
    return lines


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured through /proc")
@pytest.mark.parametrize("kind", MODELS)
def test_2000_steps_take_no_more_memory_than_200(kind):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MINITF_PROGRESS": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "2000", kind, "untraced"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = json.loads(result.stdout)[kind]
    assert len(lines) == 10 and lines[-1][0] == 2000
    (_, blocks, resident, _), *_, (_, blocks_at_last, resident_at_last, _) = lines
    assert blocks_at_last - blocks < 1800, lines  # less than one object, such as a loss or an array, per step
    assert resident_at_last - resident < 4 << 20, lines


def train_one(kind, seed, results):
    config, settings = MODELS[kind], replace(SETTINGS, seed=seed)
    result = train.train_model(init_params(config, seed), config, IDS, settings, IDS)
    results[kind, seed] = fingerprint(result.params, result.state), result.history


@pytest.mark.parametrize(
    "runs", [[("tokenformer", 0), ("transformer", 0)], [("tokenformer", s) for s in range(4)]], ids=str
)
def test_trainings_in_threads_are_bit_identical_to_one_after_the_other(runs):
    alone, together = {}, {}
    for kind, seed in runs:
        train_one(kind, seed, alone)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # the threads take turns a hundred times as often
    try:
        threads = [threading.Thread(target=train_one, args=(*run, together)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert together == alone


def test_generating_in_a_thread_while_another_trains_changes_neither():
    config = MODELS["tokenformer"]
    params, prompt = init_params(config, 3), np.arange(4)
    expected, results, texts = model.generate(params, prompt, 60, config, seed=5), {}, []
    train_one("tokenformer", 0, results)
    alone = dict(results)
    thread = threading.Thread(target=train_one, args=("tokenformer", 0, results))
    thread.start()
    while thread.is_alive() or not texts:
        texts.append(model.generate(params, prompt, 60, config, seed=5))
    thread.join()
    assert results == alone and all((text == expected).all() for text in texts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", MODELS)
def test_a_run_that_diverges_ends_with_one_error_and_no_warning(kind, dtype):
    config, settings = MODELS[kind], replace(SETTINGS, peak_lr=1e30, warmup_share=0.0)
    with pytest.raises(train.TrainingDiverged, match="the loss became nan at step .* learning rate .*e\\+"):
        train.train_model(init_params(config, dtype=dtype), config, IDS, settings)


if __name__ == "__main__":
    steps, *rest = sys.argv[1:]
    if "untraced" not in rest:
        tracemalloc.start()
    print(json.dumps({kind: memory_of_a_run(int(steps), kind) for kind in rest[:1] or MODELS}))
