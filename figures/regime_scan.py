"""Why small growth experiments disagree with the paper: the base must be saturated. And short scans of the rest.

    python figures/regime_scan.py            runs what is missing (about 30 minutes after cost_curves.py), draws
    python figures/regime_scan.py --redraw   draws from regime_scan.json

Share of the gap closed by growing against training tokens per parameter of the base, for several budgets B; and the
gain of one growth over training on, against parameter tokens per width, growth factor and learning rate.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import plot
from minitf.laboratory import Stage, continued, grown, matching_tokens, tokenformer, transformer
from minitf.laboratory.command import constant, main

STEM = Path(__file__).with_suffix("")
D_TOKEN = 60
ALT = (
    "Four panels. First: share of the gap between the small Tokenformer and the large Transformer that growing closed, "
    "against training tokens per parameter of the base, at two budgets per stage. Others: how many nats one growth "
    "gained over training on without it, against parameter tokens per width of the base, against the growth factor, "
    "and against the learning rate of the stage."
)


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    budgets: tuple = constant((1500, 3000, 6000, 12000), "values of B, in steps")
    shares: tuple = constant((0.1, 0.2), "shares of B for a stage of growth")
    widths: tuple = constant((40, 60, 100, 120), "widths of the Transformers of the same sizes")
    recipe: str = constant("faded keys", "way to grow")
    base_lr: float = constant(3e-3, "peak learning rate of Tokenformer bases")
    grow_lr: float = constant(1e-3, "peak learning rate of stages of growth")
    transformer_lr: float = constant(3e-3, "peak learning rate of the large Transformer")
    scan_budget: int = constant(1500, "steps of the bases of the scan of tokens per width")
    scan_tokens: tuple = constant(
        (15, 45, 120), "attention tokens of the bases of that scan; growth doubles them"
    )
    factors: tuple = constant((1.5, 2.0, 4.0, 8.0), "growth factors from the smallest base, at factor_budget")
    factor_budget: int = constant(6000, "steps of the base of the scans of growth factor and learning rate")
    lrs: tuple = constant((3e-4, 1e-3, 3e-3, 1e-2), "learning rates of a stage that doubles the tokens")
    seed: int = constant(0, "seed")

    def __post_init__(self):
        if list(self.widths) != sorted(set(self.widths)) or len(self.widths) < 2:
            raise ValueError(
                f"widths {self.widths}: growth needs at least two sizes, each larger than the last"
            )
        if min(*self.budgets, self.scan_budget, self.factor_budget) * min(self.shares) < 1:
            raise ValueError("a share of the smallest budget is no step at all")
        if min(self.factors) <= 1:
            raise ValueError(f"growth factors {self.factors}: each must be above 1")
        self.base(self.budgets[0], matching_tokens(self.widths[0], D_TOKEN))

    def base(self, steps, tokens):
        return Stage(steps, self.base_lr, self.seed, config=tokenformer(tokens, D_TOKEN))


QUICK = Plan(
    budgets=(60, 120),
    widths=(40, 60),
    scan_budget=60,
    scan_tokens=(15,),
    factors=(2.0,),
    factor_budget=60,
    lrs=(1e-2,),
)


def run(plan, sweep):
    small, *larger = (matching_tokens(width, D_TOKEN) for width in plan.widths)
    share = max(plan.shares)
    budgets = [
        {
            "base": plan.base(steps, small),
            "target": Stage(steps, plan.transformer_lr, plan.seed, config=transformer(plan.widths[-1])),
            **{
                f"grown {s:g}": grown(
                    plan.base(steps, small), plan.recipe, larger, round(s * steps), plan.grow_lr
                )[-1]
                for s in plan.shares
            },
        }
        for steps in plan.budgets
    ]
    widths = [
        pair(plan, plan.base(plan.scan_budget, tokens), 2 * tokens, share * plan.scan_budget, plan.grow_lr)
        for tokens in plan.scan_tokens
    ]
    stem = plan.base(plan.factor_budget, small)
    stage_steps = min(plan.shares) * plan.factor_budget
    factors = [pair(plan, stem, round(factor * small), stage_steps, plan.grow_lr) for factor in plan.factors]
    rates = [pair(plan, stem, 2 * small, stage_steps, lr) for lr in plan.lrs]
    groups = {
        "budgets": budgets,
        "tokens per width": widths,
        "growth factor": factors,
        "learning rate": rates,
    }
    sweep([stage for group in groups.values() for point in group for stage in point.values()])
    return {
        "keys": {
            name: [{k: stage.key() for k, stage in point.items()} for point in group]
            for name, group in groups.items()
        }
    }


def pair(plan, base, tokens, steps, lr):
    """One growth, and the same steps without it."""
    (with_growth,) = grown(base, plan.recipe, [tokens], round(steps), lr)
    (without,) = continued(base, 1, round(steps), lr)
    return {"grown": with_growth, "no growth": without}


def closed(point, share):
    """Share of the gap from the small base to the large Transformer that growing closed."""
    base, target, end = (point[name]["heldout"] for name in ("base", "target", f"grown {share:g}"))
    return (base - end) / (base - target)


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    plan = measured["plan"]
    groups = {
        name: [{k: measured["runs"][key] for k, key in point.items()} for point in group]
        for name, group in measured["keys"].items()
    }
    plot.style()
    fig, axes = plt.subplots(2, 2, figsize=(9.6, 6.6))
    ax = axes[0, 0]
    x = [point["base"]["tokens"] / point["base"]["layer_parameters"] for point in groups["budgets"]]
    for share in plan["shares"]:
        ax.plot(x, [closed(point, share) for point in groups["budgets"]], label=f"B/{1 / share:g} a stage")
    for level, label in ((0.68, "paper, 354M"), (0.96, "paper, 1.4B")):
        ax.axhline(level, color="gray", linewidth=1, linestyle=":")
        ax.annotate(label, (x[0], level), fontsize=8, va="bottom")
    ax.set(xlabel="training tokens per parameter of the base", ylabel="share of the gap closed")
    log_axis(ax, x)
    ax.legend(fontsize=8)
    scans = (
        (axes[0, 1], "tokens per width", np.divide(plan["scan_tokens"], D_TOKEN), "attention tokens / width"),
        (axes[1, 0], "growth factor", plan["factors"], "growth factor of the stage"),
        (axes[1, 1], "learning rate", plan["lrs"], "peak learning rate of the stage"),
    )  # fmt: skip
    for ax, name, x, label in scans:
        losses = {
            k: np.array([point[k]["heldout"] for point in groups[name]]) for k in ("grown", "no growth")
        }
        ax.plot(x, losses["no growth"] - losses["grown"], label="no growth minus grown")
        ax.axhline(0, color="gray", linewidth=1)
        ax.set(xlabel=label, ylabel="gain of growing (nats)")
        log_axis(ax, x)
    plot.save(fig, stem, ALT)


def log_axis(ax, x):
    """A logarithmic axis with a tick at every point."""
    ax.set_xscale("log")
    ax.set_xticks(x, [f"{number:.3g}" for number in x])
    ax.minorticks_off()


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw)
