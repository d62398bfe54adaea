"""Transfer: gradients of the small tree alone, an old model that nothing touches, runs that never happen twice."""

import json
import math
import re
from dataclasses import replace

import fake_cupy
import helpers
import numpy as np
import pytest
import small_experiment

from minitf import FlopCounter, data, generate, kernels, model, optim, transfer
from minitf.backend import to_device, tree_items, tree_map
from minitf.laboratory import do_run, stage, transfers
from minitf.laboratory.transfers import Transfer
from minitf.train import TrainConfig, descend
from minitf.transfer import append_tokens, join, lora_init, merge_lora, remove_tokens

MODELS = {name: each for name, each in helpers.CONFIGS.items() if getattr(each, "ffn_top_k", None) is None}
TOKENFORMERS = {name: config for name, config in MODELS.items() if "tokenformer" in name}
tokenformers = pytest.mark.parametrize("config", TOKENFORMERS.values(), ids=TOKENFORMERS)
any_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def with_new_tokens(config, dtype=np.float64, **options):
    """old, new and the joined config, with values everywhere that are neither zero nor special."""
    old = helpers.random_params(config, dtype=dtype)
    new, joined = append_tokens(
        old, config, 2, 3, **{"key": "normal", "key_std": 0.3, "value_std": 0.3} | options
    )
    return old, new, joined


def with_lora(config, dtype=np.float64):
    old = helpers.random_params(config, dtype=dtype)
    lora = lora_init(old, rank=2)
    rng = np.random.default_rng(5)
    return old, tree_map(lambda a: (0.3 * rng.standard_normal(a.shape)).astype(dtype), lora)


# --------------------------------------------------------------------------------------------- gradients


@tokenformers
def test_gradients_of_new_tokens_are_the_slope_of_the_loss(config):
    assert helpers.new_tokens_gradient_error(config) < 1e-6


@any_model
def test_gradients_of_lora_are_the_slope_of_the_loss(config):
    assert helpers.lora_gradient_error(config) < 1e-6


@tokenformers
def test_they_are_the_last_rows_of_the_joined_models_gradients(config):
    old, new, joined = with_new_tokens(config)
    batch = helpers.random_batch(config)
    loss, grads = transfer.new_tokens_loss_and_grads(new, old, *batch[:2], joined, batch[2])
    expected_loss, everything = model.loss_and_grads(join(old, new), *batch[:2], joined, batch[2])
    assert loss == expected_loss
    rows = dict(tree_items(everything))
    for name, grad in tree_items(grads):
        assert helpers.relative_error(grad, rows[name][-len(grad) :]) < 1e-12, name
    assert dict(tree_items(grads)).keys() == dict(tree_items(new)).keys()


@any_model
def test_gradients_of_lora_follow_from_those_of_the_merged_model(config):
    old, lora = with_lora(config)
    batch = helpers.random_batch(config)
    loss, grads = transfer.lora_loss_and_grads(lora, old, *batch[:2], config, batch[2])
    expected_loss, everything = model.loss_and_grads(merge_lora(old, lora), *batch[:2], config, batch[2])
    assert loss == expected_loss
    factors, got, matrices = (dict(tree_items(tree)) for tree in (lora, grads, everything))
    assert got.keys() == factors.keys()
    for name in {name.rsplit(".", 1)[0] for name in got}:
        a, b, dmatrix = factors[f"{name}.a"], factors[f"{name}.b"], matrices[name]
        assert helpers.relative_error(got[f"{name}.a"], b.T @ dmatrix) < 1e-11, name
        assert helpers.relative_error(got[f"{name}.b"], dmatrix @ a.T) < 1e-11, name


@tokenformers
def test_new_tokens_agree_with_autograd(config):
    torch, oracle = pytest.importorskip("torch"), pytest.importorskip("minitf.oracle")
    old, new, joined = with_new_tokens(config)
    ids, targets, mask = helpers.random_batch(config)
    frozen, leaves = oracle.to_torch(old, requires_grad=False), oracle.to_torch(new)
    rows = dict(tree_items(leaves))
    whole = dict(tree_items(frozen))
    whole |= {name: torch.cat([whole[name], row]) for name, row in rows.items()}
    loss = oracle.loss(
        helpers.tree_from_items(whole.items()), *map(torch.tensor, (ids, targets)), joined, torch.tensor(mask)
    )
    loss.backward()
    got, grads = transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined, mask)
    assert abs(got - loss.item()) < 1e-12
    for name, grad in tree_items(grads):
        assert helpers.relative_error(grad, rows[name].grad.numpy()) < 1e-10, name


