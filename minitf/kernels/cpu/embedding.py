"""The embedding; its backward pass sums rows with the same id."""

from typing import NamedTuple

import numpy as np

from .common import as_rows, gradient, plain
from .products import Lanes, add_products

ONE_HOT_VOCABULARY = 256  # up to here the product is faster


class EmbeddingCache(NamedTuple):
    ids: np.ndarray
    weight: np.ndarray


def embedding_forward(ids, weight):
    if not plain(weight) or weight.ndim != 2 or type(ids) is not np.ndarray or ids.dtype.kind not in "iu":
        return NotImplemented
    if ids.size == 0 or ids.min() < 0 or ids.max() >= len(weight):
        return NotImplemented
    return weight[ids], EmbeddingCache(ids, weight)


def embedding_backward(dout, cache):
    """A product with the one-hot matrix, or one sum per id over sorted rows: np.add.at adds row by row."""
    ids, weight = cache
    drows = as_rows(gradient(dout, (*ids.shape, weight.shape[1]), weight.dtype))
    flat = ids.reshape(-1)
    if len(weight) <= ONE_HOT_VOCABULARY:
        one_hot = np.zeros((flat.size, len(weight)), weight.dtype)
        one_hot[np.arange(flat.size), flat] = 1

        def backward(part, sums, first):
            add_products([(one_hot[part], drows[part])], sums, first)

        lanes = Lanes(*one_hot.shape, [weight])
        lanes.run(backward)
        return lanes.total()[0]
    order = np.argsort(flat, kind="stable")
    present, starts = np.unique(flat[order], return_index=True)
    dweight = np.zeros(weight.shape, weight.dtype)
    dweight[present] = np.add.reduceat(drows[order], starts, axis=0)
    return dweight
