"""Fused twins of the hot formulas for NumPy: the same results, in blocks of rows that stay in the cache.

Read the formulas first (`ops.py`, `pattention.py`, `attention.py`, `optim.py`); here stands only what makes them
fast. A twin has its formula's signature and returns its own cache type, which names the backward to call. It
returns NotImplemented where it has nothing to offer (other dtypes, subclasses of ndarray, arguments that the
formula will complain about); then the formula runs.

Every pass over a block costs 0.08 to 0.2 ns per float32 on one core, so passes are what is saved: constants are
folded into row factors, results overwrite their inputs (`out=`), row sums are dot products (`np.vecdot`, BLAS),
erf is a tanh of a polynomial, and the derivative is taken in the forward pass, while the block is in the cache.
"""

import functools
import math
import os
import types
from typing import NamedTuple

import numpy as np

from .. import attention, ops, pattention
from ..backend import tree_map
from .threads import blocks, empty, run, scratch

BLOCK = 1 << 16  # elements of a block: four float32 buffers of it fit in 2 MiB of L2


def _plain(*arrays):
    """True for NumPy arrays of one dtype, float32 or float64, none of them empty; None is skipped."""
    arrays = [a for a in arrays if a is not None]
    dtype = getattr(arrays[0], "dtype", None) if arrays else None
    fit = (type(a) is np.ndarray and a.dtype == dtype and a.size for a in arrays)
    return dtype in (np.float32, np.float64) and all(fit)


def _numbers(*values, low=-math.inf):
    """True for finite numbers, none of them below `low`; else the formula says what is wrong."""
    numbers = (isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)
    return all(numbers) and all(low <= v and abs(v) < math.inf for v in values)


def _rows(a):
    """The array as a C-contiguous matrix of rows; a copy only where it has to be."""
    return np.ascontiguousarray(a).reshape(math.prod(a.shape[:-1]), a.shape[-1])


def _gradient(dout, shape, dtype, name="dout"):
    """dout as a C-contiguous array, after the check that the formula makes."""
    ops.check_like(name, dout, shape, dtype)
    return np.ascontiguousarray(dout)


def _formula(function):
    """The formula itself, where the public name dispatches to a twin."""
    return getattr(function, "formula", function)


def _dot(a, b):
    """Sum of a · b over the last axis, as a column."""
    return np.vecdot(a, b)[..., None]


# ----------------------------------------------------------------------------------------------- numba


@functools.cache
def compiled():
    """The two loops that numba compiles where it is installed (extra `fast`), or None. MINITF_NUMBA=0: never.

    One compiled loop over a row reads and writes each number once, where NumPy makes 25 passes over a block,
    and it asks for the GIL once. Only float32 and exact erf.
    """
    if os.environ.get("MINITF_NUMBA") == "0":
        return None
    try:
        import numba
    except ImportError:
        return None
    try:
        return _compile(numba, cache=True)
    except RuntimeError:  # no folder that the compiled code could be written to
        return _compile(numba, cache=False)


def _compile(numba, cache):
    f4, i4 = np.float32, np.int32
    # no fast maths that would assume away NaN and infinity; python's check for division by 0 stops SIMD
    jit = numba.njit(
        nogil=True, cache=cache, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"}
    )
    zero, half, one, low, bias, unit = f4(0), f4(0.5), f4(1), f4(-87), f4(127), f4(1 << 23)
    log2e, ln2_high, ln2_low = f4(math.log2(math.e)), f4(0.693359375), f4(math.log(2) - 0.693359375)
    # exp(r) = 1 + r + r² p(r) for |r| <= log(2)/2: Cephes, expf.c
    p0, p1, p2, p3, p4, p5 = map(
        f4, (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666666e-1, 0.5)
    )
    # Φ(-|z|) = exp(-z²/2) (c0 t + ... + c5 t⁶), t = 1 / (1 + k |z|)
    k, (c0, c1, c2, c3, c4, c5) = f4(_TAIL_K), map(f4, _TAIL)
    density = f4(1 / math.sqrt(2 * math.pi))

    @jit
    def exp(x, out, power, bits):
        """out = exp(x) for x <= 80, 0 below -87, NaN for NaN; power is bits seen as float32."""
        for j in range(x.size):
            n = np.floor(x[j] * log2e + half)
            bits[j] = i4(0) if x[j] < low else i4((n + bias) * unit)  # the float whose exponent is n
        for j in range(x.size):
            v = low if x[j] < low else x[j]
            n = np.floor(v * log2e + half)
            r = v - n * ln2_high
            r = r - n * ln2_low
            p = ((((p0 * r + p1) * r + p2) * r + p3) * r + p4) * r + p5
            out[j] = (p * r * r + r + one) * power[j]

    @jit
    def gelu(a, factor, out, slope):
        n = a.shape[1]
        z, bell, bits = np.empty(n, f4), np.empty(n, f4), np.empty(n, i4)
        power = bits.view(f4)
        for i in range(a.shape[0]):
            scale = factor[i]
            for j in range(n):
                x = a[i, j] * scale
                z[j] = -half * x * x
            exp(z, bell, power, bits)
            for j in range(n):
                x = a[i, j] * scale
                t = one / (one + k * abs(x))
                cdf = t * (c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5))))) * bell[j]
                cdf = one - cdf if x > zero else cdf
                out[i, j] = x * cdf
                slope[i, j] = (cdf + cdf) + (density + density) * bell[j] * x

    @jit
    def l2_norm_gelu_backward(dweights, a, slope, inverse, half_tau):
        for i in range(a.shape[0]):
            along = zero
            for j in range(a.shape[1]):
                d = dweights[i, j] * slope[i, j]
                dweights[i, j] = d
                along += d * a[i, j]
            along *= inverse[i, 0] * inverse[i, 0]
            scale = half_tau * inverse[i, 0]
            for j in range(a.shape[1]):
                dweights[i, j] = scale * (dweights[i, j] - along * a[i, j])

    return types.SimpleNamespace(gelu=gelu, l2_norm_gelu_backward=l2_norm_gelu_backward)


