"""Wrong answers to the exercises of lesson 06, each with a word that must be in what the check says."""

import math

import numpy as np


def grow_dead(key, value, tau, new_value):
    m = len(new_value)
    return np.pad(key, ((0, m), (0, 0))), np.pad(value, ((0, m), (0, 0))), tau


def grow_rescaled(key, value, tau, new_value):
    key = np.vstack([key, np.zeros((len(new_value), key.shape[1]))])
    return key, np.vstack([value, new_value]), math.sqrt(len(key))


def grow_from_n(key, value, tau, new_value):
    rows = np.zeros((len(new_value), key.shape[1]))
    return np.vstack([key, rows]), np.vstack([value, new_value]), len(key) ** 0.5


def grow_random_keys(key, value, tau, new_value):
    rows = np.random.default_rng(0).standard_normal((len(new_value), key.shape[1]))
    return np.vstack([key, rows]), np.vstack([value, new_value]), tau


def grow_on_top(key, value, tau, new_value):
    rows = np.zeros((len(new_value), key.shape[1]))
    return np.vstack([rows, key]), np.vstack([new_value, value]), tau


def grow_one_key(key, value, tau, new_value):
    return np.vstack([key, np.zeros(key.shape[1])]), np.vstack([value, new_value]), tau


def grow_wide_keys(key, value, tau, new_value):
    return np.concatenate([key, np.zeros(new_value.shape)]), np.concatenate([value, new_value]), tau


def grow_sideways(key, value, tau, new_value):
    return np.concatenate([key, 0 * key], axis=1), np.concatenate([value, 0 * value], axis=1), tau


def grow_without_tau(key, value, tau, new_value):
    return np.vstack([key, np.zeros((len(new_value), key.shape[1]))]), np.vstack([value, new_value])


def grow_in_float64(key, value, tau, new_value):
    rows = np.zeros((len(new_value), key.shape[1]))
    return np.vstack([key, rows]), np.vstack([value, new_value]), tau


def grow_in_place(key, value, tau, new_value):
    grown = np.vstack([value, new_value])
    value *= 0
    return np.vstack([key, np.zeros((len(new_value), key.shape[1]), key.dtype)]), grown, tau


def split(key, value, tau, noise, factor=2**0.5, share=0.5, signs=(1, -1)):
    halves = [share * value + sign * noise for sign in signs]
    return np.vstack([key, key]), np.vstack(halves), factor * tau


def split_in_turn(key, value, tau, noise):
    keys, values = [], []
    for k, v, u in zip(key, value, noise, strict=True):
        keys += [k, k]
        values += [v / 2 + u, v / 2 - u]
    return np.array(keys), np.array(values), math.sqrt(2) * tau


def split_root_of_n(key, value, tau, noise):
    keys, values, _ = split(key, value, tau, noise)
    return keys, values, math.sqrt(len(keys))


def split_half_keys(key, value, tau, noise):
    keys, values, tau = split(key, value, tau, noise)
    return keys / 2, values, tau


def split_in_place(key, value, tau, noise):
    value /= 2
    return np.vstack([key, key]), np.vstack([value + noise, value - noise]), math.sqrt(2) * tau


WRONG = {
    "grow_layer": [
        (grow_rescaled, "held"),
        (grow_from_n, "grew before"),
        (grow_dead, "dead"),
        (grow_random_keys, "key: right shape, wrong values"),
        (grow_on_top, "below"),
        (grow_one_key, "one new key"),
        (grow_wide_keys, "as wide as key"),
        (grow_sideways, "shape"),
        (grow_without_tau, "expected 3: key, value, tau"),
        (grow_in_float64, "float64"),
        (grow_in_place, "changes its input value"),
    ],
    "split_layer": [
        (lambda k, v, tau, u: split(k, v, tau, u, factor=1.0), "held"),
        (lambda k, v, tau, u: split(k, v, tau, u, factor=2.0), "doubled"),
        (lambda k, v, tau, u: split(k, v, tau, u, factor=0.5**0.5), "tau: right shape, wrong values"),
        (split_root_of_n, "grew before"),
        (lambda k, v, tau, u: split(k, v, tau, u, share=1.0), "twice the old one"),
        (lambda k, v, tau, u: split(k, v, tau, u, signs=(1, 1)), "cancel"),
        (lambda k, v, tau, u: split(k, v, tau, 0 * u), "twins"),
        (lambda k, v, tau, u: split(k, v, tau, u, signs=(0, -1)), "one half only"),
        (lambda k, v, tau, u: split(k, v, tau, u, signs=(-1, 1)), "other way round"),
        (split_in_turn, "beside"),
        (split_half_keys, "key: right shape, wrong values"),
        (lambda k, v, tau, u: (k, v / 2 + u, math.sqrt(2) * tau), "shape"),
        (split_in_place, "changes its input value"),
    ],
    "tau_at": [
        (lambda p, born, n: born + p * (math.sqrt(n) - born), "Cap it"),
        (lambda p, born, n: math.sqrt(n) + min(p, 1) * (born - math.sqrt(n)), "backwards"),
        (lambda p, born, n: born + min(p, 1) * (n - born), "root"),
        (lambda p, born, n: born, "held for ever"),
        (lambda p, born, n: np.sqrt(n), "at once"),
        (lambda p, born, n: math.sqrt(born**2 + min(p, 1) * (n - born**2)), "square"),
        (lambda p, born, n: born + min(p, 1) * math.sqrt(n), "whole"),
        (lambda p, born, n: born * (math.sqrt(n) / born) ** min(p, 1), "wrong values"),
        (lambda p, born, n: (1 - min(p, 1)) * born, "wrong values"),
    ],
}
