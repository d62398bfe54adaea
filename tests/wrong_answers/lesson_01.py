"""Wrong answers to the exercises of lesson 01, each with a word that must be in what the check says."""

import math

import numpy as np


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_in_place(scores):
    scores -= scores.max(axis=-1, keepdims=True)
    e = np.exp(scores)
    return e / e.sum(axis=-1, keepdims=True)


def softmax_as_list(scores):
    rows = scores.reshape(-1, scores.shape[-1])
    return [[math.exp(a) / sum(math.exp(b) for b in row) for a in row] for row in rows]


def softmax_into_new_array(scores):
    out = np.zeros(scores.shape)
    out += softmax(scores)
    return out


def attend_loop_over_keys(queries, keys, values):
    out = np.zeros((len(keys), values.shape[1]))
    for t, key in enumerate(keys):
        out[t] = softmax(queries @ key)[0] * values[t]
    return out


def attend_last_value(queries, keys, values):
    out = np.zeros((len(queries), values.shape[1]))
    for t, query in enumerate(queries):
        for w, value in zip(softmax(keys @ query), values, strict=True):
            out[t] = w * value
    return out


def backward_of_one_path(dw, w):
    jacobian = np.eye(w.shape[-1]) * w[..., None]
    return (dw[..., None, :] @ jacobian)[..., 0, :]


def backward_in_place(dw, w):
    dw *= w
    return dw - w * dw.sum(axis=-1, keepdims=True)


WRONG = {
    "softmax": [
        (lambda a: a / np.abs(a).sum(axis=-1, keepdims=True), "wrong values"),
        (lambda a: np.exp(a) / np.exp(a).sum(axis=-1, keepdims=True), "maximum"),
        (lambda a: np.exp(a - a.max()) / np.exp(a - a.max()).sum(), "Each row"),
        (lambda a: softmax(a.swapaxes(0, -1)).swapaxes(0, -1), "sum"),
        (lambda a: np.exp(a - a.max(axis=-1, keepdims=True)), "division"),
        (lambda a: np.log(softmax(a)), "logarithm"),
        (lambda a: -softmax(a), "sign"),
        (lambda a: 1 / (1 + np.exp(-a)), "wrong values"),
        (softmax_in_place, "in place"),
        (softmax_as_list, "list"),
        (softmax_into_new_array, "float64"),
    ],
    "attend": [
        (lambda q, k, v: np.matmul(q, k.T) @ v, "softmax"),
        (lambda q, k, v: softmax(np.matmul(q, k)) @ v, "transpose"),
        (lambda q, k, v: softmax(np.einsum("td,sd->ts", q, k)), "values"),
        (lambda q, k, v: softmax(np.einsum("td,sd->st", q, k)) @ v, "swapped"),
        (lambda q, k, v: softmax(q @ k.T / math.sqrt(q.shape[1])) @ v, "√d"),
        (lambda q, k, v: np.exp(q @ k.T) @ v, "wrong values"),
        (lambda q, k, v: softmax(q @ k.T) @ k, "keys"),
        (lambda q, k, v: (softmax(q @ k.T) @ v).T, "shape"),
        (attend_loop_over_keys, "shape"),
        (attend_last_value, "wrong values"),
    ],
    "softmax_backward": [
        (lambda dw, w: np.multiply(dw, w), "average"),
        (lambda dw, w: w * dw - w * np.sum(w * dw), "Each row"),
        (lambda dw, w: w * dw - (w * dw).sum(axis=-1, keepdims=True), "wrong values"),
        (lambda dw, w: w * dw - w * dw.mean(axis=-1, keepdims=True), "mean"),
        (lambda dw, w: w * dw - w * w * dw, "paths"),
        (lambda dw, w: -w * (dw - (w * dw).sum(axis=-1, keepdims=True)), "sign"),
        (lambda dw, w: w * (dw - (w * dw).sum(axis=0, keepdims=True)), "wrong values"),
        (lambda dw, w: w * (1 - w), "wrong values"),
        (backward_of_one_path, "average"),
        (backward_in_place, "in place"),
    ],
}
