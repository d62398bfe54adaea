"""Matrix products on a GPU, by cuBLAS itself instead of CuPy's `@`.

CuPy copies a transposed operand of a batched product before it multiplies, and refuses cuBLAS while a CUDA graph
is recorded (cupy/cupy issue 6290), which `cuda_graph` does. cuBLAS can read a transposed matrix where it lies, and
it can be recorded if it is given memory to work in.
"""

import contextlib
import ctypes
import functools
import itertools
import math
import sys
import threading

import numpy as np

TF32_TENSOR_OP_MATH = 3  # cublasMath_t; CuPy has no name for it
_recording = threading.local()


def product(a, b):
    """a @ b for CuPy arrays (..., M, K) and (..., K, N), of one dtype (float32 or float64) and equal leading axes.

    The last two axes of either may be transposed; other strides are copied first.
    """
    functions = _functions()
    if functions is None:
        return a @ b
    import cupy

    a, transpose_a, a_width, a_step = _operand(a)
    b, transpose_b, b_width, b_step = _operand(b)
    out = cupy.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    # cuBLAS counts down columns. Our rows read so are the transpose, and outᵀ = bᵀ aᵀ: b comes first
    left = (b.data.ptr, b_width, b_step)
    right = (a.data.ptr, a_width, a_step)
    result = (out.data.ptr, out.shape[-1], out.shape[-2] * out.shape[-1])
    sizes = (out.shape[-1], out.shape[-2], a.shape[-1])
    functions.multiply(
        out.dtype, (transpose_b, transpose_a), sizes, left, right, result, math.prod(out.shape[:-2])
    )
    return out


