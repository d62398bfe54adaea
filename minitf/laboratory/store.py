"""Finished runs on disk: a run that is here never runs again.

    runs.jsonl        one line of JSON per run, appended and flushed to the disk
    weights/KEY.safetensors    what a later stage starts from

A line that a kill cut short is dropped on opening; weights are written before their line, so a run that has a
line has its weights.
"""

import json
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, do not start two sweeps at once
    fcntl = None

from .. import checkpoint


class Store:
    """The records of a folder, by key; open it in a `with` statement: only one process may write at a time.

    Raises RuntimeError where another process has the folder open.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "weights").mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "runs.jsonl"
        self.file = self.path.open("a+b")
        try:
            if fcntl is not None:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise RuntimeError(f"another sweep is writing to {self.folder}: wait for it or stop it") from None
        self.records = self._read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()  # and with it goes the lock

    def _read(self):
        self.file.seek(0)
        text = self.file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            self.file.truncate(whole)
        records = (json.loads(line) for line in text[:whole].splitlines())
        return {record["key"]: record for record in records}

    def __contains__(self, stage):
        return stage.key() in self.records

    def __getitem__(self, stage):
        return self.records[stage.key()]

    def weights_path(self, stage):
        return self.folder / "weights" / f"{stage.key()}.safetensors"

    def has_weights(self, stage):
        return self.weights_path(stage).exists()

    def load_weights(self, stage):
        return checkpoint.load(self.weights_path(stage))

    def save(self, stage, record, params, config):
        """Keep a finished run. The weights of a known run may be written again, its record may not.

        params: a text model's, or None where no other run starts from them.
        """
        if params is not None:
            checkpoint.save(self.weights_path(stage), params, config)
        if stage in self:
            return
        self.add(record)

    def add(self, record):
        """Append a record; the weights are somewhere else, or nowhere."""
        line = json.dumps(record)
        self.file.write(line.encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.records[record["key"]] = json.loads(line)  # as it will be read: a tuple has become a list
