"""Is growing cheaper than starting over? The paper's cost curves at the scale of a laptop, with the controls they need.

    python figures/cost_curves.py --budget quick     a small version in under 3 minutes: shows that everything works
    python figures/cost_curves.py                    the full one, resumes where it was stopped
    python figures/cost_curves.py --redraw           draws and judges again from cost_curves.json
    python figures/cost_curves.py --predictions      writes the predictions into cost_curves.md, before any run

A Tokenformer of fixed width is trained with the full budget B and grown through three more sizes, each with a share
of B; Transformers of the same sizes start from scratch. Losses are nats per character on four held-out plays, costs
are FLOPs counted from the matrix products that ran. Finished runs are kept in build/laboratory; any constant can be
changed on the command line, and only what that changes runs again.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import plot, training_flops
from minitf.laboratory import (
    RECIPES,
    Stage,
    continued,
    grown,
    matching_tokens,
    tokenformer,
    transformer,
    widened,
)
from minitf.laboratory.command import constant, main
from minitf.laboratory.verdict import Claim, minus, plan_of, ratio, readme_table, write_section

STEM = Path(__file__).with_suffix("")
PAPER = {  # OpenWebText, perplexity (tables 6 and 7); TPU-v4 hours, read off the release's figure to about 50
    "Transformer, scratch, 300B tokens": ([1600, 4200, 7400, 11640], [17.06, 13.02, 11.99, 11.63]),
    "Tokenformer, grown, 30B a stage": ([1700, 2130, 2830, 3930], [16.41, 14.02, 12.59, 11.77]),
    "Tokenformer, grown, 60B a stage": ([1700, 2490, 3900, 6150], [16.41, 13.59, 12.28, 11.60]),
}
ALT = (
    "Three panels of loss against training cost. First: each model's own cost from its first step; second: the cost of "
    "having all sizes up to this one; circles grow with the parameters. Third: the paper's points for the same "
    "comparison. In ours as in the paper's, the grown Tokenformers lie left of and above the Transformers trained with "
    "the full budget; how close they come is the verdict table's business."
)


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    base_steps: int = constant(6000, "B, training steps of the full budget")
    shares: tuple = constant((0.1, 0.2), "shares of B for a stage of growth, with commas between")
    widths: tuple = constant(
        (40, 60, 100, 120), "widths of the Transformers; Tokenformers have as many parameters"
    )
    d_token: int = constant(60, "width of the Tokenformer, the same at every size")
    head_dim: int = constant(20, "channels of an attention head, must divide all widths")
    n_layers: int = constant(2, "layers of all models")
    context: int = constant(64, "characters that a model sees at once")
    batch_size: int = constant(16, "sequences in a training step")
    lrs: tuple = constant((1e-3, 3e-3, 1e-2), "grid of peak learning rates, the same for every arm")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")
    recipes: tuple = constant(
        ("held", "release", "annealed", "faded keys"), f"ways to grow: {', '.join(RECIPES)}"
    )
    compared: tuple = constant(
        ("release", "faded keys"), "two of the recipes that get every seed; the second is judged"
    )

    def __post_init__(self):
        if len(self.widths) < 2 or list(self.widths) != sorted(set(self.widths)):
            raise ValueError(
                f"widths {self.widths}: growth needs at least two sizes, each larger than the last"
            )
        if self.base_steps < 1 or not self.lrs or not self.seeds or not self.shares:
            raise ValueError("the budget, the grid, the seeds and the shares must not be empty")
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares {self.shares}: each is a share of the full budget, above 0 and up to 1")
        if min(self.shares) * self.base_steps < 1:
            raise ValueError(f"a share of {min(self.shares)} of {self.base_steps} steps is no step at all")
        if unknown := {*self.recipes, *self.compared} - set(RECIPES):
            raise ValueError(f"unknown recipes {sorted(unknown)}: choose among {', '.join(RECIPES)}")
        if not set(self.compared) <= set(self.recipes) or len(self.compared) != 2:
            raise ValueError(f"compared {self.compared}: name two of the recipes {self.recipes}")
        if list(self.tokens) != sorted(set(self.tokens)):
            raise ValueError(
                f"tokens {self.tokens} do not grow: take widths further apart or a smaller d_token"
            )
        for width in self.widths:
            self.transformer(width)
        for tokens in self.tokens:
            self.tokenformer(tokens)
        Stage(
            self.base_steps, self.lrs[0], config=self.tokenformer(self.tokens[0]), batch_size=self.batch_size
        )

    @cached_property
    def tokens(self):
        return tuple(matching_tokens(width, self.d_token) for width in self.widths)

    def transformer(self, width):
        return transformer(width, self.head_dim, self.n_layers, self.context)

    def tokenformer(self, tokens):
        return tokenformer(tokens, self.d_token, self.head_dim, self.n_layers, self.context)

    def steps(self, share):
        return round(share * self.base_steps)


QUICK = Plan(
    base_steps=300,
    widths=(40, 60, 100),
    shares=(0.1,),
    lrs=(1e-2,),
    seeds=(0,),
    recipes=("release", "faded keys"),
)


@dataclass(frozen=True)
class Arm:
    """One kind of training: build(lr, seed) -> its stages; its lr is tuned by its own loss or by another arm's."""

    build: object
    tuned_by: str
    seeds: tuple