def _operand(x):
    """x, or a copy that cuBLAS can read; 1 if it lies transposed; entries from row to row and matrix to matrix."""
    import cupy

    layout = _layout(x.shape, [stride // x.itemsize for stride in x.strides])
    if layout is None:
        x = cupy.ascontiguousarray(x)
        layout = (0, x.shape[-1], x.shape[-2] * x.shape[-1])
    return x, *layout


def _layout(shape, strides):
    """(transposed, entries from row to row, entries from matrix to matrix), or None where cuBLAS has no words for it.

    >>> _layout((2, 3, 4), (12, 4, 1)), _layout((2, 4, 3), (12, 1, 4)), _layout((3, 4), (8, 2))
    ((0, 4, 12), (1, 4, 12), None)
    """
    *lead, rows, columns = shape
    *steps, down, across = strides
    if across == 1 and (rows == 1 or down >= columns):
        transposed, width = 0, columns if rows == 1 else down
    elif down == 1 and (columns == 1 or across >= rows):
        transposed, width = 1, rows if columns == 1 else across
    else:
        return None
    moving = [(size, step) for size, step in zip(lead, steps, strict=True) if size > 1]
    for (_, outer), (size, inner) in itertools.pairwise(moving):
        if outer != size * inner:
            return None
    return transposed, width, moving[-1][1] if moving else 0


class _Functions:
    """cublasSgemm, cublasDgemm and their batched forms, called in the library that CuPy has loaded."""

    def __init__(self, library):
        pointer, integer, step = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
        self.set_stream, self.set_workspace = library.cublasSetStream_v2, library.cublasSetWorkspace_v2
        self.set_stream.argtypes = [pointer, pointer]
        self.set_workspace.argtypes = [pointer, pointer, ctypes.c_size_t]
        self.plain, self.batched, self.factors = {}, {}, {}
        for dtype, letter, real in ((np.float32, "S", ctypes.c_float), (np.float64, "D", ctypes.c_double)):
            plain = getattr(library, f"cublas{letter}gemm_v2")
            batched = getattr(library, f"cublas{letter}gemmStridedBatched")
            sizes, one, stacked = (
                [pointer, *[integer] * 5, pointer],
                [pointer, integer],
                [pointer, integer, step],
            )
            plain.argtypes = [*sizes, *one, *one, pointer, *one]
            batched.argtypes = [*sizes, *stacked, *stacked, pointer, *stacked, integer]
            self.plain[np.dtype(dtype)], self.batched[np.dtype(dtype)] = plain, batched
            self.factors[np.dtype(dtype)] = real(1), real(0)

    def multiply(self, dtype, transposes, sizes, left, right, result, batch):
        """result = left right, all three as (address, entries from column to column, from matrix to matrix)."""
        import cupy

        handle = cupy.cuda.device.get_cublas_handle()
        if not getattr(_recording, "on", False):  # a recording has set its stream and its workspace
            self.check(self.set_stream(handle, cupy.cuda.get_current_stream().ptr))
        one, zero = map(ctypes.addressof, self.factors[dtype])
        if batch == 1:
            operands = (one, *left[:2], *right[:2], zero, *result[:2])
            self.check(self.plain[dtype](handle, *transposes, *sizes, *operands))
        else:
            operands = (one, *left, *right, zero, *result, batch)
            self.check(self.batched[dtype](handle, *transposes, *sizes, *operands))

    def check(self, status):
        if status:
            raise RuntimeError(f"cuBLAS returned status {status} (cublasStatus_t)")


@functools.cache
def _functions():
    """The functions of cuBLAS, or None where its library cannot be found: then CuPy multiplies."""
    import cupy

    if not hasattr(getattr(cupy, "cuda", None), "cublas"):  # a stand-in for CuPy
        return None
    handle = cupy.cuda.device.get_cublas_handle()  # loads the library
    major = cupy.cuda.cublas.getVersion(handle) // 10000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    try:
        return _Functions(ctypes.CDLL(name))
    except OSError:
        return None


def can_record():
    """Whether products can be recorded: where cuBLAS was found."""
    return _functions() is not None


@contextlib.contextmanager
def recording(stream):
    """Inside, products go to a stream whose launches are recorded; gives memory that must live as long as they do."""
    import cupy

    functions, handle = _functions(), cupy.cuda.device.get_cublas_handle()
    hopper = int(cupy.cuda.Device().compute_capability) >= 90
    workspace = cupy.empty(((32 if hopper else 4) << 20,), np.uint8)  # bytes: what NVIDIA recommends
    functions.check(functions.set_stream(handle, stream.ptr))
    functions.check(functions.set_workspace(handle, workspace.data.ptr, workspace.nbytes))
    _recording.on = True
    try:
        yield workspace
    finally:
        _recording.on = False
        # also takes the workspace away again
        functions.check(functions.set_stream(handle, cupy.cuda.get_current_stream().ptr))


@contextlib.contextmanager
def tf32():
    """Inside, float32 products on Ampere and newer GPUs round their inputs to 10 bits of mantissa, for speed.

    CuPy's documented switch is the variable CUPY_TF32=1, for a whole process and for 2-D products only (they pass
    a compute type to cuBLAS; batched ones do not). Here CuPy's and ours are covered: that compute type, which only
    cupy._core can change while a process runs, and the math mode of the cuBLAS handle.
    On older GPUs nothing changes. Entered per thread and device, as a cuBLAS handle belongs to both.
    """
    import cupy

    device = cupy.cuda.Device()
    if int(device.compute_capability) < 80:
        yield
        return
    core, cublas, handle = cupy._core, cupy.cuda.cublas, device.cublas_handle
    before, mode = core.get_compute_type(np.float32), cublas.getMathMode(handle)
    core.set_compute_type(np.float32, core._routines_linalg.COMPUTE_TYPE_TF32)
    cublas.setMathMode(handle, TF32_TENSOR_OP_MATH)
    try:
        yield
    finally:
        core.set_compute_type(np.float32, before)
        cublas.setMathMode(handle, mode)


def math_mode():
    """How cuBLAS multiplies at present: a number that differs inside `tf32`."""
    import cupy

    return cupy.cuda.cublas.getMathMode(cupy.cuda.device.get_cublas_handle())
