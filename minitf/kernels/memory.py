"""Memory that the next training step can use again, aligned to cache lines."""

import math
import threading

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register; malloc's 16 made x * y take 1.8 times as long
IDLE_LIMIT = 1 << 30  # bytes of unused buffers that are kept at most

_local = threading.local()  # .scratch: the buffers of this thread


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
