"""Pattention: tokens attend to parameters (TokenFormer, arXiv 2410.23168, section 3.2).

A layer's parameters are n tokens, each a key and a value. An input token scores every key, Θ turns the
scores into weights, and the output is the weighted sum of the values:

    Pattention(X, K, V) = Θ(X Kᵀ) V                                                     (paper, eq. 4)

It is attention in which the other side is not the sequence but the layer itself; to make the layer larger,
append tokens.
"""

import math
from typing import NamedTuple

import numpy as np

from .backend import array_module, check_number, float_module, has_fast_twin
from .ops import Array, check_like, gelu_backward, gelu_forward, softmax_backward, softmax_forward

KINDS = ("l2_norm_gelu", "gelu_l2_norm", "softmax", "l1_norm_gelu", "gelu")


class ThetaCache(NamedTuple):
    kind: str
    tau: float
    scores: Array
    inverse_norm: Array  # of the row that is normalized, (..., 1); None where no norm is taken
    normed: Array  # what the norm or the softmax gives, before tau
    gelu: tuple  # the cache of the GeLU inside, or None


@has_fast_twin
def theta_forward(scores, kind="l2_norm_gelu", tau=None, approximate="none"):
    """Θ, from scores to weights, along the last axis of n parameter tokens. tau=None means √n.

        l2_norm_gelu   GeLU(τ a / |a|₂)        the paper's Θ (App. A, eq. 16) and the release's default
        gelu_l2_norm   τ g / |g|₂, g = GeLU(a)
        softmax        τ² softmax(a)           sums to n, not to 1 (release: exp-L1 norm times n)
        l1_norm_gelu   GeLU(τ² a / |a|₁)       paper, table 4
        gelu           GeLU(a)                 no norm: the hidden layer of an MLP; tau is not used

    scores: (..., n)  ->  weights: (..., n). approximate: GeLU exact ("none") or "tanh".
    A row of zeros has no direction. paper: undefined / release: NaN / here: zero weights, zero gradients.

    >>> theta_forward(np.array([[3.0, 4.0]]), tau=5.0)[0].round(3)  # GeLU of (3, 4)
    array([[2.996, 4.   ]])
    """
    float_module(scores=scores)
    if scores.ndim < 1 or scores.shape[-1] < 1:
        raise ValueError(f"scores have shape {scores.shape}: the last axis must hold the parameter tokens")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"theta {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    tau = check_tau(tau, scores.shape[-1])
    inverse, gelu = None, None
    if kind == "l2_norm_gelu":
        inverse = _inverse_norm(scores, 2)
        normed = scores * inverse
        weights, gelu = gelu_forward(tau * normed, approximate)
    elif kind == "gelu_l2_norm":
        activated, gelu = gelu_forward(scores, approximate)
        inverse = _inverse_norm(activated, 2)
        normed = activated * inverse
        weights = tau * normed
    elif kind == "l1_norm_gelu":
        inverse = _inverse_norm(scores, 1)
        normed = scores * inverse
        weights, gelu = gelu_forward(tau**2 * normed, approximate)
    elif kind == "softmax":
        normed, _ = softmax_forward(scores)
        weights = tau**2 * normed
    else:  # "gelu"
        normed = scores
        weights, gelu = gelu_forward(scores, approximate)
    return weights, ThetaCache(kind, tau, scores, inverse, normed, gelu)


@has_fast_twin
def theta_backward(dweights, cache):
    """dscores. For the L2 norm, with û = a/|a|:  da = (dû - û (û·dû)) / |a|  (paper, App. A, eq. 25)."""
    kind, tau, scores, inverse, normed, gelu = cache
    check_like("dweights", dweights, scores.shape, scores.dtype)
    if kind == "l2_norm_gelu":
        dnormed = tau * gelu_backward(dweights, gelu)
        return _l2_norm_backward(dnormed, normed, inverse)
    if kind == "gelu_l2_norm":
        dactivated = _l2_norm_backward(tau * dweights, normed, inverse)
        return gelu_backward(dactivated, gelu)
    if kind == "l1_norm_gelu":
        dnormed = tau**2 * gelu_backward(dweights, gelu)
        sign = array_module(scores=scores).sign(scores)
        return inverse * (dnormed - sign * (normed * dnormed).sum(axis=-1, keepdims=True))
    if kind == "softmax":
        return softmax_backward(tau**2 * dweights, normed)
    return gelu_backward(dweights, gelu)


class PattentionCache(NamedTuple):
    x: Array
    key: Array
    value: Array
    scores: Array
    weights: Array
    theta: ThetaCache
    scale: float
    mask: Array


