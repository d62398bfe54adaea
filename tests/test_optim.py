"""AdamW, clipping and the schedule by hand-made cases; `test_parity_torch` compares fifty steps with torch."""

import itertools
import math

import helpers
import numpy as np
import pytest

from minitf.optim import adamw_init, adamw_step, clip_by_global_norm, warmup_cosine


def tree(scale=1.0):
    rng = np.random.default_rng(0)
    return {"matrix": scale * rng.standard_normal((3, 2)), "norm": {"weight": scale * rng.standard_normal(3)}}


def test_the_first_step_moves_every_entry_by_the_learning_rate_against_its_gradients_sign():
    params, grads = tree(), tree(5.0)
    before = {"matrix": params["matrix"].copy(), "norm": {"weight": params["norm"]["weight"].copy()}}
    params, state = adamw_step(params, grads, adamw_init(params), lr=0.1, weight_decay=0.0)
    assert np.allclose(params["matrix"], before["matrix"] - 0.1 * np.sign(grads["matrix"]))
    assert state["step"] == 1


def test_two_steps_are_the_published_recurrence():
    p, g1, g2 = 2.0, 0.5, -1.5
    params = {"p": np.array([[p]])}
    state = adamw_init(params)
    for g in (g1, g2):
        params, state = adamw_step(
            params, {"p": np.array([[g]])}, state, 0.1, betas=(0.8, 0.9), eps=0.01, weight_decay=0.5
        )
    m = v = 0.0
    for t, g in enumerate((g1, g2), start=1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        p = p * (1 - 0.1 * 0.5) - 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 0.01)
    assert params["p"][0, 0] == pytest.approx(p, rel=1e-14)


def test_only_matrices_decay():
    params, zeros = tree(), tree(0.0)
    before = tree()
    params, _ = adamw_step(params, zeros, adamw_init(params), lr=0.1, weight_decay=0.5)
    assert np.allclose(params["matrix"], 0.95 * before["matrix"])
    assert np.array_equal(params["norm"]["weight"], before["norm"]["weight"])


def test_the_gradients_are_not_touched_and_single_precision_stays():
    params = {"p": np.ones((2, 2), np.float32)}
    grads = {"p": np.full((2, 2), 0.3, np.float32)}
    before = helpers.fingerprint(grads)
    params, state = adamw_step(params, grads, adamw_init(params), lr=0.1)
    assert helpers.fingerprint(grads) == before
    assert params["p"].dtype == state["m"]["p"].dtype == state["v"]["p"].dtype == np.float32


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda grads: {"matrix": grads["matrix"]}, "the trees differ"),
        (lambda grads: grads | {"extra": np.zeros(2)}, "the trees differ"),
        (lambda grads: grads | {"norm": grads["matrix"]}, "the trees differ"),
        (lambda grads: grads | {"norm": {"weight": np.zeros(4)}}, r"param \(3,\), grad \(4,\).*grow_state"),
    ],
    ids=["missing", "extra", "leaf for a branch", "other shape"],
)
def test_gradients_of_another_tree_are_refused_before_anything_moves(damage, message):
    params = tree()
    state = adamw_init(params)
    before = helpers.fingerprint(params, state["m"], state["v"])
    with pytest.raises(ValueError, match=message):
        adamw_step(params, damage(tree()), state, lr=0.1)
    assert helpers.fingerprint(params, state["m"], state["v"]) == before


def test_a_state_that_did_not_grow_along_is_refused_with_the_way_out():
    params = {"key": np.zeros((4, 2))}
    with pytest.raises(ValueError, match="grow_state"):
        adamw_step(params, params, adamw_init({"key": np.zeros((3, 2))}), lr=0.1)


# --------------------------------------------------------------------------------------------- clipping


def test_gradients_above_the_limit_are_scaled_to_it_together():
    grads = {"a": np.array([3.0, 0.0]), "b": {"c": np.array([[4.0]])}}
    before = helpers.fingerprint(grads)
    clipped, norm = clip_by_global_norm(grads, 2.5)
    assert norm == 5.0
    assert np.allclose(clipped["a"], [1.5, 0.0])
    assert np.allclose(clipped["b"]["c"], 2.0)
    assert helpers.fingerprint(grads) == before


def test_gradients_below_the_limit_are_not_changed():
    grads = {"a": np.array([3.0]), "b": np.array([4.0])}
    clipped, norm = clip_by_global_norm(grads, 5.1)
    assert helpers.fingerprint(clipped) == helpers.fingerprint(grads)
    assert norm == 5.0


def test_zero_gradients_are_clipped_to_zero_and_dtype_stays():
    clipped, norm = clip_by_global_norm({"a": np.zeros(3, np.float32)}, 1.0)
    assert norm == 0
    assert clipped["a"].dtype == np.float32
    assert not clipped["a"].any()


@pytest.mark.parametrize("max_norm", [0.0, -1.0])
def test_a_limit_that_is_not_positive_is_refused(max_norm):
    with pytest.raises(ValueError, match="max_norm is .* must be positive"):
        clip_by_global_norm(tree(), max_norm)


# --------------------------------------------------------------------------------------------- schedule


def test_the_schedule_warms_up_linearly_and_falls_as_a_cosine():
    lr = [warmup_cosine(step, peak=1.0, floor=0.2, warmup=10, total=110) for step in range(130)]
    assert lr[0] == 0.0
    assert lr[5] == pytest.approx(0.5)
    assert lr[10] == 1.0
    assert lr[35] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert lr[60] == pytest.approx(0.6)
    assert lr[110:] == [pytest.approx(0.2)] * 20
    assert max(lr) == lr[10]
    assert all(a >= b for a, b in itertools.pairwise(lr[10:]))


@pytest.mark.parametrize(("warmup", "total"), [(0, 5), (5, 5), (0, 0)])
def test_a_schedule_may_be_all_warm_up_or_have_none(warmup, total):
    lr = [warmup_cosine(step, 1.0, 0.1, warmup, total) for step in range(8)]
    assert all(0 <= x <= 1 for x in lr)
    assert lr[warmup] == 1.0


@pytest.mark.parametrize(("warmup", "total"), [(6, 5), (-1, 5)])
def test_a_warm_up_outside_the_run_is_refused(warmup, total):
    with pytest.raises(ValueError, match=f"warmup {warmup} must lie between 0 and total {total}"):
        warmup_cosine(0, 1.0, 0.1, warmup, total)
