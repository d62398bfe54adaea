"""Is a gradient right? Two ways to ask without a framework: every entry, or one random direction.

Both compare with central differences, (f(x + h) - f(x - h)) / 2h, of the scalar f = sum(out · cotangent), whose
cotangent is random: a plain sum would hide errors that cancel. Use float64; in float32 rounding drowns them.
"""

from typing import NamedTuple

import numpy as np

from .backend import check_number, float_module, tree_items, tree_map


class Finding(NamedTuple):
    """The worst entry of one argument's gradient."""

    argument: str
    index: tuple
    expected: float  # by central difference
    got: float  # by the backward function
    error: float  # largest difference, relative to the largest entry of the gradient

    def __str__(self):
        return (
            f"{self.argument}: relative error {self.error:.1e}; at index {self.index} "
            f"expected {self.expected:.6g}, got {self.got:.6g}"
        )


class Report(NamedTuple):
    """One line per argument; `report.ok` says whether all errors are below the tolerance."""

    findings: list
    tolerance: float

    @property
    def ok(self):
        return all(finding.error < self.tolerance for finding in self.findings)

    def __str__(self):
        """A right gradient's error is rounding noise, whose digits differ between machines: they are left out."""
        return "\n".join(
            f"wrong {finding}"
            if finding.error >= self.tolerance
            else f"ok    {finding.argument}: relative error below {self.tolerance:.0e}"
            for finding in self.findings
        )


def numerical_gradient(function, x, step=1e-6):
    """Central differences of a scalar function at every entry of x, shape of x; 2 x.size evaluations.

    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([1.0, 3.0])).round(6)
    array([2., 6.])
    """
    _check_float64("x", x)
    step = check_number("step", step, low=1e-300)
    x = x.copy()  # entries are moved one at a time and put back; the caller's array is not touched
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function(x)
        x[index] = kept - step
        below = function(x)
        x[index] = kept
        grad[index] = (above - below) / (2 * step)
    return grad


def check_gradients(forward, backward, arrays, seed=0, step=1e-6, tolerance=1e-6):
    """Compare backward(dout, cache) with central differences at every entry of every array.

    forward(*arrays.values()) must return (out, cache); arrays: dict of name -> float64 array, in the order of
    the forward's differentiable arguments. Returns a Report; `print` it.
    Raises TypeError for arrays that are not float64, ValueError where a gradient has the wrong count or shape.

    >>> def square(x): return x**2, x
    >>> def square_backward(dout, x): return dout * x  # the 2 is missing
    >>> print(check_gradients(square, square_backward, {"x": np.array([1.0, 3.0])}))
    wrong x: relative error 5.0e-01; at index (1,) expected -0.792629, got -0.396315
    """
    check_number("tolerance", tolerance, low=0)
    step = check_number("step", step, low=1e-300)
    out, grads, cotangent = _analytic(forward, backward, arrays, seed)
    findings = []
    for position, (name, got) in enumerate(zip(arrays, grads, strict=True)):

        def scalar(x, position=position):
            moved = [x if i == position else a for i, a in enumerate(arrays.values())]
            return (forward(*moved)[0] * cotangent).sum()

        expected = numerical_gradient(scalar, arrays[name], step)
        index = np.unravel_index(np.abs(got - expected).argmax(), got.shape)
        index = tuple(int(i) for i in index)
        scale = max(np.abs(expected).max(), np.abs(got).max(), 1e-12)
        error = np.abs(got - expected).max() / scale
        findings.append(Finding(name, index, float(expected[index]), float(got[index]), float(error)))
    return Report(findings, tolerance)


def directional_error(forward, backward, arrays, seed=0, step=1e-6):
    """Relative error of the gradients along one random direction of all arrays at once: two evaluations.

    Cheap enough for a whole layer; it says that something is wrong, not where. Arguments as in `check_gradients`.
    """
    step = check_number("step", step, low=1e-300)
    out, grads, cotangent = _analytic(forward, backward, arrays, seed)
    rng = np.random.default_rng((seed, 1))
    direction = [rng.standard_normal(a.shape) for a in arrays.values()]
    above, below = (
        (forward(*(a + h * v for a, v in zip(arrays.values(), direction, strict=True)))[0] * cotangent).sum()
        for h in (step, -step)
    )
    return _relative(
        (above - below) / (2 * step), sum((g * v).sum() for g, v in zip(grads, direction, strict=True))
    )


def tree_directional_error(loss_and_grads, params, seed=0, step=1e-6):
    """`directional_error` for a whole model: loss_and_grads(params) -> loss, grads, both float64."""
    step = check_number("step", step, low=1e-300)
    _check_arguments(dict(tree_items(params)), seed)
    _, grads = loss_and_grads(params)
    # not default_rng(seed): init_params draws from that, and a direction along a key is one that theta ignores
    rng = np.random.default_rng((seed, 1))
    direction = tree_map(lambda p: rng.standard_normal(p.shape), params)
    above, below = (
        loss_and_grads(tree_map(lambda p, v, h=h: p + h * v, params, direction))[0] for h in (step, -step)
    )
    slopes = tree_map(lambda g, v: (g * v).sum(), grads, direction)
    return _relative((above - below) / (2 * step), sum(slope for _, slope in tree_items(slopes)))


def _relative(expected, got):
    return float(abs(expected - got) / max(abs(expected), abs(got), 1e-12))


def _check_float64(name, array):
    float_module(**{str(name): array})
    if np.isscalar(array):
        raise TypeError(f"{name} is a single number: pass an array (np.asarray makes one)")
    if array.dtype != np.float64:
        raise TypeError(f"{name} is {array.dtype}: finite differences need float64 ({name}.astype(float))")


def _check_arguments(arrays, seed):
    check_number("seed", seed, low=0, whole=True)
    if not (isinstance(arrays, dict) and arrays):
        raise TypeError("arrays must be a dict of name -> float64 array, with at least one")
    for name, array in arrays.items():
        _check_float64(name, array)


def _analytic(forward, backward, arrays, seed):
    _check_arguments(arrays, seed)
    out, cache = forward(*arrays.values())
    cotangent = np.random.default_rng(seed).standard_normal(np.shape(out))
    grads = backward(cotangent, cache)
    grads = grads if isinstance(grads, tuple) else (grads,)
    if len(grads) != len(arrays):
        raise ValueError(
            f"backward returned {len(grads)} gradients for {len(arrays)} arrays ({', '.join(arrays)})"
        )
    for (name, array), grad in zip(arrays.items(), grads, strict=True):
        if np.shape(grad) != array.shape:
            raise ValueError(
                f"the gradient of {name} has shape {np.shape(grad)}, but {name} has {array.shape}"
            )
    return out, grads, cotangent
