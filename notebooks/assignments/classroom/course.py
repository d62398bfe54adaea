"""A course folder for nbgrader, and what an assignment's source is made of.

An assignment is written as notebooks/assignments/source/PS/PS.py, in jupytext's percent format with nbgrader's metadata
in the headers of its cells.
"""

import re
from pathlib import Path

import jupytext
import nbformat
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import NbGraderPreprocessor

from .assignment import Assignment
from .mutants import ASSIGNMENTS, Mutant, read_mutant, read_mutants  # noqa: F401 (also part of a course)

MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION[ \t]*\n?", re.M)
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
NO_KERNEL = {"display_name": "make grade", "language": "python", "name": "make-grade"}
MARK_SCHEME = re.compile(r"^=== BEGIN MARK SCHEME ===$.*?^=== END MARK SCHEME ===$", re.M | re.S)


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
