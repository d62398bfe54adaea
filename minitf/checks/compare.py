"""Does one result agree with another, and how do they differ? In structure, in shapes, in values.

Values are compared as Python numbers, entry by entry, and only plain arrays are looked at, so neither a replaced
np.allclose nor a subclass of ndarray that equals everything passes for a right answer.
"""

import math

import numpy as np


class Fault(Exception):
    """What is wrong, in words; the detail is left out where the likely mistake is known."""

    def __init__(self, what, detail=""):
        super().__init__(what + detail)
        self.what = what


def pairs(got, want, names=(), name=""):
    """(name, got, want) of every leaf, array or number or other; raises Fault where got is built otherwise."""
    label = f"{name}: " if name else ""
    if isinstance(want, dict):
        if type(got) is not dict or got.keys() != want.keys():
            found = f"the names {', '.join(map(str, got))}" if type(got) is dict else kind(got)
            raise Fault(f"{label}returns {found}, expected a dict of {', '.join(map(str, want))}")
        for key in want:
            yield from pairs(got[key], want[key], name=f"{name}.{key}" if name else str(key))
    elif isinstance(want, tuple | list):
        names = names or [f"{name or 'result'}[{i}]" for i in range(len(want))]
        if not isinstance(got, tuple | list) or len(got) != len(want):
            found = f"{len(got)} results" if isinstance(got, tuple | list) else kind(got)
            raise Fault(f"{label}returns {found}, expected {len(want)}: {', '.join(names)}")
        for each, g, w in zip(names, got, want, strict=True):
            yield from pairs(g, w, name=each)
    else:
        yield label, got, want


def same(got, want, tolerance):
    """Do two results agree, in structure, shapes and values?"""
    try:
        return all(_same_leaf(g, w, tolerance) for _, g, w in pairs(got, want))
    except Fault:
        return False


def _same_leaf(got, want, tolerance):
    if not (is_array(want) or is_number(want)):
        return got is want or (type(got) is type(want) and bool(got == want))
    if not (is_array(got) or is_number(got)) or np.shape(got) != np.shape(want):
        return False
    return _close(_numbers(got), _numbers(want), 0 if _counts(want) else tolerance)


def _close(got, want, tolerance):
    scale = max((abs(w) for w in want if math.isfinite(w)), default=1) or 1
    return all(
        g == w or (g != g and w != w) or abs(g - w) <= tolerance * scale
        for g, w in zip(got, want, strict=True)
    )


def _numbers(leaf):
    """The entries in order, as Python numbers; what is none becomes nan, like an int that no float can hold."""
    entries = leaf.ravel().tolist() if isinstance(leaf, np.ndarray | np.generic) else [leaf]
    return [
        each if isinstance(each, float) or (isinstance(each, int) and abs(each) < 2**1000) else math.nan
        for each in entries
    ]


def _counts(leaf):
    """Whole numbers are compared exactly."""
    return leaf.dtype.kind in "biu" if isinstance(leaf, np.ndarray | np.generic) else isinstance(leaf, int)


def is_array(leaf):
    return type(leaf) is np.ndarray


def is_number(leaf):
    return isinstance(leaf, int | float | np.number | np.bool_) or (is_array(leaf) and leaf.ndim == 0)


def kind(thing):
    name = type(thing).__name__
    return "an array" if is_array(thing) else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def pattern(got, want, tolerance, reveal):
    """What an eye would see first in wrong numbers."""
    if not (is_array(want) or is_number(want)):
        return repr(got)
    g, w = _numbers(got), _numbers(want)
    if any(math.isfinite(b) and not math.isfinite(a) for a, b in zip(g, w, strict=True)):
        return "nan or inf, from an overflow or a division by zero"
    size = sum(b * b for b in w)
    factor = sum(a * b for a, b in zip(g, w, strict=True)) / size if 0 < size < math.inf else 0
    if factor and len(w) > 1 and _close(g, [factor * b for b in w], tolerance):
        return "the sign is wrong" if math.isclose(factor, -1) else f"{factor:.3g} times the right ones"
    if not reveal:
        return ""
    worst = max(range(len(w)), key=lambda i: abs(g[i] - w[i]))
    where = "".join(f"[{i}]" for i in np.unravel_index(worst, np.shape(want)))
    return f"{where} is {g[worst]:.4g}, expected {w[worst]:.4g}".lstrip()
