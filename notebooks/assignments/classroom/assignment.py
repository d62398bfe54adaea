"""One assignment in an nbgrader course: where its files lie, and how to run one of nbgrader's steps on it.

submitted/STUDENT/PS/PS.ipynb              what came in
.grading/PS/checked/STUDENT/PS/PS.ipynb    taken in: clean metadata, the release's order   (intake)
.grading/PS/executed/STUDENT/PS.ipynb      with outputs                                    (apart)
.grading/PS/recorded/STUDENT               nbgrader has it in its gradebook                (grading)
autograded/, feedback/, grades/            nbgrader's own, and the tables
"""

import contextlib
import hashlib
import os
import re
import sys
import warnings
from pathlib import Path

from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import capture_log
from traitlets.config import Config, PyFileConfigLoader

from .intake import Unreadable, read

# nbgrader reads names of folders as glob patterns, and a name goes into a path
STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")

# nbgrader starts alembic by its name; that of this Python, also where its environment is not activated
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


class Assignment:
    """An assignment of one notebook, which has its name."""

    def __init__(self, course, name):
        self.course, self.name = Path(course).resolve(), name
        self.state = self.course / ".grading" / name
        self.gradebook = self.course / "gradebook.db"
        self.source, self.release = (
            self.course / step / name / f"{name}.ipynb" for step in ("source", "release")
        )

    def students(self):
        """Who submitted it; raises ValueError for a folder that can be no student's."""
        names = sorted(path.parent.name for path in self.course.glob(f"submitted/*/{self.name}"))
        if odd := [name for name in names if not STUDENT.fullmatch(name)]:
            raise ValueError(f"submitted/ holds folders that are no student's id: {', '.join(odd)}")
        return names

    def submitted(self, student):
        return self.course / "submitted" / student / self.name / f"{self.name}.ipynb"

    def notes(self, student):
        """What nbgrader's exchange writes beside a submission."""
        return [
            self.submitted(student).with_name(name) for name in ("timestamp.txt", "submission_secret.txt")
        ]

    def checked(self, student):
        return self.state / "checked" / student / self.name / f"{self.name}.ipynb"

    def executed(self, student):
        return self.state / "executed" / student / f"{self.name}.ipynb"

    def recorded(self, student):
        return self.state / "recorded" / student

    def digest(self, student):
        """Changes with the submission and with the assignment."""
        digest = hashlib.sha256(self.source.read_bytes())
        for path in (self.submitted(student), *self.notes(student)):
            with contextlib.suppress(Unreadable):
                digest.update(read(path))
        return digest.hexdigest()

    def nbgrader(self, step, student="*", submitted="submitted", **settings):
        """Run one of nbgrader's converters, with the settings of the course; its complaint, or None.

        settings: of RunApart.
        """
        config = Config()
        if (self.course / "nbgrader_config.py").exists():
            config = PyFileConfigLoader("nbgrader_config.py", str(self.course)).load_config()
        config.RunApart.update(settings)
        where = {"root": str(self.course), "submitted_directory": submitted}
        which = {"assignment_id": self.name, "student_id": student}
        converter = step(coursedir=CourseDirectory(config=config, **where, **which), config=config)
        converter.force = True
        with warnings.catch_warnings(action="ignore"):  # of SQLAlchemy, about how nbgrader uses it
            result = capture_log(converter)
        return None if result["success"] else (result.get("log") or result["error"]).strip()
