"""The grader's side of a submission's process: ask it to run cells, and use its functions as if they were here."""

import builtins
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import warnings

import numpy as np

from . import confine, wire

LONGEST = 16 << 20  # bytes of one reply
CHUNK = 1 << 16
PATIENCE = 3  # seconds to wait for a reply, for each second of processor time that it may take; and 30 more


class Ended(BaseException):
    """The submission's process is gone, or was ended for what it did; says why.

    Not an Exception: a test that catches what an answer raises must not catch this.
    """


class Student:
    """One process for one submission. Use it as a context manager."""

    def __init__(self, limits, trust=False):
        argv, descriptors, environment = confine.command(limits, trust)
        self.socket, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                env=environment,
                start_new_session=True,
            )
        finally:
            theirs.close()
            confine.close(descriptors)
        self.wait = PATIENCE * limits.seconds + 30
        self.received = b""
        self.lent = []  # functions of ours that it may call back
        self.records = {}  # a namespace of ours; its named tuples and those of the notebook are the same
        self.over = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()

    # ------------------------------------------------------------------ requests

    def run(self, source):
        """Run a cell; its outputs, in nbformat's words, but not to be trusted."""
        [outputs] = self._ask("outputs", do="run", source=source)
        with self._suspicion():
            return list(outputs)

    def look_up(self, names):
        """{name: value} of those names that the notebook defines; a function of it can be called."""
        [values] = self._ask("values", do="look_up", names=sorted(names))
        with self._suspicion():
            return {name: value for name, value in self._decode(values).items() if name in names}

    def bind(self, name, value):
        """Give a name in the notebook a value of ours."""
        self._ask(do="bind", name=name, value=self._encode(value))

    def call(self, function, args, kwargs):
        """What the submission's function returns or raises; arguments that it changes are changed here as well."""
        arguments = (args, kwargs)
        request = {"function": function, "arguments": self._encode(arguments), "errors": np.geterr()}
        wanted = ("value", "error", "left", "warned")
        value, error, left, warned = self._ask(*wanted, do="call", **request)
        for name, message in self._decode(warned):
            warnings.warn(message, _named(name, Warning), stacklevel=3)
        wire.write_back(arguments, self._decode(left))
        if error:
            name, message = self._decode(error)
            raise _named(name, Exception)(message)
        return self._decode(value)

    # ------------------------------------------------------------------ how

    def _ask(self, *wanted, **request):
        with self._suspicion():
            reply = self._exchange(request)
            while "callback" in reply:
                reply = self._exchange(self._answer(*reply["callback"]))
            return [reply[each] for each in wanted]

    def _answer(self, number, arguments):
        try:
            args, kwargs = self._decode(arguments)
            return {"value": self._encode(self.lent[number](*args, **kwargs))}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _exchange(self, message):
        if self.over:
            raise Ended(self.over)
        deadline = time.monotonic() + self.wait
        try:
            self.socket.settimeout(self.wait)
            self.socket.sendall(json.dumps(message).encode() + b"\n")
            while b"\n" not in self.received[-CHUNK:]:
                self.socket.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = self.socket.recv(CHUNK)
                if not chunk:
                    raise ConnectionResetError
                self.received += chunk
                if len(self.received) > LONGEST:
                    self._end(f"it returned more than {LONGEST >> 20} MiB")
        except TimeoutError:
            self._end(f"it did not answer within {self.wait} s")
        except ConnectionError:
            self._end("it ended its own Python process, or used more processor time or memory than it may")
        line, self.received = self.received.split(b"\n", 1)
        return json.loads(line)

    def _encode(self, thing):
        return wire.encode(thing, self._refer)

    def _decode(self, value):
        with self._suspicion():
            return wire.decode(value, self._resolve)

    @contextlib.contextmanager
    def _suspicion(self):
        """What comes from the process is what `worker` sends, or the notebook has tampered with it."""
        try:
            yield
        except Exception as error:
            self._end(f"it tampered with its connection to the grader ({type(error).__name__})")

    def _refer(self, thing):
        if isinstance(thing, Kept):
            return {"student": thing.number}
        if not callable(thing):
            raise TypeError(f"a test cannot pass a {type(thing).__name__} to a submission")
        self.lent.append(thing)
        return {"grader": len(self.lent) - 1}

    def _resolve(self, value):
        [(whose, content)] = value.items()
        if whose == "grader":
            return self.lent[content]
        number, kind, is_callable, items = content
        known = self.records.get(kind)
        if items is not None and isinstance(known, type) and wire.is_record(known):
            return known(*self._decode(items))
        bases = (KeptFunction,) if is_callable else (Kept,) if items is None else (Kept, tuple)
        kept = type(str(kind), bases, {})(*([] if items is None else [self._decode(items)]))
        kept.student, kept.number = self, int(number)
        return kept

    def _end(self, reason):
        self.over = self.over or reason
        self._stop()
        raise Ended(self.over)

    def _stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.socket.close()


class Kept:
    """Something of the submission's that stays with it: it can only be handed back."""

    def __deepcopy__(self, memo):
        return self


class KeptFunction(Kept):
    """A function of the submission's."""

    def __call__(self, *args, **kwargs):
        return self.student.call(self.number, args, kwargs)


def _named(name, kind):
    """The built-in exception of that name; what a notebook defines itself is just an exception here."""
    found = getattr(builtins, str(name), None)
    usual = isinstance(found, type) and issubclass(found, kind)
    takes_text = usual and not issubclass(found, UnicodeError | BaseExceptionGroup)
    return found if takes_text else kind
