"""nbgrader's step of running a notebook, with the submission's cells and the tests in two processes.

A notebook is usually graded in one process: whatever a submission does to numpy, to the checks or to IPython happens
to the tests as well. Here its cells run in a confined process (`student`). The tests run in this one, where the
names of the submission are stand-ins: calling one sends the arguments over, and brings the result back. So a
submission never meets the tests, only their calls, and it cannot report a result of its own making.
"""

import ast
import builtins
import contextlib
import io
import math
import os
import secrets
from pathlib import Path

import nbformat
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Integer, Unicode

from . import confine, wire
from .student import Ended, Student

TEXT = 20_000  # characters of one output
PICTURE = 2_000_000


class RunApart(NbGraderPreprocessor):
    """Stands in nbgrader's list of steps where nbgrader's own Execute does."""

    trust = Bool(False, help="run submissions without confinement, with your own rights").tag(config=True)
    seconds = Integer(60, help="processor time for one cell, and for one call from a test").tag(config=True)
    memory = Integer(2 << 30, help="bytes of memory of one submission").tag(config=True)
    executed = Unicode("", help="a folder with notebooks that ran already, as student/notebook.ipynb").tag(
        config=True
    )
    seed_file = Unicode(
        "", help="keeps the seed of the tests; .grading/ASSIGNMENT/seed in the course if empty"
    ).tag(config=True)

    def preprocess(self, nb, resources):
        names = resources["nbgrader"]
        if self._take_outputs(nb, names["student"], names["notebook"]):
            return nb, resources
        seed_file = self.seed_file or f".grading/{names['assignment']}/seed"
        os.environ["MINITF_GRADE_SEED"] = grading_seed(seed_file)
        with Gradebook(names["db_url"]) as gradebook:
            cells = gradebook.find_notebook(names["notebook"], names["assignment"]).source_cells
            asked = [cell.source for cell in cells if cell.cell_type == "code" and not cell.locked]
        answers = {name for source in asked for name in _defined(source)}
        run(nb, answers, confine.Limits(self.seconds, self.memory), self.trust)
        return nb, resources

    def _take_outputs(self, nb, student, name):
        """Was the same notebook executed before? Then its outputs are taken over."""
        stored = Path(self.executed) / student / f"{name}.ipynb"
        if not self.executed or not stored.exists():
            return False
        ran = nbformat.read(stored, as_version=4)
        if [cell.source for cell in ran.cells] != [cell.source for cell in nb.cells]:
            return False
        for cell, twin in zip(nb.cells, ran.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = twin.outputs, twin.execution_count
        return True


def grading_seed(path):
    """The seed from which the tests draw, as text; drawn and kept the first time, so that a grade can be repeated."""
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(secrets.randbelow(2**31)))
    return path.read_text()


def run(nb, answers, limits, trust=False):
    """Run every code cell of a sanitized notebook and store its outputs; never raises for what a submission does.

    answers: the names that the assignment asks a student to define.
    """
    with Student(limits, trust) as student:
        tests = Tests(student, answers)
        for number, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), 1):
            cell.execution_count, cell.outputs = number, []
            try:
                if utils.is_grade(cell) and not utils.is_solution(cell):
                    cell.outputs = tests.run(cell.source)
                    continue
                cell.outputs = [shown for each in student.run(cell.source) if (shown := _shown(each))]
                if utils.is_locked(cell):
                    tests.run(cell.source)
            except Ended as reason:
                cell.outputs = [_error("NotRun", f"your notebook was stopped: {reason}")]


class Tests:
    """The namespace of the tests: what they define themselves, and where they do not, what the submission defines."""

    def __init__(self, student, answers):
        self.student, self.answers = student, answers
        self.namespace = {"__name__": wire.TESTS}
        self.own, self.mentioned = {"__name__"}, set()
        student.records = self.namespace  # a named tuple of a locked cell is known on both sides

    def run(self, source):
        """Run a cell of the grader's; its outputs, which hold no text of it."""
        printed, outputs, value = io.StringIO(), [], None
        try:
            tree = ast.parse(source)
            self._borrow(tree)
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                for statement in tree.body:
                    value = self._execute(statement)
            if isinstance(value, int | float) and not isinstance(value, bool):
                outputs.append(_points(value))
        except Exception as error:
            outputs.append(_error(type(error).__name__, error))
        if printed.getvalue():
            outputs.insert(0, nbformat.v4.new_output("stream", text=printed.getvalue()[:TEXT]))
        return outputs

    def _borrow(self, tree):
        """Bring over what the cell names, and what functions of earlier cells name, as it is now."""
        self.mentioned |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        self.namespace |= self.student.look_up(self.mentioned - self.own - vars(builtins).keys())

    def _execute(self, statement):
        """Run one statement; its value if it is an expression."""
        before = dict(self.namespace)
        if isinstance(statement, ast.Expr):
            return eval(compile(ast.Expression(statement.value), "<test>", "eval"), self.namespace)
        exec(compile(ast.Module([statement], []), "<test>", "exec"), self.namespace)
        defined = {name for name, value in self.namespace.items() if value is not before.get(name, self)}
        self.own |= defined
        for name in defined & self.answers:
            # the right answer takes the place of the submission's, so that the next question is graded alone
            self.student.bind(name, self.namespace[name])


def _defined(source):
    """Names that the top level of a cell defines."""
    names = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        else:
            names |= {
                n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
    return names


def _shown(output):
    """A submission's output, rebuilt from text and pictures, so no script of it reaches a browser; None for others."""
    match output:
        case {"output_type": "stream", "name": "stdout" | "stderr" as name, "text": str(text)} if text:
            return nbformat.v4.new_output("stream", name=name, text=text[:TEXT])
        case {"output_type": "display_data", "data": dict(data)}:
            most = {"text/plain": TEXT, "image/png": PICTURE}
            data = {kind: data[kind][: most[kind]] for kind in most if isinstance(data.get(kind), str)}
            return nbformat.v4.new_output("display_data", data)
        case {"output_type": "error", "ename": str(name), "evalue": str(message), "traceback": list(lines)}:
            return _error(name, message, [str(line)[:TEXT] for line in lines[:100]])


def _points(value):
    """Partial credit, in nbgrader's way: the value of a test cell; nbgrader takes nan and less than 0 for full marks."""
    if not 0 <= value < math.inf:
        raise ValueError(f"the test came to {value} points")
    return nbformat.v4.new_output("execute_result", {"text/plain": repr(float(value))})


def _error(name, message, lines=None):
    name, message = str(name)[:100], str(message)[:TEXT]
    lines = lines or [f"{name}: {message}"]
    return nbformat.v4.new_output("error", ename=name, evalue=message, traceback=lines)
