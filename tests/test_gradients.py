"""Every backward is the derivative of its forward, by finite differences: no framework is needed to see it."""

from functools import partial

import helpers
import numpy as np
import pytest

from minitf import check_gradients, directional_error, model, numerical_gradient, tree_directional_error
from minitf.backend import tree_items

by_name = pytest.mark.parametrize("pair", helpers.PAIRS, ids=lambda pair: pair.name)


@by_name
def test_every_entry_of_every_gradient_is_the_slope_of_the_forward(pair):
    report = check_gradients(partial(pair.forward, **pair.extra), pair.backward, pair.arrays)
    assert report.ok, f"\n{report}"
    assert [finding.argument for finding in report.findings] == list(pair.arrays)


@by_name
def test_gradients_have_the_shape_and_dtype_of_their_arrays(pair):
    arrays = [array.astype(np.float32) for array in pair.arrays.values()]
    out, cache = pair.forward(*arrays, **pair.extra)
    assert out.dtype == np.float32
    grads = pair.backward(np.ones_like(out), cache)
    grads = grads if isinstance(grads, tuple) else (grads,)
    assert [(g.shape, g.dtype) for g in grads] == [(a.shape, a.dtype) for a in arrays]


@pytest.mark.parametrize("config", helpers.CONFIGS.values(), ids=helpers.CONFIGS)
def test_whole_models_are_right_along_a_random_direction(config):
    assert helpers.model_gradient_error(config) < 1e-6


@pytest.mark.parametrize("config", helpers.IMAGE_CONFIGS.values(), ids=helpers.IMAGE_CONFIGS)
def test_whole_image_models_are_right_along_a_random_direction(config):
    assert helpers.image_gradient_error(config) < 1e-6


@pytest.mark.parametrize("name", ["tokenformer parametric, proj_tokens, taus", "transformer"])
def test_whole_models_are_right_in_every_leaf(name):
    config = helpers.CONFIGS[name]
    params = helpers.random_params(config)
    ids, targets, mask = helpers.random_batch(config)
    _, grads = model.loss_and_grads(params, ids, targets, config, mask)
    rng = np.random.default_rng(0)
    for leaf, grad in tree_items(grads):
        array = dict(tree_items(params))[leaf]
        direction = rng.standard_normal(array.shape)
        losses = []
        for h in (1e-5, -1e-5):
            array += h * direction
            losses.append(model.loss_and_grads(params, ids, targets, config, mask)[0])
            array -= h * direction
        slope = (losses[0] - losses[1]) / 2e-5
        assert abs(slope - (grad * direction).sum()) < 1e-6 * max(abs(slope), np.abs(grad).max()), leaf


def test_the_battery_finds_nothing_wrong_as_things_are():
    assert helpers.first_wrong_gradient() is None


# ------------------------------------------------------------------------------- the checker, checked


def product(x, y):
    return x * y, (x, y)


def product_backward(dout, cache):
    x, y = cache
    return dout * y, dout * x


TWO = {"x": np.array([[1.0, 2.0], [3.0, 4.0]]), "y": np.array([[5.0, 6.0], [7.0, 8.0]])}


def test_a_right_gradient_gets_a_report_with_one_ok_per_argument():
    report = check_gradients(product, product_backward, TWO)
    assert report.ok
    assert [line.split()[:2] for line in str(report).splitlines()] == [["ok", "x:"], ["ok", "y:"]]


def test_a_wrong_entry_is_named_with_argument_index_expected_and_got():
    def wrong(dout, cache):
        dx, dy = product_backward(dout, cache)
        dy = dy.copy()
        dy[1, 0] += 2.0
        return dx, dy

    report = check_gradients(product, wrong, TWO)
    assert not report.ok
    right, found = report.findings
    assert right.error < report.tolerance
    assert (found.argument, found.index) == ("y", (1, 0))
    assert found.got == pytest.approx(found.expected + 2.0)
    line = str(report).splitlines()[1]
    assert line.startswith("wrong y:")
    assert "(1, 0)" in line
    assert f"expected {found.expected:.6g}" in line
    assert f"got {found.got:.6g}" in line


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 1.001, np.nan], ids=str)
def test_wrong_gradients_fail_both_checks(factor):
    def wrong(dout, cache):
        dx, dy = product_backward(dout, cache)
        return dx, factor * dy

    assert not check_gradients(product, wrong, TWO).ok
    assert not directional_error(product, wrong, TWO) < 1e-6


def test_errors_that_cancel_in_a_plain_sum_are_seen():
    """Swapped columns of a gradient: with dout = 1 everywhere the sum along a constant direction agrees."""

    def swapped(dout, cache):
        dx, dy = product_backward(dout, cache)
        return dx[:, ::-1], dy

    assert not check_gradients(product, swapped, TWO).ok
    assert directional_error(product, swapped, TWO) > 1e-3


def test_a_wrong_leaf_of_a_tree_is_seen():
    def loss_and_grads(params, factor=1.0):
        return float((params["a"] ** 2).sum() + params["b"]["c"].sum()), {
            "a": factor * 2 * params["a"],
            "b": {"c": np.ones_like(params["b"]["c"])},
        }

    params = {"a": np.array([1.0, 2.0]), "b": {"c": np.array([3.0])}}
    assert tree_directional_error(loss_and_grads, params) < 1e-8
    assert tree_directional_error(partial(loss_and_grads, factor=1.01), params) > 1e-4


def test_a_gradient_of_zero_is_not_divided_by():
    report = check_gradients(lambda x: (0 * x, x), lambda dout, x: 0 * dout, {"x": np.ones(2)})
    assert report.ok
    assert report.findings[0].error == 0


def test_the_numerical_gradient_leaves_its_argument_alone():
    x = np.array([1.0, 2.0])
    before = helpers.fingerprint({"x": x})
    assert numerical_gradient(lambda x: (x**3).sum(), x) == pytest.approx([3.0, 12.0])
    assert helpers.fingerprint({"x": x}) == before


def test_single_precision_is_refused_with_the_reason():
    with pytest.raises(TypeError, match=r"x is float32: finite differences need float64"):
        check_gradients(product, product_backward, {name: a.astype(np.float32) for name, a in TWO.items()})


def test_a_missing_gradient_is_named():
    with pytest.raises(ValueError, match=r"1 gradients for 2 arrays \(x, y\)"):
        check_gradients(product, lambda dout, cache: dout, TWO)


def test_a_gradient_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"gradient of x has shape \(2,\), but x has \(2, 2\)"):
        check_gradients(product, lambda dout, cache: (dout.sum(axis=0), dout), TWO)
