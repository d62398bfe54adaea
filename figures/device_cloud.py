"""Device and cloud: one trained set of tokens, of which a device holds a prefix and asks the whole when it should.

    python figures/device_cloud.py --budget quick     a small version in under a minute: shows that everything works
    python figures/device_cloud.py                    the full one, 18 minutes on a busy machine; resumes
    python figures/device_cloud.py --redraw           draws and judges again from device_cloud.json
    python figures/device_cloud.py --predictions      writes the predictions into device_cloud.md, before any run

Nested dropout trains a prefix of the tokens at every step, so that each of four sizes is a model. They are compared
with four models of their own and with an ordinary model that loses tokens. Then the smallest prefix answers, and
asks the whole model at some positions: by four rules, against asking at random and against two separate models.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import forward_flops, plot, training_flops
from minitf.laboratory import tokenformer, verdict
from minitf.laboratory.command import constant, main
from minitf.laboratory.prefixes import PrefixRun
from minitf.laboratory.tuning import tune_and_repeat
from minitf.laboratory.verdict import Claim, minus, plan_of

STEM = Path(__file__).with_suffix("")
CHARACTER, PROBABILITY = 1, 2  # bytes: one of 65 characters, a float16
NESTED, LONG, PAIR, DEVICE = "nested", "nested, FLOPs of all", "pair, FLOPs of all", "device of the pair"
REFERENCE = 0.2  # the share of positions asked that the claims are about
ALT = (
    "Three panels. First: held-out loss against the parameter tokens kept, for models trained at each size, nested "
    "dropout with the same steps and with the FLOPs of all four, and above a break of the axis an ordinary model that "
    "loses its last or its least important tokens. Second: loss against the share of positions at which the device "
    "asks the cloud, by maximal probability, by entropy, by expected gain and by an oracle, with the line of asking at "
    "random, and two separate models. Third: loss against bytes sent per character, for two ways to send the text and "
    "two to answer."
)


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    prefixes: tuple = constant((4, 8, 16, 32), "attention tokens of the sizes, the last is the whole")
    between: tuple = constant((6, 12, 24), "sizes that are measured, and trained by nobody")
    d_model: int = constant(40, "width of all models, in heads of 20 channels")
    steps: int = constant(600, "training steps of a model of one size")
    lrs: tuple = constant((5e-3, 1e-2, 3e-2), "grid of peak learning rates")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")
    shares: tuple = constant(
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), "shares of the positions that are asked"
    )
    kept: int = constant(16, "probabilities in a short answer of the cloud")
    windows: int = constant(512, "held-out windows of 64 characters that every number averages")

    def __post_init__(self):
        if (
            len(self.prefixes) < 2
            or list(self.prefixes) != sorted(set(self.prefixes))
            or self.prefixes[0] < 1
        ):
            raise ValueError(f"prefixes {self.prefixes}: name at least two sizes, each larger than the last")
        if not all(self.prefixes[0] < size < self.prefixes[-1] for size in self.between):
            raise ValueError(f"between {self.between}: sizes must lie between those of {self.prefixes}")
        if not self.lrs or not self.seeds:
            raise ValueError("the grid and the seeds must not be empty")
        if REFERENCE not in self.shares or self.shares[-1] != 1 or list(self.shares) != sorted(self.shares):
            raise ValueError(f"shares {self.shares}: they must rise to 1 and have {REFERENCE} among them")
        for seed in self.seeds:
            for lr in self.lrs:
                self.nested(lr, seed)
                self.own(self.prefixes[0], lr, seed)

    def config(self, tokens):
        return tokenformer(tokens, self.d_model)

    def nested(self, lr, seed, steps=None):
        """All sizes in one set of tokens."""
        return self._run(
            self.prefixes, steps or self.steps, lr, seed, measured=self.between, shares=self.shares
        )

    def own(self, tokens, lr, seed, steps=None, device=None):
        """A model of one size, trained as usual; with a device's model, the cloud beside it."""
        options = {}
        if device is not None:
            options = {"measured": (*self.prefixes, *self.between), "shares": self.shares, "parent": device}
        return self._run((tokens,), steps or self.steps, lr, seed, **options)

    def _run(self, prefixes, steps, lr, seed, measured=(), shares=(), parent=None):
        return PrefixRun(
            self.config(prefixes[-1]),
            tuple(prefixes),
            steps,
            lr,
            measured,
            shares,
            self.kept,
            seed,
            windows=self.windows,
            parent=parent,
        )

    @property
    def long_steps(self):
        """Steps of nested dropout that cost, on average over the draws, what all models of one size cost together."""
        return self.steps * len(self.prefixes)

    @property
    def pair_steps(self):
        """Steps of two models, the smallest and the whole, that cost the same."""
        costs = [training_flops(self.config(tokens), 64) for tokens in self.prefixes]
        return round(self.steps * sum(costs) / (costs[0] + costs[-1]))


