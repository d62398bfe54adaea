"""Top-k Pattention: every row a Pattention of its own k tokens, at the FLOPs that the formula counts.

Its gradients are among `helpers.PAIRS`: finite differences, the stand-in for CuPy and the mutants are tried there.
"""

import json
from dataclasses import replace
from functools import partial

import helpers
import numpy as np
import pytest
import small_experiment

from minitf import checkpoint, cost, growth, model, pattention, top_k
from minitf.backend import tree_items, tree_map
from minitf.checkpoint import CheckpointError
from minitf.laboratory import Stage, tokenformer
from minitf.official import to_official

every_kind = pytest.mark.parametrize("kind", helpers.KINDS)
both_ways = pytest.mark.parametrize("gather", [False, True], ids=["with zeros", "expert by expert"])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def layer(rng, n=12, d_in=6, d_out=5, shape=(7,)):
    draw = rng.standard_normal
    return draw((*shape, d_in)), draw((n, d_in)), draw((n, d_out))


def forward_and_backward(x, key, value, dout, k, **options):
    out, cache = top_k.top_k_pattention_forward(x, key, value, k, **options)
    return out, *top_k.top_k_pattention_backward(dout, cache)


# --------------------------------------------------------------------------------------------- the definition


@every_kind
@both_ways
@pytest.mark.parametrize(("k", "group"), [(1, 1), (3, 1), (11, 1), (6, 3), (4, 4)], ids=str)
def test_every_row_is_a_pattention_of_its_own_tokens(kind, gather, k, group, rng):
    x, key, value = layer(rng)
    dout = rng.standard_normal((7, 5))
    found = forward_and_backward(x, key, value, dout, k, kind=kind, group=group, gather=gather)
    expected = np.zeros((7, 5)), np.zeros_like(x), np.zeros_like(key), np.zeros_like(value)
    for row in range(7):
        best = (key @ x[row]).reshape(-1, group).max(axis=1)
        own = np.concatenate([np.arange(group) + group * e for e in np.argsort(best)[-(k // group) :]])
        out, cache = pattention.pattention_forward(x[row], key[own], value[own], kind)
        dx, dkey, dvalue = pattention.pattention_backward(dout[row], cache)
        expected[0][row], expected[1][row] = out, dx
        expected[2][own] += dkey
        expected[3][own] += dvalue
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() < 1e-12


@every_kind
@pytest.mark.parametrize("group", [1, 3])
def test_all_of_n_is_pattention_bit_for_bit(kind, group, rng):
    x, key, value = layer(rng, shape=(2, 4))
    dout = rng.standard_normal((2, 4, 5))
    out, cache = pattention.pattention_forward(x, key, value, kind)
    dense = out, *pattention.pattention_backward(dout, cache)
    found = forward_and_backward(x, key, value, dout, 12, kind=kind, group=group)
    assert all(np.array_equal(a, b) for a, b in zip(found, dense, strict=True))


def test_it_is_a_masked_pattention_with_the_tau_of_k(rng):
    """As the release masks; softmax is another matter, since there a masked token keeps exp(0)."""
    x, key, value = layer(rng)
    mask = top_k.choose(x @ key.T, 4)
    masked, _ = pattention.pattention_forward(x, key, value, tau=2.0, mask=mask)
    assert helpers.relative_error(top_k.top_k_pattention_forward(x, key, value, 4)[0], masked) < 1e-13


@both_ways
def test_a_token_that_nobody_chose_does_not_act_and_does_not_learn(gather, rng):
    x, key, value = layer(rng, n=40)
    dout = rng.standard_normal((7, 5))
    out, _, dkey, dvalue = forward_and_backward(x, key, value, dout, 2, gather=gather)
    idle = ~top_k.choose(x @ key.T, 2).any(axis=0)
    assert 40 - 14 <= idle.sum() < 40
    assert not dkey[idle].any() and not dvalue[idle].any()
    assert dkey[~idle].any(axis=1).all() and dvalue[~idle].any(axis=1).all()
    value[idle] = 1e6
    assert np.array_equal(top_k.top_k_pattention_forward(x, key, value, 2, gather=gather)[0], out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "group"), [(1, 1), (5, 1), (12, 1), (6, 2), (8, 4)], ids=str)
def test_both_ways_to_multiply_are_one_function(dtype, k, group, rng):
    x, key, value = (array.astype(dtype) for array in layer(rng, shape=(3, 5)))
    dout = rng.standard_normal((3, 5, 5)).astype(dtype)
    ways = [forward_and_backward(x, key, value, dout, k, group=group, gather=way) for way in (False, True)]
    for a, b in zip(*ways, strict=True):
        assert a.dtype == b.dtype == dtype
        assert np.abs(a - b).max() < 50 * np.finfo(dtype).eps * max(np.abs(b).max(), 1)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 2)], ids=str)
