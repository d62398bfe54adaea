"""Layer norm in blocks of rows."""

from typing import NamedTuple

import numpy as np

from ..memory import empty, scratch
from ..threads import blocks, run
from .common import BLOCK, as_rows, compiled, dot, gradient, numbers, ones, ones_of, plain


class LayerNormCache(NamedTuple):
    normed: np.ndarray
    inverse_std: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def layer_norm_forward(x, weight=None, bias=None, eps=1e-5):
    if not plain(x, weight, bias) or x.ndim < 1 or not numbers(eps, low=0):
        return NotImplemented
    if any(a is not None and a.shape != x.shape[-1:] for a in (weight, bias)):
        return NotImplemented
    rows = as_rows(x)
    normed, inverse = empty(rows.shape, x.dtype), empty((len(rows), 1), x.dtype)
    out = normed if weight is None and bias is None else empty(rows.shape, x.dtype)
    share = ones(rows) / x.dtype.type(x.shape[-1])
    parts, loops = blocks(*rows.shape, BLOCK), compiled(x.dtype)
    if loops is not None:
        loops.layer_norm(rows, np.float32(eps), normed, inverse)

    def task(i):
        part = parts[i]
        centered = normed[part]
        if loops is None:
            np.subtract(rows[part], dot(rows[part], share), out=centered)
            np.divide(1, np.sqrt(dot(centered, centered) / x.shape[-1] + eps), out=inverse[part])
            centered *= inverse[part]
        if weight is not None:
            np.multiply(centered, weight, out=out[part])
        if bias is not None:
            np.add(centered if weight is None else out[part], bias, out=out[part])

    if loops is None or out is not normed:
        run(task, len(parts))
    cache = LayerNormCache(normed.reshape(x.shape), inverse.reshape(*x.shape[:-1], 1), weight, bias)
    return out.reshape(x.shape), cache


def layer_norm_backward(dout, cache):
    normed, inverse, weight, bias = cache
    drows = as_rows(gradient(dout, normed.shape, normed.dtype))
    normed, inverse = as_rows(normed), as_rows(inverse)
    dx = empty(drows.shape, drows.dtype)
    if weight is None and bias is None and compiled(dx.dtype) is not None:
        compiled(dx.dtype).layer_norm_backward(drows, normed, inverse, dx)
        return dx.reshape(dout.shape)
    share = ones(drows) / drows.dtype.type(drows.shape[-1])
    parts = blocks(*drows.shape, BLOCK)
    sums = np.zeros((2, len(parts), drows.shape[-1]), drows.dtype)  # dweight and dbias of each block

    def task(i):
        dout_i, normed_i, out = drows[parts[i]], normed[parts[i]], dx[parts[i]]
        product = np.multiply(dout_i, normed_i, out=scratch("layer norm", out.shape, out.dtype))
        if weight is not None:
            np.matmul(ones_of(len(out), out.dtype), product, out=sums[0, i])
            product *= weight
        if bias is not None:
            np.matmul(ones_of(len(out), out.dtype), dout_i, out=sums[1, i])
        dnormed = dout_i if weight is None else np.multiply(dout_i, weight, out=out)
        mean, slope = dot(dnormed, share), dot(product, share)
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