@any_model
def test_lora_agrees_with_autograd(config):
    torch, oracle = pytest.importorskip("torch"), pytest.importorskip("minitf.oracle")
    old, lora = with_lora(config)
    ids, targets, mask = helpers.random_batch(config)
    whole, factors = dict(tree_items(oracle.to_torch(old, requires_grad=False))), oracle.to_torch(lora)
    factors = dict(tree_items(factors))
    for name in {name.rsplit(".", 1)[0] for name in factors}:
        whole[name] = whole[name] + factors[f"{name}.b"] @ factors[f"{name}.a"]
    loss = oracle.loss(
        helpers.tree_from_items(whole.items()), *map(torch.tensor, (ids, targets)), config, torch.tensor(mask)
    )
    loss.backward()
    _, grads = transfer.lora_loss_and_grads(lora, old, ids, targets, config, mask)
    for name, grad in tree_items(grads):
        assert helpers.relative_error(grad, factors[name].grad.numpy()) < 1e-10, name


@pytest.mark.parametrize("method", ["new tokens", "lora"])
def test_in_float32_the_fused_twins_give_the_formulas_numbers(method):
    config = helpers.tokenformer()
    batch = helpers.random_batch(config)
    if method == "lora":
        old, small = with_lora(config, np.float32)
        call = transfer.lora_loss_and_grads, config
    else:
        old, small, joined = with_new_tokens(config, np.float32)
        call = transfer.new_tokens_loss_and_grads, joined
    loss, grads = call[0](small, old, *batch[:2], call[1], batch[2])
    with kernels.resting():
        expected_loss, expected = call[0](small, old, *batch[:2], call[1], batch[2])
    assert abs(loss - expected_loss) < 1e-5
    assert helpers.tree_error(grads, expected)[0] < 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_the_stand_in_for_cupy_everything_gives_numpys_numbers(dtype):
    config = helpers.tokenformer(ffn_blocks=2)
    ids, targets, mask = helpers.random_batch(config)
    with fake_cupy.installed(), kernels.resting():
        batch = tuple(map(fake_cupy.asarray, (ids, targets, mask)))

        def same(device, host):
            for (name, a), (_, b) in zip(tree_items(device), tree_items(host), strict=True):
                assert isinstance(a, fake_cupy.ndarray) and a.dtype == dtype, name
                assert np.array_equal(a.get(), b), name

        old, new, joined = with_new_tokens(config, dtype)
        device_old = to_device(old, "cuda")
        device_new, _ = append_tokens(device_old, config, 2, 3, key="normal", key_std=0.3, value_std=0.3)
        same(device_new, new)
        same(join(device_old, device_new), join(old, new))
        same(remove_tokens(join(device_old, device_new), joined, config)[0], old)
        expected = transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined, mask)[1]
        grads = transfer.new_tokens_loss_and_grads(device_new, device_old, *batch[:2], joined, batch[2])[1]
        same(grads, expected)
        same(optim.adamw_step(device_new, grads, optim.adamw_init(device_new), 0.1)[0],
             optim.adamw_step(new, expected, optim.adamw_init(new), 0.1)[0])  # fmt: skip
        lora = lora_init(old, 2)
        same(lora_init(device_old, 2), lora)
        same(transfer.lora_loss_and_grads(to_device(lora, "cuda"), device_old, *batch[:2], config, batch[2])[1],
             transfer.lora_loss_and_grads(lora, old, ids, targets, config, mask)[1])  # fmt: skip


# ----------------------------------------------------------------------------------- what stays as it was


def train(small, gradients, steps=5):
    start = tree_map(lambda array: array.copy(), small)
    *_, (_, _, trained, state) = descend(start, gradients, TrainConfig(steps, peak_lr=0.1))
    return trained, state


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", ["hold", "rescale"])
@tokenformers
def test_taking_the_new_tokens_off_restores_the_old_model_bit_for_bit(config, tau, dtype):
    old, new, joined = with_new_tokens(config, dtype, tau=tau)
    ids, targets, mask = helpers.random_batch(config)
    before, logits = helpers.fingerprint(old), model.forward(old, ids, config)[0]
    text = generate(old, ids[0], 12, config, seed=3)
    first = helpers.fingerprint(new)
    new, _ = train(
        new, lambda new, step: transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined, mask)
    )
    assert helpers.fingerprint(new) != first
    whole = join(old, new)
    assert np.abs(model.forward(whole, ids, joined)[0] - logits).max() > 1e-3  # it did learn something
    back, back_config = remove_tokens(whole, joined, config)
    assert back_config == config
    assert helpers.fingerprint(back) == helpers.fingerprint(old) == before
    assert np.array_equal(model.forward(back, ids, back_config)[0], logits)
    assert np.array_equal(generate(back, ids[0], 12, back_config, seed=3), text)
    assert not any(
        np.shares_memory(a, b) for (_, a), (_, b) in zip(tree_items(back), tree_items(whole), strict=True)
    )


