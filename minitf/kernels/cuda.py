"""Fused twins of the hot formulas for CuPy: CUDA kernels for everything between two GEMMs, cuBLAS for the GEMMs.

Read the formulas first (`ops.py`, `pattention.py`, `attention.py`, `optim.py`), then the .cu files, where each
kernel names the equation it computes; here stands how they are called. A twin has its formula's signature and
returns its own cache type, which names the backward to call. It returns NotImplemented where it has nothing to
offer (arrays not on a GPU, other dtypes, arguments that the formula will complain about); then the formula runs.

What is saved is traffic to the GPU's memory and launches: a row is read once for norm, scale and GeLU; caches hold
inputs and one number per row, and derivatives are computed anew; AdamW and clipping take the whole tree at once.
All memory comes from CuPy's pool (`cupy.empty`), so after the first steps no step allocates.

No twin makes the host wait. A training step on a GPU waits where a number moves to the host, and nowhere else:
`float(loss)`, `to_host`, `if array:`, and in CuPy also boolean indexing, nonzero, unique and sort. A pool that must
grow waits too: that is what makes the first steps slow, next to the compilation (once per machine, CuPy keeps it).
So a step can be recorded as a CUDA graph: `cuda_graph`. The products are in `cublas`.
"""

import functools
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import attention, ops, pattention
from ..backend import tree_from_items, tree_items, tree_map
from ..ops import Array
from .cublas import product, tf32  # noqa: F401  (tf32 is for users)

SOURCES = (  # in this order: each uses what stands before it
    "common.cu",
    "gelu.cu",
    "softmax.cu",
    "theta.cu",
    "layer_norm.cu",
    "cross_entropy.cu",
    "attention.cu",
    "embedding.cu",
    "tree.cu",
)
REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
KINDS = ("l2_norm_gelu", "gelu_l2_norm", "softmax", "l1_norm_gelu", "gelu")  # enum Kind in theta.cu
APPROXIMATE = ("none", "tanh")

# ------------------------------------------------------------------------------------- compile and launch


@functools.cache
def source():
    """The text of all .cu files; compiler messages name file and line."""
    folder = Path(__file__).parent
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text("ascii")}\n' for name in SOURCES)


def options(dtype):
    """What the compiler is told. No fast math: subnormal numbers and exact division are part of the formulas."""
    return ("-std=c++17", f"-DREAL={REAL[np.dtype(dtype)]}")


@functools.cache
def signatures():
    """{kernel: {argument: type}}, in the order of the kernel's own declaration.

    >>> signatures()["gelu_forward"]
    {'x': 'const real *', 'out': 'real *', 'size': 'long long', 'approximate': 'int'}
    """
    found = {}
    for kernel, arguments in re.findall(r"^KERNEL (\w+)\(([^)]*)\)", source(), re.MULTILINE):
        pairs = (re.fullmatch(r"\s*(.*?)(\w+)\s*", argument).groups() for argument in arguments.split(","))
        found[kernel] = {name: " ".join(type_.split()) for type_, name in pairs}
    return found


@functools.cache
def _module(dtype):
    import cupy

    return cupy.RawModule(code=source(), options=options(dtype))


@functools.cache
def _kernel(name, dtype):
    return _module(dtype).get_function(name)


def launch(name, shape, dtype, **arguments):
    """Run a kernel, asynchronously. shape: (grid, block). Arguments are named as in the .cu, whose types decide.

    Raises TypeError for a wrong set of names, and for arrays that are not contiguous or of another dtype.
    """
    grid, block = shape
    signature = signatures()[name]
    if arguments.keys() != signature.keys():
        raise TypeError(f"{name} takes {', '.join(signature)}; given were {', '.join(arguments)}")
    if 0 in grid:  # nothing to do, and CUDA refuses empty grids
        return
    packed = (
        _pack(name, argument, type_, arguments[argument], dtype) for argument, type_ in signature.items()
    )
    _kernel(name, dtype)(grid, block, tuple(packed))


POINTERS = {"long long": np.dtype(np.int64), "unsigned char": np.dtype(bool)}  # else real
SCALARS = {"int": np.int32, "long long": np.int64}


