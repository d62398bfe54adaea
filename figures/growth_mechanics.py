"""Loss through one growth: what jumps at birth, what recovers, what starves.

    python figures/growth_mechanics.py            runs what is missing (about 8 minutes after cost_curves.py), draws
    python figures/growth_mechanics.py --redraw   draws from growth_mechanics.json

The base is cost_curves.py's small Tokenformer; it doubles its tokens and trains on for a tenth of the base's steps, by
every recipe, beside the same steps without growth. Doubling lets copies be exact with tau rescaled.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import plot
from minitf.laboratory import RECIPES, Growth, Stage, tokenformer
from minitf.laboratory.command import constant, main

STEM = Path(__file__).with_suffix("")
NO_GROWTH = "no growth"
ALT = (
    "Two panels. Left: held-out loss in nats per character against training steps after a growth, for several recipes: "
    "recipes that are exact at birth start at the old loss, random rows and a rescaled tau start far above it. Right: "
    "loss at the end of the stage by recipe, as a difference to training on without growth, one point per seed, with "
    "the jump of the loss at birth."
)


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    base_steps: int = constant(6000, "training steps of the base")
    base_lr: float = constant(3e-3, "peak learning rate of the base")
    tokens: tuple = constant((20, 40), "attention tokens before and after growth")
    steps: int = constant(600, "training steps after growth")
    lr: float = constant(3e-3, "peak learning rate after growth")
    seeds: tuple = constant((0, 1, 2), "seeds")
    eval_points: int = constant(30, "points of every learning curve")
    recipes: tuple = constant(
        (
            *("faded keys", "annealed", "held", "dead", "copies"),
            *("zero keys rescaled", "matched keys", "release"),
        ),
        f"ways to grow: {', '.join(RECIPES)}",
    )

    def __post_init__(self):
        if len(self.tokens) != 2 or self.tokens[0] >= self.tokens[1]:
            raise ValueError(f"tokens {self.tokens}: give the number before growth and a larger one after it")
        for stage in self.stages(self.seeds[0]).values():
            stage.train_config()

    def stages(self, seed):
        """The stage of every recipe."""
        old, new = self.tokens
        base = Stage(self.base_steps, self.base_lr, seed, config=tokenformer(old))
        sizes = (("attention_tokens", new), ("ffn_tokens", 4 * new))
        growths = {NO_GROWTH: None} | {recipe: Growth(recipe, sizes) for recipe in self.recipes}
        return {
            name: Stage(self.steps, self.lr, seed, parent=base, growth=growth, eval_points=self.eval_points)
            for name, growth in growths.items()
        }


QUICK = Plan(base_steps=200, base_lr=1e-2, steps=40, lr=1e-2, seeds=(0,), eval_points=8)


def run(plan, sweep):
    stages = {seed: plan.stages(seed) for seed in plan.seeds}
    sweep([stage for table in stages.values() for stage in table.values()])
    bases = {seed: table[NO_GROWTH].parent for seed, table in stages.items()}
    return {
        "keys": {
            name: {str(seed): stages[seed][name].key() for seed in plan.seeds}
            for name in stages[plan.seeds[0]]
        },
        "base_keys": {str(seed): base.key() for seed, base in bases.items()},
    }


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    runs = {
        name: {seed: measured["runs"][key] for seed, key in keys.items()}
        for name, keys in measured["keys"].items()
    }
    plot.style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(1.2, 1))
    shown = [
        name for name in (NO_GROWTH, "faded keys", "held", "zero keys rescaled", "release") if name in runs
    ]
    for index, name in enumerate(shown):
        steps, losses = curves(runs, name)
        plot.band(left, steps, losses, name, index)
    start = np.mean([measured["runs"][key]["heldout"] for key in measured["base_keys"].values()])
    left.set_ylim(start - 0.05, start + 0.35)
    left.set(xlabel="training steps after growth", ylabel="held-out loss (nats per character)")
    left.set_title("loss through a growth (mean, range over seeds)", fontsize=9)
    left.legend(fontsize=8)
    draw_ends(right, runs)
    plot.save(fig, stem, ALT)


def curves(runs, name):
    """Steps, from birth on, and losses (seeds, steps)."""
    rows = list(runs[name].values())
    steps = [0] + [step for step, _ in rows[0]["curve"]]
    births = [birth_loss(runs, row_seed, name) for row_seed in runs[name]]
    return steps, [
        [birth, *(loss for _, loss in row["curve"])] for birth, row in zip(births, rows, strict=True)
    ]


def birth_loss(runs, seed, name):
    """Loss after growth; without growth there is nothing to compare, so another recipe's loss before it."""
    other = next(recipe for recipe in runs if recipe != NO_GROWTH)
    birth = runs[other if name == NO_GROWTH else name][seed]["birth"]
    return birth["loss_before" if name == NO_GROWTH else "loss_after"]


def draw_ends(ax, runs):
    for row, name in enumerate(runs):
        ends = [run["heldout"] - runs[NO_GROWTH][seed]["heldout"] for seed, run in runs[name].items()]
        exact = name in RECIPES and RECIPES[name].exact
        look = {"color": plot.PALETTE[1 if exact else 2], "marker": "o" if exact else "^"}
        ax.plot(ends, [row] * len(ends), linestyle="none", **look)
        if name != NO_GROWTH:
            births = [run["birth"] for run in runs[name].values()]
            jump = np.mean([birth["loss_after"] - birth["loss_before"] for birth in births])
            ax.annotate(
                f"{jump:+.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8
            )
    ax.axvline(0, color="gray", linewidth=1)
    ax.set_yticks(range(len(runs)), list(runs))
    ax.invert_yaxis()
    ax.set_xlabel("loss at the end, minus no growth (nats)")
    ax.set_title("circles: exact at birth; right margin: jump at birth", fontsize=9)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw)
