"""Every elementary formula once, as a pair: `out, cache = f_forward(...)` and its gradients `f_backward(dout, cache)`.

A backward function returns one gradient per array that the forward got, in argument order, and reads as the
forward from the bottom up, the same names with a `d` in front. Nothing is accumulated and no input changes.
The last axis is always the one that an operation works along; any axes before it are independent rows.
"""

import math
from typing import NamedTuple

import numpy as np

from .backend import array_module, check_number, float_module, has_fast_twin

Array = object  # a NumPy or CuPy array: which of them, the arrays themselves decide


# ---------------------------------------------------------------------------------------------- linear


class LinearCache(NamedTuple):
    x: Array
    weight: Array
    bias: Array


@has_fast_twin
def linear_forward(x, weight, bias=None):
    """Linear layer, out = x Wᵀ + b. One row of `weight` is one output unit, as in torch.

    x: (..., d_in)   weight: (d_out, d_in)   bias: (d_out,) or None   ->   out: (..., d_out)
    Cost: 2 d_in d_out FLOPs per row of x. Raises ValueError where widths differ.

    >>> linear_forward(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 1.0]]))[0]
    array([[3., 2.]])
    """
    float_module(x=x, weight=weight, bias=bias, optional=("bias",))
    if weight.ndim != 2 or 0 in weight.shape or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and weight {weight.shape}: weight must be (d_out, d_in) with d_in equal "
            "to the last axis of x. Is weight transposed?"
        )
    out = x @ weight.T  # (..., d_in) -> (..., d_out)
    if bias is not None:
        if bias.shape != (weight.shape[0],):
            raise ValueError(f"bias has shape {bias.shape}, but weight has {weight.shape[0]} rows")
        out = out + bias
    return out, LinearCache(x, weight, bias)


@has_fast_twin
def linear_backward(dout, cache):
    """dx, dweight (and dbias, where a bias was given)."""
    x, weight, bias = cache
    check_like("dout", dout, (*x.shape[:-1], weight.shape[0]), x.dtype)
    rows, drows = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    dx = dout @ weight
    dweight = drows.T @ rows
    return (dx, dweight) if bias is None else (dx, dweight, drows.sum(axis=0))


# ------------------------------------------------------------------------------------------------ GeLU


def _erfcx_polynomial(degree, k=2.0, z_max=6.0):
    """Coefficients, highest first, of a polynomial in u = 1 - 2k/(z+k) that fits exp(z²) erfc(z), z >= 0.

    Beyond z_max the Gaussian tail, below 2e-17, hides whatever the polynomial says.
    """
    u = np.cos(np.pi * (np.arange(256) + 0.5) / 256)  # Chebyshev nodes
    u = -1 + (u + 1) / 2 * (2 - 2 * k / (z_max + k))
    z = k * (1 + u) / (1 - u)
    target = [math.exp(v * v) * math.erfc(v) for v in z]
    weight = np.exp(-z * z / 2) + 1e-6  # what counts is the error after multiplication by exp(-z²)
    fit = np.polynomial.Chebyshev.fit(u, target, degree, domain=[-1, 1], w=weight)
    return [float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef[::-1]]


# NumPy has no erf. Largest error of the CDF: 2e-15 in float64, 2e-7 in float32 (measured against SciPy).
_ERFCX = {"f8": (2.0, _erfcx_polynomial(20)), "f4": (2.0, _erfcx_polynomial(8))}


def normal_cdf_pdf(x):
    """Φ(x) and φ(x): cumulative distribution and density of the standard normal, elementwise.

    Φ(x) = ½ erfc(-x/√2), with erfc(z) = exp(-z²) times a polynomial in 1/(z+2): one exp serves both results.

    >>> cdf, pdf = normal_cdf_pdf(np.array([0.0, 1.96]))
    >>> print(cdf.round(4), pdf.round(4))
    [0.5   0.975] [0.3989 0.0584]
    """
    xp = float_module(x=x)
    k, coefficients = _ERFCX["f8" if x.dtype.itemsize >= 8 else "f4"]
    x = xp.clip(x, -40, 40)  # beyond, Φ is 0 or 1 in every precision, and squares would overflow
    bell = xp.exp(-0.5 * x * x)
    u = 1 - 2 * k / (xp.abs(x) * math.sqrt(0.5) + k)
    scaled = xp.full_like(u, coefficients[0])
    for c in coefficients[1:]:
        scaled = scaled * u + c
    tail = 0.5 * bell * scaled  # Φ(-|x|)
    return xp.where(x < 0, tail, 1 - tail), bell * (1 / math.sqrt(2 * math.pi))


class GeluCache(NamedTuple):
    x: Array
    cdf: Array
    pdf: Array


