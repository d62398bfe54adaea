"""Matrix products in blocks of rows, and weight gradients that no number of threads changes."""

import numpy as np

from ..memory import empty, scratch
from ..threads import blocks, run
from .common import BLOCK

PRODUCT_ROWS = 512  # BLAS packs the matrix for every block of rows: shorter blocks multiply up to 10 % slower


def product_blocks(rows, width):
    """Blocks of rows to multiply by a matrix of `width` columns; four at least, where there are rows for it."""
    return blocks(rows, width, min(BLOCK, rows * width // 4), min(PRODUCT_ROWS, max(64, rows // 4)))


def gradient_rows(n):
    """How many of the n rows of a weight gradient one thread of the compiled loops takes at a time."""
    return max(64, -(-n // 4))


class Lanes:
    """Sums over blocks of rows for weight gradients, as arrays `like`.

    Blocks are shared out among lanes, each with sums of its own that are added in the end: who works on which
    lane when changes no bit. Lanes depend on the shape alone: few, since each costs memory.
    """

    def __init__(self, rows, width, like):
        self.blocks = product_blocks(rows, width)
        count = len(self.blocks)
        self.lanes = blocks(count, 1, max(1, count // min(16, max(4, count // 4))))
        self.sums = [empty((len(self.lanes), *a.shape), a.dtype) for a in like]

    def run(self, backward):
        """backward(block, sums, first) stores its share in the sums where `first`, else adds it."""

        def task(i):
            lane = self.blocks[self.lanes[i]]
            for block in lane:
                backward(block, [total[i] for total in self.sums], block is lane[0])

        run(task, len(self.lanes))

    def total(self):
        """The sums over all lanes, lane after lane."""
        results = [empty(total.shape[1:], total.dtype) for total in self.sums]
        tasks = [
            (total, out, part)
            for total, out in zip(self.sums, results, strict=True)
            for part in blocks(*out.shape, 2 * BLOCK)
        ]

        def task(i):
            total, out, part = tasks[i]
            out[part] = total[0, part]
            for lane in total[1:]:
                out[part] += lane[part]

        run(task, len(tasks))
        return results


def add_products(pairs, sums, first):
    """sum += leftᵀ @ right of each pair; the sum starts with it where `first`."""
    for (left, right), total in zip(pairs, sums, strict=True):
        if first:
            np.matmul(left.T, right, out=total)
        else:
            total += np.matmul(left.T, right, out=scratch("product", total.shape, total.dtype))
