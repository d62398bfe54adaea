"""A course with one tiny assignment, to test the grader with."""

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SETUP = "import numpy as np\n\nfrom minitf.checks import grade"

Q1 = """\
def double(x):
    ### BEGIN SOLUTION
    return x + x
    ### END SOLUTION
"""

Q1_VALUES = """\
### BEGIN HIDDEN TESTS
def hidden_double(x):
    return 2 * x


def hidden_sample(rng):
    yield (rng.standard_normal((2, 3)),)


hidden_question = grade.Exercise(hidden_double, hidden_sample, {"a square?": lambda x: x * x})
grade.values(double, hidden_question)
### END HIDDEN TESTS
assert double(np.zeros(3)).shape == (3,), "one number for each"
"""

Q1_INPUTS = """\
### BEGIN HIDDEN TESTS
grade.values(double, hidden_question)
grade.inputs(double, hidden_question)
### END HIDDEN TESTS
"""

Q2 = """\
def apply_twice(f, x):
    ### BEGIN SOLUTION
    return f(f(x))
    ### END SOLUTION


def quadruple(x):
    ### BEGIN SOLUTION
    return apply_twice(double, x)
    ### END SOLUTION
"""

Q2_VALUES = """\
### BEGIN HIDDEN TESTS
double = hidden_double
one = np.array_equal(quadruple(np.ones(2)), 4 * np.ones(2))
two = np.array_equal(apply_twice(lambda x: x - 1, np.ones(2)), -np.ones(2))
1.0 * one + 2.0 * two
### END HIDDEN TESTS
"""

ESSAY = """\
Why two?
=== BEGIN MARK SCHEME ===
2 points: because
=== END MARK SCHEME ===
"""


def marked(cell, grade_id, **marks):
    """A cell with nbgrader's metadata."""
    plain = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    cell.metadata["nbgrader"] = plain | {"grade_id": grade_id} | marks
    return cell


def write_source(folder):
    """Write the assignment `tiny` as an author would: folder/tiny/tiny.py."""
    cells = [
        new_markdown_cell("# A tiny assignment"),
        marked(new_code_cell(SETUP), "tiny-setup", locked=True),
        marked(new_code_cell(Q1), "tiny-q1", solution=True),
        marked(new_code_cell(Q1_VALUES), "tiny-q1-values", grade=True, locked=True, points=2),
        marked(new_code_cell(Q1_INPUTS), "tiny-q1-inputs", grade=True, locked=True, points=1),
        marked(new_code_cell(Q2), "tiny-q2", solution=True),
        marked(new_code_cell(Q2_VALUES), "tiny-q2-values", grade=True, locked=True, points=3),
        marked(new_markdown_cell(ESSAY), "tiny-essay", grade=True, solution=True, points=2),
    ]
    path = folder / "tiny" / "tiny.py"
    path.parent.mkdir(parents=True)
    spec = nbformat.from_dict({"display_name": "Python 3", "language": "python", "name": "python3"})
    jupytext.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path, fmt="py:percent")
