"""Wrong answers to the exercises of lesson 03, each with a word that must be in what the check says."""

import math

import numpy as np

from minitf import gelu_forward


def gelu(a):
    return gelu_forward(a)[0]


def unit(a, **axis):
    return a / np.linalg.norm(a, **({"axis": -1, "keepdims": True} | axis))


def theta_in_place(a):
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    return gelu(math.sqrt(a.shape[-1]) * a)


def theta_of_the_first_row(a):
    return gelu(math.sqrt(a.shape[-1]) * a / np.linalg.norm(a[0]))


def safe_row_of_zeros_only(a):
    length = np.linalg.norm(a, axis=-1, keepdims=True)
    length[length == 0] = 1
    return a / length


def safe_by_eps(a):
    return a / (np.sqrt((a**2).sum(axis=-1, keepdims=True)) + 1e-8)


def safe_by_eps_under_the_root(a):
    return a / np.sqrt((a**2).sum(axis=-1, keepdims=True) + 1e-12)


def safe_by_largest_number(a):
    largest = a.max(axis=-1, keepdims=True)
    return safe_row_of_zeros_only(a / np.where(largest == 0, 1, largest))


def safe_by_largest_of_all(a):
    return safe_row_of_zeros_only(a / np.max(np.abs(a)))


def safe_without_the_second_step(a):
    largest = np.abs(a).max(axis=-1, keepdims=True)
    return a / np.where(largest > 0, largest, 1)


def safe_in_float64(a):
    a = a.astype(float)  # squares of 1e30 and 1e-30 fit in there
    return safe_row_of_zeros_only(a)


def safe_with_ones(a):
    largest = np.abs(a).max(axis=-1, keepdims=True)
    u = a / np.where(largest > 0, largest, 1)
    return np.where(largest > 0, unit(np.where(largest > 0, u, 1)), 1).astype(a.dtype)


RIGHT_ANYWAY = {
    # what a row of zeros is divided by does not matter
    "unit = a / np.where(largest > 0, largest, 2)",
}

WRONG = {
    "l2_norm_gelu": [
        (lambda a: gelu(unit(a)), "√n"),
        (lambda a: gelu(a.shape[-1] * unit(a)), "factor n"),
        (lambda a: math.sqrt(a.shape[-1]) * gelu(unit(a)), "behind GeLU"),
        (lambda a: math.sqrt(a.shape[-1]) * unit(gelu(a)), "other order"),
        (lambda a: gelu(math.sqrt(a.shape[0]) * unit(a)), "rows"),
        (lambda a: gelu(math.sqrt(a.shape[-1]) * unit(a, axis=None)), "Each row"),
        (lambda a: gelu(math.sqrt(a.shape[-1]) * unit(a, keepdims=False)), "keepdims"),
        (lambda a: gelu(math.sqrt(a.shape[-1]) * unit(a, axis=0)), "columns"),
        (lambda a: gelu(math.sqrt(a.shape[-1]) * unit(a, ord=1) if a.ndim == 1 else a), "wrong values"),
        (lambda a: math.sqrt(a.shape[-1]) * unit(a), "GeLU missing"),
        (lambda a: np.maximum(0, math.sqrt(a.shape[-1]) * unit(a)), "ReLU"),
        (lambda a: gelu(np.sqrt(a.shape[-1]) * unit(a)), "float64"),
        (theta_of_the_first_row, "wrong values"),
        (theta_in_place, "in place"),
    ],
    "safe_l2": [
        (unit, "row of zeros"),
        (safe_row_of_zeros_only, "overflow"),
        (lambda a: np.nan_to_num(unit(a)), "hidden"),
        (safe_by_eps, "eps = 1e-08"),
        (safe_by_eps_under_the_root, "eps = 1e-12 under"),
        (safe_by_largest_number, "absolute value"),
        (safe_by_largest_of_all, "whole table"),
        (safe_without_the_second_step, "second step"),
        (safe_in_float64, "float64"),
        (safe_with_ones, "zeros stay zero"),
    ],
}
