"""The command that runs a Python program where it can reach nothing but Python, minitf and scratch space.

bubblewrap (Debian: `apt install bubblewrap`, 0.8 or newer) builds a new root out of read-only views of Python and
minitf. In it there is no network, no course, no gradebook, no other submission and no home; what is writable is in
memory, of limited size, and gone at the end. A seccomp filter refuses new processes. Memory, processor time and file
size are limited by the program itself, before it runs anything untrusted (`worker.limit`).
"""

import functools
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import minitf

SCRATCH = 64 << 20  # bytes in each of the three writable places
GRADER = "/grader"  # where a submission sees minitf and the worker
SYSTEM = ("/usr", "/etc/ld.so.cache", "/etc/alternatives")
HERE = Path(__file__).resolve().parent


class Limits(NamedTuple):
    """Of one submission. seconds: of processor time for a cell, and for a call; ten times that for the notebook."""

    seconds: int = 60
    memory: int = 2 << 30
    file_size: int = 16 << 20


DEFAULT = Limits()


def command(limits, trust=False):
    """(argv, descriptors to pass on, environment) of a worker, confined unless it is trusted.

    Raises RuntimeError where confinement is asked for and does not work here.
    """
    arguments = list(map(str, limits))
    if trust:
        here = os.pathsep.join(filter(None, sys.path))
        argv = [sys.executable, str(HERE / "worker.py"), *arguments]
        return argv, (), os.environ | QUIET | {"PYTHONPATH": here}
    require()
    argv, descriptors = _confined([sys.executable, f"{GRADER}/worker.py", *arguments])
    return argv, descriptors, ENVIRONMENT


def require():
    """Raise RuntimeError where submissions cannot be confined."""
    if reason := why_not():
        advice = "--trust runs them with your own rights"
        raise RuntimeError(f"cannot confine submissions: {reason}; {advice}")


@functools.cache
def why_not():
    """Why confinement does not work here; empty if it does."""
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    if platform.machine() not in ARCHITECTURES:
        return f"the filter of system calls is not written for {platform.machine()}"
    argv, descriptors = _confined([sys.executable, "-c", ""])
    run = subprocess.run(argv, pass_fds=descriptors, env=ENVIRONMENT, capture_output=True, text=True)
    close(descriptors)
    return f"bwrap says: {run.stderr.strip()}" if run.returncode else ""


def close(descriptors):
    """Close what `command` opened."""
    for descriptor in descriptors:
        os.close(descriptor)


def _confined(program):
    words = [shutil.which("bwrap"), "--unshare-user", "--unshare-all", "--disable-userns"]
    words += ["--die-with-parent", "--new-session", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    for path in ("/tmp", "/home/student"):
        words += ["--size", SCRATCH, "--tmpfs", path]
    for path in (*SYSTEM, sys.base_prefix, sys.prefix):
        words += ["--ro-bind-try", path, path]
    for path in (Path(minitf.__file__).parent, HERE / "worker.py", HERE / "wire.py"):
        words += ["--ro-bind", path, f"{GRADER}/{path.name}"]
    for path in map(Path, ("/bin", "/lib", "/lib64")):
        if path.is_symlink():  # into /usr, on all but old systems
            words += ["--symlink", os.readlink(path), path]
        elif path.exists():
            words += ["--ro-bind", path, path]
    words += ["--proc", "/proc", "--dev", "/dev", "--size", SCRATCH, "--tmpfs", "/dev/shm"]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/home/student"]
    seccomp = _seccomp()
    return [*map(str, words), "--seccomp", str(seccomp), "--", *program], (seccomp,)


QUIET = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MINITF_PROGRESS": "0",
    "MINITF_NUMBA": "0",  # it would compile for every submission anew
    # submissions run side by side, one to a core
    "OPENBLAS_NUM_THREADS": "1",
    "MINITF_NUM_THREADS": "1",
}
ENVIRONMENT = QUIET | {
    "HOME": "/home/student",
    "IPYTHONDIR": "/home/student",
    "MPLCONFIGDIR": "/tmp",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONPATH": GRADER,
}


# --------------------------------------------------------------- a filter of system calls that forbids new processes

# name of the machine: (its number in the kernel, clone, clone3, other calls that make a process)
ARCHITECTURES = {"x86_64": (0xC000003E, 56, 435, (57, 58)), "aarch64": (0xC00000B7, 220, 435, ())}
LOAD, IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, REFUSE, NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
CLONE_THREAD = 0x10000
X32 = 0x40000000  # from here on x86-64 has a second set of calls


def _seccomp():
    """A descriptor with the filter, a program of (code, steps if true, steps if false, operand)."""
    machine, clone, clone3, forks = ARCHITECTURES[platform.machine()]
    load_machine, load_call, load_flags = (LOAD, 0, 0, 4), (LOAD, 0, 0, 0), (LOAD, 0, 0, 16)
    program = [load_machine, (IF_EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL), load_call]
    program += [(IF_AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    # a filter cannot see the flags of clone3; where it does not exist, glibc starts threads by clone
    program += [(IF_EQUAL, 0, 1, clone3), (RETURN, 0, 0, NO_SUCH_CALL)]
    for call in forks:
        program += [(IF_EQUAL, 0, 1, call), (RETURN, 0, 0, REFUSE)]
    program += [(IF_EQUAL, 1, 0, clone), (RETURN, 0, 0, ALLOW), load_flags]
    program += [(IF_ANY_BIT, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
        file.seek(0)
        return os.dup(file.fileno())
