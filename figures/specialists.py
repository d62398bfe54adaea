"""Which units fire for which text? Parameter tokens, an MLP's neurons and the tokens that growth adds, one measure.

    python figures/specialists.py --budget quick     one seed and short runs: shows that everything works
    python figures/specialists.py                    the full one, about 7 minutes on one core
    python figures/specialists.py --redraw           draws and judges again from specialists.json
    python figures/specialists.py --predictions      writes the predictions into specialists.md, before any run

A unit of a feed-forward layer fires at its own loudest 5% of the characters. Its selectivity is the mutual information
between firing and a character, over the entropy of firing. The character is the one just read, or the next one.
"""

import json
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import evaluate, forward, forward_flops, plot
from minitf.activity import ENDS, ffn_units, knock_out, knock_outs, label_counts, loudest, selectivity
from minitf.data import heldout_batches
from minitf.laboratory import Growth, Stage, tokenformer, transformer, verdict
from minitf.laboratory.command import constant, main
from minitf.laboratory.run import Run
from minitf.laboratory.stage import corpus, tokenizer
from minitf.laboratory.verdict import Claim, minus, ratio
from minitf.model import ffn_forward

STEM = Path(__file__).with_suffix("")
RECIPES = ("faded keys", "release")
KINDS = ("space", "line end", "capital", "vowel", "consonant", "other")
ALT = (
    "Three panels. First: selectivity for the character just read and for the next one, dots for three seeds, bars for "
    "the middle four fifths of the units: parameter tokens and neurons lie close together, keys drawn at random a "
    "little below, shuffled labels near zero. Second: stacked bars of the kind of character that units fire for, much "
    "alike for tokens, neurons and random keys. Third: the rise of the loss without a unit against its selectivity; "
    "new tokens lie below the old ones and not to their right."
)


# ------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True)
class Look(Run):
    """What the feed-forward units of a trained model do; nothing is trained."""

    old: int  # the first so many units of a layer are "old", the others "new"; 0: no such groups
    share: float
    windows: int
    knock_windows: int
    every: int
    parent: Stage = None
    steps = 0

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(f"share {self.share}: it is a share of the characters, above 0 and below 1")
        if min(self.windows, self.knock_windows, self.every) < 1:
            raise ValueError("windows, knock_windows and every must be at least 1")

    def train(self, parent):
        params, config = parent
        text, rng = Text(self.windows, config.context), np.random.default_rng(self.parent.seed)
        _, cache = forward(params, text.ids, config)
        trained, random, shuffled = [], [], []
        for i in range(config.n_layers):
            ffn, units = params[f"block_{i}"]["ffn"], ffn_units(cache.blocks[i].ffn)
            n = len(units.values)
            trained.append(text.watch(units.activations, self.share) | self.knock(params, config, i, n))
            drawn = ffn_forward(units.x, random_keys(ffn, rng), config)[1]
            random.append(text.watch(ffn_units(drawn).activations, self.share))
            shuffled.append(text.shuffled(rng).selectivities(units.activations, self.share))
        groups = {"all": slice(None)} | (
            {"old": slice(self.old), "new": slice(self.old, n)} if self.old else {}
        )
        knocked = 2 * config.n_layers * len(range(0, n, self.every))
        measured = {
            # a knock-out counts as a whole pass, although what stands before its layer is computed once
            "flops": forward_flops(config, config.context) * (self.windows + self.knock_windows * knocked),
            "units": {name: summary(trained, group) for name, group in groups.items()},
            "random": summary(random),
            "shuffled": summary(shuffled),
            "text": text.usual(),
            "ends": compare_ends(trained),
            "silenced": {
                name: self.silence(params, config, group) for name, group in groups.items() if self.old
            },
        }
        return measured, None, None

    def knock(self, params, config, block, n):
        """Thousandths of a nat that each unit is missed by, at both ends; NaN for units that were not asked."""
        ((ids, targets),) = heldout(self.knock_windows, config.context)
        missed = {end: np.full(n, np.nan) for end in ENDS}
        for end, rises in missed.items():
            asked = range(0, n, self.every)
            rises[asked] = 1000 * knock_outs(params, config, ids, targets, block, end, asked)
        return missed

    def silence(self, params, config, group):
        """Nats by which the loss rises when a group falls silent in all layers, by the way to do it."""
        ids = corpus()["heldout"]
        whole = evaluate(params, config, ids, 64, self.windows)
        left = config.ffn_tokens - len(range(config.ffn_tokens)[group])
        ways = {"value": ("value", config), "key": ("key", config)}
        if left:
            ways["key, tau rescaled"] = ("key", replace(config, ffn_tau=left**0.5))
        rises = {}
        for name, (end, new) in ways.items():
            silent = {
                block: {**leaf, "ffn": knock_out(leaf["ffn"], group, end)} if "ffn" in leaf else leaf
                for block, leaf in params.items()
            }
            rises[name] = rounded(evaluate(silent, new, ids, 64, self.windows) - whole)
        return rises


