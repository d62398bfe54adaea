"""A course folder for nbgrader, and what an assignment's source is made of.

An assignment is written as notebooks/assignments/source/PS/PS.py, in jupytext's percent format with nbgrader's metadata
in the headers of its cells. A mutant, a wrong submission, is notebooks/assignments/mutants/PS/NAME.py: its docstring
says what is wrong and which cells it must lose ("loses: ps1-q1-values, ps1-q1-tau"), and a section `# %% GRADE_ID` holds
what stands in that answer's cell instead of the solution.
"""

import re
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import NbGraderPreprocessor

from .assignment import Assignment

ASSIGNMENTS = Path(__file__).resolve().parents[1]
LOSES = re.compile(r"loses:\s*([\w-]+(?:\s*,\s*[\w-]+)*)")
MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION[ \t]*\n?", re.M)
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
NO_KERNEL = {"display_name": "make grade", "language": "python", "name": "make-grade"}
MARK_SCHEME = re.compile(r"^=== BEGIN MARK SCHEME ===$.*?^=== END MARK SCHEME ===$", re.M | re.S)


class Mutant(NamedTuple):
    name: str
    loses: frozenset  # grade_ids of the test cells that must notice it
    answers: dict  # grade_id of an answer: its source


class ForStudents(NbGraderPreprocessor):
    """Gives the release Python's kernel.

    The source, and so the gradebook, names one that does not exist. An nbgrader that has not read our settings runs a
    submission in the kernel that the gradebook names, and with your rights; so it fails instead.
    """

    def preprocess(self, nb, resources):
        nb.metadata.kernelspec = nbformat.from_dict(PYTHON)
        return nb, resources


def make_course(folder, sources=None):
    """An nbgrader course of the assignments in `sources` (a folder like ours, which is the default); Path."""
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = folder / "nbgrader_config.py"
    if not config.is_symlink():
        config.symlink_to(ASSIGNMENTS / "nbgrader_config.py")
    for source in sorted((Path(sources or ASSIGNMENTS / "source")).glob("*/*.py")):
        target = folder / "source" / source.stem / f"{source.stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        notebook = read_source(source)
        notebook.metadata.kernelspec = nbformat.from_dict(NO_KERNEL)
        text = nbformat.writes(notebook)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    return folder


def release(folder, name):
    """Write release/PS/PS.ipynb, which has neither solutions nor hidden tests; nbgrader's complaint, or None."""
    return Assignment(folder, name).nbgrader(GenerateAssignment)


def read_source(path):
    """The notebook in a percent-format file; the same every time, ids of cells included."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": PYTHON})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def solutions(source):
    """{grade_id: the right answer} of a source notebook."""
    return {
        cell.metadata.nbgrader.grade_id: MARK_SCHEME.sub("", MARKER.sub("", cell.source))
        for cell in source.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }


def read_mutant(path):
    """The wrong submission in a file; ValueError where its docstring does not say what it loses."""
    head, *sections = re.split(r"^# %% *([\w-]+)\s*$\n", path.read_text(), flags=re.M)
    loses = LOSES.search(" ".join(head.split()))
    if not loses:
        raise ValueError(f"{path.name}: the docstring has no 'loses: GRADE_ID, ...'")
    answers = {
        grade_id: source.strip() for grade_id, source in zip(sections[::2], sections[1::2], strict=True)
    }
    return Mutant(path.stem, frozenset(re.split(r"\s*,\s*", loses[1])), answers)


def read_mutants(name):
    """All mutants of an assignment, by name."""
    return [read_mutant(path) for path in sorted((ASSIGNMENTS / "mutants" / name).glob("*.py"))]


def submission(release, answers):
    """A student's notebook: the release with answers {grade_id: source} written into it."""
    notebook = nbformat.from_dict(release)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return notebook


def hand_in(course, name, student, notebook):
    """Put a notebook, or any text, where nbgrader's collect would put a submission."""
    path = Path(course) / "submitted" / student / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook))
    return path