QUICK = Plan(
    prefixes=(4, 16), between=(8,), d_model=20, steps=100, lrs=(1e-2,), seeds=(0,), kept=8, windows=64
)


def own_name(tokens):
    return f"trained at {tokens}"


def run(plan, sweep):
    """Tune models of one size and nested dropout, then the cloud that has a device beside it; then the long runs."""
    small, whole = plan.prefixes[0], plan.prefixes[-1]
    sizes = {own_name(tokens): tokens for tokens in plan.prefixes[:-1]}

    def stage(name, lr, seed):
        return plan.nested(lr, seed) if name == NESTED else plan.own(sizes[name], lr, seed)

    arms = tune_and_repeat((*sizes, NESTED), stage, plan.lrs, plan.seeds, sweep)

    def device(seed, steps=None):
        return plan.own(small, arms[own_name(small)]["lr"], seed, steps)

    def cloud(_, lr, seed):
        return plan.own(whole, lr, seed, device=device(seed))

    arms |= tune_and_repeat([own_name(whole)], cloud, plan.lrs, plan.seeds, sweep)
    lr = {name: arms[name]["lr"] for name in (NESTED, own_name(whole))}
    devices = {seed: device(seed, plan.pair_steps) for seed in plan.seeds}
    last = {
        LONG: {seed: plan.nested(lr[NESTED], seed, plan.long_steps) for seed in plan.seeds},
        DEVICE: devices,
        PAIR: {
            seed: plan.own(whole, lr[own_name(whole)], seed, plan.pair_steps, devices[seed])
            for seed in plan.seeds
        },
    }
    sweep([each for runs in last.values() for each in runs.values()])
    for name, runs in last.items():
        some = next(iter(runs.values()))
        arms[name] = {
            "lr": some.peak_lr,
            "grid": {},
            "keys": {str(s): each.key() for s, each in runs.items()},
        }
    return {"arms": arms, "costs": costs(plan)}


def costs(plan):
    """FLOPs per character in a window of 64, and bytes of what is sent."""
    device, cloud = plan.config(plan.prefixes[0]), plan.config(plan.prefixes[-1])
    context, vocab_size = cloud.context, cloud.vocab_size
    return {
        "device_flops": round(forward_flops(device, context) / context),
        "cloud_flops": round(forward_flops(cloud, context) / context),
        "unasked_flops": unasked_flops(cloud),
        "character": CHARACTER,
        "distribution": PROBABILITY * vocab_size,
        "short_answer": (CHARACTER + PROBABILITY) * plan.kept,
        "keys_and_values": PROBABILITY * 2 * cloud.n_layers * cloud.d_model,
    }


def unasked_flops(config):
    """FLOPs of a position that is not asked, but remembered: all layers but the last, and keys and values of the last.

    What it saves: query, output and feed-forward part of the last layer, its attention, and the logits.
    """
    d, context = config.d_model, config.context
    tokens = config.tokens("attention") + config.tokens("proj") + config.ffn_blocks * config.tokens("ffn")
    saved = 4 * d * tokens + 4 * d * context + 2 * config.vocab_size * d
    return round(forward_flops(config, context) / context - saved)


# ----------------------------------------------------------------------------------------------- judging


