"""AdamW and the norm of all gradients, over the blocks of every leaf of a tree."""

import math

import numpy as np

from ...backend import tree_map
from ..memory import scratch
from ..threads import blocks, run
from .common import BLOCK, COMPILED_BLOCK, compiled, numbers, plain


def adamw_step(params, grads, state, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """All leaves in blocks: 13 passes each while the block is in the cache, or one compiled loop."""
    if not isinstance(state, dict) or not {"step", "m", "v"} <= state.keys():
        return NotImplemented
    leaves, step = _leaves(params, grads, state["m"], state["v"]), state["step"]
    if leaves is None or not isinstance(betas, tuple | list) or len(betas) != 2:
        return NotImplemented
    if not numbers(step, lr, *betas, eps, weight_decay, low=0) or max(betas) >= 1 or step != int(step):
        return NotImplemented
    if not all(a.flags.writeable for p, _, m, v in leaves for a in (p, m, v)):
        return NotImplemented
    (beta1, beta2), step = betas, step + 1
    unbias = 1 / math.sqrt(1 - beta2**step)
    scale = lr / (1 - beta1**step) / unbias

    def keep(leaf):
        return 1 - lr * weight_decay if leaf[0].ndim >= 2 else 1

    loops = compiled(leaves[0][0].dtype)
    if loops is not None and all(a.flags.c_contiguous for leaf in leaves for a in leaf):
        for leaf in leaves:
            settings = map(np.float32, (beta1, beta2, eps / unbias, scale, keep(leaf)))
            loops.adamw(COMPILED_BLOCK, *(a.reshape(-1) for a in leaf), *settings)
        return params, {**state, "step": step}
    tasks = [(*leaf, part) for leaf in leaves for part in _leaf_parts(leaf[0])]

    def task(i):
        *leaf, part = tasks[i]
        p, g, m, v = (a[part] for a in leaf)
        term = scratch("adamw", p.shape, p.dtype)
        np.multiply(g, 1 - beta1, out=term)
        m *= beta1
        m += term
        np.square(g, out=term)
        term *= 1 - beta2
        v *= beta2
        v += term
        np.sqrt(v, out=term)
        term += eps / unbias
        np.divide(m, term, out=term)
        term *= scale
        p *= keep(leaf)
        p -= term

    run(task, len(tasks))
    return params, {**state, "step": step}


def clip_by_global_norm(grads, max_norm):
    """Where nothing is to be clipped, the gradients themselves come back."""
    leaves = _leaves(grads)
    if leaves is None or not numbers(max_norm) or max_norm <= 0:
        return NotImplemented
    dtype = leaves[0][0].dtype
    tasks = [(leaf, part) for (leaf,) in leaves for part in _leaf_parts(leaf)]
    squares = np.empty(len(tasks), dtype)

    def task(i):
        leaf, part = tasks[i]
        flat = np.ascontiguousarray(leaf[part]).reshape(-1)
        squares[i] = np.vecdot(flat, flat)

    run(task, len(tasks))
    norm = np.sqrt(squares.sum())
    factor = np.minimum(1, max_norm / (norm + dtype.type(1e-6)))
    return (grads if factor == 1 else tree_map(lambda g: g * factor, grads)), norm


def _leaves(*trees):
    """The leaves side by side; None unless they match and are float32 or float64 arrays of NumPy."""
    leaves = []
    try:
        tree_map(lambda *leaf: leaves.append(leaf), *trees)
    except (ValueError, AttributeError, TypeError):
        return None
    shapes_fit = all(len({getattr(a, "shape", None) for a in leaf}) == 1 for leaf in leaves)
    return leaves if shapes_fit and plain(*(a for leaf in leaves for a in leaf)) else None


def _leaf_parts(leaf):
    """Slices along the first axis; the whole of a scalar."""
    return blocks(len(leaf), leaf[:1].size, BLOCK) if leaf.ndim else [...]