# scipy.special.erfcx fitted by Lawson's algorithm as in tests/test_twins.py; largest error in Φ: 9e-9
_TAIL_K = 0.2719641466
_TAIL = (0.11858317, 0.0268095345, 0.372761456, -0.386308765, 0.487284945, -0.119130332)

# ------------------------------------------------------------------------------------------------ GeLU

# erf(z/√2) = tanh(y p(y²)) with y = z/2; coefficients of p, highest first: tests/test_twins.py fits them.
# NumPy's float32 tanh costs 0.25 ns, its exp 0.35: erfc as exp(-z²/2) times a polynomial needs the exp too, but
# also |z|, 1/(1+|z|/k) and copysign. The highest coefficient is positive, so that large z end at ±1.
_ERF_F4 = (
    1.43874756e-05,
    -0.000270881748,
    0.002029965,
    -0.00707920992,
    -0.00104303111,
    0.290664675,
    1.59576988,
)


def _gelu_block(a, factor, out, slope, approximate):
    """out = GeLU(2 · factor · a) and slope = 2 GeLU' there; factor is a number or a column of one per row."""
    jit = compiled() if a.dtype == np.float32 and approximate == "none" else None
    if jit is not None:
        column = np.empty(len(a), np.float32)
        column[:] = 2 * np.reshape(factor, -1)
        jit.gelu(a, column, out, slope)
        return
    y = np.multiply(a, factor, out=out)
    square = scratch("gelu square", y.shape, y.dtype)
    cdf = scratch("gelu cdf", y.shape, y.dtype)  # twice the normal CDF
    if approximate == "tanh":
        c = math.sqrt(2 / math.pi)
        np.square(y, out=square)
        np.minimum(square, 400, out=square)  # beyond |x| = 40 tanh is ±1, and products would overflow
        np.multiply(square, 8 * 0.044715 * c, out=cdf)
        cdf += 2 * c
        cdf *= y
        np.tanh(cdf, out=cdf)
        np.square(cdf, out=slope)
        np.subtract(1, slope, out=slope)
        square *= 24 * 0.044715 * c
        square += 2 * c
        slope *= square
        slope *= y
        cdf += 1
    elif y.dtype == np.float32:
        np.square(y, out=square)
        np.multiply(square, -2, out=slope)
        np.exp(slope, out=slope)
        slope *= 4 / math.sqrt(2 * math.pi)
        slope *= y  # 2 x φ(x)
        np.multiply(square, _ERF_F4[0], out=cdf)
        for c in _ERF_F4[1:-1]:
            cdf += c
            cdf *= square
        cdf += _ERF_F4[-1]
        cdf *= y
        np.tanh(cdf, out=cdf)
        cdf += 1
    else:  # float64 is for checks: the formula, block by block
        x = y + y
        phi, pdf = ops.normal_cdf_pdf(x)
        np.multiply(phi, 2, out=cdf)
        np.multiply(x, pdf, out=slope)
        slope *= 2
    slope += cdf
    y *= cdf


class GeluCache(NamedTuple):
    x: np.ndarray
    twice_slope: np.ndarray


def gelu_forward(x, approximate="none"):
    if not _plain(x) or approximate not in ("none", "tanh"):
        return NotImplemented
    flat = np.ascontiguousarray(x).reshape(-1)
    out, slope = empty(flat.shape, x.dtype), empty(flat.shape, x.dtype)
    parts = blocks(flat.size, 1, BLOCK)

    def task(i):
        part = parts[i]
        _gelu_block(flat[None, part], 0.5, out[None, part], slope[None, part], approximate)

    run(task, len(parts))
    return out.reshape(x.shape), GeluCache(x, slope.reshape(x.shape))


def gelu_backward(dout, cache):
    x, slope = cache
    flat, slope = _gradient(dout, x.shape, x.dtype).reshape(-1), slope.reshape(-1)
    dx = empty(flat.shape, x.dtype)
    parts = blocks(flat.size, 1, 2 * BLOCK)

    def task(i):
        part = parts[i]
        np.multiply(flat[part], slope[part], out=dx[part])
        dx[part] *= 0.5

    run(task, len(parts))
    return dx.reshape(x.shape)


# ----------------------------------------------------------------------------------------------- theta

# Norms whose squares neither overflow nor drown: rows outside are done again by the formula.
_SAFE = {np.dtype(np.float32): (1e-15, 1e15), np.dtype(np.float64): (1e-140, 1e140)}


def _suspicious(inverse):
    low, high = _SAFE[inverse.dtype]
    safe = (inverse[:, 0] > low) & (inverse[:, 0] < high)  # False for NaN
    return () if safe.all() else np.flatnonzero(~safe)


