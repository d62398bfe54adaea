"""The assignments through nbgrader itself: release, submissions, the autograder with its confinement, the gradebook.

The right solution earns every point, the untouched release none, and every mutant loses just the cells that its
docstring names. Mutants that answer different questions wrongly share a submission, so a mistake that is carried into
the next question shows as well. tests/test_assignments.py tries each alone, without nbgrader.
"""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")
import nbformat
from test_assignments import SHORTER

ASSIGNMENTS = Path(__file__).resolve().parents[1] / "notebooks" / "assignments"
sys.path.insert(0, str(ASSIGNMENTS))
from classroom import confine, course, grading, items  # noqa: E402
from classroom.assignment import Assignment  # noqa: E402

if not os.environ.get("CI") and confine.why_not():
    pytest.skip(f"submissions cannot be confined here: {confine.why_not()}", allow_module_level=True)


def shared(mutants):
    """Groups of mutants in which no two answer the same cell."""
    groups = []
    for mutant in mutants:
        for group in groups:
            if not any(mutant.answers.keys() & other.answers.keys() for other in group):
                group.append(mutant)
                break
        else:
            groups.append([mutant])
    return groups


def shorter(text):
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


@pytest.mark.filterwarnings("default")  # nbgrader and SQLAlchemy have their own
@pytest.mark.parametrize("name", sorted(path.stem for path in ASSIGNMENTS.glob("source/*/*.py")))
def test_the_gradebook_has_full_marks_no_marks_and_just_the_losses_of_each_mutant(name, tmp_path):
    source = tmp_path / "source" / name / f"{name}.py"
    source.parent.mkdir(parents=True)
    source.write_text(shorter((ASSIGNMENTS / "source" / name / f"{name}.py").read_text()))
    folder = course.make_course(tmp_path / "course", tmp_path / "source")
    assignment = Assignment(folder, name)
    assert course.release(folder, name) is None
    release = nbformat.read(assignment.release, as_version=4)
    right = course.solutions(course.read_source(source))
    groups = {f"group{i}": group for i, group in enumerate(shared(course.read_mutants(name)))}
    assert sum(map(len, groups.values())) >= 8
    course.hand_in(folder, name, "solution", course.submission(release, right))
    course.hand_in(folder, name, "untouched", release)
    for student, group in groups.items():
        wrong = {grade_id: shorter(text) for mutant in group for grade_id, text in mutant.answers.items()}
        course.hand_in(folder, name, student, course.submission(release, right | wrong))
    assignment.state.mkdir(parents=True)
    (assignment.state / "seed").write_text("20240607")  # as in tests/test_assignments.py

    assert grading.grade(folder, name, jobs=2) == {}
    marks = items.read_scores(f"sqlite:///{folder}/gradebook.db", name)
    lost = {
        student: {
            cell for cell, score, most in zip(marks.cells, row, marks.points, strict=True) if score < most
        }
        for student, row in zip(marks.students, marks.scores, strict=True)
    }
    assert lost.pop("solution") == set()
    assert lost.pop("untouched") == set(marks.cells)
    assert marks.scores[marks.students.index("untouched")].sum() == 0
    assert lost == {
        student: set().union(*(mutant.loses for mutant in group)) for student, group in groups.items()
    }
