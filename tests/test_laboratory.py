"""Experiments: a run is a function of its stage, finished runs stay, and nothing runs twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_experiment

from minitf import count_layer_parameters, training_flops, tree_items
from minitf.laboratory import (
    RECIPES,
    Growth,
    InProcess,
    Stage,
    Store,
    continued,
    do_run,
    grown,
    sweep,
    widened,
)
from minitf.laboratory import command as command_line
from minitf.laboratory.lineages import matching_tokens, tokenformer, transformer
from minitf.laboratory.recipes import fade_in, key_spread

SIZES = (("attention_tokens", 12), ("ffn_tokens", 48))
BASE = Stage(3, 1e-2, config=tokenformer(5, d_model=20), batch_size=4, eval_points=2, eval_windows=8)


def tiny_chain(seed=0):
    base = replace(BASE, seed=seed)
    first = replace(base, config=None, parent=base, growth=Growth("annealed", SIZES))
    return base, first, replace(first, parent=first, growth=None)


def without_time(record):
    return {name: value for name, value in record.items() if name != "seconds"}


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    monkeypatch.setattr("minitf.laboratory.stage.FINAL_WINDOWS", 16)
    monkeypatch.setattr("minitf.laboratory.stage.BIRTH_WINDOWS", 4)


def test_the_same_stage_gives_the_same_bits():
    runs = [do_run(BASE) for _ in range(2)]
    assert without_time(runs[0][0]) == without_time(runs[1][0])
    for (name, a), (_, b) in zip(tree_items(runs[0][1]), tree_items(runs[1][1]), strict=True):
        assert np.array_equal(a, b), name


def test_another_number_is_another_run():
    keys = {BASE.key(), *(stage.key() for stage in tiny_chain()[1:])}
    for change in ({"steps": 4}, {"peak_lr": 2e-2}, {"seed": 1}, {"batch_size": 5}, {"eval_windows": 9}):
        keys.add(replace(BASE, **change).key())
    for recipe in RECIPES:
        keys.add(replace(tiny_chain()[1], growth=Growth(recipe, SIZES)).key())
    keys.add(replace(tiny_chain()[1], parent=replace(BASE, steps=9)).key())
    assert len(keys) == 3 + 5 + len(RECIPES) - 1 + 1  # "annealed" is in the chain already


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "net2net"])
def test_recipes_grow_to_the_size_and_keep_their_promise(recipe):
    params, config = do_run(BASE)[1:]
    stage = replace(tiny_chain()[1], growth=Growth(recipe, SIZES))
    record, params, config = do_run(stage, (params, config))
    assert (config.attention_tokens, config.ffn_tokens) == (12, 48)
    assert (record["birth"]["max_logit_change"] < 1e-4) == RECIPES[recipe].exact
    assert len(params["block_0"]["ffn"]["key"]) == 48


def test_tau_ends_where_the_recipe_says():
    params, config = do_run(BASE)[1:]
    for recipe, tau in (("held", 20**0.5), ("annealed", 48**0.5), ("release", 48**0.5), ("copies", 48**0.5)):
        stage = replace(tiny_chain()[1], growth=Growth(recipe, SIZES))
        assert do_run(stage, (params, config))[2].tau("ffn") == pytest.approx(tau)


def test_keys_fade_in_to_the_spread_of_the_trained_ones():
    params, config = do_run(BASE)[1:]
    grown_params, grown_config = RECIPES["faded keys"].grow(params, config, dict(SIZES), seed=0)
    after_step = fade_in(grown_params, grown_config, config, 10, seed=0)
    for step in range(20):
        after_step(grown_params, step)
    key = grown_params["block_0"]["ffn"]["key"]
    assert np.array_equal(key[:20], params["block_0"]["ffn"]["key"])
    assert key[20:].std() == pytest.approx(key_spread(params), rel=0.1)


def test_flops_are_those_of_the_formula():
    record, _, config = do_run(BASE)
    assert record["flops"] == BASE.steps * BASE.batch_size * training_flops(config, config.context)


def test_lineages():
    base = Stage(10, 1e-2, seed=3, config=tokenformer(20))
    chain = grown(base, "release", (45, 125), 2, 5e-3)
    assert [dict(stage.growth.sizes)["ffn_tokens"] for stage in chain] == [180, 500]
    assert chain[1].parent is chain[0] and chain[0].parent is base and chain[1].seed == 3
    assert len({stage.lineage_seed() for stage in (base, *chain)}) == 3  # each reads other batches
    assert [stage.growth for stage in continued(base, 2, 2, 5e-3)] == [None, None]
    assert dict(widened(base, (60,), 2, 5e-3)[0].growth.sizes) == {"d_model": 60, "d_ff": 240}
    for width in (40, 60, 100, 120):
        sizes = [
            count_layer_parameters(c) for c in (transformer(width), tokenformer(matching_tokens(width, 60)))
        ]
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"config": None}, "config or from a parent"),
        ({"growth": Growth("release", SIZES)}, "only a stage with a parent"),
        ({"peak_lr": -1}, "peak_lr"),
        ({"eval_points": 0}, "eval_points"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BASE, **change)


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match="release"):
        Growth("magic", SIZES)


# ------------------------------------------------------------------------------------------------ store


class Counting(InProcess):
    """Counts the runs that it is asked for."""

    count = 0

    def submit(self, *args):
        self.count += 1
        return super().submit(*args)


def test_a_sweep_runs_parents_first_and_nothing_twice(tmp_path):
    base, first, second = tiny_chain()
    executor = Counting()
    with Store(tmp_path) as store:
        records = sweep([second, first], store, executor)
        assert [record["key"] for record in records] == [second.key(), first.key()]
        assert executor.count == 3 and base in store
    with Store(tmp_path) as store:
        assert sweep([first, second], store, executor) == records[::-1]
        assert executor.count == 3


def test_missing_weights_are_made_again_and_the_record_is_not(tmp_path):
    base, first, second = tiny_chain()
    executor = Counting()
    with Store(tmp_path) as store:
        sweep([first], store, executor)
        store.weights_path(base).unlink()
        store.weights_path(first).unlink()
        sweep([second], store, executor)
        assert executor.count == 2 + 3
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 3


def test_a_line_that_was_cut_short_is_dropped(tmp_path):
    with Store(tmp_path) as store:
        sweep([BASE], store)
    text = (tmp_path / "runs.jsonl").read_bytes()
    for cut in (0, 1, len(text) // 2, len(text) - 1):
        (tmp_path / "runs.jsonl").write_bytes(text + text[:cut])
        with Store(tmp_path) as store:
            assert list(store.records) == [BASE.key()]
            store.add({"key": "next"})
        lines = (tmp_path / "runs.jsonl").read_text().splitlines()
        assert [json.loads(line)["key"] for line in lines] == [BASE.key(), "next"]


def test_two_sweeps_do_not_write_to_one_store(tmp_path):
    with Store(tmp_path), pytest.raises(RuntimeError, match="another sweep"):
        Store(tmp_path)
    with Store(tmp_path):
        pass


def test_an_error_in_a_run_is_raised_and_the_others_are_kept(tmp_path):
    bad = (
        replace(BASE, peak_lr=1e30, max_norm=1e30)
        if hasattr(BASE, "max_norm")
        else replace(BASE, peak_lr=1e38)
    )
    with Store(tmp_path) as store:
        with pytest.raises(ArithmeticError, match="peak_lr"):
            sweep([BASE, bad], store)
        assert BASE in store and bad not in store


@pytest.mark.parametrize(
    "arguments, is_stored",
    [
        ([], True),
        (["--workers=2"], True),
        (["--redraw"], True),
        (["--budget=quick"], False),
        (["--base-steps=7000"], False),
    ],
)
def test_only_the_plan_of_the_stored_result_replaces_it(arguments, is_stored):
    script = small_experiment.load("cost_curves")
    plans = {"full": script.Plan(), "quick": script.QUICK}
    options, _ = command_line.parse("", plans, script.STEM, arguments)
    assert (options.out == script.STEM) == is_stored
    assert options.out.name == "cost_curves"


# ------------------------------------------------------------------------------- kills, pools and clusters

FIGURES = Path(__file__).parents[1] / "figures"
TINY = [
    "--budget=quick",
    "--base-steps=20",
    "--widths=20,40",
    "--d-token=20",
    "--batch-size=2",
    "--context=16",
]


def start(folder, *options):
    """The quick cost curves, smaller still, as a process of their own."""
    command = [sys.executable, str(FIGURES / "cost_curves.py"), *TINY, *options]
    command += ["--store", str(folder / "store"), "--out", str(folder / "curves")]
    environment = {**os.environ, "PYTHONPATH": str(FIGURES.parent), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def results(folder):
    """What was measured, without times and the command."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k != "command"}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "curves.json").read_text()))


