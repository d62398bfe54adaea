"""Wrong answers to the exercises of lesson 11, each with a word that must be in what the check says."""

import numpy as np


def entropy(p):
    return -sum(q * np.log(q) for q in (p, 1 - p) if q > 0)


def told(fires, labels):
    left = sum((labels == c).mean() * entropy(fires[labels == c].mean()) for c in np.unique(labels))
    return entropy(fires.mean()) - left


def threshold(scores, at):
    return np.sort(scores, axis=-1)[:, [at]]


def sort_in_place(scores, k):
    before = scores.copy()
    scores.sort(axis=-1)
    return before >= scores[:, [scores.shape[-1] - k]]


def choose_by_numbers(scores, k):
    out = np.zeros(scores.shape)
    np.put_along_axis(out, np.argsort(scores, axis=-1)[:, scores.shape[-1] - k :], 1, axis=-1)
    return out


def over_the_larger_entropy(fires, labels):
    of_labels = -sum(p * np.log(p) for p in np.unique(labels, return_counts=True)[1] / len(labels))
    return told(fires, labels) / max(entropy(fires.mean()), of_labels)


def divide_by_zero(fires, labels):
    with np.errstate(all="ignore"):
        return float(np.float64(told(fires, labels)) / np.float64(entropy(fires.mean())))


def bits_over_nats(fires, labels):
    whole = entropy(fires.mean())
    return told(fires, labels) / np.log(2) / whole if whole else 0.0


WRONG = {
    "choose": [
        (lambda scores, k: scores <= threshold(scores, k - 1), "lowest"),
        (lambda scores, k: scores > threshold(scores, scores.shape[-1] - k), "one missing"),
        (lambda scores, k: scores >= threshold(scores, max(0, scores.shape[-1] - k - 1)), "one too many"),
        (lambda scores, k: np.argsort(scores, axis=-1)[:, scores.shape[-1] - k :], "True and False"),
        (lambda scores, k: scores >= np.sort(scores.ravel())[-k * len(scores)], "whole table"),
        (lambda scores, k: np.abs(scores) >= threshold(np.abs(scores), scores.shape[-1] - k), "negative"),
        (lambda scores, k: scores >= threshold(scores, scores.shape[-1] - k)[0], "first row"),
        (
            lambda scores, k: (scores >= threshold(scores, scores.shape[-1] - k))[[0] * len(scores)],
            "share one choice",
        ),
        (lambda scores, k: scores > 0, "wrong values"),
        (choose_by_numbers, "float64"),
        (sort_in_place, "in place"),
    ],
    "selectivity": [
        (lambda fires, labels: told(fires, labels), "entropy of firing"),
        (lambda fires, labels: 1 - told(fires, labels) / (entropy(fires.mean()) or 1), "wrong values"),
        (divide_by_zero, "NaN"),
        (bits_over_nats, "wrong values"),
        (over_the_larger_entropy, "wrong values"),
        (lambda fires, labels: fires.mean(), "wrong values"),
        (lambda fires, labels: 1.0 if told(fires, labels) > 0.1 else 0.0, "wrong values"),
    ],
}
