"""Growth: what is exact, what moves, what is dead, and that errors leave the old model alone."""

import math

import helpers
import numpy as np
import pytest

from minitf import growth, model, optim
from minitf.backend import tree_items, tree_map
from minitf.growth import anneal_tau, grow, grow_state, net2net_widen

SIZES = {"attention_tokens": 9, "ffn_tokens": 15}
kinds = pytest.mark.parametrize("kind", helpers.KINDS)
gelu_kinds = pytest.mark.parametrize("kind", ["l2_norm_gelu", "gelu_l2_norm"])
layouts = pytest.mark.parametrize(
    "layout",
    [{}, {"ffn_blocks": 2, "tied": False}, {"parametric_norm": True, "proj_tokens": 6}],
    ids=["plain", "two ffn blocks, untied", "parametric, proj_tokens"],
)


def logits(params, config):
    ids, _, _ = helpers.random_batch(config)
    return model.forward(params, ids, config)[0]


def gradients(params, config):
    return model.loss_and_grads(params, *helpers.random_batch(config)[:2], config)[1]


def new_rows(tree, old_config):
    """{name: the rows that growth appended} of every leaf that grew."""
    old = dict(tree_items(model.parameter_shapes(old_config)))
    return {name: a[old[name][0] :] for name, a in tree_items(tree) if len(a) > old[name][0]}


def moved(before, after):
    """Relative change, L2."""
    return np.linalg.norm(after - before) / np.linalg.norm(before)


# ----------------------------------------------------------------------- what is exact, and what is not


@layouts
@pytest.mark.parametrize("kind", ["l2_norm_gelu", "gelu_l2_norm", "l1_norm_gelu", "gelu"])
def test_zero_keys_with_tau_held_change_no_logit(kind, layout):
    config = helpers.tokenformer(theta=kind, **layout)
    params = helpers.random_params(config)
    grown, new = grow(params, config, **SIZES)
    model.check_params(grown, new)
    assert new_rows(grown, config)
    assert np.abs(logits(grown, new) - logits(params, config)).max() < 1e-12


@gelu_kinds
def test_zero_keys_with_tau_rescaled_move_the_logits_visibly(kind):
    config = helpers.tokenformer(theta=kind)
    params = helpers.random_params(config)
    grown, new = grow(params, config, **SIZES, tau="rescale")
    assert new.tau("attention") == 3.0
    assert new.tau("ffn") == math.sqrt(15)
    assert moved(logits(params, config), logits(grown, new)) > 0.1


@pytest.mark.parametrize("tau", growth.TAUS)
def test_softmax_cannot_be_preserved_by_zero_keys(tau):
    config = helpers.tokenformer(theta="softmax")
    params = helpers.random_params(config)
    grown, new = grow(params, config, **SIZES, tau=tau)
    assert moved(logits(params, config), logits(grown, new)) > 0.01


def test_random_keys_move_the_logits_even_with_tau_held():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    grown, new = grow(params, config, **SIZES, key="normal", key_std=0.4)
    assert moved(logits(params, config), logits(grown, new)) > 0.01


@kinds
@layouts
@pytest.mark.parametrize("factor", [2, 3])
def test_copies_with_halved_values_and_tau_rescaled_are_exact_at_whole_factors(kind, layout, factor):
    config = helpers.tokenformer(theta=kind, **layout)
    params = helpers.random_params(config)
    sizes = {
        "attention_tokens": 5 * factor,
        "ffn_tokens": 7 * factor,
        "proj_tokens": config.proj_tokens and 6 * factor,
    }
    grown, new = grow(params, config, **sizes, key="copy", value="halved", tau="rescale")
    assert np.abs(logits(grown, new) - logits(params, config)).max() < 1e-12


def test_at_a_fractional_factor_copies_are_not_exact():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    grown, new = grow(params, config, **SIZES, key="copy", value="halved", tau="rescale")
    assert moved(logits(params, config), logits(grown, new)) > 1e-3


# ------------------------------------------------------------------------------------ dead and alive


@gelu_kinds
@layouts
def test_zero_keys_with_zero_values_have_exactly_zero_gradients(kind, layout):
    config = helpers.tokenformer(theta=kind, **layout)
    grown, new = grow(helpers.random_params(config), config, **SIZES, proj_tokens=8, key="zero", value="zero")
    found = new_rows(gradients(grown, new), config)
    assert len(found) == config.n_layers * 2 * (4 + config.ffn_blocks)
    assert not [name for name, rows in found.items() if rows.any()]