class Results(verdict.Results):
    """What the JSON says: losses by size, and what the split of device and cloud gave."""

    def __init__(self, measured):
        super().__init__(measured)
        self.plan = plan_of(measured, Plan)
        self.whole = own_name(self.plan.prefixes[-1])
        self.half = self.plan.prefixes[-2]

    def losses(self, arm, tokens):
        """{seed: loss with so many tokens}"""
        return {seed: losses[str(tokens)] for seed, losses in self(arm, "losses").items()}

    def excess(self, arm):
        """{seed: [loss of the prefix minus loss of a model of its size, for every size]}"""
        gaps = [minus(self.losses(arm, n), self(own_name(n))) for n in self.plan.prefixes]
        return {seed: [gap[seed] for gap in gaps] for seed in gaps[0]}

    def dropped(self, tokens):
        """{seed: loss of the ordinary model after dropping}, by the better score and tau for each seed."""
        return {
            seed: min(taus[tau][str(tokens)] for taus in scores.values() for tau in taus)
            for seed, scores in self(self.whole, "dropped").items()
        }

    def from_smaller(self, arm):
        """{seed: loss of a size between minus that of the trained one below it, the largest}"""
        found = {}
        for tokens in self.plan.between:
            below = max(n for n in self.plan.prefixes if n < tokens)
            for seed, gap in minus(self.losses(arm, tokens), self.losses(arm, below)).items():
                found[seed] = max(gap, found.get(seed, -np.inf))
        return found

    def closed(self, arm, rule):
        """{seed: share of the gap from device to cloud that a rule closes, minus the share of positions it asks}."""
        found = {}
        for seed, split in self(arm, "split").items():
            row = split["rules"][rule][self.plan.shares.index(REFERENCE)]
            device, cloud = split["device"]["loss"], split["cloud"]["loss"]
            found[seed] = (device - row["loss"]) / (device - cloud) - row["share"]
        return found

    def unsure(self, arm):
        """`closed` of the better of two rules that look at how sure the device is, for each seed."""
        both = [self.closed(arm, rule) for rule in ("max probability", "entropy")]
        return {seed: max(rule[seed] for rule in both) for seed in both[0]}

    def at(self, arm, rule):
        """{seed: loss where the reference share of positions is asked}"""
        rows = {seed: split["rules"][rule] for seed, split in self(arm, "split").items()}
        return {seed: row[self.plan.shares.index(REFERENCE)]["loss"] for seed, row in rows.items()}

    def side(self, arm, who, field="loss"):
        return {seed: split[who][field] for seed, split in self(arm, "split").items()}

    def borrowed(self, arm):
        """{seed: loss of a cloud without memory minus the device's, where asked, the least over shares}"""
        rows = {seed: split["borrowed memory"] for seed, split in self(arm, "split").items()}
        return {seed: min(row["borrowed"] - row["device"] for row in some) for seed, some in rows.items()}


def each(values, pick):
    return {seed: pick(some) for seed, some in values.items()}


CLAIMS = (
    Claim(
        "one set of tokens is four models for the price of four: with the FLOPs of all, each prefix is as good as a "
        "model of its size",
        "nested with the FLOPs of all minus a model of its size, the worst size, nats",
        lambda r: each(r.excess(LONG), max),
        0.0,
        at_least=False,
        headline=True,
    ),
    Claim(
        "but not for the price of one: with the same steps, each prefix is clearly worse",
        "nested with the same steps minus a model of its size, the best size, nats",
        lambda r: each(r.excess(NESTED), min),
        0.05,
    ),
    Claim(
        "dropping half the tokens of an ordinary model, by the better score and tau, is no substitute",
        "dropped minus nested with the same steps, half the tokens, nats",
        lambda r: minus(r.dropped(r.half), r.losses(NESTED, r.half)),
        0.3,
    ),
    Claim(
        "a prefix that nobody trained is worth its tokens: no worse than the trained one below it",
        "a size between minus the trained one below, the worst, FLOPs of all, nats",
        lambda r: r.from_smaller(LONG),
        0.0,
        at_least=False,
        expected=False,
        applies=lambda r: bool(r.plan.between),
    ),
    Claim(
        "a device should ask where it is unsure: this closes more of the gap than asking at random",
        "share of the gap closed minus share asked, at 20 %, the better of max probability and entropy",
        lambda r: r.unsure(LONG),
        0.0,
        expected=False,
        headline=True,
    ),
    Claim(
        "asking where a linear guess expects the cloud to gain closes clearly more",
        "share of the gap closed minus share asked, at 20 %, expected gain",
        lambda r: r.closed(LONG, "expected gain"),
        0.1,
    ),
    Claim(
        "an oracle that asks 20 % has a lower loss than the cloud alone",
        "oracle minus cloud, nats",
        lambda r: minus(r.at(LONG, "oracle"), r.side(LONG, "cloud")),
        0.0,
        at_least=False,
    ),
    Claim(
        "two separate models that share the same FLOPs split no worse, asking 20 % by expected gain",
        "one set minus two models, nats",
        lambda r: minus(r.at(LONG, "expected gain"), r.at(PAIR, "expected gain")),
        0.0,
    ),
    Claim(
        "a cloud that remembers only what the device does is worse than no cloud, where it is asked",
        "borrowed memory minus device, the least of three shares, nats",
        lambda r: r.borrowed(LONG),
        0.0,
    ),
    Claim(
        "the 16 largest probabilities are answer enough",
        "their loss minus that of whole answers, everything asked, nats",
        lambda r: minus(r.side(LONG, "cloud", "loss_short"), r.side(LONG, "cloud")),
        0.02,
        at_least=False,
    ),
)


