"""Wrong answers to the exercises of lesson 05, each with a word that must be in what the check says."""

import numpy as np

from minitf import causal_attention_forward, layer_norm_forward, pattention_forward

# ----------------------------------------------------------------------------------------------- block


def norm(x):
    return layer_norm_forward(x)[0]


def layer(x, p):
    return pattention_forward(x, p["key"], p["value"])[0]


def attend(h, a, n_heads, rotary_fraction=1.0, proj=True):
    query, key, value = (layer(h, a[name]) for name in ("query", "key", "value"))
    h, _ = causal_attention_forward(query, key, value, n_heads, rotary_fraction)
    return layer(h, a["proj"]) if proj else h


def block_post_norm(x, p, n_heads):
    x = norm(x + attend(x, p["attention"], n_heads))
    return norm(x + layer(x, p["ffn"]))


def block_one_norm(x, p, n_heads):
    x = x + attend(norm(x), p["attention"], n_heads)
    return x + layer(x, p["ffn"])


def block_last_residual_from_the_start(x, p, n_heads):
    h = x + attend(norm(x), p["attention"], n_heads)
    return x + layer(norm(h), p["ffn"])


def block_forgets_to_add(x, p, n_heads):
    x = attend(norm(x), p["attention"], n_heads)
    return x + layer(norm(x), p["ffn"])


def block_shares_one_norm(x, p, n_heads):
    h = norm(x)
    return x + attend(h, p["attention"], n_heads) + layer(h, p["ffn"])


def block_without(rotary_fraction=1.0, proj=True):
    def block(x, p, n_heads):
        x = x + attend(norm(x), p["attention"], n_heads, rotary_fraction, proj)
        return x + layer(norm(x), p["ffn"])

    return block


def block_one_head(x, p, n_heads):
    return block_without()(x, p, 1)


def block_returns_the_cache_too(x, p, n_heads):
    return block_without()(x, p, n_heads), None


def block_in_place(x, p, n_heads):
    x += attend(norm(x), p["attention"], n_heads)
    x += layer(norm(x), p["ffn"])
    return x


# ----------------------------------------------------------------------------------------------- AdamW


def adamw(p, g, m, v, t, lr, root=True, unbias=(True, True), decay_rate=None, decay_first=True, eps=1e-8):
    beta1, beta2, decay = 0.9, 0.95, 0.1
    decay_rate = lr * decay if decay_rate is None else decay_rate
    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g**2 * (1 - beta2)
    mean = m / (1 - beta1**t) if unbias[0] else m
    square = v / (1 - beta2**t) if unbias[1] else v
    step = lr * mean / ((np.sqrt(square) if root else square) + eps)
    return (p - decay_rate * p - step if decay_first else (p - step) * (1 - decay_rate)), m, v


def adamw_with_l2(p, g, m, v, t, lr):
    return adamw(p, g + 0.1 * p, m, v, t, lr, decay_rate=0)


def adamw_keeps_unbiased_means(p, g, m, v, t, lr):
    p, m, v = adamw(p, g, m, v, t, lr)
    return p, m / (1 - 0.9**t), v / (1 - 0.95**t)


def adamw_uses_the_old_means(p, g, m, v, t, lr):
    mean, square = m / (1 - 0.9**t), v / (1 - 0.95**t)
    _, m, v = adamw(p, g, m, v, t, lr)
    return p * (1 - 0.1 * lr) - lr * mean / (np.sqrt(square) + 1e-8), m, v


def adamw_in_place(p, g, m, v, t, lr):
    m *= 0.9
    m += 0.1 * g
    v *= 0.95
    v += 0.05 * g * g
    p = p * (1 - 0.1 * lr) - lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
    return p, m, v


WRONG = {
    "block": [
        (block_post_norm, "behind the sums"),
        (block_one_norm, "norm before the ffn"),
        (block_last_residual_from_the_start, "wrong values"),
        (block_forgets_to_add, "first residual"),
        (block_shares_one_norm, "same x"),
        (block_without(rotary_fraction=0.0), "positions"),
        (block_without(proj=False), "proj"),
        (block_one_head, "n_heads"),
        (block_returns_the_cache_too, "tuple"),
        (block_in_place, "in place"),
    ],
    "adamw": [
        (lambda *a: adamw(*a, unbias=(False, False)), "start at zero"),
        (lambda *a: adamw(*a, unbias=(True, False)), "β₂ᵗ"),
        (lambda *a: adamw(*a, unbias=(False, True)), "β₁ᵗ"),
        (lambda *a: adamw(*a, root=False), "square root"),
        (lambda *a: adamw(*a, eps=0.0), "eps missing"),
        (lambda *a: adamw(*a, eps=1e-3), "wrong values"),
        (lambda *a: adamw(*a, decay_rate=0), "decay missing"),
        (lambda *a: adamw(*a, decay_rate=0.1), "lr missing"),
        (lambda *a: adamw(*a, decay_first=False), "after the step"),
        (lambda p, g, m, v, t, lr: adamw(p, -g, m, v, t, lr), "wrong values"),
        (lambda p, g, m, v, t, lr: adamw(p, g, m, v, t - 1, lr), "wrong values"),
        (lambda *a: adamw(*a)[0], "expected 3"),
        (adamw_with_l2, "Adam with L2"),
        (adamw_keeps_unbiased_means, "after the division"),
        (adamw_uses_the_old_means, "wrong values"),
        (adamw_in_place, "in place"),
    ],
}
