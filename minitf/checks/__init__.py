"""Soft checks: `f = check("f", f)` says what is wrong with a learner's function, and the lesson goes on.

An exercise is a spec in `lesson_NN.py` of this package, `EXERCISES = {"softmax": Exercise(...)}`, under a name that no
other lesson uses; `core.Exercise` says what its parts are. CONTRIBUTING.md says what stands in the lesson and in the
bank of wrong answers, with which tests/test_checks.py proves that the check tells right from wrong.
"""

import difflib
import importlib
import pkgutil

from .compare import Fault
from .core import Exercise, NotAttempted, examine

__all__ = ["Exercise", "check", "exercises"]


def check(name, function):
    """The function, if it is right; otherwise one line that says what is wrong, and the reference in its place.

    Where nothing was attempted it says so. What the function raises or prints is caught, so Run All ends.

    >>> import numpy as np
    >>> softmax = check("softmax", ...)
    ○ softmax: not attempted; the lesson goes on with the reference
    >>> softmax = check("softmax", np.exp)
    ✗ softmax: right shape, wrong values (5.18 times the right ones)
      the lesson goes on with the reference
    """
    exercise = next((exercise for known, exercise in exercises() if known == name), None)
    if exercise is None:
        close = difflib.get_close_matches(str(name), [known for known, _ in exercises()], n=1)
        print(f"? there is no exercise {name!r}" + (f": did you mean {close[0]!r}?" if close else ""))
        return function
    if str(getattr(function, "__module__", "")).split(".")[0] == "minitf":
        print(f"○ {name}: this is the library's function; run the cell with yours, then this one")
        return function
    try:
        if not callable(function):
            raise NotAttempted("not attempted")
        count = examine(exercise, function)
    except NotAttempted as fault:
        print(f"○ {name}: {fault}; the lesson goes on with the reference")
    except Fault as fault:
        print(f"✗ {name}: {fault}\n  the lesson goes on with the reference")
    else:
        print(f"✓ {name}: shape, values, dtype and unchanged inputs are right on {count} random inputs")
        return function
    return exercise.reference


def exercises():
    """(name, Exercise) of all lessons, in order; a lesson's module is not imported before its turn."""
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(("lesson_", "puzzles_")):
            yield from importlib.import_module(f"{__name__}.{module.name}").EXERCISES.items()