def share_name(share):
    return f"B/{1 / share:g}"


def bases(plan):
    """The two small models that others start from, tuned at the full budget."""
    return {
        "Transformer 1, B": scratch(
            plan, plan.transformer(plan.widths[0]), 1, "Transformer 1, B", plan.seeds
        ),
        "Tokenformer 1, B": scratch(
            plan, plan.tokenformer(plan.tokens[0]), 1, "Tokenformer 1, B", plan.seeds
        ),
    }


def scratch(plan, config, share, tuned_by, seeds):
    steps = plan.steps(share)

    def build(lr, seed):
        return (Stage(steps, lr, seed, config=config, batch_size=plan.batch_size),)

    return Arm(build, tuned_by, seeds)


def arms(plan, base):
    """Every other arm by name, the longest runs first; base: {name of a base arm: its tuned learning rate}."""

    def stem(kind, seed):
        return bases(plan)[f"{kind} 1, B"].build(base[f"{kind} 1, B"], seed)[0]

    table = scratch_arms(plan)
    for share in plan.shares:
        table |= growing_arms(plan, share, stem) | control_arms(plan, share, stem)
    return table


def scratch_arms(plan):
    """From scratch: Transformers of every size and budget, larger Tokenformers at the full and the smallest one."""
    table, last, one = {}, len(plan.widths), plan.seeds[:1]
    small, large = share_name(min(plan.shares)), share_name(max(plan.shares))
    for i, width in reversed(list(enumerate(plan.widths, start=1))):
        config, seeds = plan.transformer(width), plan.seeds if i == last else one
        if i > 1:
            table[f"Transformer {i}, B"] = scratch(plan, config, 1, f"Transformer {i}, {large}", seeds)
        for share in plan.shares:
            name = f"Transformer {i}, {share_name(share)}"
            table[name] = scratch(plan, config, share, name, seeds)
    for i, tokens in reversed(list(enumerate(plan.tokens, start=1))[1:]):
        config, seeds = plan.tokenformer(tokens), plan.seeds if i == last else one
        name = f"Tokenformer {i}, {small}"
        table[f"Tokenformer {i}, B"] = scratch(plan, config, 1, name, one)
        table[name] = scratch(plan, config, min(plan.shares), name, seeds)
    return table


