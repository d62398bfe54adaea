"""Exercises of lesson 04: a measured gradient, the backward of theta and of Pattention, and three planted bugs."""

import itertools
import math

import numpy as np

from ..ops import gelu_forward, softmax_forward
from ..pattention import pattention_forward, theta_backward, theta_forward
from .core import Exercise

# ------------------------------------------------------------------------------------ measured gradient


def numerical_gradient(f, x, h=1e-6):
    """(f(x + h) - f(x - h)) / 2h at every entry, in the shape of x."""
    return _nudge_each(f, x, h, h, 2 * h)


def _nudge_each(f, x, up, down, divisor):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[i] = 1
        grad[i] = (f(x + up * nudge) - f(x - down * nudge)) / divisor
    return grad


def functions_and_points(rng):
    """Cubics, in which a large h shows: whoever takes another h gets another slope. Last, the default h."""
    for *more, shape in ((0.1, (3,)), (0.1, (2, 4)), (0.1, (2, 1, 3)), ((2, 3),)):
        weights = rng.standard_normal(shape)
        yield _cubic(weights), rng.standard_normal(shape), *more


def _cubic(weights):
    return lambda x: float((weights * x**3).sum() + x.sum() ** 2)


def _left_up(f, x, h=1e-6):
    """Entries that are nudged and not put back."""
    x, grad = x.copy(), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        x[i] += h
        above = f(x)
        x[i] -= 2 * h
        grad[i] = (above - f(x)) / (2 * h)
    return grad


NUMERICAL_GRADIENT = {
    "is it nudged up only? Go down by h, too, and divide by 2h": lambda f, x, h=1e-6: _nudge_each(
        f, x, h, 0, h
    ),
    "is it nudged down only? Go up by h, too, and divide by 2h": lambda f, x, h=1e-6: _nudge_each(
        f, x, 0, h, h
    ),
    "is it divided by h? From x - h to x + h is 2h": lambda f, x, h=1e-6: _nudge_each(f, x, h, h, h),
    "is the division by 2h missing?": lambda f, x, h=1e-6: _nudge_each(f, x, h, h, 1),
    "is up minus down the wrong way round?": lambda f, x, h=1e-6: _nudge_each(f, x, -h, -h, 2 * h),
    "is h used? This is another step": lambda f, x, h=1e-6: numerical_gradient(f, x, 1e-6),
    "are all entries nudged at once? One at a time": lambda f, x, h=1e-6: np.full_like(
        x, (f(x + h) - f(x - h)) / (2 * h)
    ),
    "is it one slope for all entries? One at a time": lambda f, x, h=1e-6: (f(x + h) - f(x - h)) / (2 * h),
    "is each entry put back after its nudges?": _left_up,
    "is the nudge h times x? It is h": lambda f, x, h=1e-6: _nudge_each(f, x, h * x, h * x, 2 * h),
}

# ----------------------------------------------------------------------------------- backward of theta


def gelu_slope(cache):
    z, cdf, pdf = cache.gelu
    return cdf + z * pdf


def project(du, u, axis=-1, keepdims=True):
    return du - u * (u * du).sum(axis=axis, keepdims=keepdims)


def _theta_backward(dw, cache, slope=gelu_slope, tau=None, direction=None, project=project):
    """theta_backward with one part replaced."""
    du = (cache.tau if tau is None else tau) * dw * slope(cache)
    u = cache.normed if direction is None else direction(cache)
    return cache.inverse_norm * project(du, u)


def weights_and_caches(rng):
    for shape, tau in (((5, 7), None), ((2, 4), 3.0), ((2, 3, 6), None)):
        _, cache = theta_forward(rng.standard_normal(shape), tau=tau)
        yield rng.standard_normal(shape), cache


def _tanh_slope(cache):
    _, (z, cdf, pdf) = gelu_forward(cache.gelu.x, approximate="tanh")
    return cdf + z * pdf


