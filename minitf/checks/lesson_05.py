"""Exercises of lesson 05: a Tokenformer block, and a step of AdamW."""

import numpy as np

from ..attention import causal_attention_forward
from ..ops import layer_norm_forward
from ..pattention import pattention_forward
from .core import Exercise

# ----------------------------------------------------------------------------------------------- block


def block(x, p, n_heads):
    """x + attention(norm(x)), then x + ffn(norm(x)); positions rotate whole heads."""
    x = x + attention(norm(x), p["attention"], n_heads)
    return x + ffn(norm(x), p)


def norm(x):
    return layer_norm_forward(x)[0]


def attention(h, a, n_heads, rotary_fraction=1.0):
    query, key, value = (pattention_forward(h, **a[name])[0] for name in ("query", "key", "value"))
    h, _ = causal_attention_forward(query, key, value, n_heads, rotary_fraction)
    return pattention_forward(h, **a["proj"])[0]


def ffn(h, p):
    return pattention_forward(h, **p["ffn"])[0]


def inputs_and_blocks(rng):
    for t, d, n_heads in ((5, 8, 2), (3, 12, 3), (1, 4, 1)):
        p = {"attention": {name: _layer(rng, d, d + 1) for name in ("query", "key", "value", "proj")}}
        yield 0.5 + rng.standard_normal((t, d)), p | {"ffn": _layer(rng, d, 2 * d + 1)}, n_heads


def _layer(rng, d, n):
    key, value = rng.standard_normal((2, n, d))
    return {"key": key, "value": value / n**0.5}


def _unnormed(x, p, n_heads):
    x = x + attention(x, p["attention"], n_heads)
    return x + ffn(x, p)


def _without_residuals(x, p, n_heads):
    return ffn(norm(attention(norm(x), p["attention"], n_heads)), p)


def _first_residual_missing(x, p, n_heads):
    h = attention(norm(x), p["attention"], n_heads)
    return h + ffn(norm(h), p)


def _last_residual_missing(x, p, n_heads):
    return ffn(norm(x + attention(norm(x), p["attention"], n_heads)), p)


def _second_norm_missing(x, p, n_heads):
    x = x + attention(norm(x), p["attention"], n_heads)
    return x + ffn(x, p)


def _norms_behind(x, p, n_heads):
    x = norm(x + attention(x, p["attention"], n_heads))
    return norm(x + ffn(x, p))


def _residual_from_the_norm(x, p, n_heads):
    h = norm(x)
    x = h + attention(h, p["attention"], n_heads)
    h = norm(x)
    return h + ffn(h, p)


def _side_by_side(x, p, n_heads):
    return x + attention(norm(x), p["attention"], n_heads) + ffn(norm(x), p)


def _ffn_first(x, p, n_heads):
    x = x + ffn(norm(x), p)
    return x + attention(norm(x), p["attention"], n_heads)


def _proj_missing(x, p, n_heads):
    query, key, value = (
        pattention_forward(norm(x), **p["attention"][n])[0] for n in ("query", "key", "value")
    )
    x = x + causal_attention_forward(query, key, value, n_heads, 1.0)[0]
    return x + ffn(norm(x), p)


def _with(rotary_fraction=1.0, n_heads=None, swap=None):
    """block with another attention."""

    def wrong(x, p, heads):
        a = dict(p["attention"])
        if swap:
            a[swap[0]], a[swap[1]] = a[swap[1]], a[swap[0]]
        x = x + attention(norm(x), a, n_heads or heads, rotary_fraction)
        return x + ffn(norm(x), p)

    return wrong


BLOCK = {
    "are both norms missing?": _unnormed,
    "are both residuals missing, the x + ...?": _without_residuals,
    "is the first residual missing, x + attention?": _first_residual_missing,
    "is the second residual missing, x + ffn?": _last_residual_missing,
    "is the norm before the ffn missing?": _second_norm_missing,
    "do the norms stand behind the sums? They stand in front of attention and ffn": _norms_behind,
    "do you add to norm(x)? Add to x itself": _residual_from_the_norm,
    "do both halves start from the same x? The ffn sees what attention has written": _side_by_side,
    "is the ffn first? Attention is": _ffn_first,
    "is the Pattention proj missing, after attention?": _proj_missing,
    "do the positions rotate? rotary_fraction=1.0": _with(rotary_fraction=0.0),
    "is n_heads used? This is one head": _with(n_heads=1),
    "are query and key swapped?": _with(swap=("query", "key")),
    "are key and value swapped?": _with(swap=("key", "value")),
    "are query and value swapped?": _with(swap=("query", "value")),
}

# ----------------------------------------------------------------------------------------------- AdamW