class Text:
    """Held-out characters, and what units that are watched on them fire for."""

    def __init__(self, windows, context):
        ((self.ids, targets),) = heldout(windows, context)
        before = np.full_like(self.ids, len(kinds()))  # a label of its own where a window begins
        before[:, 1:] = self.ids[:, :-1]
        self.labels = {"current": self.ids.ravel(), "next": targets.ravel(), "before": before.ravel()}
        self.place = np.tile(np.arange(context), windows)

    def shuffled(self, rng):
        """The same with labels that belong to other characters: what selectivity is where there is none."""
        other = copy(self)
        other.labels = {name: rng.permutation(labels) for name, labels in self.labels.items()}
        return other

    def selectivities(self, activations, share):
        fires = loudest(activations, share)
        return {name: selectivity(fires, labels, len(kinds()) + 1) for name, labels in self.labels.items()}

    def watch(self, activations, share):
        """Numbers of each unit, (n,), by name."""
        fires = loudest(activations, share)
        total = np.maximum(fires.sum(axis=0), 1)
        read = label_counts(fires, self.labels["current"], len(kinds())) / total  # (65, n)
        here = in_kinds(read)
        gain = here * np.log(np.where(here > 0, here, 1) / in_kinds(self.shares())[:, None])
        often = self.selectivities(activations, 0.2)
        return {
            **self.selectivities(activations, share),
            **{f"{name} at 20%": value for name, value in often.items()},
            "surprise": self.surprise() @ read,
            "place": self.place @ fires / total,
            "kind": gain.argmax(axis=0),
        }

    def shares(self):
        """Of each character."""
        return np.bincount(self.labels["current"], minlength=len(kinds())) / len(self.place)

    def surprise(self):
        """-log of the shares, in nats; 0 for characters that are not there."""
        shares = self.shares()
        return -np.log(np.where(shares > 0, shares, 1))

    def usual(self):
        """What `watch` would find in the mean of units that fire anywhere."""
        return {
            "surprise": rounded(self.surprise() @ self.shares()),
            "place": rounded(self.place.mean()),
            "kinds": [rounded(share) for share in in_kinds(self.shares())],
        }


def heldout(windows, context):
    return heldout_batches(corpus()["heldout"], windows, context, limit=windows)


@cache
def kinds():
    """The number in KINDS of every character of the vocabulary."""

    def kind(character):
        if character in " \n":
            return " \n".index(character)
        if not character.isalpha():
            return KINDS.index("other")
        if character.isupper():
            return KINDS.index("capital")
        return KINDS.index("vowel" if character in "aeiou" else "consonant")

    return np.array([kind(character) for character in tokenizer().characters])


def in_kinds(shares):
    """Shares of characters (65, ...) added up by kind (6, ...)."""
    return np.eye(len(KINDS))[kinds()].T @ shares


def random_keys(ffn, rng):
    """The layer with keys drawn at random, as large as the trained ones: units that ask for nothing in particular."""
    if "up" in ffn:
        return {**ffn, "up": {"weight": like(ffn["up"]["weight"], rng)}}
    return {**ffn, "key": like(ffn["key"], rng)}


def like(array, rng):
    return (array.std() * rng.standard_normal(array.shape)).astype(array.dtype)


