"""A linear layer in blocks of rows."""

from typing import NamedTuple

import numpy as np

from ..memory import empty
from ..threads import run
from .common import as_rows, compiled, gradient, plain
from .products import Lanes, add_products, gradient_rows, product_blocks


class LinearCache(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def linear_forward(x, weight, bias=None):
    if not plain(x, weight, bias) or weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is not None and bias.shape != weight.shape[:1]:
        return NotImplemented
    rows, weight_c = as_rows(x), np.ascontiguousarray(weight)
    out = empty((len(rows), len(weight)), x.dtype)
    parts, loops = product_blocks(len(rows), len(weight)), compiled(x.dtype)

    def task(i):
        if loops is None:
            np.matmul(rows[parts[i]], weight_c.T, out=out[parts[i]])
        if bias is not None:
            out[parts[i]] += bias

    if loops is not None:
        loops.linear(parts[0].stop, rows, weight_c, out)
    if loops is None or bias is not None:
        run(task, len(parts))
    return out.reshape(*x.shape[:-1], len(weight)), LinearCache(x, weight, bias)


def linear_backward(dout, cache):
    x, weight, bias = cache
    rows, weight_c = as_rows(x), np.ascontiguousarray(weight)
    drows = as_rows(gradient(dout, (*x.shape[:-1], len(weight)), x.dtype))
    dx = empty(rows.shape, x.dtype)
    if compiled(x.dtype) is not None:
        dweight = empty(weight.shape, x.dtype)
        size, share = product_blocks(len(rows), len(weight))[0].stop, gradient_rows(len(weight))
        compiled(x.dtype).linear_backward(size, share, drows, rows, weight_c, dx, dweight)
    else:
        lanes = Lanes(len(rows), len(weight), [weight])

        def backward(part, sums, first):
            np.matmul(drows[part], weight_c, out=dx[part])
            add_products([(drows[part], rows[part])], sums, first)

        lanes.run(backward)
        (dweight,) = lanes.total()
    dx = dx.reshape(x.shape)
    return (dx, dweight) if bias is None else (dx, dweight, drows.sum(axis=0))
