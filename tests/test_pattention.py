"""Pattention by its properties, and the numbers that the official layer gives when it is run."""

import math

import helpers
import numpy as np
import pytest

from minitf import ops, pattention
from minitf.pattention import pattention_backward, pattention_forward, theta_backward, theta_forward

NORMED = ("l2_norm_gelu", "gelu_l2_norm", "l1_norm_gelu")
every_kind = pytest.mark.parametrize("kind", helpers.KINDS)


def layer(rng, n=10, d_in=6, d_out=5, shape=(7,)):
    return (
        rng.standard_normal((*shape, d_in)),
        rng.standard_normal((n, d_in)),
        rng.standard_normal((n, d_out)),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ------------------------------------------------------------------------- theta against its equation


def gelu(x):
    return x * 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))


EQUATIONS = {
    "l2_norm_gelu": lambda a, tau: gelu(tau * a / np.linalg.norm(a)),
    "gelu_l2_norm": lambda a, tau: tau * gelu(a) / np.linalg.norm(gelu(a)),
    "l1_norm_gelu": lambda a, tau: gelu(tau**2 * a / np.abs(a).sum()),
    "softmax": lambda a, tau: tau**2 * np.exp(a) / np.exp(a).sum(),
    "gelu": lambda a, tau: gelu(a),
}


@every_kind
@pytest.mark.parametrize("tau", [None, 0.5, 3.0])
def test_theta_is_its_equation_row_by_row(kind, tau, rng):
    scores = rng.standard_normal((4, 9))
    weights, _ = theta_forward(scores, kind, tau)
    for row, got in zip(scores, weights, strict=True):
        expected = EQUATIONS[kind](row, 3.0 if tau is None else tau)  # None: the root of 9
        assert helpers.relative_error(got, expected) < 1e-13


def test_softmax_weights_sum_to_the_number_of_tokens_as_in_the_release(rng):
    weights, _ = theta_forward(rng.standard_normal((3, 8)), "softmax")
    assert np.allclose(weights.sum(axis=-1), 8)


def test_l2_norm_before_gelu_gives_gelu_inputs_of_unit_mean_square(rng):
    _, cache = theta_forward(rng.standard_normal((3, 8)))
    assert np.allclose((cache.tau**2 * cache.normed**2).mean(axis=-1), 1)


# --------------------------------------------------------------------------------------- extreme scores


@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_of_zeros_is_never_nan_and_with_a_norm_gives_zeros(kind, dtype, rng):
    scores = rng.standard_normal((3, 5)).astype(dtype)
    scores[1] = 0
    weights, cache = theta_forward(scores, kind)
    grads = theta_backward(np.ones_like(weights), cache)
    assert np.isfinite(weights).all()
    assert np.isfinite(grads).all()
    assert weights.dtype == grads.dtype == dtype
    if kind in NORMED:
        assert not weights[1].any()
        assert not grads[1].any()
    assert weights[0].any()
    assert weights[2].any()


def test_a_row_that_gelu_sends_to_zero_gives_zeros_where_the_release_gives_nan():
    weights, cache = theta_forward(np.full((1, 4), -100.0, np.float32), "gelu_l2_norm")
    assert not weights.any()
    assert not theta_backward(np.ones_like(weights), cache).any()


def test_softmax_never_overflows():
    scores = np.array([[1e4, 1e4, -1e4, 0.0], [-1e4, -1e4, -1e4, -1e4]], np.float32)
    weights, cache = theta_forward(scores, "softmax")
    assert weights.tolist() == [[2, 2, 0, 0], [1, 1, 1, 1]]
    assert np.isfinite(theta_backward(np.ones_like(weights), cache)).all()


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "l1_norm_gelu"])
@pytest.mark.parametrize("size", [1e30, 1e20, 1e-20, 1e-30])
def test_huge_and_tiny_rows_keep_their_direction(kind, size, rng):
    scores = rng.standard_normal((3, 6)).astype(np.float32)
    expected, _ = theta_forward(scores, kind)
    weights, cache = theta_forward(scores * np.float32(size), kind)
    assert helpers.relative_error(weights, expected) < 1e-5
    assert np.isfinite(theta_backward(np.ones_like(weights), cache)).all()


def test_huge_rows_survive_gelu_before_the_norm():
    scores = np.array([[3e30, 4e30, -1e30]], np.float32)
    weights, _ = theta_forward(scores, "gelu_l2_norm", tau=5.0)
    assert weights[0] == pytest.approx([3, 4, 0])