# ----------------------------------------------------------------------------------------------- drawing


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    results = Results(measured)
    plot.style()
    fig = plt.figure(figsize=(10.6, 4.2))
    grid = fig.add_gridspec(2, 3, height_ratios=(1, 2.6), width_ratios=(1, 1.1, 1))
    draw_sizes(fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[1, 0]), results)
    draw_shares(fig.add_subplot(grid[:, 1]), results)
    draw_bytes(fig.add_subplot(grid[:, 2]), results, measured["costs"])
    plot.save(fig, stem, ALT)


def draw_sizes(above, below, results):
    """Loss against tokens kept; dropping from an ordinary model is so far off that the axis is broken."""
    plan = results.plan
    every = sorted({*plan.prefixes, *plan.between})

    def line(ax, sizes, losses, label, index):
        runs = np.array([list(losses(n).values()) for n in sizes]).T
        plot.band(ax, np.log2(sizes), runs, label, index)

    line(below, plan.prefixes, lambda n: results(own_name(n)), "a model of each size", 0)
    line(below, every, lambda n: results.losses(NESTED, n), "nested, same steps", 1)
    line(below, every, lambda n: results.losses(LONG, n), "nested, FLOPs of all", 2)
    for index, score in ((3, "last"), (4, "least important")):

        def dropped(n, score=score):
            scores = results(results.whole, "dropped")
            return {
                seed: min(each[score][tau][str(n)] for tau in each[score]) for seed, each in scores.items()
            }

        line(above, [n for n in every if n < every[-1]], dropped, f"drop the {score}", index)
    ticks = np.log2(plan.prefixes)
    for ax in (above, below):
        ax.set_xticks(ticks, plan.prefixes)
        ax.set_xlim(ticks[0] - 0.2, ticks[-1] + 0.2)
        ax.legend(fontsize=7)
    above.tick_params(labelbottom=False)
    above.set_title("every prefix a model?", fontsize=10)
    below.set(xlabel="attention tokens kept", ylabel="held-out loss (nats per character)")


def curve(results, arm, rule, field="loss"):
    """Share asked and a field of every seed, with the device alone and the cloud alone at the ends."""
    splits = results(arm, "split").values()
    alone = field if field == "right" else "loss"
    shares = np.mean([[0, *(row["share"] for row in split["rules"][rule])] for split in splits], axis=0)
    return shares, np.array([[s["device"][alone], *(row[field] for row in s["rules"][rule])] for s in splits])


def draw_shares(ax, results):
    for index, rule in ((1, "max probability"), (3, "entropy"), (2, "expected gain"), (4, "oracle")):
        plot.band(ax, *curve(results, LONG, rule), f"one set, {rule}", index)
    ends = [np.mean(list(results.side(LONG, who).values())) for who in ("device", "cloud")]
    ax.plot([0, 1], ends, color="0.35", linestyle=":", marker="", label="one set, at random")
    plot.band(ax, *curve(results, PAIR, "expected gain"), "two models, expected gain", 0)
    ax.set(xlabel="share of positions at which the device asks", xlim=(-0.02, 1.02))
    ax.set_title("ask where you are unsure?", fontsize=10)
    ax.legend(fontsize=7)


def draw_bytes(ax, results, cost):
    ways = (
        ("text once, short answer", "text_once", "loss_short", "short_answer"),
        ("text once, whole answer", "text_once", "loss", "distribution"),
        ("text again, whole answer", "text_again", "loss", "distribution"),
    )
    for index, (label, text, loss, answer) in enumerate(ways):
        shares, losses = curve(results, LONG, "expected gain", loss)
        characters = np.mean(curve_of(results, text), axis=0)
        sent = cost["character"] * characters + cost[answer] * shares[1:]
        plot.band(ax, sent, losses[:, 1:], label, (2, 1, 3)[index])
    device = np.mean(list(results.side(LONG, "device").values()))
    ax.axhline(device, color="0.35", linestyle=":", linewidth=1)
    place = {"xy": (0.02, device), "xycoords": ("axes fraction", "data"), "va": "bottom"}
    ax.annotate("device alone, 0 bytes", fontsize=7, color="0.35", **place)
    ax.set(xlabel="bytes sent per character, both ways", xscale="log")
    ax.set_title("what it costs to ask by expected gain", fontsize=10)
    ax.legend(fontsize=7, loc="lower left")


def curve_of(results, field):
    splits = results(LONG, "split").values()
    return [[row[field] for row in split["rules"]["expected gain"]] for split in splits]


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw, claims=CLAIMS, results=Results)
