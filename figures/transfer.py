"""A model of the tragedies moves to the histories: by new tokens alone, by LoRA, or by training all of it.

    python figures/transfer.py --budget quick      one seed, short runs
    python figures/transfer.py                     runs what is missing, draws, judges
    python figures/transfer.py --target my.txt     moves to your own text (--out and --predictions for your own page)
    python figures/transfer.py --redraw            draws from transfer.json

Every model is measured on two held-out histories and on two held-out tragedies: what it learned, what it forgot. New
tokens and LoRA train exactly as many parameters; the learning rate of every arm is its best on one grid.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import plot
from minitf.data import HELDOUT_OF_GENRE
from minitf.laboratory import tokenformer, verdict
from minitf.laboratory.command import constant, main
from minitf.laboratory.transfers import Transfer, text_ids
from minitf.laboratory.tuning import tune_and_repeat
from minitf.laboratory.verdict import Claim, minus, ratio

STEM = Path(__file__).with_suffix("")
ALT = (
    "Two panels. Left: change of loss on held-out target plays against change on held-out source plays, from the base "
    "of the same seed, a mark for each of three seeds: the source read on, all parameters, LoRA and new tokens of "
    "three sizes; hollow marks are the other learning rates of the grid. Right: loss on the target against the number "
    "of trained parameters for new tokens and LoRA, with lines for no adaptation and for all parameters."
)
NONE, MORE, ALL, SCRATCH = "no adaptation", "source read on", "all parameters", "from scratch"


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    tokens: int = constant(30, "attention tokens of the base; the feed-forward part has 4 times as many")
    d_model: int = constant(60, "width")
    source: str = constant("tragedies", "genre that the base reads: comedies, histories or tragedies")
    target: str = constant("histories", "genre that it moves to, or a text file")
    base_steps: int = constant(2000, "training steps of the base")
    base_lr: float = constant(5e-3, "its peak learning rate")
    steps: int = constant(200, "steps of every adaptation")
    lrs: tuple = constant((1e-3, 3e-3, 1e-2, 3e-2), "grid of peak learning rates of every adaptation")
    ranks: tuple = constant((1, 4, 16), "ranks of LoRA; new tokens are as many as train the same parameters")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")

    def __post_init__(self):
        for name in ("lrs", "ranks", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if self.source not in HELDOUT_OF_GENRE or self.source == self.target:
            raise ValueError(
                f"source is {self.source!r}: choose one of {', '.join(HELDOUT_OF_GENRE)}, not the target"
            )
        try:
            text_ids(self.target, "heldout")
        except (OSError, ValueError) as error:
            genres = ", ".join(HELDOUT_OF_GENRE)
            raise ValueError(f"target is {self.target!r}, which is none of {genres}: {error}") from error
        for rank in self.ranks:
            self.matching(rank)
        self.run(ALL, min(self.lrs), min(self.seeds))

    def config(self):
        return tokenformer(self.tokens, d_model=self.d_model)

    def matching(self, rank):
        """(attention, ffn) new tokens that train as many parameters as LoRA of this rank, about 1 to 4."""
        config = self.config()
        rows = 4 * (config.attention_tokens + self.d_model) + config.ffn_tokens + self.d_model
        total = (
            2 * rank * rows / (2 * self.d_model)
        )  # tokens of a block: 4 attention layers and a feed-forward one
        if total < 1 or total != int(total):
            raise ValueError(
                f"LoRA of rank {rank} has the parameters of {total:g} tokens a block: choose a rank, or tokens and "
                "d_model, that make it a whole number (d_model divides 8 tokens, say)"
            )
        attention = round(total / 8)
        return attention, int(total) - 4 * attention

    def base(self, seed):
        texts = {"source": self.source, "target": self.target}
        return Transfer(self.base_steps, self.base_lr, seed, "source", **texts, config=self.config())

    def run(self, arm, lr, seed):
        base = self.base(seed)
        adapted = replace(base, steps=self.steps, peak_lr=lr, reads="target", config=None, parent=base)
        if arm == SCRATCH:
            return replace(adapted, config=base.config, parent=None)
        if arm == MORE:
            return replace(adapted, reads="source")
        if arm == ALL:
            return adapted
        kind, rank = arm.rsplit(" ", 1)
        if kind == "LoRA":
            return replace(adapted, rank=int(rank))
        return replace(adapted, tokens=self.matching(int(rank)))

    def arms(self):
        """Names; "new tokens 4" train as many parameters as "LoRA 4", whose rank is 4."""
        return (
            MORE,
            ALL,
            SCRATCH,
            *(f"{kind} {rank}" for kind in ("LoRA", "new tokens") for rank in self.ranks),
        )


QUICK = Plan(tokens=15, base_steps=200, steps=40, lrs=(3e-3, 1e-2), ranks=(1, 8), seeds=(0,))


def run(plan, sweep):
    arms = tune_and_repeat(plan.arms(), plan.run, plan.lrs, plan.seeds, sweep)
    none = {"lr": plan.base_lr, "grid": {}, "keys": {str(seed): plan.base(seed).key() for seed in plan.seeds}}
    tried = {
        name: {str(lr): plan.run(name, lr, plan.seeds[0]).key() for lr in plan.lrs} for name in plan.arms()
    }
    return {"arms": {NONE: none} | arms, "tried": tried}


# ----------------------------------------------------------------------------------------------- judging


class Results(verdict.Results):
    """{seed: number} of the arms. Where a claim says "new tokens" or "LoRA", it means the middle one of the sizes."""

    def __init__(self, measured):
        super().__init__(measured)
        self.ranks = measured["plan"]["ranks"]
        self.middle = self.ranks[len(self.ranks) // 2]
        self.new, self.lora = f"new tokens {self.middle}", f"LoRA {self.middle}"

    def gain(self, arm, other=NONE):
        """Nats on the target by which an arm is better than another one."""
        return minus(self(other), self(arm))

    def forgotten(self, arm, other=NONE):
        """Nats on the source by which an arm is worse than another one."""
        return minus(self(arm, "source"), self(other, "source"))

    def of_all_sizes(self, measure):
        """The largest value among the sizes; measure(rank) -> {seed: value}."""
        each = [measure(rank) for rank in self.ranks]
        return {seed: max(values[seed] for values in each) for seed in each[0]}


CLAIMS = (
    Claim(
        "new tokens alone, a seventh of the base's parameters, bring most of what training everything brings",
        "gain of new tokens on held-out histories over the gain of all parameters",
        lambda r: ratio(r.gain(r.new), r.gain(ALL)),
        0.8,
        headline=True,
    ),
    Claim(
        "at equal trained parameters new tokens are no worse than LoRA",
        "LoRA minus new tokens, nats on held-out histories",
        lambda r: r.gain(r.new, r.lora),
        0.0,
        headline=True,
    ),
    Claim(
        "nor at any other of the sizes, by more than 0.005",
        "new tokens minus LoRA, the worst of the sizes, nats",
        lambda r: r.of_all_sizes(lambda rank: r.gain(f"LoRA {rank}", f"new tokens {rank}")),
        0.005,
        at_least=False,
    ),
    Claim(
        "more new tokens learn more",
        "fewest new tokens minus most, nats on held-out histories",
        lambda r: r.gain(f"new tokens {r.ranks[-1]}", f"new tokens {r.ranks[0]}"),
        0.005,
    ),
    Claim(
        "many new tokens catch up with training everything",
        "most new tokens minus all parameters, nats on held-out histories",
        lambda r: r.gain(ALL, f"new tokens {r.ranks[-1]}"),
        0.005,
        at_least=False,
    ),
    Claim(
        "training everything forgets the tragedies",
        "all parameters minus no adaptation, nats on held-out tragedies",
        lambda r: r.forgotten(ALL),
        0.01,
    ),
    Claim(
        "new tokens do not",
        "new tokens minus no adaptation, nats on held-out tragedies",
        lambda r: r.forgotten(r.new),
        0.01,
        at_least=False,
    ),
    Claim(
        "at rates that suit the histories best, new tokens forget less than all parameters",
        "all parameters minus new tokens, nats on held-out tragedies",
        lambda r: r.forgotten(ALL, r.new),
        0.0,
    ),
    Claim(
        "it is the histories that help, and not the additional steps",
        "tragedies read on minus new tokens, nats on held-out histories",
        lambda r: r.gain(r.new, MORE),
        0.05,
    ),
    Claim(
        "a model that starts anew with the same steps is far behind",
        "from scratch minus new tokens, nats on held-out histories",
        lambda r: r.gain(r.new, SCRATCH),
        0.2,
    ),
    Claim(
        "taking the tokens off restores the old model bit for bit",
        "largest change of a logit, any size",
        lambda r: r.of_all_sizes(lambda rank: r(f"new tokens {rank}", "restored")),
        0.0,
        at_least=False,
        headline=True,
    ),
)


# ----------------------------------------------------------------------------------------------- drawing


def draw(stem=STEM):
    results = Results(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8")))
    target, source = (Path(results.measured["plan"][name]).stem for name in ("target", "source"))
    plot.style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.6, 4.6), width_ratios=(1.2, 1))
    looks = {MORE: ("P", 5, 7), ALL: ("^", 2, 7)}
    for kind, marker, color in (("LoRA", "D", 3), ("new tokens", "s", 1)):
        sizes = zip(results.ranks, np.linspace(4, 9, len(results.ranks)), strict=True)
        looks |= {f"{kind} {rank}": (marker, color, size) for rank, size in sizes}
    draw_plane(left, results, looks, source)
    left.set_xlabel(f"change of loss on held-out {target} (nats per character)")
    left.set_ylabel(f"change of loss on held-out {source} (nats per character)")
    draw_sizes(right, results, looks)
    right.set(xlabel="trained parameters", ylabel=f"loss on held-out {target} (nats per character)")
    plot.save(fig, stem, ALT)


def draw_plane(ax, results, looks, source):
    """What every arm learned against what it forgot."""
    runs, tried, seed = (
        results.measured["runs"],
        results.measured["tried"],
        str(results.measured["plan"]["seeds"][0]),
    )
    base = runs[results.measured["arms"][NONE]["keys"][seed]]
    learned = [-gain for arm in looks for gain in results.gain(arm).values()]
    forgot = [change for arm in looks for change in results.forgotten(arm).values()]
    (x_low, x_high), (y_low, y_high) = ((min(0, *a) - 0.012, max(0, *a) + 0.012) for a in (learned, forgot))
    ax.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
    ax.axhline(0, color="gray", linewidth=0.8)
    outside = 0
    for arm, (marker, color, size) in looks.items():
        style = {"linestyle": "none", "marker": marker, "color": plot.PALETTE[color], "markersize": size}
        for lr, key in tried[arm].items():
            if float(lr) != results.measured["arms"][arm]["lr"]:
                x, y = (runs[key][name] - base[name] for name in ("heldout", "source"))
                outside += not (x_low < x < x_high and y_low < y < y_high)
                ax.plot(x, y, **style, fillstyle="none")
        name = f"{source} read on" if arm == MORE else arm if arm == ALL else arm.rsplit(" ", 1)[0]
        x, y = [-gain for gain in results.gain(arm).values()], list(results.forgotten(arm).values())
        ax.plot(x, y, label=f"{name}: {trained(results, arm):,}", **style, alpha=0.85)
    ax.plot(0, 0, linestyle="none", marker="o", color="black", markersize=7, label="no adaptation: 0")
    ax.set_title(f"filled: best learning rate; hollow: the others ({outside} outside)", fontsize=9)
    ax.legend(fontsize=7.5, title="trained parameters", title_fontsize=7.5, loc="upper right")


def draw_sizes(ax, results, looks):
    """What every number of trained parameters learned."""
    for kind, index in (("LoRA", 3), ("new tokens", 1)):
        arms = [f"{kind} {rank}" for rank in results.ranks]
        losses = np.array([list(results(arm).values()) for arm in arms]).T
        plot.band(ax, [trained(results, arm) for arm in arms], losses, kind, index)
    for arm, text, line, color in (
        (NONE, NONE, "-", 0),
        (ALL, f"{ALL} ({trained(results, ALL):,})", "--", looks[ALL][1]),
    ):
        mean = float(np.mean(list(results(arm).values())))
        ax.axhline(mean, color=plot.PALETTE[color], linestyle=line, linewidth=1.2)
        where = {
            "xycoords": ("axes fraction", "data"),
            "textcoords": "offset points",
            "color": plot.PALETTE[color],
        }
        ax.annotate(text, (0.02, mean), (0, 3 if arm == ALL else -11), **where, fontsize=8)
    scratch = float(np.mean(list(results(SCRATCH).values())))
    counts = [trained(results, f"LoRA {rank}") for rank in results.ranks]
    ax.set(xscale="log")
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.set_title(f"bands: lowest to highest seed; from scratch: {scratch:.2f}", fontsize=9)
    ax.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.9))


def trained(results, arm):
    """Number of parameters that an arm trains, the same for every seed."""
    return next(iter(results(arm, "trained").values()))


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw, claims=CLAIMS, results=Results)
