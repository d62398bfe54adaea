"""GeLU with its slope, taken while exp and the normal CDF are in the cache."""

import math
from typing import NamedTuple

import numpy as np

from ... import ops
from ..memory import empty, scratch
from ..threads import blocks, run
from .common import BLOCK, COMPILED_BLOCK, compiled, gradient, plain

# erf(z/√2) = tanh(y p(y²)) with y = z/2; coefficients of p, highest first: tests/test_twins.py fits them.
# NumPy's float32 tanh costs 0.25 ns, its exp 0.35: erfc as exp(-z²/2) times a polynomial needs the exp too, but
# also |z|, 1/(1+|z|/k) and copysign. The highest coefficient is positive, so that large z end at ±1.
ERF_COEFFICIENTS = (
    1.43874756e-05,
    -0.000270881748,
    0.002029965,
    -0.00707920992,
    -0.00104303111,
    0.290664675,
    1.59576988,
)


def gelu_block(a, factor, out, slope, approximate):
    """out = GeLU(2 · factor · a) and slope = 2 GeLU' there; factor is a number or a column of one per row."""
    loops = compiled(a.dtype) if approximate == "none" else None
    if loops is not None:
        column = np.empty(len(a), np.float32)
        column[:] = 2 * np.reshape(factor, -1)
        loops.gelu_rows(a, column, out, slope)
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
        np.multiply(square, ERF_COEFFICIENTS[0], out=cdf)
        for c in ERF_COEFFICIENTS[1:-1]:
            cdf += c
            cdf *= square
        cdf += ERF_COEFFICIENTS[-1]
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
    if not plain(x) or approximate not in ("none", "tanh"):
        return NotImplemented
    flat = np.ascontiguousarray(x).reshape(-1)
    out, slope = empty(flat.shape, x.dtype), empty(flat.shape, x.dtype)
    parts, loops = blocks(flat.size, 1, BLOCK), compiled(x.dtype)

    def task(i):
        part = parts[i]
        gelu_block(flat[None, part], 0.5, out[None, part], slope[None, part], approximate)

    if loops is not None and approximate == "none":
        loops.gelu(COMPILED_BLOCK, flat, out, slope)
    else:
        run(task, len(parts))
    return out.reshape(x.shape), GeluCache(x, slope.reshape(x.shape))


def gelu_backward(dout, cache):
    x, slope = cache
    flat, slope = gradient(dout, x.shape, x.dtype).reshape(-1), slope.reshape(-1)
    dx = empty(flat.shape, x.dtype)
    parts, loops = blocks(flat.size, 1, 2 * BLOCK), compiled(x.dtype)

    def task(i):
        part = parts[i]
        np.multiply(flat[part], slope[part], out=dx[part])
        dx[part] *= 0.5

    if loops is not None:
        loops.gelu_backward(COMPILED_BLOCK, flat, slope, dx)
    else:
        run(task, len(parts))
    return dx.reshape(x.shape)
