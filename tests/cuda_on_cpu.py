"""A stand-in for CuPy whose kernels run: RawModule compiles the .cu with g++ (cuda_on_cpu.hpp), arrays are NumPy's.

Strict where CuPy is: no mixing with NumPy arrays, no silent copies to the host, a kernel argument is checked
against the type that the compiler saw, and memory from `empty` is NaN inside and guarded on both sides. What moves
a number to the host raises inside `no_waiting()`, as it would make the host wait for a GPU.
"""

import contextlib
import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
import types
import weakref
from pathlib import Path

import numpy as np

from minitf.kernels import cublas, cuda

GUARD = 64  # bytes before and behind every array from `empty`
# hidden and not unique: libraries loaded side by side must not share their fibers
FLAGS = "-std=c++17 -O1 -shared -fPIC -fvisibility=hidden -fno-gnu-unique -ffp-contract=off".split()  # noqa: SIM905


def compiler():
    """The path of g++, or None; fibers and sections are Linux's here."""
    return shutil.which("g++") if sys.platform == "linux" else None


def compile_kernels(folder, source, dtype, kernels):
    """A shared library with launch_NAME and types_NAME for every kernel. Raises ValueError with g++'s message."""
    real = cuda.REAL[np.dtype(dtype)]
    launchers = "\n".join(f"CUDA_ON_CPU({kernel})" for kernel in kernels)
    path = Path(folder) / f"kernels_{real}_{abs(hash((source, real)))}.cpp"
    path.write_text(f'#include "cuda_on_cpu.hpp"\n{source}\n#line 1 "launchers"\n{launchers}\n')
    library = path.with_suffix(".so")
    names = (f"-DREAL={real}", f"-I{Path(__file__).parent}", path, "-o", library)
    done = subprocess.run([compiler(), *FLAGS, *names], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return ctypes.CDLL(str(library))


# ----------------------------------------------------------------------------------------------- arrays

_waiting_is_an_error = False


@contextlib.contextmanager
def no_waiting():
    """Inside, whatever would make the host wait for the device raises RuntimeError."""
    global _waiting_is_an_error
    _waiting_is_an_error = True
    try:
        yield
    finally:
        _waiting_is_an_error = False


def _to_host(what):
    if _waiting_is_an_error:
        raise RuntimeError(f"{what} makes the host wait for the device")


def _unwrap(x):
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(x, tuple | list):
        return type(x)(map(_unwrap, x))
    if isinstance(x, dict):
        return {name: _unwrap(value) for name, value in x.items()}
    return x


def _wrap(x):
    if isinstance(x, np.ndarray | np.generic):
        return ndarray(x)
    return type(x)(map(_wrap, x)) if isinstance(x, tuple | list) else x


def _function(function):
    def call(*args, **kwargs):
        return _wrap(function(*_unwrap(args), **_unwrap(kwargs)))

    if isinstance(function, np.ufunc):
        call.at = _function(function.at)
    return call


class ndarray:
    """A NumPy array behind a wall."""

    __array_priority__ = 100

    def __init__(self, array):
        self._a = np.asarray(array)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def get(self):
        _to_host(".get()")
        return self._a.copy()

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._a.ctypes.data)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._a, name)
        return _function(value) if callable(value) else _wrap(value)

    def __getitem__(self, index):
        for i in index if isinstance(index, tuple) else (index,):
            if hasattr(i, "dtype") and i.dtype.kind == "b":
                _to_host("boolean indexing")
        return ndarray(self._a[_unwrap(index)])

    def __setitem__(self, index, value):
        self._a[_unwrap(index)] = _unwrap(value)

    def __len__(self):
        return len(self._a)

    def __float__(self):
        _to_host("float(array)")
        return float(self._a)

    def __int__(self):
        _to_host("int(array)")
        return int(self._a)

    def __bool__(self):
        _to_host("the truth of an array")
        return bool(self._a)

    def __neg__(self):
        return ndarray(-self._a)

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        return _function(getattr(ufunc, method))(*args, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return _function(function)(*args, **kwargs)


def _operator(name, in_place):
    def operator(self, other):
        if in_place:
            getattr(self._a, name)(_unwrap(other))
            return self
        return _wrap(getattr(self._a, name)(_unwrap(other)))

    return operator


_OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lt le gt ge eq ne"
for _name in _OPERATORS.split():
    for _full in (f"__{_name}__", f"__r{_name}__", f"__i{_name}__"):
        if hasattr(np.ndarray, _full):
            setattr(ndarray, _full, _operator(_full, _full.startswith("__i")))


_memories = weakref.WeakValueDictionary()  # every living buffer from `empty`, guards included


def empty(shape, dtype=float):
    """Memory as a pool gives it: full of something else, here NaN (or -1)."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    memory = np.full(size + 2 * GUARD, 0xFF, np.uint8)
    _memories[id(memory)] = memory
    return ndarray(memory[GUARD : GUARD + size].view(dtype).reshape(shape))


def asarray(x, dtype=None):
    """A guarded copy, as to a device."""
    if isinstance(x, ndarray):
        return x if dtype in (None, x.dtype) else ndarray(x._a.astype(dtype))
    x = np.asarray(x, dtype)
    out = empty(x.shape, x.dtype)
    out._a[...] = x
    return out


def ascontiguousarray(x, dtype=None):
    if x._a.flags.c_contiguous and dtype in (None, x.dtype):
        return x
    return ndarray(np.array(x._a, dtype or x.dtype, order="C"))


def asnumpy(x):
    return x.get() if isinstance(x, ndarray) else np.asarray(x)


# ---------------------------------------------------------------------------------------------- kernels


def order_of(launches):
    """The order in which threads take turns in the next launch: another one each time, 0 to 6."""
    return len(launches) % 7


class Kernel:
    """A kernel as RawModule.get_function returns it: kernel(grid, block, arguments)."""

    def __init__(self, name, library, launches):
        self.name, self.launches = name, launches
        self.run = getattr(library, f"launch_{name}")
        self.run.restype = ctypes.c_char_p
        describe = getattr(library, f"types_{name}")
        describe.restype = ctypes.c_char_p
        self.types = describe().decode().split()

    def __call__(self, grid, block, arguments):
        if len(arguments) != len(self.types):
            raise TypeError(f"{self.name} takes {len(self.types)} arguments, not {len(arguments)}")
        packed = [self.pack(*pair) for pair in zip(self.types, arguments, strict=True)]
        pointers = (ctypes.c_void_p * len(packed))(*(a.ctypes.data for a in packed))
        shapes = [np.array((*shape, 1, 1)[:3], np.uint32) for shape in (grid, block)]
        shapes = (shape.ctypes.data_as(ctypes.c_void_p) for shape in shapes)
        error = self.run(pointers, *shapes, order_of(self.launches))
        self.launches.append((self.name, grid, block))
        if error:
            raise RuntimeError(f"{self.name}: {error.decode()}")
        for memory in list(_memories.values()):
            if not (memory[:GUARD] == 0xFF).all() or not (memory[-GUARD:] == 0xFF).all():
                raise RuntimeError(f"{self.name} wrote outside an array of {memory.size - 2 * GUARD} bytes")

    def pack(self, type_, value):
        """The bytes of an argument, if CuPy would pass as many of them and of that kind."""
        if isinstance(value, ndarray):
            found, value = "pointer", np.uint64(value.data.ptr)
        elif isinstance(value, np.ndarray) and value.size == 1:
            found = f"struct{value.itemsize}"
        elif isinstance(value, np.generic):
            kind = "pointer" if isinstance(value, np.uint64) and value == 0 else value.dtype.kind
            found = kind if kind == "pointer" else f"{kind}{value.itemsize}"
        else:
            found = type(value).__name__
        if found != type_:
            raise TypeError(f"{self.name}: a {found} where the kernel takes a {type_}")
        return np.array(value)


class RawModule:
    """cupy.RawModule on the g++ library of the same source and options; compiled libraries are shared."""

    folder = None  # a temporary one, set by the tests
    libraries = {}  # noqa: RUF012
    launches = []  # noqa: RUF012  # (kernel, grid, block) of every launch so far

    def __init__(self, *, code, options=()):
        (real,) = (option.removeprefix("-DREAL=") for option in options if option.startswith("-DREAL="))
        dtype = next(d for d, name in cuda.REAL.items() if name == real)
        if (code, real) not in self.libraries:
            kernels = list(cuda.signatures())
            self.libraries[code, real] = compile_kernels(self.folder, code, dtype, kernels)
        self.library = self.libraries[code, real]

    def get_function(self, name):
        return Kernel(name, self.library, self.launches)


# --------------------------------------------------------------------------------------------- products


@functools.cache
def cublas_functions():
    """`cublas._functions` of a library that counts as cuBLAS does, on the CPU (cublas_on_cpu.cpp)."""
    folder = tempfile.mkdtemp()
    try:
        library = Path(folder) / "cublas.so"
        source = Path(__file__).with_name("cublas_on_cpu.cpp")
        subprocess.run([compiler(), *FLAGS[:4], source, "-o", library], check=True)
        return cublas._Functions(ctypes.CDLL(str(library)))
    finally:
        shutil.rmtree(folder)  # Linux keeps what is loaded


# ------------------------------------------------------------------------------------------- the module


class _Cupy(types.ModuleType):
    def __getattr__(self, name):
        value = getattr(np, name)
        return value if isinstance(value, type | np.dtype) or not callable(value) else _function(value)


def _zeros_like(x, shape=None):
    return asarray(np.zeros_like(x._a, shape=shape))


def fake_cupy():
    """A module to put into sys.modules["cupy"]."""
    cupy = _Cupy("cupy")
    for thing in (ndarray, empty, asarray, ascontiguousarray, asnumpy, RawModule):
        setattr(cupy, thing.__name__, thing)
    cupy.array, cupy.zeros_like = asarray, _zeros_like
    cupy.cuda = types.SimpleNamespace(
        Device=lambda: types.SimpleNamespace(id=0),
        device=types.SimpleNamespace(get_cublas_handle=lambda: 0),
        get_current_stream=lambda: types.SimpleNamespace(ptr=0),
    )
    return cupy


@contextlib.contextmanager
def installed(folder):
    """`import cupy` gives the stand-in; modules compiled for it are forgotten afterwards."""
    before = sys.modules.get("cupy")
    RawModule.folder = folder
    caches = (cuda._module, cuda._kernel, cuda._rotary_tables)
    for cache in caches:
        cache.cache_clear()
    sys.modules["cupy"] = cupy = fake_cupy()
    functions, cublas._functions = cublas._functions, cublas_functions
    try:
        yield cupy
    finally:
        cublas._functions = functions
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
        for cache in caches:
            cache.cache_clear()
