"""A strict stand-in for CuPy: NumPy's numbers behind CuPy's refusals.

There is no GPU where these tests run, so mistakes that only a GPU would punish must be punished by something else.
`ndarray` here wraps a NumPy array and forbids what CuPy forbids:

* no implicit copy to the host: np.asarray(x) and iteration into NumPy functions refuse; `.get()` and `asnumpy` are the
  ways out;
* no mixing: an operation on a device array and a NumPy array refuses, in either order, and so does indexing or
  assigning with one (CuPy would accept some of these; nothing in minitf should rely on it);
* a reduction to one number stays on the device, as an array of no dimensions;
* only names that CuPy documents exist (`FUNCTIONS`), and a list of device arrays is not an array.

As in CuPy, NumPy's ufuncs and functions called on device arrays are sent to this module.
"""

# ruff: noqa: SIM905 (lists of names read better as text)
import contextlib
import sys
import types

import numpy as np

float32, float64, int32, int64, bool_ = np.float32, np.float64, np.int32, np.int64, np.bool_
dtype, finfo, iinfo, inf, nan, pi, newaxis = np.dtype, np.finfo, np.iinfo, np.inf, np.nan, np.pi, None

# Names of functions in CuPy's API reference (docs.cupy.dev, "Routines") that NumPy has under the same name.
FUNCTIONS = """
    abs absolute add all allclose amax amin any arange argmax argmin argpartition argsort around atleast_1d atleast_2d
    bincount broadcast_arrays broadcast_to ceil clip concatenate copy copysign cos cosh count_nonzero cumprod cumsum
    diag divide dot einsum empty empty_like equal exp exp2 expand_dims expm1 eye flip floor floor_divide fmax fmin full
    full_like greater greater_equal identity inner isfinite isinf isnan less less_equal linspace log log10 log1p log2
    logaddexp logical_and logical_not logical_or logical_xor matmul max maximum mean median min minimum mod moveaxis
    multiply nan_to_num negative nonzero not_equal ones ones_like outer partition percentile power prod ravel reciprocal
    repeat reshape rint roll round searchsorted sign sin sinh sort split sqrt square squeeze stack std subtract sum
    swapaxes take take_along_axis tan tanh tensordot tile trace transpose tri tril triu true_divide unique var vstack
    hstack where zeros zeros_like
""".split()
SCATTER = ("add", "subtract", "maximum", "minimum")  # the ufuncs that have .at in CuPy

# Attributes and methods of cupy.ndarray that NumPy's arrays have too, by what becomes of their result.
PLAIN = ("dtype", "itemsize", "nbytes", "ndim", "shape", "size")
ARRAYS = ("T",)
METHODS = """
    all any argmax argmin argsort astype clip copy cumsum dot fill flatten max mean min nonzero prod ravel repeat
    reshape round sort squeeze std sum swapaxes take trace transpose var
""".split()

BINARY = "add sub mul truediv floordiv mod pow matmul and or xor".split()
COMPARISONS = "lt le gt ge eq ne".split()


class ndarray:
    """An array on a pretended device."""

    __slots__ = ("_host",)
    __hash__ = None

    def __init__(self, host):
        self._host = np.asarray(host)

    # -- out of the device: only when asked for

    def get(self):
        return self._host.copy()

    def item(self):
        return self._host.item()

    def tolist(self):
        return self._host.tolist()

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)

    def __index__(self):
        return self._host.__index__()

    def __bool__(self):
        return bool(self._host)

    def __repr__(self):
        return f"device {self._host!r}"

    def __format__(self, spec):
        return format(self._host.item() if self._host.ndim == 0 else repr(self), spec)

    # -- what an array can do

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (ndarray(row) for row in self._host)

    def __getitem__(self, index):
        return ndarray(self._host[_inside(index, index=True)])

    def __setitem__(self, index, value):
        self._host[_inside(index, index=True)] = _inside(value)

    def __neg__(self):
        return ndarray(-self._host)

    def __invert__(self):
        return ndarray(~self._host)

    def __abs__(self):
        return ndarray(abs(self._host))

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        """np.exp(device array) is cupy.exp of it; there is nothing for generalized calls."""
        function = getattr(sys.modules[__name__], ufunc.__name__, None)
        if function is None or method not in ("__call__", "at"):
            return NotImplemented
        if out is not None:
            kwargs["out"] = out[0]
        return (function if method == "__call__" else function.at)(*inputs, **kwargs)

    def __array_function__(self, function, types_, args, kwargs):
        return getattr(sys.modules[__name__], function.__name__)(*args, **kwargs)


