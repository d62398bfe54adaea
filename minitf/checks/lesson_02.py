"""Exercises of lesson 02: the paper's Θ, and Pattention forward."""

import math

import numpy as np

from .. import pattention as library
from ..ops import gelu_forward
from .core import Exercise

# ------------------------------------------------------------------------------------------------- Θ


def theta(scores, tau):
    return library.theta_forward(scores, tau=tau)[0]


def scores_and_taus(rng):
    """One row, a table, a batch of tables, and rows of very different length; tau is not always √n."""
    t, n, batch = (int(size) for size in rng.permutation([3, 4, 5, 6])[:3])
    for shape in ((n,), (t, n), (batch, t, n)):
        yield rng.standard_normal(shape), math.sqrt(n)
    yield rng.standard_normal((t, n)) * 10.0 ** np.arange(t)[:, None], 3.0


def _gelu(a):
    return gelu_forward(a)[0]


def _length(a, axis=-1, keepdims=True):
    return np.sqrt((a**2).sum(axis=axis, keepdims=keepdims))


def _divided_by(length):
    """Θ with another length."""
    return lambda a, tau: _gelu(tau * a / length(a))


THETA = Exercise(
    reference=theta,
    sample=scores_and_taus,
    mistakes={
        "is the division by the length missing?": lambda a, tau: _gelu(tau * a),
        "is tau missing?": lambda a, tau: _gelu(a / _length(a)),
        "is GeLU missing?": lambda a, tau: tau * a / _length(a),
        "does tau stand outside GeLU?": lambda a, tau: tau * _gelu(a / _length(a)),
        "GeLU comes last, after the norm": lambda a, tau: tau * _gelu(a) / _length(_gelu(a)),
        "is it one length for the whole table? Each row has its own (axis=-1)": _divided_by(
            lambda a: _length(a, None)
        ),
        "is this the length of the columns? Each row has its own (axis=-1)": _divided_by(
            lambda a: _length(a, 0)
        ),
        "does the sum lack keepdims=True?": _divided_by(lambda a: _length(a, keepdims=False)),
        "is the square root of the length missing?": _divided_by(lambda a: _length(a) ** 2),
        "is this the sum of the entries? The length has squares": _divided_by(
            lambda a: np.abs(a).sum(-1, keepdims=True)
        ),
        "is it a mean in place of the sum? tau holds √n already": _divided_by(
            lambda a: _length(a) / a.shape[-1] ** 0.5
        ),
        "is this ReLU? Θ uses GeLU": lambda a, tau: np.maximum(tau * a / _length(a), 0),
    },
)

# ----------------------------------------------------------------------------------------- Pattention


def pattention(x, key, value):
    return library.pattention_forward(x, key, value)[0]


def layers(rng):
    """T inputs and n parameter tokens, all sizes different; a batch; last, sizes where a mix-up raises nothing."""
    for _ in range(3):
        t, n, d_in, d_out = (int(size) for size in rng.permutation([2, 3, 4, 5, 6])[:4])
        yield tuple(rng.standard_normal(shape) for shape in ((t, d_in), (n, d_in), (n, d_out)))
    yield tuple(rng.standard_normal(shape) for shape in ((2, 3, 4), (5, 4), (5, 6)))
    yield tuple(rng.standard_normal((4, 4)) for _ in range(3))


def _tau(number):
    """Pattention with another number for tau."""
    return lambda x, k, v: theta(x @ k.T, number(x, k, v)) @ v


def _plain_attention(x, k, v):
    return library.pattention_forward(x, k, v, kind="softmax", tau=1.0)[0]


PATTENTION = Exercise(
    reference=pattention,
    sample=layers,
    mistakes={
        "did you transpose key? Each input meets each key": lambda x, k, v: theta(x @ k, len(k) ** 0.5) @ v,
        "is Θ missing?": lambda x, k, v: x @ k.T @ v,
        "these are the weights: are the values missing?": lambda x, k, v: theta(x @ k.T, len(k) ** 0.5),
        "these are the scores: are Θ and the values missing?": lambda x, k, v: x @ k.T,
        "are key and value swapped?": lambda x, k, v: theta(x @ v.T, len(k) ** 0.5) @ k,
        "are the keys added up, not the values?": lambda x, k, v: pattention(x, k, k),
        "is tau √d_in? It is √n, with n parameter tokens": _tau(lambda x, k, v: k.shape[1] ** 0.5),
        "is tau √d_out? It is √n, with n parameter tokens": _tau(lambda x, k, v: v.shape[1] ** 0.5),
        "is tau √T? It is √n, with n parameter tokens": _tau(lambda x, k, v: len(x) ** 0.5),
        "is tau n? It is √n": _tau(lambda x, k, v: len(k)),
        "is tau 1? It is √n": _tau(lambda x, k, v: 1.0),
        "is this an MLP? The norm is missing": lambda x, k, v: _gelu(x @ k.T) @ v,
        "is this attention? Θ takes the place of softmax": _plain_attention,
    },
)

EXERCISES = {"theta": THETA, "pattention": PATTENTION}
