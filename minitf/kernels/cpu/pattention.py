"""Pattention: scores, Θ and output of a block of rows while it is in the cache, and the same way back."""

from typing import NamedTuple

import numpy as np

from ... import pattention
from ..memory import empty, scratch
from ..threads import get_num_threads, run
from .common import as_rows, compiled, gradient, numbers, plain
from .products import Lanes, add_products, gradient_rows, product_blocks
from .theta import ThetaCache, ThetaRows, is_valid, theta_forward


class PattentionCache(NamedTuple):
    x: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    theta: ThetaCache
    scale: float


class CompiledCache(NamedTuple):
    """What the compiled twin keeps: a third of the memory, since weights and slope are computed again."""

    x: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scores: np.ndarray
    inverse_norm: np.ndarray  # of each row of scores
    tau: float
    scale: float = 1.0

    @property
    def theta(self):
        return theta_forward(self.scores, "l2_norm_gelu", self.tau)[1]

    @property
    def weights(self):
        return self.theta.weights


def pattention_forward(
    x, key, value, kind="l2_norm_gelu", tau=None, scale=1.0, mask=None, approximate="none"
):
    """A mask is left to the formula."""
    if not plain(x, key, value) or mask is not None or not is_valid(kind, approximate):
        return NotImplemented
    if x.ndim < 1 or key.ndim != 2 or value.ndim != 2 or len(key) != len(value):
        return NotImplemented
    if x.shape[-1] != key.shape[1] or not numbers(scale):
        return NotImplemented
    n = len(key)
    tau = pattention.check_tau(tau, n)
    rows, key_c, value_c = as_rows(x), np.ascontiguousarray(key), np.ascontiguousarray(value)
    if kind == "l2_norm_gelu" and approximate == "none" and scale == 1.0 and compiled(x.dtype) is not None:
        out, cache = _compiled_forward(x, key, value, tau)
        if cache is not None:
            return out, cache
    theta = ThetaRows.allocate(empty((len(rows), n), x.dtype), kind, tau, approximate)
    out = empty((len(rows), value.shape[1]), x.dtype)
    parts = product_blocks(len(rows), n)

    def task(i):
        part = parts[i]
        scores = np.matmul(rows[part], key_c.T, out=theta.scores[part])
        if scale != 1.0:
            scores *= scale
        theta.forward(part)
        np.matmul(theta.weights[part], value_c, out=out[part])

    run(task, len(parts))
    cache = theta.cache((*x.shape[:-1], n))
    cache = PattentionCache(x, key, value, cache.scores, cache.weights, cache, scale)
    return out.reshape(*x.shape[:-1], value.shape[1]), cache


def pattention_backward(dout, cache):
    x, key, value, scores, weights, theta, scale = cache
    drows = as_rows(gradient(dout, (*x.shape[:-1], value.shape[1]), x.dtype))
    rows, key_c, value_c = as_rows(x), np.ascontiguousarray(key), np.ascontiguousarray(value)
    theta, dx = ThetaRows.of(theta), empty(rows.shape, x.dtype)
    lanes = Lanes(len(rows), len(key), [key, value])

    def backward(part, sums, first):
        dscores = scratch("dscores", (part.stop - part.start, len(key)), x.dtype)
        np.matmul(drows[part], value_c.T, out=dscores)
        theta.backward(part, dscores)
        if scale != 1.0:
            dscores *= scale
        np.matmul(dscores, key_c, out=dx[part])
        add_products([(dscores, rows[part]), (theta.weights[part], drows[part])], sums, first)

    lanes.run(backward)
    return dx.reshape(x.shape), *lanes.total()


def _compiled_forward(x, key, value, tau):
    """The output and its cache; no cache where the norm of a row is so large or small that the formula has to do it."""
    rows, key_c, value_c = as_rows(x), np.ascontiguousarray(key), np.ascontiguousarray(value)
    scores, inverse = empty((len(rows), len(key)), x.dtype), empty((len(rows),), x.dtype)
    out = empty((len(rows), value.shape[1]), x.dtype)
    parts = product_blocks(len(rows), len(key))
    safe, room = np.empty(len(parts), bool), empty((get_num_threads(), 1, parts[0].stop, len(key)), x.dtype)
    compiled(x.dtype).pattention(
        parts[0].stop, rows, key_c, value_c, np.float32(tau), scores, inverse, out, safe, room
    )
    cache = CompiledCache(x, key, value, scores.reshape(*x.shape[:-1], len(key)), inverse, tau)
    return out.reshape(*x.shape[:-1], value.shape[1]), cache if safe.all() else None


def compiled_backward(dout, cache):
    x, key, value, scores, inverse, tau, _ = cache
    drows = as_rows(gradient(dout, (*x.shape[:-1], value.shape[1]), x.dtype))
    rows, key_c, value_c = as_rows(x), np.ascontiguousarray(key), np.ascontiguousarray(value)
    dx, dkey, dvalue = (empty(a.shape, x.dtype) for a in (rows, key, value))
    size, share = product_blocks(len(rows), len(key))[0].stop, gradient_rows(len(key))
    room = empty((3, min(get_num_threads() * size, len(rows)), len(key)), x.dtype)
    arrays = drows, rows, key_c, value_c, np.float32(tau), as_rows(scores), inverse, dx, dkey, dvalue, room
    compiled(x.dtype).pattention_backward(size, share, *arrays)
    return dx.reshape(x.shape), dkey, dvalue
