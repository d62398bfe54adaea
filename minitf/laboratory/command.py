"""The command line that every experiment has: any constant can be changed, runs go anywhere, nothing is lost."""

import argparse
import contextlib
import json
import os
import platform
from dataclasses import asdict, field, fields, replace
from pathlib import Path

import numpy as np

from .run import brief
from .stage import Stage
from .store import Store
from .sweep import process_pool, sweep
from .verdict import (
    Results,
    directions_table,
    headline_rows,
    predictions_table,
    verdict_table,
    write_section,
)

STORE = Path("build") / "laboratory"  # one for all experiments: what one has run, another need not
OWN = Path("build") / "figures"  # of plans other than the default: they replace no stored result
STAGE_DEFAULTS = {each.name: each.default for each in fields(Stage)}


def constant(default, help):
    """A field of a plan: a dataclass with all constants of an experiment. help goes to the command line."""
    return field(default=default, metadata={"help": help})


def main(stem, description, plans, run, draw, arguments=None, claims=(), results=Results):
    """Parse the command line, run what is missing, write stem.json, judge the claims and draw it.

    plans: {name of a budget: plan}, the first one is the default; run(plan, sweep) -> dict for JSON, where
    sweep(stages) returns their records; draw(stem) draws from stem.json, where "runs" has a summary of every run by
    its key. Runs in the JSON of any figure beside stem count as finished. claims are judged on results(measured), and
    predictions and verdict written to stem.md where there is one. Refuses a plan that raises ValueError.
    """
    options, plan = parse(description, plans, stem, arguments)
    if options.predictions:
        write_section(options.out.with_suffix(".md"), "predictions", predictions_table(claims))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not options.redraw:
        measured = {
            "command": command(stem, plans, plan),
            "plan": asdict(plan),
            "versions": {"python": platform.python_version(), "numpy": np.__version__, **_numba()},
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        }
        runs = {}
        with Store(options.store) as store, executor_of(options) as executor:
            learn(store, stem.parent)

            def recorded(stages, description="runs"):
                stages = list(stages)
                records = sweep(stages, store, executor, description)
                runs.update((stage.key(), summary(store[stage])) for stage in with_parents(stages, store))
                return records

            measured |= run(plan, recorded)
        measured |= {"runs": runs} if runs else {}
        measured |= {"headlines": rows} if (rows := headline_rows(claims, results(measured))) else {}
        write_json(options.out.with_suffix(".json"), measured)
    if not options.out.with_suffix(".json").exists():
        print(f"{options.out.name}: not measured yet, python figures/{stem.name}.py does it")
        return
    if claims:
        publish(options.out, claims, results, is_stored=options.out == stem)
    draw(options.out)
    if options.out != stem:
        print(f"written: {options.out}.json, .png and .svg")


def with_parents(stages, store):
    """The stages and, from the last to the first, the stored ones that they go on from."""
    for stage in stages:
        while stage is not None and stage in store:
            yield stage
            stage = stage.parent


def publish(stem, claims, results, is_stored):
    """Print the verdict on stem.json and keep it in stem.md; README has the headlines of what is stored."""
    table = verdict_table(claims, results(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))))
    print(table)
    if stem.with_suffix(".md").exists():
        write_section(stem.with_suffix(".md"), "verdict", table)
    if is_stored:
        write_section(stem.parents[1] / "README.md", "directions", directions_table(stem.parent))


def command(stem, plans, plan):
    """What to type for this plan, wherever its runs go."""
    default = next(iter(plans.values()))
    changed = [each.name for each in fields(plan) if getattr(plan, each.name) != getattr(default, each.name)]
    options = [f"--{name.replace('_', '-')} {_shown(getattr(plan, name))}" for name in changed]
    return " ".join([f"python figures/{stem.name}.py", *options])


def _shown(value):
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f'"{text}"' if " " in text else text


def learn(store, folder):
    """Take the runs that the figures of a folder have stored for finished ones."""
    for path in sorted(folder.glob("*.json")):
        for key, record in json.loads(path.read_text(encoding="utf-8")).get("runs", {}).items():
            store.records.setdefault(key, record)


def summary(record):
    """A record without what is the default anyway: small enough to store hundreds."""
    if "kind" in record["stage"]:  # a run of its own kind, said in full
        return record
    stage = {k: v for k, v in record["stage"].items() if v is not None and v != STAGE_DEFAULTS.get(k)}
    if "config" in stage:
        stage["config"] = brief(stage["config"])
    return {k: v for k, v in record.items() if v is not None} | {"stage": stage}


def parse(description, plans, stem, arguments=None):
    """The options, and the plan that they describe."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    first = next(iter(plans.values()))
    parser.add_argument("--budget", choices=list(plans), default=next(iter(plans)), help="plan to start from")
    for each in fields(first):
        is_tuple = isinstance(each.default, tuple)
        kind = type(each.default[0]) if is_tuple else type(each.default)
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=_several(kind) if is_tuple else kind,
            help=f"{each.metadata['help']} ({next(iter(plans))}: {_shown(each.default)})",
        )
    parser.add_argument(
        "--store", type=Path, default=STORE, help=f"folder of finished runs (default {STORE})"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where to write .json, .png and .svg (default: beside the script; {OWN} for another plan)",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 (default) runs in this one")
    parser.add_argument("--scheduler", help="tcp://host:port of a Dask scheduler, to run on a cluster")
    parser.add_argument("--redraw", action="store_true", help="run nothing, draw from the stored JSON")
    parser.add_argument(
        "--predictions", action="store_true", help="run nothing, write the claims into the page beside --out"
    )
    options = parser.parse_args(arguments)
    changed = {
        each.name: getattr(options, each.name)
        for each in fields(first)
        if getattr(options, each.name) is not None
    }
    try:
        if options.workers < 0:
            raise ValueError(f"{options.workers} workers: 0 runs in this process, 2 in two others")
        plan = replace(plans[options.budget], **changed)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    if options.out is None:
        options.out = stem if plan == first or options.redraw or options.predictions else OWN / stem.name
    return options, plan


def _several(kind):
    def convert(text):
        return tuple(kind(part) for part in text.split(","))

    convert.__name__ = f"list of {kind.__name__}"  # argparse names it where a value does not fit
    return convert


@contextlib.contextmanager
def executor_of(options):
    """The Executor that the options ask for; None runs in this process."""
    if options.scheduler:
        try:
            from dask.distributed import Client
        except ImportError:
            raise SystemExit("--scheduler needs Dask: pip install 'minitf[cluster]'") from None
        with Client(options.scheduler) as client:
            yield client.get_executor(retries=10)  # a worker that dies takes its run with it, not the sweep
    elif options.workers:
        with process_pool(options.workers) as pool:
            yield pool
    else:
        yield None


def write_json(path, measured):
    """Write it whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(measured) + "\n", encoding="utf-8")
    new.replace(path)


def _numba():
    try:
        import numba
    except ImportError:
        return {}
    return {"numba": numba.__version__}
