"""Merging modalities: the tokens of a text model and of a digits model in one, with new tokens to caption a digit.

    python figures/merge.py --budget quick     one seed and short runs: shows that everything works
    python figures/merge.py                    the full one, some minutes; goes on where it was stopped
    python figures/merge.py --redraw           draws and judges again from merge.json
    python figures/merge.py --predictions      writes the predictions into merge.md, before any run

A text parent reads Shakespeare, a digits parent of the same sizes reads 8 x 8 pictures, and the merged model learns to
write "seven" after the picture of a 7. Rivals start from scratch, or from the text parent with image tokens that
nobody trained, and get the FLOPs of the whole, parents included. Costs are counted from the matrix products that ran.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import (
    FlopCounter,
    MergedConfig,
    TokenformerConfig,
    TrainConfig,
    caption_loss_and_grads,
    evaluate,
    evaluate_captions,
    evaluate_images,
    forward,
    grow,
    image_forward,
    image_loss_and_grads,
    image_part,
    init_image_params,
    init_params,
    load_digits,
    loss_and_grads,
    merge_models,
    plot,
    put_new,
    spell,
    take_new,
    text_part,
    train_image_model,
    training_flops,
    tree_from_items,
    tree_items,
    tree_map,
)
from minitf.data import batch
from minitf.laboratory import Run, Stage, tokenformer, verdict
from minitf.laboratory.command import constant, main
from minitf.laboratory.run import brief
from minitf.laboratory.stage import corpus, tokenizer
from minitf.laboratory.tuning import tune_and_repeat
from minitf.laboratory.verdict import Claim, minus, ratio
from minitf.model import part_of
from minitf.train import TrainingDiverged, descend

STEM = Path(__file__).with_suffix("")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PATCH_SIZE = 2
TEXT_BATCH = 16  # windows of text in a step, as a Stage has
TEXT_WINDOWS = 128  # held-out windows of the text losses
ALT = (
    "Left: share of held-out digits whose caption is spelled right, against the training FLOPs of all that led there, "
    "for merged models, routed or not, frozen or trained, and for their rivals. Right: bars of text loss and digit "
    "accuracy of the parents, at birth, after training with old tokens frozen, the same without the new tokens, after "
    "training everything, and of the model trained jointly from scratch."
)
ARMS = {  # how each captioner begins, and what of it is trained
    "routed, frozen": {"start": "merged", "trained": "new"},
    "routed, trained": {"start": "merged"},
    "shared, frozen": {"start": "merged", "routed": False, "trained": "new"},
    "shared, trained": {"start": "merged", "routed": False},
    "no new tokens": {"start": "merged", "new_tokens": 0},
    "text parent alone": {"start": "text", "routed": False},
    "joint from scratch": {"start": "scratch", "routed": False, "tasks": "all"},
    "captions from scratch": {"start": "scratch", "routed": False},
    "captions from scratch, short": {"start": "scratch", "routed": False},
}


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    tokens: int = constant(20, "attention tokens of each parent; the feed-forward part has 4 times as many")
    new_tokens: int = constant(10, "attention tokens that align them, likewise")
    d_model: int = constant(40, "width of all models, in heads of 10 channels")
    text_steps: int = constant(600, "training steps of the text parent")
    digit_steps: int = constant(600, "training steps of the digits parent")
    steps: int = constant(200, "training steps of the merged model")
    text_lr: float = constant(1e-2, "peak learning rate of the text parent")
    digit_lr: float = constant(5e-3, "peak learning rate of the digits parent")
    lrs: tuple = constant((3e-3, 1e-2), "grid of peak learning rates of the captioners")
    batch_size: int = constant(32, "pictures in a step")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")

    def __post_init__(self):
        for name in ("tokens", "new_tokens", "text_steps", "digit_steps", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.lrs or not self.seeds:
            raise ValueError("the grid and the seeds must not be empty")
        for lr in self.lrs:
            self.captioner("routed, frozen", lr, self.seeds[0], self.steps)
        self.text_parent(0), self.digits_parent(0)

    @property
    def config(self):
        """The text parent's; the digits parent differs in classes and patches."""
        return tokenformer(self.tokens, self.d_model, head_dim=10)

    def text_parent(self, seed):
        return Stage(self.text_steps, self.text_lr, seed, config=self.config, eval_points=4)

    def digits_parent(self, seed):
        return Digits(self.digit_steps, self.digit_lr, seed, image_config(self.config), self.batch_size)

    def captioner(self, name, lr, seed, steps):
        how = {"new_tokens": self.new_tokens} | ARMS[name]
        if how["start"] != "scratch":
            how["parent"] = self.text_parent(seed)
        if how["start"] == "merged":
            how["digits"] = self.digits_parent(seed)
        return Captioner(steps, lr, seed, self.config, self.batch_size, **how)

    def length(self, name):
        """Steps of an arm: those that bring the FLOPs of the whole, parents included, to those of a merged model."""
        merged = self.captioner("routed, trained", self.lrs[0], 0, self.steps)
        if name in ("routed, frozen", "captions from scratch, short") or ARMS[name]["start"] == "merged":
            return self.steps
        arm = self.captioner(name, self.lrs[0], 0, 1)
        total = merged.parents_flops() + self.steps * merged.step_flops()
        return max(1, round((total - arm.parents_flops()) / arm.step_flops()))


