"""What a graded assignment says about its questions: how hard, how telling, and which mistake was commonest."""

import os
from collections import Counter
from typing import NamedTuple

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbgrader.api import Gradebook

from .course import ASSIGNMENTS, read_source


class Item(NamedTuple):
    """One graded cell.

    difficulty: mean share of its points, so 1 is easy. discrimination: correlation between the share of its points and
    the points in all other cells, nan where everybody has the same; below 0.2 a cell tells good from weak work poorly.
    mutant: the mutants that lose the same cells of the question as most of those who lost this one, and how many.
    """

    name: str
    points: float
    difficulty: float
    discrimination: float
    lost: int
    mutant: str
    matched: int


class Scores(NamedTuple):
    students: list
    cells: list  # the automatically graded ones
    points: np.ndarray  # (cells,)
    scores: np.ndarray  # (students, cells)


def read_scores(db_url, assignment):
    """Scores of an assignment with one notebook, from a gradebook."""
    with Gradebook(db_url) as gradebook:
        [notebook] = gradebook.find_assignment(assignment).notebooks
        written = {cell.name for cell in notebook.solution_cells}
        points = {cell.name: cell.max_score for cell in notebook.grade_cells if cell.name not in written}
        rows = {
            submission.student.id: {grade.name: grade.score for grade in submission.notebooks[0].grades}
            for submission in gradebook.assignment_submissions(assignment)
        }
    students, cells = sorted(rows), sorted(points)
    scores = np.array([[rows[student][cell] for cell in cells] for student in students])
    return Scores(students, cells, np.array([points[cell] for cell in cells]), scores)


def statistics(marks, mutants):
    """An Item for every cell."""
    _, names, points, scores = marks
    share = scores / points
    lost = share < 1
    items = []
    for i, name in enumerate(names):
        rest = scores.sum(axis=1) - scores[:, i]
        varies = share[:, i].std() * rest.std() > 0
        discrimination = np.corrcoef(share[:, i], rest)[0, 1] if varies else np.nan
        commonest = _commonest(names, lost, i, mutants)
        items.append(Item(name, points[i], share[:, i].mean(), discrimination, lost[:, i].sum(), *commonest))
    return items


def table(items):
    """The same as text."""
    lines = ["cell                     points  difficulty  discrimination  lost  commonest mutant"]
    for item in items:
        numbers = f"{item.points:6g}  {item.difficulty:10.2f}  {item.discrimination:14.2f}  {item.lost:4}"
        mutant = f"  {item.mutant} ({item.matched})" if item.lost else ""
        lines.append(f"{item.name:<24} {numbers}{mutant}")
    return "\n".join(lines)


def write_notebook(folder, name, path):
    """Run item_statistics.py for a course and an assignment; the path of the notebook."""
    notebook = read_source(ASSIGNMENTS / "item_statistics.py")
    quiet = ["--IPKernelApp.log_level=ERROR"]  # not a warning about TCP
    where = {"metadata": {"path": str(ASSIGNMENTS)}}
    client = NotebookClient(
        notebook, timeout=300, resources=where, extra_arguments=quiet, record_timing=False
    )
    client.execute(env=os.environ | {"MINITF_CLASS": str(folder), "MINITF_PS": name})
    notebook.metadata.pop("language_info", None)  # has the version of this Python
    nbformat.write(notebook, path)
    return path


def _commonest(names, lost, i, mutants):
    """The mutants with the commonest pattern of lost cells in the question, of those who lost cell i; and its count."""
    question = [j for j, name in enumerate(names) if _question(name) == _question(names[i])]
    patterns = Counter(frozenset(names[j] for j in question if row[j]) for row in lost[lost[:, i]])
    cells = {names[j] for j in question}
    for pattern, count in patterns.most_common():
        if alike := [mutant.name for mutant in mutants if mutant.loses & cells == pattern]:
            return " or ".join(alike), count
    return "none", 0


def _question(name):
    """ps1-q3 of ps1-q3-values."""
    return "-".join(name.split("-")[:2])
