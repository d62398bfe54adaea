"""Nothing is lost: processes are killed (SIGKILL) while they save and while they train; disks fill, folders lock.

A process can be killed only once, so there must be many. This file is also a program that imports minitf once,
forks a child for every kill, and prints what it counted:

    python tests/test_kill.py saves 5000     # kill so many processes while they save
    python tests/test_kill.py steps 500      # kill so many processes while they train, and resume
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import fingerprint, tokenformer, transformer

from minitf import checkpoint, data, grow, grow_state, init_params, net2net_widen, optim, train
from minitf.checkpoint import CheckpointError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
ROOT = Path(checkpoint.__file__).parents[1]


def run_this_file(*arguments):
    """Run this file as a program; returns what it counted."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MINITF_PROGRESS": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def fork(work):
    """Start work(say) in a child; returns its pid and the pipe that says what `say` wrote, a byte at a time."""
    reads, writes = os.pipe()
    with (
        warnings.catch_warnings()
    ):  # Python warns of threads, here those of BLAS, which the child will not use
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(writes)
        return pid, reads
    os.close(reads)
    status = 1
    try:
        work(lambda: os.write(writes, b"."))
        status = 0
    finally:
        os._exit(status)


def kill(child, after):
    """SIGKILL a child so many seconds from now; returns its exit status, -9 unless it was done before."""
    pid, pipe = child
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.close(pipe)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---------------------------------------------------------------------------------------- killed while saving

SIZES = {"d_model": 64, "vocab_size": 500, "n_layers": 1}  # 300 kB, so that writing takes a while
MODELS = [
    (init_params(config), config)
    for config in (tokenformer(**SIZES), transformer(d_ff=64, tied=False, **SIZES))
]
MOMENTS = ("before the file", "half written", "before fsync", "before rename", "after rename")


def save_forever(path, first, say):
    for i in range(first, 10**9):
        checkpoint.save(path, *MODELS[i % 2])
        say()


def save_and_die(path, moment, say):
    """Save the second model, and be killed at a moment that a random one would seldom meet."""

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    class HalfFile:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            die()

    if moment == "before the file":
        checkpoint.open = die
    elif moment == "half written":
        checkpoint.open = lambda *arguments: HalfFile(open(*arguments))  # noqa: SIM115
    elif moment == "before fsync":
        os.fsync = die
    elif moment == "before rename":
        os.replace = die
    else:
        rename = os.replace
        os.replace = lambda *names: (rename(*names), die())
    checkpoint.save(path, *MODELS[1])


def model_in(path):
    """0 or 1, the model that a file holds bit for bit; any other content is an error."""
    params, config = checkpoint.load(path)
    return [(fingerprint(p), c) for p, c in MODELS].index((fingerprint(params), config))


def kill_saves(kills, seed=0):
    """Kill so many processes that save two models in turns; count what they left."""
    rng, found, seen = random.Random(seed), Counter(), set()
    folder = Path(tempfile.mkdtemp(prefix="minitf-kill-"))
    path = folder / "model.safetensors"
    checkpoint.save(path, *MODELS[0])
    started = time.perf_counter()
    for i in range(20):
        checkpoint.save(path, *MODELS[i % 2])
    one_save = (time.perf_counter() - started) / 20
    for i in range(kills):
        child = fork(partial(save_forever, path, i % 2))
        os.read(child[1], 1)  # it has saved once and goes on
        assert kill(child, rng.uniform(0, 3 * one_save)) == -signal.SIGKILL
        found[f"model {model_in(path)}"] += 1
        left = {p for p in folder.iterdir() if p != path} - seen
        found["temporary files left"] += len(left)
        found["of these cut off"] += sum(p.stat().st_size < path.stat().st_size for p in left)
        seen |= left  # they stay: they must not hurt
    shutil.rmtree(folder)
    return found


def test_a_save_killed_at_any_of_200_random_moments_leaves_a_whole_model():
    found = run_this_file("saves", 200)
    assert found["model 0"] + found["model 1"] == 200
    assert found["model 0"] > 20 and found["model 1"] > 20
    assert found["temporary files left"] > 20  # so the kills did hit the middle of saves


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_save_killed_at_a_chosen_moment_leaves_a_whole_model(tmp_path, moment):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, *MODELS[0])
    pid, pipe = fork(partial(save_and_die, path, moment))
    os.close(pipe)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert model_in(path) == (moment == "after rename")
    left = [p.name for p in tmp_path.iterdir() if p != path]
    assert len(left) == (moment in ("half written", "before fsync", "before rename"))
    checkpoint.save(path, *MODELS[1])  # what is left does not hurt the next save
    assert model_in(path) == 1


def test_what_killed_saves_left_is_removed_by_a_later_save_when_it_is_an_hour_old(tmp_path):
    path = tmp_path / "model.safetensors"
    old, young, foreign = (
        tmp_path / name
        for name in (
            ".model.safetensors.0123abcd.tmp",
            ".model.safetensors.89ab4567.tmp",
            ".model.safetensors.tmp",
        )
    )
    for file in (old, young, foreign):
        file.write_bytes(b"cut off")
    hours_ago = time.time() - 2 * 3600
    for file in (old, foreign):
        os.utime(file, (hours_ago, hours_ago))
    checkpoint.save(path, *MODELS[0])
    assert sorted(tmp_path.iterdir()) == sorted(
        [path, young, foreign]
    )  # young: another process may be writing


# --------------------------------------------------------------------------------------- killed while training