def summary(layers, group=slice(None)):
    """Means over the units of a group, both layers together; tenth and ninetieth hundredth of the selectivities."""
    units = {name: np.concatenate([layer[name][group] for layer in layers]) for name in layers[0]}
    kind = units.pop("kind", None)
    said = {name: rounded(np.nanmean(each)) for name, each in units.items()}
    for name in ("current", "next"):
        said[f"{name} 10-90"] = [rounded(q) for q in np.percentile(units[name], (10, 90))]
    if kind is not None:
        said["kinds"] = [rounded(share) for share in np.bincount(kind, minlength=len(KINDS)) / len(kind)]
    return said


def compare_ends(layers):
    """Does it matter at which end a single unit is silenced? Over the units that were."""
    value, key = (np.concatenate([layer[end] for layer in layers]) for end in ("value", "key"))
    value, key = value[~np.isnan(value)], key[~np.isnan(key)]
    return {
        "correlation": rounded(np.corrcoef(value, key)[0, 1]),
        "difference": rounded(np.sqrt(np.mean((key - value) ** 2) / np.mean(value**2))),
    }


def rounded(number):
    return round(float(number), 5)


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    steps: int = constant(700, "training steps of every stage: of the base, of each growth, of the rivals")
    lr: float = constant(5e-3, "peak learning rate of every stage")
    seeds: tuple = constant((0, 1, 2), "seeds")
    tokens: tuple = constant(
        (32, 64), "attention tokens before and after growth; feed-forward 4 times as many"
    )
    d_token: int = constant(48, "width of the Tokenformers")
    d_transformer: int = constant(64, "width of the Transformer; it needs as many parameters")
    share: float = constant(0.05, "share of the characters at which a unit fires")
    windows: int = constant(256, "held-out windows of 64 characters on which units are watched")
    knock_windows: int = constant(32, "held-out windows on which units are silenced")
    every: int = constant(4, "every so-manieth unit is silenced by itself")

    def __post_init__(self):
        if len(self.tokens) != 2 or not 0 < self.tokens[0] < self.tokens[1]:
            raise ValueError(f"tokens {self.tokens}: give the number before growth and a larger one after it")
        if not self.seeds:
            raise ValueError("seeds must not be empty")
        if self.every > 4 * min(self.tokens[0], self.tokens[1] - self.tokens[0]):
            raise ValueError(f"every {self.every}: of some group no unit would be silenced")
        self.looks(self.seeds[0])

    def looks(self, seed):
        """What is looked into, by name."""
        old, new = self.tokens
        small, large = (tokenformer(n, self.d_token, head_dim=16) for n in self.tokens)
        stage = Stage(self.steps, self.lr, seed, config=small, eval_points=4)
        sizes = (("attention_tokens", new), ("ffn_tokens", 4 * new))
        stages = {
            "Tokenformer": replace(stage, config=large),
            "Transformer": replace(stage, config=transformer(self.d_transformer, head_dim=16)),
            "not grown": replace(stage, config=None, parent=stage),
        } | {
            f"grown ({recipe})": replace(stage, config=None, parent=stage, growth=Growth(recipe, sizes))
            for recipe in RECIPES
        }
        return {
            name: Look(
                0 if name in ("Transformer", "not grown") else 4 * old,
                *(self.share, self.windows, self.knock_windows, self.every),
                parent=stage,
            )
            for name, stage in stages.items()
        }


QUICK = Plan(steps=60, seeds=(0,), windows=32, knock_windows=8, every=16)


def run(plan, sweep):
    looks = {seed: plan.looks(seed) for seed in plan.seeds}
    sweep([look for table in looks.values() for look in table.values()])
    names = looks[plan.seeds[0]]
    return {
        "arms": {
            name: {
                "lr": plan.lr,
                "keys": {str(seed): looks[seed][name].key() for seed in plan.seeds},
                "stages": {str(seed): looks[seed][name].parent.key() for seed in plan.seeds},
            }
            for name in names
        }
    }


# ----------------------------------------------------------------------------------------------- judging


class Results(verdict.Results):
    """{seed: number} of an arm, by the names that lead to it in its record."""

    def __call__(self, arm, *names):
        found = super().__call__(arm, names[0])
        for name in names[1:]:
            found = {seed: each[name] for seed, each in found.items()}
        return found

    def gain(self, field, arm, group, other, other_group):
        """A field of the units of one group minus that of another."""
        return minus(self(arm, "units", group, field), self(other, "units", other_group, field))


def size(values):
    return {seed: abs(value) for seed, value in values.items()}