@gelu_kinds
def test_zero_keys_with_random_values_wake_by_their_keys(kind):
    config = helpers.tokenformer(theta=kind)
    grown, new = grow(helpers.random_params(config), config, **SIZES)
    for name, rows in new_rows(gradients(grown, new), config).items():
        assert rows.any() == name.endswith(".key"), name


def test_dead_tokens_stay_dead_however_long_one_trains_and_living_ones_do_not():
    config = helpers.tokenformer(n_layers=1)
    for value, lives in (("zero", False), ("normal", True)):
        params, new = grow(helpers.random_params(config), config, **SIZES, value=value)
        state = optim.adamw_init(params)
        for _ in range(5):
            params, state = optim.adamw_step(params, gradients(params, new), state, lr=1e-2)
        assert all(rows.any() == lives for rows in new_rows(params, config).values())


# ---------------------------------------------------------------------------------- the rows themselves


def test_old_rows_stay_first_and_bit_identical_and_new_ones_are_what_was_asked_for():
    config = helpers.tokenformer(n_layers=1)
    params = helpers.random_params(config)
    expected = {"zero": 0.0, "normal": 0.3}
    for key, value in (("zero", "normal"), ("normal", "zero"), ("normal", "normal")):
        grown, _ = grow(
            params, config, 2000, 3000, key=key, value=value, key_std=expected[key], value_std=expected[value]
        )
        for name, rows in new_rows(grown, config).items():
            wanted = expected[key if name.endswith(".key") else value]
            assert rows.std() == pytest.approx(wanted, rel=0.03), name
        old = tree_map(lambda p, g: g[: len(p)], params, grown)
        assert helpers.fingerprint(old) == helpers.fingerprint(params)


def test_random_rows_have_the_std_of_the_initialization_unless_told_otherwise():
    config = helpers.tokenformer(n_layers=1)
    grown, _ = grow(helpers.random_params(config), config, 2000, 3000, key="normal", value="normal")
    for name, rows in new_rows(grown, config).items():
        wanted = 0.02 if name.endswith(".key") else 2 / math.sqrt(8)
        assert rows.std() == pytest.approx(wanted, rel=0.03), name


def test_copies_take_the_old_tokens_in_turn_and_share_their_values():
    config = helpers.tokenformer(n_layers=1, attention_tokens=2)
    params = helpers.random_params(config)
    grown, _ = grow(params, config, attention_tokens=5, key="copy", value="halved")
    old, new = (tree["block_0"]["attention"]["query"] for tree in (params, grown))
    assert np.array_equal(new["key"], old["key"][[0, 1, 0, 1, 0]])
    shares = np.array([3, 2, 3, 2, 3])[:, None]
    assert np.array_equal(new["value"], old["value"][[0, 1, 0, 1, 0]] / shares)


def test_a_seed_fixes_the_new_rows_and_layers_differ():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    trees = [grow(params, config, **SIZES, key="normal", seed=seed)[0] for seed in (0, 0, 1)]
    assert helpers.fingerprint(trees[0]) == helpers.fingerprint(trees[1])
    assert helpers.fingerprint(trees[0]) != helpers.fingerprint(trees[2])
    rows = list(new_rows(trees[0], config).values())
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_growth_keeps_the_dtype_and_shares_no_memory_with_the_old_model(dtype):
    config = helpers.tokenformer()
    params = helpers.random_params(config, dtype=dtype)
    before = helpers.fingerprint(params)
    for options in ({}, {"key": "copy", "value": "halved"}):
        grown, _ = grow(params, config, ffn_tokens=9, **options)
        assert {array.dtype for _, array in tree_items(grown)} == {np.dtype(dtype)}
        for _, array in tree_items(grown):
            array += 1
    assert helpers.fingerprint(params) == before


# ------------------------------------------------------------------------------- per kind, and repeated