def test_leading_dimensions_are_only_rows(shape, rng):
    x, key, value = layer(rng, shape=shape)
    dout = rng.standard_normal((*shape, 5))
    flat = forward_and_backward(x.reshape(-1, 6), key, value, dout.reshape(-1, 5), 4)
    found = forward_and_backward(x, key, value, dout, 4)
    assert [a.shape for a in found] == [(*shape, 5), x.shape, key.shape, value.shape]
    assert all(np.array_equal(a.ravel(), b.ravel()) for a, b in zip(found, flat, strict=True))


# ------------------------------------------------------------------------------------------- edges of choosing


def test_ties_go_to_the_earlier_tokens_in_every_dtype_and_layout():
    scores = np.array([[1.0, 2, 2, 2, 0], [0, 0, 0, 0, 0], [3, 3, 1, 3, 3]])
    expected = [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        for array in (scores.astype(dtype), np.asfortranarray(scores.astype(dtype))):
            assert top_k.choose(array, 2).astype(int).tolist() == expected


def test_exactly_k_are_chosen_and_none_scores_less_than_one_left_out(rng):
    scores = rng.integers(0, 6, (50, 20)).astype(float)  # many ties
    for k in range(1, 21):
        used = top_k.choose(scores, k)
        assert (used.sum(axis=1) == k).all()
        if k < 20:
            lowest = np.where(used, scores, np.inf).min(axis=1)
            assert (lowest >= np.where(used, -np.inf, scores).max(axis=1)).all()


def test_a_row_of_zeros_is_zero_and_one_of_nan_is_seen(rng):
    x, key, value = layer(rng)
    x[2], x[4] = 0, np.nan
    out, dx, _, _ = forward_and_backward(x, key, value, np.ones((7, 5)), 3)
    assert not out[2].any() and not dx[2].any()
    assert np.isnan(out[4]).all()
    assert np.isfinite(np.delete(out, 4, axis=0)).all()


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "softmax", "l1_norm_gelu", "gelu_l2_norm"])
def test_one_token_behind_a_norm_teaches_its_key_nothing(kind, rng):
    x, key, value = layer(rng)
    _, dx, dkey, dvalue = forward_and_backward(x, key, value, np.ones((7, 5)), 1, kind=kind)
    assert np.abs(dx).max() < 1e-13 and np.abs(dkey).max() < 1e-13 and dvalue.any()
    _, dx, dkey, _ = forward_and_backward(x, key, value, np.ones((7, 5)), 1, kind="gelu")
    assert dx.any() and dkey.any()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 0}, ValueError, "k is 0: it must be at least 1 and at most 12"),
        ({"k": 13}, ValueError, "k is 13: it must be at least 1 and at most 12"),
        ({"k": 2.0}, TypeError, "k is 2.0: pass an integer"),
        ({"group": 0}, ValueError, "group is 0"),
        ({"group": 2}, ValueError, "group is 2: it must divide k, 3, and the number of tokens, 12"),
        ({"k": 10, "group": 5}, ValueError, "group is 5: it must divide k, 10"),
        ({"key": np.ones((12, 5))}, ValueError, "key has 5 columns but x has 6: did you pass value"),
        ({"value": np.ones((11, 5))}, ValueError, "key has 12 tokens .rows. but value has 11"),
        ({"key": np.ones(6)}, ValueError, "one row per parameter token"),
        ({"gather": None}, TypeError, "gather is None: choose True or False"),
        ({"kind": "relu"}, ValueError, "theta 'relu' is unknown"),
        ({"x": np.ones((7, 6), np.float32)}, TypeError, "convert them to one dtype"),
    ],
    ids=str,
)
def test_what_cannot_be_says_why(changes, error, message, rng):
    x, key, value = layer(rng)
    with pytest.raises(error, match=message):
        top_k.top_k_pattention_forward(**{"x": x, "key": key, "value": value, "k": 3} | changes)


def test_the_gradient_of_the_output_must_fit(rng):
    _, cache = top_k.top_k_pattention_forward(*layer(rng), k=3)
    with pytest.raises(ValueError, match="dout has shape"):
        top_k.top_k_pattention_backward(np.ones((7, 6)), cache)


