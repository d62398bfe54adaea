"""Exercises of lesson 11: the best tokens of every row, and how selective a unit is."""

import numpy as np

from .core import Exercise

# --------------------------------------------------------------------------------------------- choose


def choose(scores, k):
    return scores >= np.sort(scores, axis=-1)[:, [-k]]


def scores_and_counts(rng):
    for rows, n, k in ((3, 5, 2), (4, 6, 1), (2, 7, 6), (3, 4, 4), (1, 9, 3)):
        yield rng.standard_normal((rows, n)), k


def _threshold(scores, at):
    return np.sort(scores, axis=-1)[:, at, None]


CHOOSE = Exercise(
    reference=choose,
    sample=scores_and_counts,
    mistakes={
        "are the lowest chosen? The largest score is the best": (
            lambda scores, k: scores <= _threshold(scores, k - 1)
        ),
        "are the largest sizes chosen? A very negative score is a bad one": (
            lambda scores, k: choose(np.abs(scores), k)
        ),
        "is one too many chosen? k counts the threshold itself": (
            lambda scores, k: scores >= _threshold(scores, max(0, scores.shape[-1] - k - 1))
        ),
        "is one missing? The k-th largest score belongs to the k": (
            lambda scores, k: scores > _threshold(scores, -k)
        ),
        "do all rows share one choice? Each row has its own": (
            lambda scores, k: np.broadcast_to(choose(scores[:1], k), scores.shape).copy()
        ),
        "is it the threshold of the first row for all? Each row has its own": (
            lambda scores, k: scores >= _threshold(scores, -k)[0]
        ),
        "is it one threshold for the whole table? Each row has its own": (
            lambda scores, k: scores >= np.sort(scores, axis=None)[-k * len(scores)]
        ),
        "are the best rows of every column chosen? A row chooses among its columns": (
            lambda scores, k: scores >= np.sort(scores, axis=0)[-min(k, len(scores))]
        ),
        "are it the numbers of the tokens? Return True and False, one for every token": (
            lambda scores, k: np.argsort(scores, axis=-1)[:, scores.shape[-1] - k :]
        ),
    },
)

# ---------------------------------------------------------------------------------------- selectivity


def entropy(p):
    return -sum(q * np.log(q) for q in (p, 1 - p) if q > 0)


def selectivity(fires, labels):
    whole, left = entropy(fires.mean()), 0.0
    for c in np.unique(labels):
        left += (labels == c).mean() * entropy(fires[labels == c].mean())
    return float((whole - left) / whole) if whole else 0.0


def firings_and_labels(rng):
    for rows, n_labels in ((40, 3), (25, 4), (60, 2)):
        labels = rng.integers(0, n_labels, rows) ** 2
        yield (rng.random(rows) < 0.2 + 0.6 * (labels == labels[0])), labels
    yield np.arange(12) % 3 == 0, np.arange(12) % 3  # decided
    yield np.zeros(6, bool), np.arange(6) % 2  # never fires


def _parts(fires, labels):
    """(share, firing rate) of every label."""
    return [((labels == c).mean(), fires[labels == c].mean()) for c in np.unique(labels)]


def _half(p):
    return -p * np.log(p) if p > 0 else 0.0


def _normalized(fires, labels, left):
    whole = entropy(fires.mean())
    return float((whole - left) / whole) if whole else 0.0


SELECTIVITY = Exercise(
    reference=selectivity,
    sample=firings_and_labels,
    mistakes={
        "is it divided by the entropy of firing? The mutual information alone is not from 0 to 1": (
            lambda fires, labels: float(
                entropy(fires.mean()) - sum(w * entropy(p) for w, p in _parts(fires, labels))
            )
        ),
        "are all labels weighted alike? A label counts as often as it comes": (
            lambda fires, labels: _normalized(
                fires, labels, np.mean([entropy(p) for _, p in _parts(fires, labels)])
            )
        ),
        "are the labels not weighted at all? Their entropies are averaged, not added": (
            lambda fires, labels: _normalized(
                fires, labels, sum(entropy(p) for _, p in _parts(fires, labels))
            )
        ),
        "is it what is left, and not what the label tells? Take it from the whole": (
            lambda fires, labels: 1 - selectivity(fires, labels) if fires.any() else 0.0
        ),
        "is it divided by the entropy of the labels?": (
            lambda fires, labels: float(
                (entropy(fires.mean()) - sum(w * entropy(p) for w, p in _parts(fires, labels)))
                / -sum(w * np.log(w) for w, _ in _parts(fires, labels))
            )
        ),
        "does the entropy lack its second half, the part of 1 - p?": (
            lambda fires, labels: float(
                (_half(fires.mean()) - sum(w * _half(p) for w, p in _parts(fires, labels)))
                / _half(fires.mean())
                if fires.any()
                else 0.0
            )
        ),
        "is it NaN for a unit that never fires? Its selectivity is 0": (
            lambda fires, labels: selectivity(fires, labels) if fires.any() else float("nan")
        ),
    },
)

EXERCISES = {"choose": CHOOSE, "selectivity": SELECTIVITY}
