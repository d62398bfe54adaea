"""Wrong answers to the exercises of lesson 02, each with a word that must be in what the check says."""

import math

import numpy as np

from minitf import gelu_forward


def gelu(a):
    return gelu_forward(a)[0]


def theta(scores, tau):
    return gelu(tau * scores / np.linalg.norm(scores, axis=-1, keepdims=True))


def theta_in_place(scores, tau):
    scores /= np.linalg.norm(scores, axis=-1, keepdims=True)
    return gelu(tau * scores)


def theta_with_eps(scores, tau):
    return gelu(tau * scores / (np.linalg.norm(scores, axis=-1, keepdims=True) + 0.1))


def theta_of_first_row(scores, tau):
    return gelu(tau * scores / np.linalg.norm(scores.reshape(-1, scores.shape[-1])[0]))


def pattention_by_loop_over_inputs(x, key, value):
    out = np.zeros((len(x), value.shape[1]))
    for t in range(len(x)):
        out[t] = theta(key @ x[t], math.sqrt(len(key))) @ value
    return out


def pattention_of_unit_keys(x, key, value):
    key = key / np.linalg.norm(key, axis=-1, keepdims=True)
    return theta(x @ key.T, math.sqrt(len(key))) @ value


def pattention_in_double(x, key, value):
    return theta(x @ key.T, np.sqrt(len(key))) @ value


WRONG = {
    "theta": [
        (lambda a, tau: gelu(a * tau), "length"),
        (lambda a, tau: gelu(a / np.linalg.norm(a, axis=-1, keepdims=True)), "tau"),
        (lambda a, tau: gelu(tau * a / np.linalg.norm(a)), "Each row"),
        (lambda a, tau: gelu(tau * a / np.linalg.norm(a, axis=-1)), "keepdims"),
        (lambda a, tau: gelu(tau * a / np.square(a).sum(axis=-1, keepdims=True)), "square root"),
        (lambda a, tau: gelu(tau * a / a.sum(axis=-1, keepdims=True)), "wrong values"),
        (lambda a, tau: gelu(tau * a / np.abs(a).max(axis=-1, keepdims=True)), "wrong values"),
        (lambda a, tau: gelu(a) * tau / np.linalg.norm(gelu(a), axis=-1, keepdims=True), "last"),
        (lambda a, tau: gelu(a / np.linalg.norm(a, axis=-1, keepdims=True)) * tau, "outside"),
        (lambda a, tau: gelu_forward(theta_scores(a, tau), "tanh")[0], "wrong values"),
        (lambda a, tau: gelu_forward(theta_scores(a, tau)), "tuple"),
        (theta_in_place, "in place"),
        (theta_with_eps, "wrong values"),
        (theta_of_first_row, "wrong values"),
    ],
    "pattention": [
        (lambda x, key, value: theta(np.matmul(x, key), math.sqrt(len(key))) @ value, "transpose"),
        (lambda x, key, value: theta(x @ key.T, math.sqrt(x.shape[-1])) @ value, "d_in"),
        (lambda x, key, value: theta(x @ key.T, math.sqrt(len(x))) @ value, "√T"),
        (lambda x, key, value: theta(x @ key.T, len(value)) @ value, "√n"),
        (lambda x, key, value: theta(x @ key.T, 1) @ value, "tau 1"),
        (lambda x, key, value: gelu(x @ key.T) @ value, "norm"),
        (lambda x, key, value: theta(x @ key.T, math.sqrt(len(key))), "values"),
        (lambda x, key, value: theta(x @ value.T, math.sqrt(len(key))) @ key, "swapped"),
        (lambda x, key, value: (x @ key.T) @ value, "Θ"),
        (lambda x, key, value: theta(x @ key.T, math.sqrt(len(key))) * value, "raises"),
        (lambda x, key, value: theta(x @ key.T, math.sqrt(len(key))) @ value / len(key), "wrong values"),
        (pattention_by_loop_over_inputs, "raises"),
        (pattention_of_unit_keys, "wrong values"),
        (pattention_in_double, "float64"),
    ],
}


def theta_scores(scores, tau):
    return tau * scores / np.linalg.norm(scores, axis=-1, keepdims=True)
