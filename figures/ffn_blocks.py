"""Is a feed-forward part of two Pattentions in a row better than one? At equal parameters, learning rates tuned.

    python figures/ffn_blocks.py            runs what is missing (about 5 minutes), draws
    python figures/ffn_blocks.py --redraw   draws from ffn_blocks.json

The paper and the release use one; an article that many readers come from says two.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from minitf import plot
from minitf.laboratory import Stage, tokenformer
from minitf.laboratory.command import constant, main
from minitf.laboratory.tuning import tune_and_repeat

STEM = Path(__file__).with_suffix("")
ALT = (
    "Two panels for a Tokenformer with one Pattention in the feed-forward part and one with two in a row, equal in "
    "parameters. Left: held-out loss against training steps, mean and range over seeds. Right: final loss against the "
    "peak learning rate of the grid, with the seeds at the best one."
)


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    tokens: int = constant(
        45, "attention tokens; one feed-forward Pattention has 4 times as many, each of two half"
    )
    steps: int = constant(1000, "training steps")
    lrs: tuple = constant((1e-3, 3e-3, 1e-2), "grid of peak learning rates")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")

    def __post_init__(self):
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}: it must be at least 1")

    def stage(self, name, lr, seed):
        blocks = NAMES.index(name) + 1
        config = tokenformer(self.tokens, ffn_tokens=4 * self.tokens // blocks, ffn_blocks=blocks)
        return Stage(self.steps, lr, seed, config=config)


NAMES = ("one Pattention", "two in a row")
QUICK = Plan(tokens=20, steps=60, lrs=(1e-2,), seeds=(0,))


def run(plan, sweep):
    return {"arms": tune_and_repeat(NAMES, plan.stage, plan.lrs, plan.seeds, sweep)}


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for index, (name, arm) in enumerate(measured["arms"].items()):
        seeds = [measured["runs"][key] for key in arm["keys"].values()]
        curves = [run["curve"] for run in seeds]
        steps = [step for step, _ in curves[0]]
        plot.band(left, steps, [[loss for _, loss in curve] for curve in curves], name, index)
        draw_grid(right, arm, [run["heldout"] for run in seeds], index)
    left.set(xlabel="training steps", ylabel="held-out loss (nats per character)")
    right.set(xlabel="peak learning rate", ylabel="held-out loss at the end", xscale="log")
    left.legend()
    plot.save(fig, stem, ALT)


def draw_grid(ax, arm, ends, index):
    """The grid as a line, the seeds at its best point as marks."""
    look = {"color": plot.PALETTE[index], "marker": plot.MARKERS[index]}
    lrs = sorted(arm["grid"], key=float)
    ax.plot([float(lr) for lr in lrs], [arm["grid"][lr] for lr in lrs], linestyle=plot.LINES[index], **look)
    ax.plot([arm["lr"]] * len(ends), ends, linestyle="none", markersize=7, alpha=0.6, **look)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw)