GROWN, RELEASE = (f"grown ({recipe})" for recipe in RECIPES)
CLAIMS = (
    Claim(
        "parameter tokens are more selective than neurons, for the character just read",
        "selectivity of tokens minus neurons",
        lambda r: r.gain("current", "Tokenformer", "all", "Transformer", "all"),
        0.02,
        expected=False,
        headline=True,
    ),
    Claim(
        "and for the next character",
        "selectivity of tokens minus neurons",
        lambda r: r.gain("next", "Tokenformer", "all", "Transformer", "all"),
        0.02,
        expected=False,
    ),
    Claim(
        "most of it comes with the input: keys drawn at random are nearly as selective for the character just read",
        "selectivity of random keys over trained tokens",
        lambda r: ratio(r("Tokenformer", "random", "current"), r("Tokenformer", "units", "all", "current")),
        0.85,
    ),
    Claim(
        "training adds foresight: trained tokens are more selective than random keys for the next character",
        "selectivity of trained tokens over random keys",
        lambda r: ratio(r("Tokenformer", "units", "all", "next"), r("Tokenformer", "random", "next")),
        1.1,
    ),
    Claim(
        "the measure finds nothing where nothing is: shuffled characters",
        "selectivity of tokens for them",
        lambda r: r("Tokenformer", "shuffled", "current"),
        0.02,
        at_least=False,
    ),
    Claim(
        "new tokens are specialists: more selective than the old ones, for the character just read",
        "selectivity of new minus old tokens, faded keys",
        lambda r: r.gain("current", GROWN, "new", GROWN, "old"),
        0.02,
        expected=False,
        headline=True,
    ),
    Claim(
        "and for the next character",
        "selectivity of new minus old tokens, faded keys",
        lambda r: r.gain("next", GROWN, "new", GROWN, "old"),
        0.02,
        expected=False,
    ),
    Claim(
        "and after the release's growth, for the character just read",
        "selectivity of new minus old tokens, release",
        lambda r: r.gain("current", RELEASE, "new", RELEASE, "old"),
        0.02,
        expected=False,
    ),
    Claim(
        "more selective than tokens at the same places of a Tokenformer from scratch",
        "selectivity of new tokens, faded keys, minus those of scratch",
        lambda r: r.gain("current", GROWN, "new", "Tokenformer", "new"),
        0.02,
        expected=False,
    ),
    Claim(
        "new tokens fire for rarer characters than the old ones",
        "surprise of the characters, nats, new minus old, faded keys",
        lambda r: r.gain("surprise", GROWN, "new", GROWN, "old"),
        0.05,
    ),
    Claim(
        "and than tokens at the same places from scratch",
        "surprise of the characters, nats, faded keys minus scratch",
        lambda r: r.gain("surprise", GROWN, "new", "Tokenformer", "new"),
        0.05,
    ),
    Claim(
        "new tokens fire later in the window: they need more to have been read",
        "mean place, 0 to 63, new minus old, faded keys",
        lambda r: r.gain("place", GROWN, "new", GROWN, "old"),
        0.5,
        expected=False,
    ),
    Claim(
        "a new token is missed less than a third as much as an old one",
        "mean rise of the loss without one, new over old, faded keys",
        lambda r: ratio(r(GROWN, "units", "new", "value"), r(GROWN, "units", "old", "value")),
        0.33,
        at_least=False,
    ),
    Claim(
        "all new tokens together are missed less than a third as much as the same places from scratch",
        "rise of the loss without all, faded keys over scratch",
        lambda r: ratio(r(GROWN, "silenced", "new", "value"), r("Tokenformer", "silenced", "new", "value")),
        0.33,
        at_least=False,
    ),
    Claim(
        "growth leaves the old tokens as selective as the same training without growth does",
        "distance of the selectivities, old tokens, faded keys and not grown",
        lambda r: size(r.gain("current", GROWN, "old", "not grown", "all")),
        0.02,
        at_least=False,
    ),
    Claim(
        "removal is honest in spite of the norm: without key or without value, one token is missed as much",
        "rms of the difference over rms of the effect",
        lambda r: r("Tokenformer", "ends", "difference"),
        0.15,
        at_least=False,
    ),
    Claim(
        "even where half of all tokens go at once",
        "difference of the rises over the rise, second half, from scratch",
        lambda r: size(
            ratio(
                minus(
                    r("Tokenformer", "silenced", "new", "key"), r("Tokenformer", "silenced", "new", "value")
                ),
                r("Tokenformer", "silenced", "new", "value"),
            )
        ),
        0.2,
        at_least=False,
    ),
)