IDS = np.tile(np.arange(10), 30)
SETTINGS = train.TrainConfig(steps=16, batch_size=2, peak_lr=1e-2, eval_every=5, eval_windows=4)
SMALL = {"tokenformer": tokenformer(n_layers=1), "transformer": transformer(n_layers=1)}


def train_grow_train(folder, kind, say=lambda: None):
    """Train, grow, train on with tau annealed and the optimizer's moments kept; resumes where a kill left off."""

    def batch(*arguments):
        say()  # a step begins
        return data.batch(*arguments)

    train.batch = batch
    run = partial(train.train_model, ids=IDS, heldout_ids=IDS[:50], checkpoint_every=3, resume=True)
    config = SMALL[kind]
    small = run(init_params(config), config, settings=SETTINGS, checkpoint_path=folder / "small")
    if kind == "tokenformer":
        params, config = grow(small.params, small.config, attention_tokens=8, ffn_tokens=12)
        state, settings = grow_state(small.state, params), replace(SETTINGS, anneal_share=0.7, seed=1)
    else:
        params, config = net2net_widen(small.params, small.config, d_model=16, d_ff=20)
        state, settings = optim.adamw_init(params), replace(SETTINGS, seed=1)
    return run(params, config, settings=settings, state=state, checkpoint_path=folder / "grown")


def kill_steps(kills, kind, seed=0):
    """Run train_grow_train again and again, killed at random steps until so many kills; compare every end."""
    rng, found = random.Random(seed), Counter()
    whole = Path(tempfile.mkdtemp(prefix="minitf-whole-"))
    started = time.perf_counter()
    train_grow_train(whole, kind)
    one_step = (time.perf_counter() - started) / (2 * SETTINGS.steps)
    while found["kills"] < kills:
        folder = Path(tempfile.mkdtemp(prefix="minitf-resumed-"))
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            child = fork(partial(train_grow_train, folder, kind))
            for _ in range(rng.randint(1, 12)):  # let it begin so many steps
                os.read(child[1], 1)
            status = kill(child, rng.uniform(0, 2 * one_step))
            stage = "grown" if (folder / "grown").exists() else "small"
            found["kills"] += status == -signal.SIGKILL
            found[f"kills while {stage}"] += status == -signal.SIGKILL
        assert status == 0, f"a resumed run ended with status {status}"
        for name in ("small", "grown"):  # parameters, moments, step, losses, history, tau: the same bytes
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
        found["runs"] += 1
        shutil.rmtree(folder)
    shutil.rmtree(whole)
    return found


@pytest.mark.parametrize("kind", SMALL)
def test_a_run_killed_at_random_steps_and_resumed_ends_with_the_same_bytes_across_growth(kind):
    found = run_this_file("steps", 30, kind)
    assert found["runs"] >= 2 and found["kills"] >= 30
    assert found["kills while small"] >= 5 and found["kills while grown"] >= 5


# -------------------------------------------------------------------------------------- full and locked disks


@pytest.fixture
def disk(tmp_path):
    """A disk of 800 kB: two of the models fit, a third does not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=800k", "tmpfs", folder]).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def assert_old_file_survives(path, reason):
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=f"model.safetensors could not be written, .*untouched: {reason}"
    ):
        checkpoint.save(path, *MODELS[1])
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_full_disk_leaves_the_old_file_and_says_so(disk):
    path, ballast = disk / "model.safetensors", disk.parent / "ballast"
    checkpoint.save(path, *MODELS[0])
    (disk / "ballast").write_bytes(bytes(400_000))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="untouched: No space left on device"):
        checkpoint.save(path, *MODELS[1])
    assert path.read_bytes() == before and sorted(os.listdir(disk)) == [ballast.name, path.name]
    (disk / "ballast").unlink()
    checkpoint.save(path, *MODELS[1])
    assert model_in(path) == 1


def test_a_read_only_disk_leaves_the_old_file_and_says_so(disk):
    checkpoint.save(disk / "model.safetensors", *MODELS[0])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert_old_file_survives(disk / "model.safetensors", "Read-only file system")


def in_a_child(work):
    """Run work() in a forked child, where limits and users may be changed; fails with the child's error."""
    with tempfile.TemporaryFile("w+") as report:

        def careful(say):
            try:
                work()
            except BaseException as error:
                report.write(repr(error))
                report.flush()
                raise

        pid, pipe = fork(careful)
        os.close(pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        report.seek(0)
        assert status == 0, report.read()


def test_a_file_beyond_the_size_limit_leaves_the_old_file_and_says_so(tmp_path):
    checkpoint.save(tmp_path / "model.safetensors", *MODELS[0])

    def save_with_a_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        assert_old_file_survives(tmp_path / "model.safetensors", "File too large")

    in_a_child(save_with_a_limit)


def test_a_locked_folder_leaves_the_old_file_and_says_so():
    folder = Path(tempfile.mkdtemp(prefix="minitf-locked-"))  # tmp_path is closed to other users
    path = folder / "model.safetensors"
    checkpoint.save(path, *MODELS[0])
    folder.chmod(0o555)

    def save_as_a_common_user():
        if os.getuid() == 0:
            os.setuid(65534)
        assert_old_file_survives(path, "Permission denied")

    try:
        in_a_child(save_as_a_common_user)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


if __name__ == "__main__":
    what, kills, *rest = sys.argv[1:]
    if what == "saves":
        counted = kill_saves(int(kills))
    else:
        counted = sum((kill_steps(int(kills), kind) for kind in rest or SMALL), Counter())
    print(json.dumps(counted))
