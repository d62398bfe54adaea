"""What units do: the same sum for tokens and neurons, a measure that finds what is there, and honest knock-outs."""

import math
from dataclasses import replace

import fake_cupy
import helpers
import numpy as np
import pytest

from minitf import activity, model
from minitf.backend import to_device, tree_map
from minitf.ops import (
    cross_entropy_backward,
    cross_entropy_forward,
    layer_norm_backward,
    linear_backward,
)

CONFIGS = {
    "tokens": helpers.tokenformer(),
    "tokens, parametric norms, untied": helpers.tokenformer(parametric_norm=True, tied=False, proj_tokens=4),
    "neurons": helpers.transformer(),
}
models = pytest.mark.parametrize("name", CONFIGS)
ends = pytest.mark.parametrize("end", activity.ENDS)


def setting(name, dtype=np.float64):
    config = CONFIGS[name]
    ids, targets, _ = helpers.random_batch(config)
    return helpers.random_params(config, dtype=dtype), config, ids, targets


def loss(params, config, ids, targets):
    logits, _ = model.forward(params, ids, config)
    return cross_entropy_forward(logits, targets)[0]


def with_ffn(params, block, ffn):
    name = f"block_{block}"
    return {**params, name: {**params[name], "ffn": ffn}}


# --------------------------------------------------------------------------------------------------- units


@models
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_kinds_of_layer_are_the_sum_of_what_their_units_say(name, dtype):
    params, config, ids, _ = setting(name, dtype)
    _, cache = model.forward(params, ids, config)
    for i in range(config.n_layers):
        units = activity.ffn_units(cache.blocks[i].ffn)
        out, _ = model.ffn_forward(units.x, params[f"block_{i}"]["ffn"], config)
        assert helpers.relative_error(units.activations @ units.values, out) < (
            1e-5 if dtype == np.float32 else 1e-13
        )


def test_a_unit_fires_at_its_own_loudest_rows_whatever_its_scale():
    a = np.random.default_rng(0).standard_normal((1000, 4))
    fires = activity.loudest(a, 0.05)
    assert (fires.sum(axis=0) == 50).all()
    assert np.array_equal(fires, activity.loudest(np.exp(3 * a) * np.array([1, 10, 0.1, 5]), 0.05))
    assert a[fires].min() > np.sort(a, axis=0)[-51].min()
    assert not activity.loudest(np.zeros((10, 2)), 0.05).any()


# ---------------------------------------------------------------------------------------------- selectivity


def by_hand(fires, labels):
    """I(F; L) / H(F) of one unit, from the table of joint frequencies."""
    joint = {}
    for f, label in zip(fires.tolist(), labels.tolist(), strict=True):
        joint[f, label] = joint.get((f, label), 0) + 1 / len(fires)
    of_f = {f: sum(p for (g, _), p in joint.items() if g == f) for f, _ in joint}
    of_l = {m: sum(p for (_, k), p in joint.items() if k == m) for _, m in joint}
    information = sum(p * math.log(p / of_f[f] / of_l[m]) for (f, m), p in joint.items())
    return information / -sum(p * math.log(p) for p in of_f.values())


def test_selectivity_is_the_mutual_information_over_the_entropy():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 300)
    fires = (
        rng.random((300, 6)) < np.array([0.05, 0.3, 0.5, 0.7, 0.9, 0.2]) * (1 + (labels[:, None] == 2)) / 2
    )
    got = activity.selectivity(fires, labels, 7)  # two labels that never come
    assert got == pytest.approx([by_hand(unit, labels) for unit in fires.T], abs=1e-12)


def test_selectivity_is_one_where_the_label_decides_and_zero_where_a_unit_never_or_always_fires():
    labels = np.repeat([0, 1, 2], 4)
    fires = np.stack([labels == 1, labels != 1, labels < 0, labels >= 0], axis=1)
    assert activity.selectivity(fires, labels, 3) == pytest.approx([1, 1, 0, 0])


def test_shuffled_labels_leave_the_bias_that_the_docstring_states():
    rng = np.random.default_rng(2)
    rows, n_labels = 20_000, 50
    labels = rng.integers(0, n_labels, rows)
    fires = activity.loudest((labels == 3)[:, None] + 0.1 * rng.standard_normal((rows, 20)), 0.05)
    entropy = -0.05 * math.log(0.05) - 0.95 * math.log(0.95)
    floor = activity.selectivity(fires, rng.permutation(labels), n_labels).mean()
    assert floor == pytest.approx((n_labels - 1) / (2 * rows * entropy), rel=0.15)
    assert activity.selectivity(fires, labels, n_labels).min() > 20 * floor


# -------------------------------------------------------------------------------------------- knock-outs


@models
@ends
@pytest.mark.parametrize("block", [0, 1])
def test_knock_outs_are_the_losses_of_the_whole_model_without_each_unit(name, end, block):
    params, config, ids, targets = setting(name)
    before = helpers.fingerprint(params)
    rises = activity.knock_outs(params, config, ids, targets, block, end)
    ffn, whole = params[f"block_{block}"]["ffn"], loss(params, config, ids, targets)
    for unit, rise in enumerate(rises):
        without = with_ffn(params, block, activity.knock_out(ffn, unit, end))
        assert rise == pytest.approx(loss(without, config, ids, targets) - whole, abs=1e-12)
    assert np.array_equal(
        activity.knock_outs(params, config, ids, targets, block, end, [2, 0]), rises[[2, 0]]
    )
    assert helpers.fingerprint(params) == before


