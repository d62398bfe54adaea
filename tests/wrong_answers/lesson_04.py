"""Wrong answers to the exercises of lesson 04, each with a word that must be in what the check says."""

import math

import numpy as np

from minitf import gelu_forward

# ------------------------------------------------------------------------------------ measured gradient


def measured(f, x, h, up=1.0, down=1.0, divisor=2.0):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += up * h
        below[i] -= down * h
        grad[i] = (f(above) - f(below)) / (divisor * h)
    return grad


def measured_without_putting_back(f, x, h=1e-6):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        x[i] += h
        above = f(x)
        x[i] -= 2 * h
        grad[i] = (above - f(x)) / (2 * h)
    return grad


def measured_in_place(f, x, h=1e-6):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        x[i] += h
        above = f(x)
        x[i] -= 2 * h
        below = f(x)
        x[i] += h  # back, but for the last digit
        grad[i] = (above - below) / (2 * h)
    return grad


def measured_first_row_only(f, x, h=1e-6):
    grad = np.zeros_like(x)
    nudge = np.zeros_like(x)
    nudge[0] = h
    grad[0] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return grad


def measured_nudges_that_add_up(f, x, h=1e-6):
    grad, nudge = np.zeros_like(x), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        nudge[i] = h
        grad[i] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return grad


# ------------------------------------------------------------------------------------ backward of theta


def theta_backward(dweights, cache, projection=True, tau=True, inverse=True, axis=-1, keepdims=True):
    z, cdf, pdf = cache.gelu
    du = dweights * (cdf + z * pdf) * (cache.tau if tau else 1)
    u = cache.normed
    along = (u * du).sum(axis=axis, keepdims=keepdims) if projection else 0
    return (du - u * along) * (cache.inverse_norm if inverse else 1)


def theta_backward_along_z(dweights, cache):
    z, cdf, pdf = cache.gelu
    dz = dweights * (cdf + z * pdf)
    return cache.tau * cache.inverse_norm * (dz - z * (z * dz).sum(axis=-1, keepdims=True))


def theta_backward_times_length(dweights, cache):
    return theta_backward(dweights, cache) / cache.inverse_norm**2


def theta_backward_by_tanh(dweights, cache):
    _, gelu = gelu_forward(cache.gelu.x, approximate="tanh")
    return theta_backward(dweights, cache._replace(gelu=gelu))


def theta_backward_in_place(dweights, cache):
    z, cdf, pdf = cache.gelu
    dweights *= cdf + z * pdf
    return theta_backward(dweights / (cdf + z * pdf), cache)


# ------------------------------------------------------------------------------ backward of Pattention


def rule_of(cache, theta_rule):
    return theta_backward if theta_rule is None else theta_rule


def pattention_backward(dout, cache, theta_rule=None):
    dweights = dout @ cache.value.T
    dscores = rule_of(cache, theta_rule)(dweights, cache.theta)
    return dscores @ cache.key, dscores.T @ cache.x, cache.weights.T @ dout


def pattention_backward_of_two_arguments(dout, cache):
    return pattention_backward(dout, cache)


def pattention_backward_in_one_array(dout, cache, theta_rule=None):
    return np.concatenate([grad.ravel() for grad in pattention_backward(dout, cache, theta_rule)])


def pattention_backward_without_theta(dout, cache, theta_rule=None):
    dweights = dout @ cache.value.T
    return dweights @ cache.key, dweights.T @ cache.x, cache.weights.T @ dout


def pattention_backward_by_scores(dout, cache, theta_rule=None):
    dx, dkey, _ = pattention_backward(dout, cache, theta_rule)
    return dx, dkey, cache.scores.T @ dout


def pattention_backward_reversed(dout, cache, theta_rule=None):
    return pattention_backward(dout, cache, theta_rule)[::-1]


def pattention_backward_untransposed(dout, cache, theta_rule=None):
    dx, _, dvalue = pattention_backward(dout, cache, theta_rule)
    dscores = rule_of(cache, theta_rule)(dout @ cache.value.T, cache.theta)
    return dx, dscores @ cache.x, dvalue


def pattention_backward_mean(dout, cache, theta_rule=None):
    dx, dkey, dvalue = pattention_backward(dout, cache, theta_rule)
    return dx, dkey / len(dout), dvalue / len(dout)


def pattention_backward_halves(dout, cache, theta_rule=None):
    return pattention_backward(dout, cache, theta_rule)[:2]


