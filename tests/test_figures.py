"""Every figure is drawn by its script from what is stored, and what is stored was measured."""

import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from minitf import checkpoint, evaluate
from minitf.data import CharTokenizer, load_shakespeare

FIGURES = Path(__file__).parents[1] / "figures"
SCRIPTS = sorted(FIGURES.glob("*.py"))
MEASURED = sorted(FIGURES.glob("*.json"))


def redraw(script, folder):
    """Run a copy of a script in another folder, beside a copy of its data; returns the SVG that it draws."""
    for file in (script, script.with_suffix(".json")):
        if file.exists() and not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    with mock.patch.object(sys, "path", [str(FIGURES), *sys.path]):  # as if it were run there
        runpy.run_path(str(folder / script.name), run_name="figure")["draw"]()
    return (folder / script.name).with_suffix(".svg").read_text(encoding="utf-8")


def test_there_are_figures():
    assert len(SCRIPTS) >= 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_stored_picture_is_what_the_script_draws(script, tmp_path):
    assert redraw(script, tmp_path) == script.with_suffix(".svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("data", MEASURED, ids=lambda path: path.stem)
def test_other_data_give_another_picture(data, tmp_path):
    def change(value):
        """Every float that was measured a tenth larger, whatever it means."""
        if isinstance(value, dict):
            return {name: item if name == "plan" else change(item) for name, item in value.items()}
        if isinstance(value, list):
            return [change(item) for item in value]
        return value * 1.1 if isinstance(value, float) else value

    script = data.with_suffix(".py")
    (tmp_path / data.name).write_text(json.dumps(change(json.loads(data.read_text(encoding="utf-8")))))
    assert redraw(script, tmp_path) != script.with_suffix(".svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("data", MEASURED, ids=lambda path: path.stem)
def test_measurements_say_how_they_were_made(data):
    measured = json.loads(data.read_text(encoding="utf-8"))
    assert measured["command"].startswith(f"python figures/{data.stem}.py")
    assert {"numpy", "python"} <= measured["versions"].keys()
    assert measured["machine"]
    assert data.stat().st_size < 300_000


def test_the_stored_model_has_the_loss_that_its_json_states():
    saved = checkpoint.load_training(FIGURES / "shakespeare_model.safetensors")
    measured = json.loads((FIGURES / "shakespeare_model.json").read_text(encoding="utf-8"))
    ids = CharTokenizer.from_json(saved.extra["tokenizer"]).encode(load_shakespeare("heldout"))
    loss = evaluate(saved.params, saved.config, ids, 16, 128)  # as many windows as the history's
    assert loss == pytest.approx(measured["history"][-1]["heldout_loss"], abs=0.01)
    assert sum(array.size for array in _arrays(saved.params)) == measured["parameters"]


def _arrays(tree):
    for leaf in tree.values():
        yield from _arrays(leaf) if isinstance(leaf, dict) else [leaf]


def test_stored_weights_are_small_and_finite():
    for file in FIGURES.glob("*.safetensors"):
        assert file.stat().st_size < 2_000_000
        params, _ = checkpoint.load(file)
        assert all(np.isfinite(array).all() for array in _arrays(params))


@pytest.mark.parametrize("name", ["speed", "speed_gpu"])
def test_the_page_of_the_kernels_has_the_table_of_what_is_stored(name):
    with mock.patch.object(sys, "path", [str(FIGURES), *sys.path]):
        table = runpy.run_path(str(FIGURES / f"{name}.py"), run_name="figure")["table"]
    measured = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    page = (FIGURES.parent / "minitf" / "kernels" / "README.md").read_text(encoding="utf-8")
    assert f"<!-- {name} -->\n{table(measured)}\n<!-- /{name} -->" in page
