"""Exercises of the second puzzles: what keeps the output of a layer that grows, or shrinks.

Some have more than one right answer, so what is compared is the output of the two layers.
"""

import math

import numpy as np

from ..pattention import pattention_forward
from .core import Exercise, call


def out(x, keys, values, tau, kind="l2_norm_gelu"):
    """The output of a layer whose keys and values are given in pieces."""
    return pattention_forward(x, np.concatenate(keys), np.concatenate(values), kind, tau)[0]


def keeps(before, after):
    """accept: before(x, *arguments) equals after(x, answer, *arguments), for random inputs x."""

    def accept(arguments, got):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((20, arguments[0].shape[1]))
        old, new = before(x, *arguments), call(after, (x, got, *arguments))
        if isinstance(new, Exception):
            return f"the layer raises {type(new).__name__}: {new}"
        moved = np.linalg.norm(new - old) / np.linalg.norm(old)
        return None if moved < 1e-9 else f"the output changes by {moved:.0%}"

    return accept


def layers(*more, tau=None):
    """sample: key, value, tau (drawn, or of n), and one of `more`."""

    def sample(rng):
        for i, (n, d_in, d_out) in enumerate(((4, 3, 2), (5, 2, 3), (6, 4, 5))):
            layer = rng.standard_normal((n, d_in)), rng.standard_normal((n, d_out))
            yield *layer, tau(n) if tau else float(rng.uniform(0.5, 4.0)), *more[i : i + 1]

    return sample


def plain(x, key, value, tau, *_):
    return out(x, [key], [value], tau)


NEW_KEY = Exercise(
    reference=lambda key, value, tau: 0 * key[0],
    sample=layers(),
    accept=keeps(
        plain, lambda x, got, key, value, tau: out(x, [key, got[None]], [value, 9 + value[:1]], tau)
    ),
    mistakes={
        "is it a copy? Its score makes the row longer": lambda key, value, tau: key[0],
        "is it the mean key? Its score is not 0": lambda key, value, tau: key.mean(axis=0),
        "is it minus a key? A negative score counts too": lambda key, value, tau: -key[-1],
        "is it all ones? Its score is the sum of x": lambda key, value, tau: 0 * key[0] + 1,
        "is it as wide as a value? It meets x": lambda key, value, tau: 0 * value[0],
        "is it one number? A key is a row": lambda key, value, tau: 0.0,
        "are these many keys? One row is asked for": lambda key, value, tau: 0 * key,
    },
)

TWO_VALUES = Exercise(
    reference=lambda key, value, tau: (value / 2, value / 2),
    sample=layers(),
    outputs=("first", "second"),
    accept=keeps(plain, lambda x, got, key, value, tau: out(x, [key, key], got, math.sqrt(2) * tau)),
    mistakes={
        "do they sum to twice the value?": lambda key, value, tau: (value, value),
        "is there a root? The one is in tau already": lambda key, value, tau: (
            value / 2**0.5,
            value / 2**0.5,
        ),
        "is half of the value lost?": lambda key, value, tau: (value / 2, 0 * value),
        "is everything lost?": lambda key, value, tau: (0 * value, 0 * value),
        "do they cancel?": lambda key, value, tau: (value / 2, -value / 2),
        "is it shared out twice?": lambda key, value, tau: (value / 4, value / 4),
        "is it one result? Two are asked for": lambda key, value, tau: value / 2,
    },
)

M_COPIES = Exercise(
    reference=lambda key, value, tau, m: (value / m, m**0.5 * tau),
    sample=layers(2, 3, 5),
    outputs=("share", "tau"),
    accept=keeps(plain, lambda x, got, key, value, tau, m: out(x, [key] * m, [got[0]] * m, float(got[1]))),
    mistakes={
        "is the value not shared out?": lambda key, value, tau, m: (value, m**0.5 * tau),
        "is tau held? The row is √m times longer": lambda key, value, tau, m: (value / m, tau),
        "is tau m times larger? The length grows by √m": lambda key, value, tau, m: (value / m, m * tau),
        "is there a root in the value? All m weights add up": lambda key, value, tau, m: (
            value / m**0.5,
            m**0.5 * tau,
        ),
        "is tau √(m n)? This layer's tau need not be √n": lambda key, value, tau, m: (
            value / m,
            (m * len(key)) ** 0.5,
        ),
        "is tau divided? The longer row has to be made up for": lambda key, value, tau, m: (
            value / m,
            tau / m**0.5,
        ),
        "are the two results swapped?": lambda key, value, tau, m: (m**0.5 * tau, value / m),
    },
)

TAU_AFTER = Exercise(
    reference=lambda key, value, tau, m: 2**0.5 * tau,
    sample=layers(3, 4, 6),
    accept=keeps(
        plain,
        lambda x, got, key, value, tau, m: out(
            x,
            [key, np.zeros((m, key.shape[1])), key, np.zeros((m, key.shape[1]))],
            [value / 2, np.ones((m, value.shape[1])), value / 2, np.ones((m, value.shape[1]))],
            float(got),
        ),
    ),
    mistakes={
        "is it held through both growths? Copies lengthen the row": lambda key, value, tau, m: tau,
        "is it the root of the final number of tokens?": lambda key, value, tau, m: (
            (2 * (len(key) + m)) ** 0.5
        ),
        "is it √(2n)? This layer's tau need not be √n": lambda key, value, tau, m: (2 * len(key)) ** 0.5,
        "is it doubled? The length grows by √2": lambda key, value, tau, m: 2 * tau,
        "did the zero keys rescale it? They leave the length alone": lambda key, value, tau, m: (
            tau * (2 * (len(key) + m) / len(key)) ** 0.5
        ),
        "is it √(n + m)?": lambda key, value, tau, m: (len(key) + m) ** 0.5,
        "is it divided by √2?": lambda key, value, tau, m: tau / 2**0.5,
    },
)

