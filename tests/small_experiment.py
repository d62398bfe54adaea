"""A figure's script as a module, and its experiment run by a small plan in a folder of the test's own."""

import importlib.util
import sys
from pathlib import Path

FIGURES = Path(__file__).parents[1] / "figures"


def load(name):
    """figures/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_figure", FIGURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def prepare(script, name, folder, changes):
    """(stem, measure): measure() runs what is missing in folder and returns the text of stem.json.

    script: the names of the script. changes: constants of its plan, given on the command line. A copy of the page and
    a README with the sections that an experiment writes lie where it looks for them.
    """
    stem = folder / "figures" / name
    stem.parent.mkdir()
    stem.with_suffix(".md").write_bytes((FIGURES / f"{name}.md").read_bytes())
    (folder / "README.md").write_text("<!-- directions -->\n<!-- /directions -->\n")
    arguments = ["--store", str(folder / "store"), "--out", str(stem)]
    for constant, value in changes.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += [f"--{constant.replace('_', '-')}", text]
    plans = {"full": script["Plan"](), "quick": script["QUICK"]}

    def measure():
        script["main"](
            stem, "", plans, script["run"], script["draw"], arguments, script["CLAIMS"], script["Results"]
        )
        return stem.with_suffix(".json").read_text(encoding="utf-8")

    return stem, measure


def forbid_runs(monkeypatch, *kinds):
    """From now on a run of one of these kinds is an error."""

    def train(*_):
        raise AssertionError("a run was done twice")

    for kind in kinds:
        monkeypatch.setattr(kind, "train", train)
