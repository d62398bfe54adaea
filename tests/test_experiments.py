"""What the experiments' figures store: every number from a run that its stage still names, every verdict recomputed."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minitf.checkpoint import CONFIGS
from minitf.laboratory import Growth, Stage, do_run
from minitf.laboratory.run import key_of
from minitf.laboratory.verdict import (
    Claim,
    directions_table,
    headline_rows,
    judge,
    predictions_table,
    verdict_table,
)

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "figures"
STORED = {
    path.stem: measured
    for path in sorted(FIGURES.glob("*.json"))
    if "runs" in (measured := json.loads(path.read_text(encoding="utf-8")))
}
JUDGED = [path.stem for path in sorted(FIGURES.glob("*.md")) if path.stem in STORED]


def rebuild(key, runs):
    """The Stage of a stored run, from its summary and those of its parents."""
    said = dict(runs[key]["stage"])
    assert "kind" not in said
    if "parent" in said:
        said["parent"] = rebuild(said["parent"], runs)
    if "growth" in said:
        said["growth"] = Growth(said["growth"]["recipe"], tuple(map(tuple, said["growth"]["sizes"])))
    if "config" in said:
        fields = dict(said["config"])
        said["config"] = CONFIGS[fields.pop("kind")](**fields)
    return Stage(**said)


@pytest.mark.parametrize("name", STORED)
def test_every_stored_run_is_the_run_of_its_stage(name):
    runs = STORED[name]["runs"]
    for key, run in runs.items():
        said = run["stage"]  # in full for runs of an experiment's own kind
        assert (key_of(said) if "kind" in said else rebuild(key, runs).key()) == key


@pytest.mark.parametrize("name", STORED)
def test_every_stored_run_says_what_it_cost(name):
    for run in STORED[name]["runs"].values():
        assert run["flops"] > 0 and run["seconds"] > 0
        if "kind" not in run["stage"]:
            assert run["tokens"] > 0 and run["curve"][-1][0] == run["stage"]["steps"]


def test_a_stored_run_comes_out_again():
    """Bit for bit twice on this machine, and near what another one stored."""
    runs = STORED["cost_curves"]["runs"]
    first = min(
        (key for key in runs if "parent" not in runs[key]["stage"]), key=lambda key: runs[key]["flops"]
    )
    records = [do_run(rebuild(first, runs))[0] for _ in range(2)]
    for record in records:
        del record["seconds"]
    assert records[0] == records[1]
    assert records[0]["flops"] == runs[first]["flops"]
    assert records[0]["heldout"] == pytest.approx(runs[first]["heldout"], abs=0.01)


# ------------------------------------------------------------------------------------------------- verdicts


def load(name):
    return runpy.run_path(str(FIGURES / f"{name}.py"), run_name="figure")


def section(path, name):
    return path.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]


@pytest.mark.parametrize("name", JUDGED)
def test_predictions_and_verdict_are_those_of_the_data(name):
    script, page = load(name), FIGURES / f"{name}.md"
    results = script["Results"](STORED[name])
    assert section(page, "predictions") == predictions_table(script["CLAIMS"])
    assert section(page, "verdict") == verdict_table(script["CLAIMS"], results)
    assert STORED[name].get("headlines", []) == headline_rows(script["CLAIMS"], results)
    assert len(judge(script["CLAIMS"], results)) == len(script["CLAIMS"])  # the full plan has all arms


def test_the_readme_has_the_headlines_of_all_experiments():
    assert section(ROOT / "README.md", "directions") == directions_table(FIGURES)


def test_a_verdict_follows_its_numbers():
    claim = Claim("", "", None, threshold=0.5)
    assert claim.verdict({"0": 0.6, "1": 0.5}) == "holds"
    assert claim.verdict({"0": 0.4, "1": 0.3}) == "fails"
    assert claim.verdict({"0": 0.4, "1": 0.6}) == "within noise"
    below = Claim("", "", None, threshold=0.5, at_least=False)
    assert below.verdict({"0": 0.6}) == "fails" and below.verdict({"0": 0.5}) == "holds"


# ------------------------------------------------------------------------------------------ the cost curves


@pytest.fixture(scope="module")
def script():
    return load("cost_curves")


def test_grid_and_readme_are_those_of_the_data(script):
    results = script["Results"](STORED["cost_curves"])
    assert section(FIGURES / "cost_curves.md", "grid") == script["grid_table"](STORED["cost_curves"])
    text = section(ROOT / "README.md", "verdict")
    for claim, _, verdict in judge(script["CLAIMS"], results):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {claim.text} |")]
        assert line.endswith(f"| {verdict} |")


def test_seeds_arms_and_grid_are_all_there(script):
    measured = STORED["cost_curves"]
    plan = script["Results"](measured).plan
    assert replace(plan, seeds=script["Plan"]().seeds) == script["Plan"]()
    base = {name: arm["lr"] for name, arm in measured["arms"].items() if name in script["bases"](plan)}
    table = script["bases"](plan) | script["arms"](plan, base)
    assert measured["arms"].keys() == table.keys()
    for name, arm in table.items():
        assert list(measured["arms"][name]["keys"]) == [str(seed) for seed in arm.seeds]
        grid = measured["grids"][arm.tuned_by]
        assert set(grid) == {str(lr) for lr in plan.lrs}
        assert measured["arms"][name]["lr"] == min(plan.lrs, key=lambda lr: grid[str(lr)])
    for name in ("Transformer 4, B", "no growth, B/10", "Net2Net, B/5", "grown (release), B/10"):
        assert len(measured["arms"][name]["keys"]) == len(plan.seeds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--widths 60,40", "each larger than the last"),
        ("--widths 41,60", "do not divide"),
        ("--base-steps 0", "must not be empty"),
        ("--shares 0.00001", "no step at all"),
        ("--shares 0,0.1", "above 0"),
        ("--recipes magic", "unknown recipes"),
        ("--compared release", "two of the recipes"),
        ("--lrs -1", "peak_lr"),
        ("--d-token 6000 --head-dim 20", "do not grow"),
        ("--context 0", "context"),
        ("--seeds x", "invalid"),
        ("--workers -1", "workers"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_before_anything_runs(options, message, tmp_path):
    command = [
        sys.executable,
        str(FIGURES / "cost_curves.py"),
        *options.split(),
        "--store",
        str(tmp_path / "store"),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and message in result.stderr
    assert not (tmp_path / "store").exists()


def test_help_says_what_every_constant_does(script):
    command = [sys.executable, str(FIGURES / "cost_curves.py"), "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in script["Plan"].__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