def _theta_rows(a, kind, tau, approximate, weights, slope, inverse):
    """Θ of a block of rows; fills weights, slope (2 GeLU') and inverse (1 / norm)."""
    if kind == "softmax":
        np.subtract(a, a.max(axis=1, keepdims=True), out=weights)
        np.exp(weights, out=weights)
        weights *= tau**2 / _dot(weights, _ones(weights))
        return
    half_factor = 0.5
    if kind == "l2_norm_gelu":
        np.divide(1, np.sqrt(_dot(a, a)), out=inverse)
        half_factor = (0.5 * tau) * inverse
    elif kind == "l1_norm_gelu":
        np.abs(a, out=weights)
        np.divide(1, _dot(weights, _ones(a)), out=inverse)
        half_factor = (0.5 * tau**2) * inverse
    _gelu_block(a, half_factor, weights, slope, approximate)
    if kind == "gelu_l2_norm":
        np.divide(1, np.sqrt(_dot(weights, weights)), out=inverse)
        weights *= tau * inverse
    if kind != "gelu":
        rows = _suspicious(inverse)
        if len(rows):
            weights[rows], cache = _formula_theta(a[rows], kind, tau, approximate)
            inverse[rows] = cache.inverse_norm


def _theta_rows_backward(dweights, a, kind, tau, approximate, weights, slope, inverse):
    """dscores of a block of rows, in the memory of dweights."""
    rows = _suspicious(inverse) if inverse is not None else ()
    kept = dweights[rows] if len(rows) else None
    term = scratch("theta term", a.shape, a.dtype)
    if kind == "softmax":
        dweights -= _dot(dweights, weights) / tau**2
        dweights *= weights
    elif kind == "gelu_l2_norm":
        np.multiply(weights, _dot(dweights, weights) / tau**2, out=term)
        dweights -= term
        dweights *= (0.5 * tau) * inverse
        dweights *= slope
    elif kind == "l2_norm_gelu" and a.dtype == np.float32 and compiled() is not None:
        compiled().l2_norm_gelu_backward(dweights, a, slope, inverse, np.float32(0.5 * tau))
    else:
        dweights *= slope
        if kind == "l2_norm_gelu":
            np.multiply(a, _dot(dweights, a) * inverse**2, out=term)
            dweights -= term
            dweights *= (0.5 * tau) * inverse
        elif kind == "l1_norm_gelu":
            np.sign(a, out=term)
            term *= _dot(dweights, a) * inverse
            dweights -= term
            dweights *= (0.5 * tau**2) * inverse
        else:
            dweights *= 0.5
    if len(rows):
        _, cache = _formula_theta(a[rows], kind, tau, approximate)
        dweights[rows] = _formula(pattention.theta_backward)(kept, cache)


@functools.lru_cache(64)
def _ones_of(n, dtype):
    return np.ones(n, dtype)


def _ones(a):
    """A row of ones: the dot product with it is the fastest row sum."""
    return _ones_of(a.shape[-1], a.dtype)


def _formula_theta(scores, kind, tau, approximate):
    return _formula(pattention.theta_forward)(scores, kind, tau, approximate)


class ThetaCache(NamedTuple):
    kind: str
    tau: float
    approximate: str
    scores: np.ndarray
    inverse_norm: np.ndarray  # (..., 1), or None where no norm is taken
    weights: np.ndarray
    twice_slope: np.ndarray  # 2 GeLU', or None for softmax

    @property
    def normed(self):
        """What the norm or the softmax gives, before tau."""
        if self.kind in ("gelu_l2_norm", "softmax"):
            return self.weights / (self.tau if self.kind == "gelu_l2_norm" else self.tau**2)
        return self.scores if self.inverse_norm is None else self.scores * self.inverse_norm


class _ThetaRows:
    """The arrays of one Θ as matrices; `forward` and `backward` work on a slice of their rows."""

    def __init__(self, scores, kind, tau, approximate, inverse=None, weights=None, slope=None):
        self.settings = kind, tau, approximate
        self.scores, self.inverse, self.weights, self.slope = scores, inverse, weights, slope

    @classmethod
    def allocate(cls, scores, kind, tau, approximate):
        inverse = empty((len(scores), 1), scores.dtype) if "norm" in kind else None
        slope = None if kind == "softmax" else empty(scores.shape, scores.dtype)
        return cls(scores, kind, tau, approximate, inverse, empty(scores.shape, scores.dtype), slope)

    @classmethod
    def of(cls, cache):
        matrices = (None if a is None else _rows(a) for a in cache[3:])
        scores, inverse, weights, slope = matrices
        return cls(scores, cache.kind, cache.tau, cache.approximate, inverse, weights, slope)

    def cache(self, shape):
        inverse = None if self.inverse is None else self.inverse.reshape(*shape[:-1], 1)
        slope = None if self.slope is None else self.slope.reshape(shape)
        return ThetaCache(
            *self.settings, self.scores.reshape(shape), inverse, self.weights.reshape(shape), slope
        )

    def _slices(self, rows):
        return (None if a is None else a[rows] for a in (self.weights, self.slope, self.inverse))

    def forward(self, rows):
        for some in self._blocks(rows):
            _theta_rows(self.scores[some], *self.settings, *self._slices(some))

    def backward(self, rows, dweights):
        for some in self._blocks(rows):
            dblock = dweights[some.start - rows.start : some.stop - rows.start]
            _theta_rows_backward(dblock, self.scores[some], *self.settings, *self._slices(some))

    def _blocks(self, rows):
        """A block that is right for a product may be too large for Θ."""
        parts = blocks(rows.stop - rows.start, self.scores.shape[1], BLOCK)
        return [slice(rows.start + part.start, rows.start + part.stop) for part in parts]