def growing_arms(plan, share, stem):
    """Tokenformers grown by every recipe, and Transformers widened by Net2Net, with this share of B a stage."""
    steps, name, tuned = plan.steps(share), share_name(share), share_name(min(plan.shares))
    table = {}
    for recipe in plan.recipes:

        def grow(lr, seed, recipe=recipe):
            return grown(stem("Tokenformer", seed), recipe, plan.tokens[1:], steps, lr)

        seeds = plan.seeds if recipe in plan.compared else plan.seeds[:1]
        table[f"grown ({recipe}), {name}"] = Arm(grow, f"grown ({recipe}), {tuned}", seeds)

    def widen(lr, seed):
        return widened(stem("Transformer", seed), plan.widths[1:], steps, lr)

    table[f"Net2Net, {name}"] = Arm(widen, f"Net2Net, {tuned}", plan.seeds)
    return table


def control_arms(plan, share, stem):
    """What growing must be compared with: the same tokens and the same FLOPs, spent without growth."""
    steps, name, tuned = plan.steps(share), share_name(share), share_name(min(plan.shares))
    last, target = len(plan.widths), plan.transformer(plan.widths[-1])
    flops = [plan.batch_size * training_flops(plan.tokenformer(n), plan.context) for n in plan.tokens]
    extra = steps * sum(flops[1:])
    total = plan.base_steps * flops[0] + extra
    of_target = plan.batch_size * training_flops(target, plan.context)

    def train_on(lr, seed):
        return continued(stem("Tokenformer", seed), last - 1, steps, lr)

    def spend(lr, seed):
        return continued(stem("Tokenformer", seed), 1, round(extra / flops[0]), lr)

    no_growth, from_scratch = f"no growth, {tuned}", f"Transformer {last}, {share_name(max(plan.shares))}"
    few = plan.seeds if share == min(plan.shares) else plan.seeds[:1]
    return {
        f"no growth, {name}": Arm(train_on, no_growth, plan.seeds),
        f"no growth, FLOPs of grown {name}": Arm(spend, no_growth, few),
        f"Transformer {last}, FLOPs of grown {name}": scratch(
            plan, target, total / of_target / plan.base_steps, from_scratch, plan.seeds
        ),
    }


# ----------------------------------------------------------------------------------------------- running


def run(plan, sweep):
    """Tune the bases, tune the other arms, run every seed; returns what goes into the JSON."""
    first = plan.seeds[0]
    grids = {}

    def tune(table):
        for_tuning = {name: arm for name, arm in table.items() if arm.tuned_by == name}
        lineages = {(name, lr): arm.build(lr, first) for lr in plan.lrs for name, arm in for_tuning.items()}
        sweep([stage for lineage in lineages.values() for stage in lineage], "tuning")
        for (name, lr), lineage in lineages.items():
            grids.setdefault(name, {})[lr] = sweep(lineage)[-1]["heldout"]

    def best(arm):
        grid = grids[arm.tuned_by]
        return min(grid, key=grid.get)

    small = bases(plan)
    tune(small)
    table = arms(plan, {name: best(arm) for name, arm in small.items()})
    tune(table)
    table = small | table
    lineages = {name: {seed: arm.build(best(arm), seed) for seed in arm.seeds} for name, arm in table.items()}
    sweep([stage for seed in plan.seeds for arm in lineages.values() for stage in arm.get(seed, ())], "seeds")
    return {
        "grids": {name: {str(lr): loss for lr, loss in grid.items()} for name, grid in grids.items()},
        "arms": {
            name: {
                "lr": best(table[name]),
                "keys": {str(seed): [stage.key() for stage in stages] for seed, stages in arm.items()},
                "bases": {
                    str(seed): stages[0].parent.key() for seed, stages in arm.items() if stages[0].parent
                },
            }
            for name, arm in lineages.items()
        },
    }


# ----------------------------------------------------------------------------------------------- judging


