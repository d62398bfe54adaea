"""A made-up class, graded from end to end."""

import time

import nbformat
import numpy as np

from . import course, grading, items

STUDENTS = 40


def hand_in_class(folder, name, students=STUDENTS, seed=0):
    """Submissions of students who know some things: each answer is right, a mutant's, or not attempted."""
    rng = np.random.default_rng(seed)
    release = nbformat.read(folder / f"release/{name}/{name}.ipynb", as_version=4)
    right = course.solutions(nbformat.read(folder / f"source/{name}/{name}.ipynb", as_version=4))
    mutants = course.read_mutants(name)
    for number in range(students):
        knows, tries = rng.uniform(0.3, 1), rng.uniform(0.5, 1)
        answers = {}
        for grade_id, solution in right.items():
            wrong = [mutant.answers[grade_id] for mutant in mutants if grade_id in mutant.answers]
            if rng.random() < knows:
                answers[grade_id] = solution
            elif wrong and rng.random() < tries:
                answers[grade_id] = wrong[rng.integers(len(wrong))]
        course.hand_in(folder, name, f"student{number + 1:02}", course.submission(release, answers))


def run(folder, name):
    """Make the course in a folder, release all assignments, hand one in, grade it, and print what came out."""
    start = time.perf_counter()
    folder = course.make_course(folder)
    for each in sorted(path.name for path in (folder / "source").iterdir()):
        print(course.release(folder, each) or f"released {each}")
    hand_in_class(folder, name)
    print(f"{STUDENTS} students handed in {name}: grading")
    problems = grading.grade(folder, name) | grading.feedback(folder, name)
    tables = grading.tables(folder, name)
    marks = items.read_scores(f"sqlite:///{folder / 'gradebook.db'}", name)
    print(items.table(items.statistics(marks, course.read_mutants(name))))
    pages = len(list(folder.glob(f"feedback/*/{name}/{name}.html")))
    print(f"{pages} pages of feedback; in {folder}/grades: {', '.join(path.name for path in tables)}")
    print(f"{len(problems)} problems, {time.perf_counter() - start:.0f} s")