@has_fast_twin
def gelu_forward(x, approximate="none"):
    """GeLU, out = x Φ(x), with Φ the cumulative normal distribution (Hendrycks and Gimpel, 2016).

    approximate, torch's word: "none" is exact; "tanh" replaces Φ by ½ (1 + tanh(√(2/π) (x + 0.044715 x³))).
    paper, release: exact / the TPU code: tanh / here: exact unless asked.

    >>> gelu_forward(np.array([-1.0, 0.0, 1.0]))[0].round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    xp = float_module(x=x)
    check_choice("approximate", approximate, ("none", "tanh"))
    if approximate == "none":
        cdf, pdf = normal_cdf_pdf(x)
    else:
        slope, near = (
            math.sqrt(2 / math.pi),
            xp.clip(x, -40, 40),
        )  # beyond, tanh is -1 or 1, and cubes overflow
        tanh = xp.tanh(slope * (near + 0.044715 * near**3))
        cdf = 0.5 * (1 + tanh)
        pdf = 0.5 * (1 - tanh * tanh) * slope * (1 + 3 * 0.044715 * near * near)
    return x * cdf, GeluCache(x, cdf, pdf)


@has_fast_twin
def gelu_backward(dout, cache):
    """dx = dout (Φ(x) + x φ(x))."""
    x, cdf, pdf = cache
    check_like("dout", dout, x.shape, x.dtype)
    return dout * (cdf + x * pdf)


# --------------------------------------------------------------------------------------------- softmax


@has_fast_twin
def softmax_forward(x):
    """Softmax over the last axis; the row maximum is subtracted first, so nothing overflows.

    The cache is the output. Entries of -inf get weight zero (at least one per row must be finite).

    >>> softmax_forward(np.array([1000.0, 1000.0]))[0]
    array([0.5, 0.5])
    """
    xp = float_module(x=x)
    check_rows("x", x)
    exp = xp.exp(x - x.max(axis=-1, keepdims=True))
    out = exp / exp.sum(axis=-1, keepdims=True)
    return out, out


@has_fast_twin
def softmax_backward(dout, cache):
    """dx = out (dout - Σ dout out)."""
    out = cache
    check_like("dout", dout, out.shape, out.dtype)
    return out * (dout - (dout * out).sum(axis=-1, keepdims=True))


# ------------------------------------------------------------------------------------------ layer norm


class LayerNormCache(NamedTuple):
    normed: Array
    inverse_std: Array
    weight: Array
    bias: Array


@has_fast_twin
def layer_norm_forward(x, weight=None, bias=None, eps=1e-5):
    """Layer norm over the last axis, out = (x - mean) / √(var + eps), times weight plus bias if given.

    x: (..., d)   weight, bias: (d,) or None. `var` divides by d, not by d - 1.
    paper: no weight and bias anywhere / release: none in the blocks, both in the final norm / here: as passed.

    >>> layer_norm_forward(np.array([1.0, 3.0]), eps=0.0)[0]
    array([-1.,  1.])
    """
    xp = float_module(x=x, weight=weight, bias=bias, optional=("weight", "bias"))
    check_rows("x", x)
    eps = check_number("eps", eps, low=0)
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.shape != x.shape[-1:]:
            raise ValueError(f"{name} has shape {array.shape}, but rows of x have {x.shape[-1]} entries")
    centered = x - x.mean(axis=-1, keepdims=True)
    inverse_std = 1 / xp.sqrt((centered * centered).mean(axis=-1, keepdims=True) + eps)
    normed = centered * inverse_std
    out = normed if weight is None else normed * weight
    out = out if bias is None else out + bias
    return out, LayerNormCache(normed, inverse_std, weight, bias)


@has_fast_twin
def layer_norm_backward(dout, cache):
    """dx, followed by dweight and dbias where these were given; dx alone where neither was."""
    normed, inverse_std, weight, bias = cache
    check_like("dout", dout, normed.shape, normed.dtype)
    drows = dout.reshape(-1, dout.shape[-1])
    dnormed = dout if weight is None else dout * weight
    dcentered = dnormed - normed * (dnormed * normed).mean(axis=-1, keepdims=True)
    dx = inverse_std * (dcentered - dnormed.mean(axis=-1, keepdims=True))
    if weight is None and bias is None:
        return dx
    grads = [dx]
    if weight is not None:
        grads.append((drows * normed.reshape(drows.shape)).sum(axis=0))
    if bias is not None:
        grads.append(drows.sum(axis=0))
    return tuple(grads)


# ------------------------------------------------------------------------------------------- embedding


class EmbeddingCache(NamedTuple):
    ids: Array
    weight: Array


@has_fast_twin
def embedding_forward(ids, weight):
    """Look rows up, out = weight[ids].

    ids: integers of any shape (...)   weight: (vocab_size, d)   ->   out: (..., d)
    Raises TypeError for ids that are not integers and IndexError for ids outside the vocabulary (checked
    on the CPU only: on a GPU the check would make every step wait for the device).

    >>> embedding_forward(np.array([1, 1]), np.array([[0.0], [5.0]]))[0]
    array([[5.],
           [5.]])
    """
    array_module(ids=ids, weight=weight)
    float_module(weight=weight)
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"weight has shape {weight.shape}: it must be (vocab_size, d)")
    check_ids("ids", ids, weight.shape[0])
    return weight[ids], EmbeddingCache(ids, weight)


@has_fast_twin
def embedding_backward(dout, cache):
    """dweight: every looked-up row gets the sum of the gradients of its copies."""
    ids, weight = cache
    check_like("dout", dout, (*ids.shape, weight.shape[1]), weight.dtype)
    xp = array_module(dout=dout, weight=weight)
    dweight = xp.zeros_like(weight)
    xp.add.at(dweight, ids.reshape(-1), dout.reshape(-1, weight.shape[1]))
    return dweight


# --------------------------------------------------------------------------------------- cross-entropy


class CrossEntropyCache(NamedTuple):
    probabilities: Array
    targets: Array
    kept: Array


@has_fast_twin
def cross_entropy_forward(logits, targets, mask=None):
    """Mean of -log softmax(logits)[target] over the kept tokens, in nats.

    logits: (..., vocab_size)   targets: (...) integers   mask: (...) bool, True = the token counts, or None
    Returns a scalar array of the dtype of logits. Raises ValueError where shapes differ or nothing is kept.

    >>> loss, _ = cross_entropy_forward(np.zeros((3, 4)), np.array([0, 1, 2]))
    >>> print(loss.round(4))  # log 4
    1.3863
    """
    xp = array_module(logits=logits, targets=targets, mask=mask)
    float_module(logits=logits)
    check_rows("logits", logits)
    check_like("targets", targets, logits.shape[:-1])
    check_ids("targets", targets, logits.shape[-1])
    if mask is not None:
        check_like("mask", mask, targets.shape)
        if mask.dtype != bool:
            raise TypeError(f"mask has dtype {mask.dtype}: pass booleans, True where a token counts")
    rows = logits.reshape(-1, logits.shape[-1])
    targets = targets.reshape(-1)
    kept = xp.ones(targets.shape, bool) if mask is None else mask.reshape(-1)
    if xp is np and not kept.any():
        raise ValueError("there is no token to average over: mask keeps none, or the batch is empty")

    shifted = rows - rows.max(axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    total = exp.sum(axis=-1, keepdims=True)
    picked = shifted[xp.arange(targets.size), targets]
    losses = xp.log(total[:, 0]) - picked
    loss = xp.where(kept, losses, 0).sum() / kept.sum().astype(logits.dtype)
    return loss, CrossEntropyCache((exp / total).reshape(logits.shape), targets, kept)


@has_fast_twin
def cross_entropy_backward(dloss, cache):
    """dlogits = dloss (softmax(logits) - one_hot(targets)) / number of kept tokens; zero where masked."""
    probabilities, targets, kept = cache
    xp = array_module(probabilities=probabilities)
    if not isinstance(dloss, int | float):
        float_module(dloss=dloss)
        check_like("dloss", dloss, ())
    drows = probabilities.reshape(-1, probabilities.shape[-1]).copy()
    drows[xp.arange(targets.size), targets] -= 1
    share = kept.astype(drows.dtype) / kept.sum().astype(drows.dtype)
    return (drows * (dloss * share)[:, None]).reshape(probabilities.shape).astype(drows.dtype)


# ---------------------------------------------------------------------------------------------- checks


def check_like(name, array, shape, dtype=None):
    """Raise TypeError unless `array` is one, of this dtype if one is given, and ValueError unless it has this shape."""
    array_module(**{name: array})
    if not hasattr(array, "shape"):
        raise TypeError(f"{name} is a {type(array).__name__}: pass an array of shape {tuple(shape)}")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but {dtype} is needed, as in {name}.astype(np.{dtype})"
        )
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(array.shape)}, but {tuple(shape)} is needed")


def check_choice(name, value, choices):
    """Raise ValueError unless the value is one of the strings to choose from."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}: choose {' or '.join(map(repr, choices))}")


def check_rows(name, array):
    """Raise ValueError unless there is a last axis to work along."""
    if array.ndim < 1 or array.shape[-1] < 1:
        raise ValueError(f"{name} has shape {array.shape}: pass rows, (..., n), of at least one number")


def check_ids(name, ids, vocab_size):
    """Raise TypeError unless ids are integers, IndexError unless (on the CPU) they are in the vocabulary."""
    xp = array_module(**{name: ids})
    if not hasattr(ids, "dtype") or ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer array, not {getattr(ids, 'dtype', type(ids).__name__)}")
    if xp is np and ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        bad = ids[(ids < 0) | (ids >= vocab_size)][0]
        raise IndexError(f"{name} contain {bad}, but the vocabulary has ids 0 to {vocab_size - 1}")