def test_each_kind_of_layer_grows_by_itself():
    config = helpers.tokenformer(n_layers=1)
    params = helpers.random_params(config)
    qkv = {
        f"block_0.attention.{part}.{leaf}" for part in ("query", "key", "value") for leaf in ("key", "value")
    }
    proj = {f"block_0.attention.proj.{leaf}" for leaf in ("key", "value")}
    ffn = {f"block_0.ffn.{leaf}" for leaf in ("key", "value")}
    for sizes, expected in (
        ({"attention_tokens": 9}, qkv | proj),  # a proj without a size of its own follows
        ({"attention_tokens": 9, "proj_tokens": 5}, qkv),
        ({"proj_tokens": 9}, proj),
        ({"ffn_tokens": 9}, ffn),
        ({}, set()),
    ):
        grown, new = grow(params, config, **sizes)
        assert set(new_rows(grown, config)) == expected
        assert np.abs(logits(grown, new) - logits(params, config)).max() < 1e-12
        assert {part: new.tau(part) for part in model.PARTS} == {
            part: config.tau(part) for part in model.PARTS
        }


def test_growing_again_is_exact_again_and_still_holds_the_first_tau():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    expected = logits(params, config)
    for step in (9, 12, 20):
        params, config = grow(params, config, attention_tokens=step, ffn_tokens=2 * step, seed=step)
        assert np.abs(logits(params, config) - expected).max() < 1e-12
    assert config.tau("attention") == math.sqrt(5)
    assert config.tau("ffn") == math.sqrt(7)


def test_growing_after_annealing_holds_the_annealed_tau():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    params, config = grow(params, config, **SIZES)
    config = anneal_tau(config, 1)
    expected = logits(params, config)
    params, config = grow(params, config, attention_tokens=16)
    assert config.tau("attention") == 3.0
    assert np.abs(logits(params, config) - expected).max() < 1e-12
    assert anneal_tau(config, 1).tau("attention") == 4.0


# -------------------------------------------------------------------------------------------- annealing


def test_annealing_runs_from_the_held_tau_to_the_root_of_n_and_counts_from_the_growth():
    config = helpers.tokenformer(attention_tokens=4, ffn_tokens=9, proj_tokens=16)
    params = helpers.random_params(config)
    grown, held = grow(params, config, attention_tokens=16, ffn_tokens=25, proj_tokens=36)
    start, middle, end = (anneal_tau(held, progress) for progress in (0, 0.5, 1))
    assert [start.tau(part) for part in model.PARTS] == [2, 4, 3]
    assert [middle.tau(part) for part in model.PARTS] == [3, 5, 4]
    assert [end.tau(part) for part in model.PARTS] == [4, 6, 5]
    assert anneal_tau(end, 0) == start  # wherever it was moved to in between
    assert start == held
    assert np.array_equal(logits(grown, start), logits(grown, held))
    _, rescaled = grow(params, config, 16, 25, 36, tau="rescale")
    assert np.array_equal(logits(grown, end), logits(grown, rescaled))


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_annealing_outside_its_course_is_refused(progress):
    _, held = grow(helpers.random_params(helpers.tokenformer()), helpers.tokenformer(), **SIZES)
    with pytest.raises(ValueError, match=r"runs from 0 \(tau as held\) to 1"):
        anneal_tau(held, progress)


@pytest.mark.parametrize("config", [helpers.tokenformer(), helpers.transformer()], ids=["tf", "t"])
def test_annealing_what_never_grew_says_what_to_do_first(config):
    with pytest.raises(ValueError, match="grow with tau='hold' first"):
        anneal_tau(config, 0.5)


# ------------------------------------------------------------------------------------ optimizer state


def trained(config, steps=3):
    params = helpers.random_params(config)
    state = optim.adamw_init(params)
    for _ in range(steps):
        params, state = optim.adamw_step(params, gradients(params, config), state, lr=1e-2)
    return params, state


def test_the_state_grows_along_old_moments_kept_and_new_ones_zero():
    config = helpers.tokenformer()
    params, state = trained(config)
    before = helpers.fingerprint(state["m"], state["v"])
    grown, new = grow(params, config, **SIZES)
    grown_state = grow_state(state, grown)
    assert grown_state["step"] == 3
    for moments in ("m", "v"):
        kept = tree_map(lambda old, moment: moment[: len(old)], state[moments], grown_state[moments])
        assert helpers.fingerprint(kept) == helpers.fingerprint(state[moments])
        assert not [name for name, rows in new_rows(grown_state[moments], config).items() if rows.any()]
    assert helpers.fingerprint(state["m"], state["v"]) == before


