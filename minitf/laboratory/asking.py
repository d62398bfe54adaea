"""A small model on a device answers, and asks a large one in a cloud at some positions: at which, and what is sent.

Everything here works on what two models said about the same held-out windows; nothing knows a model but `answers`.
"""

from typing import NamedTuple

import numpy as np

from ..data import heldout_batches
from ..model import forward
from ..ops import Array

RIDGE = 10.0  # of `expected_gain`, in units of positions


class Answers(NamedTuple):
    """What a model says at the T positions of W windows."""

    log_probs: Array  # (W, T, V)
    targets: Array  # (W, T)

    @property
    def losses(self):
        """Nats, (W, T)."""
        return losses(self.log_probs, self.targets)

    @property
    def right(self):
        """Is the likeliest character the right one? (W, T)"""
        return self.log_probs.argmax(axis=-1) == self.targets


def answers(params, config, ids, windows):
    """Answers of a model on so many held-out windows, spread as `evaluate` spreads them."""
    said = [
        (log_softmax(forward(params, inputs, config)[0]), targets)
        for inputs, targets in heldout_batches(ids, 64, config.context, windows)
    ]
    return Answers(*map(np.concatenate, zip(*said, strict=True)))


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def losses(log_probs, targets):
    return -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


# ------------------------------------------------------------------------- when to ask: the larger, the sooner


def unlikely(device):
    """One minus the largest probability: how often the device's best guess should be wrong."""
    return 1 - np.exp(device.log_probs.max(axis=-1))


def entropy(device):
    """Nats that the device expects to lose."""
    return -(np.exp(device.log_probs) * device.log_probs).sum(axis=-1)


def expected_gain(device, cloud):
    """A function of the device's answers: nats that the cloud should gain, a linear guess from the log-probabilities.

    Fitted by ridge regression to what both said on a text for tuning: V + 1 numbers that the device has to keep.
    """

    def features(answers):
        rows = answers.log_probs.reshape(-1, answers.log_probs.shape[-1]).astype(np.float64)
        return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)

    x, gain = features(device), (device.losses - cloud.losses).ravel()
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ gain)
    return lambda answers: (features(answers) @ weights).reshape(answers.targets.shape)


# ------------------------------------------------------------------------------------------------ what is sent


def text_once(asked):
    """Characters sent per character of text, if the cloud remembers: all up to the last question of each window."""
    position = np.arange(1, asked.shape[1] + 1)
    return float((asked * position).max(axis=1).sum() / asked.size)


def text_again(asked):
    """The same, if the cloud forgets: every question brings all the text before it."""
    position = np.arange(1, asked.shape[1] + 1)
    return float((asked * position).sum() / asked.size)


def patched(device, cloud, kept):
    """Log-probabilities where the cloud sends only its `kept` largest: the device shares out the rest as it would."""
    largest = np.argpartition(cloud.log_probs, -kept, axis=-1)[..., -kept:]
    told = np.take_along_axis(np.exp(cloud.log_probs), largest, axis=-1)
    rest = np.exp(device.log_probs)
    np.put_along_axis(rest, largest, 0, axis=-1)
    left = np.maximum(1 - told.sum(axis=-1, keepdims=True), 1e-9)  # rounding may leave nothing
    mixed = left * rest / np.maximum(rest.sum(axis=-1, keepdims=True), 1e-30)
    np.put_along_axis(mixed, largest, told, axis=-1)
    return np.log(np.maximum(mixed, 1e-30))


# ---------------------------------------------------------------------------------------------------- all of it


def report(device, cloud, tuning, shares, kept):
    """Loss, right answers and characters sent for every rule and share of positions asked, for JSON.

    device, cloud: answers on the held-out text. tuning: both on another text, which sets the threshold of every rule
    for a share, and the weights of `expected_gain`. "oracle" knows the held-out gains and asks for the largest. Asking
    at random needs no run: it closes of the gap just the share that it asks.
    """
    gain = expected_gain(*tuning)
    rules = {"max probability": unlikely, "entropy": entropy, "expected gain": gain}
    scores = {name: (rule(tuning[0]), rule(device)) for name, rule in rules.items()}
    truth = device.losses - cloud.losses
    scores["oracle"] = truth, truth
    short = losses(patched(device, cloud, kept), cloud.targets)

    def row(asked):
        numbers = {
            "share": asked.mean(),
            "loss": np.where(asked, cloud.losses, device.losses).mean(),
            "loss_short": np.where(asked, short, device.losses).mean(),
            "right": np.where(asked, cloud.right, device.right).mean(),
            "text_once": text_once(asked),
            "text_again": text_again(asked),
        }
        return {name: round(float(number), 5) for name, number in numbers.items()}

    return {
        "device": {"loss": _mean(device.losses), "right": _mean(device.right)},
        "cloud": {"loss": _mean(cloud.losses), "right": _mean(cloud.right), "loss_short": _mean(short)},
        "rules": {
            name: [row(where(here, there, share)) for share in shares]
            for name, (here, there) in scores.items()
        },
    }


def where(tuning, scores, share):
    """Ask at the scores above the threshold that this share of the tuning text exceeds."""
    if share >= 1:
        return np.ones(scores.shape, bool)
    return scores > np.quantile(tuning, 1 - share)


def _mean(values):
    return round(float(values.mean(dtype=np.float64)), 5)