@every_kind
def test_a_single_token_works_and_has_no_direction_to_learn(kind, rng):
    scores = rng.standard_normal((3, 1))
    _, cache = theta_forward(scores, kind)
    grads = theta_backward(np.ones((3, 1)), cache)
    assert np.isfinite(grads).all()
    if kind != "gelu":  # its norm, or its sum, fixes the only weight
        assert np.abs(grads).max() < 1e-13


# ------------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "l1_norm_gelu"])
def test_a_norm_on_the_scores_hides_the_scale_of_the_keys(kind, rng):
    x, key, value = layer(rng)
    out, _ = pattention_forward(x, key, value, kind)
    assert helpers.relative_error(pattention_forward(x, 7 * key, value, kind)[0], out) < 1e-13
    assert helpers.relative_error(pattention_forward(x, key, value, kind, scale=7.0)[0], out) < 1e-13


@pytest.mark.parametrize("kind", ["gelu_l2_norm", "softmax", "gelu"])
def test_where_no_norm_is_on_the_scores_scale_matters(kind, rng):
    x, key, value = layer(rng)
    out, _ = pattention_forward(x, key, value, kind)
    scaled, _ = pattention_forward(x, key, value, kind, scale=math.sqrt(len(key)))
    assert helpers.relative_error(scaled, out) > 0.05
    assert (
        helpers.relative_error(scaled, pattention_forward(x, key * math.sqrt(len(key)), value, kind)[0])
        < 1e-13
    )


@every_kind
def test_the_order_of_the_parameter_tokens_does_not_matter(kind, rng):
    x, key, value = layer(rng)
    order = rng.permutation(len(key))
    dout = rng.standard_normal((7, 5))
    out, cache = pattention_forward(x, key, value, kind)
    mixed, mixed_cache = pattention_forward(x, key[order], value[order], kind)
    assert helpers.relative_error(mixed, out) < 1e-13
    dx, dkey, dvalue = pattention_backward(dout, cache)
    for got, expected in zip(
        pattention_backward(dout, mixed_cache), (dx, dkey[order], dvalue[order]), strict=True
    ):
        assert helpers.relative_error(got, expected) < 1e-12


@every_kind
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2, 3)], ids=str)
def test_leading_dimensions_are_only_rows(kind, shape, rng):
    x, key, value = layer(rng, shape=shape)
    dout = rng.standard_normal((*shape, 5))
    out, cache = pattention_forward(x, key, value, kind)
    dx, dkey, dvalue = pattention_backward(dout, cache)
    flat, flat_cache = pattention_forward(x.reshape(-1, 6), key, value, kind)
    flat_dx, flat_dkey, flat_dvalue = pattention_backward(dout.reshape(-1, 5), flat_cache)
    assert out.shape == (*shape, 5)
    assert dx.shape == x.shape
    for got, expected in (
        (out.reshape(-1, 5), flat),
        (dx.reshape(-1, 6), flat_dx),
        (dkey, flat_dkey),
        (dvalue, flat_dvalue),
    ):
        assert helpers.relative_error(got, expected) < 1e-12


def test_without_a_norm_pattention_is_an_mlp_without_biases(rng):
    x, key, value = layer(rng)
    hidden, _ = ops.linear_forward(x, key)
    hidden, _ = ops.gelu_forward(hidden)
    mlp, _ = ops.linear_forward(hidden, value.T.copy())
    assert helpers.relative_error(pattention_forward(x, key, value, "gelu")[0], mlp) < 1e-13


@every_kind
def test_tau_of_none_is_the_root_of_the_number_of_tokens(kind, rng):
    x, key, value = layer(rng, n=9)
    default, cache = pattention_forward(x, key, value, kind)
    assert cache.theta.tau == 3.0
    assert np.array_equal(default, pattention_forward(x, key, value, kind, tau=3.0)[0])


# ------------------------------------------------------------------------------------------------- mask


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "gelu_l2_norm", "l1_norm_gelu", "gelu"])
def test_a_masked_token_does_not_act_and_does_not_learn(kind, rng):
    x, key, value = layer(rng)
    mask = np.ones((7, 10), bool)
    mask[:, 3] = False
    out, cache = pattention_forward(x, key, value, kind, mask=mask)
    without, _ = pattention_forward(
        x, np.delete(key, 3, 0), np.delete(value, 3, 0), kind, tau=math.sqrt(10)
    )  # n in tau stays
    assert helpers.relative_error(out, without) < 1e-13
    _, dkey, dvalue = pattention_backward(np.ones_like(out), cache)
    assert not dkey[3].any()
    assert not dvalue[3].any()