# ---------------------------------------------------------------------------------------------- drawing


ROWS = (  # label, arm, what leads to the summary
    ("tokens, from scratch", "Tokenformer", ("units", "all")),
    ("neurons", "Transformer", ("units", "all")),
    ("random keys, tokens' input", "Tokenformer", ("random",)),
    ("random keys, neurons' input", "Transformer", ("random",)),
    ("old tokens, grown", GROWN, ("units", "old")),
    ("new tokens, grown", GROWN, ("units", "new")),
    ("tokens, shuffled text", "Tokenformer", ("shuffled",)),
)
POINTS = (  # label, arm, group
    ("old, faded keys", GROWN, "old"),
    ("new, faded keys", GROWN, "new"),
    ("old, release", RELEASE, "old"),
    ("new, release", RELEASE, "new"),
    ("not grown", "not grown", "all"),
    ("tokens, from scratch", "Tokenformer", "all"),
    ("neurons", "Transformer", "all"),
)


def draw(stem=STEM):
    results = Results(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8")))
    plot.style()
    fig, axes = plt.subplots(1, 3, figsize=(13.5, 5), width_ratios=(1.1, 1.15, 1))
    draw_selectivity(axes[0], results)
    draw_kinds(axes[1], results)
    draw_missed(axes[2], results)
    plot.save(fig, stem, ALT)


def draw_selectivity(ax, results):
    looks = (("current", "the character just read", 1, "o"), ("next", "the next character", 2, "^"))
    for field, label, color, marker in looks:
        color = plot.PALETTE[color]
        for row, (_, arm, path) in enumerate(ROWS):
            at = row + (0.16 if field == "next" else -0.16)
            low, high = np.mean(list(results(arm, *path, f"{field} 10-90").values()), axis=0)
            ax.hlines(at, low, high, color=color, alpha=0.35, linewidth=4)
            seeds = list(results(arm, *path, field).values())
            ax.plot(
                seeds, [at] * len(seeds), linestyle="none", marker=marker, color=color, markersize=5,
                label=label if row == 0 else None,
            )  # fmt: skip
    ax.set_yticks(range(len(ROWS)), [row[0] for row in ROWS], fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="selectivity: 1 if the character decides", xlim=(0, None))
    ax.set_title("How selective? (seeds; bars: 10 to 90% of units)", fontsize=9)
    ax.legend(fontsize=8, loc="lower right", title="for", title_fontsize=8)


def draw_kinds(ax, results):
    rows = [("all characters", "Tokenformer", ("text",)), *ROWS[:-1]]
    left = np.zeros(len(rows))
    shares = np.array([np.mean(list(results(arm, *path, "kinds").values()), axis=0) for _, arm, path in rows])
    hatches = ("", "//", "", "..", "", "xx")
    for kind, hatch, color in zip(KINDS, hatches, plot.PALETTE[1:], strict=True):
        width = shares[:, KINDS.index(kind)]
        ax.barh(
            range(len(rows)), width, left=left, color=color, hatch=hatch, edgecolor="white", height=0.7,
            label=kind,
        )  # fmt: skip
        left += width
    ax.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=9)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set(xlabel="share of units", xlim=(0, 1))
    ax.set_title("What do they fire for most? (mean of seeds)", fontsize=9)
    ax.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.13))


def draw_missed(ax, results):
    for index, (label, arm, group) in enumerate(POINTS):
        x, y = (list(results(arm, "units", group, field).values()) for field in ("current", "value"))
        ax.plot(
            x, y, linestyle="none", marker=plot.MARKERS[index], color=plot.PALETTE[index], label=label,
            markersize=7, alpha=0.85,
        )  # fmt: skip
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set(
        xlabel="selectivity for the character just read",
        ylabel="rise of the loss without one unit (1/1000 nat)",
    )
    ax.set_title("Are selective units missed? (seeds)", fontsize=9)
    ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.4, -0.13))


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw, claims=CLAIMS, results=Results)