def _inside(value, index=False):
    """What the device sees of an argument; refuses NumPy arrays, and arrays inside of lists."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, list) and any(isinstance(item, ndarray | np.ndarray | list) for item in value):
        raise TypeError("a list of arrays is not an array: use stack or concatenate, or index with one array")
    if isinstance(value, tuple):
        return tuple(_inside(item, index) for item in value)
    return value


def _device(result):
    if isinstance(result, np.ndarray | np.generic):
        return ndarray(result)
    if isinstance(result, tuple | list):
        return type(result)(_device(item) for item in result)
    return result


class _Function:
    """A NumPy function on device arrays."""

    def __init__(self, function):
        self._function, self.__name__ = function, function.__name__

    def __call__(self, *args, **kwargs):
        out = kwargs.get("out")
        args = [_sequence(arg) for arg in args]
        result = self._function(*args, **{name: _inside(value) for name, value in kwargs.items()})
        return out if out is not None else _device(result)


def _sequence(argument):
    """concatenate, stack and their like take a list or tuple of device arrays; everything else as ever."""
    if isinstance(argument, list | tuple) and any(
        isinstance(item, ndarray | np.ndarray) for item in argument
    ):
        return [_inside(item) for item in argument]
    return _inside(argument)


class _ScatterFunction(_Function):
    def at(self, array, index, *values):
        if not isinstance(array, ndarray):
            raise TypeError("Argument 'a' has incorrect type: cupy.ndarray is expected")
        self._function.at(array._host, _inside(index, index=True), *map(_inside, values))


def _operator(name):
    function = getattr(np.ndarray, name)
    in_place = name.startswith("__i") and name != "__invert__"

    def operate(self, other):
        if isinstance(other, list | tuple):
            raise TypeError(f"Unsupported type {type(other)}")
        result = function(self._host, _inside(other))
        if result is NotImplemented:
            return NotImplemented
        return self if in_place else _device(result)

    operate.__name__ = name
    return operate


def _method(name):
    def call(self, *args, **kwargs):
        inside = {key: _inside(value) for key, value in kwargs.items()}
        return _device(getattr(self._host, name)(*map(_inside, args), **inside))

    call.__name__ = name
    return call


for _name in BINARY:
    for _form in (f"__{_name}__", f"__r{_name}__", f"__i{_name}__"):
        if hasattr(np.ndarray, _form):
            setattr(ndarray, _form, _operator(_form))
for _name in COMPARISONS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in PLAIN:
    setattr(ndarray, _name, property(lambda self, _name=_name: getattr(self._host, _name)))
for _name in ARRAYS:
    setattr(ndarray, _name, property(lambda self, _name=_name: ndarray(getattr(self._host, _name))))


def __getattr__(name):
    """The functions of the module. (As globals they would hide any, sum and others that Python has by these names.)"""
    if name not in FUNCTIONS:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    return (_ScatterFunction if name in SCATTER else _Function)(getattr(np, name))


# ---------------------------------------------------------------------- between the host and the device


def asarray(a, dtype=None):
    """To the device: the one function, with `array`, that takes NumPy arrays."""
    if isinstance(a, list | tuple) and any(isinstance(item, ndarray) for item in a):
        raise TypeError("a list of device arrays is not an array: use stack or concatenate")
    host = a._host if isinstance(a, ndarray) else np.array(a)
    if isinstance(a, ndarray) and dtype is None:
        return a
    return ndarray(np.asarray(host, dtype))


def array(a, dtype=None, copy=True):
    return asarray(a, dtype).copy() if copy else asarray(a, dtype)


def asnumpy(a):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def get_array_module(*args):
    return sys.modules[__name__] if any(isinstance(arg, ndarray) for arg in args) else np


@contextlib.contextmanager
def installed():
    """`import cupy` finds this module, and afterwards what was there before."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = sys.modules[__name__]
    try:
        yield sys.modules[__name__]
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before


def broken(error_name, message):
    """A module that imports as cupy but cannot use a GPU: asarray raises an error of this name."""
    error = type(error_name, (RuntimeError,), {})

    def fail(*args, **kwargs):
        raise error(message)

    module = types.ModuleType("cupy")
    module.ndarray, module.asarray = ndarray, fail
    return module