def test_a_softmax_mask_leaves_a_masked_token_exp_of_zero_as_the_release_does(rng):
    x, key, value = layer(rng)
    mask = rng.random((7, 10)) < 0.5
    _, cache = pattention_forward(x, key, value, "softmax", mask=mask)
    exp = np.exp((x @ key.T) * mask)
    assert helpers.relative_error(cache.weights, 10 * exp / exp.sum(axis=-1, keepdims=True)) < 1e-13
    assert (cache.weights[~mask] > 0).all()


def test_a_mask_broadcasts_over_leading_dimensions(rng):
    x, key, value = layer(rng, shape=(2, 3))
    mask = rng.random((3, 10)) < 0.7
    out, _ = pattention_forward(x, key, value, mask=mask)
    for row in range(2):
        assert helpers.relative_error(pattention_forward(x[row], key, value, mask=mask)[0], out[row]) < 1e-13


def test_a_row_masked_entirely_is_zero_not_nan(rng):
    x, key, value = layer(rng)
    mask = np.ones((7, 10), bool)
    mask[2] = False
    out, cache = pattention_forward(x, key, value, mask=mask)
    assert not out[2].any()
    assert all(np.isfinite(grad).all() for grad in pattention_backward(np.ones_like(out), cache))


# ---------------------------------------------------------- what happens to the release's layer at growth


def zero_keys_appended(rng, n=10, n_new=6):
    x, key, value = layer(rng, n=n, d_in=16, shape=(64,))
    wide_key = np.concatenate([key, np.zeros((n_new, 16))])
    wide_value = np.concatenate([value, rng.standard_normal((n_new, 5))])
    return x, (key, value), (wide_key, wide_value)


def change(old, new):
    return np.linalg.norm(new - old) / np.linalg.norm(old)


def test_zero_keys_with_tau_following_n_move_the_output_by_tens_of_percent(rng):
    x, old, new = zero_keys_appended(rng)
    before, _ = pattention_forward(x, *old)
    assert 0.15 < change(before, pattention_forward(x, *new)[0]) < 0.6  # facts 1.6: 31 %


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "gelu_l2_norm", "l1_norm_gelu", "gelu"])
def test_zero_keys_with_tau_held_are_exact(kind, rng):
    x, old, new = zero_keys_appended(rng)
    before, _ = pattention_forward(x, *old, kind)
    assert change(before, pattention_forward(x, *new, kind, tau=math.sqrt(10))[0]) < 1e-15


def test_gelu_then_norm_grows_by_exactly_the_root_of_the_ratio(rng):
    x, old, new = zero_keys_appended(rng)
    before, _ = pattention_forward(x, *old, "gelu_l2_norm")
    after, _ = pattention_forward(x, *new, "gelu_l2_norm")
    assert helpers.relative_error(after, before * math.sqrt(16 / 10)) < 1e-14


def test_softmax_growth_is_not_preserved_by_zero_keys_with_either_tau(rng):
    x, old, new = zero_keys_appended(rng)
    before, _ = pattention_forward(x, *old, "softmax")
    for tau in (None, math.sqrt(10)):
        assert change(before, pattention_forward(x, *new, "softmax", tau=tau)[0]) > 0.05


@pytest.mark.parametrize("kind", NORMED[:2])
def test_zero_keys_with_zero_values_are_dead_and_with_random_values_only_the_keys_wake(kind, rng):
    x, (key, value), (wide_key, wide_value) = zero_keys_appended(rng)
    dead_value = np.concatenate([value, np.zeros((6, 5))])
    for new_value, alive in ((dead_value, False), (wide_value, True)):
        out, cache = pattention_forward(x, wide_key, new_value, kind, tau=math.sqrt(10))
        _, dkey, dvalue = pattention_backward(rng.standard_normal(out.shape), cache)
        assert dkey[10:].any() == alive
        assert not dvalue[10:].any()


def test_the_cache_shows_what_a_lesson_plots(rng):
    x, key, value = layer(rng)
    out, cache = pattention_forward(x, key, value, scale=0.5)
    assert helpers.relative_error(cache.scores, 0.5 * x @ key.T) < 1e-14
    assert helpers.relative_error(cache.weights @ value, out) < 1e-14
    assert cache.theta.kind == "l2_norm_gelu"
    assert pattention.KINDS == ("l2_norm_gelu", "gelu_l2_norm", "softmax", "l1_norm_gelu", "gelu")