class Results:
    """What the JSON says, by arm."""

    def __init__(self, measured):
        self.measured = measured
        self.plan = plan_of(measured, Plan)
        self.last = len(self.plan.widths)
        self.exact = self.plan.compared[1]
        self.shares = [share_name(share) for share in sorted(set(self.plan.shares))]
        self.small = self.shares[0]
        self.large = self.shares[-1]

    def seeds(self, arm):
        return list(self.measured["arms"][arm]["keys"])

    def stages(self, arm, seed):
        """The runs of a lineage, without its base; total_flops are those of a stage and of all before it."""
        table, runs = self.measured["arms"][arm], self.measured["runs"]
        total = runs[table["bases"][seed]]["flops"] if table["bases"] else 0
        rows = []
        for key in table["keys"][seed]:
            total += runs[key]["flops"]
            rows.append(runs[key] | {"total_flops": total})
        return rows

    def loss(self, arm, split="heldout"):
        """{seed: loss at the end}"""
        return {seed: self.stages(arm, seed)[-1][split] for seed in self.seeds(arm)}

    def flops(self, arm):
        return self.stages(arm, self.seeds(arm)[0])[-1]["total_flops"]

    def base(self):
        return self.loss("Tokenformer 1, B")

    def full(self):
        return self.loss(f"Transformer {self.last}, B")

    def grown(self, share, recipe=None):
        return self.loss(f"grown ({recipe or self.exact}), {share}")

    def closed(self, share):
        """Share of the gap from the small Tokenformer to the large Transformer that growing closed."""
        return ratio(minus(self.base(), self.grown(share)), minus(self.base(), self.full()))

    def family_cost(self, share):
        """FLOPs of all Transformers at the full budget over those of the grown family."""
        family = sum(self.flops(f"Transformer {i}, B") for i in range(1, self.last + 1))
        return {"0": family / self.flops(f"grown ({self.exact}), {share}")}

    def exact_arms(self):
        """Arms that promise an unchanged function at birth."""
        exact = [f"grown ({name})" for name, recipe in RECIPES.items() if recipe.exact]
        return [name for name in self.measured["arms"] if name.startswith(("Net2Net", *exact))]

    def birth(self, arms, field="max_logit_change"):
        """The largest change at birth of any stage, by seed."""
        changes = {}
        for arm in arms:
            for seed in self.seeds(arm):
                here = max(stage["birth"][field] for stage in self.stages(arm, seed))
                changes[seed] = max(here, changes.get(seed, 0))
        return changes


def has_two_shares(results):
    return len(results.shares) > 1


def has_release(results):
    return "release" in results.plan.recipes


def has_both(results):
    return has_two_shares(results) and has_release(results)