@has_fast_twin
def pattention_forward(
    x, key, value, kind="l2_norm_gelu", tau=None, scale=1.0, mask=None, approximate="none"
):
    """Attend from input tokens to parameter tokens: out = Θ(scale x Kᵀ) V  (paper, eq. 4).

    x: (..., d_in)   key: (n, d_in)   value: (n, d_out)   ->   out: (..., d_out)
    tau: see `theta_forward`; √n at birth. scale: factor before Θ, where the L2 norm cancels it.
    mask: bool, (T, n) or what broadcasts to the scores; False multiplies a score by 0, as the release does
    (so softmax still gives a masked token exp(0), and n in τ stays). Cost: 2 n (d_in + d_out) FLOPs per token.

    >>> x, key, value = np.array([[3.0, 4.0]]), np.eye(2), np.array([[1.0], [10.0]])
    >>> pattention_forward(x, key, value, tau=5.0)[0].round(2)
    array([[42.99]])
    """
    float_module(x=x, key=key, value=value)
    array_module(x=x, mask=mask)
    if key.ndim != 2 or value.ndim != 2 or 0 in key.shape + value.shape or x.ndim < 1:
        raise ValueError(
            f"x has shape {x.shape}, key {key.shape}, value {value.shape}: "
            "key and value must be (n, d_in) and (n, d_out), one row per parameter token"
        )
    if x.shape[-1] != key.shape[1]:
        raise ValueError(f"key has {key.shape[1]} columns but x has {x.shape[-1]}: did you pass value?")
    if key.shape[0] != value.shape[0]:
        raise ValueError(f"key has {key.shape[0]} tokens (rows) but value has {value.shape[0]}")
    scores = x @ key.T  # (..., d_in) -> (..., n)
    scale = check_number("scale", scale, low=-math.inf)
    if scale != 1.0:
        scores = scores * scale
    if mask is not None:
        _check_mask(mask, scores.shape)
        scores = scores * mask
    weights, theta = theta_forward(scores, kind, tau, approximate)
    out = weights @ value  # (..., n) -> (..., d_out)
    return out, PattentionCache(x, key, value, scores, weights, theta, scale, mask)


@has_fast_twin
def pattention_backward(dout, cache):
    """dx, dkey, dvalue."""
    x, key, value, _, weights, theta, scale, mask = cache
    check_like("dout", dout, (*x.shape[:-1], value.shape[1]), x.dtype)
    n = len(key)
    dvalue = weights.reshape(-1, n).T @ dout.reshape(-1, dout.shape[-1])
    dweights = dout @ value.T
    dscores = theta_backward(dweights, theta)
    if mask is not None:
        dscores = dscores * mask
    if scale != 1.0:
        dscores = dscores * scale
    dkey = dscores.reshape(-1, n).T @ x.reshape(-1, x.shape[-1])
    dx = dscores @ key
    return dx, dkey, dvalue


def check_tau(tau, n):
    """tau as a number: √n where it is None. Raises ValueError unless it is positive and finite."""
    tau = math.sqrt(n) if tau is None else check_number("tau", tau)
    if not (tau > 0 and 0 < tau * tau < math.inf):  # softmax and the L1 norm use its square
        raise ValueError(f"tau is {tau}: it must be positive and finite (None means sqrt(n))")
    return tau


def _check_mask(mask, shape):
    if getattr(mask, "dtype", None) != "bool":
        found = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"mask has dtype {found}: pass booleans, True where a token is kept")
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"mask has shape {mask.shape} but the scores have {tuple(shape)}: pass (T, n)")


def _inverse_norm(a, order):
    """1/|a| of each row, (..., 1), and 0 for a row of zeros.

    Rows are divided by their largest entry first: squares of entries above 1e19 overflow float32.
    """
    xp = array_module(a=a)
    largest = xp.abs(a).max(axis=-1, keepdims=True)
    alive = largest > xp.finfo(a.dtype).tiny
    unit = a / xp.where(alive, largest, 1)
    if order == 2:
        norm = xp.sqrt((unit * unit).sum(axis=-1, keepdims=True))
    else:
        norm = xp.abs(unit).sum(axis=-1, keepdims=True)
    return xp.where(alive, 1 / xp.where(alive, largest, 1) / xp.where(alive, norm, 1), 0)


def _l2_norm_backward(dnormed, normed, inverse):
    return inverse * (dnormed - normed * (normed * dnormed).sum(axis=-1, keepdims=True))
