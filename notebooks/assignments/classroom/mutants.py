"""Wrong submissions that an assignment's tests must notice. Needs no nbgrader.

A mutant is notebooks/assignments/mutants/PS/NAME.py: its docstring says what is wrong and which cells it must lose
("loses: ps1-q1-values, ps1-q1-tau"), and a section `# %% GRADE_ID` holds what stands in that answer's cell instead of
the solution.
"""

import re
from pathlib import Path
from typing import NamedTuple

ASSIGNMENTS = Path(__file__).resolve().parents[1]
LOSES = re.compile(r"loses:\s*([\w-]+(?:\s*,\s*[\w-]+)*)")


class Mutant(NamedTuple):
    name: str
    loses: frozenset  # grade_ids of the test cells that must notice it
    answers: dict  # grade_id of an answer: its source


def read_mutant(path):
    """The wrong submission in a file; ValueError where its docstring does not say what it loses."""
    head, *sections = re.split(r"^# %% *([\w-]+)\s*$\n", path.read_text(encoding="utf-8"), flags=re.M)
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
