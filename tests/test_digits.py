"""The experiment on digits: a small version runs, resumes and agrees; its runs are pure functions of their fields."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import small_experiment

from minitf import count_layer_parameters
from minitf.laboratory import do_run
from minitf.laboratory.verdict import verdict_table

FIGURES = Path(__file__).parents[1] / "figures"
SMALL = {"steps": 40, "stage_steps": 20, "seeds": (0,)}


@pytest.fixture(scope="module")
def script():
    return vars(small_experiment.load("digits"))


def small(script, **changed):
    return script["Plan"](**SMALL | changed)


def test_the_stored_plan_is_the_plan_with_all_arms_and_seeds(script):
    measured = json.loads((FIGURES / "digits.json").read_text(encoding="utf-8"))
    plan = script["Plan"]()
    assert measured["plan"] == json.loads(json.dumps(vars(plan)))
    assert len(plan.seeds) >= 3
    assert measured["arms"] == {
        name: {"keys": {str(seed): run.key() for seed, run in arm.items()}}
        for name, arm in plan.arms().items()
    }


def test_both_kinds_have_exactly_as_many_parameters(script):
    counts = [
        [count_layer_parameters(script["CONFIGS"][f"{kind} {size}"]) for size in script["SIZES"]]
        for kind in ("Transformer", "Tokenformer")
    ]
    assert counts[0] == counts[1] == sorted(set(counts[0]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"stage_steps": 0}, "steps"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (-1,)}, "seed"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2000}, "batch_size"),
        ({"peak_lr": -1.0}, "peak_lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"margin": -1}, "margin"),
        ({"shift": -1.0}, "shift"),
        ({"turn": 400.0}, "turn"),
        ({"stretch": 2.0}, "stretch"),
        ({"slant": -0.1}, "slant"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(script, changed, message):
    with pytest.raises(ValueError, match=message):
        script["Plan"](**changed)


def test_a_small_version_runs_learns_and_never_runs_twice(script, tmp_path, monkeypatch):
    stem, measure = small_experiment.prepare(script, "digits", tmp_path, SMALL)
    before = measure()
    measured = json.loads(before)
    record = measured["runs"][measured["arms"]["grown"]["keys"]["0"]]
    small_stage, middle, large = record["stages"]
    assert small_stage["layer_parameters"] * 4 == middle["layer_parameters"] * 2 == large["layer_parameters"]
    assert small_stage["birth"] is None and max(middle["birth"], large["birth"]) == record["birth"] < 1e-4
    # the direction of the whole experiment: more steps and more tokens lower the loss, and cost FLOPs
    assert small_stage["loss"] > middle["loss"] > large["loss"]
    assert small_stage["flops"] < middle["flops"] < large["flops"]
    assert large["accuracy"] > 0.2  # one of ten is chance
    results = script["Results"](measured)
    (scratch,) = measured["runs"][measured["arms"]["Tokenformer 1"]["keys"]["0"]]["stages"]
    assert scratch == small_stage  # trained once, for both arms
    assert results(script["EQUAL"], "flops")["0"] == pytest.approx(large["flops"], rel=0.02)
    assert results.gain("Tokenformer 3", "linear")["0"] == pytest.approx(
        results("Tokenformer 3")["0"] - measured["baselines"]["linear"]
    )
    assert verdict_table(script["CLAIMS"], results) in stem.with_suffix(".md").read_text(encoding="utf-8")
    assert "digits.md" in (tmp_path / "README.md").read_text()
    assert stem.with_suffix(".png").exists()

    small_experiment.forbid_runs(monkeypatch, script["Classifier"])
    assert measure() == before


def test_the_same_run_gives_the_same_bits_and_every_field_another_key(script):
    run = small(script, steps=4, stage_steps=2).chain((2,), seed=1)
    records = []
    for _ in range(2):
        script["trained"].cache_clear()
        record, params, _ = do_run(run)
        assert params is None and record.pop("seconds") > 0
        records.append(record)
    assert records[0] == records[1]
    others = [
        replace(run, **changed)
        for changed in (
            {"stage_steps": (4, 3)},
            {"configs": run.configs[:1] * 2},
            {"seed": 2},
            {"margin": 0},
            {"slant": 0.1},
            {"weight_decay": 0.1},
            {"recipe": "held"},
        )
    ]
    assert len({each.key() for each in (run, *others)}) == 1 + len(others)


def test_warps_and_overlap_change_what_is_learned(script):
    plan = small(script, steps=5)
    losses = {
        do_run(run[0])[0]["loss"]
        for name, run in plan.arms().items()
        if name in ("Tokenformer 3", script["SAME"], script["APART"])
    }
    assert len(losses) == 3
