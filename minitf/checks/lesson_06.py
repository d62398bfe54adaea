"""Exercises of lesson 06: grow a layer by zero keys or by copies, and anneal tau."""

import math

import numpy as np

from .core import Exercise


def layer(rng, n, d_in, d_out):
    """key, value and tau. tau is not √n: the layer may have grown before."""
    return rng.standard_normal((n, d_in)), rng.standard_normal((n, d_out)), float(rng.uniform(0.5, 4.0))


# ------------------------------------------------------------------------------------------ grow_layer


def zeros(key, new_value):
    return np.zeros((len(new_value), key.shape[1]), key.dtype)


def grow_layer(key, value, tau, new_value):
    return np.concatenate([key, zeros(key, new_value)]), np.concatenate([value, new_value]), tau


def layers_and_new_values(rng):
    for n, m, d_in, d_out in ((2, 1, 3, 4), (5, 7, 4, 3), (1, 3, 2, 5)):
        yield *layer(rng, n, d_in, d_out), rng.standard_normal((m, d_out))


def _grow(new_tau=None, new_keys=zeros, factor=1.0, first=False):
    """grow_layer with another tau, other new keys, scaled new values, or the new tokens first."""

    def wrong(key, value, tau, new_value):
        keys, values = [key, new_keys(key, new_value)], [value, factor * new_value]
        order = -1 if first else 1
        tau = new_tau(len(key), len(new_value)) if new_tau else tau
        return np.concatenate(keys[::order]), np.concatenate(values[::order]), tau

    return wrong


GROW_LAYER = Exercise(
    reference=grow_layer,
    sample=layers_and_new_values,
    outputs=("key", "value", "tau"),
    mistakes={
        "is tau rescaled to √(n + m)? The proof needs it held": _grow(lambda n, m: math.sqrt(n + m)),
        "is tau √n? A layer that grew before has another one: hand on what came in": _grow(
            lambda n, m: math.sqrt(n)
        ),
        "are the new values zero, like the keys? Such tokens are dead": _grow(factor=0.0),
        "are the new keys ones? A zero score needs a zero key": _grow(
            new_keys=lambda key, new: zeros(key, new) + 1
        ),
        "do the new tokens stand first? Append them below the old ones": _grow(first=True),
        "is it one new key for all new values? Each token has its own": _grow(
            new_keys=lambda key, new: zeros(key, new[:1])
        ),
        "is a new key as wide as a value? It meets x, so it is as wide as key": _grow(
            new_keys=lambda key, new: np.zeros_like(new)
        ),
    },
)

# ----------------------------------------------------------------------------------------- split_layer


def split_layer(key, value, tau, noise):
    values = np.concatenate([value / 2 + noise, value / 2 - noise])
    return np.concatenate([key, key]), values, math.sqrt(2) * tau


def layers_and_noise(rng):
    for n, d_in, d_out in ((2, 3, 4), (5, 4, 3), (3, 2, 1)):
        yield *layer(rng, n, d_in, d_out), rng.standard_normal((n, d_out))


def _split(share=0.5, first=1, second=-1, factor=2**0.5):
    """split_layer with other shares of the value, other signs of the noise, another factor of tau."""

    def wrong(key, value, tau, noise):
        values = np.concatenate([share * value + first * noise, share * value + second * noise])
        return np.concatenate([key, key]), values, factor * tau

    return wrong


def _split_from_n(key, value, tau, noise):
    return *split_layer(key, value, tau, noise)[:2], math.sqrt(2 * len(key))


def _split_side_by_side(key, value, tau, noise):
    keys, values, tau = split_layer(key, value, tau, noise)
    order = np.arange(2 * len(key)).reshape(2, -1).T.ravel()  # 0, n, 1, n + 1, ...
    return keys[order], values[order], tau


SPLIT_LAYER = Exercise(
    reference=split_layer,
    sample=layers_and_noise,
    outputs=("key", "value", "tau"),
    mistakes={
        "is tau held? A row of scores that stands there twice is √2 times longer": _split(factor=1),
        "is tau doubled? The length grows by √2": _split(factor=2),
        "is tau √(2n)? A layer that grew before has another one: multiply what came in": _split_from_n,
        "do the two values sum to twice the old one? Share it out": _split(share=1),
        "does the noise have one sign? It must cancel in the sum": _split(second=1),
        "is there no noise? The copies would be twins": _split(first=0, second=0),
        "is there noise in one half only? Nothing cancels it": _split(first=0),
        "is the noise the other way round? Exact too, but add it to the first half": _split(
            first=-1, second=1
        ),
        "does each token stand beside its copy? Exact too, but put all copies below": _split_side_by_side,
    },
)

# ---------------------------------------------------------------------------------------------- tau_at


def tau_at(progress, tau_born, n):
    progress = min(progress, 1.0)
    return (1 - progress) * tau_born + progress * math.sqrt(n)


def progresses(rng):
    for progress in (0.25, 0.6, 0.0, 1.0, 1.5):
        yield progress, float(rng.uniform(1.0, 4.0)), int(rng.integers(20, 90))


TAU_AT = Exercise(
    reference=tau_at,
    sample=progresses,
    mistakes={
        "does it go on after a progress of 1? Cap it": lambda p, born, n: (1 - p) * born + p * math.sqrt(n),
        "does it run backwards? It starts at tau_born": lambda p, born, n: tau_at(1 - min(p, 1.0), born, n),
        "does it end at n? tau is the root of it": lambda p, born, n: tau_at(p, born, n * n),
        "is tau held for ever? It has to move": lambda p, born, n: born,
        "is tau rescaled at once? Where is the progress?": lambda p, born, n: math.sqrt(n),
        "is it the square of tau that moves on a line?": lambda p, born, n: math.sqrt(
            tau_at(p, born**2, n * n)
        ),
        "does the share of tau_born stay whole?": lambda p, born, n: born + min(p, 1.0) * math.sqrt(n),
    },
)

EXERCISES = {"grow_layer": GROW_LAYER, "split_layer": SPLIT_LAYER, "tau_at": TAU_AT}
