"""Assignments without nbgrader: the solution earns every point, the stub none, each mutant loses what it says.

An assignment is a percent file, `notebooks/assignments/source/psN/psN.py`; `classroom/mutants.py` says what a mutant
is. Cells that a mutant does not answer hold the solution. The cells run here one after the other, as in a notebook;
the same through nbgrader is in tests/test_classes.py.
"""

import contextlib
import functools
import io
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

jupytext = pytest.importorskip("jupytext")

ROOT = Path(__file__).resolve().parents[1]
ASSIGNMENTS = ROOT / "notebooks" / "assignments"
sys.path.insert(0, str(ASSIGNMENTS))
from classroom.mutants import read_mutant, read_mutants  # noqa: E402

NAMES = sorted(path.stem for path in (ASSIGNMENTS / "source").glob("ps*/ps*.py"))
MUTANTS = sorted((ASSIGNMENTS / "mutants").glob("ps*/*.py"))
STUB = "raise NotImplementedError()"
# ps4 trains for a quarter of a minute; here for half a second
SHORTER = {"BUDGET = 5.2e9": "BUDGET = 1.5e8", "[:16_500]": "[:1_000]"}


class Cell(NamedTuple):
    id: str  # nbgrader's grade_id, "" for a cell without one
    kind: str  # "code" or "markdown"
    graded: bool
    points: int
    solution: bool
    source: str

    @property
    def automatic(self):
        """Graded by a program."""
        return self.graded and not self.solution


@functools.cache
def cells(name):
    notebook = jupytext.read(ASSIGNMENTS / "source" / name / f"{name}.py")
    return tuple(map(as_cell, notebook.cells))


def as_cell(cell):
    grading = cell.metadata.get("nbgrader", {})
    return Cell(
        grading.get("grade_id", ""),
        cell.cell_type,
        grading.get("grade", False),
        grading.get("points", 0),
        grading.get("solution", False),
        cell.source,
    )


def automatic(name):
    return [cell.id for cell in cells(name) if cell.automatic]


def markdown(name):
    return "\n".join(cell.source for cell in cells(name) if cell.kind == "markdown")


def without(source, region, instead=""):
    """The source with what stands between BEGIN and END of a region replaced."""
    return re.sub(
        rf"(?ms)^( *)### BEGIN {region}\n.*?### END {region}\n?",
        lambda match: f"{match[1]}{instead}\n" if instead else "",
        source + "\n",
    ).rstrip("\n")


def released(cell):
    """A cell as students get it."""
    source = without(cell.source, "HIDDEN TESTS")
    if cell.solution:
        cleared = without(source, "SOLUTION", instead=STUB)
        source = cleared if cleared != source else "YOUR ANSWER HERE" if cell.kind == "markdown" else STUB
    return cell._replace(source=source)


def stub(cell):
    """A cell of an untouched submission when it is graded: the hidden tests are back."""
    return released(cell) if cell.solution else cell


# --------------------------------------------------------------------------------------------- mutants


def mutant_id(path):
    return f"{path.parent.name}-{path.stem}"


def submission(path):
    wrote = read_mutant(path).answers
    return [cell._replace(source=wrote.get(cell.id, cell.source)) for cell in cells(path.parent.name)]


# ----------------------------------------------------------------------------------------------- running


def failures(submitted):
    """{grade_id: message} of the automatic cells that fail when all code cells run in one namespace."""
    namespace, failed = {"__name__": "__main__"}, {}
    for cell in submitted:
        if cell.kind != "code":
            continue
        source, errors = cell.source, io.StringIO()
        for long, short in SHORTER.items():
            source = source.replace(long, short)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                exec(compile(source, cell.id or "cell", "exec"), namespace)
            except Exception as error:  # a notebook goes on with the next cell
                errors.write(f"{type(error).__name__}: {error}")
        if cell.automatic and errors.getvalue():  # nbgrader takes all points where stderr was written
            failed[cell.id] = errors.getvalue()
    return failed


