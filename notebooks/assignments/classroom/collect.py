"""Sort downloaded submissions into submitted/STUDENT/PS/PS.ipynb.

Three ways to name a file say whose it is:

    ada_ps1.ipynb, ada/ps1.ipynb                           any way to hand in; the student's id is ada
    lovelaceada_4711_98765_ps1.ipynb                       Canvas, "Download Submissions"; 4711 (with or without LATE_)
    Ada Lovelace_123_assignsubmission_file_/ps1.ipynb      Moodle, "Download all submissions"; ada.lovelace
"""

import re
import unicodedata
import zipfile
from pathlib import Path

from .intake import LARGEST

NAMES = (
    r"(?:.*/)?[^/_]+_(?:LATE_)?(?P<id>\d+)_\d+_(?P<ps>[a-z]+\d+)(?:-\d+)?",
    r"(?:.*/)?(?P<name>[^/_]+)_\d+_assignsubmission_file_?/(?:.*/)?(?P<ps>[a-z]+\d+)",
    r"(?:.*/)?(?P<id>[A-Za-z0-9][A-Za-z0-9.@-]*)[/_](?P<ps>[a-z]+\d+)",
)


def collect(course, assignment, files):
    """Copy the notebooks of one assignment out of a zip file or a folder; (students, names that say no student)."""
    students, odd = [], []
    for name, read in _notebooks(Path(files)):
        student, which = owner(name)
        if which != assignment:
            odd.append(name)
            continue
        path = Path(course) / "submitted" / student / assignment / f"{assignment}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read())
        students.append(student)
    return students, odd


def owner(name):
    """(student, assignment) that the name of a file says, or (None, None).

    >>> owner("lovelaceada_LATE_4711_98765_ps1-2.ipynb")
    ('4711', 'ps1')
    """
    for pattern in NAMES:
        if match := re.fullmatch(pattern + r"\.ipynb", name):
            found = match.groupdict()
            student = found.get("id") or _dotted(found["name"])
            return student or None, found["ps"] if student else None
    return None, None


def _dotted(name):
    """Ada Lovelace: ada.lovelace; without accents."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", ".", plain).strip(".")


def _notebooks(files):
    """(name, function that reads it) of every notebook; of one that is too large only so much that it shows."""
    if files.is_dir():
        for path in sorted(files.rglob("*.ipynb")):
            if path.is_file() and not path.is_symlink():
                yield (
                    path.relative_to(files).as_posix(),
                    lambda path=path: path.open("rb").read(LARGEST + 1),
                )
        return
    with zipfile.ZipFile(files) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".ipynb") and not info.is_dir():
                yield info.filename, lambda info=info: archive.open(info).read(LARGEST + 1)