@pytest.mark.parametrize("name", sorted(TOKENFORMERS.keys() - {"tokenformer softmax"}))  # exp(0) is not 0
def test_zero_keys_with_tau_held_change_nothing_at_birth(name):
    config = TOKENFORMERS[name]
    old, new, joined = with_new_tokens(config, key="zero")
    ids = helpers.random_batch(config)[0]
    difference = model.forward(join(old, new), ids, joined)[0] - model.forward(old, ids, config)[0]
    assert np.abs(difference).max() < 1e-12


@any_model
def test_lora_adds_nothing_at_birth_and_leaves_the_old_parameters_alone(config):
    old = helpers.random_params(config)
    lora, before = lora_init(old, 2), helpers.fingerprint(old)
    assert helpers.fingerprint(merge_lora(old, lora)) == before
    ids, targets, mask = helpers.random_batch(config)
    lora, _ = train(
        lora, lambda lora, step: transfer.lora_loss_and_grads(lora, old, ids, targets, config, mask)
    )
    assert helpers.fingerprint(old) == before
    assert (
        model.loss_and_grads(merge_lora(old, lora), ids, targets, config, mask)[0]
        < (model.loss_and_grads(old, ids, targets, config, mask)[0])
    )


def test_the_optimizer_keeps_two_numbers_for_each_one_that_is_trained_and_no_others():
    config = helpers.tokenformer()
    old, new, joined = with_new_tokens(config)
    ids, targets, _ = helpers.random_batch(config)
    new, state = train(
        new, lambda new, step: transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined)
    )
    kept = sum(array.size for moment in "mv" for _, array in tree_items(state[moment]))
    added = sum(len(array) for name, array in tree_items(new) if name.endswith("key"))
    assert added == 2 * (4 * 2 + 3)  # two layers
    assert kept == 2 * (2 * added * config.d_model)


def test_tokens_for_one_part_alone():
    config = helpers.tokenformer()
    old = helpers.random_params(config)
    new, joined = append_tokens(old, config, ffn_tokens=3)
    ids, targets, _ = helpers.random_batch(config)
    grads = transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined)[1]
    assert grads["block_0"]["attention"]["query"]["key"].shape == (0, config.d_model)
    assert np.abs(grads["block_0"]["ffn"]["key"]).max() > 0
    new, _ = train(new, lambda new, step: transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined))
    assert model.forward(join(old, new), ids, joined)[0].shape == (2, 6, config.vocab_size)


@pytest.mark.parametrize("method", ["new tokens", "lora"])
def test_a_step_costs_about_two_thirds_of_full_fine_tuning(method):
    config = helpers.tokenformer(d_model=40, attention_tokens=40, ffn_tokens=160)
    old = helpers.random_params(config)
    ids, targets, _ = helpers.random_batch(config, batch=4, length=8)
    full, part = FlopCounter(), FlopCounter()
    model.loss_and_grads(tree_map(full.wrap, old), ids, targets, config)
    wrapped = tree_map(part.wrap, old)
    if method == "lora":
        transfer.lora_loss_and_grads(tree_map(part.wrap, lora_init(old, 1)), wrapped, ids, targets, config)
    else:
        new, joined = append_tokens(old, config, 1, 4)
        transfer.new_tokens_loss_and_grads(tree_map(part.wrap, new), wrapped, ids, targets, joined)
    assert 0.6 < part.flops / full.flops < 0.75


def test_inputs_are_not_touched():
    config = helpers.tokenformer()
    old, new, joined = with_new_tokens(config)
    _, lora = with_lora(config)
    ids, targets, mask = helpers.random_batch(config)
    before = helpers.fingerprint(old, new, lora)
    transfer.new_tokens_loss_and_grads(new, old, ids, targets, joined, mask)
    transfer.lora_loss_and_grads(lora, old, ids, targets, config, mask)
    whole = join(old, new)
    whole["block_0"]["ffn"]["key"] += 1
    remove_tokens(whole, joined, config)
    assert helpers.fingerprint(old, new, lora) == before