TWO_KEYS = Exercise(
    reference=lambda key, value, tau: (key / 2, key / 2),
    sample=layers(),
    outputs=("left", "right"),
    accept=keeps(
        plain,
        lambda x, got, key, value, tau: out(
            np.concatenate([x, x], axis=1), [np.concatenate(got, axis=1)], [value], tau
        ),
    ),
    mistakes={
        "do the two halves cancel?": lambda key, value, tau: (key, -key),
        "is the sign lost? The norm cancels a positive factor only": lambda key, value, tau: (-key, -key),
        "are all scores zero?": lambda key, value, tau: (0 * key, 0 * key),
        "is something added? left + right has to point along key": lambda key, value, tau: (key, key + 1),
        "is the order of the channels lost?": lambda key, value, tau: (key[:, ::-1], key[:, ::-1]),
        "is the order of the tokens lost?": lambda key, value, tau: (key[::-1], key[::-1]),
        "are the entries made positive?": lambda key, value, tau: (abs(key), abs(key)),
    },
)

MENDED_VALUE = Exercise(
    reference=lambda key, value, tau, m: value * (len(key) / (len(key) + m)) ** 0.5,
    sample=layers(3, 5, 8, tau=math.sqrt),
    accept=keeps(
        lambda x, key, value, tau, m: out(x, [key], [value], tau, "gelu_l2_norm"),
        lambda x, got, key, value, tau, m: out(
            x,
            [key, np.zeros((m, key.shape[1]))],
            [got, np.ones((m, value.shape[1]))],
            math.sqrt(len(key) + m),
            "gelu_l2_norm",
        ),
    ),
    mistakes={
        "is nothing mended?": lambda key, value, tau, m: value,
        "is it the wrong way round? tau became larger": lambda key, value, tau, m: (
            value * ((len(key) + m) / len(key)) ** 0.5
        ),
        "is the root missing?": lambda key, value, tau, m: value * (len(key) / (len(key) + m)),
        "is it halved? Copies need that": lambda key, value, tau, m: value / 2,
        "is it divided by the new tau? The old one was there before": lambda key, value, tau, m: (
            value / (len(key) + m) ** 0.5
        ),
        "is it n/m? The grown layer has n + m tokens": lambda key, value, tau, m: (
            value * (len(key) / m) ** 0.5
        ),
        "is it added? The stretch is a factor": lambda key, value, tau, m: (
            value - ((len(key) + m) ** 0.5 - tau)
        ),
    },
)

SOFTMAX_VALUES = Exercise(
    reference=lambda key, value, tau: (value, value),
    sample=layers(),
    outputs=("first", "second"),
    accept=keeps(
        lambda x, key, value, tau: out(x, [key], [value], tau, "softmax"),
        lambda x, got, key, value, tau: out(x, [key, key], got, tau, "softmax"),
    ),
    mistakes={
        "are the values shared out? Softmax has done it with the weights": lambda key, value, tau: (
            value / 2,
            value / 2,
        ),
        "do they sum to the value? Half of every weight is gone": lambda key, value, tau: (value, 0 * value),
        "is there a root? Softmax has no length": lambda key, value, tau: (value / 2**0.5, value / 2**0.5),
        "are they doubled? Two weights of a half make one": lambda key, value, tau: (2 * value, 2 * value),
        "do they cancel?": lambda key, value, tau: (value, -value),
        "is everything lost?": lambda key, value, tau: (0 * value, 0 * value),
        "is it one result? Two are asked for": lambda key, value, tau: value,
    },
)


def twins(rng):
    for key, value, tau in layers()(rng):
        yield key, value, rng.standard_normal(value.shape), tau


MERGED = Exercise(
    reference=lambda key, first, second, tau: (first + second, tau / 2**0.5),
    sample=twins,
    outputs=("value", "tau"),
    accept=keeps(
        lambda x, key, first, second, tau: out(x, [key, key], [first, second], tau),
        lambda x, got, key, first, second, tau: out(x, [key], [got[0]], float(got[1])),
    ),
    mistakes={
        "is it the mean? Both weights were added up": lambda key, first, second, tau: (
            (first + second) / 2,
            tau / 2**0.5,
        ),
        "is tau held? The row is √2 times shorter": lambda key, first, second, tau: (first + second, tau),
        "is tau halved? The length shrinks by √2": lambda key, first, second, tau: (first + second, tau / 2),
        "is tau multiplied? A shorter row needs less": lambda key, first, second, tau: (
            first + second,
            2**0.5 * tau,
        ),
        "is the second value lost?": lambda key, first, second, tau: (first, tau / 2**0.5),
        "is it a difference?": lambda key, first, second, tau: (first - second, tau / 2**0.5),
        "is tau √n? This layer's tau need not be a root": lambda key, first, second, tau: (
            first + second,
            len(key) ** 0.5,
        ),
    },
)

EXERCISES = {
    "new_key": NEW_KEY,
    "two_values": TWO_VALUES,
    "m_copies": M_COPIES,
    "tau_after": TAU_AFTER,
    "two_keys": TWO_KEYS,
    "mended_value": MENDED_VALUE,
    "softmax_values": SOFTMAX_VALUES,
    "merged": MERGED,
}
