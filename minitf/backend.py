"""Which array library owns an array, and how a tree of arrays moves between CPU and GPU.

A model is a nested dict of arrays. Everything that happens to all of a model (the optimizer, a checkpoint,
the move to a GPU) is one `tree_map`. CuPy is never imported before somebody asks for a GPU.
"""

import functools
import math
import sys

import numpy as np


def array_module(*arrays, **named):
    """The module, numpy or cupy, that owns every given array; numbers and None are skipped.

    Raises TypeError for anything that is not an array, and for arrays of both libraries at once.

    >>> array_module(np.zeros(3), None, 1.0).__name__
    'numpy'
    """
    cupy = sys.modules.get("cupy")
    cupy_array = getattr(cupy, "ndarray", ())
    owners = {}
    for name, array in [*((f"argument {i + 1}", a) for i, a in enumerate(arrays)), *named.items()]:
        if isinstance(array, cupy_array):
            owners[name] = cupy
        elif isinstance(array, np.ndarray) and not isinstance(array, np.matrix | np.ma.MaskedArray):
            owners[name] = np
        elif isinstance(array, str) or not (array is None or np.isscalar(array)):
            raise TypeError(
                f"{name} is a {type(array).__module__}.{type(array).__name__}: "
                "pass a NumPy or CuPy array (np.asarray makes one from a list or a CPU tensor)"
            )
    if len(set(owners.values())) > 1:
        on_gpu = next(name for name, owner in owners.items() if owner is not np)
        on_cpu = next(name for name, owner in owners.items() if owner is np)
        raise TypeError(f"{on_gpu} is on the GPU and {on_cpu} is not: did you call to_device?")
    return next(iter(owners.values()), np)


def float_module(optional=(), **named):
    """`array_module` of the named arrays, after checking that all share one floating dtype.

    optional: the names that may be None.

    >>> float_module(x=np.zeros(3, int))
    Traceback (most recent call last):
    TypeError: x has dtype int64: convert it to floats, as in x.astype(np.float32)
    """
    xp = array_module(**named)
    arrays = {name: array for name, array in named.items() if array is not None or name not in optional}
    for name, array in arrays.items():
        if not hasattr(array, "dtype"):
            raise TypeError(f"{name} is {array!r}: pass an array")
        if array.dtype.kind != "f":
            raise TypeError(
                f"{name} has dtype {array.dtype}: convert it to floats, as in {name}.astype(np.float32)"
            )
    if len({array.dtype for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} is {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{found}: convert them to one dtype, or gradients would not match their arrays")
    return xp


def check_number(name, value, low=None, high=math.inf, whole=False):
    """The value as a Python number, so that it changes no array's dtype, after checking that it is one.

    Raises TypeError unless it is a number (an integer where `whole`); where low is given, ValueError unless it is
    finite and low <= value <= high.

    >>> check_number("eps", np.float64(0.5), low=0)
    0.5
    """
    numbers = int | np.integer if whole else int | float | np.integer | np.floating
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise TypeError(f"{name} is {value!r}: pass {'an integer' if whole else 'a number'}")
    if low is not None and not (low <= value <= high and abs(value) < (2**63 if whole else math.inf)):
        bounds = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
        raise ValueError(f"{name} is {value}: it must be {' and '.join(bounds) or 'finite'}")
    return int(value) if whole else float(value)


def tree_map(function, tree, *others):
    """Apply `function` to every leaf of a nested dict (and to the leaves of equal trees beside it).

    Raises ValueError where the trees do not have the same names.

    >>> tree_map(lambda a, b: a + b, {"x": 1, "y": {"z": 2}}, {"x": 10, "y": {"z": 20}})
    {'x': 11, 'y': {'z': 22}}
    """
    if not isinstance(tree, dict):
        if any(isinstance(other, dict) for other in others):
            raise ValueError("the trees differ: one has a dict where another has a leaf")
        return function(tree, *others)
    for other in others:
        if not isinstance(other, dict) or other.keys() != tree.keys():
            found = sorted(map(str, other)) if isinstance(other, dict) else type(other).__name__
            raise ValueError(f"the trees differ: {sorted(map(str, tree))} here, {found} there")
    return {name: tree_map(function, leaf, *(other[name] for other in others)) for name, leaf in tree.items()}


def tree_items(tree, prefix=""):
    """All leaves of a nested dict with dotted names, in order.

    >>> list(tree_items({"a": {"key": 1, "value": 2}, "b": 3}))
    [('a.key', 1), ('a.value', 2), ('b', 3)]
    """
    if not isinstance(tree, dict):
        raise TypeError(f"the tree is a {type(tree).__name__}: pass a nested dict of arrays")
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            yield from tree_items(leaf, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", leaf


def tree_from_items(items):
    """The nested dict that `tree_items` took apart. Raises ValueError where a name is also a branch, or is there twice.

    >>> tree_from_items([("a.key", 1), ("a.value", 2), ("b", 3)])
    {'a': {'key': 1, 'value': 2}, 'b': 3}
    """
    tree = {}
    for dotted, leaf in items:
        *parents, name = str(dotted).split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise ValueError(f"{parent} is a leaf, so {dotted} cannot be below it")
        if name in branch:
            raise ValueError(f"{dotted} is there twice, or is a branch as well as a leaf")
        branch[name] = leaf
    return tree


def to_device(tree, device):
    """Copy the arrays of a tree to "cuda" (through CuPy) or to "cpu"; numbers and text stay as they are.

    Also takes a single array. Raises ValueError for another device name, ImportError without CuPy and
    RuntimeError without a GPU; each says what to do.
    """
    if isinstance(device, str) and device == "cpu":
        return to_host(tree)
    if not isinstance(device, str) or device != "cuda":
        raise ValueError(f"device is {device!r}: choose 'cuda' or 'cpu'")
    try:
        import cupy
    except ImportError as error:
        raise ImportError(
            "to_device(..., 'cuda') needs CuPy and an NVIDIA GPU: pip install 'minitf[cuda12]' or "
            "'minitf[cuda13]', whichever CUDA version nvidia-smi shows"
        ) from error
    try:
        return tree_map(lambda leaf: cupy.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)
    except Exception as error:
        if type(error).__name__ != "CUDARuntimeError":
            raise
        raise RuntimeError(
            f"CuPy is installed but cannot use a GPU here ({error}): check that nvidia-smi lists one and that "
            "its driver is new enough for your CuPy; without a GPU, stay on 'cpu'"
        ) from error


def to_host(tree):
    """Copy the arrays of a tree (or one array) to NumPy; what is there already is not copied.

    >>> to_host({"x": np.ones(2)})
    {'x': array([1., 1.])}
    """
    cupy = sys.modules.get("cupy")
    cupy_array = getattr(cupy, "ndarray", ())
    return tree_map(lambda leaf: cupy.asnumpy(leaf) if isinstance(leaf, cupy_array) else leaf, tree)


def has_fast_twin(formula):
    """Decorator: let the fused twin in `kernels` compute this formula, where there is one for these arrays.

    Twins are for training: they take float32, on the CPU and on the GPU. float64 is for looking and checking, and
    takes the formula as it stands. A forward twin returns its own type of cache, and that type finds the backward.
    `f.formula` is the formula itself.
    """

    @functools.wraps(formula)
    def fastest(*args, **kwargs):
        from . import kernels  # when called, not before: kernels stand above the formulas that they replace

        twin = kernels.find(formula.__name__, args, kwargs)
        result = NotImplemented if twin is None else twin(*args, **kwargs)
        return formula(*args, **kwargs) if result is NotImplemented else result

    fastest.formula = formula
    return fastest