# ----------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize("approximate", helpers.GELUS)
@every_kind
@both_ways
@pytest.mark.parametrize(("k", "group", "tau"), [(2, 1, None), (5, 1, 1.7), (6, 3, None)], ids=str)
def test_torch_agrees(approximate, kind, gather, k, group, tau, rng):
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("minitf.oracle")
    arrays, dout = layer(rng, shape=(2, 4)), rng.standard_normal((2, 4, 5))
    options = {"kind": kind, "tau": tau, "approximate": approximate, "group": group}
    found = forward_and_backward(*arrays, dout, k, gather=gather, **options)
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    out = oracle.top_k_pattention(*tensors, k, **options)
    out.backward(torch.tensor(dout))
    for a, b in zip(found, [out.detach(), *(tensor.grad for tensor in tensors)], strict=True):
        assert helpers.relative_error(a, b.numpy()) < 1e-10


@pytest.mark.parametrize("name", ["tokenformer top-k", "tokenformer top-k in groups"])
def test_torch_agrees_on_whole_models(name):
    oracle = pytest.importorskip("minitf.oracle")
    config = helpers.CONFIGS[name]
    params, batch = helpers.random_params(config), helpers.random_batch(config)
    loss, grads = model.loss_and_grads(params, *batch[:2], config, batch[2])
    expected, expected_grads = oracle.loss_and_grads(params, *batch[:2], config, batch[2])
    assert abs(loss - expected) < 1e-10
    assert helpers.tree_error(grads, expected_grads)[0] < 1e-10


# ------------------------------------------------------------------------------------------------------ costs


@pytest.mark.parametrize(("k", "group"), [(2, 1), (12, 1), (6, 3)], ids=str)
def test_a_layer_runs_the_flops_of_its_formula(k, group, rng):
    x, key, value = layer(rng, n=12, d_in=6, d_out=5, shape=(7,))
    dense = 2 * 12 * (6 + 5)
    for gather, forward, backward in (
        (True, 2 * 12 * 6 + 2 * k * 5, 4 * k * (6 + 5)),
        (False, dense, 2 * dense),
    ):
        counter = cost.FlopCounter()
        arrays = [counter.wrap(array) for array in (x, key, value)]
        out, cache = top_k.top_k_pattention_forward(*arrays, k, group=group, gather=gather)
        assert counter.flops == 7 * forward
        top_k.top_k_pattention_backward(np.ones_like(out), cache)
        assert counter.flops == 7 * (forward + backward)


@pytest.mark.parametrize("name", ["tokenformer top-k", "tokenformer top-k in groups"])
def test_a_model_runs_the_flops_of_its_formula(name, monkeypatch):
    gathering = partial(top_k.top_k_pattention_forward, gather=True)
    monkeypatch.setattr(model, "top_k_pattention_forward", gathering)
    config = helpers.CONFIGS[name]
    counter = cost.FlopCounter()
    params = tree_map(counter.wrap, helpers.random_params(config))
    ids, targets, _ = helpers.random_batch(config, batch=3, length=5)
    model.forward(params, ids, config)
    assert counter.flops == 3 * cost.forward_flops(config, 5)
    counter.flops = 0
    model.loss_and_grads(params, ids, targets, config)
    assert counter.flops == 3 * cost.training_flops(config, 5)


def test_choosing_all_costs_what_pattention_costs_and_parameters_do_not_depend_on_k():
    dense = helpers.tokenformer()
    for k in (1, 7):
        sparse = replace(dense, ffn_top_k=k)
        assert cost.count_parameters(sparse) == cost.count_parameters(dense)
        saved = cost.training_flops(dense, 8) - cost.training_flops(sparse, 8)
        assert saved == 2 * 10 * (7 - k) * 8 * 8  # layers, 10 (n - k) d T


def test_n_tokens_of_which_k_are_used_cost_a_dense_layer_of_a_sixth_n_and_five_sixths_k():
    sizes = {"n_layers": 1, "d_model": 8}
    sparse, dense = (helpers.tokenformer(**sizes, **own) for own in (EXAMPLE, {"ffn_tokens": 56}))
    assert cost.training_flops(sparse, 8) == cost.training_flops(dense, 8)


EXAMPLE = {"ffn_tokens": 256, "ffn_top_k": 16}


# ----------------------------------------------------------------------------------------- the rest of the house


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ffn_top_k": 8}, "ffn_top_k is 8: it must be at least 1 and at most 7"),
        ({"ffn_top_k": 0}, "ffn_top_k is 0: it must be a positive integer"),
        ({"ffn_top_k": 2.0}, "ffn_top_k is 2.0"),
        ({"ffn_group": 2}, "ffn_group is 2 without ffn_top_k"),
        (
            {"ffn_top_k": 4, "ffn_group": 2},
            "ffn_group is 2: it must divide ffn_top_k, 4, and the number of tokens, 7",
        ),
    ],
    ids=str,
)
def test_a_config_that_makes_no_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        helpers.tokenformer(**changes)