# ------------------------------------------------------------------------------------------------ the data


def image_config(config):
    return replace(config, vocab_size=len(WORDS), context=(8 // PATCH_SIZE) ** 2)


@cache
def digits():
    return load_digits("train"), load_digits("heldout")


@cache
def captions():
    """Inputs, targets and mask of every word, in the characters of the plays."""
    return spell(WORDS, tokenizer())


def captioned(images, labels):
    inputs, targets, mask = captions()
    return images, inputs[labels], targets[labels], mask[labels]


# ------------------------------------------------------------------------------------------------ the runs


class Said(Run):
    """A run whose key leaves out what a config has by default, as fields that come later will."""

    def to_json(self):
        said = super().to_json()
        return said | {"config": brief(said["config"])}


@dataclass(frozen=True)
class Digits(Said):
    """The digits parent: a classifier whose patches see only earlier ones, as the prefix of a caption does."""

    steps: int
    peak_lr: float
    seed: int
    config: TokenformerConfig
    batch_size: int

    def __post_init__(self):
        self.settings()

    def settings(self):
        every = max(1, self.steps // 4)
        return TrainConfig(self.steps, self.batch_size, self.peak_lr, eval_every=every, seed=self.seed)

    def step_flops(self):
        (images, labels), _ = digits()
        counter = FlopCounter()
        params = tree_map(counter.wrap, init_image_params(self.config, PATCH_SIZE))
        some = images[: self.batch_size], labels[: self.batch_size]
        image_loss_and_grads(params, *some, self.config, causal=True)
        return counter.flops

    def train(self, parent=None):
        params, history = trained_digits(self)
        loss, accuracy = evaluate_images(params, *digits()[1], self.config, causal=True)
        measured = {
            "flops": self.steps * self.step_flops(),
            "heldout": round(loss, 5),
            "accuracy": round(accuracy, 5),
            "curve": [[line["step"], round(line["heldout_accuracy"], 4)] for line in history],
        }
        return (
            measured,
            None,
            None,
        )  # a picture's model is made again where it is needed: the store keeps texts'


@cache
def trained_digits(run):
    """Params and history of a digits parent, made once in a process."""
    params = init_image_params(run.config, PATCH_SIZE, seed=run.seed)
    params, _, _, history = train_image_model(
        params, run.config, *digits()[0], run.settings(), digits()[1], causal=True
    )
    return params, history


@dataclass(frozen=True)
class Captioner(Said):
    """A model that learns to caption digits: merged from two parents, from the text's alone, or from scratch.

    config: of the text parent, or what it would be. trained: "all", or "new" tokens only. tasks: "captions", or "all":
    text and digits, too, in every step. Raises ValueError for another word.
    """

    steps: int
    peak_lr: float
    seed: int
    config: TokenformerConfig
    batch_size: int
    start: str
    new_tokens: int
    routed: bool = True
    trained: str = "all"
    tasks: str = "captions"
    parent: Stage | None = None
    digits: Digits | None = None
    eval_points: int = 8

    def __post_init__(self):
        if self.start not in ("merged", "text", "scratch") or self.trained not in ("all", "new"):
            raise ValueError(f"start {self.start!r} or trained {self.trained!r} is unknown")
        self.settings()

    def settings(self):
        every = max(1, self.steps // self.eval_points)
        return TrainConfig(self.steps, self.batch_size, self.peak_lr, eval_every=every, seed=self.seed)

    def parents_flops(self):
        text = self.parent and self.parent.steps * TEXT_BATCH * training_flops(
            self.config, self.config.context
        )
        return (text or 0) + (self.digits.steps * self.digits.step_flops() if self.digits else 0)

    def step_flops(self):
        return step_flops(replace(self, steps=1, peak_lr=0.0, seed=0, parent=None, digits=None))

    def begin(self, parent):
        """Params and MergedConfig before training."""
        image = image_config(self.config)
        if self.start == "merged":
            new = {"attention_tokens": self.new_tokens, "ffn_tokens": 4 * self.new_tokens}
            tau = "hold" if self.routed else "rescale"
            return merge_models(
                *parent, trained_digits(self.digits)[0], image, self.routed, tau, **new, seed=self.seed
            )
        sizes = {
            "attention_tokens": 2 * self.config.attention_tokens + self.new_tokens,
            "ffn_tokens": 2 * self.config.ffn_tokens + 4 * self.new_tokens,
        }
        fresh = init_image_params(image, PATCH_SIZE, seed=self.seed)
        if self.start == "text":
            body, config = grow(*parent, **sizes, seed=self.seed)
        else:
            config = replace(self.config, **sizes)
            body = init_params(config, seed=self.seed)
        classes = {name: fresh["body"][name] for name in ("embedding", "norm")}
        params = {"patch_embedding": fresh["patch_embedding"], "classes": classes, "body": body}
        return params, MergedConfig(config, self.config, image, routed=False)

    def loss_and_grads(self, params, config, step):
        """Of the batch of a step: captions, and for tasks="all" the sum with a text's and a classifier's loss."""
        images, labels = digits()[0]
        rows = np.random.default_rng((self.seed, step)).integers(0, len(images), self.batch_size)
        some, inputs, targets, mask = captioned(images[rows], labels[rows])
        loss, grads = caption_loss_and_grads(params, some, inputs, targets, config, mask)
        if self.tasks == "captions":
            return loss, grads
        ids = batch(corpus()["train"], step, TEXT_BATCH, config.body.context, self.seed)
        text_loss, text = loss_and_grads(params["body"], *ids, config.body)
        classifier, small = image_part(params, config)
        image_loss, image = image_loss_and_grads(classifier, some, labels[rows], small, causal=True)
        head = {name: image["body"].pop(name) for name in ("embedding", "norm")}
        others = (("body", text), ("body", image["body"]), ("classes", head))
        total = dict(tree_items(grads))
        for branch, tree in (*others, ("patch_embedding", image["patch_embedding"])):
            for name, grad in tree_items(tree, f"{branch}."):
                total[name] = total[name] + grad
        return loss + text_loss + image_loss, tree_from_items(total.items())

    def train(self, parent=None):
        start, config = self.begin(parent)
        settings, heldout = self.settings(), captioned(*digits()[1])
        birth = survey(start, config)
        parents = {}
        if self.start == "merged":
            text = evaluate(*parent, corpus()["heldout"], 64, TEXT_WINDOWS)
            parents["text_loss_parent"] = round(text, 5)
            birth |= change_at_birth(start, config, parent, self) | (
                {} if self.routed else the_trap(parent, self)
            )

        def whole(trained):
            return put_new(start, trained, config) if self.trained == "new" else trained

        def gradients(trained, step):
            loss, grads = self.loss_and_grads(whole(trained), config, step)
            return loss, take_new(grads, config) if self.trained == "new" else grads

        def judge(trained):
            loss, accuracy = evaluate_captions(whole(trained), *heldout[:3], config, heldout[3])
            return round(loss, 5), round(accuracy, 5)

        first = take_new(start, config) if self.trained == "new" else start
        curve = [[0, *judge(first)]]
        first = tree_map(lambda array: array.copy(), first)  # to be overwritten
        for step, loss, trained, _ in descend(first, gradients, settings):
            if (step + 1) % settings.eval_every == 0 or step + 1 == self.steps:
                if not math.isfinite(loss):
                    raise TrainingDiverged(f"the loss became {loss} by step {step}: lower peak_lr")
                curve.append([step + 1, *judge(trained)])
        params = whole(trained)
        _, heldout_loss, accuracy = curve[-1]
        measured = {
            "flops": self.steps * self.step_flops(),
            "parents_flops": self.parents_flops(),
            "heldout": heldout_loss,
            "accuracy": accuracy,
            **survey(params, config),
            **parents,
            **{f"{name}_birth": value for name, value in birth.items()},
            "curve": curve,
        }
        if self.trained == "new":
            measured |= {
                f"{name}_left_out": value for name, value in survey(params, config, new=False).items()
            }
        return measured, None, None


@cache
def step_flops(run):
    """FLOPs of the matrix products of one step of such a captioner, counted while they run."""
    blank = replace(run, start="scratch")
    params, config = blank.begin(None)
    config = replace(config, routed=run.routed)
    counter = FlopCounter()
    blank.loss_and_grads(tree_map(counter.wrap, params), config, 0)
    return counter.flops


def survey(params, config, new=True):
    """What is left of the parents: loss on held-out text alone, and accuracy on held-out digits alone."""
    text = evaluate(*text_part(params, config, new), corpus()["heldout"], 64, TEXT_WINDOWS)
    classifier, small = image_part(params, config, new)
    return {
        "text_loss": round(text, 5),
        "digit_accuracy": round(evaluate_images(classifier, *digits()[1], small, causal=True)[1], 5),
    }


def change_at_birth(params, config, parent, run):
    """The largest change of a logit of text or picture alone, in float64."""
    ids, _ = batch(corpus()["heldout"], 0, 8, config.body.context)
    images = digits()[1][0][:64].astype(float)
    merged, text, image = (
        tree_map(lambda array: array.astype(float), tree)
        for tree in (params, parent[0], trained_digits(run.digits)[0])
    )
    classifier, small = image_part(merged, config)
    pairs = (
        (forward(*with_ids(text_part(merged, config), ids))[0], forward(text, ids, parent[1])[0]),
        (
            image_forward(classifier, images, small, causal=True)[0],
            image_forward(image, images, run.digits.config, causal=True)[0],
        ),
    )
    return {"logit_change": max(float(np.abs(a - b).max()) for a, b in pairs)}


def with_ids(model, ids):
    params, config = model
    return params, ids, config


def the_trap(parent, run):
    """What shared norms do at birth, taken apart: with tau held, and with the other parent's values at zero."""
    image = trained_digits(run.digits)[0], run.digits.config
    found = {}
    for tau in ("hold", "rescale"):
        params, config = merge_models(*parent, *image, routed=False, tau=tau)
        found |= {f"{name}_{tau}": value for name, value in survey(params, config).items()}
        alone = {
            group: survey(silence(params, config, group), config)[field]
            for group, field in (("image", "text_loss"), ("text", "digit_accuracy"))
        }
        found |= {f"text_loss_{tau}_norm": alone["image"], f"digit_accuracy_{tau}_norm": alone["text"]}
    return found


def silence(params, config, group):
    """The params with all values of one group of tokens at zero: what is left is its share of the norm."""

    def rows(name, array):
        if part_of(name) is None or not name.endswith(".value"):
            return array
        first = 0 if group == "text" else config.tokens(part_of(name), "text")
        array = array.copy()
        array[first : first + config.tokens(part_of(name), group)] = 0
        return array

    body = tree_from_items((name, rows(name, array)) for name, array in tree_items(params["body"]))
    return params | {"body": body}


def run(plan, sweep):
    parents = {"text parent": plan.text_parent, "digits parent": plan.digits_parent}
    keys = {name: {str(seed): make(seed).key() for seed in plan.seeds} for name, make in parents.items()}
    sweep([make(seed) for make in parents.values() for seed in plan.seeds], "parents")
    steps = {name: plan.length(name) for name in ARMS}

    def captioner(name, lr, seed):
        return plan.captioner(name, lr, seed, steps[name])

    arms = {name: {"keys": of_seed} for name, of_seed in keys.items()}
    arms |= tune_and_repeat(tuple(ARMS), captioner, plan.lrs, plan.seeds, sweep)
    labels = digits()[1][1]
    return {"arms": arms, "commonest": round(float(np.bincount(labels).max() / len(labels)), 5)}


QUICK = Plan(text_steps=80, digit_steps=120, steps=60, lrs=(1e-2,), seeds=(0,))


# ------------------------------------------------------------------------------------------------ judging


class Results(verdict.Results):
    """Results, and what they say about what is left of the parents."""

    def rise(self, arm, field):
        """Loss on text alone above the text parent's."""
        return minus(self(arm, field), self("routed, frozen", "text_loss_parent"))

    def fall(self, arm, field):
        """Accuracy on digits alone below the digits parent's."""
        return minus(self("digits parent", "accuracy"), self(arm, field))

    def share_of_norm(self):
        """Rise of the text loss by a shared norm with the image's values at zero, over the whole rise."""
        return ratio(
            self.rise("shared, frozen", "text_loss_rescale_norm_birth"),
            self.rise("shared, frozen", "text_loss_birth"),
        )


def gain(arm, other):
    """One arm's caption accuracy minus another's."""
    return lambda r: minus(r(arm, "accuracy"), r(other, "accuracy"))


CLAIMS = (
    Claim(
        "two frozen models and new tokens caption better than one trained jointly from scratch with all FLOPs",
        "caption accuracy of routed, frozen minus joint from scratch",
        gain("routed, frozen", "joint from scratch"),
        0.0,
        headline=True,
    ),
    Claim(
        "and better than one that spends all FLOPs on captions alone",
        "caption accuracy of routed, frozen minus captions from scratch",
        gain("routed, frozen", "captions from scratch"),
        0.0,
        expected=False,
    ),
    Claim(
        "if the parents are there anyway, merging beats starting over with the FLOPs of the merged stage",
        "caption accuracy of routed, frozen minus captions from scratch, short",
        gain("routed, frozen", "captions from scratch, short"),
        0.02,
    ),
    Claim(
        "the digits parent's tokens help: better than the text parent with untrained image tokens and all FLOPs",
        "caption accuracy of routed, frozen minus text parent alone",
        gain("routed, frozen", "text parent alone"),
        0.0,
    ),
    Claim(
        "a frozen merged model says nearly what its digits parent knows",
        "caption accuracy of routed, frozen minus class accuracy of the digits parent",
        lambda r: minus(r("routed, frozen", "accuracy"), r("digits parent", "accuracy")),
        -0.05,
    ),
    Claim(
        "freezing the old tokens costs nothing",
        "caption accuracy of routed, frozen minus routed, trained",
        gain("routed, frozen", "routed, trained"),
        -0.01,
    ),
    Claim(
        "alignment tokens pay where the old tokens are trained, too",
        "caption accuracy of routed, trained minus no new tokens",
        gain("routed, trained", "no new tokens"),
        0.01,
        expected=False,
    ),
    Claim(
        "routing pays where the old tokens are frozen",
        "caption accuracy of routed, frozen minus shared, frozen",
        gain("routed, frozen", "shared, frozen"),
        0.02,
    ),
    Claim(
        "and where they are trained",
        "caption accuracy of routed, trained minus shared, trained",
        gain("routed, trained", "shared, trained"),
        0.02,
        expected=False,
    ),
    Claim(
        "routed, both parents are unchanged at birth, new tokens included, in float64",
        "largest change of a logit of text or picture alone",
        lambda r: r("routed, frozen", "logit_change_birth"),
        1e-10,
        at_least=False,
    ),
    Claim(
        "plain concatenation disturbs the text parent at birth",
        "rise of the text loss of shared, nats",
        lambda r: r.rise("shared, frozen", "text_loss_birth"),
        0.3,
    ),
    Claim(
        "and the digits parent",
        "fall of the digit accuracy of shared",
        lambda r: r.fall("shared, frozen", "digit_accuracy_birth"),
        0.3,
    ),
    Claim(
        "the shared norm does less of this than the other parent's values",
        "share of the norm in the rise of the text loss",
        lambda r: r.share_of_norm(),
        0.5,
        at_least=False,
    ),
    Claim(
        "the text parent survives the alignment, old tokens frozen, new ones in place",
        "rise of the text loss of routed, frozen, nats",
        lambda r: r.rise("routed, frozen", "text_loss"),
        0.1,
        at_least=False,
        expected=False,
        headline=True,
    ),
    Claim(
        "so does the digits parent",
        "fall of the digit accuracy of routed, frozen",
        lambda r: r.fall("routed, frozen", "digit_accuracy"),
        0.05,
        at_least=False,
        expected=False,
    ),
    Claim(
        "frozen keeps more of the text parent than trained",
        "text loss of routed, trained minus routed, frozen, nats",
        lambda r: minus(r("routed, trained", "text_loss"), r("routed, frozen", "text_loss")),
        1.0,
    ),
    Claim(
        "without the new tokens the frozen text parent is back",
        "rise of the text loss of routed, frozen, new tokens left out, nats",
        lambda r: r.rise("routed, frozen", "text_loss_left_out"),
        1e-4,
        at_least=False,
    ),
    Claim(
        "and reads text better than the model trained jointly with all FLOPs",
        "text loss of joint from scratch minus routed, frozen, new tokens left out, nats",
        lambda r: minus(r("joint from scratch", "text_loss"), r("routed, frozen", "text_loss_left_out")),
        0.1,
    ),
)


# ------------------------------------------------------------------------------------------------ drawing

LINES = {  # index of plot's colors and markers; those without one are gray
    "routed, frozen": 1,
    "routed, trained": 2,
    "shared, frozen": 3,
    "shared, trained": 4,
    "text parent alone": 5,
    "joint from scratch": 0,
    "captions from scratch": 6,
}
PARENTS = {
    "text_loss": ("routed, frozen", "text_loss_parent"),
    "digit_accuracy": ("digits parent", "accuracy"),
}
STAGES = {  # where the bars come from: (label, field suffix, arm of each way to merge)
    "parent": ("", {"parent": None}),
    "at birth": ("_birth", {"routed": "routed, frozen", "shared": "shared, frozen"}),
    "aligned,\nold frozen": ("", {"routed": "routed, frozen", "shared": "shared, frozen"}),
    "the same,\nnew left out": ("_left_out", {"routed": "routed, frozen", "shared": "shared, frozen"}),
    "aligned,\nall trained": ("", {"routed": "routed, trained", "shared": "shared, trained"}),
    "joint,\nscratch": ("", {"joint": "joint from scratch"}),
}
WAYS = {  # color, hatch, place in its group
    "parent": (plot.PALETTE[0], "", 0),
    "routed": (plot.PALETTE[1], "//", -0.5),
    "shared": (plot.PALETTE[2], "..", 0.5),
    "joint": (plot.PALETTE[3], "xx", 0),
}


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    results = Results(measured)
    plot.style()
    fig, axes = plt.subplot_mosaic(
        [["curves", "text"], ["curves", "digits"]], figsize=(11, 5.6), width_ratios=(1.15, 1)
    )
    draw_curves(axes["curves"], measured, results)
    draw_bars(axes["text"], results, "text_loss", "loss on text alone\n(nats per character)", "{:.2f}")
    draw_bars(axes["digits"], results, "digit_accuracy", "accuracy on\ndigits alone", "{:.2f}")
    axes["text"].set_title("what survives of the parents", fontsize=10)
    axes["text"].tick_params(labelbottom=False)
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=WAYS[way][0], hatch=WAYS[way][1], edgecolor="white")
        for way in ("routed", "shared")
    ]
    axes["text"].legend(handles, ("routed", "shared norm"), fontsize=8, loc="upper left")
    plot.save(fig, stem, ALT)


def draw_curves(ax, measured, results):
    for name in ("captions from scratch, short", "no new tokens", *LINES):
        runs = [measured["runs"][key] for key in measured["arms"][name]["keys"].values()]
        steps = np.array([point[0] for point in runs[0]["curve"]]) / runs[0]["stage"]["steps"]
        flops = (runs[0].get("parents_flops", 0) + steps * runs[0]["flops"]) / 1e9
        values = np.array([[point[2] for point in run["curve"]] for run in runs])
        if name in LINES:
            plot.band(ax, flops, values, name, LINES[name])
        else:
            marker = "x" if name == "no new tokens" else "|"
            ax.plot(
                flops,
                values.mean(axis=0),
                color="gray",
                linestyle="-",
                linewidth=1,
                marker=marker,
                label=name,
            )
    accuracy = float(np.mean(list(results("digits parent", "accuracy").values())))
    for height, text in (
        (accuracy, "digits parent's classes"),
        (measured["commonest"], "always the commonest word"),
    ):
        ax.axhline(height, color="gray", linewidth=1, linestyle=(0, (2, 2)))
        ax.annotate(
            text,
            (0.01, height),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=8,
            color="dimgray",
        )
    ax.set(
        xlabel="training FLOPs so far, parents included (billions)", ylabel="share of captions spelled right"
    )
    ax.set(ylim=(-0.02, 1.0), xlim=(0, None))
    ax.set_title("captions of 360 held-out digits: mean and range of the seeds", fontsize=10)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def draw_bars(ax, results, field, label, number):
    for place, (stage, (suffix, arms)) in enumerate(STAGES.items()):
        for way, arm in arms.items():
            color, hatch, side = WAYS[way]
            source = PARENTS[field] if stage == "parent" else (arm, field + suffix)
            values = list(results(*source).values())
            mean, at = float(np.mean(values)), place + 0.4 * side
            ax.bar(at, mean, 0.38, color=color, hatch=hatch, edgecolor="white", linewidth=0)
            ax.plot([at] * len(values), values, linestyle="none", marker="_", color="black", markersize=5)
            ax.annotate(
                number.format(mean),
                (at, max(values)),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    ax.set_xticks(range(len(STAGES)), list(STAGES), fontsize=8)
    ax.set_ylabel(label)
    ax.margins(y=0.15)
    ax.grid(axis="x", visible=False)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw, claims=CLAIMS, results=Results)
