"""Grade an assignment: every submission confined, several at a time, each once, whatever interrupts it.

Processes side by side take submissions in and run them. This one hands what they executed to nbgrader's autograder,
because only one process may write a gradebook. Every file is complete or absent, and carries a digest of the
submission and the source, so a second run goes on where the first one was killed.
"""

import concurrent.futures
import contextlib
import os
import shutil
import sqlite3

import nbformat
from nbgrader.converters import Autograde, GenerateFeedback
from tqdm import tqdm

from . import confine, export, items
from .apart import RunApart, grading_seed
from .assignment import Assignment
from .intake import Unreadable, read, take_in


def grade(course, name, jobs=None, limits=confine.DEFAULT, trust=False, again=False):
    """Grade every submission that is not graded yet; {student: what went wrong}, of those that have no marks for it.

    Raises, before anything runs, RuntimeError where submissions cannot be confined and trust is False, and
    FileNotFoundError where the assignment is not released.
    """
    if not trust:
        confine.require()
    assignment = Assignment(course, name)
    if not assignment.release.exists():
        raise FileNotFoundError(f"{name} is not released: make release PS={name}")
    if again:
        shutil.rmtree(assignment.state, ignore_errors=True)
    assignment.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    grading_seed(assignment.state / "seed")
    _snapshot(assignment.gradebook, assignment.state / "gradebook.db")
    students = assignment.students()
    todo = [s for s in students if _text(assignment.recorded(s)) != assignment.digest(s)]
    calls = [(assignment, student, limits, trust) for student in todo]
    done = len(students) - len(todo)
    problems = {}
    with Pool(jobs) as pool, tqdm(total=len(students), initial=done, desc=name, disable=None) as bar:
        for student, problem, ran in pool.map(_try, calls):
            if problem := (ran and record(assignment, student, trust)) or problem:
                problems[student] = problem
            bar.update()
    return problems


def _try(assignment, student, limits, trust):
    """(student, what is wrong or None, did it run?), so that an error of ours stops nobody else's grading."""
    try:
        return student, execute(assignment, student, limits, trust), True
    except Exception as error:
        reason = f"not graded, because the grader failed: {type(error).__name__}: {error}"
        return student, reason, False


def execute(assignment, student, limits, trust):
    """Take a submission in and run it; what was wrong with it or None. Runs in a process of its own."""
    digest = assignment.digest(student)
    with contextlib.suppress(FileNotFoundError):
        done = nbformat.read(assignment.executed(student), as_version=4)
        if done.metadata.get("digest") == digest:
            return done.metadata.get("problem")
    release = nbformat.read(assignment.release, as_version=4)
    notebook, problem = take_in(assignment.submitted(student), release)
    _write(assignment.checked(student), nbformat.writes(notebook))
    _keep_notes(assignment, student)
    names = {"student": student, "assignment": assignment.name, "notebook": assignment.name}
    database = f"sqlite:///{assignment.state / 'gradebook.db'}"
    resources = {"nbgrader": names | {"db_url": database}}
    for step in Autograde().sanitize_preprocessors:
        notebook, resources = step().preprocess(notebook, resources)
    limited = {"seconds": limits.seconds, "memory": limits.memory}
    run = RunApart(trust=trust, seed_file=str(assignment.state / "seed"), **limited)
    notebook, _ = run.preprocess(notebook, resources)
    notebook.metadata |= {"digest": digest, "problem": problem}
    _write(assignment.executed(student), nbformat.writes(notebook))
    return problem


def _keep_notes(assignment, student):
    """nbgrader's exchange notes beside a submission when it came, and by which secret its feedback is found."""
    for note in assignment.notes(student):
        kept = assignment.checked(student).with_name(note.name)
        kept.unlink(missing_ok=True)
        with contextlib.suppress(Unreadable):
            _write(kept, read(note).decode(errors="replace")[:1000])


def record(assignment, student, trust):
    """Let nbgrader grade what was executed; its complaint or None."""
    folder = (assignment.state / "checked").relative_to(assignment.course)
    executed = str(assignment.state / "executed")
    settings = {"executed": executed, "trust": trust}
    complaint = assignment.nbgrader(Autograde, student, str(folder), **settings)
    if not complaint:
        _write(assignment.recorded(student), assignment.digest(student))
    return complaint


def feedback(course, name, jobs=None):
    """Write feedback/STUDENT/PS/PS.html for everybody who is graded; {student: complaint}."""
    assignment = Assignment(course, name)
    students = [s for s in assignment.students() if assignment.recorded(s).exists()]
    with Pool(jobs) as pool:
        results = pool.map(_feedback, ((assignment, student) for student in students))
        return {student: complaint for student, complaint in results if complaint}


def _feedback(assignment, student):
    return student, assignment.nbgrader(GenerateFeedback, student)


def tables(course, name):
    """Write grades/PS.csv, the same for Canvas and for Moodle, and the notebook of item statistics; their paths."""
    assignment = Assignment(course, name)
    folder = assignment.course / "grades"
    folder.mkdir(exist_ok=True)
    written = export.write_all(f"sqlite:///{assignment.gradebook}", name, folder)
    return [*written, items.write_notebook(assignment.course, name, folder / f"{name}_items.ipynb")]


class Pool:
    """Processes that run a function side by side; with one job, this process runs it."""

    def __init__(self, jobs=None):
        self.jobs = jobs or len(os.sched_getaffinity(0))

    def __enter__(self):
        several = self.jobs > 1
        self.executor = concurrent.futures.ProcessPoolExecutor(self.jobs) if several else None
        return self

    def __exit__(self, *_):
        if self.executor:
            self.executor.shutdown(cancel_futures=True)

    def map(self, function, calls):
        """The results of function(*call), as they come."""
        if not self.executor:
            yield from (function(*call) for call in calls)
            return
        futures = [self.executor.submit(function, *call) for call in calls]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def _snapshot(gradebook, copy):
    """Those who execute read the tests from a copy, so that they never wait for the one who writes."""
    with (
        contextlib.closing(sqlite3.connect(gradebook)) as db,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        db.backup(target)


def _text(path):
    return path.read_text() if path.exists() else None


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)