def test_tau_at_birth_is_the_root_of_the_tokens_that_a_row_uses():
    config = helpers.tokenformer(ffn_tokens=36, ffn_top_k=4)
    assert config.tau("ffn") == 2 and config.tokens("ffn") == 36 and config.used_tokens("ffn") == 4
    assert replace(config, ffn_tau=3.0).tau("ffn") == 3


def test_names_and_files_of_before_are_those_of_the_default(tmp_path):
    dense, sparse = helpers.tokenformer(), helpers.tokenformer(ffn_top_k=3)
    assert "ffn_top_k" not in repr(dense) and "ffn_top_k=3" in repr(sparse)
    assert "norm_eps=1e-05)" in repr(dense)
    assert not {"ffn_top_k", "ffn_group"} & model.config_fields(dense).keys()
    assert model.config_fields(sparse)["ffn_top_k"] == 3
    for name, config in (("dense", dense), ("sparse", sparse)):
        checkpoint.save(tmp_path / name, model.init_params(config), config)
        assert (b"ffn_top_k" in (tmp_path / name).read_bytes()) == (config is sparse)
        assert checkpoint.load(tmp_path / name)[1] == config
    stages = [Stage(5, 1e-3, config=tokenformer(8, d_model=20, **own)) for own in ({}, {"ffn_top_k": 4})]
    assert "ffn_top_k" not in stages[0].to_json()["config"]
    assert stages[0].key() != stages[1].key()


def test_experts_of_one_token_grow_by_random_keys_alone():
    config = helpers.tokenformer(ffn_top_k=3)
    params = helpers.random_params(config)
    for key in ("zero", "copy"):
        with pytest.raises(ValueError, match="grow ffn_tokens with key='normal'"):
            growth.grow(params, config, ffn_tokens=9, key=key)
    grown, new = growth.grow(params, config, ffn_tokens=9, key="normal")
    assert (new.ffn_tokens, new.ffn_top_k, new.tau("ffn")) == (9, 3, config.tau("ffn"))
    assert growth.anneal_tau(new, 1.0).tau("ffn") == config.tau("ffn")  # √k already
    ids = helpers.random_batch(config)[0]
    model.forward(grown, ids, new)
    wider, new = growth.grow(params, config, attention_tokens=9)  # exact, as ever
    assert np.abs(model.forward(wider, ids, new)[0] - model.forward(params, ids, config)[0]).max() < 1e-12


def test_the_release_has_no_layout_for_it():
    config = helpers.tokenformer(ffn_top_k=3, theta="l2_norm_gelu", tied=True)
    with pytest.raises(CheckpointError, match="ffn_top_k is 3 and the release always computes None"):
        to_official(helpers.random_params(config), config)


def test_a_layer_with_a_mask_is_refused():
    config = helpers.tokenformer(ffn_top_k=3)
    own = model.init_params(config, dtype=np.float64)["block_0"]["ffn"]
    with pytest.raises(ValueError, match="a mask must say alone"):
        model.layer_forward(np.ones((2, 8)), own | {"mask": np.ones((2, 7), bool)}, config, "ffn")


def test_training_moves_only_tokens_that_were_chosen_but_for_weight_decay():
    config = helpers.tokenformer(ffn_tokens=60, ffn_top_k=2)
    params = helpers.random_params(config)
    ids, targets, _ = helpers.random_batch(config)
    grads = dict(tree_items(model.loss_and_grads(params, ids, targets, config)[1]))
    for block in ("block_0", "block_1"):
        rows = grads[f"{block}.ffn.value"].any(axis=1)
        assert 2 <= rows.sum() <= 24  # 12 characters, two tokens each
        assert np.array_equal(grads[f"{block}.ffn.key"].any(axis=1), rows)


def test_up_to_a_third_of_all_tokens_the_largest_weights_are_those_of_the_largest_scores(rng):
    """|GeLU| of a negative number is at most 0.17: a choice by weight differs only where positive scores run out."""
    scores = rng.standard_normal((50, 90))
    weights, _ = pattention.theta_forward(scores)
    assert np.array_equal(top_k.choose(np.abs(weights), 25), top_k.choose(scores, 25))
    assert not np.array_equal(top_k.choose(np.abs(weights), 60), top_k.choose(scores, 60))


# ------------------------------------------------------------------------------------------------ the experiment

