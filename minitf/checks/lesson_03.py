"""Exercises of lesson 03: the paper's theta, and an L2 norm for any row."""

import math

import numpy as np

from ..ops import gelu_forward, softmax_forward
from ..pattention import theta_forward
from .core import Exercise


def gelu(a):
    return gelu_forward(a)[0]


def root_n(a):
    return math.sqrt(a.shape[-1])


def length(a, axis=-1, keepdims=True):
    return np.sqrt((a * a).sum(axis=axis, keepdims=keepdims))


def l2(a):
    return a / length(a)


def tables(rng):
    for shape, spread in (((5, 7), 1.0), ((2, 3), 4.0), ((6,), 1.0), ((2, 3, 4), 0.1)):
        yield (spread * rng.standard_normal(shape),)


# -------------------------------------------------------------------------------------- the paper's theta


def l2_norm_gelu(a):
    """GeLU(a √n / |a|)."""
    return theta_forward(a, "l2_norm_gelu")[0]


def then_gelu(norm):
    """The paper's theta with another norm."""
    return lambda a: gelu(root_n(a) * norm(a))


L2_NORM_GELU = {
    "is the factor √n missing, before GeLU?": lambda a: gelu(l2(a)),
    "is the factor n? After an L2 norm it is √n": lambda a: gelu(a.shape[-1] * l2(a)),
    "is the factor the root of the number of rows? n is the last axis": lambda a: gelu(
        math.sqrt(len(a)) * l2(a)
    ),
    "is the factor √n behind GeLU? It belongs before it": lambda a: root_n(a) * gelu(l2(a)),
    "is this the other order, GeLU before the norm?": lambda a: theta_forward(a, "gelu_l2_norm")[0],
    "is GeLU missing? This is only the norm": lambda a: root_n(a) * l2(a),
    "is the norm missing? This is only GeLU": gelu,
    "is this ReLU? Under GeLU negative scores keep a small weight": lambda a: np.maximum(
        root_n(a) * l2(a), 0
    ),
    "is this the tanh formula for GeLU? Take the exact one": lambda a: gelu_forward(
        root_n(a) * l2(a), approximate="tanh"
    )[0],
    "is this softmax? There is no exponential here": lambda a: a.shape[-1] * softmax_forward(a)[0],
    "is it one length for the whole table? Each row needs its own (axis=-1)": then_gelu(
        lambda a: a / length(a, None)
    ),
    "did you sum down the columns? A row is axis=-1": then_gelu(lambda a: a / length(a, 0)),
    "does the sum lack keepdims=True?": then_gelu(lambda a: a / length(a, keepdims=False)),
    "is the square root missing in the length?": then_gelu(lambda a: a / (a * a).sum(axis=-1, keepdims=True)),
    "is this the L1 norm? The L2 norm sums squares, and takes the root": then_gelu(
        lambda a: a / np.abs(a).sum(axis=-1, keepdims=True)
    ),
    "is it divided by the plain sum? There signs cancel: square first": then_gelu(
        lambda a: a / a.sum(axis=-1, keepdims=True)
    ),
    "is it divided by the largest entry? Divide by the length": then_gelu(
        lambda a: a / np.abs(a).max(axis=-1, keepdims=True)
    ),
}


# ------------------------------------------------------------------------------------------- a safe L2 norm


def safe_l2(a):
    """a / |a| row by row, 0 for a row of zeros; squares of very large or small entries are never taken."""
    largest = np.abs(a).max(axis=-1, keepdims=True)
    unit = a / np.where(largest > 0, largest, 1)
    return unit / np.maximum(length(unit), 1)  # the largest entry is 1, so only a row of zeros is shorter


def rows_at_the_edges(rng):
    yield (rng.standard_normal((4, 6)),)
    table = rng.standard_normal((3, 5))
    table[1] = 0
    yield (table,)
    yield (-np.abs(rng.standard_normal((2, 4))),)  # the largest entry is not the largest number
    yield (
        np.array([[1e-3], [1e-5], [1e-8], [1e-12]]) * rng.standard_normal((4, 3)),
    )  # no eps is small enough
    sizes = np.array([[1.0], [1e30], [-1e30], [1e-30], [0.0]], np.float32)  # whose squares are inf and 0
    yield (sizes * rng.uniform(1, 2, (5, 3)).astype(np.float32),)


def guarded(a):
    return a / np.where(length(a) > 0, length(a), 1)


def eps_inside(eps):
    return lambda a: a / np.sqrt((a * a).sum(axis=-1, keepdims=True) + eps)


def eps_outside(eps):
    return lambda a: a / (length(a) + eps)


EPS = (1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 1e-16)  # what people write
SAFE_L2 = {
    "is a row of zeros divided by its length 0? Squares of large scores are inf, too": l2,
    "do squares of 1e30 overflow, and those of 1e-30 vanish? Divide the row by its largest entry first": (
        guarded
    ),
    "are nan and inf hidden afterwards? Squares of 1e30 still overflow: divide by the largest entry first": lambda a: (
        np.nan_to_num(l2(a))
    ),
    "is it the largest entry of the whole table? A short row needs its own": lambda a: guarded(
        a / np.abs(a).max()
    ),
    "is it the largest number, not the largest absolute value? Some rows are negative": lambda a: guarded(
        a / np.where(a.max(axis=-1, keepdims=True) != 0, a.max(axis=-1, keepdims=True), 1)
    ),
    "is the second step missing? The largest entry is 1 now, the length is not": lambda a: (
        a / np.where(np.abs(a).max(-1, keepdims=True) > 0, np.abs(a).max(-1, keepdims=True), 1)
    ),
    "does a row of zeros stay zero?": lambda a: np.where(length(safe_l2(a)) > 0, safe_l2(a), 1).astype(
        a.dtype
    ),
    "is a row of zeros still 0 / 0? Its largest entry is 0": lambda a: l2(
        a / np.abs(a).max(axis=-1, keepdims=True)
    ),
    **{
        f"is eps = {eps:g} under the root? It makes short rows shorter than 1": eps_inside(eps) for eps in EPS
    },
    **{
        f"is eps = {eps:g} added to the length? It makes short rows shorter than 1": eps_outside(eps)
        for eps in EPS
    },
}


EXERCISES = {
    "l2_norm_gelu": Exercise(l2_norm_gelu, tables, L2_NORM_GELU),
    "safe_l2": Exercise(safe_l2, rows_at_the_edges, SAFE_L2, tolerance=1e-5),
}