# -------------------------------------------------------------------------------- attention, with bugs


def attention_backward(dout, cache, transpose=True, weigh=True, key_root=True, query_root=True):
    query, key, value, weights = cache
    root = math.sqrt(query.shape[1])
    dvalue = (weights.T if transpose else weights) @ dout
    dweights = dout @ value.T
    average = (weights * dweights if weigh else dweights).sum(axis=-1, keepdims=True)
    dscores = weights * (dweights - average)
    dkey = dscores.T @ query / (root if key_root else 1)
    return dscores @ key / (root if query_root else 1), dkey, dvalue


def attention_backward_column_average(dout, cache):
    query, key, value, weights = cache
    dweights = dout @ value.T
    dscores = weights * (dweights - (weights * dweights).sum(axis=0)) / math.sqrt(query.shape[1])
    return dscores @ key, dscores.T @ query, weights.T @ dout


def attention_backward_mean(dout, cache):
    query, key, value, weights = cache
    dweights = dout @ value.T
    average = dweights.mean(axis=-1, keepdims=True)
    dscores = weights * (dweights - average) / math.sqrt(query.shape[1])
    return dscores @ key, dscores.T @ query, weights.T @ dout


WRONG = {
    "numerical_gradient": [
        (lambda f, x, h=1e-6: measured(f, x, h, down=0, divisor=1), "up only"),
        (lambda f, x, h=1e-6: measured(f, x, h, up=0, divisor=1), "down only"),
        (lambda f, x, h=1e-6: measured(f, x, h, divisor=1), "divided by h"),
        (lambda f, x, h=1e-6: measured(f, x, h, divisor=-2), "wrong way round"),
        (lambda f, x, h=1e-6: measured(f, x, 1e-6), "h used"),
        (lambda f, x, h=1e-6: (f(x + h) - f(x - h)) / (2 * h), "one slope"),
        (lambda f, x, h=1e-6: np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h)), "at once"),
        (lambda f, x, h=1e-6: measured(f, x, h).ravel().tolist(), "list"),
        (measured_without_putting_back, "put back"),
        (measured_nudges_that_add_up, "wrong values"),
        (measured_first_row_only, "wrong values"),
        (measured_in_place, "changes its input x"),
    ],
    "theta_backward": [
        (lambda dw, c: theta_backward(dw, c, projection=False), "projection"),
        (lambda dw, c: theta_backward(dw, c, tau=False), "tau"),
        (lambda dw, c: theta_backward(dw, c, inverse=False), "1/|a|"),
        (lambda dw, c: theta_backward(dw, c, axis=None), "whole table"),
        (lambda dw, c: theta_backward(dw, c, keepdims=False), "keepdims"),
        (lambda dw, c: theta_backward(dw / (c.gelu.cdf + c.gelu.x * c.gelu.pdf), c), "slope missing"),
        (lambda dw, c: theta_backward(dw, c._replace(gelu=c.gelu._replace(pdf=0))), "z φ(z)"),
        (theta_backward_along_z, "along z"),
        (theta_backward_by_tanh, "tanh"),
        (theta_backward_times_length, "wrong values"),
        (theta_backward_in_place, "changes its input dweights"),
    ],
    "pattention_backward": [
        (pattention_backward_without_theta, "theta"),
        (pattention_backward_of_two_arguments, "raises"),
        (lambda dout, cache, theta_rule=None: pattention_backward(dout, cache), "theta_rule"),
        (pattention_backward_in_one_array, "expected 3"),
        (pattention_backward_halves, "2 results"),
        (pattention_backward_by_scores, "scores"),
        (pattention_backward_reversed, "order"),
        (pattention_backward_untransposed, "transpose dscores"),
        (pattention_backward_mean, "times the right ones"),
    ],
    "attention_backward": [
        (
            lambda d, c: attention_backward(d, c, False, False, False),
            "dvalue and the bug in dscores and the bug",
        ),
        (lambda d, c: attention_backward(d, c, transpose=False), "bug in dvalue"),
        (lambda d, c: attention_backward(d, c, weigh=False), "bug in dscores"),
        (lambda d, c: attention_backward(d, c, key_root=False), "bug in dkey"),
        (lambda d, c: attention_backward(d, c, key_root=False, query_root=False), "both factors"),
        (lambda d, c: attention_backward(d, c, False, True, False), "dvalue and the bug in dkey"),
        (attention_backward_column_average, "wrong values"),
        (attention_backward_mean, "wrong values"),
    ],
}
