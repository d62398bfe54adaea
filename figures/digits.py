"""Digits in place of letters: Tokenformers and Transformers as image classifiers, from scratch and grown.

    python figures/digits.py --budget quick    one seed and short runs in under a minute: shows that everything works
    python figures/digits.py                   the full one, goes on where it was stopped
    python figures/digits.py --redraw          draws and judges again from digits.json
    python figures/digits.py --predictions     writes the predictions into digits.md, before any run

Three sizes, with exactly as many parameters in the layers of both models. A grown Tokenformer starts from the
trained small one; its control trains the small one on for as many steps. Costs are FLOPs, counted from the matrix
products of a step. The held-out digits are looked at once, when a run is over.
"""

import json
from dataclasses import dataclass, replace
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
    overlap_patches,
    plot,
    train_image_model,
    tree_map,
    warp_images,
)
from minitf.laboratory import RECIPES, Run, verdict
from minitf.laboratory.command import constant, main
from minitf.laboratory.verdict import Claim, minus, ratio

STEM = Path(__file__).with_suffix("")
ALT = (
    "Held-out accuracy (left) and loss (right) of digit classifiers against training FLOPs, three seeds each: "
    "Transformers and Tokenformers of three sizes from scratch, the smallest Tokenformer grown through the two larger "
    "sizes, the same one trained on without growing, and the largest one without warped pictures or without overlap. "
    "Gray lines mark the nearest neighbors and a linear classifier."
)

SIZES = (1, 2, 3)
PATCH_SIZE = 2  # 16 patches of an 8 x 8 image
NEIGHBORS = 3
SHARED = {"vocab_size": 10, "context": 16, "n_layers": 2, "n_heads": 4, "init_std": 0.1}
CONFIGS = {
    f"Transformer {size}": TransformerConfig(d_model=d_model, d_ff=d_ff, **SHARED)
    for size, d_model, d_ff in ((1, 16, 64), (2, 24, 80), (3, 32, 128))
} | {
    f"Tokenformer {size}": TokenformerConfig(d_model=32, attention_tokens=n, ffn_tokens=4 * n, **SHARED)
    for size, n in ((1, 6), (2, 12), (3, 24))
}
GROWN, NOT_GROWN, EQUAL = "grown", "not grown", "Tokenformer 3, FLOPs of grown"
SAME, APART = "Tokenformer 3, the same pictures", "Tokenformer 3, patches apart"
KNN, LINEAR = f"{NEIGHBORS} nearest neighbors", "linear"
WARPS = ("shift", "turn", "stretch", "slant")


# ----------------------------------------------------------------------------------------------- the runs