def test_without_its_key_a_token_is_as_good_as_deleted_with_tau_held():
    params, config, ids, targets = setting("tokens")
    small = replace(config, ffn_tokens=5, ffn_tau=config.tau("ffn"))
    silent, deleted = dict(params), dict(params)
    for i in range(config.n_layers):
        ffn = params[f"block_{i}"]["ffn"]
        silent = with_ffn(silent, i, activity.knock_out(ffn, slice(5, None), "key"))
        deleted = with_ffn(deleted, i, tree_map(lambda rows: rows[:5], ffn))
    got, expected = loss(silent, config, ids, targets), loss(deleted, small, ids, targets)
    assert got == pytest.approx(expected, abs=1e-13)
    assert abs(got - loss(params, config, ids, targets)) > 1e-3


def test_a_neuron_has_no_norm_to_leave_and_a_token_has():
    same, other = (
        [activity.knock_outs(*setting(name), 1, end) for end in activity.ENDS]
        for name in ("neurons", "tokens")
    )
    assert np.abs(same[0] - same[1]).max() < 1e-14
    assert np.abs(other[0] - other[1]).max() > 1e-3


@models
def test_the_importance_is_minus_value_times_its_gradient_and_the_slope_of_turning_a_unit_down(name):
    params, config, ids, targets = setting(name)
    logits, cache = model.forward(params, ids, config)
    _, loss_cache = cross_entropy_forward(logits, targets)
    grads = model.backward(cross_entropy_backward(1.0, loss_cache), cache)["block_1"]["ffn"]
    ffn = params["block_1"]["ffn"]
    units = activity.ffn_units(cache.blocks[1].ffn)
    dout = _gradient_of_last_output(params, config, ids, targets)
    importance = activity.token_importance(units.activations, units.values, dout)
    if "up" in ffn:
        expected = -(ffn["down"]["weight"] * grads["down"]["weight"]).sum(axis=0)
    else:
        expected = -(ffn["value"] * grads["value"]).sum(axis=1)
    assert helpers.relative_error(importance, expected) < 1e-12
    for unit in (0, 3):
        h, slopes = 1e-5, []
        for factor in (1 - h, 1 + h):
            turned = tree_map(np.copy, ffn)
            rows = turned["down"]["weight"].T if "up" in ffn else turned["value"]
            rows[unit] *= factor
            slopes.append(loss(with_ffn(params, 1, turned), config, ids, targets))
        assert (slopes[0] - slopes[1]) / (2 * h) == pytest.approx(importance[unit], abs=1e-9)


def _gradient_of_last_output(params, config, ids, targets):
    """The last layer's output goes into the stream, so its gradient is the stream's before the final norm."""
    logits, cache = model.forward(params, ids, config)
    dlogits = cross_entropy_backward(1.0, cross_entropy_forward(logits, targets)[1])
    dx, _ = linear_backward(dlogits.reshape(-1, config.vocab_size), cache.unembedding)
    return layer_norm_backward(dx, cache.norm)[0]


# ------------------------------------------------------------------------------------- devices and mistakes


@models
def test_everything_runs_on_the_device_without_a_copy_to_the_host(name):
    params, config, ids, targets = setting(name)
    _, cache = model.forward(params, ids, config)
    units = activity.ffn_units(cache.blocks[0].ffn)
    dout = np.ones((ids.size, config.d_model))

    def everything(units, params, ids, targets, dout):
        fires = activity.loudest(units.activations, 0.3)
        return {
            "fires": fires,
            "selectivity": activity.selectivity(fires, ids.reshape(-1), config.vocab_size),
            "importance": activity.token_importance(units.activations, units.values, dout),
            **{end: activity.knock_outs(params, config, ids, targets, 0, end) for end in activity.ENDS},
            "silent": activity.knock_out(params["block_0"]["ffn"], slice(2), "value"),
        }

    expected = everything(units, params, ids, targets, dout)
    with fake_cupy.installed():
        on_device = to_device(params, "cuda")
        arrays = [fake_cupy.asarray(array) for array in (ids, targets, dout)]
        _, cache = model.forward(on_device, arrays[0], config)
        got = everything(activity.ffn_units(cache.blocks[0].ffn), on_device, *arrays)
    error, _ = helpers.tree_error(
        tree_map(lambda a: a.get().astype(float), got), tree_map(np.float64, expected)
    )
    assert error < 1e-10


FIRES, LABELS = np.ones((3, 2), bool), np.array([0, 1, 1])
MISTAKES = {
    "a share of one": (lambda: activity.loudest(np.ones((3, 2)), 1.0), "share of the rows"),
    "rows still in windows": (lambda: activity.loudest(np.ones((3, 2, 2)), 0.1), "B T rows"),
    "weights for fires": (lambda: activity.selectivity(np.ones((3, 2)), LABELS, 2), "threshold first"),
    "labels of other rows": (lambda: activity.selectivity(FIRES, LABELS[:2], 2), "one label for each row"),
    "labels as floats": (lambda: activity.selectivity(FIRES, np.ones(3), 2), "integer"),
    "too few labels": (lambda: activity.selectivity(FIRES, LABELS, 1), "contain 1"),
    "two blocks": (lambda: activity.ffn_units((1, 2)), "pass the first or the second"),
    "two blocks to silence": (
        lambda: activity.knock_out({"first": {}, "second": {}}, 0),
        r"pass ffn\['first'\]",
    ),
    "an unknown end": (lambda: activity.knock_out({}, 0, "both"), "choose 'value' or 'key'"),
    "no such block": (lambda: activity.knock_outs(*setting("tokens"), 2), "block is 2"),
    "params of another model": (
        lambda: activity.knock_outs(setting("neurons")[0], *setting("tokens")[1:], 0),
        "belong together",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_an_error_that_says_what_to_change(name):
    call, message = MISTAKES[name]
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        call()