def theta_forward(scores, kind="l2_norm_gelu", tau=None, approximate="none"):
    if not _plain(scores) or not _theta_is_valid(kind, approximate) or scores.ndim < 1:
        return NotImplemented
    tau = pattention.check_tau(tau, scores.shape[-1])
    theta = _ThetaRows.allocate(_rows(scores), kind, tau, approximate)
    parts = blocks(*theta.scores.shape, BLOCK)
    run(lambda i: theta.forward(parts[i]), len(parts))
    cache = theta.cache(scores.shape)
    return cache.weights, cache._replace(scores=scores)


def theta_backward(dweights, cache):
    theta = _ThetaRows.of(cache)
    drows = _rows(_gradient(dweights, cache.scores.shape, cache.scores.dtype, "dweights"))
    dscores = empty(drows.shape, drows.dtype)
    parts = blocks(*drows.shape, BLOCK)

    def task(i):
        dscores[parts[i]] = drows[parts[i]]
        theta.backward(parts[i], dscores[parts[i]])

    run(task, len(parts))
    return dscores.reshape(cache.scores.shape)


def _theta_is_valid(kind, approximate):
    return kind in pattention.KINDS and approximate in ("none", "tanh")


# ------------------------------------------------------------------------------------------ pattention

PRODUCT_ROWS = 512  # BLAS packs the matrix for every block of rows: shorter blocks multiply up to 10 % slower


