"""Prefixes of a set of tokens, and a device that asks a cloud: exactness, gradients, bad input, the experiment."""

import json
from pathlib import Path

import fake_cupy
import helpers
import numpy as np
import pytest
import small_experiment

from minitf import forward, growth, kernels, model, nested, optim, pattention
from minitf.backend import to_device, to_host, tree_items, tree_map
from minitf.cost import FlopCounter, forward_flops
from minitf.laboratory import asking, do_run, tokenformer
from minitf.laboratory.borrowed_memory import forward_on_memory
from minitf.laboratory.prefixes import PrefixRun, by_importance

FIGURES = Path(__file__).parents[1] / "figures"
TOKENS = 5  # of ten
CONFIGS = {
    "plain": helpers.NESTED_CONFIG,
    "taus, proj, two blocks, untied": helpers.tokenformer(
        attention_tokens=10,
        proj_tokens=12,
        ffn_tokens=20,
        ffn_blocks=2,
        attention_tau=1.5,
        ffn_tau=3.0,
        tied=False,
        parametric_norm=True,
    ),
    **{
        kind: helpers.tokenformer(attention_tokens=10, ffn_tokens=20, theta=kind, n_layers=1)
        for kind in pattention.KINDS
        if kind != "softmax"  # counts a score of 0, and a mask leaves one
    },
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def small(config, dtype=np.float64):
    ids, targets, mask = helpers.random_batch(config)
    return helpers.random_params(config, dtype=dtype), ids, targets, mask


# ---------------------------------------------------------------------------------------------- prefixes


@configs
def test_a_prefix_is_a_model_whose_arrays_are_views(config):
    params, ids, *_ = small(config)
    cut, cut_config = nested.prefix(params, config, TOKENS)
    assert (cut_config.attention_tokens, cut_config.ffn_tokens) == (5, 10)
    assert [cut_config.tau(part) for part in ("attention", "ffn")] == [5**0.5, 10**0.5]
    assert cut_config.tokens("proj") == config.tokens("proj") // 2
    model.check_params(cut, cut_config)
    for name, array in tree_items(cut):
        assert np.shares_memory(array, dict(tree_items(params))[name]), name
    held = nested.prefix(params, config, TOKENS, tau="hold")[1]
    assert [held.tau(part) for part in model.PARTS] == [config.tau(part) for part in model.PARTS]
    assert forward(cut, ids, cut_config)[0].shape == (*ids.shape, config.vocab_size)


@configs
def test_the_whole_prefix_is_the_model(config):
    params, ids, targets, mask = small(config)
    whole = nested.prefix(params, config, config.attention_tokens, tau="hold")
    assert np.array_equal(forward(whole[0], ids, whole[1])[0], forward(params, ids, config)[0])
    assert nested.prefix(*whole, 10)[1].tau("attention") == 10**0.5


def test_growing_with_tau_held_and_cutting_again_gives_the_old_model_back():
    params, ids, *_ = small(helpers.NESTED_CONFIG)
    grown = growth.grow(params, helpers.NESTED_CONFIG, attention_tokens=20, ffn_tokens=40)
    old, config = nested.prefix(*grown, 10, tau="hold")
    assert helpers.fingerprint(old) == helpers.fingerprint(params)
    assert np.array_equal(forward(old, ids, config)[0], forward(params, ids, helpers.NESTED_CONFIG)[0])


@configs
def test_a_prefix_is_the_whole_model_under_a_mask(config, monkeypatch):
    """Loss and every gradient: those of training all tokens with the scores of the dropped ones times zero."""
    params, ids, targets, mask = small(config)
    loss, grads = nested.nested_loss_and_grads(params, ids, targets, config, TOKENS, mask)
    plain = pattention.pattention_forward
    cut_config = nested.prefix(params, config, TOKENS)[1]

    def masked(x, key, value, kind, tau, **options):
        del options["mask"]  # there is none in this model
        keep = np.arange(len(key)) < len(key) // 2
        return plain(x, key, value, kind, tau, mask=keep, **options)

    class Taus:
        """The config of the whole, with the taus of the prefix."""

        def __getattr__(self, name):
            return cut_config.tau if name == "tau" else getattr(config, name)

    layer = model.layer_forward

    def with_tau(x, leaf, _, part):
        return layer(x, leaf, Taus(), part)

    monkeypatch.setattr(model, "pattention_forward", masked)
    monkeypatch.setattr(model, "layer_forward", with_tau)
    expected_loss, expected = model.loss_and_grads(params, ids, targets, config, mask)
    assert loss == pytest.approx(float(expected_loss), rel=1e-13)
    error, name = helpers.tree_error(grads, expected)
    assert error < 1e-12, name


@configs
def test_dropped_tokens_get_gradients_of_exactly_zero_and_cost_nothing(config):
    params, ids, targets, _ = small(config)
    _, grads = nested.nested_loss_and_grads(params, ids, targets, config, TOKENS)
    assert tree_map(np.shape, grads) == tree_map(np.shape, params)
    for name, grad in tree_items(grads):
        if model.part_of(name):
            half = len(grad) // 2
            assert grad[:half].any() and not grad[half:].any(), name
    counter, cut = FlopCounter(), nested.prefix(params, config, TOKENS)
    nested.nested_loss_and_grads(tree_map(counter.wrap, params), ids, targets, config, TOKENS)
    alone = FlopCounter()
    model.loss_and_grads(tree_map(alone.wrap, cut[0]), ids, targets, cut[1])
    assert counter.flops == alone.flops > 0


@configs
def test_gradients_are_slopes(config):
    assert helpers.nested_gradient_error(config) < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-4)])
