"""Run a course with nbgrader: three commands from a source to grades.

    python notebooks/assignments/grade.py release ps1     source/ and release/, which goes to the students
    python notebooks/assignments/grade.py collect ps1 downloads.zip
    python notebooks/assignments/grade.py grade ps1       autograded/, feedback/, grades/

The course lies in the folder class/ (--course names another one). INSTRUCTOR.md explains every step.
"""

import argparse
from pathlib import Path

from classroom import collect, confine, course, demo, grading

CLASS = Path(__file__).resolve().parents[2] / "class"


def release(arguments):
    """Build the assignment from its source, and the version for students from that."""
    folder = course.make_course(arguments.course)
    if complaint := course.release(folder, arguments.assignment):
        raise SystemExit(complaint)
    print(f"for the students: {folder / 'release' / arguments.assignment}")


def take(arguments):
    """Sort what an LMS let you download into submitted/."""
    students, odd = collect.collect(arguments.course, arguments.assignment, arguments.files)
    print(f"{len(students)} submissions")
    for name in odd:
        print(f"  left alone, because its name says no student: {name}")


def grade(arguments):
    """Grade, write feedback and tables, and say what went wrong."""
    limits = confine.Limits(seconds=arguments.seconds, memory=arguments.memory << 20)
    where, name, jobs = arguments.course, arguments.assignment, arguments.jobs
    try:
        problems = grading.grade(
            where, name, jobs, limits, arguments.trust, arguments.again
        )
    except (RuntimeError, FileNotFoundError, ValueError) as refusal:
        raise SystemExit(str(refusal)) from None
    problems |= grading.feedback(where, name, jobs)
    for student, problem in sorted(problems.items()):
        print(f"{student}: {problem}")
    for table in grading.tables(where, name):
        print(table)


def show(arguments):
    """Do it all with a made-up class of forty."""
    demo.run(arguments.course, arguments.assignment)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)

    def command(action, name):
        added = commands.add_parser(name, help=action.__doc__)
        added.set_defaults(action=action)
        added.add_argument("assignment")
        added.add_argument(
            "--course",
            type=Path,
            default=CLASS,
            help="the folder of the course (%(default)s)",
        )
        return added

    command(release, "release")
    command(take, "collect").add_argument("files", type=Path, help="a zip file or a folder")
    command(show, "demo")
    option = command(grade, "grade").add_argument
    option("--jobs", type=int, help="submissions at a time (as many as there are cores)")
    option("--seconds", type=int, default=60, help="processor time of a cell (%(default)s)")
    option("--memory", type=int, default=2048, help="MiB of a submission (%(default)s)")
    option("--again", action="store_true", help="grade everything again, with a new seed")
    option(
        "--trust",
        action="store_true",
        help="without confinement: submissions have your rights",
    )
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
