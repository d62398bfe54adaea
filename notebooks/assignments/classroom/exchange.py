"""nbgrader's collecting from its exchange, a folder into which students write what they like.

nbgrader itself follows a link, so a link to the source would come in as the right answer; about a submission under
somebody else's name it only warns; and one odd file stops the collecting, or the feedback, of everybody.
"""

import contextlib
import os
import pwd
import secrets
import stat
import tempfile
from datetime import datetime
from pathlib import Path

from nbgrader.exchange.default import ExchangeCollect

from .intake import LARGEST

NOBODY = {"username": None, "filename": None, "timestamp": datetime.min}
TIME, SECRET = "timestamp.txt", "submission_secret.txt"  # with the secret a student finds the feedback


class Collect(ExchangeCollect):
    """Takes the notebook, and nothing else, of each student's newest submission of their own."""

    def init_src(self):
        super().init_src()
        self.src_records = [record for record in self.src_records if record is not NOBODY]

    def _path_to_record(self, path):
        try:
            record = super()._path_to_record(path)
            if self.check_owner and pwd.getpwuid(os.lstat(path).st_uid).pw_name != record["username"]:
                raise PermissionError("its owner is somebody else")
        except Exception as problem:
            self.log.warning(f"left alone: {path}: {problem}")
            return NOBODY
        return record

    def do_copy(self, src, dest, log=None):
        with tempfile.TemporaryDirectory() as taken:
            self._take(Path(src), Path(taken))
            super().do_copy(taken, dest, log)

    def _take(self, source, target):
        folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            name = f"{self.coursedir.assignment_id}.ipynb"
            if content := _content(folder, name, LARGEST + 1):  # so that too much is seen to be too much
                (target / name).write_bytes(content)
            secret = _content(folder, SECRET, 1000) or secrets.token_bytes()
        finally:
            os.close(folder)
        (target / SECRET).write_text(secret.decode("ascii", "replace"))
        (target / TIME).write_text(source.name.rsplit("+", 3)[2])


def _content(folder, name, most):
    """The first bytes of an ordinary file; None for a link, a pipe, or what is not there."""
    with contextlib.suppress(OSError):
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with open(file, "rb") as opened:
            if stat.S_ISREG(os.fstat(file).st_mode):
                return opened.read(most)
    return None