CLAIMS = (
    Claim(
        "grown at B/10 beats a Transformer trained from scratch with B/10 (the paper: 11.77 against 13.34, 0.125 nats)",
        "scratch B/10 minus grown B/10, nats",
        lambda r: minus(r.loss(f"Transformer {r.last}, {r.small}"), r.grown(r.small)),
        0.0,
    ),
    Claim(
        "grown at B/10 closes as much of the gap to full-budget scratch as in the paper's last stage",
        "share of the gap closed at B/10",
        lambda r: r.closed(r.small),
        0.96,
        expected=False,
    ),
    Claim(
        "grown at B/10 closes at least half of the gap",
        "share of the gap closed at B/10",
        lambda r: r.closed(r.small),
        0.5,
    ),
    Claim(
        "grown at B/5 closes at least the paper's share after its first stage of growth",
        "share of the gap closed at B/5",
        lambda r: r.closed(r.large),
        0.68,
        applies=has_two_shares,
    ),
    Claim(
        "grown beats the same extra tokens without growth, B/10 a stage",
        "no growth minus grown, nats",
        lambda r: minus(r.loss(f"no growth, {r.small}"), r.grown(r.small)),
        0.02,
    ),
    Claim(
        "grown beats the same extra tokens without growth, B/5 a stage",
        "no growth minus grown, nats",
        lambda r: minus(r.loss(f"no growth, {r.large}"), r.grown(r.large)),
        0.02,
        applies=has_two_shares,
    ),
    Claim(
        "grown at B/10 beats the same extra FLOPs without growth",
        "no growth minus grown, nats",
        lambda r: minus(r.loss(f"no growth, FLOPs of grown {r.small}"), r.grown(r.small)),
        0.0,
    ),
    Claim(
        "one target, B/10: grown is no worse than a Transformer from scratch at the same total FLOPs",
        "scratch at equal FLOPs minus grown, nats",
        lambda r: minus(r.loss(f"Transformer {r.last}, FLOPs of grown {r.small}"), r.grown(r.small)),
        0.0,
        expected=False,
    ),
    Claim(
        "one target, B/5: grown is no worse than a Transformer from scratch at the same total FLOPs",
        "scratch at equal FLOPs minus grown, nats",
        lambda r: minus(r.loss(f"Transformer {r.last}, FLOPs of grown {r.large}"), r.grown(r.large)),
        0.0,
        expected=False,
        applies=has_two_shares,
    ),
    Claim(
        "grown Tokenformer is no worse than a Transformer widened by Net2Net, B/10 (the paper: 11.5 against 12.1)",
        "Net2Net minus grown, nats",
        lambda r: minus(r.loss(f"Net2Net, {r.small}"), r.grown(r.small)),
        0.0,
        expected=False,
    ),
    Claim(
        "grown Tokenformer is no worse than a Transformer widened by Net2Net, B/5",
        "Net2Net minus grown, nats",
        lambda r: minus(r.loss(f"Net2Net, {r.large}"), r.grown(r.large)),
        0.0,
        expected=False,
        applies=has_two_shares,
    ),
    Claim(
        "the exact recipe ends at least as low as the release's, B/10",
        "release minus exact, nats",
        lambda r: minus(r.grown(r.small, "release"), r.grown(r.small)),
        -0.005,
        applies=has_release,
    ),
    Claim(
        "the exact recipe ends at least as low as the release's, B/5",
        "release minus exact, nats",
        lambda r: minus(r.grown(r.large, "release"), r.grown(r.large)),
        -0.005,
        applies=has_both,
    ),
    Claim(
        "exact recipes and Net2Net change no logit at birth, in float64",
        "largest change of a logit, any stage",
        lambda r: r.birth(r.exact_arms(), "max_logit_change_float64"),
        1e-10,
        at_least=False,
    ),
    Claim(
        "nor in float32 (rounding alone moves logits of size 20 by 1e-5 or so)",
        "largest change of a logit, any stage",
        lambda r: r.birth(r.exact_arms()),
        1e-5,
        at_least=False,
        expected=False,
    ),
    Claim(
        "fixed width is no ceiling: the large Tokenformer from scratch comes near the Transformer of its size",
        "Tokenformer minus Transformer, full budget, nats",
        lambda r: minus(r.loss(f"Tokenformer {r.last}, B"), r.full()),
        0.03,
        at_least=False,
    ),
    Claim(
        "the whole family, grown at B/10, costs a third of the Transformers or less (the paper's 3x)",
        "FLOPs of the Transformers over those of the grown family",
        lambda r: r.family_cost(r.small),
        3.0,
    ),
    Claim(
        "and its last member is as good as the paper's: within 0.012 nats of full-budget scratch (11.77 against 11.63)",
        "grown B/10 minus scratch B, nats",
        lambda r: minus(r.grown(r.small), r.full()),
        0.012,
        at_least=False,
        expected=False,
    ),
)


