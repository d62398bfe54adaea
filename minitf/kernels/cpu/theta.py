"""Θ of a block of rows: norm, scale and GeLU in place, backward in the memory of the gradient."""

from typing import NamedTuple

import numpy as np

from ... import pattention
from ..memory import empty, scratch
from ..threads import blocks, run
from .common import BLOCK, as_rows, compiled, dot, formula, gradient, ones, plain
from .gelu import gelu_block

# Norms whose squares neither overflow nor drown: rows outside are done again by the formula.
_SAFE = {np.dtype(np.float32): (1e-15, 1e15), np.dtype(np.float64): (1e-140, 1e140)}


def _suspicious(inverse):
    """Rows that the formula has to do again."""
    low, high = _SAFE[inverse.dtype]
    safe = (inverse[:, 0] > low) & (inverse[:, 0] < high)  # False for NaN
    return () if safe.all() else np.flatnonzero(~safe)


def _theta_rows(a, kind, tau, approximate, weights, slope, inverse):
    """Θ of a block of rows; fills weights, slope (2 GeLU') and inverse (1 / norm)."""
    if kind == "softmax":
        np.subtract(a, a.max(axis=1, keepdims=True), out=weights)
        np.exp(weights, out=weights)
        weights *= tau**2 / dot(weights, ones(weights))
        return
    half_factor = 0.5
    if kind == "l2_norm_gelu":
        np.divide(1, np.sqrt(dot(a, a)), out=inverse)
        half_factor = (0.5 * tau) * inverse
    elif kind == "l1_norm_gelu":
        np.abs(a, out=weights)
        np.divide(1, dot(weights, ones(a)), out=inverse)
        half_factor = (0.5 * tau**2) * inverse
    gelu_block(a, half_factor, weights, slope, approximate)
    if kind == "gelu_l2_norm":
        np.divide(1, np.sqrt(dot(weights, weights)), out=inverse)
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
        dweights -= dot(dweights, weights) / tau**2
        dweights *= weights
    elif kind == "gelu_l2_norm":
        np.multiply(weights, dot(dweights, weights) / tau**2, out=term)
        dweights -= term
        dweights *= (0.5 * tau) * inverse
        dweights *= slope
    elif kind == "l2_norm_gelu" and compiled(a.dtype) is not None:
        compiled(a.dtype).l2_norm_gelu_backward(dweights, a, slope, inverse[:, 0], np.float32(0.5 * tau))
    else:
        dweights *= slope
        if kind == "l2_norm_gelu":
            np.multiply(a, dot(dweights, a) * inverse**2, out=term)
            dweights -= term
            dweights *= (0.5 * tau) * inverse
        elif kind == "l1_norm_gelu":
            np.sign(a, out=term)
            term *= dot(dweights, a) * inverse
            dweights -= term
            dweights *= (0.5 * tau**2) * inverse
        else:
            dweights *= 0.5
    if len(rows):
        _, cache = _formula_theta(a[rows], kind, tau, approximate)
        dweights[rows] = formula(pattention.theta_backward)(kept, cache)


def _formula_theta(scores, kind, tau, approximate):
    return formula(pattention.theta_forward)(scores, kind, tau, approximate)


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


class ThetaRows:
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
        matrices = (None if a is None else as_rows(a) for a in cache[3:])
        scores, inverse, weights, slope = matrices
        return cls(scores, cache.kind, cache.tau, cache.approximate, inverse, weights, slope)

    def cache(self, shape):
        inverse = None if self.inverse is None else self.inverse.reshape(*shape[:-1], 1)
        slope = None if self.slope is None else self.slope.reshape(shape)
        return ThetaCache(
            *self.settings, self.scores.reshape(shape), inverse, self.weights.reshape(shape), slope
        )

    def slices(self, rows):
        return (None if a is None else a[rows] for a in (self.weights, self.slope, self.inverse))

    def forward(self, rows):
        for some in self._blocks(rows):
            _theta_rows(self.scores[some], *self.settings, *self.slices(some))

    def backward(self, rows, dweights):
        for some in self._blocks(rows):
            dblock = dweights[some.start - rows.start : some.stop - rows.start]
            _theta_rows_backward(dblock, self.scores[some], *self.settings, *self.slices(some))

    def _blocks(self, rows):
        """A block that is right for a product may be too large for Θ."""
        parts = blocks(rows.stop - rows.start, self.scores.shape[1], BLOCK)
        return [slice(rows.start + part.start, rows.start + part.stop) for part in parts]


def theta_forward(scores, kind="l2_norm_gelu", tau=None, approximate="none"):
    if not plain(scores) or not is_valid(kind, approximate) or scores.ndim < 1:
        return NotImplemented
    tau = pattention.check_tau(tau, scores.shape[-1])
    theta = ThetaRows.allocate(as_rows(scores), kind, tau, approximate)
    parts = blocks(*theta.scores.shape, BLOCK)
    run(lambda i: theta.forward(parts[i]), len(parts))
    cache = theta.cache(scores.shape)
    return cache.weights, cache._replace(scores=scores)


def theta_backward(dweights, cache):
    theta = ThetaRows.of(cache)
    drows = as_rows(gradient(dweights, cache.scores.shape, cache.scores.dtype, "dweights"))
    dscores = empty(drows.shape, drows.dtype)
    parts = blocks(*drows.shape, BLOCK)

    def task(i):
        dscores[parts[i]] = drows[parts[i]]
        theta.backward(parts[i], dscores[parts[i]])

    run(task, len(parts))
    return dscores.reshape(cache.scores.shape)


def is_valid(kind, approximate):
    return kind in pattention.KINDS and approximate in ("none", "tanh")
