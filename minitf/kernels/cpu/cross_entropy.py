"""Cross-entropy in blocks of rows."""

from typing import NamedTuple

import numpy as np

from ... import ops
from ..memory import empty
from ..threads import blocks, run
from .common import BLOCK, as_rows, dot, ones, plain


class CrossEntropyCache(NamedTuple):
    probabilities: np.ndarray
    targets: np.ndarray
    kept: np.ndarray


def cross_entropy_forward(logits, targets, mask=None):
    if not plain(logits) or logits.ndim < 1 or type(targets) is not np.ndarray:
        return NotImplemented
    if targets.shape != logits.shape[:-1] or targets.dtype.kind not in "iu":
        return NotImplemented
    if mask is not None and (
        type(mask) is not np.ndarray or mask.shape != targets.shape or mask.dtype != bool
    ):
        return NotImplemented
    rows, flat = as_rows(logits), targets.reshape(-1)
    kept = np.ones(flat.shape, bool) if mask is None else mask.reshape(-1)
    if flat.min() < 0 or flat.max() >= rows.shape[1] or not kept.any():
        return NotImplemented
    probabilities, losses = empty(rows.shape, rows.dtype), np.empty(len(rows), rows.dtype)
    parts = blocks(*rows.shape, BLOCK)

    def task(i):
        part = parts[i]
        out = np.subtract(rows[part], rows[part].max(axis=1, keepdims=True), out=probabilities[part])
        picked = out[np.arange(len(out)), flat[part]]
        np.exp(out, out=out)
        total = dot(out, ones(out))
        np.subtract(np.log(total[:, 0]), picked, out=losses[part])
        out *= 1 / total

    run(task, len(parts))
    loss = np.where(kept, losses, 0).sum() / kept.sum().astype(rows.dtype)
    return loss, CrossEntropyCache(probabilities.reshape(logits.shape), flat, kept)


def cross_entropy_backward(dloss, cache):
    probabilities, targets, kept = cache
    if not isinstance(dloss, int | float):
        ops.check_like("dloss", dloss, ())
    rows = as_rows(probabilities)
    share = (dloss * (kept.astype(rows.dtype) / kept.sum().astype(rows.dtype))).astype(rows.dtype)
    dlogits = empty(rows.shape, rows.dtype)
    parts = blocks(*rows.shape, BLOCK)

    def task(i):
        part = parts[i]
        out = np.multiply(rows[part], share[part, None], out=dlogits[part])
        out[np.arange(len(out)), targets[part]] -= share[part]

    run(task, len(parts))
    return dlogits.reshape(probabilities.shape)
