"""The checks of the lessons, hard: each raises AssertionError with a sentence that names the mistake.

In the hidden test of a question, one cell per property, so that each has its own points:

    from minitf.checks import grade
    question = grade.Exercise(reference=right_theta, sample=scores, mistakes={"√d for √n?": wrong_theta})
    grade.shape(theta, question)                     # in the cell `ps1-q3-shape`
    grade.values(theta, question)                    # in the cell `ps1-q3-values`

The reference stands in the hidden cell and nowhere in minitf. Inputs are drawn from MINITF_GRADE_SEED, set when an
assignment is graded, so an answer that was copied from what a student saw fails. A message shows no number of the right
result. Batch dimensions and edge cases are properties too: give `question._replace(sample=edge_cases)` a cell.

What it protects from: a test cell's helpers replaced from the notebook (np.exp = ..., compare.same = ...) are noticed
and named; results are compared as Python numbers; a subclass of ndarray is no array. What it cannot: code that
runs in this process can reach everything in it, this module too. Grade in a process that the submission cannot touch.
"""

import os
import sys
import types

import numpy as np

from ..gradcheck import numerical_gradient
from .compare import Fault
from .core import Exercise, call, examine

__all__ = ["Exercise", "dtype", "example", "gradients", "inputs", "seed", "shape", "values"]


def seed():
    """MINITF_GRADE_SEED as an integer; 0 while a student works."""
    return int(os.environ.get("MINITF_GRADE_SEED", "0"))


def example(function, arguments, result):
    """`values` of one call whose right result the student may see: the example of a question."""
    _require(function, Exercise(lambda *_: result, lambda rng: [tuple(arguments)]), "values")


def shape(function, exercise):
    """It runs, and what it returns has the right structure and shapes."""
    _require(function, exercise, "shape")


def values(function, exercise):
    """`shape`, and the numbers are right."""
    _require(function, exercise, "values")


def dtype(function, exercise):
    """`shape`, and float32 arrays give float32 results."""
    _require(function, exercise, "dtype")


def inputs(function, exercise):
    """`shape`, and the arguments are unchanged after the call."""
    _require(function, exercise, "inputs")


def gradients(backward, forward, sample, outputs=(), mistakes=None):
    """backward(dout, cache) gives the gradients of forward(*arrays) -> (out, cache), by central differences.

    sample(rng) yields tuples of float64 arrays, those that backward owes a gradient for. mistakes: {what to say: wrong
    backward}. A constant forward with a zero backward passes: grade the forward's values too.
    """

    def calls(rng):
        for arrays in sample(rng):
            result = call(forward, arrays)
            if not (isinstance(result, tuple) and len(result) == 2):
                raise Fault("forward must run and return (out, cache)")
            yield arrays, rng.standard_normal(np.shape(result[0])), result[1]

    def by_differences(arrays, dout, cache):
        def slope(i):
            return lambda x: (forward(*arrays[:i], x, *arrays[i + 1 :])[0] * dout).sum()

        slopes = [numerical_gradient(slope(i), x) for i, x in enumerate(arrays)]
        return tuple(slopes) if len(slopes) > 1 else slopes[0]

    def owed(rule):
        return lambda arrays, dout, cache: rule(dout, cache)

    wrong = {message: owed(rule) for message, rule in (mistakes or {}).items()}
    question = Exercise(by_differences, calls, wrong, outputs, tolerance=1e-5)
    _require(owed(backward), question, "values")


def _require(function, exercise, property):
    patched = _patches()
    assert not patched, f"the notebook replaces {', '.join(patched)}: restart and define your own names"
    assert callable(function), "not attempted"
    try:
        examine(exercise, function, (property,), seed(), reveal=False)
    except Fault as fault:
        raise AssertionError(str(fault)) from None


def _patches():
    """Names of numpy and minitf that hold something which the notebook defined."""
    return sorted(
        f"{module}.{name}"
        for module, content in list(sys.modules.items())
        if module.split(".")[0] in ("numpy", "minitf")
        for name, value in vars(content).items()
        if isinstance(value, types.FunctionType | type) and value.__module__ == "__main__"
    )
