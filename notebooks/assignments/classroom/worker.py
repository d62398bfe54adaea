"""The submission's side: runs its cells and answers for its functions. Started inside of the confinement.

    python worker.py SECONDS MEMORY FILE_SIZE     (processor seconds per request, bytes, bytes)

Standard input is a socket: every line that comes is a request, every line that goes a reply; see `student`.
"""

import contextlib
import io
import json
import os
import resource
import signal
import socket
import sys
import warnings

import numpy as np
import wire
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

TEXT = 20_000  # characters of printed text that are kept
SHOWN = {"text/plain": TEXT, "image/png": 2_000_000}  # of what a cell displays


class Worker:
    def __init__(self, requests, replies, seconds):
        self.requests, self.replies, self.seconds = requests, replies, seconds
        no_history = {"HistoryManager": {"enabled": False}}
        self.shell = InteractiveShell.instance(config=Config(no_history))
        self.shell.displayhook.write_output_prompt = lambda: None  # a cell's value without "Out[0]: "
        self.kept = []  # things that do not travel; a reference is a position in this list

    def serve(self):
        for line in self.requests:
            request = json.loads(line)
            self._send(getattr(self, request.pop("do"))(**request))

    # ------------------------------------------------------------------ what can be asked

    def run(self, source):
        """Run a cell; its outputs in nbformat's words."""
        tracebacks = []
        self.shell._showtraceback = lambda kind, error, lines: tracebacks.append(list(lines))
        with capture_output(stdout=False, stderr=False) as displayed, printing() as printed:
            try:
                with Clock(self.seconds):
                    result = self.shell.run_cell(source)
                error = result.error_before_exec or result.error_in_exec
            except BaseException as stopped:  # SystemExit, or the clock while IPython itself ran
                error = stopped
        outputs = [
            {"output_type": "stream", "name": name, "text": stream.getvalue()}
            for name, stream in printed.items()
        ]
        outputs += [_shown(each.data) for each in displayed.outputs]
        if error:
            name, message = _error(error)
            lines = tracebacks[0] if tracebacks else [f"{name}: {message}"]
            outputs += [{"output_type": "error", "ename": name, "evalue": message, "traceback": lines}]
        return {"outputs": outputs}

    def look_up(self, names):
        """The values of those names that the notebook defines."""
        return {
            "values": self._encode(
                {name: self.shell.user_ns[name] for name in names if name in self.shell.user_ns}
            )
        }

    def bind(self, name, value):
        self.shell.user_ns[name] = self._decode(value)
        return {}

    def call(self, function, arguments, errors):
        """Call a kept function: its result or error, its arguments if it changed them, and its warnings."""
        given = self._decode(arguments)
        before = json.dumps(self._encode(given))
        value = error = None
        with warnings.catch_warnings(record=True) as caught, printing(), np.errstate(**errors):
            warnings.simplefilter("always")
            try:
                with Clock(self.seconds):
                    value = self._encode(self.kept[function](*given[0], **given[1]))
            except BaseException as raised:
                error = _error(raised)
        left = self._encode(given)
        left = None if json.dumps(left) == before else left
        warned = [[w.category.__name__, str(w.message)] for w in caught[:10]]
        return {"value": value, "error": error, "left": left, "warned": warned}

    # ------------------------------------------------------------------ how

    def _encode(self, thing):
        return wire.encode(thing, self._refer)

    def _decode(self, value):
        return wire.decode(value, self._resolve, self.shell.user_ns)

    def _refer(self, thing):
        if isinstance(thing, Remote):
            return {"grader": thing.number}
        self.kept.append(thing)
        items = self._encode(list(thing)) if isinstance(thing, tuple) else None
        return {"student": [len(self.kept) - 1, type(thing).__name__, callable(thing), items]}

    def _resolve(self, value):
        [(whose, content)] = value.items()
        return self.kept[content] if whose == "student" else Remote(self, content)

    def _send(self, reply):
        self.replies.write(json.dumps(reply).encode() + b"\n")
        self.replies.flush()

    def ask_grader(self, number, arguments):
        """Call a function of the grader, in the middle of a call from it."""
        self._send({"callback": [number, self._encode(arguments)]})
        answer = json.loads(self.requests.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return self._decode(answer["value"])


class Remote:
    """A function that lives with the grader."""

    def __init__(self, worker, number):
        self.worker, self.number = worker, number

    def __call__(self, *args, **kwargs):
        return self.worker.ask_grader(self.number, (args, kwargs))


class OutOfTime(BaseException):
    """Not an Exception, so that a notebook that catches those does not catch this by mistake."""


class Clock:
    """OutOfTime after so many seconds of processor time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        signal.signal(signal.SIGPROF, self._stop)
        signal.setitimer(signal.ITIMER_PROF, self.seconds, 1)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _stop(self, *_):
        raise OutOfTime(f"ran for more than {self.seconds:g} s")


class Short(io.StringIO):
    """Forgets what is printed after the first so many characters."""

    def write(self, text):
        super().write(text[: TEXT - self.tell()])
        return len(text)


@contextlib.contextmanager
def printing():
    """Collect what is printed: {name: stream}."""
    streams = {"stdout": Short(), "stderr": Short()}
    with contextlib.redirect_stdout(streams["stdout"]), contextlib.redirect_stderr(streams["stderr"]):
        yield streams


def _shown(data):
    kept = {kind: str(data[kind])[:most] for kind, most in SHOWN.items() if kind in data}
    return {"output_type": "display_data", "data": kept, "metadata": {}}


def _error(error):
    try:
        message = str(error)
    except BaseException:
        message = ""
    name = "TimeoutError" if isinstance(error, OutOfTime) else type(error).__name__
    return [name, message[:1000]]


def limit(seconds, memory, file_size):
    """Hard limits, which nothing that runs later can raise again."""
    limits = {resource.RLIMIT_CPU: 10 * seconds, resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: file_size}
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main():
    seconds, memory, file_size = (int(word) for word in sys.argv[1:])
    grader = socket.socket(fileno=os.dup(0))
    requests, replies = grader.makefile("rb"), grader.makefile("wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # what C code reads or prints must not mix with requests and replies
        os.dup2(nowhere, standard)
    sys.stdin = io.StringIO()
    sys.argv = ["notebook"]
    limit(seconds, memory, file_size)
    Worker(requests, replies, seconds).serve()


if __name__ == "__main__":
    main()