def _product_blocks(rows, width):
    """Blocks of rows to multiply by a matrix of `width` columns; four at least, where there are rows for it."""
    return blocks(rows, width, min(BLOCK, rows * width // 4), min(PRODUCT_ROWS, max(64, rows // 4)))


class PattentionCache(NamedTuple):
    x: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    theta: ThetaCache
    scale: float


def pattention_forward(
    x, key, value, kind="l2_norm_gelu", tau=None, scale=1.0, mask=None, approximate="none"
):
    """Scores, Θ and output of a block of rows while it is in the cache. A mask is left to the formula."""
    if not _plain(x, key, value) or mask is not None or not _theta_is_valid(kind, approximate):
        return NotImplemented
    if x.ndim < 1 or key.ndim != 2 or value.ndim != 2 or len(key) != len(value):
        return NotImplemented
    if x.shape[-1] != key.shape[1] or not _numbers(scale):
        return NotImplemented
    n = len(key)
    tau = pattention.check_tau(tau, n)
    rows, key_t, value_c = _rows(x), np.ascontiguousarray(key).T, np.ascontiguousarray(value)
    theta = _ThetaRows.allocate(empty((len(rows), n), x.dtype), kind, tau, approximate)
    out = empty((len(rows), value.shape[1]), x.dtype)
    parts = _product_blocks(len(rows), n)

    def task(i):
        part = parts[i]
        scores = np.matmul(rows[part], key_t, out=theta.scores[part])
        if scale != 1.0:
            scores *= scale
        theta.forward(part)
        np.matmul(theta.weights[part], value_c, out=out[part])

    run(task, len(parts))
    shape = (*x.shape[:-1], n)
    cache = theta.cache(shape)
    cache = PattentionCache(x, key, value, cache.scores, cache.weights, cache, scale)
    return out.reshape(*x.shape[:-1], value.shape[1]), cache


def pattention_backward(dout, cache):
    x, key, value, scores, weights, theta, scale = cache
    drows = _rows(_gradient(dout, (*x.shape[:-1], value.shape[1]), x.dtype))
    rows, key_c, value_t = _rows(x), np.ascontiguousarray(key), np.ascontiguousarray(value).T
    theta, dx = _ThetaRows.of(theta), empty(rows.shape, x.dtype)

    def backward(part):
        dscores = scratch("dscores", (part.stop - part.start, len(key)), x.dtype)
        np.matmul(drows[part], value_t, out=dscores)
        theta.backward(part, dscores)
        if scale != 1.0:
            dscores *= scale
        np.matmul(dscores, key_c, out=dx[part])
        return (dscores, rows[part]), (theta.weights[part], drows[part])

    dkey, dvalue = _weight_gradients(backward, len(rows), len(key), [key, value])
    return dx.reshape(x.shape), dkey, dvalue


def _weight_gradients(backward, rows, width, like):
    """Sums of leftᵀ @ right over blocks of rows, for the pairs that backward(block) leaves in the cache.

    Blocks are shared out among lanes, each with sums of its own that are added in the end: who works on which
    lane when changes no bit. Lanes depend on the shape alone: few, since each costs memory.
    """
    parts = _product_blocks(rows, width)
    lanes = blocks(len(parts), 1, max(1, len(parts) // min(16, max(4, len(parts) // 4))))
    sums = [empty((len(lanes), *a.shape), a.dtype) for a in like]

    def task(i):
        for j in range(*lanes[i].indices(len(parts))):
            for total, (left, right) in zip(sums, backward(parts[j]), strict=True):
                if j == lanes[i].start:
                    np.matmul(left.T, right, out=total[i])
                else:
                    total[i] += np.matmul(left.T, right, out=scratch("product", total[i].shape, total.dtype))

    run(task, len(lanes))
    return _sum_lanes(sums)


def _sum_lanes(sums):
    """The sum over the first axis of each array, lane after lane."""
    results = [empty(total.shape[1:], total.dtype) for total in sums]
    tasks = [
        (total, out, part)
        for total, out in zip(sums, results, strict=True)
        for part in blocks(*out.shape, BLOCK // 2)
    ]

    def task(i):
        total, out, part = tasks[i]
        out[part] = total[0, part] if len(total) else 0
        for lane in total[1:]:
            out[part] += lane[part]

    run(task, len(tasks))
    return results


# ---------------------------------------------------------------------------------------------- linear


class LinearCache(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def linear_forward(x, weight, bias=None):
    if not _plain(x, weight, bias) or weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is not None and bias.shape != weight.shape[:1]:
        return NotImplemented
    rows, weight_t = _rows(x), np.ascontiguousarray(weight).T
    out = empty((len(rows), len(weight)), x.dtype)
    parts = _product_blocks(len(rows), len(weight))

    def task(i):
        np.matmul(rows[parts[i]], weight_t, out=out[parts[i]])
        if bias is not None:
            out[parts[i]] += bias

    run(task, len(parts))
    return out.reshape(*x.shape[:-1], len(weight)), LinearCache(x, weight, bias)


def linear_backward(dout, cache):
    x, weight, bias = cache
    rows, weight_c = _rows(x), np.ascontiguousarray(weight)
    drows = _rows(_gradient(dout, (*x.shape[:-1], len(weight)), x.dtype))
    dx = empty(rows.shape, x.dtype)

    def backward(part):
        np.matmul(drows[part], weight_c, out=dx[part])
        return ((drows[part], rows[part]),)

    (dweight,) = _weight_gradients(backward, len(rows), len(weight), [weight])
    dx = dx.reshape(x.shape)
    return (dx, dweight) if bias is None else (dx, dweight, drows.sum(axis=0))


# ------------------------------------------------------------------------------------------ layer norm


class LayerNormCache(NamedTuple):
    normed: np.ndarray
    inverse_std: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def layer_norm_forward(x, weight=None, bias=None, eps=1e-5):
    if not _plain(x, weight, bias) or x.ndim < 1 or not _numbers(eps, low=0):
        return NotImplemented
    if any(a is not None and a.shape != x.shape[-1:] for a in (weight, bias)):
        return NotImplemented
    rows = _rows(x)
    normed, inverse = empty(rows.shape, x.dtype), empty((len(rows), 1), x.dtype)
    out = normed if weight is None and bias is None else empty(rows.shape, x.dtype)
    share = _ones(rows) / x.dtype.type(x.shape[-1])
    parts = blocks(*rows.shape, BLOCK)

    def task(i):
        part = parts[i]
        centered = np.subtract(rows[part], _dot(rows[part], share), out=normed[part])
        np.divide(1, np.sqrt(_dot(centered, centered) / x.shape[-1] + eps), out=inverse[part])
        centered *= inverse[part]
        if weight is not None:
            np.multiply(centered, weight, out=out[part])
        if bias is not None:
            np.add(centered if weight is None else out[part], bias, out=out[part])

    run(task, len(parts))
    cache = LayerNormCache(normed.reshape(x.shape), inverse.reshape(*x.shape[:-1], 1), weight, bias)
    return out.reshape(x.shape), cache


def layer_norm_backward(dout, cache):
    normed, inverse, weight, bias = cache
    drows = _rows(_gradient(dout, normed.shape, normed.dtype))
    normed, inverse = _rows(normed), _rows(inverse)
    dx = empty(drows.shape, drows.dtype)
    share = _ones(drows) / drows.dtype.type(drows.shape[-1])
    parts = blocks(*drows.shape, BLOCK)
    sums = np.zeros((2, len(parts), drows.shape[-1]), drows.dtype)  # dweight and dbias of each block

    def task(i):
        dout_i, normed_i, out = drows[parts[i]], normed[parts[i]], dx[parts[i]]
        product = np.multiply(dout_i, normed_i, out=scratch("layer norm", out.shape, out.dtype))
        if weight is not None:
            np.matmul(_ones_of(len(out), out.dtype), product, out=sums[0, i])
            product *= weight
        if bias is not None:
            np.matmul(_ones_of(len(out), out.dtype), dout_i, out=sums[1, i])
        dnormed = dout_i if weight is None else np.multiply(dout_i, weight, out=out)
        mean, slope = _dot(dnormed, share), _dot(product, share)
        np.multiply(normed_i, slope, out=product)
        product += mean
        np.subtract(dnormed, product, out=out)
        out *= inverse[parts[i]]

    run(task, len(parts))
    dx = dx.reshape(dout.shape)
    if weight is None and bias is None:
        return dx
    totals = sums.sum(axis=1)
    return (dx, *(total for total, array in zip(totals, (weight, bias), strict=True) if array is not None))


# ------------------------------------------------------------------------------------------- embedding


ONE_HOT_VOCABULARY = 256  # up to here the product is faster


class EmbeddingCache(NamedTuple):
    ids: np.ndarray
    weight: np.ndarray


def embedding_forward(ids, weight):
    if not _plain(weight) or weight.ndim != 2 or type(ids) is not np.ndarray or ids.dtype.kind not in "iu":
        return NotImplemented
    if ids.size == 0 or ids.min() < 0 or ids.max() >= len(weight):
        return NotImplemented
    return weight[ids], EmbeddingCache(ids, weight)


def embedding_backward(dout, cache):
    """A product with the one-hot matrix, or one sum per id over sorted rows: np.add.at adds row by row."""
    ids, weight = cache
    drows = _rows(_gradient(dout, (*ids.shape, weight.shape[1]), weight.dtype))
    flat = ids.reshape(-1)
    if len(weight) <= ONE_HOT_VOCABULARY:
        one_hot = np.zeros((flat.size, len(weight)), weight.dtype)
        one_hot[np.arange(flat.size), flat] = 1
        return _weight_gradients(lambda part: ((one_hot[part], drows[part]),), *one_hot.shape, [weight])[0]
    order = np.argsort(flat, kind="stable")
    present, starts = np.unique(flat[order], return_index=True)
    dweight = np.zeros(weight.shape, weight.dtype)
    dweight[present] = np.add.reduceat(drows[order], starts, axis=0)
    return dweight


# --------------------------------------------------------------------------------------- cross-entropy


class CrossEntropyCache(NamedTuple):
    probabilities: np.ndarray
    targets: np.ndarray
    kept: np.ndarray


def cross_entropy_forward(logits, targets, mask=None):
    if not _plain(logits) or logits.ndim < 1 or type(targets) is not np.ndarray:
        return NotImplemented
    if targets.shape != logits.shape[:-1] or targets.dtype.kind not in "iu":
        return NotImplemented
    if mask is not None and (
        type(mask) is not np.ndarray or mask.shape != targets.shape or mask.dtype != bool
    ):
        return NotImplemented
    rows, flat = _rows(logits), targets.reshape(-1)
    kept = np.ones(flat.shape, bool) if mask is None else mask.reshape(-1)
    if flat.min() < 0 or flat.max() >= rows.shape[1] or not kept.any():
        return NotImplemented
    probabilities, losses = empty(rows.shape, rows.dtype), np.empty(len(rows), rows.dtype)
    parts = blocks(*rows.shape, BLOCK)

    def task(i):
        part = parts[i]
        out = np.subtract(rows[part], rows[part].max(axis=1, keepdims=True), out=probabilities[part])
        picked = out[np.arange(len(out)), flat[part]]
        np.exp(out, out=out)
        total = _dot(out, _ones(out))
        np.subtract(np.log(total[:, 0]), picked, out=losses[part])
        out *= 1 / total

    run(task, len(parts))
    loss = np.where(kept, losses, 0).sum() / kept.sum().astype(rows.dtype)
    return loss, CrossEntropyCache(probabilities.reshape(logits.shape), flat, kept)


def cross_entropy_backward(dloss, cache):
    probabilities, targets, kept = cache
    if not isinstance(dloss, int | float):
        ops.check_like("dloss", dloss, ())
    rows = _rows(probabilities)
    share = (dloss * (kept.astype(rows.dtype) / kept.sum().astype(rows.dtype))).astype(rows.dtype)
    dlogits = empty(rows.shape, rows.dtype)
    parts = blocks(*rows.shape, BLOCK)

    def task(i):
        part = parts[i]
        out = np.multiply(rows[part], share[part, None], out=dlogits[part])
        out[np.arange(len(out)), targets[part]] -= share[part]

    run(task, len(parts))
    return dlogits.reshape(probabilities.shape)


# ------------------------------------------------------------------------------------------- attention

QUERY_ROWS = 64  # queries of a tile: keys after the tile's last query are never looked at
KEEP_LENGTH = (
    256  # tokens; up to here the tiles are small beside the other activations, and reading them faster
)
SAFE_SCORE = 30.0  # no row maximum is subtracted where all scores of a tile are this small


class AttentionCache(NamedTuple):
    query: np.ndarray  # (..., H, T, head_dim), rotated
    key: np.ndarray
    value: np.ndarray
    out: np.ndarray  # (..., H, T, head_dim)
    shift: np.ndarray  # (..., H, T, 1): the weights are exp(scores - shift) · inverse_total
    inverse_total: np.ndarray
    tiles: list  # what backward needs of exp(scores - shift), for short sequences; None for long ones
    rotary: attention.RotaryCache

    @property
    def past(self):
        """The keys and values so far: what the next call takes as `past` to generate token by token."""
        return self.key, self.value

    @property
    def weights(self):
        """(..., H, T, T), computed when asked for."""
        scores = self.query @ self.key.swapaxes(-1, -2) / math.sqrt(self.query.shape[-1])
        visible = np.tri(scores.shape[-1], dtype=bool)
        return np.exp(np.where(visible, scores - self.shift, -math.inf)) * self.inverse_total


def causal_attention_forward(query, key, value, n_heads=1, rotary_fraction=0.0, past=None):
    """Tiles of 64 queries of some heads and sequences: half of the T x T square is never computed."""
    if past is not None or not _plain(query, key, value) or query.ndim < 2:
        return NotImplemented
    if not isinstance(n_heads, int) or n_heads < 1 or query.shape[-1] % n_heads:
        return NotImplemented
    if not query.shape == key.shape == value.shape:
        return NotImplemented
    if query.shape[-2] == 1 or query.shape[-1] // n_heads < 2:
        return NotImplemented
    *batch, length, d = query.shape
    r = attention.rotary_channels(d // n_heads, rotary_fraction)
    _, rotary = _formula(attention.rotary_forward)(
        np.zeros((length, d // n_heads), query.dtype), rotary_fraction
    )
    cos, sin = _every_head(rotary, n_heads)
    inputs = [_heads(a, n_heads) for a in (query, key)]
    turned = [_heads(empty((math.prod(batch), length, d), query.dtype), n_heads) for _ in inputs]
    value = _heads(value, n_heads)
    out = _heads(empty((math.prod(batch), length, d), query.dtype), n_heads)
    shift, inverse = (empty((*out.shape[:-1], 1), query.dtype) for _ in range(2))
    tasks, tiles = _head_tasks(out.shape), None
    if length <= KEEP_LENGTH:
        tiles = [
            empty((*out.shape[:2], rows.stop - rows.start, rows.stop), query.dtype) for rows in _tiles(length)
        ]

    def task(i):
        part = tasks[i]
        for source, target in zip(inputs, turned, strict=True):
            target[part] = source[part]
            _turn(target, part, cos, sin, r)
        q, k, v = turned[0][part], turned[1][part], value[part]
        for tile, rows in enumerate(_tiles(length)):
            kept = None if tiles is None else tiles[tile][part]
            weights = _tile_weights(q, k, rows, shift[part][:, :, rows], out=kept)
            np.divide(1, _dot(weights, _ones(weights)), out=inverse[part][:, :, rows])
            heads = np.matmul(weights, v[:, :, : rows.stop], out=out[part][:, :, rows])
            heads *= inverse[part][:, :, rows]

    run(task, len(tasks))
    query, key, value, heads, shift, inverse = (
        a.reshape(*batch, *a.shape[1:]) for a in (*turned, value, out, shift, inverse)
    )
    cache = AttentionCache(query, key, value, heads, shift, inverse, tiles, rotary)
    return heads.swapaxes(-2, -3).reshape(*batch, length, d), cache


def causal_attention_backward(dout, cache):
    """The tiles again. Long sequences recompute exp(scores), so that no T x T array is kept."""
    query, key, value, out, shift, inverse, tiles, rotary = cache
    *batch, n_heads, length, head_dim = query.shape
    dtype, r = query.dtype, 2 * rotary.cos.shape[-1]
    dout = _gradient(dout, (*batch, length, n_heads * head_dim), dtype)
    query, key, value, out, shift, inverse = (
        a.reshape(-1, *a.shape[-3:]) for a in (query, key, value, out, shift, inverse)
    )
    dout = _heads(dout, n_heads)
    dquery, dkey, dvalue = (
        _heads(empty((len(query), length, n_heads * head_dim), dtype), n_heads) for _ in range(3)
    )
    cos, sin = _every_head(rotary, n_heads)
    tasks = _head_tasks(query.shape)
    scale = 1 / math.sqrt(head_dim)

    def task(i):
        part = tasks[i]
        q, k, v = query[part], key[part], value[part]
        dk, dv, term = (scratch(name, k.shape, dtype) for name in ("dkey", "dvalue", "term"))
        for tile, rows in reversed(
            [*enumerate(_tiles(length))]
        ):  # the last tile sees all keys: it fills dk, dv
            seen = slice(0, rows.stop)
            # up to the factor `inverse`, which goes into dheads
            if tiles is None:
                weights = _tile_weights(q, k, rows, shift[part][:, :, rows], known=True)
            else:
                weights = tiles[tile][part]
            dheads = scratch("dheads", (*q.shape[:2], rows.stop - rows.start, head_dim), dtype)
            np.multiply(dout[part][:, :, rows], inverse[part][:, :, rows], out=dheads)
            last = rows.stop == length
            target = dv if last else term[:, :, seen]
            np.matmul(weights.swapaxes(-1, -2), dheads, out=target)
            if not last:
                dv[:, :, seen] += target
            dheads *= scale
            dscores = scratch("dscores", weights.shape, dtype)
            np.matmul(dheads, v[:, :, seen].swapaxes(-1, -2), out=dscores)
            dscores -= _dot(dheads, out[part][:, :, rows])
            dscores *= weights
            np.matmul(dscores, k[:, :, seen], out=dquery[part][:, :, rows])
            target = dk if last else term[:, :, seen]
            np.matmul(dscores.swapaxes(-1, -2), q[:, :, rows], out=target)
            if not last:
                dk[:, :, seen] += target
        dkey[part], dvalue[part] = dk, dv
        _turn(dquery, part, cos, -sin, r)
        _turn(dkey, part, cos, -sin, r)

    run(task, len(tasks))
    return tuple(a.swapaxes(1, 2).reshape(*batch, length, -1) for a in (dquery, dkey, dvalue))


def _heads(a, n_heads):
    """(..., T, d) -> (B, H, T, head_dim), a view where the array is C-contiguous."""
    return np.ascontiguousarray(a).reshape(-1, a.shape[-2], n_heads, a.shape[-1] // n_heads).swapaxes(1, 2)


def _head_tasks(shape):
    """Slices of sequences and heads, so that a tile of all of them has about two blocks of scores."""
    batch, n_heads, length, _ = shape
    units = max(1, 2 * BLOCK // (min(QUERY_ROWS, length) * length))
    heads = blocks(n_heads, 1, units)
    return [(sequences, some) for sequences in blocks(batch, 1, max(1, units // n_heads)) for some in heads]


def _tiles(length):
    return blocks(length, 1, QUERY_ROWS)


@functools.lru_cache(64)
def _causal_of(size, dtype):
    return np.tri(size, dtype=dtype)


def _causal(rows, dtype):
    """1 where a query of the tile sees a key of the tile, else 0."""
    return _causal_of(rows.stop - rows.start, dtype)


def _tile_weights(q, k, rows, shift, known=False, out=None):
    """exp(q · k / √head_dim - shift) of a tile, 0 where a key is not visible; shift is an output unless known."""
    shape = (*q.shape[:2], rows.stop - rows.start, rows.stop)
    weights = scratch("scores", shape, q.dtype) if out is None else out
    np.matmul(q[:, :, rows], k[:, :, : rows.stop].swapaxes(-1, -2), out=weights)
    weights *= q.dtype.type(1 / math.sqrt(q.shape[-1]))
    mask = _causal(rows, q.dtype)
    if not known:
        shift[...] = 0
        largest = max(weights.max(), -weights.min())
        if not largest <= SAFE_SCORE:
            weights[..., rows] = np.where(mask, weights[..., rows], -math.inf)
            shift[...] = weights.max(axis=-1, keepdims=True)
    if shift.any():
        weights -= shift
        np.minimum(weights, 0, out=weights)  # what is not visible may be huge
    np.exp(weights, out=weights)
    weights[..., rows] *= mask
    return weights


def _every_head(rotary, n_heads):
    """cos and sin, (T · H · r/2,), in the order of the channels of (T, H, r/2)."""
    return [np.repeat(a[:, None], n_heads, axis=1) for a in rotary]


def _turn(a, part, cos, sin, r):
    """Rotate the first r channels of some heads of (B, H, T, head_dim), in place.

    Channels of one pair of halves are r/2 numbers long, too short for a ufunc's inner loop: they are copied
    side by side first, each half as one item of r/2 · itemsize bytes.
    """
    if not r:
        return
    a = a[part].swapaxes(1, 2)  # (B, T, H, head_dim)
    cos, sin = cos[:, part[1]], sin[:, part[1]]
    item = np.dtype({4: "u4", 8: "u8", 16: "c16"}.get(r // 2 * a.itemsize, f"V{r // 2 * a.itemsize}"))
    bytes_of = (a[..., start : start + r // 2].view(np.uint8) for start in (0, r // 2))
    views = [b.view(item)[..., 0] for b in bytes_of]  # (B, T, H)
    first, second = (np.ascontiguousarray(view).view(a.dtype).reshape(*a.shape[:3], -1) for view in views)
    turned = first * cos
    turned -= second * sin
    np.copyto(views[0], turned.view(item)[..., 0])
    second *= cos
    first *= sin
    second += first
    np.copyto(views[1], second.view(item)[..., 0])


# ----------------------------------------------------------------------------------------------- trees


def adamw_step(params, grads, state, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """All leaves in blocks, 13 passes each while the block is in the cache."""
    if not isinstance(state, dict) or not {"step", "m", "v"} <= state.keys():
        return NotImplemented
    leaves, step = _leaves(params, grads, state["m"], state["v"]), state["step"]
    if leaves is None or not isinstance(betas, tuple | list) or len(betas) != 2:
        return NotImplemented
    if not _numbers(step, lr, *betas, eps, weight_decay, low=0) or max(betas) >= 1 or step != int(step):
        return NotImplemented
    (beta1, beta2), step = betas, step + 1
    unbias = 1 / math.sqrt(1 - beta2**step)
    scale = lr / (1 - beta1**step) / unbias
    tasks = [(*leaf, part) for leaf in leaves for part in _leaf_parts(leaf[0])]

    def task(i):
        *leaf, part = tasks[i]
        p, g, m, v = (a[part] for a in leaf)
        term = scratch("adamw", p.shape, p.dtype)
        np.multiply(g, 1 - beta1, out=term)
        m *= beta1
        m += term
        np.square(g, out=term)
        term *= 1 - beta2
        v *= beta2
        v += term
        np.sqrt(v, out=term)
        term += eps / unbias
        np.divide(m, term, out=term)
        term *= scale
        if leaf[0].ndim >= 2:
            p *= 1 - lr * weight_decay
        p -= term

    run(task, len(tasks))
    return params, {**state, "step": step}


def clip_by_global_norm(grads, max_norm):
    """Where nothing is to be clipped, the gradients themselves come back."""
    leaves = _leaves(grads)
    if leaves is None or not _numbers(max_norm) or max_norm <= 0:
        return NotImplemented
    dtype = leaves[0][0].dtype
    tasks = [(leaf, part) for (leaf,) in leaves for part in _leaf_parts(leaf)]
    squares = np.empty(len(tasks), dtype)

    def task(i):
        leaf, part = tasks[i]
        flat = np.ascontiguousarray(leaf[part]).reshape(-1)
        squares[i] = np.vecdot(flat, flat)

    run(task, len(tasks))
    norm = np.sqrt(squares.sum())
    factor = np.minimum(1, max_norm / (norm + dtype.type(1e-6)))
    return (grads if factor == 1 else tree_map(lambda g: g * factor, grads)), norm


def _leaves(*trees):
    """The leaves side by side; None unless they match and are float32 or float64 arrays of NumPy."""
    leaves = []
    try:
        tree_map(lambda *leaf: leaves.append(leaf), *trees)
    except (ValueError, AttributeError, TypeError):
        return None
    shapes_fit = all(len({getattr(a, "shape", None) for a in leaf}) == 1 for leaf in leaves)
    return leaves if shapes_fit and _plain(*(a for leaf in leaves for a in leaf)) else None


def _leaf_parts(leaf):
    """Slices along the first axis; the whole of a scalar."""
    return blocks(len(leaf), leaf[:1].size, BLOCK) if leaf.ndim else [...]


FORWARD = {
    function.__name__: function
    for function in (
        theta_forward,
        pattention_forward,
        gelu_forward,
        linear_forward,
        layer_norm_forward,
        embedding_forward,
        cross_entropy_forward,
        causal_attention_forward,
        adamw_step,
        clip_by_global_norm,
    )
}

BACKWARD = {
    ("theta_backward", ThetaCache): theta_backward,
    ("pattention_backward", PattentionCache): pattention_backward,
    ("gelu_backward", GeluCache): gelu_backward,
    ("linear_backward", LinearCache): linear_backward,
    ("layer_norm_backward", LayerNormCache): layer_norm_backward,
    ("embedding_backward", EmbeddingCache): embedding_backward,
    ("cross_entropy_backward", CrossEntropyCache): cross_entropy_backward,
    ("causal_attention_backward", AttentionCache): causal_attention_backward,
}
