"""Values of the elementary formulas, held against the standard library and loops; no torch needed."""

import math

import numpy as np
import pytest

from minitf import ops

POINTS = np.concatenate([np.linspace(-12, 12, 481), [-37.0, 37.0, 1e-30, 0.0]])


def test_the_normal_cdf_and_density_are_those_of_the_standard_library():
    cdf, pdf = ops.normal_cdf_pdf(POINTS)
    exact = [0.5 * math.erfc(-x / math.sqrt(2)) for x in POINTS]
    assert np.abs(cdf - exact).max() < 5e-15
    assert np.abs(pdf - np.exp(-POINTS * POINTS / 2) / math.sqrt(2 * math.pi)).max() < 1e-15


def test_single_precision_keeps_single_precision():
    cdf, pdf = ops.normal_cdf_pdf(POINTS.astype(np.float32))
    exact = [0.5 * math.erfc(-x / math.sqrt(2)) for x in POINTS]
    assert cdf.dtype == pdf.dtype == np.float32
    assert np.abs(cdf - exact).max() < 5e-7


def test_gelu_is_x_times_the_normal_cdf():
    exact = [x * 0.5 * math.erfc(-x / math.sqrt(2)) for x in POINTS]
    assert np.abs(ops.gelu_forward(POINTS)[0] - exact).max() < 5e-14


def test_tanh_gelu_is_the_published_formula():
    exact = [0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in POINTS]
    assert np.abs(ops.gelu_forward(POINTS, approximate="tanh")[0] - exact).max() < 1e-14


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out_is_zero_or_the_identity_without_a_warning(approximate):
    x = np.array([-1e4, -100.0, 100.0, 1e4], np.float32)
    out, cache = ops.gelu_forward(x, approximate)
    assert out.tolist() == [0, 0, 100, 1e4]
    assert ops.gelu_backward(np.ones_like(x), cache).tolist() == [0, 0, 1, 1]


def test_softmax_does_not_overflow_and_its_rows_sum_to_one():
    out, _ = ops.softmax_forward(np.array([[1e4, 1e4, -1e4], [-1e30, 0.0, -1e30]], np.float32))
    assert out.tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]


def test_layer_norm_gives_rows_mean_zero_and_variance_one():
    x = np.random.default_rng(0).normal(5, 3, (4, 50))
    out, _ = ops.layer_norm_forward(x, eps=0.0)
    assert np.allclose(out.mean(axis=-1), 0, atol=1e-14)
    assert np.allclose(out.var(axis=-1), 1, atol=1e-14)


def test_layer_norm_of_a_single_channel_is_zero_with_zero_gradient():
    out, cache = ops.layer_norm_forward(np.array([[3.0], [-2.0]]))
    assert not out.any()
    assert not ops.layer_norm_backward(np.ones((2, 1)), cache).any()


def test_cross_entropy_is_the_mean_of_minus_log_probability():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    targets = np.array([0, 2])
    loss, _ = ops.cross_entropy_forward(logits, targets)
    assert loss == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    loss, _ = ops.cross_entropy_forward(logits, targets, mask=np.array([False, True]))
    assert loss == pytest.approx(-math.log(0.8))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_huge_inputs_is_the_input_or_zero(approximate):
    x = np.array([-1e30, -1e15, 1e15, 1e30], np.float32)
    out, cache = ops.gelu_forward(x, approximate)
    assert out.tolist() == [0, 0, x[2], x[3]]
    assert ops.gelu_backward(np.ones_like(x), cache).tolist() == [0, 0, 1, 1]


def test_cross_entropy_of_huge_logits_stays_finite():
    logits = np.array([[1e4, -1e4, 0.0]], np.float32)
    loss, cache = ops.cross_entropy_forward(logits, np.array([1]))
    assert loss == 2e4
    assert ops.cross_entropy_backward(1.0, cache).tolist() == [[1, -1, 0]]


def test_masked_tokens_get_no_gradient():
    logits = np.random.default_rng(0).standard_normal((2, 3, 4))
    mask = np.array([[True, False, True], [False, True, True]])
    _, cache = ops.cross_entropy_forward(logits, np.zeros((2, 3), int), mask)
    grads = ops.cross_entropy_backward(1.0, cache)
    assert np.array_equal(grads.any(axis=-1), mask)


def test_a_row_looked_up_twice_gets_both_gradients():
    _, cache = ops.embedding_forward(np.array([2, 0, 2]), np.zeros((3, 2)))
    grads = ops.embedding_backward(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), cache)
    assert grads.tolist() == [[3, 4], [0, 0], [6, 8]]