def test_training_goes_on_after_growth_and_moves_the_new_tokens():
    config = helpers.tokenformer()
    params, state = trained(config)
    grown, new = grow(params, config, **SIZES)
    state = grow_state(state, grown)
    first = model.loss_and_grads(grown, *helpers.random_batch(new)[:2], new)[0]
    born = tree_map(np.copy, grown)
    for _ in range(10):
        grown, state = optim.adamw_step(grown, gradients(grown, new), state, lr=1e-2)
    assert model.loss_and_grads(grown, *helpers.random_batch(new)[:2], new)[0] < first
    assert state["step"] == 13
    changed = tree_map(lambda a, b: a - b, grown, born)
    assert all(rows.any() for rows in new_rows(changed, config).values())


def test_a_state_does_not_grow_into_a_widened_model():
    config = helpers.transformer()
    params, state = trained(config, steps=1)
    wide, _ = net2net_widen(params, config, d_model=16)
    with pytest.raises(ValueError, match="start the optimizer anew with adamw_init"):
        grow_state(state, wide)


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({"attention_tokens": 4}, {}, "attention_tokens would shrink from 5 to 4"),
        ({"ffn_tokens": 1}, {}, "ffn_tokens would shrink from 7 to 1"),
        ({"proj_tokens": 4}, {}, "proj_tokens would shrink from 5 to 4"),
        ({"ffn_tokens": 0}, {}, "ffn_tokens is 0: it must be a positive integer"),
        ({"ffn_tokens": 9.0}, {}, "ffn_tokens is 9.0: it must be a positive integer"),
        ({}, {"key": "random"}, "key is 'random': choose one of zero, normal, copy"),
        ({}, {"value": "copy"}, "value is 'copy': choose one of normal, zero, halved"),
        ({}, {"tau": 3.0}, "tau is 3.0: choose one of hold, rescale"),
        ({}, {"value": "halved"}, "use it with key='copy'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_growth_that_cannot_be_says_why_and_touches_nothing(sizes, options, message):
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    before = helpers.fingerprint(params)
    with pytest.raises(ValueError, match=message):
        grow(params, config, **({"attention_tokens": 9} | sizes), **options)
    assert helpers.fingerprint(params) == before


def without(tree, name):
    return {key: value for key, value in tree.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: tree_map(lambda p: p.astype(int), tree), "int64.*one floating dtype"),
        (lambda tree: tree | {"norm": tree_map(np.float32, tree["norm"])}, "float32.*one floating dtype"),
        (lambda tree: without(tree, "block_1"), "params lack block_1"),
        (lambda tree: tree | {"block_2": tree["block_0"]}, "params have block_2"),
        (lambda tree: tree | {"unembedding": tree["embedding"]}, "params have unembedding"),
        (lambda tree: tree | {"embedding": {"weight": np.zeros((12, 8))}}, "embedding.weight has shape"),
    ],
    ids=["integers", "mixed dtypes", "missing block", "extra block", "extra leaf", "wrong shape"],
)
@pytest.mark.parametrize("config", [helpers.tokenformer(), helpers.transformer()], ids=["grow", "widen"])
def test_a_tree_that_does_not_fit_is_refused_and_not_touched(config, damage, message):
    params = damage(helpers.random_params(config))
    before = helpers.fingerprint(params)
    with pytest.raises(ValueError, match=message):
        if isinstance(config, model.TokenformerConfig):
            grow(params, config, ffn_tokens=9)
        else:
            net2net_widen(params, config, d_model=16)
    assert helpers.fingerprint(params) == before


def test_each_model_is_sent_to_its_own_way_of_growing():
    tokenformer, transformer = helpers.tokenformer(), helpers.transformer()
    with pytest.raises(TypeError, match="to widen a Transformer, use net2net_widen"):
        grow(helpers.random_params(transformer), transformer, ffn_tokens=9)
    with pytest.raises(TypeError, match="a Tokenformer grows with grow"):
        net2net_widen(helpers.random_params(tokenformer), tokenformer, d_model=16)


# --------------------------------------------------------------------------------------------- net2net

widths = pytest.mark.parametrize(
    ("d_model", "d_ff"),
    [(16, 24), (24, 12), (12, 12), (20, 13), (8, 17), (8, 12)],
    ids=["x2", "x3, ff kept", "x1.5", "x2.5", "ff only", "nothing"],
)
skeletons = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
norms = pytest.mark.parametrize("parametric", [False, True], ids=["plain", "parametric"])