@dataclass(frozen=True)
class Classifier(Run):
    """A classifier trained from scratch, then stage by stage: grown where the next config is larger, or trained on.

    The limits of the warps are those of `warp_images`. All stages are one run, since a store keeps weights of text
    models only; runs with the same first stages train them once in a process, and only the first counts the seconds.
    """

    configs: tuple
    stage_steps: tuple
    seed: int
    batch_size: int
    peak_lr: float
    weight_decay: float
    margin: int  # pixels by which patches reach into their neighbors
    shift: float
    turn: float
    stretch: float
    slant: float
    recipe: str = "annealed"  # zero keys, tau held at birth and then moved to the root of n

    @property
    def steps(self):
        return sum(self.stage_steps)

    def settings(self):
        """Of the last stage; every stage reads its own batches."""
        depth, steps = len(self.configs) - 1, self.stage_steps[-1]
        return TrainConfig(
            steps,
            self.batch_size,
            self.peak_lr,
            floor_share=0.0,
            weight_decay=self.weight_decay,
            anneal_share=RECIPES[self.recipe].anneal_share if self.grows() else 0.0,
            eval_every=max(1, steps // 5),
            seed=10 * self.seed + depth,
        )

    def grows(self):
        return len(self.configs) > 1 and self.configs[-1] != self.configs[-2]

    def step_flops(self):
        return step_flops(self.configs[-1], self.batch_size, self.margin)

    def prepare(self, images):
        return overlap_patches(images, PATCH_SIZE, self.margin)

    def augment(self, images, rng):
        limits = {name: getattr(self, name) for name in WARPS}
        return self.prepare(warp_images(images, rng, **limits))

    def train(self, parent=None):
        stages, _, _ = trained(self)
        births = [stage["birth"] for stage in stages if stage["birth"] is not None]
        return {**stages[-1], "birth": max(births, default=None), "stages": stages}, None, None


@cache
def digits(split):
    return load_digits(split)


@cache
def trained(run):
    """(what is measured after each stage, params, config) of a run."""
    (images, labels), (heldout, heldout_labels) = digits("train"), digits("heldout")
    heldout, settings, birth = run.prepare(heldout), run.settings(), None
    if len(run.configs) == 1:
        stages, config = [], run.configs[0]
        params = init_image_params(config, PATCH_SIZE + 2 * run.margin, seed=settings.seed)
    else:
        before = replace(run, configs=run.configs[:-1], stage_steps=run.stage_steps[:-1])
        stages, params, config = trained(before)
    if run.grows():
        old, _ = image_forward(params, heldout, config)
        params, config = grow_body(params, config, run)
        birth = float(np.abs(image_forward(params, heldout, config)[0] - old).max())
    params, config, _, history = train_image_model(
        params, config, images, labels, settings, augment=run.augment
    )
    loss, accuracy = evaluate_images(params, heldout, heldout_labels, config)
    stage = {
        "layer_parameters": count_layer_parameters(config),
        "flops": (stages[-1]["flops"] if stages else 0) + settings.steps * run.step_flops(),
        "accuracy": round(accuracy, 5),
        "loss": round(loss, 5),
        "train_loss": round(history[-1]["train_loss"], 5),
        "birth": birth,
    }
    return [*stages, stage], params, config


def grow_body(params, config, run):
    target = run.configs[-1]
    sizes = {"attention_tokens": target.attention_tokens, "ffn_tokens": target.ffn_tokens}
    body, config = RECIPES[run.recipe].grow(params["body"], config, sizes, seed=run.settings().seed)
    return params | {"body": body}, config


@cache
def step_flops(config, batch_size, margin):
    """FLOPs of the matrix products of one training step, counted while they run."""
    images, labels = (array[:batch_size] for array in digits("train"))
    counter = FlopCounter()
    params = tree_map(counter.wrap, init_image_params(config, PATCH_SIZE + 2 * margin))
    image_loss_and_grads(params, overlap_patches(images, PATCH_SIZE, margin), labels, config)
    return counter.flops


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    steps: int = constant(2500, "training steps of a model from scratch")
    stage_steps: int = constant(625, "steps of each stage that goes on from another")
    seeds: tuple = constant((0, 1, 2), "seeds")
    batch_size: int = constant(32, "images in a step, at most 1437")
    peak_lr: float = constant(3e-3, "peak learning rate of every run")
    weight_decay: float = constant(0.3, "weight decay")
    margin: int = constant(1, "pixels by which every patch reaches into its neighbors")
    shift: float = constant(0.4, "training images move by up to so many pixels")
    turn: float = constant(12.0, "and turn by up to so many degrees")
    stretch: float = constant(0.15, "and height and width stretch by factors up to exp(stretch)")
    slant: float = constant(0.15, "and lean by up to so many columns a row")

    def __post_init__(self):
        if not self.seeds:
            raise ValueError("seeds must not be empty: name one at least")
        if not 1 <= self.batch_size <= 1437:
            raise ValueError(f"batch_size is {self.batch_size}: choose 1 to 1437 images")
        for seed in self.seeds:
            run = self.run("Tokenformer 1", seed)
            for steps in (self.steps, self.stage_steps):
                replace(run, stage_steps=(steps,)).settings()
            run.augment(np.zeros((1, 8, 8)), np.random.default_rng(0))

    def run(self, name, seed, **changed):
        shared = {
            field: getattr(self, field) for field in ("batch_size", "peak_lr", "weight_decay", "margin")
        }
        warps = {field: getattr(self, field) for field in WARPS}
        run = Classifier((CONFIGS[name],), (self.steps,), seed, **shared, **warps)
        return replace(run, **changed)

    def chain(self, sizes, seed):
        """The small Tokenformer, then a stage for each of the sizes."""
        configs = tuple(CONFIGS[f"Tokenformer {size}"] for size in (1, *sizes))
        steps = (self.steps, *(self.stage_steps for _ in sizes))
        return self.run("Tokenformer 1", seed, configs=configs, stage_steps=steps)

    def equal_steps(self):
        """Steps from scratch that give the largest Tokenformer the FLOPs of the grown chain."""
        flops = [self.run(f"Tokenformer {size}", 0).step_flops() for size in SIZES]
        return max(1, round((self.steps * flops[0] + self.stage_steps * sum(flops[1:])) / flops[-1]))

    def arms(self):
        """{name: {seed: run}}"""
        large = "Tokenformer 3"
        still = dict.fromkeys(WARPS, 0.0)
        builds = {
            **{name: lambda seed, name=name: self.run(name, seed) for name in CONFIGS},
            GROWN: lambda seed: self.chain(SIZES[1:], seed),
            NOT_GROWN: lambda seed: self.chain((1, 1), seed),
            EQUAL: lambda seed: self.run(large, seed, stage_steps=(self.equal_steps(),)),
            SAME: lambda seed: self.run(large, seed, **still),
            APART: lambda seed: self.run(large, seed, margin=0),
        }
        return {name: {seed: build(seed) for seed in self.seeds} for name, build in builds.items()}


QUICK = Plan(steps=200, stage_steps=50, seeds=(0,))


def run(plan, sweep):
    arms = plan.arms()
    sweep([arm[seed] for seed in plan.seeds for arm in arms.values()])
    return {
        "arms": {
            name: {"keys": {str(seed): run.key() for seed, run in arm.items()}} for name, arm in arms.items()
        },
        "baselines": baselines(),
    }


def baselines():
    """Held-out accuracy of two classifiers without a network."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    models = {KNN: KNeighborsClassifier(NEIGHBORS), LINEAR: LogisticRegression(max_iter=1000)}
    (pixels, labels), heldout = (
        (images.reshape(len(images), -1), labels) for images, labels in map(digits, ("train", "heldout"))
    )
    return {name: round(model.fit(pixels, labels).score(*heldout), 5) for name, model in models.items()}


# ----------------------------------------------------------------------------------------------- judging


class Results(verdict.Results):
    """{seed: number at the end of an arm}; an opponent without seeds has its one number for all."""

    def __call__(self, arm, field="accuracy"):
        if arm in self.measured["baselines"]:
            return dict.fromkeys(super().__call__(GROWN, field), self.measured["baselines"][arm])
        return super().__call__(arm, field)

    def gain(self, arm, other, field="accuracy"):
        """One arm minus another arm or an opponent."""
        return minus(self(arm, field), self(other, field))

    def family_cost(self):
        """FLOPs of all three Tokenformers from scratch over those of the grown one, which was all three."""
        scratch = [self(f"Tokenformer {size}", "flops") for size in SIZES]
        return ratio({seed: sum(each[seed] for each in scratch) for seed in scratch[0]}, self(GROWN, "flops"))


CLAIMS = (
    Claim(
        "the largest Tokenformer reads the digits well",
        "accuracy of Tokenformer 3",
        lambda r: r("Tokenformer 3"),
        0.97,
        headline=True,
    ),
    Claim(
        "and so does the Transformer of its size",
        "accuracy of Transformer 3",
        lambda r: r("Transformer 3"),
        0.97,
        expected=False,
    ),
    Claim(
        "it beats a linear classifier clearly",
        "accuracy of Tokenformer 3 minus linear",
        lambda r: r.gain("Tokenformer 3", LINEAR),
        0.03,
    ),
    Claim(
        "it beats the nearest neighbors, which keep all training images",
        f"accuracy of Tokenformer 3 minus {KNN}",
        lambda r: r.gain("Tokenformer 3", KNN),
        0.0,
    ),
    Claim(
        "warped pictures help",
        "accuracy of Tokenformer 3 minus the same with the same pictures every time",
        lambda r: r.gain("Tokenformer 3", SAME),
        0.01,
    ),
    Claim(
        "patches that overlap help",
        "accuracy of Tokenformer 3 minus the same with patches apart",
        lambda r: r.gain("Tokenformer 3", APART),
        0.01,
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
        expected=False,
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
        lambda r: r.gain(NOT_GROWN, GROWN, "loss"),
        0.0,
    ),
    Claim(
        "grown is no worse than from scratch with the full budget",
        "accuracy of grown minus Tokenformer 3",
        lambda r: r.gain(GROWN, "Tokenformer 3"),
        -0.01,
        expected=False,
        headline=True,
    ),
    Claim(
        "if only the large model is wanted, growing is no worse than starting over with the same FLOPs",
        "loss of Tokenformer 3 with the FLOPs of grown minus grown",
        lambda r: r.gain(EQUAL, GROWN, "loss"),
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
        lambda r: r(GROWN, "birth"),
        1e-4,
        at_least=False,
    ),
)


# ---------------------------------------------------------------------------------------------- drawing


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.6))
    for ax, field in zip(axes, ("accuracy", "loss"), strict=True):
        for index, kind in enumerate(("Transformer", "Tokenformer")):
            points = [columns(measured, f"{kind} {size}", field)[-1] for size in SIZES]
            line(ax, points, f"{kind}, from scratch, 3 sizes", index)
        line(ax, columns(measured, GROWN, field), "Tokenformer, grown", 2)
        line(ax, columns(measured, NOT_GROWN, field), "Tokenformer, not grown", 3)
        for index, arm in enumerate((EQUAL, SAME, APART), start=4):
            point(ax, columns(measured, arm, field)[-1], arm, index)
        ax.set_xlabel("training GFLOPs, all stages so far")
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
    axes[1].set_yscale("log")
    for ticks in (axes[1].yaxis.set_major_formatter, axes[1].yaxis.set_minor_formatter):
        ticks("{x:.1f}")
    axes[1].legend(fontsize=8)
    plot.save(fig, stem, ALT)


def columns(measured, arm, field):
    """(GFLOPs, [value of every seed]) after each stage of an arm."""
    chains = [measured["runs"][key]["stages"] for key in measured["arms"][arm]["keys"].values()]
    return [(stage[0]["flops"] / 1e9, [seed[field] for seed in stage]) for stage in zip(*chains, strict=True)]


def line(ax, points, label, index):
    flops, values = zip(*points, strict=True)
    plot.band(ax, np.array(flops, float), np.array(values).T, label, index)


def point(ax, column, label, index):
    """The mean as a mark, the range of the seeds as a bar."""
    flops, values = column
    mean = np.mean(values)
    spread = [[mean - min(values)], [max(values) - mean]]
    look = {"color": plot.PALETTE[index], "marker": plot.MARKERS[index], "markersize": 7}
    ax.errorbar([flops], [mean], spread, linestyle="none", label=label, capsize=3, **look)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw, claims=CLAIMS, results=Results)
