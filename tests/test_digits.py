"""The experiment on digits: what is stored is judged as it says, and a small version runs, resumes and agrees."""

import importlib.util
import json
from pathlib import Path

import pytest

FIGURES = Path(__file__).parents[1] / "figures"


@pytest.fixture
def digits():
    spec = importlib.util.spec_from_file_location("digits_figure", FIGURES / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(name):
    page = (FIGURES / "digits.md").read_text(encoding="utf-8")
    return page.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]


def test_the_page_holds_the_predictions_and_the_verdict_of_the_stored_numbers(digits):
    measured = json.loads((FIGURES / "digits.json").read_text(encoding="utf-8"))
    assert section("predictions") == digits.predictions()
    assert section("verdict") == digits.verdicts(measured)
    assert measured["plan"]["seeds"] == list(digits.Plan().seeds)
    assert len(measured["plan"]["seeds"]) >= 3


def test_both_kinds_have_exactly_as_many_parameters(digits):
    from minitf import count_layer_parameters

    counts = [
        [count_layer_parameters(models[size]) for size in digits.SIZES]
        for models in (digits.TRANSFORMERS, digits.TOKENFORMERS)
    ]
    assert counts[0] == counts[1] == sorted(set(counts[0]))


def test_a_claim_holds_fails_or_is_within_noise(digits):
    at_least = digits.Claim("", "x", None, 1.0)
    at_most = digits.Claim("", "x", None, 1.0, at_least=False)
    for values, above, below in (
        ([1.0, 2.0], "holds", "within noise"),
        ([1.1, 2.0], "holds", "fails"),
        ([0.5, 0.9], "fails", "holds"),
        ([0.5, 1.5], "within noise", "within noise"),
    ):
        assert (at_least.verdict(values), at_most.verdict(values)) == (above, below)


def test_a_small_version_runs_learns_and_never_runs_twice(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "QUICK", digits.Plan(steps=40, stage_steps=20, seeds=(0,)))
    arguments = ["--budget", "quick", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "digits")]
    digits.main(arguments)
    measured = json.loads((tmp_path / "digits.json").read_text(encoding="utf-8"))
    small, middle, large = measured["arms"]["grown"]["0"]
    assert small["layer_parameters"] * 4 == middle["layer_parameters"] * 2 == large["layer_parameters"]
    assert max(middle["max_logit_change_at_birth"], large["max_logit_change_at_birth"]) < 1e-4
    # the direction of the whole experiment: more steps and more tokens lower the loss, and cost FLOPs
    assert small["loss"] > middle["loss"] > large["loss"]
    assert small["total_flops"] < middle["total_flops"] < large["total_flops"]
    assert large["accuracy"] > 0.2  # one of ten is chance
    scratch = measured["arms"]["Tokenformer 3, FLOPs of grown"]["0"][0]
    assert scratch["total_flops"] == pytest.approx(large["total_flops"], rel=0.02)

    def runs_again(run):
        raise AssertionError(f"{run} ran again")

    before = (tmp_path / "digits.json").read_bytes()
    monkeypatch.setattr(digits, "trained", runs_again)
    digits.main(arguments)
    assert (tmp_path / "digits.json").read_bytes() == before