def _pack(kernel, argument, type_, value, dtype):
    """A value as CuPy passes it on: an array as its address, a NumPy scalar as the bytes of its type."""
    if type_.endswith("*"):
        if value is None:
            return np.uint64(0)  # the null pointer
        expected = POINTERS.get(type_.removeprefix("const ").rstrip(" *"), dtype)
        if isinstance(value, np.ndarray):  # CuPy would pass an array of size one by value
            raise TypeError(f"{argument} is not on the GPU: did you call to_device?")
        if value.dtype != expected or not value.flags.c_contiguous:
            raise TypeError(f"{kernel} needs {argument} as contiguous {expected}, not {value.dtype}")
        return value
    if type_ == "const Leaves":
        return value  # a NumPy array of size one travels by value
    return SCALARS.get(type_, dtype.type)(value)


def row_shape(rows, n):
    """Grid and block of a kernel that works along rows: a warp per row, for long rows a block (common.cu).

    >>> row_shape(10, 100), row_shape(10, 5000)
    (((3,), (32, 4)), ((10,), (256, 1)))
    """
    return ((-(-rows // 4),), (32, 4)) if n <= 1024 else ((rows,), (256, 1))


def flat_shape(size):
    """Grid and block of a kernel with one thread for four entries (ENTRIES in gelu.cu)."""
    return (-(-size // 1024),), (256,)


ONE_BLOCK = (1,), (256,)


# ----------------------------------------------------------------------------------------------- arrays


def _fits(*arrays):
    """True for CuPy arrays of one dtype, float32 or float64, none of them empty; None is skipped."""
    cupy = sys.modules.get("cupy")
    arrays = [a for a in arrays if a is not None]
    if not arrays or not hasattr(cupy, "RawModule") or not all(isinstance(a, cupy.ndarray) for a in arrays):
        return False
    return arrays[0].dtype in REAL and all(a.dtype == arrays[0].dtype and a.size for a in arrays)


def _numbers(*values):
    """True for finite numbers, none of them below zero; else the formula says what is wrong."""
    numbers = (isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)
    return all(numbers) and all(0 <= v < math.inf for v in values)


def _contiguous(array, dtype=None):
    """The array itself, or a C-contiguous copy, of this dtype if one is named."""
    import cupy

    if array is None or (array.flags.c_contiguous and dtype in (None, array.dtype)):
        return array
    return cupy.ascontiguousarray(array, dtype)


def _gradient(dout, shape, dtype, name="dout"):
    """dout as a C-contiguous array, after the check that the formula makes."""
    ops.check_like(name, dout, shape, dtype)
    return _contiguous(dout)


def _empty(shape, dtype):
    import cupy

    return cupy.empty(shape, dtype)


def _rows_of(shape):
    """Number of rows, and their length."""
    return math.prod(shape[:-1]), shape[-1]


# ------------------------------------------------------------------------------------------------- GeLU


class GeluCache(NamedTuple):
    x: Array
    approximate: str


def gelu_forward(x, approximate="none"):
    if not _fits(x) or approximate not in APPROXIMATE:
        return NotImplemented
    x = _contiguous(x)
    out = _empty(x.shape, x.dtype)
    which = APPROXIMATE.index(approximate)
    launch("gelu_forward", flat_shape(x.size), x.dtype, x=x, out=out, size=x.size, approximate=which)
    return out, GeluCache(x, approximate)


def gelu_backward(dout, cache):
    x, approximate = cache
    dout, dx = _gradient(dout, x.shape, x.dtype), _empty(x.shape, x.dtype)
    which = APPROXIMATE.index(approximate)
    launch(
        "gelu_backward", flat_shape(x.size), x.dtype, dout=dout, x=x, dx=dx, size=x.size, approximate=which
    )
    return dx


# ----------------------------------------------------------------------------------------------- softmax


class SoftmaxCache(NamedTuple):
    out: Array


def softmax_forward(x):
    if not _fits(x) or x.ndim < 1:
        return NotImplemented
    x = _contiguous(x)
    out = _empty(x.shape, x.dtype)
    _softmax(x, out)
    return out, SoftmaxCache(out)


def softmax_backward(dout, cache):
    (out,) = cache
    dout, dx = _gradient(dout, out.shape, out.dtype), _empty(out.shape, out.dtype)
    _softmax_backward(dout, out, dx)
    return dx


def _softmax(x, out, scale=1.0, queries=0, past=0):
    """out = softmax(scale x) along rows; causal where queries, the number of them per head, is given."""
    rows, n = _rows_of(x.shape)
    arguments = {"rows": rows, "n": n, "scale": scale, "queries": queries, "past": past}
    launch("softmax_forward", row_shape(rows, n), x.dtype, x=x, out=out, **arguments)


def _softmax_backward(dout, out, dx, scale=1.0):
    rows, n = _rows_of(out.shape)
    arguments = {"rows": rows, "n": n, "scale": scale}
    launch("softmax_backward", row_shape(rows, n), out.dtype, dout=dout, out=out, dx=dx, **arguments)


# ------------------------------------------------------------------------------------------------- theta


class ThetaCache(NamedTuple):
    kind: str
    tau: float
    approximate: str
    scores: Array
    inverse_norm: Array  # (..., 1), or None where no norm is taken
    weights: Array

    @property
    def normed(self):
        """What the norm or the softmax gives, before tau."""
        if self.kind in ("gelu_l2_norm", "softmax"):
            return self.weights / _scale(self.kind, self.tau)
        return self.scores if self.inverse_norm is None else self.scores * self.inverse_norm


def _scale(kind, tau):
    return tau**2 if kind in ("l1_norm_gelu", "softmax") else tau


def theta_forward(scores, kind="l2_norm_gelu", tau=None, approximate="none"):
    if not _fits(scores) or scores.ndim < 1 or kind not in KINDS or approximate not in APPROXIMATE:
        return NotImplemented
    tau = pattention.check_tau(tau, scores.shape[-1])
    scores = _contiguous(scores)
    weights = _empty(scores.shape, scores.dtype)
    inverse_norm = _empty((*scores.shape[:-1], 1), scores.dtype) if "norm" in kind else None
    cache = ThetaCache(kind, tau, approximate, scores, inverse_norm, weights)
    _launch_theta("theta_forward", cache)
    return weights, cache


def theta_backward(dweights, cache):
    scores = cache.scores
    dweights = _gradient(dweights, scores.shape, scores.dtype)
    dscores = _empty(scores.shape, scores.dtype)
    _launch_theta("theta_backward", cache, dweights=dweights, dscores=dscores)
    return dscores


def _launch_theta(kernel, cache, **gradients):
    rows, n = _rows_of(cache.scores.shape)
    launch(
        kernel,
        row_shape(rows, n),
        cache.scores.dtype,
        scores=cache.scores,
        weights=cache.weights,
        inverse_norm=cache.inverse_norm,
        rows=rows,
        n=n,
        kind=KINDS.index(cache.kind),
        approximate=APPROXIMATE.index(cache.approximate),
        scale=_scale(cache.kind, cache.tau),
        **gradients,
    )


# ---------------------------------------------------------------------------- where a token meets parameters


class LinearCache(NamedTuple):
    x: Array
    weight: Array
    bias: Array


def linear_forward(x, weight, bias=None):
    if not _fits(x, weight, bias) or weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is not None and bias.shape != weight.shape[:1]:
        return NotImplemented
    out = product(_as_rows(x), weight.T)
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], len(weight)), LinearCache(x, weight, bias)


def linear_backward(dout, cache):
    x, weight, bias = cache
    drows = _as_rows(_gradient(dout, (*x.shape[:-1], len(weight)), x.dtype))
    dx, dweight = product(drows, weight).reshape(x.shape), product(drows.T, _as_rows(x))
    return (dx, dweight) if bias is None else (dx, dweight, drows.sum(axis=0))


class PattentionCache(NamedTuple):
    x: Array
    key: Array
    value: Array
    scores: Array
    weights: Array
    theta: ThetaCache


def pattention_forward(
    x, key, value, kind="l2_norm_gelu", tau=None, scale=1.0, mask=None, approximate="none"
):
    """A mask and a scale are left to the formula."""
    if not _fits(x, key, value) or mask is not None or x.ndim < 1:
        return NotImplemented
    if not _numbers(scale) or scale != 1.0 or key.ndim != 2 or value.ndim != 2:
        return NotImplemented
    if len(key) != len(value) or x.shape[-1] != key.shape[1]:
        return NotImplemented
    scores = product(_as_rows(x), key.T)
    theta = theta_forward(scores, kind, tau, approximate)
    if theta is NotImplemented:
        return NotImplemented
    weights, cache = theta
    out, lead = product(weights, value), x.shape[:-1]
    scores, weights = (a.reshape(*lead, len(key)) for a in (scores, weights))
    return out.reshape(*lead, value.shape[1]), PattentionCache(x, key, value, scores, weights, cache)


def pattention_backward(dout, cache):
    x, key, value, _, weights, theta = cache
    drows = _as_rows(_gradient(dout, (*x.shape[:-1], value.shape[1]), x.dtype))
    dvalue = product(_as_rows(weights).T, drows)
    dscores = theta_backward(product(drows, value.T), theta)
    return product(dscores, key).reshape(x.shape), product(dscores.T, _as_rows(x)), dvalue


def _as_rows(x):
    """x (..., n) as a matrix (rows, n)."""
    return x.reshape(-1, x.shape[-1])


# -------------------------------------------------------------------------------------------- layer norm


class LayerNormCache(NamedTuple):
    source: Array  # x, or without weight and bias the output itself, which the next layer keeps anyway
    mean: Array  # (..., 1), None where source is the output
    inverse_std: Array  # (..., 1)
    weight: Array
    bias: Array

    @property
    def normed(self):
        return self.source if self.mean is None else (self.source - self.mean) * self.inverse_std


def layer_norm_forward(x, weight=None, bias=None, eps=1e-5):
    if not _fits(x, weight, bias) or x.ndim < 1 or not _numbers(eps):
        return NotImplemented
    if any(a is not None and a.shape != x.shape[-1:] for a in (weight, bias)):
        return NotImplemented
    x, weight, bias = _contiguous(x), _contiguous(weight), _contiguous(bias)
    plain = weight is None and bias is None
    out, inverse_std = _empty(x.shape, x.dtype), _empty((*x.shape[:-1], 1), x.dtype)
    mean = None if plain else _empty(inverse_std.shape, x.dtype)
    rows, n = _rows_of(x.shape)
    launch(
        "layer_norm_forward",
        row_shape(rows, n),
        x.dtype,
        x=x,
        weight=weight,
        bias=bias,
        out=out,
        mean=mean,
        inverse_std=inverse_std,
        rows=rows,
        n=n,
        eps=eps,
    )
    return out, LayerNormCache(out if plain else x, mean, inverse_std, weight, bias)


def layer_norm_backward(dout, cache):
    source, mean, inverse_std, weight, bias = cache
    dout, dx = _gradient(dout, source.shape, source.dtype), _empty(source.shape, source.dtype)
    rows, n = _rows_of(source.shape)
    arguments = {"source": source, "mean": mean, "inverse_std": inverse_std, "dout": dout, "rows": rows}
    launch("layer_norm_backward", row_shape(rows, n), dx.dtype, weight=weight, dx=dx, n=n, **arguments)
    if weight is None and bias is None:
        return dx
    stripe = max(128, -(-rows // 1024))  # rows that one block adds up
    stripes = -(-rows // stripe)
    dweight = None if weight is None else _empty((stripes, n), dx.dtype)
    dbias = None if bias is None else _empty((stripes, n), dx.dtype)
    shape = (-(-n // 32), stripes), (32, 8)
    launch(
        "layer_norm_columns", shape, dx.dtype, dweight=dweight, dbias=dbias, n=n, stripe=stripe, **arguments
    )
    return (dx, *(lines.sum(axis=0) for lines in (dweight, dbias) if lines is not None))


# --------------------------------------------------------------------------------------------- embedding


class EmbeddingCache(NamedTuple):
    ids: Array
    weight: Array


def embedding_forward(ids, weight):
    """The formula's own look-up, which is one launch; its backward is not."""
    if not _fits(weight) or weight.ndim != 2 or not _integers(ids) or not ids.size:
        return NotImplemented
    return weight[ids], EmbeddingCache(ids, weight)


def embedding_backward(dout, cache):
    ids, weight = cache
    vocab_size, width = weight.shape
    dout = _gradient(dout, (*ids.shape, width), weight.dtype)
    dweight = _empty(weight.shape, weight.dtype)
    shape = (vocab_size, -(-width // 256)), (32, 8)
    arguments = {"ids": _contiguous(ids, np.int64), "tokens": ids.size, "width": width}
    launch("embedding_backward", shape, dout.dtype, dout=dout, dweight=dweight, **arguments)
    return dweight


def _integers(array):
    cupy = sys.modules["cupy"]
    return isinstance(array, cupy.ndarray) and array.dtype.kind in "iu"


# ----------------------------------------------------------------------------------------- cross-entropy


class CrossEntropyCache(NamedTuple):
    logits: Array
    targets: Array
    mask: Array  # None keeps all
    largest: Array  # of each row's logits
    total: Array  # of each row's exp(logit - largest)
    count: Array  # of kept tokens: one number, on the device

    @property
    def probabilities(self):
        shape = (*self.logits.shape[:-1], 1)
        xp = sys.modules["cupy"]
        return xp.exp(self.logits - self.largest.reshape(shape)) / self.total.reshape(shape)


def cross_entropy_forward(logits, targets, mask=None):
    if not _fits(logits) or logits.ndim < 1 or not _integers(targets):
        return NotImplemented
    if targets.shape != logits.shape[:-1]:
        return NotImplemented
    if mask is not None and not (
        isinstance(mask, type(logits)) and mask.dtype == bool and mask.shape == targets.shape
    ):
        return NotImplemented
    logits, targets, mask = _contiguous(logits), _contiguous(targets, np.int64), _contiguous(mask)
    rows, n = _rows_of(logits.shape)
    losses, largest, total = (_empty((rows,), logits.dtype) for _ in range(3))
    loss, count = _empty((), logits.dtype), _empty((), logits.dtype)
    both = {"mask": mask, "losses": losses, "rows": rows}
    launch(
        "cross_entropy_rows",
        row_shape(rows, n),
        logits.dtype,
        logits=logits,
        targets=targets,
        largest=largest,
        total=total,
        n=n,
        **both,
    )
    launch("cross_entropy_mean", ONE_BLOCK, logits.dtype, loss=loss, count=count, **both)
    return loss, CrossEntropyCache(logits, targets, mask, largest, total, count)


def cross_entropy_backward(dloss, cache):
    """dloss: a number, or a scalar array on the device, which is not read from here."""
    logits = cache.logits
    rows, n = _rows_of(logits.shape)
    dlogits = _empty(logits.shape, logits.dtype)
    on_device = not isinstance(dloss, int | float | np.number)
    launch(
        "cross_entropy_backward",
        row_shape(rows, n),
        logits.dtype,
        **cache._asdict(),
        dloss=_gradient(dloss, (), logits.dtype, "dloss") if on_device else None,
        scale=1.0 if on_device else dloss,
        dlogits=dlogits,
        rows=rows,
        n=n,
    )
    return dlogits


# --------------------------------------------------------------------------------------------- attention


class AttentionCache(NamedTuple):
    query: Array  # (..., H, T, head_dim), rotated
    key: Array  # (..., H, past + T, head_dim), rotated
    value: Array  # (..., H, past + T, head_dim)
    weights: Array  # (..., H, T, past + T)
    rotary: attention.RotaryCache

    @property
    def past(self):
        return self.key, self.value


def causal_attention_forward(query, key, value, n_heads=1, rotary_fraction=0.0, past=None):
    """GEMMs by cuBLAS; heads, rotary positions and the causal softmax by one kernel each."""
    if not _fits(query, key, value) or not query.shape == key.shape == value.shape or query.ndim < 2:
        return NotImplemented
    if not isinstance(n_heads, int) or n_heads < 1 or query.shape[-1] % n_heads:
        return NotImplemented
    import cupy

    length, head_dim = query.shape[-2], query.shape[-1] // n_heads
    past_length = attention.check_past(past, query, n_heads) if past is not None else 0
    device = cupy.cuda.Device().id
    rotary = _rotary_tables(length, head_dim, rotary_fraction, past_length, query.dtype, device)

    query = _rotate_heads(query, n_heads, rotary)
    key = _rotate_heads(key, n_heads, rotary)
    value = _rotate_heads(value, n_heads)
    if past is not None:
        key = cupy.concatenate([past[0], key], axis=-2)
        value = cupy.concatenate([past[1], value], axis=-2)
    weights = product(query, key.swapaxes(-1, -2))  # the scores, until the softmax overwrites them
    _softmax(weights, weights, 1 / math.sqrt(head_dim), length, past_length)
    out = _merge_heads(product(weights, value))
    return out, AttentionCache(query, key, value, weights, rotary)


def causal_attention_backward(dout, cache):
    query, key, value, weights, rotary = cache
    *lead, n_heads, length, head_dim = query.shape
    if length != key.shape[-2]:
        raise ValueError("there is no backward through a KV cache: run the whole sequence without past")
    dheads = _rotate_heads(_gradient(dout, (*lead, length, n_heads * head_dim), query.dtype), n_heads)
    dvalue = product(weights.swapaxes(-1, -2), dheads)
    dscores = product(dheads, value.swapaxes(-1, -2))
    _softmax_backward(dscores, weights, dscores, 1 / math.sqrt(head_dim))
    dkey = product(dscores.swapaxes(-1, -2), query)
    dquery = product(dscores, key)
    return _merge_heads(dquery, rotary), _merge_heads(dkey, rotary), _merge_heads(dvalue)


@functools.lru_cache(64)
def _rotary_tables(length, head_dim, fraction, offset, dtype, device):
    """cos and sin of the formula, computed once: a launch for each of its steps would cost more than the rotation."""
    import cupy

    formula = getattr(attention.rotary_forward, "formula", attention.rotary_forward)
    _, (cos, sin) = formula(cupy.zeros((length, head_dim), dtype), fraction, offset)
    return attention.RotaryCache(_contiguous(cos), _contiguous(sin))


def _rotate_heads(x, n_heads, rotary=None):
    """(..., T, d) -> (..., H, T, d / H), rotated where tables are given."""
    *lead, length, width = x.shape
    out = _empty((*lead, n_heads, length, width // n_heads), x.dtype)
    _launch_rotation(_contiguous(x), out, rotary, out.shape, to_heads=True)
    return out


def _merge_heads(x, rotary=None):
    """(..., H, T, head_dim) -> (..., T, H · head_dim), rotated back where tables are given."""
    *lead, n_heads, length, head_dim = x.shape
    out = _empty((*lead, length, n_heads * head_dim), x.dtype)
    _launch_rotation(_contiguous(x), out, rotary, x.shape, to_heads=False)
    return out


def _launch_rotation(x, out, rotary, shape, to_heads):
    *_, n_heads, length, head_dim = shape
    cos, sin = rotary or (None, None)
    rows = x.size // head_dim
    launch(
        "rotate_heads",
        row_shape(rows, head_dim),
        x.dtype,
        x=x,
        out=out,
        cos=cos,
        sin=sin,
        rows=rows,
        length=length,
        heads=n_heads,
        head_dim=head_dim,
        half=cos.shape[-1] if rotary else 0,
        to_heads=to_heads,
        sign=1 if to_heads else -1,
    )


# ----------------------------------------------------------------------------------------- whole trees

MAX_LEAVES, CHUNK = 64, 2048  # LEAVES and CHUNK in tree.cu
LEAVES_DTYPE = np.dtype(  # struct Leaves in tree.cu
    [
        ("array", np.uint64, (4, MAX_LEAVES)),
        ("size", np.int64, MAX_LEAVES),
        ("first_block", np.int32, MAX_LEAVES + 1),
        ("decays", np.int32, MAX_LEAVES),
    ],
    align=True,
)


def _launch_on_leaves(kernel, leaves, per_block=(), **arguments):
    """One launch per 64 leaves; a leaf is a tuple of equally large arrays, whose meaning the kernel knows.

    per_block: names of those arguments that are arrays with one entry per block of all launches together.
    """
    done = 0
    for start in range(0, len(leaves), MAX_LEAVES):
        part = leaves[start : start + MAX_LEAVES]
        table, count = np.zeros((), LEAVES_DTYPE), len(part)
        table["array"][: len(part[0]), :count] = np.transpose(
            [[a.data.ptr for a in arrays] for arrays in part]
        )
        table["size"][:count] = [arrays[0].size for arrays in part]
        table["decays"][:count] = [arrays[0].ndim >= 2 for arrays in part]
        table["first_block"][1 : count + 1] = np.cumsum([_chunks(arrays[0]) for arrays in part])
        blocks = int(table["first_block"][count])
        mine = {name: a[done : done + blocks] if name in per_block else a for name, a in arguments.items()}
        launch(kernel, ((blocks,), (256,)), part[0][0].dtype, leaves=table, **mine)
        done += blocks


def _chunks(array):
    return -(-array.size // CHUNK)


def adamw_step(params, grads, state, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """The whole tree in one launch per 64 arrays; learning rate and bias corrections are kernel arguments."""
    if not isinstance(state, dict) or not {"step", "m", "v"} <= state.keys():
        return NotImplemented
    if not isinstance(betas, tuple | list) or len(betas) != 2 or not _numbers(*betas, lr, eps, weight_decay):
        return NotImplemented
    if max(betas) >= 1 or not isinstance(state["step"], int) or state["step"] < 0:
        return NotImplemented
    leaves = []
    tree_map(lambda *arrays: leaves.append(arrays), params, grads, state["m"], state["v"])
    if not _fits(*(a for arrays in leaves for a in arrays)):
        return NotImplemented
    for p, g, m, v in leaves:
        if not p.shape == g.shape == m.shape == v.shape or not all(a.flags.c_contiguous for a in (p, m, v)):
            return NotImplemented
    leaves = [(p, _contiguous(g), m, v) for p, g, m, v in leaves]
    (beta1, beta2), step = betas, state["step"] + 1
    _launch_on_leaves(
        "adamw",
        leaves,
        beta1=beta1,
        one_minus_beta1=1 - beta1,
        beta2=beta2,
        one_minus_beta2=1 - beta2,
        keep=1 - lr * weight_decay,
        step=lr / (1 - beta1**step),
        unbias=1 / math.sqrt(1 - beta2**step),
        eps=eps,
    )
    return params, {**state, "step": step}


def clip_by_global_norm(grads, max_norm):
    """Norm and factor stay on the device. The clipped gradients share one allocation."""
    items = list(tree_items(grads))
    if not _fits(*(g for _, g in items)) or not _numbers(max_norm) or max_norm == 0:
        return NotImplemented
    arrays = [_contiguous(g) for _, g in items]
    dtype, count = arrays[0].dtype, sum(_chunks(g) for g in arrays)
    squares, norm, factor = _empty((count,), dtype), _empty((), dtype), _empty((), dtype)
    _launch_on_leaves("chunk_squares", [(g,) for g in arrays], per_block=("squares",), squares=squares)
    arguments = {"squares": squares, "count": count, "max_norm": max_norm}
    launch("clip_factor", ONE_BLOCK, dtype, norm=norm, factor=factor, **arguments)
    ends = np.cumsum([g.size for g in arrays]).tolist()
    memory = _empty((ends[-1],), dtype)
    clipped = [memory[end - g.size : end].reshape(g.shape) for g, end in zip(arrays, ends, strict=True)]
    _launch_on_leaves("scale_tree", list(zip(arrays, clipped, strict=True)), factor=factor)
    return tree_from_items((name, g) for (name, _), g in zip(items, clipped, strict=True)), norm


# -------------------------------------------------------------------------------------------- the tables

FORWARD = {
    "theta_forward": theta_forward,
    "linear_forward": linear_forward,
    "pattention_forward": pattention_forward,
    "gelu_forward": gelu_forward,
    "softmax_forward": softmax_forward,
    "layer_norm_forward": layer_norm_forward,
    "embedding_forward": embedding_forward,
    "cross_entropy_forward": cross_entropy_forward,
    "causal_attention_forward": causal_attention_forward,
    "adamw_step": adamw_step,
    "clip_by_global_norm": clip_by_global_norm,
}
BACKWARD = {
    ("theta_backward", ThetaCache): theta_backward,
    ("linear_backward", LinearCache): linear_backward,
    ("pattention_backward", PattentionCache): pattention_backward,
    ("gelu_backward", GeluCache): gelu_backward,
    ("softmax_backward", SoftmaxCache): softmax_backward,
    ("layer_norm_backward", LayerNormCache): layer_norm_backward,
    ("embedding_backward", EmbeddingCache): embedding_backward,
    ("cross_entropy_backward", CrossEntropyCache): cross_entropy_backward,
    ("causal_attention_backward", AttentionCache): causal_attention_backward,
}