@widths
@skeletons
@norms
def test_widening_a_transformer_changes_no_logit(d_model, d_ff, tied, parametric):
    config = helpers.transformer(tied=tied, parametric_norm=parametric, norm_eps=1e-5)
    params = helpers.random_params(config)
    wide, new = net2net_widen(params, config, d_model=d_model, d_ff=d_ff)
    model.check_params(wide, new)
    assert (new.d_model, new.d_ff, new.head_dim) == (d_model, d_ff, config.head_dim)
    assert np.abs(logits(wide, new) - logits(params, config)).max() < 1e-11


@skeletons
@norms
@pytest.mark.parametrize("d_model", [16, 12])
def test_a_widened_transformer_is_alive_in_every_leaf_and_channel(tied, parametric, d_model):
    config = helpers.transformer(tied=tied, parametric_norm=parametric)
    wide, new = net2net_widen(helpers.random_params(config), config, d_model=d_model, d_ff=20)
    for name, grad in tree_items(gradients(wide, new)):
        rows = np.abs(grad).reshape(len(grad), -1).max(axis=1)
        if name != "embedding.weight":  # rows of tokens that the batch does not hold
            assert (rows > 0).all(), name
        if grad.ndim == 2:
            assert (np.abs(grad).max(axis=0) > 0).all(), name


@pytest.mark.parametrize("seed", range(3))
def test_copies_go_different_ways_after_a_step(seed):
    config = helpers.transformer()
    wide, new = net2net_widen(helpers.random_params(config), config, d_model=16, d_ff=24, seed=seed)
    down = wide["block_0"]["ffn"]["down"]["weight"]
    assert np.array_equal(down[:, :12], down[:, 12:])  # copied units write the same at birth
    state = optim.adamw_init(wide)
    for _ in range(2):
        wide, state = optim.adamw_step(wide, gradients(wide, new), state, lr=1e-2)
    for name in ("up", "down"):
        weight = wide["block_0"]["ffn"][name]["weight"]
        first, copy = (weight[:12], weight[12:]) if name == "up" else (weight[:, :12], weight[:, 12:])
        assert np.abs(first - copy).max() > 1e-6, name  # rounding would be 1e-16


def test_copied_heads_and_units_differ_at_birth_only_where_they_see_nothing():
    config = helpers.transformer()
    wide, new = net2net_widen(helpers.random_params(config), config, d_model=16, d_ff=24)
    for matrix in (wide["block_0"]["attention"]["query"]["weight"], wide["block_0"]["ffn"]["up"]["weight"]):
        first, copy = np.split(matrix, 2)
        seen = np.tile(np.eye(8), (2, 1))  # every channel twice: all that the old function can tell apart
        assert np.abs(first - copy).max() > 1e-3
        assert np.abs((first - copy) @ seen).max() < 1e-14


def test_a_fractional_width_unties_the_embedding_and_a_whole_one_keeps_it():
    config = helpers.transformer()
    params = helpers.random_params(config)
    assert net2net_widen(params, config, d_model=16)[1].tied
    assert not net2net_widen(params, config, d_model=12)[1].tied


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_model": 4}, "d_model 8 to 4.*growth does not shrink"),
        ({"d_ff": 11}, "d_ff 12 to 11.*growth does not shrink"),
        ({"d_model": 10}, "d_model=10 is not a multiple of the head width 4"),
    ],
    ids=str,
)
def test_a_width_that_cannot_be_says_why_and_touches_nothing(sizes, message):
    config = helpers.transformer()
    params = helpers.random_params(config)
    before = helpers.fingerprint(params)
    with pytest.raises(ValueError, match=message):
        net2net_widen(params, config, **sizes)
    assert helpers.fingerprint(params) == before


def test_widening_keeps_dtype_and_the_old_params():
    config = helpers.transformer(parametric_norm=True)
    params = helpers.random_params(config, dtype=np.float32)
    before = helpers.fingerprint(params)
    wide, _ = net2net_widen(params, config, d_model=8, d_ff=12)  # nothing wider: still a copy
    for _, array in tree_items(wide):
        assert array.dtype == np.float32
        array += 1
    assert helpers.fingerprint(params) == before
