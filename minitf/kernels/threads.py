"""Threads over blocks of rows, and memory that the next step can use again.

NumPy releases the GIL inside a ufunc or a matrix product, so Python threads really share the work, as long as
each call is long enough (some microseconds) to be worth a turn at the GIL. BLAS has threads of its own, which
spin while they wait; inside `run` they are switched off, and the blocks share the cores instead.
"""

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register; malloc's 16 made x * y take 1.8 times as long
IDLE_LIMIT = 1 << 30  # bytes of unused buffers that are kept at most


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
        self.inside = 0  # how many `single_threaded_blas` blocks are open, in all threads
        self.blas_threads = []  # what to restore when the last of them closes


_state = _State()
_local = threading.local()  # .worker: this thread runs a block now; .scratch: its buffers


def _after_fork():
    global _state
    before, _state = _state, _State()
    _state.threads, _state.blas = before.threads, before.blas
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


def _configure(n, limit_blas):
    state = _state
    with state.lock:
        if state.blas is None:
            state.blas = ThreadpoolController().select(user_api="blas").lib_controllers
        if n != state.threads:
            pool, state.pool, state.threads = state.pool, None, n
            if pool is not None:
                pool.shutdown(wait=False)  # it finishes what it has
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


# -------------------------------------------------------------------------------------------- memory


class _Loan:
    """Owner of one buffer on behalf of an array; when the array and its views are gone, so is the loan."""

    __slots__ = ("__array_interface__", "__weakref__", "buffer")

    def __init__(self, buffer, start, shape, dtype):
        self.buffer = buffer
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (buffer.ctypes.data + start, False),
            "version": 3,
        }

    def __del__(self):
        arena = _arena
        if arena is not None:
            arena.give_back(self.buffer)


class _Arena:
    """Buffers by size. A training step asks for the same sizes again and again.

    Fresh memory costs a page fault for every 4 KiB, which takes as long as several ufuncs on that page.
    """

    def __init__(self):
        self.free = {}
        self.idle = 0  # bytes; only roughly right while several threads give back at once

    def take(self, nbytes):
        try:
            buffer = self.free[nbytes].pop()
        except (KeyError, IndexError):
            return np.empty(nbytes, np.uint8)
        self.idle -= nbytes
        return buffer

    def give_back(self, buffer):
        if self.idle + buffer.nbytes > IDLE_LIMIT:
            self.clear()
        self.free.setdefault(buffer.nbytes, []).append(buffer)
        self.idle += buffer.nbytes

    def clear(self):
        self.free, self.idle = {}, 0


_arena = _Arena()


def empty(shape, dtype):
    """np.empty, aligned to cache lines, in memory that a former array of the same size has left if there is one."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < 4096:
        return np.empty(shape, dtype)
    buffer = _arena.take(nbytes + ALIGNMENT)
    start = -buffer.ctypes.data % ALIGNMENT
    return np.asarray(_Loan(buffer, start, tuple(shape), dtype))


def scratch(name, shape, dtype):
    """A buffer of this thread, its content undefined, valid until the thread asks for the same name again."""
    buffers = _local.__dict__.setdefault("scratch", {})
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = buffers.get(name)
    if buffer is None or buffer.nbytes < nbytes:
        whole = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -whole.ctypes.data % ALIGNMENT
        buffer = buffers[name] = whole[start : start + nbytes]
    return buffer[:nbytes].view(dtype).reshape(shape)