# --------------------------------------------------------------------------------------------- bad input

CONFIG = helpers.tokenformer()
OLD = helpers.random_params(CONFIG)
NEW, JOINED = append_tokens(OLD, CONFIG, 2, 3)
OTHER = append_tokens(helpers.random_params(wide := helpers.tokenformer(d_model=16)), wide, 2, 3)[0]
BAD = {
    "tokens for a Transformer": (
        lambda: append_tokens(
            helpers.random_params(helpers.transformer()), helpers.transformer(), attention_tokens=1
        ),
        TypeError,
        "use lora_init",
    ),
    "fewer tokens": (lambda: append_tokens(OLD, CONFIG, -1), ValueError, "attention_tokens is -1"),
    "half a token": (lambda: append_tokens(OLD, CONFIG, ffn_tokens=0.5), TypeError, "ffn_tokens is 0.5"),
    "values that change old tokens": (
        lambda: append_tokens(OLD, CONFIG, 5, 7, key="copy", value="halved"),
        ValueError,
        "old tokens stay as they are",
    ),
    "an unknown key": (lambda: append_tokens(OLD, CONFIG, 1, key="ones"), ValueError, "key is 'ones'"),
    "joining the trees in the wrong order": (lambda: join(NEW, OLD), ValueError, "differ in"),
    "joining tokens of another width": (lambda: join(OLD, OTHER), ValueError, r"shape \(2, 16\)"),
    "joining another precision": (
        lambda: join(OLD, tree_map(lambda a: a.astype(np.float32), NEW)),
        TypeError,
        "one dtype",
    ),
    "the old config with the new tree": (
        lambda: transfer.new_tokens_loss_and_grads(NEW, OLD, np.zeros((1, 3), int), np.zeros((1, 3), int), CONFIG),
        ValueError,
        "shape",
    ),
    "taking off more than there is": (lambda: remove_tokens(OLD, CONFIG, JOINED), ValueError, "the one that grew"),
    "taking off to another model": (
        lambda: remove_tokens(join(OLD, NEW), JOINED, replace(CONFIG, theta="gelu")),
        ValueError,
        "the one that grew",
    ),
    "rank 0": (lambda: lora_init(OLD, 0), ValueError, "rank is 0"),
    "lora of another model": (
        lambda: merge_lora(OLD, lora_init(helpers.random_params(helpers.transformer()), 1)),
        ValueError,
        "did lora_init make it",
    ),
    "lora of another size": (
        lambda: merge_lora(OLD, lora_init(helpers.random_params(helpers.tokenformer(ffn_tokens=9)), 1)),
        ValueError,
        "do not multiply to",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_what_to_change(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


# --------------------------------------------------------------------------------------------- the texts


def test_every_play_has_one_genre():
    titles = [title for plays in data.GENRES.values() for title in plays]
    assert sorted(titles) == list(data.load_plays())


@pytest.mark.parametrize("genre", data.HELDOUT_OF_GENRE)
def test_a_genre_is_its_plays_and_two_of_them_are_held_out(genre):
    train, heldout = (data.load_genre(genre, split) for split in ("train", "heldout"))
    assert f"{len(train):,}" in data.load_genre.__doc__
    for title in data.GENRES[genre]:
        assert (data.load_plays()[title] in heldout) == (title in data.HELDOUT_OF_GENRE[genre])
        assert (data.load_plays()[title] in train) == (title not in data.HELDOUT_OF_GENRE[genre])
    assert len(train) + len(heldout) == sum(len(data.load_plays()[title]) for title in data.GENRES[genre])


@pytest.mark.parametrize("arguments", [("others",), ("sonnets",), (None,), ("histories", "scenes")])
def test_another_genre_or_split_is_named(arguments):
    with pytest.raises(ValueError, match="choose 'comedies'|choose 'train' or 'heldout'"):
        data.load_genre(*arguments)


def test_a_readers_text_comes_in_the_letters_of_the_plays():
    letters = stage.tokenizer().characters
    assert transfers.known_text('\u201cCaf\u00e9\u201d\u2014n\u00e4chste "Stra\u00dfe"\u2026 7', letters) == (
        "'Cafe'--nachste 'Strae'... "
    )
    with pytest.raises(ValueError, match="only 2 of 9 characters"):
        transfers.known_text("\u0434\u0430, \u043c\u043e\u0436\u043d\u043e"[:9], letters)


# ----------------------------------------------------------------------------------------------- the runs

TINY = {
    "tokens": 10,
    "d_model": 20,
    "base_steps": 40,
    "steps": 20,
    "lrs": (1e-2,),
    "seeds": (0, 1),
    "ranks": (1, 2),
}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(transfers, "FINAL_WINDOWS", 32)
    return vars(small_experiment.load("transfer"))


def test_a_run_that_makes_no_sense_is_refused(script):
    base = script["Plan"](**TINY).base(0)
    for change, message in (
        ({"config": None}, "config or from a parent"),
        ({"parent": base}, "config or from a parent"),
        ({"rank": 1}, "give a parent"),
        ({"config": None, "parent": base, "rank": 1, "tokens": (1, 1)}, "one of them"),
        ({"config": None, "parent": base, "tokens": (1,)}, r"\(attention, ffn\)"),
        ({"reads": "both"}, "reads is 'both'"),
        ({"peak_lr": -1.0}, "peak_lr"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(base, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"ranks": (0,)},
        {"target": "sonnets"},
        {"target": "tragedies"},
        {"d_model": 30},
        {"seeds": ()},
        {"lrs": ()},
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_is_refused(script, change):
    with pytest.raises(ValueError):
        script["Plan"](**TINY | change)


def test_new_tokens_and_lora_of_the_full_plan_train_equally_many_parameters(script):
    plan = script["Plan"]()
    old = model.init_params(plan.config())
    for rank in plan.ranks:
        new, _ = append_tokens(old, plan.config(), *plan.matching(rank))
        assert transfers.count(new) == transfers.count(lora_init(old, rank))


def test_the_experiment_runs_once_and_its_numbers_have_the_direction_that_the_method_promises(
    script, tmp_path, monkeypatch
):
    stem, measure = small_experiment.prepare(script, "transfer", tmp_path, TINY)
    measured = json.loads(measure())
    results = script["Results"](measured)
    for seed in ("0", "1"):
        none = results("no adaptation")[seed]
        for arm in ("all parameters", "LoRA 2", "new tokens 2"):
            assert results(arm)[seed] < none, arm  # a base of 40 steps gets better at every text
        assert results("from scratch")[seed] > results("all parameters")[seed]
        assert results("new tokens 2", "restored")[seed] == 0
        assert results("new tokens 2", "trained")[seed] == results("LoRA 2", "trained")[seed]
        for arm in ("new tokens 1", "LoRA 1"):
            assert results(arm, "flops")[seed] < 0.95 * results("all parameters", "flops")[seed]
        assert (
            results("new tokens 2", "optimizer_bytes")[seed] == 8 * results("new tokens 2", "trained")[seed]
        )
    assert stem.with_suffix(".png").exists() and re.search("new tokens", stem.with_suffix(".svg").read_text())

    small_experiment.forbid_runs(monkeypatch, Transfer)
    again = json.loads(measure())
    assert again["runs"] == measured["runs"] and again["arms"] == measured["arms"]


def test_the_same_run_gives_the_same_bits_and_a_readers_text_is_named_by_what_it_says(script, tmp_path):
    base = replace(script["Plan"](**TINY).base(0), steps=3)
    _, params, config = do_run(base)
    mine, other = tmp_path / "mine.txt", tmp_path / "other" / "mine.txt"
    other.parent.mkdir()
    text = data.load_genre("comedies", "heldout")[:30_000]
    for path in (mine, other):
        path.write_text(text)
    here, there = (
        replace(base, parent=base, config=None, tokens=(1, 2), target=str(path)) for path in (mine, other)
    )
    assert here.key() == there.key() and str(tmp_path) not in json.dumps(here.to_json())
    (first, nothing, _), (second, _, _) = (do_run(run, (params, config)) for run in (here, there))
    assert nothing is None
    for record in (first, second):
        del record["seconds"]
        assert math.isfinite(record["heldout"]) and record["restored"] == 0
    assert first == second
    mine.write_text(text + "More.")
    assert here.key() != there.key()
    (short := tmp_path / "short.txt").write_text("too short")
    with pytest.raises(ValueError, match="shorter|fewer"):
        transfers.text_ids(str(short), "heldout")