TINY = {
    **{"ffn_tokens": 32, "ks": (2, 8), "group": 4, "d_model": 20, "attention_tokens": 8, "steps": 30},
    **{
        "seeds": (0,),
        "lrs": (1e-2,),
        "windows": 8,
        "rounds": 1,
        "repeats": 1,
        "rows": 64,
        "large_tokens": 64,
        "large_width": 8,
    },
}


@pytest.fixture(scope="module")
def script():
    return vars(small_experiment.load("top_k"))


def test_the_experiment_runs_once_and_its_numbers_have_their_direction(script, tmp_path, monkeypatch):
    stem, measure = small_experiment.prepare(script, "top_k", tmp_path, TINY)
    measured = json.loads(measure())
    results = script["Results"](measured)
    arms = measured["arms"]
    assert list(arms) == ["top 2", "top 8", "top 8 in groups of 4", "dense 7", "dense 12", "dense 32"]
    assert (
        arms["top 2"]["flops"]
        == arms["dense 7"]["flops"]
        < arms["top 8"]["flops"]
        < arms["dense 32"]["flops"]
    )
    assert arms["top 8"]["flops"] == arms["top 8 in groups of 4"]["flops"] == arms["dense 12"]["flops"]
    for seed in results("top 2"):
        for name in arms:
            assert 1.5 < results(name)[seed] < 3.8  # better than a guess, no miracle
        for name in ("top 2", "top 8"):
            load = measured["runs"][arms[name]["load"][seed]]
            assert all(
                0 < effective <= used <= 1
                for effective, used in zip(load["effective"], load["used"], strict=True)
            )
            assert all(
                layer == sorted(layer) and layer[-1] == pytest.approx(1, abs=1e-3)
                for layer in load["busiest"]
            )
        assert results.load("top 8", "used")[seed] > results.load("top 2", "used")[seed]
    for size in ("small", "large"):
        assert results.times(size, 8)["0"].keys() == script["WAYS"].keys()
        assert results.times(size, 2)["0"].keys() == script["WAYS"].keys() - {"in groups"}
    assert stem.with_suffix(".png").exists()

    small_experiment.forbid_runs(monkeypatch, Stage, script["Load"], script["Clock"])
    again = json.loads(measure())
    assert (
        again["runs"] == measured["runs"] and again["arms"] == arms and again["clocks"] == measured["clocks"]
    )


def test_the_clock_times_what_computes_the_same_layer(script, rng):
    x, key, value = (array.astype(np.float32) for array in layer(rng, n=32, d_in=8, d_out=8, shape=(128,)))
    dout = rng.standard_normal((128, 8)).astype(np.float32)
    for k in (1, 4, 32):
        expected = forward_and_backward(x, key, value, dout, k)
        for way in script["SAME"].values():
            for a, b in zip(way(x, key, value, dout, k, 4), expected, strict=True):
                assert np.abs(a - b).max() < 1e-4 * max(np.abs(b).max(), 1)
    dense = script["dense"](x, key, value, dout, 32, 4)
    for way in (
        *script["SAME"].values(),
        script["in_groups"],
        script["shared_by_rows"],
    ):  # all of n: all the same
        for a, b in zip(way(x, key, value, dout, 32, 4), dense, strict=True):
            assert np.abs(a - b).max() < 1e-4 * max(np.abs(b).max(), 1)


def test_rows_that_share_a_choice_see_later_characters(script, rng):
    """Why the fastest way is of no use for text."""
    x, key, value = (array.astype(np.float32) for array in layer(rng, n=32, d_in=8, d_out=8, shape=(64,)))
    other = x.copy()
    other[-1] *= 100
    for way, changes in ((script["shared_by_rows"], True), (script["in_groups"], False)):
        first, second = (way(rows, key, value, np.ones_like(x), 4, 4)[0][:-1] for rows in (x, other))
        assert (np.abs(first - second).max() > 1e-3) == changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ks": (16, 4)}, "ascending, below n"),
        ({"ks": (4, 256)}, "ascending, below n"),
        ({"ks": ()}, "ascending, below n"),
        ({"ks": (0, 4)}, "ffn_top_k is 0"),
        ({"group": 3}, "multiples of 64|ffn_group is 3"),
        ({"group": 7, "large_tokens": 2100}, "ffn_group is 7"),
        ({"rows": 100}, "multiples of 64"),
        ({"large_tokens": 64}, "large_tokens is 64"),
        ({"seeds": ()}, "must not be empty"),
        ({"repeats": 0}, "at least 1"),
        ({"steps": 0}, "steps is 0"),
        ({"d_model": 41}, "heads|divide"),
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_is_refused(script, changes, message):
    with pytest.raises(ValueError, match=message):
        script["Plan"](**changes)
