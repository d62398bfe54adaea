"""Digits in place of letters: Tokenformers and Transformers as image classifiers, from scratch and grown.

    python figures/digits.py --budget quick    one seed and short runs in under 3 minutes: shows that everything works
    python figures/digits.py                   the full one, on one core; goes on where it was stopped
    python figures/digits.py --redraw          draws and judges again from digits.json
    python figures/digits.py --predictions     writes the predictions into digits.md, before any run

Three sizes, with exactly as many parameters in the layers of both models. A grown Tokenformer starts from the
trained small one; its control trains the small one on for as many steps. Costs are FLOPs, counted from the matrix
products of a step. Finished runs are kept in build/laboratory/digits.
"""

import argparse
import hashlib
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import (
    FlopCounter,
    TokenformerConfig,
    TrainConfig,
    TransformerConfig,
    count_layer_parameters,
    evaluate_images,
    image_forward,
    image_loss_and_grads,
    init_image_params,
    load_digits,
    plot,
    train_image_model,
    tree_map,
)
from minitf.laboratory import RECIPES, Store
from minitf.laboratory.command import STORE, write_json, write_section
from minitf.train import progress

STEM = Path(__file__).with_suffix("")
ALT = (
    "Held-out accuracy (left) and loss (right) of digit classifiers against training FLOPs, three seeds each: "
    "Transformers and Tokenformers of three sizes from scratch, the smallest Tokenformer grown through the two larger "
    "sizes, and the same one trained on without growing. Gray lines mark the nearest neighbor and a linear classifier."
)

SIZES = (1, 2, 3)
PATCH_SIZE = 2  # 16 patches of an 8 x 8 image
NEIGHBORS = 3
SHARED = {"vocab_size": 10, "context": 16, "n_layers": 2, "n_heads": 4, "init_std": 0.1}
TRANSFORMERS = {
    size: TransformerConfig(d_model=d_model, d_ff=d_ff, **SHARED)
    for size, d_model, d_ff in ((1, 16, 64), (2, 24, 80), (3, 32, 128))
}
TOKENFORMERS = {
    size: TokenformerConfig(d_model=32, attention_tokens=n, ffn_tokens=4 * n, **SHARED)
    for size, n in ((1, 6), (2, 12), (3, 24))
}
RECIPE = "annealed"  # zero keys, tau held at birth and then moved to the root of n


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """How long and how often everything is trained."""

    steps: int = 800  # of a model from scratch
    stage_steps: int = 200  # of each stage that goes on from another
    seeds: tuple = (0, 1, 2)
    batch_size: int = 32
    peak_lr: float = 3e-3
    shift: int = 0  # pixels that training images move by at random: better, but needs more steps


QUICK = Plan(steps=200, stage_steps=50, seeds=(0,))


