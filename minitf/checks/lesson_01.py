"""Exercises of lesson 01: softmax, attention, and the backward of softmax."""

import numpy as np

from .. import ops
from .core import Exercise


def row_sum(a):
    return a.sum(axis=-1, keepdims=True)


# --------------------------------------------------------------------------------------------- softmax


def softmax(scores):
    return ops.softmax_forward(scores)[0]


def score_rows(rng):
    """One row, a table, a batch of tables; scores so large that their exponentials overflow."""
    rows, columns, batch = (int(size) for size in rng.permutation([3, 4, 5, 6])[:3])
    for shape in ((columns,), (rows, columns), (batch, rows, columns)):
        yield (2 * rng.standard_normal(shape),)
    yield (1000 + 500 * rng.standard_normal((rows, columns)),)


def _softmax(axis=-1, keepdims=True):
    """softmax with another axis, or without keepdims."""

    def wrong(scores):
        e = np.exp(scores - scores.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=keepdims)

    return wrong


SOFTMAX = Exercise(
    reference=softmax,
    sample=score_rows,
    mistakes={
        "is the exponential missing?": lambda a: a / row_sum(a),
        "exp overflows for large scores: did you subtract the maximum?": lambda a: (
            np.exp(a) / row_sum(np.exp(a))
        ),
        "is the division by the sum missing?": lambda a: np.exp(a - a.max(axis=-1, keepdims=True)),
        "is it one sum for the whole table? Each row needs its own (axis=-1)": _softmax(axis=None),
        "did you sum down the columns? Each row sums to 1 (axis=-1)": _softmax(axis=0),
        "does the maximum or the sum lack keepdims=True?": _softmax(keepdims=False),
        "is this the logarithm of softmax?": lambda a: np.log(softmax(a)),
    },
)

# ------------------------------------------------------------------------------------------- attention


def attend(queries, keys, values):
    return softmax(queries @ keys.T) @ values


def queries_keys_values(rng):
    """T queries, S keys of the same width, S values of another width; last, all of one shape."""
    for _ in range(3):
        t, s, d, d_out = (int(size) for size in rng.permutation([2, 3, 4, 5, 6])[:4])
        yield tuple(rng.standard_normal(shape) for shape in ((t, d), (s, d), (s, d_out)))
    yield tuple(rng.standard_normal((3, 4)) for _ in range(3))


ATTEND = Exercise(
    reference=attend,
    sample=queries_keys_values,
    mistakes={
        "is the softmax missing?": lambda q, k, v: q @ k.T @ v,
        "did you transpose keys? Each query meets each key": lambda q, k, v: softmax(q @ k) @ v,
        "these are the weights: are the values missing?": lambda q, k, v: softmax(q @ k.T),
        "these are the scores: are softmax and values missing?": lambda q, k, v: q @ k.T,
        "are queries and keys swapped?": lambda q, k, v: softmax(k @ q.T) @ v,
        "are keys and values swapped?": lambda q, k, v: softmax(q @ v.T) @ k,
        "did you average the keys, not the values?": lambda q, k, v: softmax(q @ k.T) @ k,
        "does softmax run over the queries, not the keys?": lambda q, k, v: softmax(k @ q.T).T @ v,
        "the division by √d comes later, in section 4": lambda q, k, v: attend(q / k.shape[-1] ** 0.5, k, v),
    },
)

# ---------------------------------------------------------------------------------- backward of softmax


def softmax_backward(dw, w):
    return ops.softmax_backward(dw, w)


def slopes_and_weights(rng):
    *ordinary, _ = score_rows(rng)
    for (scores,) in ordinary:
        yield rng.standard_normal(scores.shape), softmax(scores)


SOFTMAX_BACKWARD = Exercise(
    reference=softmax_backward,
    sample=slopes_and_weights,
    mistakes={
        "is the average missing? Moving one score moves all weights": lambda dw, w: w * dw,
        "is it one average for all rows? Each row needs its own (axis=-1)": lambda dw, w: (
            w * (dw - (w * dw).sum())
        ),
        "is this the sum of dw? The average weighs each slope with w": lambda dw, w: w * (dw - row_sum(dw)),
        "is this the mean of dw? The average weighs each slope with w": lambda dw, w: (
            w * (dw - dw.mean(axis=-1, keepdims=True))
        ),
        "is the factor w outside the bracket missing?": lambda dw, w: dw - row_sum(w * dw),
        "is the sign of the average wrong? It is subtracted": lambda dw, w: w * (dw + row_sum(w * dw)),
        "is dw where w should be, outside the bracket?": lambda dw, w: dw * (dw - row_sum(w * dw)),
        "are the paths from j to the other weights missing?": lambda dw, w: dw * w * (1 - w),
        "does the sum lack keepdims=True?": lambda dw, w: w * (dw - (w * dw).sum(axis=-1)),
        "did you take softmax again? w is its output already": lambda dw, w: softmax_backward(dw, softmax(w)),
    },
)

EXERCISES = {"softmax": SOFTMAX, "attend": ATTEND, "softmax_backward": SOFTMAX_BACKWARD}
