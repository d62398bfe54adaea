"""What store and sweep ask of a run: a name made of all that decides its result, and a way to do it."""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import fields, is_dataclass

from ..checkpoint import CONFIGS
from ..kernels.threads import single_threaded_blas


class Run:
    """Base of the frozen dataclasses that describe a run completely. `steps` counts its training steps.

    train(parent) -> measured (a dict for JSON), params, config is a pure function of the fields. params is None
    where no other run starts from them. `parent`, a field where a run goes on from another, is that run, and
    train is given (params, config) as it left them; a text model's, since `checkpoint` writes them.
    """

    parent = None

    def to_json(self):
        """All that decides the result, as JSON can say it; a parent is named by its key."""
        return _plain(self, is_whole=True)

    def key(self):
        """Hash of all that decides the result."""
        return key_of(self.to_json())


def key_of(said):
    """The name of the run whose `to_json` says this."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def brief(config):
    """What `to_json` says of a config, without what is the default: fields that it may get later change no key."""
    defaults = {each.name: each.default for each in fields(CONFIGS[config["kind"]])}
    return {name: value for name, value in config.items() if name not in defaults or value != defaults[name]}


def do_run(run, parent=None):
    """Do one run; returns its record (a dict for JSON), params and config.

    BLAS runs on one thread, so that a run in a pool has the same bits as one outside.
    """
    start = time.perf_counter()
    with single_threaded_blas(), no_bars():
        measured, params, config = run.train(parent)
    seconds = round(time.perf_counter() - start, 2)
    return {"key": run.key(), "stage": run.to_json(), "seconds": seconds, **measured}, params, config


@contextlib.contextmanager
def no_bars():
    """The sweep has bars for all runs together."""
    before = os.environ.get("MINITF_PROGRESS")
    os.environ["MINITF_PROGRESS"] = "0"
    try:
        yield
    finally:
        os.environ.pop("MINITF_PROGRESS") if before is None else os.environ.update(MINITF_PROGRESS=before)


def _plain(value, is_whole=False):
    if isinstance(value, Run) and not is_whole:
        return value.key()
    if is_dataclass(value):
        return {"kind": type(value).__name__} | {
            f.name: _plain(getattr(value, f.name)) for f in fields(value)
        }
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