@dataclass(frozen=True)
class Run:
    """One training: of a new model or, with a parent, of the parent's model, grown to the size if it is smaller."""

    kind: str  # "Transformer" or "Tokenformer"
    size: int
    settings: TrainConfig
    shift: int
    parent: object = None  # a Run

    @property
    def config(self):
        return (TRANSFORMERS if self.kind == "Transformer" else TOKENFORMERS)[self.size]

    def key(self):
        """Hash of all that decides the result."""
        text = repr((self, self.config, PATCH_SIZE, RECIPE))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def arms(plan):
    """{name: {seed: [run, ...]}}, where every run goes on from the one before it."""

    def settings(steps, seed, anneal_share=0.0):
        every = max(1, steps // 5)
        return TrainConfig(
            steps, plan.batch_size, plan.peak_lr, anneal_share=anneal_share, eval_every=every, seed=seed
        )

    def chain(base, sizes, seed, anneal_share):
        runs = [base]
        for stage, size in enumerate(sizes, start=1):
            stage_settings = settings(plan.stage_steps, seed + stage, anneal_share)
            runs.append(Run("Tokenformer", size, stage_settings, plan.shift, runs[-1]))
        return runs

    table = {}
    for seed in plan.seeds:
        first = settings(plan.steps, 10 * seed)
        equal = settings(equal_steps(plan), 10 * seed)
        small = Run("Tokenformer", 1, first, plan.shift)
        of_seed = {
            f"{kind} {size}": [Run(kind, size, first, plan.shift)]
            for kind in ("Transformer", "Tokenformer")
            for size in SIZES
        } | {
            "grown": chain(small, (2, 3), 10 * seed, RECIPES[RECIPE].anneal_share),
            "not grown": chain(small, (1, 1), 10 * seed, 0.0),
            "Tokenformer 3, FLOPs of grown": [Run("Tokenformer", 3, equal, plan.shift)],
        }
        for name, runs in of_seed.items():
            table.setdefault(name, {})[seed] = runs
    return table


def equal_steps(plan):
    """Steps from scratch that give the largest Tokenformer the FLOPs of the grown chain."""
    one, two, three = (step_flops(TOKENFORMERS[size], plan.batch_size) for size in SIZES)
    return round((plan.steps * one + plan.stage_steps * (two + three)) / three)


# ----------------------------------------------------------------------------------------------- running


@cache
def digits():
    return load_digits("train"), load_digits("heldout")


@cache
def step_flops(config, batch_size):
    """FLOPs of the matrix products of one training step, counted while they run."""
    (images, labels), _ = digits()
    counter = FlopCounter()
    params = tree_map(counter.wrap, init_image_params(config, PATCH_SIZE))
    image_loss_and_grads(params, images[:batch_size], labels[:batch_size], config)
    return counter.flops


@cache
def trained(run):
    """(record, params, config) of a run; its parent is trained first, once in this process."""
    (images, labels), heldout = digits()
    birth, before = None, 0
    if run.parent is None:
        config = run.config
        params = init_image_params(config, PATCH_SIZE, seed=run.settings.seed)
    else:
        parent, params, config = trained(run.parent)
        before = parent["total_flops"]
        if run.size != run.parent.size:
            old = image_forward(params, heldout[0], config)[0]
            params, config = grow_body(params, config, run)
            birth = float(np.abs(image_forward(params, heldout[0], config)[0] - old).max())
    start = time.perf_counter()
    params, config, _, history = train_image_model(
        params, config, images, labels, run.settings, heldout, run.shift
    )
    seconds = time.perf_counter() - start
    loss, accuracy = evaluate_images(params, *heldout, config)
    record = {
        "key": run.key(),
        "model": f"{run.kind} {run.size}",
        "layer_parameters": count_layer_parameters(config),
        "total_flops": before + run.settings.steps * step_flops(run.config, run.settings.batch_size),
        "accuracy": round(accuracy, 5),
        "loss": round(loss, 5),
        "train_loss": round(history[-1]["train_loss"], 5),
        "max_logit_change_at_birth": birth,
        "seconds": round(seconds, 2),
        "curve": [[line["step"], round(line["heldout_accuracy"], 4)] for line in history],
    }
    return record, params, config


def grow_body(params, config, run):
    sizes = {"attention_tokens": run.config.attention_tokens, "ffn_tokens": run.config.ffn_tokens}
    body, config = RECIPES[RECIPE].grow(params["body"], config, sizes, seed=run.settings.seed)
    return params | {"body": body}, config


def baselines():
    """Held-out accuracy of two classifiers without a network."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    models = {
        f"{NEIGHBORS} nearest neighbors": KNeighborsClassifier(NEIGHBORS),
        "linear": LogisticRegression(max_iter=1000),
    }
    (pixels, labels), heldout = ((images.reshape(len(images), -1), labels) for images, labels in digits())
    return {name: round(model.fit(pixels, labels).score(*heldout), 5) for name, model in models.items()}


def measure(plan, store, command):
    """Run what the store does not have; returns what goes into the JSON."""
    import sklearn

    table = arms(plan)
    runs = dict.fromkeys(run for seed in plan.seeds for arm in table.values() for run in arm[seed])
    for run in progress([run for run in runs if run not in store], "runs"):
        store.add(trained(run)[0])
    versions = {"python": platform.python_version(), "numpy": np.__version__, "sklearn": sklearn.__version__}
    return {
        "command": command,
        "plan": asdict(plan),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}",
        "models": {run.kind + f" {run.size}": asdict(run.config) for run in runs},
        "baselines": baselines(),
        "arms": {
            name: {str(seed): [store[run] for run in chain] for seed, chain in arm.items()}
            for name, arm in table.items()
        },
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------- judging


class Results:
    """What the JSON says: {seed: number at the end of an arm}."""

    def __init__(self, measured):
        self.measured = measured

    def __call__(self, arm, field="accuracy"):
        return {seed: chain[-1][field] for seed, chain in self.measured["arms"][arm].items()}

    def gain(self, arm, other, field="accuracy"):
        """One arm minus another arm or a baseline."""
        ours, baseline = self(arm, field), self.measured["baselines"].get(other)
        theirs = dict.fromkeys(ours, baseline) if baseline else self(other, field)
        return {seed: ours[seed] - theirs[seed] for seed in ours}

    def family_cost(self):
        """FLOPs of all three Tokenformers from scratch over those of the grown one, which was all three."""
        ours = self("grown", "total_flops")
        scratch = [self(f"Tokenformer {size}", "total_flops") for size in SIZES]
        return {seed: sum(each[seed] for each in scratch) / ours[seed] for seed in ours}

    def birth(self):
        return {
            seed: max(stage["max_logit_change_at_birth"] or 0 for stage in chain)
            for seed, chain in self.measured["arms"]["grown"].items()
        }


@dataclass(frozen=True)
class Claim:
    """An inequality on a measured quantity: measure(results) >= threshold, or <= where not at_least."""

    text: str
    quantity: str
    measure: object
    threshold: float
    at_least: bool = True
    expected: bool = True

    def inequality(self):
        return f"{self.quantity} {'≥' if self.at_least else '≤'} {self.threshold:g}"

    def verdict(self, values):
        """ "holds" or "fails" where all seeds agree."""
        answers = {v >= self.threshold if self.at_least else v <= self.threshold for v in values}
        return "within noise" if len(answers) == 2 else "holds" if answers == {True} else "fails"


KNN = f"{NEIGHBORS} nearest neighbors"
CLAIMS = (
    Claim(
        "the largest Tokenformer reads the digits well",
        "accuracy of Tokenformer 3",
        lambda r: r("Tokenformer 3"),
        0.97,
        expected=False,
    ),
    Claim(
        "it beats a linear classifier clearly",
        "accuracy of Tokenformer 3 minus linear",
        lambda r: r.gain("Tokenformer 3", "linear"),
        0.03,
    ),
    Claim(
        "it beats the nearest neighbors, which keep all training images",
        f"accuracy of Tokenformer 3 minus {KNN}",
        lambda r: r.gain("Tokenformer 3", KNN),
        0.0,
        expected=False,
    ),
    Claim(
        "at equal parameters it is no worse than a Transformer, large",
        "accuracy of Tokenformer 3 minus Transformer 3",
        lambda r: r.gain("Tokenformer 3", "Transformer 3"),
        -0.01,
    ),
    Claim(
        "and small",
        "accuracy of Tokenformer 1 minus Transformer 1",
        lambda r: r.gain("Tokenformer 1", "Transformer 1"),
        -0.01,
    ),
    Claim(
        "parameters matter: the large Tokenformer is better than the small one",
        "loss of Tokenformer 1 minus Tokenformer 3",
        lambda r: r.gain("Tokenformer 1", "Tokenformer 3", "loss"),
        0.02,
    ),
    Claim(
        "growing helps: better than training the small one for as many steps",
        "loss of not grown minus grown",
        lambda r: r.gain("not grown", "grown", "loss"),
        0.0,
    ),
    Claim(
        "grown is no worse than from scratch with the full budget",
        "accuracy of grown minus Tokenformer 3",
        lambda r: r.gain("grown", "Tokenformer 3"),
        -0.01,
    ),
    Claim(
        "if only the large model is wanted, growing is no worse than starting over with the same FLOPs",
        "loss of Tokenformer 3 with the FLOPs of grown minus grown",
        lambda r: r.gain("Tokenformer 3, FLOPs of grown", "grown", "loss"),
        0.0,
        expected=False,
    ),
    Claim(
        "if all three are wanted, growing costs half or less",
        "FLOPs of Tokenformers 1, 2, 3 from scratch over those of grown",
        lambda r: r.family_cost(),
        2.0,
    ),
    Claim(
        "growth changes no logit at birth",
        "largest change of a logit, both births",
        lambda r: r.birth(),
        1e-4,
        at_least=False,
    ),
)


def predictions():
    lines = ["| | claim | inequality | we expect |", "|---|---|---|---|"]
    for number, claim in enumerate(CLAIMS, start=1):
        expected = "holds" if claim.expected else "fails"
        lines.append(f"| {number} | {claim.text} | {claim.inequality()} | {expected} |")
    return "\n".join(lines)


def verdicts(measured):
    lines = [
        "| | inequality | measured: mean (lowest to highest seed) | expected | verdict |",
        "|---|---|---|---|---|",
    ]
    results = Results(measured)
    for number, claim in enumerate(CLAIMS, start=1):
        values = list(claim.measure(results).values())
        spread = f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})"
        expected = "holds" if claim.expected else "fails"
        lines.append(
            f"| {number} | {claim.inequality()} | {spread} | {expected} | **{claim.verdict(values)}** |"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- drawing


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.4))
    for ax, field in zip(axes, ("accuracy", "loss"), strict=True):
        for index, kind in enumerate(("Transformer", "Tokenformer")):
            points = [columns(measured, f"{kind} {size}", field)[-1] for size in SIZES]
            line(ax, points, f"{kind}, from scratch, 3 sizes", index)
        line(ax, columns(measured, "grown", field), "Tokenformer, grown", 2)
        line(ax, columns(measured, "not grown", field), "Tokenformer, not grown", 3)
        equal = columns(measured, "Tokenformer 3, FLOPs of grown", field)
        line(ax, equal, "Tokenformer 3, FLOPs of grown", 4)
        ax.set_xscale("log")
        ax.set_xlabel("training FLOPs, all stages so far")
    for name, accuracy in measured["baselines"].items():
        axes[0].axhline(accuracy, color="gray", linewidth=1)
        axes[0].annotate(
            name,
            (0.01, accuracy),
            xycoords=("axes fraction", "data"),
            va="bottom",
            color="dimgray",
            fontsize=8,
        )
    axes[0].set_ylabel("accuracy on 360 held-out digits")
    axes[1].set_ylabel("loss on them (nats per image)")
    axes[1].legend(fontsize=8)
    plot.save(fig, stem, ALT)


def columns(measured, arm, field):
    """(FLOPs, [value of every seed]) after each stage of an arm."""
    stages = zip(*measured["arms"][arm].values(), strict=True)
    return [(stage[0]["total_flops"], [seed[field] for seed in stage]) for stage in stages]


def line(ax, points, label, index):
    flops, values = zip(*points, strict=True)
    plot.band(ax, np.array(flops, float), np.array(values).T, label, index)


# ----------------------------------------------------------------------------------------- command line


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--budget", choices=("full", "quick"), default="full", help="quick: one seed, short runs"
    )
    for name in ("steps", "stage_steps", "shift"):
        shown = getattr(Plan, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"another {name} (full: {shown})")
    parser.add_argument(
        "--store", type=Path, default=STORE, help=f"folder of finished runs (default {STORE})"
    )
    parser.add_argument("--out", type=Path, default=STEM, help="where to write .json, .png and .svg")
    parser.add_argument("--redraw", action="store_true", help="run nothing, draw and judge the stored JSON")
    parser.add_argument("--predictions", action="store_true", help="run nothing, write the predictions")
    options = parser.parse_args(arguments)
    page = options.out.with_suffix(".md")
    if options.predictions:
        write_section(page, "predictions", predictions())
        return
    if not options.redraw:
        changed = {name: getattr(options, name) for name in ("steps", "stage_steps", "shift")}
        changed = {name: value for name, value in changed.items() if value is not None}
        plan = replace(QUICK if options.budget == "quick" else Plan(), **changed)
        command = " ".join(
            ["python", "figures/digits.py", *(sys.argv[1:] if arguments is None else arguments)]
        )
        with Store(options.store / "digits") as store:
            write_json(options.out.with_suffix(".json"), measure(plan, store, command))
    draw(options.out)
    table = verdicts(json.loads(options.out.with_suffix(".json").read_text(encoding="utf-8")))
    print(table)
    if page.exists():
        write_section(page, "verdict", table)


if __name__ == "__main__":
    main()
