"""The matrix product of the compiled loops: sgemm, MKL's where it is installed, else SciPy's.

numba's own np.dot knows SciPy's alone, and cannot add to what is in `out`.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

import llvmlite.binding
import numpy as np
from numba import types
from scipy.linalg import cython_blas


def _scipy_sgemm():
    """Address of the sgemm that SciPy shows to Cython."""
    capsule = cython_blas.__pyx_capi__["sgemm"]
    python = ctypes.pythonapi
    python.PyCapsule_GetName.argtypes, python.PyCapsule_GetName.restype = [ctypes.py_object], ctypes.c_char_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    return python.PyCapsule_GetPointer(capsule, python.PyCapsule_GetName(capsule))


def _mkl_sgemm():
    """Address of MKL's sgemm; None without MKL, where MINITF_MKL is 0, and where torch might come later.

    MKL shows all of its functions to the libraries that are loaded after it. torch has an MKL of its own inside,
    of another version, and would take thousands of functions from this one: it must be there before, or never.
    """
    torch_may_come = "torch" not in sys.modules and importlib.util.find_spec("torch") is not None
    if os.environ.get("MINITF_MKL") == "0" or torch_may_come:
        return None
    try:
        files = importlib.metadata.files("mkl") or ()
        library = ctypes.CDLL(str(next(f.locate() for f in files if f.name.startswith("libmkl_rt.so"))))
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError):
        return None
    library.MKL_Set_Interface_Layer(0)  # 32-bit sizes, as in SciPy's
    if library.MKL_Set_Threading_Layer(1) != 1:  # no threads, since the loops have their own
        return None  # somebody uses it already, with threads
    library.MKL_CBWR_Set(2)  # where in memory a matrix lies changes no bit; measured to cost nothing
    return ctypes.cast(library.sgemm_, ctypes.c_void_p).value


_address = _mkl_sgemm()
USES_MKL = _address is not None
# compiled code finds it by its name, so that numba's cache on disk serves both
llvmlite.binding.add_symbol("minitf_sgemm", _address or _scipy_sgemm())
sgemm = types.ExternalFunction("minitf_sgemm", types.void(*[types.voidptr] * 13))
TRANSPOSED = np.frombuffer(b"NT", np.uint8)  # what sgemm calls a matrix as it is, and a transposed one
