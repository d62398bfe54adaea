"""Threads over blocks of rows.

NumPy releases the GIL inside a ufunc or a matrix product, so Python threads really share the work, as long as
each call is long enough (some microseconds) to be worth a turn at the GIL. BLAS has threads of its own, which
spin while they wait; inside `run` they are switched off, and the blocks share the cores instead.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController


def _default_threads():
    """MINITF_NUM_THREADS, or the cores that this process may use."""
    setting = os.environ.get("MINITF_NUM_THREADS", "")
    if setting:
        if not setting.isdecimal() or int(setting) < 1:
            raise ValueError(f"MINITF_NUM_THREADS is {setting!r}: it must be a positive whole number")
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _State:
    """All that is shared between calls; a forked child starts with a fresh one, since threads do not fork."""

    def __init__(self):
        self.lock = threading.Lock()
        self.threads = None  # set by the first use
        self.pool = None
        self.blas = None
        self.limited = False  # BLAS outside of `run` uses `threads` threads, too
        self.inside = 0  # how many `single_threaded_blas` blocks are open, in all threads
        self.blas_threads = []  # what to restore when the last of them closes


_state = _State()
_local = threading.local()  # .worker: this thread runs a block now


def _after_fork():
    global _state
    before, _state = _state, _State()
    _state.threads, _state.blas, _state.limited = before.threads, before.blas, before.limited
    if before.inside:  # forked while another thread was inside a block that nobody will close here
        _set_blas(before.blas, before.blas_threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get_num_threads():
    """How many threads share the blocks (MINITF_NUM_THREADS; default: all cores of this process)."""
    if _state.threads is None:
        _configure(_default_threads(), limit_blas="MINITF_NUM_THREADS" in os.environ)
    return _state.threads


def set_num_threads(n):
    """Use n threads for blocks, and for BLAS outside of them. No bit of a twin's result depends on n."""
    if n < 1:
        raise ValueError(f"{n} threads: at least one is needed")
    _configure(n, limit_blas=True)


def find_blas():
    """Look again for BLAS libraries, after an import that may have brought one."""
    get_num_threads()
    state = _state
    with state.lock:
        known = {library.filepath for library in state.blas}
        found = ThreadpoolController().select(user_api="blas").lib_controllers
        new = [library for library in found if library.filepath not in known]
        if state.limited:
            _set_blas(new, [state.threads] * len(new))
        if state.inside:
            state.blas_threads += [library.get_num_threads() for library in new]
            _set_blas(new, [1] * len(new))
        state.blas += new


def _configure(n, limit_blas):
    state = _state
    with state.lock:
        if state.blas is None:
            state.blas = ThreadpoolController().select(user_api="blas").lib_controllers
        if n != state.threads:
            pool, state.pool, state.threads = state.pool, None, n
            if pool is not None:
                pool.shutdown(wait=False)  # it finishes what it has
        state.limited |= limit_blas
        if limit_blas and state.inside:
            state.blas_threads = [n] * len(state.blas)
        elif limit_blas:
            _set_blas(state.blas, [n] * len(state.blas))


def _set_blas(libraries, counts):
    for library, count in zip(libraries or (), counts, strict=False):
        library.set_num_threads(count)


@contextmanager
def single_threaded_blas():
    """BLAS keeps to the calling thread. The setting is the process's, so the last one to leave restores it."""
    get_num_threads()
    state = _state
    with state.lock:
        state.inside += 1
        if state.inside == 1:
            state.blas_threads = [library.get_num_threads() for library in state.blas]
            _set_blas(state.blas, [1] * len(state.blas))
    try:
        yield
    finally:
        with state.lock:
            state.inside -= 1
            if state.inside == 0:
                _set_blas(state.blas, state.blas_threads)


def run(task, count):
    """Call task(0) ... task(count - 1), each once, on the threads; returns when all are done.

    Tasks must write to disjoint memory; their order is free, so sums over tasks are the caller's to make, in
    order. The first exception is raised. Inside a task, `run` runs its tasks one after another. Several
    threads may call it at once: each takes part in its own tasks, and waits for nobody else's.
    """
    if getattr(_local, "worker", False):
        for i in range(count):
            task(i)
        return
    threads = min(get_num_threads(), count)
    remaining = iter(range(count))  # next() on it is atomic

    def drain():
        _local.worker = True
        try:
            with np.errstate(all="ignore"):  # what is suspicious is found and done again by the formula
                for i in remaining:
                    task(i)
        finally:
            _local.worker = False

    with single_threaded_blas():
        helpers = [_submit(drain) for _ in range(threads - 1)]
        try:
            drain()
        finally:
            for _ in remaining:  # after an exception: nothing more to start
                pass
            busy = [helper for helper in helpers if not helper.cancel()]
            for helper in busy:
                helper.exception()  # wait
        for helper in busy:
            helper.result()


def _submit(function):
    state = _state
    with state.lock:
        if state.pool is None:
            # idle workers do not keep the interpreter alive: concurrent.futures wakes and joins them at exit
            state.pool = ThreadPoolExecutor(state.threads - 1 or 1, "minitf")
        return state.pool.submit(function)


def blocks(rows, row_size, elements, least=1):
    """Slices of about `elements` elements over `rows` rows. They depend on the shape, never on the threads.

    >>> blocks(10, 100, elements=400)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    size = max(least, elements // max(row_size, 1), 1)
    count = max(1, -(-rows // size))
    size = -(-rows // count)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, max(size, 1))]