def runs(folder):
    path = folder / "store" / "runs.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["key"] for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder))
    return folder


def test_a_sweep_that_is_killed_ten_times_ends_with_the_same_results(undisturbed, tmp_path):
    rng, kills = random.Random(0), 0
    while kills < 10:
        process = start(tmp_path, "--workers", "2") if kills % 3 == 2 else start(tmp_path)
        before, deadline = len(runs(tmp_path)), time.monotonic() + 60
        while len(runs(tmp_path)) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)  # something new was finished: now it may be hit anywhere
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is not None:
            break  # it was through before it could be killed ten times
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    finish(start(tmp_path))
    assert kills >= 5
    assert results(tmp_path) == results(undisturbed)
    assert sorted(runs(tmp_path)) == sorted(runs(undisturbed))  # as a list: each run once


def test_a_dask_cluster_that_loses_a_worker_ends_with_the_same_results(undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    address, environment = "tcp://127.0.0.1:18786", {**os.environ, "PYTHONPATH": str(FIGURES.parent)}

    def dask(*arguments):
        command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def worker():
        options = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path))
        return dask("worker", address, *options)

    cluster = [dask("scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard")]
    try:
        cluster += [worker(), worker()]
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        process = start(tmp_path, "--scheduler", address)
        while len(runs(tmp_path)) < 3 and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(cluster[1].pid, signal.SIGKILL)
        finish(process)
    finally:
        for member in cluster:
            os.killpg(member.pid, signal.SIGKILL)
            member.wait()
    assert results(tmp_path) == results(undisturbed)
    assert sorted(runs(tmp_path)) == sorted(runs(undisturbed))
