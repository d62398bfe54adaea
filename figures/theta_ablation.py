"""Which theta trains best? All kinds on one Tokenformer, at the same output scale, learning rates tuned, three seeds.

    python figures/theta_ablation.py            runs what is missing (about 10 minutes), draws
    python figures/theta_ablation.py --redraw   draws from theta_ablation.json

Values are scaled at the start so that every theta's layers have the output size of the paper's; n·softmax and plain
softmax are then the same function.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import init_params, pattention_forward, plot
from minitf.laboratory import Stage, tokenformer
from minitf.laboratory.command import constant, main
from minitf.laboratory.tuning import tune_and_repeat
from minitf.pattention import KINDS

STEM = Path(__file__).with_suffix("")
PAPER = {"exp, L1 norm": 79.6, "GeLU, L1 norm": 81.7, "GeLU, L2 norm": 82.5}  # table 4, ImageNet top-1 in %
ALT = (
    "Two panels. Left: held-out loss at the end of training for each kind of theta, a mark for each of three seeds and "
    "smaller marks for the other learning rates of the grid. Right: the paper's table 4, ImageNet accuracy for three "
    "pairs of nonlinearity and norm."
)


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    tokens: int = constant(45, "attention tokens; the feed-forward part has 4 times as many")
    steps: int = constant(1000, "training steps")
    lrs: tuple = constant((1e-3, 3e-3, 1e-2), "grid of peak learning rates")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")
    kinds: tuple = constant(tuple(KINDS), "kinds of theta")

    def __post_init__(self):
        for kind in self.kinds:
            tokenformer(self.tokens, theta=kind)

    def stage(self, kind, lr, seed):
        config = tokenformer(self.tokens, theta=kind)
        return Stage(self.steps, lr, seed, config=config, value_scale=matching_scale(self.tokens, kind))


QUICK = Plan(tokens=20, steps=60, lrs=(1e-2,), seeds=(0,))


@cache
def matching_scale(tokens, kind):
    """Factor on the values that gives a feed-forward layer the output size of the paper's theta."""
    sizes = [output_size(tokens, theta) for theta in ("l2_norm_gelu", kind)]
    return round(sizes[0] / sizes[1], 6)


def output_size(tokens, kind):
    config = tokenformer(tokens, theta=kind)
    ffn = init_params(config)["block_0"]["ffn"]
    x = np.random.default_rng(0).standard_normal(
        (512, config.d_model), dtype=np.float32
    )  # as after layer norm
    out, _ = pattention_forward(x, ffn["key"], ffn["value"], kind)
    return float(np.sqrt(np.mean(np.square(out, dtype=np.float64))))


def run(plan, sweep):
    arms = tune_and_repeat(plan.kinds, plan.stage, plan.lrs, plan.seeds, sweep)
    return {
        "arms": {kind: arm | {"value_scale": matching_scale(plan.tokens, kind)} for kind, arm in arms.items()}
    }


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), width_ratios=(1.6, 1))
    arms = measured["arms"]
    for row, arm in enumerate(arms.values()):
        color = plot.PALETTE[row % len(plot.PALETTE)]
        losses = [measured["runs"][key]["heldout"] for key in arm["keys"].values()]
        left.plot(
            losses, [row] * len(losses), linestyle="none", marker="o", color=color, markersize=7, alpha=0.8
        )
        for lr, loss in arm["grid"].items():
            if float(lr) != arm["lr"]:
                left.plot(loss, row, linestyle="none", marker="|", color=color, markersize=9)
    left.set_yticks(
        range(len(arms)), [f"{kind}\n(lr {arm['lr']:g})" for kind, arm in arms.items()], fontsize=8
    )
    left.invert_yaxis()
    left.set_xlabel("held-out loss at the end (nats per character)")
    left.set_title("dots: seeds at the best learning rate; bars: the others", fontsize=9)
    right.plot(list(PAPER.values()), range(len(PAPER)), linestyle="none")
    right.set_yticks(range(len(PAPER)), list(PAPER), fontsize=8)
    right.set(xlabel="ImageNet top-1 accuracy (%)", ylim=(-0.5, len(PAPER) - 0.5))
    right.set_title("the paper, table 4", fontsize=9)
    plot.save(fig, stem, ALT)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw)
