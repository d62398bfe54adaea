"""Wrong answers to the second puzzles, each with a word that must be in what the check says."""

import math

import numpy as np

WRONG = {
    "new_key": [
        (lambda key, value, tau: key[0].copy(), "copy"),
        (lambda key, value, tau: np.mean(key, axis=0), "mean"),
        (lambda key, value, tau: np.negative(key[-1]), "minus"),
        (lambda key, value, tau: np.ones_like(key[0]), "ones"),
        (lambda key, value, tau: np.zeros(value.shape[1]), "wide"),
        (lambda key, value, tau: np.zeros_like(key), "many keys"),
        (lambda key, value, tau: 1e-3 * key[0], "output changes"),
        (lambda key, value, tau: np.nan * key[0], "output changes"),
        (lambda key, value, tau: [0.0] * key.shape[1], "list"),
    ],
    "two_values": [
        (lambda key, value, tau: (value.copy(), value.copy()), "twice"),
        (lambda key, value, tau: (math.sqrt(0.5) * value, math.sqrt(0.5) * value), "root"),
        (lambda key, value, tau: (0.5 * value, np.zeros_like(value)), "half"),
        (lambda key, value, tau: (np.zeros_like(value), np.zeros_like(value)), "lost"),
        (lambda key, value, tau: (0.5 * value, -0.5 * value), "cancel"),
        (lambda key, value, tau: (0.25 * value, 0.25 * value), "shared out twice"),
        (lambda key, value, tau: (value, -value / 2), "output changes"),
        (lambda key, value, tau: np.concatenate([value, value]) / 2, "expected 2"),
    ],
    "m_copies": [
        (lambda key, value, tau, m: (value.copy(), math.sqrt(m) * tau), "not shared out"),
        (lambda key, value, tau, m: (value / m, tau), "held"),
        (lambda key, value, tau, m: (value / m, tau * m), "√m"),
        (lambda key, value, tau, m: (value / math.sqrt(m), math.sqrt(m) * tau), "add up"),
        (lambda key, value, tau, m: (value / m, math.sqrt(m * len(key))), "need not be"),
        (lambda key, value, tau, m: (value / m, tau / math.sqrt(m)), "divided"),
        (lambda key, value, tau, m: (value / 2, math.sqrt(2) * tau), "output changes"),
        (lambda key, value, tau, m: value / m, "expected 2"),
    ],
    "tau_after": [
        (lambda key, value, tau, m: tau, "held"),
        (lambda key, value, tau, m: math.sqrt(2 * len(key) + 2 * m), "final number"),
        (lambda key, value, tau, m: math.sqrt(2 * len(key)), "need not be"),
        (lambda key, value, tau, m: tau + tau, "doubled"),
        (lambda key, value, tau, m: tau * math.sqrt(2 + 2 * m / len(key)), "zero keys"),
        (lambda key, value, tau, m: math.sqrt(len(key) + m), "√(n + m)"),
        (lambda key, value, tau, m: tau / math.sqrt(2), "divided"),
        (lambda key, value, tau, m: -math.sqrt(2) * tau, "raises"),
    ],
    "two_keys": [
        (lambda key, value, tau: (key.copy(), np.negative(key)), "cancel"),
        (lambda key, value, tau: (-0.5 * key, -0.5 * key), "output changes"),
        (lambda key, value, tau: (np.negative(key), np.negative(key)), "sign"),
        (lambda key, value, tau: (np.zeros_like(key), np.zeros_like(key)), "zero"),
        (lambda key, value, tau: (key, np.ones_like(key) + key), "added"),
        (lambda key, value, tau: (np.fliplr(key), np.fliplr(key)), "channels"),
        (lambda key, value, tau: (np.flipud(key), np.flipud(key)), "tokens"),
        (lambda key, value, tau: (np.abs(key), np.abs(key)), "positive"),
    ],
    "mended_value": [
        (lambda key, value, tau, m: value.copy(), "nothing"),
        (lambda key, value, tau, m: value * math.sqrt(1 + m / len(key)), "wrong way round"),
        (lambda key, value, tau, m: value / (1 + m / len(key)), "root"),
        (lambda key, value, tau, m: 0.5 * value, "halved"),
        (lambda key, value, tau, m: value / math.sqrt(len(key) + m), "new tau"),
        (lambda key, value, tau, m: value * math.sqrt(len(key) / m), "n + m"),
        (lambda key, value, tau, m: value + tau - math.sqrt(len(key) + m), "factor"),
        (lambda key, value, tau, m: value * m / len(key), "output changes"),
    ],
    "softmax_values": [
        (lambda key, value, tau: (0.5 * value, 0.5 * value), "shared out"),
        (lambda key, value, tau: (np.zeros_like(value), value.copy()), "output changes"),
        (lambda key, value, tau: (value.copy(), np.zeros_like(value)), "Half"),
        (lambda key, value, tau: (math.sqrt(0.5) * value, math.sqrt(0.5) * value), "root"),
        (lambda key, value, tau: (value + value, value + value), "doubled"),
        (lambda key, value, tau: (value.copy(), -value), "cancel"),
        (lambda key, value, tau: (0.0 * value, 0.0 * value), "lost"),
        (lambda key, value, tau: value + value, "expected 2"),
    ],
    "merged": [
        (lambda key, first, second, tau: (0.5 * first + 0.5 * second, math.sqrt(0.5) * tau), "mean"),
        (lambda key, first, second, tau: (second + first, tau), "held"),
        (lambda key, first, second, tau: (second + first, 0.5 * tau), "halved"),
        (lambda key, first, second, tau: (second + first, math.sqrt(2) * tau), "multiplied"),
        (lambda key, first, second, tau: (first.copy(), math.sqrt(0.5) * tau), "second value"),
        (lambda key, first, second, tau: (first - second, math.sqrt(0.5) * tau), "difference"),
        (lambda key, first, second, tau: (second + first, math.sqrt(len(key))), "need not be"),
        (lambda key, first, second, tau: (2 * first, math.sqrt(0.5) * tau), "output changes"),
    ],
}

RIGHT_ANYWAY = {
    "return 0 * key[1]",  # any row times zero
    # the norm cancels a factor of left + right
    "return (key / 2, key)",
    "return (key, key / 2)",
    "return (key / 2, key / 3)",
    "return (key / 3, key / 2)",
}
