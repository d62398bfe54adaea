"""Is a learner's function right, and if not, what went wrong? One machine for the lessons and for grading.

The function runs on random inputs beside a right one. Where they differ, known wrong formulas run too: the one that
gives what the learner got names the mistake.
"""

import contextlib
import copy
import inspect
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .compare import Fault, is_array, is_number, kind, pairs, pattern, same

PROPERTIES = ("shape", "values", "dtype", "inputs")


class Exercise(NamedTuple):
    """What a function must do.

    reference: the right function. It may return an array, a number, or tuples and dicts of them.
    sample: sample(rng) yields the arguments of one call after the other, each a tuple: random shapes in float64,
        sizes that differ from each other, edge cases last.
    mistakes: {what to say: wrong formula}; a formula is called like the reference, and may raise.
    outputs: names for the results of a reference that returns a tuple.
    accept: accept(arguments, got) -> None or what is wrong, for a question with more than one right answer; the
        values are then not compared with the reference's.
    tolerance: of the values, relative to the largest entry of the right result.
    """

    reference: Callable
    sample: Callable
    mistakes: dict = {}  # noqa: RUF012
    outputs: tuple = ()
    accept: Callable | None = None
    tolerance: float = 1e-6


class NotAttempted(Fault):
    """Nothing was written yet."""


class Trial(NamedTuple):
    """One call of the learner's function."""

    arguments: tuple
    left: tuple  # the arguments as the function left them
    got: object  # what it returned, or the exception that it raised
    want: object


def examine(exercise, function, properties=PROPERTIES, seed=0, reveal=True):
    """Raise Fault, which says what is wrong, unless the function has all these properties; how many inputs it had.

    NotAttempted where it returns None or `...`, or raises NotImplementedError. reveal: may the message show a number
    of the right result?
    """
    inputs = list(exercise.sample(np.random.default_rng(seed)))
    trials = [_try(exercise, function, arguments) for arguments in inputs]
    for trial in trials:
        _require_attempt(trial.got)
    try:
        for trial in trials:
            _require_result(exercise, trial)
        if "values" in properties:
            for trial in trials:
                _require_values(exercise, trial, reveal)
    except Fault as fault:
        mistake = _likely_mistake(exercise, trials)
        raise Fault(f"{fault.what}: {mistake}" if mistake else str(fault)) from None
    if "dtype" in properties:
        for arguments in inputs:
            _require_dtype(exercise, _try(exercise, function, _as_float32(arguments)))
    if "inputs" in properties:
        for trial in trials:
            _require_unchanged(exercise, trial)
    return len(inputs)


def call(function, arguments):
    """What the function returns, or the exception that it raises; what it prints is dropped."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(np.errstate(all="ignore"))
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            return error


def _try(exercise, function, arguments):
    left = copy.deepcopy(arguments)
    got = call(function, left)
    return Trial(arguments, left, got, exercise.reference(*copy.deepcopy(arguments)))


def _as_float32(tree):
    if isinstance(tree, dict):
        return {name: _as_float32(leaf) for name, leaf in tree.items()}
    if isinstance(tree, tuple | list):
        leaves = [_as_float32(leaf) for leaf in tree]
        return type(tree)(*leaves) if hasattr(tree, "_fields") else type(tree)(leaves)
    return tree.astype(np.float32) if is_array(tree) and tree.dtype == np.float64 else tree


def _likely_mistake(exercise, trials):
    """The mistake whose formula does in every trial what the learner's function does."""
    for message, wrong in exercise.mistakes.items():
        if all(
            _alike(trial.got, call(wrong, copy.deepcopy(trial.arguments)), exercise.tolerance)
            for trial in trials
        ):
            return message
    return None


def _alike(got, wrong, tolerance):
    if isinstance(wrong, BaseException):
        return type(got) is type(wrong) and str(got) == str(wrong)
    return same(got, wrong, tolerance)


# ---------------------------------------------------------------------------------- one property each


def _require_attempt(got):
    if isinstance(got, NotAttempted):  # the exercise itself says why it cannot judge
        raise got
    # w = ...; return w * value
    touched_a_stub = isinstance(got, TypeError | AttributeError) and "ellipsis" in str(got)
    if got is None or got is Ellipsis or isinstance(got, NotImplementedError) or touched_a_stub:
        raise NotAttempted("not attempted")


def _require_result(exercise, trial):
    """A result of the right structure and shapes."""
    if isinstance(trial.got, BaseException):
        first_line = str(trial.got).strip().split("\n")[0]
        raise Fault(f"raises {type(trial.got).__name__}", f": {first_line}" if first_line else "")
    for name, got, want in pairs(trial.got, trial.want, exercise.outputs):
        if not (is_array(want) or is_number(want)):
            continue  # text or settings: a value
        if np.shape(want) == () and is_number(got):
            continue
        if not is_array(got):
            expected = f"an array of shape {want.shape}" if np.shape(want) else "one number"
            raise Fault(f"{name}{kind(got)}, expected {expected}")
        if got.shape != np.shape(want):
            raise Fault(f"{name}shape {got.shape}, expected {np.shape(want)}")


def _require_values(exercise, trial, reveal):
    if exercise.accept is not None:
        complaint = call(exercise.accept, (trial.arguments, trial.got))
        if complaint is not None:  # or the exception that such a result causes
            raise Fault(str(complaint))
        return
    for name, got, want in pairs(trial.got, trial.want, exercise.outputs):
        if not same(got, want, exercise.tolerance):
            detail = pattern(got, want, exercise.tolerance, reveal)
            raise Fault(f"{name}right shape, wrong values", f" ({detail})" if detail else "")


def _require_dtype(exercise, trial):
    """float32 in, float32 out."""
    try:
        _require_result(exercise, trial)
    except Fault as fault:
        raise Fault(f"with float32 arrays: {fault}") from None
    for name, got, want in pairs(trial.got, trial.want, exercise.outputs):
        if is_array(got) and is_array(want) and got.dtype != want.dtype:
            hint = ": np.zeros and np.sqrt(8) are float64, np.zeros_like and math.sqrt(8) follow the array"
            hint = hint if got.dtype == np.float64 else ""
            raise Fault(f"{name}float32 goes in, {got.dtype} comes out{hint}")


def _require_unchanged(exercise, trial):
    names = list(inspect.signature(exercise.reference).parameters)
    for i, (before, after) in enumerate(zip(trial.arguments, trial.left, strict=True)):
        if not same(after, before, tolerance=0):
            name = names[i] if i < len(names) else f"argument {i + 1}"
            raise Fault(f"changes its input {name}: does it write in place?")
