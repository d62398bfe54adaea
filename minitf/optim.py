"""AdamW, gradient clipping and the learning-rate schedule, on trees of arrays."""

import math

from .backend import array_module, check_number, float_module, has_fast_twin, tree_items, tree_map
from .growth import check_state


def adamw_init(params):
    """The state before the first step: {"step": 0, "m": zeros, "v": zeros}, moments shaped as the params."""

    def zeros():
        return tree_map(lambda p: float_module(params=p).zeros_like(p), params)

    return {"step": 0, "m": zeros(), "v": zeros()}


@has_fast_twin
def adamw_step(params, grads, state, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """One AdamW step (Loshchilov and Hutter, 2019), as torch.optim.AdamW; returns new params and state.

        m = β₁ m + (1-β₁) g        v = β₂ v + (1-β₂) g²
        p = p (1 - lr·wd) - lr · m / (1-β₁ᵗ) / (√(v / (1-β₂ᵗ)) + eps)

    Weight decay acts on matrices only (ndim >= 2; release: megatron/model/utils.py). Defaults are the release's.
    The memory of params and state is reused: go on with the trees that are returned, not with those passed in.
    Raises ValueError where the trees differ in names or shapes.
    """
    check_state(state)
    beta1, beta2 = check_betas(betas)
    lr, eps, weight_decay = (
        check_number(name, value, low=0)
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay))
    )
    step = state["step"] + 1
    scale = lr / (1 - beta1**step)
    unbias = 1 / math.sqrt(1 - beta2**step)

    def check(p, g, m, v):
        float_module(param=p, grad=g, m=m, v=v)
        if not p.shape == g.shape == m.shape == v.shape:
            raise ValueError(
                f"param {p.shape}, grad {g.shape} and moments {m.shape} do not match: grow_state?"
            )
        if eps > 0 and p.dtype.type(eps) == 0:
            raise ValueError(f"eps is {eps}, which is 0 in {p.dtype}: pass a larger eps, or train in float32")
        if not all(getattr(getattr(a, "flags", None), "writeable", True) for a in (p, m, v)):
            raise ValueError("params or state are read-only, and the step reuses their memory: pass copies")

    def update(p, g, m, v):
        xp = array_module(p)
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        if p.ndim >= 2:
            p *= 1 - lr * weight_decay
        p -= scale * m / (xp.sqrt(v) * unbias + eps)
        return p

    trees = params, grads, state["m"], state["v"]
    tree_map(check, *trees)  # all of it first: a step that stops halfway would leave half a model moved
    params = tree_map(update, *trees)
    return params, {**state, "step": step}


def check_betas(betas):
    """The two betas as floats; raises TypeError or ValueError unless they are numbers from 0 to below 1."""
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        raise TypeError(f"betas is {betas!r}: pass two numbers, (0.9, 0.95) say")
    return tuple(check_number("betas", beta, low=0, high=1 - 2**-53) for beta in betas)


@has_fast_twin
def clip_by_global_norm(grads, max_norm):
    """Scale all gradients so that their joint L2 norm is at most max_norm; returns grads and the norm before.

    >>> import numpy as np
    >>> grads, norm = clip_by_global_norm({"a": np.array([3.0]), "b": np.array([4.0])}, max_norm=1.0)
    >>> print(grads["a"].round(3), norm.round(3))
    [0.6] 5.0
    """
    max_norm = check_number("max_norm", max_norm)
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}: it must be positive")
    float_module(**{f"grads {name}": g for name, g in tree_items(grads)})
    squares = [(g * g).sum() for _, g in tree_items(grads)]
    xp = array_module(*squares)
    norm = xp.sqrt(sum(squares))
    factor = xp.minimum(1, max_norm / (norm + 1e-6))  # 1e-6 as in torch.nn.utils.clip_grad_norm_
    return tree_map(lambda g: g * factor, grads), norm


def warmup_cosine(step, peak, floor, warmup, total):
    """Learning rate of a step: linear from 0 to peak over `warmup` steps, then a cosine down to floor at `total`.

    Source: release, megatron/learning_rates.py (AnnealingLR), where update 0 has lr 0.
    Raises ValueError unless 0 <= warmup <= total.

    >>> [round(warmup_cosine(step, 1.0, 0.1, warmup=2, total=6), 3) for step in (0, 1, 2, 4, 6, 9)]
    [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """
    for name, value in {"step": step, "peak": peak, "floor": floor, "warmup": warmup, "total": total}.items():
        check_number(name, value, low=None if name in ("warmup", "total") else 0)
    if not 0 <= warmup <= total:
        raise ValueError(f"warmup {warmup} must lie between 0 and total {total}")
    if step < warmup:
        return peak * step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