THETA_BACKWARD = {
    "is the projection missing? The norm removes the direction of u": lambda dw, c: _theta_backward(
        dw, c, project=lambda du, u: du
    ),
    "is the factor tau missing?": lambda dw, c: _theta_backward(dw, c, tau=1.0),
    "is the factor 1/|a| missing?": lambda dw, c: project(c.tau * dw * gelu_slope(c), c.normed),
    "is GeLU's slope missing?": lambda dw, c: _theta_backward(dw, c, slope=lambda c: 1.0),
    "is the term z φ(z) of GeLU's slope missing?": lambda dw, c: _theta_backward(
        dw, c, slope=lambda c: c.gelu.cdf
    ),
    "is the factor z missing, in z φ(z)?": lambda dw, c: _theta_backward(
        dw, c, slope=lambda c: c.gelu.cdf + c.gelu.pdf
    ),
    "is this the slope of ReLU? GeLU's is Φ(z) + z φ(z)": lambda dw, c: _theta_backward(
        dw, c, slope=lambda c: c.gelu.x > 0
    ),
    "is this the slope of the tanh formula? The forward is exact": lambda dw, c: _theta_backward(
        dw, c, slope=_tanh_slope
    ),
    "is GeLU's slope taken at u? It is taken at z = tau u": lambda dw, c: _theta_backward(
        dw, c, slope=lambda c: gelu_slope(c._replace(gelu=gelu_forward(c.normed)[1]))
    ),
    "is the projection along z? Its length is tau, not 1: take u": lambda dw, c: _theta_backward(
        dw, c, direction=lambda c: c.gelu.x
    ),
    "is the projection along the scores? Their length is not 1: take u": lambda dw, c: _theta_backward(
        dw, c, direction=lambda c: c.scores
    ),
    "is it one dot product for the whole table? Each row has its own (axis=-1)": lambda dw, c: (
        _theta_backward(dw, c, project=lambda du, u: project(du, u, axis=None))
    ),
    "does the sum lack keepdims=True?": lambda dw, c: _theta_backward(
        dw, c, project=lambda du, u: project(du, u, keepdims=False)
    ),
    "is the sign of the projection wrong? It is subtracted": lambda dw, c: _theta_backward(
        dw, c, project=lambda du, u: 2 * du - project(du, u)
    ),
}

# ----------------------------------------------------------------------------- backward of Pattention


def pattention_backward(dout, cache, theta_rule=theta_backward):
    """dx, dkey, dvalue of Pattention on one sequence."""
    dvalue = cache.weights.T @ dout
    dweights = dout @ cache.value.T
    dscores = theta_rule(dweights, cache.theta)
    return dscores @ cache.key, dscores.T @ cache.x, dvalue


def outs_and_caches(rng):
    """Four sizes that differ; all of one size, where a forgotten transpose fits; last, a rule other than theta's."""
    for _ in range(2):
        yield _out_and_cache(rng, *(int(size) for size in rng.permutation([2, 3, 4, 5, 6])[:4]))
    yield _out_and_cache(rng, 4, 4, 4, 4)
    yield *_out_and_cache(rng, 2, 3, 4, 5), _no_theta


def _out_and_cache(rng, t, n, d_in, d_out):
    shapes = ((t, d_in), (n, d_in), (n, d_out))
    out, cache = pattention_forward(*(rng.standard_normal(shape) for shape in shapes))
    return rng.standard_normal(out.shape), cache


def _no_theta(dweights, cache):
    return dweights


def _pattention_backward(dx=None, dkey=None, dvalue=None, order=(0, 1, 2)):
    """pattention_backward with one of the gradients made by another rule, or in another order."""

    def wrong(dout, cache, theta_rule=theta_backward):
        dscores = theta_rule(dout @ cache.value.T, cache.theta)
        rules = zip((dx, dkey, dvalue), pattention_backward(dout, cache, theta_rule), strict=True)
        grads = [right if rule is None else rule(dout, cache, dscores) for rule, right in rules]
        return tuple(grads[i] for i in order)

    return wrong


def _value_untransposed(dout, cache, theta_rule=theta_backward):
    return pattention_backward(dout, cache._replace(value=cache.value.T), theta_rule)