@configs
def test_gradients_are_those_of_autograd_through_the_slices(config, dtype, tolerance):
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("minitf.oracle")
    params, ids, targets, mask = small(config, dtype)
    loss, grads = nested.nested_loss_and_grads(params, ids, targets, config, TOKENS, mask)
    tensors = oracle.to_torch(params)
    cut = {name: t if not model.part_of(name) else t[: len(t) // 2] for name, t in tree_items(tensors)}
    cut = nested.tree_from_items(cut.items())
    expected = oracle.loss(
        cut,
        torch.tensor(ids),
        torch.tensor(targets),
        nested.prefix(params, config, TOKENS)[1],
        torch.tensor(mask),
    )
    expected.backward()
    assert abs(float(loss) - expected.item()) < tolerance * expected.item()
    error, name = helpers.tree_error(grads, tree_map(lambda t: t.grad.numpy(), tensors))
    assert error < tolerance, name


def test_adamw_moves_dropped_tokens_by_momentum_and_decay_alone():
    """What the docstring says of them: left to themselves they shrink, and after a training step they drift."""
    config = helpers.NESTED_CONFIG
    params, ids, targets, _ = small(config)
    name = "block_0.ffn.value"
    before = dict(tree_items(params))[name].copy()
    state = optim.adamw_init(params)
    _, grads = nested.nested_loss_and_grads(params, ids, targets, config, TOKENS)
    params, state = optim.adamw_step(params, grads, state, 0.1, weight_decay=0.5)
    after = dict(tree_items(params))[name].copy()
    assert np.allclose(after[10:], before[10:] * (1 - 0.1 * 0.5), rtol=1e-14)
    assert not np.allclose(after[:10], before[:10] * (1 - 0.1 * 0.5), rtol=1e-3)
    _, grads = nested.nested_loss_and_grads(
        params, ids, targets, config, 1
    )  # two of the four are dropped now
    params, _ = optim.adamw_step(params, grads, state, 0.1, weight_decay=0.0)
    moved = np.abs(dict(tree_items(params))[name] - after)
    assert (moved[2:10] > 1e-3).all() and not moved[10:].any()


def test_single_precision_through_the_twins_gives_what_the_formulas_give():
    params, ids, targets, mask = small(helpers.NESTED_CONFIG, np.float32)
    arguments = (params, ids, targets, helpers.NESTED_CONFIG, TOKENS, mask)
    loss, grads = nested.nested_loss_and_grads(*arguments)
    with kernels.resting():
        expected_loss, expected = nested.nested_loss_and_grads(*arguments)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    error, leaf = helpers.tree_error(grads, expected)
    assert error < 1e-4, leaf


def test_on_a_gpu_nothing_comes_to_the_host():
    config = helpers.NESTED_CONFIG
    params, ids, targets, mask = small(config)
    loss, expected = nested.nested_loss_and_grads(params, ids, targets, config, TOKENS, mask)
    asked = np.arange(ids.size).reshape(ids.shape) % 3 == 0
    cut = nested.prefix(params, config, TOKENS)
    logits = forward_on_memory(params, config, *cut, ids, asked)
    with fake_cupy.installed():
        device, *batch = (
            to_device({"params": params}, "cuda").values(),
            *map(fake_cupy.asarray, (ids, targets, mask)),
        )
        (device,) = device
        found, grads = nested.nested_loss_and_grads(device, *batch[:2], config, TOKENS, batch[2])
        assert all(isinstance(grad, fake_cupy.ndarray) for _, grad in tree_items(grads))
        assert helpers.fingerprint(to_host(grads)) == helpers.fingerprint(expected)
        assert float(found) == float(loss)
        there = forward_on_memory(
            device, config, *nested.prefix(device, config, TOKENS), batch[0], fake_cupy.asarray(asked)
        )
        assert np.array_equal(to_host(there), logits)
        with pytest.raises(TypeError, match="did you call to_device"):
            nested.prefix_backward(grads, params)


PARAMS, IDS, TARGETS, _ = small(helpers.NESTED_CONFIG)
ERRORS = {
    "a Transformer": (
        lambda: nested.prefix(PARAMS, helpers.transformer(), 2),
        TypeError,
        "config of a Tokenformer",
    ),
    "no token": (lambda: nested.prefix(PARAMS, helpers.NESTED_CONFIG, 0), ValueError, "tokens is 0"),
    "more than there are": (
        lambda: nested.prefix(PARAMS, helpers.NESTED_CONFIG, 11),
        ValueError,
        "at most 10",
    ),
    "half a token": (lambda: nested.prefix(PARAMS, helpers.NESTED_CONFIG, 1.5), TypeError, "tokens is 1.5"),
    "a share that does not divide": (
        lambda: nested.prefix(helpers.random_params(helpers.tokenformer()), helpers.tokenformer(), 2),
        ValueError,
        "no whole number of the 7 in ffn",
    ),
    "tau": (lambda: nested.prefix(PARAMS, helpers.NESTED_CONFIG, 2, tau="keep"), ValueError, "tau is 'keep'"),
    "other params": (
        lambda: nested.prefix(helpers.random_params(helpers.tokenformer()), helpers.NESTED_CONFIG, 2),
        ValueError,
        "params block_0",
    ),
    "gradients that do not fit": (
        lambda: nested.prefix_backward({"a": np.ones((3, 2))}, {"a": np.ones((2, 2))}),
        ValueError,
        "dprefix has a gradient",
    ),
    "gradients of other params": (
        lambda: nested.prefix_backward({"b": np.ones((3, 2))}, {"a": np.ones((2, 2))}),
        ValueError,
        "trees differ",
    ),
    "asked with numbers": (
        lambda: forward_on_memory(*[PARAMS, helpers.NESTED_CONFIG] * 2, IDS, np.ones(IDS.shape)),
        TypeError,
        "asked has dtype",
    ),
    "asked of another shape": (
        lambda: forward_on_memory(*[PARAMS, helpers.NESTED_CONFIG] * 2, IDS, np.ones(3, bool)),
        ValueError,
        "asked has shape",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_mistakes_are_explained(call, error, message):
    before = helpers.fingerprint(PARAMS)
    with pytest.raises(error, match=message):
        call()
    assert helpers.fingerprint(PARAMS) == before


# ------------------------------------------------------------------------------------------------ memory


@configs
def test_borrowed_memory_is_a_kv_cache_of_the_device_and_then_one_step_of_the_whole(config):
    params, ids, *_ = small(config)
    cut = nested.prefix(params, config, TOKENS)
    asked = np.zeros(ids.shape, bool)
    asked[:, 4] = True
    found = forward_on_memory(params, config, *cut, ids, asked)[:, 4]
    _, cache = forward(cut[0], ids[:, :4], cut[1])
    expected, _ = forward(params, ids[:, 4:5], config, past=cache.past)
    assert helpers.relative_error(found, expected[:, 0]) < 1e-13
    assert helpers.relative_error(found, forward(params, ids, config)[0][:, 4]) > 1e-3


@configs
def test_asked_everywhere_there_is_nothing_to_borrow(config):
    params, ids, *_ = small(config)
    cut = nested.prefix(params, config, TOKENS)
    found = forward_on_memory(params, config, *cut, ids, np.ones(ids.shape, bool))
    assert helpers.relative_error(found, forward(params, ids, config)[0]) < 1e-14


# ------------------------------------------------------------------------------------------------ asking


def said(seed, windows=6, length=5, vocab_size=7):
    rng = np.random.default_rng(seed)
    log_probs = asking.log_softmax(2 * rng.standard_normal((windows, length, vocab_size)))
    return asking.Answers(log_probs, rng.integers(0, vocab_size, (windows, length)))


def test_what_is_sent_of_the_text_is_counted_as_a_loop_counts_it():
    asked = np.random.default_rng(0).random((9, 6)) < 0.2
    once = again = 0
    for window in asked:
        known = 0
        for position, question in enumerate(window, start=1):
            if question:
                once += position - known
                again += position
                known = position
    assert asking.text_once(asked) == pytest.approx(once / asked.size)
    assert asking.text_again(asked) == pytest.approx(again / asked.size)
    assert asking.text_once(np.zeros((2, 3), bool)) == 0
    assert asking.text_once(np.ones((2, 3), bool)) == 1


def test_scores_are_what_they_are_called():
    device = said(0)
    probs = np.exp(device.log_probs)
    assert np.allclose(asking.unlikely(device), 1 - probs.max(axis=-1))
    assert np.allclose(asking.entropy(device), -(probs * np.log(probs)).sum(axis=-1))
    assert np.allclose(probs.sum(axis=-1), 1)
    assert np.allclose(device.losses[2, 3], -np.log(probs[2, 3, device.targets[2, 3]]))


def test_a_short_answer_is_a_distribution_that_agrees_with_the_cloud_where_it_speaks():
    device, cloud = said(0), said(1)
    probs = np.exp(asking.patched(device, cloud, 3))
    assert np.allclose(probs.sum(axis=-1), 1)
    order = np.argsort(-cloud.log_probs, axis=-1)
    largest, others = order[..., :3], order[..., 3:]
    assert np.allclose(*(np.take_along_axis(p, largest, -1) for p in (probs, np.exp(cloud.log_probs))))
    ratio = np.take_along_axis(probs / np.exp(device.log_probs), others, -1)
    assert np.allclose(ratio, ratio[..., :1])  # elsewhere it is the device, scaled
    sure = asking.Answers(np.where(np.arange(7) == 2, 0.0, -1000.0) + 0 * cloud.log_probs, cloud.targets)
    assert np.isfinite(asking.patched(device, sure, 3)).all()


def test_expected_gain_learns_a_gain_that_is_there():
    """Where the device's first character is likely, this cloud knows the answer; elsewhere it says the same."""
    device = said(0, windows=400)
    knows = (device.log_probs[..., 0] > np.median(device.log_probs[..., 0]))[..., None]
    truth = np.where(np.arange(7) == device.targets[..., None], 0.9, 0.1 / 6)
    cloud = asking.Answers(np.where(knows, np.log(truth), device.log_probs), device.targets)
    split = asking.report(device, cloud, (device, cloud), (0.25, 0.5, 1.0), 3)
    losses = {name: rows[1]["loss"] for name, rows in split["rules"].items()}
    random = (split["device"]["loss"] + split["cloud"]["loss"]) / 2
    assert losses["oracle"] <= losses["expected gain"] < random - 0.1 * (random - split["cloud"]["loss"])
    for rows in split["rules"].values():
        assert [row["share"] for row in rows] == pytest.approx([0.25, 0.5, 1.0], abs=0.01)
        assert rows[-1]["loss"] == split["cloud"]["loss"] and rows[-1]["right"] == split["cloud"]["right"]
        assert rows[-1]["loss_short"] == split["cloud"]["loss_short"]


# ---------------------------------------------------------------------------------------------- the runs

RUN = PrefixRun(tokenformer(8, 20), (2, 4, 8), 6, 1e-2, measured=(6,), shares=(0.2, 1.0), windows=16)


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    monkeypatch.setattr("minitf.laboratory.prefixes.TUNING_WINDOWS", 16)
    monkeypatch.setattr("minitf.laboratory.prefixes.SCORED_WINDOWS", 4)


def test_the_prefix_of_a_step_depends_on_seed_and_step_alone_and_each_is_as_likely():
    drawn = [RUN.drawn(step) for step in range(600)]
    assert drawn == [RUN.drawn(step) for step in range(600)]
    assert {size: drawn.count(size) for size in (2, 4, 8)} == pytest.approx(
        dict.fromkeys((2, 4, 8), 200), abs=40
    )


def test_the_same_run_gives_the_same_bits_and_counts_what_it_drew():
    (first, params, config), (second, again, _) = do_run(RUN), do_run(RUN)
    assert helpers.fingerprint(params) == helpers.fingerprint(again)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    step_flops = {
        size: 3 * 16 * forward_flops(tokenformer(size, 20), config.context) for size in RUN.prefixes
    }
    assert first["flops"] == pytest.approx(sum(step_flops[RUN.drawn(step)] for step in range(6)), rel=0.05)
    assert set(first["losses"]) == {"2", "4", "6", "8"}
    assert first["heldout"] == pytest.approx(np.mean([first["losses"][n] for n in ("2", "4", "8")]), abs=1e-4)


def test_ordering_tokens_changes_no_output():
    params, config = do_run(RUN)[1:]
    from minitf.laboratory.stage import corpus

    ids = corpus()["train"]
    ordered = by_importance(params, config, ids)
    inputs = ids[:64][None]
    assert (
        helpers.relative_error(forward(ordered, inputs, config)[0], forward(params, inputs, config)[0]) < 1e-5
    )
    name = "block_0.ffn.key"
    rows = {tree: dict(tree_items(each))[name] for tree, each in (("old", params), ("new", ordered))}
    assert not np.array_equal(rows["old"], rows["new"])
    assert np.array_equal(*(np.sort(each, axis=0) for each in rows.values()))


def test_a_key_does_not_change_when_a_config_gets_another_field():
    said = RUN.to_json()
    assert "tied" not in said["config"] and said["config"]["attention_tokens"] == 8
    assert RUN.key() != PrefixRun(**{**vars(RUN), "prefixes": (4, 8)}).key()
    assert RUN.key() != PrefixRun(**{**vars(RUN), "seed": 1}).key()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefixes": (2, 4)}, "the last must be all 8"),
        ({"prefixes": ()}, "the last must be all 8"),
        ({"prefixes": (0, 8)}, "tokens is 0"),
        ({"measured": (9,)}, "at most 8"),
        ({"shares": (0.0,)}, "above 0"),
        ({"kept": 65}, "kept is 65"),
        ({"windows": 0}, "windows is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PrefixRun(**{**vars(RUN), **change})


# ----------------------------------------------------------------------------------------- the experiment


@pytest.fixture
def figure():
    return small_experiment.load("device_cloud")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefixes": (8,)}, "at least two"),
        ({"prefixes": (8, 4)}, "each larger"),
        ({"between": (64,)}, "must lie between"),
        ({"lrs": ()}, "must not be empty"),
        ({"lrs": (-1.0,)}, "peak_lr"),
        ({"seeds": (-1,)}, "seed"),
        ({"shares": (0.2, 0.5)}, "must rise to 1"),
        ({"shares": (0.5, 1.0)}, "have 0.2 among them"),
        ({"d_model": 41}, "do not divide"),
        ({"steps": 0}, "steps is 0"),
        ({"kept": 0}, "kept is 0"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(figure, change, message):
    with pytest.raises(ValueError, match=message):
        figure.Plan(**change)


def test_the_long_runs_cost_what_all_models_of_one_size_cost(figure):
    plan = figure.Plan()
    costs = {n: forward_flops(plan.config(n), 64) for n in plan.prefixes}
    total = plan.steps * sum(costs.values())
    assert plan.long_steps * np.mean(list(costs.values())) == pytest.approx(total)
    assert plan.pair_steps * (costs[4] + costs[32]) == pytest.approx(total, rel=1e-3)


def test_an_unasked_position_costs_the_products_that_its_memory_needs(figure):
    """Counted: one position more in the first layer, and keys and values of the last, after `context` others."""
    config = figure.Plan().config(32)
    d, context = config.d_model, config.context
    first = 4 * d * (4 * config.attention_tokens + config.ffn_tokens) + 4 * d * context
    assert figure.unasked_flops(config) == first + 2 * 4 * d * config.attention_tokens
    costs = figure.costs(figure.Plan())
    page = (FIGURES / "device_cloud.md").read_text(encoding="utf-8")
    for name in ("device_flops", "cloud_flops", "unasked_flops"):
        assert f"{costs[name]:,}" in page
    for name in ("distribution", "short_answer", "keys_and_values"):
        assert f"{costs[name]} bytes" in page


def test_a_small_version_has_its_direction_and_never_runs_twice(figure, tmp_path, monkeypatch):
    plan = {
        "prefixes": (4, 16),
        "between": (8,),
        "d_model": 20,
        "steps": 80,
        "lrs": (1e-2,),
        "seeds": (0,),
        "shares": (0.2, 1.0),
        "kept": 8,
        "windows": 32,
    }
    stem, measure = small_experiment.prepare(vars(figure), "device_cloud", tmp_path, plan)
    first = measure()
    measured = json.loads(first)
    assert stem.with_suffix(".svg").exists() and len(measured["headlines"]) == 2
    results = figure.Results(measured)
    assert all(results(arm)["0"] < 3.6 for arm in measured["arms"])  # everyone learns: chance is 4.17
    # more steps are better, an ordinary model cannot lose tokens, and asking everywhere is the cloud
    assert results.losses(figure.LONG, 4)["0"] < results.losses(figure.NESTED, 4)["0"]
    assert results.dropped(4)["0"] > results(results.whole)["0"]
    split = results(figure.LONG, "split")["0"]
    assert all(rows[-1]["loss"] == split["cloud"]["loss"] for rows in split["rules"].values())
    assert split["rules"]["oracle"][0]["loss"] < min(split["device"]["loss"], split["cloud"]["loss"])
    assert split["cloud"]["loss"] == pytest.approx(results.losses(figure.LONG, 16)["0"], abs=1e-4)
    pair = results(figure.PAIR, "split")["0"]
    assert pair["device"]["loss"] == pytest.approx(results(figure.DEVICE)["0"], abs=1e-4)

    small_experiment.forbid_runs(monkeypatch, PrefixRun)
    assert measure() == first
