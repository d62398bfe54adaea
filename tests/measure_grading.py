"""How much faster is a class of forty graded two at a time than one after the other? Wants two idle cores.

python tests/measure_grading.py [PS]
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "notebooks" / "assignments"))
from classroom import course, demo, grading


def seconds(folder, name, jobs):
    """Wall time from submissions to marks and feedback."""
    start = time.perf_counter()
    problems = grading.grade(folder, name, jobs, again=True) | grading.feedback(folder, name, jobs)
    assert not problems, problems
    return time.perf_counter() - start


def main():
    name = (sys.argv[1:] or ["ps1"])[0]
    with tempfile.TemporaryDirectory() as folder:
        folder = course.make_course(folder)
        course.release(folder, name)
        demo.hand_in_class(folder, name)
        one, two = (seconds(folder, name, jobs) for jobs in (1, 2))
    print(
        f"{demo.STUDENTS} submissions of {name}: {one:.0f} s one by one, {two:.0f} s two at a time, {one / two:.2f}x"
    )


if __name__ == "__main__":
    main()
