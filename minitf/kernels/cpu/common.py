"""What the twins share: block sizes, checks that send odd arguments to the formula, and the compiled code."""

import functools
import math
import os

import numpy as np

from ... import ops
from ..threads import find_blas

BLOCK = 1 << 16  # elements of a block: four float32 buffers of it fit in 2 MiB of L2
COMPILED_BLOCK = 1 << 12  # of one pass over flat arrays: its buffers fit in L1


def plain(*arrays):
    """True for NumPy arrays of one dtype, float32 or float64, none of them empty; None is skipped."""
    arrays = [a for a in arrays if a is not None]
    dtype = getattr(arrays[0], "dtype", None) if arrays else None
    fit = (type(a) is np.ndarray and a.dtype == dtype and a.size for a in arrays)
    return dtype in (np.float32, np.float64) and all(fit)


def numbers(*values, low=-math.inf):
    """True for finite numbers, none of them below `low`; else the formula says what is wrong."""
    real = (isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)
    return all(real) and all(low <= v and abs(v) < math.inf for v in values)


def as_rows(a):
    """The array as a C-contiguous matrix of rows; a copy only where it has to be."""
    return np.ascontiguousarray(a).reshape(math.prod(a.shape[:-1]), a.shape[-1])


def gradient(dout, shape, dtype, name="dout"):
    """dout as a C-contiguous array, after the check that the formula makes."""
    ops.check_like(name, dout, shape, dtype)
    return np.ascontiguousarray(dout)


def formula(function):
    """The formula itself, where the public name dispatches to a twin."""
    return getattr(function, "formula", function)


def dot(a, b):
    """Sum of a · b over the last axis, as a column."""
    return np.vecdot(a, b)[..., None]


@functools.lru_cache(64)
def ones_of(n, dtype):
    return np.ones(n, dtype)


def ones(a):
    """A row of ones: the dot product with it is the fastest row sum."""
    return ones_of(a.shape[-1], a.dtype)


def compiled(dtype):
    """The module of what numba compiles; None for float64, without numba and SciPy, or where MINITF_NUMBA is 0."""
    if dtype != np.float32 or os.environ.get("MINITF_NUMBA") == "0" or _forked:
        return None
    return _import_loops()


def uses_mkl():
    """Whether the compiled loops multiply by MKL (see `blas`)."""
    if compiled(np.float32) is None:
        return False
    from .blas import USES_MKL

    return USES_MKL


@functools.cache
def _import_loops():
    try:
        from . import loops
    except ImportError:
        return None
    find_blas()  # SciPy has one of its own, MKL may have come
    return loops


# numba's threads do not live on in a forked child, and OpenMP ends a child that asks for them
_forked = False


def _after_fork():
    global _forked
    _forked = _import_loops.cache_info().currsize > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