def adamw(p, g, m, v, t, lr, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1):
    """One AdamW step of a matrix: new p, m, v."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p * (1 - lr * decay) - lr * step, m, v


def matrices_and_means(rng):
    """The first step, from means of zero; a later one; gradients so small that eps counts."""
    for shape, t, size in (((3, 4), 1, 1.0), ((2, 5), 7, 1.0), ((4, 2), 3, 1e-8)):
        p, g = rng.standard_normal((2, *shape))
        m, v = (0 * p, 0 * p) if t == 1 else (rng.standard_normal(shape), rng.uniform(0.5, 2, shape))
        yield p, size * g, size * m, size**2 * v, t, 0.1


BETA1, BETA2, EPS, DECAY = 0.9, 0.95, 1e-8, 0.1


def _adamw(
    mean=lambda m, g: BETA1 * m + (1 - BETA1) * g,
    square=lambda v, g: BETA2 * v + (1 - BETA2) * g * g,
    unbias=lambda mean, beta, t: mean / (1 - beta**t),
    unbias_square=lambda mean, beta, t: mean / (1 - beta**t),
    ratio=lambda m, v: m / (np.sqrt(v) + EPS),
    gradient=lambda p, g: g,
    move=lambda p, step, lr: p * (1 - lr * DECAY) - lr * step,
):
    """adamw with one part replaced."""

    def wrong(p, g, m, v, t, lr):
        g = gradient(p, g)
        m, v = mean(m, g), square(v, g)
        step = ratio(unbias(m, BETA1, t), unbias_square(v, BETA2, t))
        return move(p, step, lr), m, v

    return wrong


def _keeps_unbiased(p, g, m, v, t, lr):
    p, m, v = adamw(p, g, m, v, t, lr)
    return p, m / (1 - BETA1**t), v / (1 - BETA2**t)


def _as_they_are(mean, beta, t):
    return mean


def _one_off(mean, beta, t):
    return mean / (1 - beta ** (t + 1))


ADAMW = {
    "are the divisions by 1 - βᵗ missing, which repair the start at zero?": _adamw(
        unbias=_as_they_are, unbias_square=_as_they_are
    ),
    "is the division by 1 - β₁ᵗ missing, for m?": _adamw(unbias=_as_they_are),
    "is the division by 1 - β₂ᵗ missing, for v?": _adamw(unbias_square=_as_they_are),
    "is the power of β t + 1? Steps are counted from 1": _adamw(unbias=_one_off, unbias_square=_one_off),
    "are m and v returned after the division? The running means stay as they are": _keeps_unbiased,
    "is the gradient squared, in v?": _adamw(square=lambda v, g: BETA2 * v + (1 - BETA2) * g),
    "is the square root of v missing?": _adamw(ratio=lambda m, v: m / (v + EPS)),
    "is eps under the root? It is added to it": _adamw(ratio=lambda m, v: m / np.sqrt(v + EPS)),
    "is eps missing?": _adamw(ratio=lambda m, v: m / np.sqrt(v)),
    "are the factors β and 1 - β swapped, in m and v?": _adamw(
        mean=lambda m, g: (1 - BETA1) * m + BETA1 * g, square=lambda v, g: (1 - BETA2) * v + BETA2 * g * g
    ),
    "are β₁ and β₂ swapped?": _adamw(
        mean=lambda m, g: BETA2 * m + (1 - BETA2) * g,
        square=lambda v, g: BETA1 * v + (1 - BETA1) * g * g,
        unbias=lambda mean, beta, t: mean / (1 - BETA2**t),
        unbias_square=lambda mean, beta, t: mean / (1 - BETA1**t),
    ),
    "is the factor 1 - β missing before the gradient?": _adamw(
        mean=lambda m, g: BETA1 * m + g, square=lambda v, g: BETA2 * v + g * g
    ),
    "is the weight decay missing?": _adamw(move=lambda p, step, lr: p - lr * step),
    "is lr missing in the weight decay?": _adamw(move=lambda p, step, lr: p * (1 - DECAY) - lr * step),
    "is the weight decay in the gradient? That is Adam with L2: AdamW decays beside it": _adamw(
        gradient=lambda p, g: g + DECAY * p, move=lambda p, step, lr: p - lr * step
    ),
    "does the decay come after the step? It shrinks the old p": _adamw(
        move=lambda p, step, lr: (p - lr * step) * (1 - lr * DECAY)
    ),
    "does the step go uphill? It is subtracted": _adamw(
        move=lambda p, step, lr: p * (1 - lr * DECAY) + lr * step
    ),
    "is lr missing before the step?": _adamw(move=lambda p, step, lr: p * (1 - lr * DECAY) - step),
}


EXERCISES = {
    "block": Exercise(block, inputs_and_blocks, BLOCK),
    "adamw": Exercise(adamw, matrices_and_means, ADAMW, outputs=("p", "m", "v")),
}
