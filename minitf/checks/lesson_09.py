"""Exercises of lesson 09: how often a parameter token fires, and how much the loss would rise without it."""

import numpy as np

from ..activity import token_importance
from .core import Exercise

# ---------------------------------------------------------------------------------------- firing_rate


def firing_rate(weights, threshold=1.0):
    return (weights > threshold).reshape(-1, weights.shape[-1]).mean(axis=0)


def weights_and_threshold(rng):
    """A table, a batch of tables, one row; another threshold; last, weights that equal the threshold."""
    rows, n, batch = (int(size) for size in rng.permutation([3, 4, 5, 6])[:3])
    for shape in ((rows, n), (batch, rows, n), (n,)):
        yield (1.5 * rng.standard_normal(shape),)
    yield 1.5 * rng.standard_normal((rows, n)), 0.3
    yield rng.integers(0, 3, (rows, n)).astype(float), 1.0


def _rate(fires):
    """firing_rate with another comparison."""

    def wrong(weights, threshold=1.0):
        return fires(weights, threshold).reshape(-1, weights.shape[-1]).mean(axis=0)

    return wrong


def _over(axis):
    """firing_rate without reshape, over these axes."""
    return lambda weights, threshold=1.0: (weights > threshold).mean(axis=axis)


def _counted(weights, threshold=1.0):
    return (weights > threshold).reshape(-1, weights.shape[-1]).sum(axis=0)


FIRING_RATE = Exercise(
    reference=firing_rate,
    sample=weights_and_threshold,
    mistakes={
        "is this a count? A share is a mean": _counted,
        "is it the share of parameter tokens at each text token? Average over the text tokens": _over(-1),
        "is it one number for all? Each parameter token has its own rate": _over(None),
        "did you average over the first axis only? All axes but the last are text tokens": _over(0),
        "is the threshold fixed at 1? Use the argument": lambda weights, threshold=1.0: firing_rate(weights),
        "does a weight that equals the threshold count? Above means >": _rate(np.greater_equal),
        "do weights below minus the threshold count? A token fires upwards": _rate(
            lambda weights, threshold: np.abs(weights) > threshold
        ),
        "is this the share of silent text tokens?": _rate(np.less_equal),
        "is this the mean weight? Compare with the threshold first": _rate(
            lambda weights, threshold: weights
        ),
    },
)

# ----------------------------------------------------------------------------------- token_importance


def weights_values_gradients(rng):
    """A table and a batch of tables; last, as many text as parameter tokens as channels."""
    t, n, d, batch = (int(size) for size in rng.permutation([2, 3, 4, 5, 6])[:4])
    for shapes in (
        ((t, n), (n, d), (t, d)),
        ((batch, t, n), (n, d), (batch, t, d)),
        ((4, 4), (4, 4), (4, 4)),
    ):
        yield tuple(rng.standard_normal(shape) for shape in shapes)


def _summed(term):
    """Minus the sum over text tokens of another term (..., n)."""

    def wrong(weights, value, dout):
        return -term(weights, value, dout).reshape(-1, len(value)).sum(axis=0)

    return wrong


def _along(weights, value, dout):
    return weights * (dout @ value.T)


def _mean(weights, value, dout):
    return token_importance(weights, value, dout) / (weights.size // len(value))


def _over_axis(axis):
    """token_importance without reshape, summed over one axis."""
    return lambda weights, value, dout: -_along(weights, value, dout).sum(axis=axis)


TOKEN_IMPORTANCE = Exercise(
    reference=token_importance,
    sample=weights_values_gradients,
    mistakes={
        "is the sign wrong? The token's contribution is taken away": _summed(
            lambda w, v, g: -_along(w, v, g)
        ),
        "is this a mean? The changes of all text tokens add up": _mean,
        "are the weights missing? A token that is silent at a text token changes nothing there": _summed(
            lambda w, v, g: g @ v.T
        ),
        "is the sum over the text tokens missing?": lambda w, v, g: -_along(w, v, g),
        "did you sum over the first axis only? All axes but the last are text tokens": _over_axis(0),
        "did you sum over the parameter tokens? Each has its own importance": _over_axis(-1),
        "did you take absolute values? Helping and hurting text tokens cancel": _summed(
            lambda w, v, g: -np.abs(_along(w, v, g))
        ),
        "is this the size of the contributions? dout says whether they help": _summed(
            lambda w, v, g: -np.abs(w) * np.linalg.norm(v, axis=1)
        ),
        "is the value missing? The weight alone does not reach the output": _summed(
            lambda w, v, g: w * g.sum(axis=-1, keepdims=True)
        ),
    },
)

EXERCISES = {"firing_rate": FIRING_RATE, "token_importance": TOKEN_IMPORTANCE}