PATTENTION_BACKWARD = {
    "is theta left out? Go back through it, too": lambda dout, c, rule=None: pattention_backward(
        dout, c, _no_theta
    ),
    "is theta_rule used?": lambda dout, c, rule=None: pattention_backward(dout, c),
    "are dx and dkey swapped?": _pattention_backward(order=(1, 0, 2)),
    "are dkey and dvalue swapped?": _pattention_backward(order=(0, 2, 1)),
    "is the order of the results wrong? dx, dkey, dvalue": _pattention_backward(order=(2, 1, 0)),
    "is dvalue made of the scores? The values are mixed by the weights": _pattention_backward(
        dvalue=lambda dout, c, dscores: c.scores.T @ dout
    ),
    "did you transpose the weights, for dvalue?": _pattention_backward(
        dvalue=lambda dout, c, ds: c.weights @ dout
    ),
    "did you transpose dscores, for dkey?": _pattention_backward(dkey=lambda dout, c, ds: ds @ c.x),
    "did you transpose dscores, for dx? Here it stays as it is": _pattention_backward(
        dx=lambda dout, c, ds: ds.T @ c.key
    ),
    "did you transpose value, for dweights?": _value_untransposed,
    "is dkey transposed? It has the shape of key": _pattention_backward(dkey=lambda dout, c, ds: c.x.T @ ds),
    "is dx made of the weights' gradient? Theta stands between": _pattention_backward(
        dx=lambda dout, c, ds: dout @ c.value.T @ c.key
    ),
    "is dkey made of the weights' gradient? Theta stands between": _pattention_backward(
        dkey=lambda dout, c, ds: (dout @ c.value.T).T @ c.x
    ),
    "is dvalue made of dscores? The values never see them": _pattention_backward(
        dvalue=lambda dout, c, ds: ds.T @ dout
    ),
}

# ------------------------------------------------------------------------------- attention, with bugs


def attention_backward(dout, cache):
    """dquery, dkey, dvalue of softmax(Q Kᵀ / √d) V; cache: query, key, value, weights."""
    return with_bugs()(dout, cache)


def with_bugs(*bugs):
    """attention_backward with some of the bugs that lesson 04 plants: "dvalue", "dscores", "dkey"."""

    def backward(dout, cache):
        query, key, value, weights = cache
        root = math.sqrt(query.shape[-1])
        dvalue = (weights if "dvalue" in bugs else weights.T) @ dout
        dweights = dout @ value.T
        average = (dweights if "dscores" in bugs else weights * dweights).sum(axis=-1, keepdims=True)
        dscores = weights * (dweights - average)
        dkey = dscores.T @ query / (1 if "dkey" in bugs else root)
        return dscores @ key / root, dkey, dvalue

    return backward


def attention_caches(rng):
    for t, d, d_out in ((3, 4, 5), (5, 2, 3), (4, 4, 4)):
        query, key = rng.standard_normal((2, t, d))
        value = rng.standard_normal((t, d_out))
        weights, _ = softmax_forward(query @ key.T / math.sqrt(d))
        yield rng.standard_normal((t, d_out)), (query, key, value, weights)


def _left(bugs):
    return f"is the bug in {' and the bug in '.join(bugs)} still there?"


ATTENTION_BACKWARD = {
    _left(bugs): with_bugs(*bugs)
    for count in (1, 2, 3)
    for bugs in itertools.combinations(("dvalue", "dscores", "dkey"), count)
} | {
    "are both factors 1/√d gone now? Each of dquery and dkey needs one": lambda dout, c: (
        attention_backward(dout, c)[0] * math.sqrt(c[0].shape[-1]),
        with_bugs("dkey")(dout, c)[1],
        attention_backward(dout, c)[2],
    ),
    "is dvalue divided by √d, too? Only the scores were": lambda dout, c: (
        *attention_backward(dout, c)[:2],
        attention_backward(dout, c)[2] / math.sqrt(c[0].shape[-1]),
    ),
}


EXERCISES = {
    "numerical_gradient": Exercise(numerical_gradient, functions_and_points, NUMERICAL_GRADIENT),
    "theta_backward": Exercise(theta_backward, weights_and_caches, THETA_BACKWARD),
    "pattention_backward": Exercise(
        pattention_backward, outs_and_caches, PATTENTION_BACKWARD, outputs=("dx", "dkey", "dvalue")
    ),
    "attention_backward": Exercise(
        attention_backward, attention_caches, ATTENTION_BACKWARD, outputs=("dquery", "dkey", "dvalue")
    ),
}