@pytest.fixture(autouse=True)
def grading(monkeypatch):
    """Another seed than a student's 0, and neither progress bars nor windows."""
    monkeypatch.setenv("MINITF_GRADE_SEED", "20240607")
    monkeypatch.setenv("MINITF_PROGRESS", "0")
    monkeypatch.setenv("MPLBACKEND", "Agg")


# ------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("name", NAMES)
def test_the_solution_earns_every_point_whatever_is_drawn(name, seed, monkeypatch):
    monkeypatch.setenv("MINITF_GRADE_SEED", seed)
    assert failures(cells(name)) == {}


def test_what_is_made_shorter_is_there():
    source = "\n".join(cell.source for cell in cells("ps4"))
    assert all(source.count(long) == 1 for long in SHORTER)


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_release_earns_nothing(name):
    failed = failures(map(stub, cells(name)))
    assert list(failed) == automatic(name)
    stumbled = {id: message for id, message in failed.items() if "not attempted" not in message}
    assert not stumbled, "these must say 'not attempted'"


@pytest.mark.parametrize("path", MUTANTS, ids=mutant_id)
def test_a_mutant_loses_what_it_says(path):
    expected = read_mutant(path).loses
    assert expected <= set(automatic(path.parent.name))
    assert failures(submission(path)).keys() == expected


@pytest.mark.parametrize("name", NAMES)
def test_there_are_eight_mutants_and_every_automatic_cell_is_lost_by_one(name):
    mutants = read_mutants(name)
    assert len(mutants) >= 8
    assert {id for mutant in mutants for id in mutant.loses} == set(automatic(name))


@pytest.mark.parametrize("name", NAMES)
def test_points_and_minutes_add_up_to_what_the_card_says(name):
    graded = [cell for cell in cells(name) if cell.graded]
    text = markdown(name)
    per_question = re.findall(r"(?m)^## \d.*\((\d+) points?, (\d+) minutes\)$", text)
    points, minutes = (sum(map(int, column)) for column in zip(*per_question, strict=True))
    assert points == sum(cell.points for cell in graded)
    assert f"**Points** {points}" in text and f"**Minutes** {minutes}" in text
    assert f"in {len(automatic(name))} graded cells" in text
    assert len({cell.id for cell in graded}) == len(graded)


@pytest.mark.parametrize("name", NAMES)
def test_every_assignment_has_its_card_and_hints(name):
    text = markdown(name)
    opening = text.partition("\n## ")[0]
    for part in ("**You will be able to**", "**You need**", "**Minutes**", "**Points**"):
        assert part in opening
    questions = re.split(r"(?m)^## (?=\d)", text)[1:]
    assert len(questions) >= 4
    assert all("<details><summary>Hint" in question for question in questions)


def solution(cell):
    """What a solution cell has that its release has not: code, or a model answer."""
    kept = set(released(cell).source.splitlines()) if cell.solution else set(cell.source.splitlines())
    return [line.strip() for line in cell.source.splitlines() if line not in kept]


def distinctive(line):
    """Code or prose that nobody writes by chance."""
    return len(line) >= 30 and not line.startswith(("def ", "import ", "from ", "#", '"""', "for ", "rng = "))


def everything_a_student_gets():
    """{what: text}: the releases, the package and the lessons, of which the site is made."""
    texts = {name: "\n".join(released(cell).source for cell in cells(name)) for name in NAMES}
    for pattern in ("minitf/**/*.py", "minitf/**/*.md", "notebooks/*.ipynb", "notebooks/src/**/*.py"):
        texts |= {
            str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob(pattern)
        }
    return texts


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_is_in_anything_that_a_student_gets(name):
    texts = everything_a_student_gets()
    assert len(texts) > 20
    for cell in cells(name):
        lines = list(filter(distinctive, solution(cell)))
        assert lines or not cell.solution
        assert not [(where, line) for where, text in texts.items() for line in lines if line in text]


@pytest.mark.parametrize("name", NAMES)
def test_a_release_has_no_trace_of_what_was_taken_out(name):
    for cell in map(released, cells(name)):
        assert not re.search("BEGIN|END|MARK SCHEME|mistakes=", cell.source), cell.id