def grid_table(measured):
    lrs = [str(lr) for lr in measured["plan"]["lrs"]]
    lines = [
        f"| arm, seed {measured['plan']['seeds'][0]} | " + " | ".join(lrs) + " |",
        "|---" * (len(lrs) + 1) + "|",
    ]
    for name, grid in measured["grids"].items():
        best = min(grid.values())
        cells = [f"**{grid[lr]:.4f}**" if grid[lr] == best else f"{grid[lr]:.4f}" for lr in lrs]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- drawing


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    results = Results(measured)
    plot.style()
    fig, axes = plt.subplots(1, 3, figsize=(12.5, 4.6), width_ratios=(1.35, 1.35, 1))
    series = [  # label, arms, whether the arm is a chain of stages
        *(
            (
                f"Transformer, scratch, {share}",
                [f"Transformer {i}, {share}" for i in range(1, results.last + 1)],
                False,
            )
            for share in ("B", results.small)
        ),
        *(
            (f"Tokenformer, grown, {share}", [f"grown ({results.exact}), {share}"], True)
            for share in results.shares
        ),
        (f"Transformer, Net2Net, {results.small}", [f"Net2Net, {results.small}"], True),
        (f"Tokenformer, no growth, {results.small}", [f"no growth, {results.small}"], True),
    ]
    for index, (label, names, is_chain) in enumerate(series):
        points = chain_points(results, names[0]) if is_chain else scratch_points(results, names)
        draw_series(axes[0], points, label, index, sum_up=False)
        draw_series(axes[1], points, label, index, sum_up=not is_chain)
    for share in results.shares:
        name = f"Transformer {results.last}, FLOPs of grown {share}"
        losses = list(results.loss(name).values())
        axes[0].plot(results.flops(name) / 1e12, np.mean(losses), "X", color="black", markersize=9, zorder=5)
    axes[0].plot(
        [], [], "X", color="black", label="Transformer of the last size, FLOPs of grown", linestyle="none"
    )
    axes[0].set(title="one target: cost of each model", ylabel="held-out loss (nats per character)")
    axes[1].set(title="a family: cost of all sizes up to this one")
    for ax in axes[:2]:
        ax.set(xscale="log", xlabel="training TFLOPs, counted")
    axes[0].legend(fontsize=7)
    for index, (label, (hours, perplexity)) in zip((0, 2, 3), PAPER.items(), strict=True):
        look = {"color": plot.PALETTE[index], "marker": plot.MARKERS[index], "linestyle": plot.LINES[index]}
        axes[2].plot(hours, np.log(perplexity), label=label, **look)
    axes[2].set(
        title="the paper (1,000 times larger)",
        xlabel="TPU-v4 hours (grown: all stages)",
        ylabel="nats per token",
    )
    axes[2].legend(fontsize=7)
    plot.save(fig, stem, ALT)


def scratch_points(results, names):
    """(FLOPs, losses of all seeds, parameters) of one arm after the other."""
    points = []
    for name in names:
        losses = results.loss(name)
        stage = results.stages(name, min(losses))[-1]
        points.append((stage["total_flops"], list(losses.values()), stage["layer_parameters"]))
    return points


def chain_points(results, name):
    """The same for the stages of one arm, the base that it starts from first."""
    base = "Transformer 1, B" if name.startswith("Net2Net") else "Tokenformer 1, B"
    lineages = [results.stages(base, seed) + results.stages(name, seed) for seed in results.seeds(name)]
    return [
        (column[0]["total_flops"], [stage["heldout"] for stage in column], column[0]["layer_parameters"])
        for column in zip(*lineages, strict=True)
    ]


def draw_series(ax, points, label, index, sum_up):
    flops = np.array([flops for flops, _, _ in points]) / 1e12
    flops = np.cumsum(flops) if sum_up else flops
    low, mean, high = (np.array([f(losses) for _, losses, _ in points]) for f in (min, np.mean, max))
    color = plot.PALETTE[index]
    ax.fill_between(flops, low, high, color=color, alpha=0.25, linewidth=0)
    ax.plot(
        flops, mean, plot.MARKERS[index], color=color, linestyle=plot.LINES[index], label=label, markersize=3
    )
    ax.scatter(
        flops, mean, [n / 2500 for _, _, n in points], color=color, marker=plot.MARKERS[index], alpha=0.6
    )


def finish(stem):
    """The tables that only this experiment has, and the figure."""
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    if stem.with_suffix(".md").exists():
        write_section(stem.with_suffix(".md"), "grid", grid_table(measured))
    if stem == STEM:
        write_section(STEM.parents[1] / "README.md", "verdict", readme_table(CLAIMS, Results(measured)))
    draw(stem)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, finish, claims=CLAIMS, results=Results)
