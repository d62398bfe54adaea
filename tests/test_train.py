"""The training loop: it learns, resumes exactly, and stops loudly when the loss is no number."""

from dataclasses import replace

import fake_cupy
import numpy as np
import pytest
from helpers import fingerprint, tokenformer, transformer

from minitf import checkpoint, data, grow, init_params, to_device, to_host, train, tree_items
from minitf.train import TrainConfig, TrainingDiverged, evaluate, train_model

MODELS = {"tokenformer": tokenformer(init_std=0.3), "transformer": transformer(init_std=0.3)}
IDS = np.tile(np.arange(10), 60)  # a text that a small model can learn
SETTINGS = TrainConfig(steps=24, batch_size=4, peak_lr=1e-2, eval_every=7, eval_windows=5)


@pytest.fixture(params=MODELS, ids=str)
def config(request):
    return MODELS[request.param]


class Killed(Exception):
    pass


def interrupt_at(monkeypatch, step):
    """Make the loop die when it asks for the batch of this step."""

    def dying_batch(ids, at, *rest):
        if at == step:
            raise Killed
        return data.batch(ids, at, *rest)

    monkeypatch.setattr(train, "batch", dying_batch)


def test_training_learns_and_leaves_its_inputs_alone(config):
    params = init_params(config)
    before = fingerprint(params)
    result = train_model(params, config, IDS, replace(SETTINGS, steps=150), IDS)
    assert fingerprint(params) == before
    first, last = result.history[0], result.history[-1]
    assert last["heldout_loss"] < 0.5 < first["heldout_loss"]
    assert [line["step"] for line in result.history] == [*range(7, 148, 7), 150]
    assert result.state["step"] == 150


@pytest.mark.parametrize("killed_at", [3, 11, 23])
def test_interrupted_and_resumed_is_bit_identical_to_uninterrupted(config, killed_at, tmp_path, monkeypatch):
    params = init_params(config)
    whole = train_model(params, config, IDS, SETTINGS, IDS)
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt_at(patch, killed_at)
        train_model(params, config, IDS, SETTINGS, IDS, checkpoint_path=path, checkpoint_every=5)
    other_start = init_params(config, seed=1)  # must not matter: the checkpoint decides, where there is one
    start = other_start if killed_at >= 5 else params
    resumed = train_model(
        start, config, IDS, SETTINGS, IDS, checkpoint_path=path, checkpoint_every=5, resume=True
    )
    assert fingerprint(resumed.params, resumed.state["m"]) == fingerprint(whole.params, whole.state["m"])
    assert resumed.history == whole.history


def test_resuming_a_finished_run_returns_it(config, tmp_path):
    path = tmp_path / "run.safetensors"
    done = train_model(init_params(config), config, IDS, SETTINGS, checkpoint_path=path)
    again = train_model(init_params(config), config, IDS, SETTINGS, checkpoint_path=path, resume=True)
    assert fingerprint(again.params) == fingerprint(done.params)
    assert again.history == done.history


def test_resume_across_a_growth_step_anneals_tau_as_if_uninterrupted(tmp_path, monkeypatch):
    config = MODELS["tokenformer"]
    grown, held = grow(init_params(config), config, attention_tokens=9, ffn_tokens=14)
    settings = replace(SETTINGS, anneal_share=0.5)
    whole = train_model(grown, held, IDS, settings)
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt_at(patch, 8)
        train_model(grown, held, IDS, settings, checkpoint_path=path, checkpoint_every=5)
    resumed = train_model(grown, held, IDS, settings, checkpoint_path=path, resume=True)
    assert fingerprint(resumed.params) == fingerprint(whole.params)
    assert resumed.config == whole.config
    assert whole.config.tau("ffn") == pytest.approx(np.sqrt(14))
    assert held.tau("ffn") == pytest.approx(np.sqrt(7))
    assert checkpoint.load(path)[1] == whole.config


@pytest.mark.parametrize(
    "change",
    [
        {"settings": replace(SETTINGS, peak_lr=2e-2)},
        {"config": tokenformer(init_std=0.1)},
        {"ids": IDS[:-1]},
    ],
    ids=["settings", "model", "data"],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(change, tmp_path, request):
    config, path = MODELS["tokenformer"], tmp_path / "run.safetensors"
    train_model(init_params(config), config, IDS, SETTINGS, checkpoint_path=path)
    call = {"config": config, "ids": IDS, "settings": SETTINGS} | change
    with pytest.raises(ValueError, match=f"its {request.node.callspec.id} is"):
        train_model(init_params(config), **call, checkpoint_path=path, resume=True)


def test_a_loss_that_is_no_number_names_step_rate_and_checkpoint(tmp_path, monkeypatch):
    config, path = MODELS["tokenformer"], tmp_path / "run.safetensors"
    loss_and_grads = train.loss_and_grads
    calls = []

    def spoiled(*args):
        calls.append(1)
        loss, grads = loss_and_grads(*args)
        return (loss if len(calls) <= 12 else loss * np.nan), grads

    monkeypatch.setattr(train, "loss_and_grads", spoiled)
    with pytest.raises(
        TrainingDiverged, match=r"nan at step 12 with learning rate 0\.\d+.*run\.safetensors, step 10"
    ):
        train_model(init_params(config), config, IDS, SETTINGS, checkpoint_path=path, checkpoint_every=5)
    params, _ = checkpoint.load(path)
    assert all(np.isfinite(array).all() for _, array in tree_items(params))


def test_training_on_the_stand_in_for_cupy_equals_numpy():
    config = MODELS["tokenformer"]
    params = init_params(config, dtype=np.float64)
    here = train_model(params, config, IDS, SETTINGS, IDS)
    with fake_cupy.installed():
        there = train_model(to_device(params, "cuda"), config, IDS, SETTINGS, IDS)
        assert fingerprint(to_host(there.params)) == fingerprint(here.params)
    assert there.history == here.history


def test_evaluate_averages_over_all_windows_once():
    config = MODELS["transformer"]
    params = init_params(config)
    ids = IDS[:100]
    one_by_one = [
        float(train.cross_entropy_forward(train.forward(params, x, config)[0], y)[0])
        for x, y in data.heldout_batches(ids, 1, config.context)
    ]
    assert evaluate(params, config, ids, batch_size=5) == pytest.approx(np.mean(one_by_one), rel=1e-6)


def test_the_learning_rate_warms_up_and_ends_at_its_floor():
    settings = TrainConfig(steps=100, peak_lr=1.0, warmup_share=0.1, floor_share=0.2)
    rates = [settings.lr(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 0}, {"eval_every": 0}, {"warmup_share": 1.5}, {"anneal_share": -1}],
    ids=str,
)
def test_settings_that_make_no_run_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        TrainConfig(**{"steps": 10} | wrong)


def test_ids_outside_the_vocabulary_are_refused_before_the_first_step():
    config = MODELS["tokenformer"]
    with pytest.raises(IndexError, match="vocabulary"):
        train_model(init_params(config), config, IDS + 5, SETTINGS)


@pytest.mark.parametrize("silence", ["pytest", "variable"])
def test_the_progress_bar_is_silent_under_test(silence, monkeypatch, capsys):
    if silence == "variable":
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        monkeypatch.setenv("MINITF_PROGRESS", "0")
    assert list(train.progress(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_the_progress_bar_shows_elsewhere(monkeypatch, capsys):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.delenv("MINITF_PROGRESS", raising=False)
    list(train.progress(range(3), "counting"))
    assert "counting" in capsys.readouterr().err
