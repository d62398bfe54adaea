"""Is a parameter token an expert? Rows that use the best k of n tokens, against dense layers of equal FLOPs and size.

    python figures/top_k.py --budget quick     a small version in under a minute: shows that everything works
    python figures/top_k.py                    the full one (about 10 minutes on one core); resumes where it was stopped
    python figures/top_k.py --redraw           draws and judges again from top_k.json
    python figures/top_k.py --predictions      writes the predictions into top_k.md, before any run

Only the feed-forward Pattentions choose. To choose, a row scores all n keys, so k of n tokens cost as many FLOPs as a
dense layer of (n + 5 k) / 6. The times are those of one layer, forward and backward, on one core;
set MINITF_NUMBA=0 to time NumPy alone.
"""

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import (
    forward,
    forward_flops,
    pattention_backward,
    pattention_forward,
    plot,
    theta_backward,
    theta_forward,
    top_k_pattention_backward,
    top_k_pattention_forward,
    training_flops,
)
from minitf.data import heldout_batches
from minitf.laboratory import Run, Stage, tokenformer, verdict
from minitf.laboratory.command import constant, main
from minitf.laboratory.stage import corpus
from minitf.laboratory.tuning import tune_and_repeat
from minitf.laboratory.verdict import Claim, minus, plan_of
from minitf.top_k import choose

STEM = Path(__file__).with_suffix("")
ALT = (
    "Four panels. First: held-out loss of layers that use the best k of n tokens, beside dense layers of equal FLOPs, "
    "with the dense layer of all n tokens as a gray line. Second: the share of all choices that go to the busiest "
    "tokens. Third and fourth: time of one layer, forward and backward, over that of the dense layer, against k, for "
    "several ways to multiply and for the count of FLOPs, in a small and a large layer."
)
SHARES = tuple(2.0**-i for i in range(6, -1, -1))  # of the tokens, busiest first, at which the load is kept
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
SHARING = 64  # rows that take the same tokens, in the one way to multiply that is no use for text


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """All constants of the experiment. Raises ValueError for a plan that makes no sense."""

    ffn_tokens: int = constant(256, "n, feed-forward tokens of a layer")
    ks: tuple = constant((4, 16, 64), "numbers of tokens that a row uses")
    group: int = constant(
        16, "neighbors that are one expert where experts are groups; the largest k uses them too"
    )
    d_model: int = constant(40, "width of the models")
    attention_tokens: int = constant(40, "tokens of the other Pattentions")
    steps: int = constant(500, "training steps")
    lrs: tuple = constant((7e-3, 1.4e-2), "grid of peak learning rates, the same for every arm")
    seeds: tuple = constant((0, 1, 2), "seeds; the first one tunes")
    windows: int = constant(512, "held-out windows whose choices are counted")
    rounds: int = constant(3, "how often the clock is asked")
    repeats: int = constant(7, "times of each way and round, interleaved; their median is kept")
    rows: int = constant(1024, "rows of the timed layers")
    large_tokens: int = constant(2048, "tokens of the large timed layer; the small one is that of the models")
    large_width: int = constant(64, "width of the large timed layer")

    def __post_init__(self):
        if list(self.ks) != sorted(set(self.ks)) or not self.ks or self.ks[-1] >= self.ffn_tokens:
            raise ValueError(f"ks {self.ks}: take one or more, ascending, below n = {self.ffn_tokens}")
        if not self.lrs or not self.seeds:
            raise ValueError("the grid and the seeds must not be empty")
        if min(self.windows, self.rounds, self.repeats, self.rows, self.large_width) < 1:
            raise ValueError("windows, rounds, repeats, rows and large_width must be at least 1")
        if self.large_tokens <= self.ks[-1]:
            raise ValueError(f"large_tokens is {self.large_tokens}: it must be more than k, {self.ks[-1]}")
        if self.rows % SHARING or self.large_tokens % self.group:
            raise ValueError(
                f"rows is {self.rows}, large_tokens {self.large_tokens}: they must be multiples of {SHARING}, the "
                f"rows that share tokens, and of the group, {self.group}"
            )
        for name in self.configs:
            self.stage(name, self.lrs[0], self.seeds[0])

    @cached_property
    def configs(self):
        """The model of every arm. Dense twins have the FLOPs of a choice, to half a token."""
        n = self.ffn_tokens
        options = {f"top {k}": {"ffn_tokens": n, "ffn_top_k": k} for k in self.ks}
        options[self.grouped] = options[f"top {self.ks[-1]}"] | {"ffn_group": self.group}
        options |= {f"dense {twin}": {"ffn_tokens": twin} for twin in (*map(self.twin, self.ks), n)}
        return {
            name: tokenformer(self.attention_tokens, self.d_model, **own) for name, own in options.items()
        }

    @property
    def grouped(self):
        return f"top {self.ks[-1]} in groups of {self.group}"

    def twin(self, k):
        """Tokens of a dense layer with the FLOPs of k out of n: 12 n' = 2 n + 10 k."""
        return round((self.ffn_tokens + 5 * k) / 6)

    def stage(self, name, lr, seed):
        return Stage(self.steps, lr, seed, config=self.configs[name], eval_points=4, eval_windows=128)

    def clocks(self, turn):
        small = Clock(self.rows, self.ffn_tokens, self.d_model, self.ks, self.group, self.repeats, turn)
        sizes = self.large_tokens, self.large_width
        return small, Clock(self.rows, *sizes, self.ks, self.group, self.repeats, turn)


QUICK = Plan(ks=(16, 64), steps=60, lrs=(1e-2,), seeds=(0,), windows=32, rounds=1, repeats=3, rows=256)


# -------------------------------------------------------------------------------------------- who is chosen


@dataclass(frozen=True)
class Load(Run):
    """Whom the rows of held-out text choose in a trained model."""

    windows: int
    parent: Stage | None = None
    steps: int = 0

    def train(self, parent):
        """Measured, for each layer: the share of tokens ever chosen, how many tokens share the work (the exponential
        of the entropy of the choices, as a share of n), and the share of choices of the busiest tokens at SHARES."""
        params, config = parent
        n = config.ffn_tokens
        counts = np.zeros((config.n_layers, n), np.int64)
        for ids, _ in heldout_batches(corpus()["heldout"], 16, config.context, self.windows):
            blocks = forward(params, ids, config)[1].blocks
            for count, block in zip(counts, blocks, strict=True):
                count += np.bincount(block.ffn.choice.chosen.ravel(), minlength=n)
        shares = -np.sort(-counts, axis=1) / counts.sum(axis=1, keepdims=True)
        positive = np.where(shares > 0, shares, 1)
        entropy = -(positive * np.log(positive)).sum(axis=1)
        busiest = [round(share * n) for share in SHARES]
        measured = {
            "flops": self.windows * forward_flops(config, config.context),
            "used": [round(float(u), 4) for u in (counts > 0).mean(axis=1)],
            "effective": [round(float(e), 4) for e in np.exp(entropy) / n],
            "busiest": [[round(float(row[:m].sum()), 4) for m in busiest] for row in shares],
        }
        return measured, None, None


# ------------------------------------------------------------------------------------------------ the clock


def dense(x, key, value, dout, k, group):
    out, cache = pattention_forward(x, key, value)
    return out, *pattention_backward(dout, cache)


def with_zeros(x, key, value, dout, k, group):
    out, cache = top_k_pattention_forward(x, key, value, k)
    return out, *top_k_pattention_backward(dout, cache)


def token_by_token(x, key, value, dout, k, group):
    out, cache = top_k_pattention_forward(x, key, value, k, gather=True)
    return out, *top_k_pattention_backward(dout, cache)


def gathered(x, key, value, dout, k, group):
    """Every row's own keys and values copied side by side, 32 rows at a time, for batched products."""
    scores = x @ key.T
    chosen = (np.flatnonzero(choose(scores, k)) % len(key)).reshape(len(x), k)
    weights, theta = theta_forward(np.take_along_axis(scores, chosen, axis=-1))
    blocks = [slice(i, i + 32) for i in range(0, len(x), 32)]
    out, dweights, dx = np.empty_like(dout), np.empty_like(weights), np.empty_like(x)
    for b in blocks:
        own = value[chosen[b]]  # (32, k, d)
        out[b] = (weights[b, None, :] @ own)[:, 0]
        dweights[b] = (own @ dout[b, :, None])[:, :, 0]  # in the cache still: kinder than a real backward
    dscores = theta_backward(dweights, theta)
    for b in blocks:
        dx[b] = (dscores[b, None, :] @ key[chosen[b]])[:, 0]
    order = np.argsort(chosen, axis=None, kind="stable")
    rows, ends = order // k, np.cumsum(np.bincount(chosen.ravel(), minlength=len(key)))
    dkey, dvalue = np.zeros_like(key), np.zeros_like(value)
    for token, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        at, own = order[start:end], rows[start:end]
        dkey[token], dvalue[token] = dscores.ravel()[at] @ x[own], weights.ravel()[at] @ dout[own]
    return out, dx, dkey, dvalue


def in_groups(x, key, value, dout, k, group):
    """Another function: experts are groups of neighbors, each with a product of its own."""
    out, cache = top_k_pattention_forward(x, key, value, k, group=group, gather=True)
    return out, *top_k_pattention_backward(dout, cache)


def shared_by_rows(x, key, value, dout, k, group):
    """Another function, and none for text: 64 rows in a row take the k tokens that any of them scores highest, so a
    later character decides for an earlier one."""
    x, dout = (array.reshape(-1, SHARING, array.shape[1]) for array in (x, dout))
    best = (x @ key.T).max(axis=1)
    chosen = choose(best, k).nonzero()[1].reshape(len(x), k)
    own_key, own_value = key[chosen], value[chosen]  # (blocks, k, d)
    weights, theta = theta_forward(x @ own_key.swapaxes(1, 2))
    out = weights @ own_value
    dscores = theta_backward(dout @ own_value.swapaxes(1, 2), theta)
    dkey, dvalue = np.zeros_like(key), np.zeros_like(value)
    np.add.at(dvalue, chosen, weights.swapaxes(1, 2) @ dout)
    np.add.at(dkey, chosen, dscores.swapaxes(1, 2) @ x)
    return out.reshape(-1, out.shape[-1]), (dscores @ own_key).reshape(-1, x.shape[-1]), dkey, dvalue


def choice_alone(x, key, value, dout, k, group):
    """What every choice begins with."""
    return choose(x @ key.T, k)


SAME = {"zeros multiplied too": with_zeros, "token by token": token_by_token, "gathered, batched": gathered}
OTHERS = {
    "in groups": in_groups,
    f"{SHARING} rows share": shared_by_rows,
    "scores and choice alone": choice_alone,
}
WAYS = {"dense": dense} | SAME | OTHERS


@dataclass(frozen=True)
class Clock(Run):
    """Milliseconds of one layer, forward and backward, for every k and way: medians of interleaved runs."""

    rows: int
    n: int
    d: int
    ks: tuple
    group: int
    repeats: int
    turn: int
    steps: int = 0

    def train(self, parent):
        draw = np.random.default_rng(self.turn).standard_normal
        x, dout = (draw((self.rows, self.d)).astype(np.float32) for _ in range(2))
        key, value = (draw((self.n, self.d)).astype(np.float32) for _ in range(2))
        times = {}
        for k in self.ks:
            ways = {name: way for name, way in WAYS.items() if name != "in groups" or k % self.group == 0}
            arguments = x, key, value, dout, k, self.group
            expected = with_zeros(*arguments)  # the first calls are not timed
            for way in SAME.values():
                for a, b in zip(way(*arguments), expected, strict=True):
                    if not np.allclose(a, b, atol=1e-3 * np.abs(b).max()):
                        raise ArithmeticError(f"{way.__name__} computes another layer")
            seconds = {name: [] for name in ways}
            for _ in range(self.repeats):
                for name, way in ways.items():
                    start = time.perf_counter()
                    way(*arguments)
                    seconds[name].append(time.perf_counter() - start)
            times[str(k)] = {name: round(1e3 * float(np.median(s)), 3) for name, s in seconds.items()}
        return {"flops": 12 * self.rows * self.n * self.d, "milliseconds": times}, None, None


# --------------------------------------------------------------------------------------------- run and judge


def run(plan, sweep):
    arms = tune_and_repeat(tuple(plan.configs), plan.stage, plan.lrs, plan.seeds, sweep)
    for name, arm in arms.items():
        config = plan.configs[name]
        # what the choice needs: the runs multiply zeros too, which is faster, and count them
        arm["flops"] = plan.steps * 16 * training_flops(config, config.context)
        if config.ffn_top_k is not None:
            loads = {seed: Load(plan.windows, plan.stage(name, arm["lr"], seed)) for seed in plan.seeds}
            sweep(loads.values(), "choices")
            arm["load"] = {str(seed): load.key() for seed, load in loads.items()}
    clocks = {"small": {}, "large": {}}
    for turn in range(plan.rounds):
        for size, clock in zip(clocks, plan.clocks(turn), strict=True):
            sweep([clock], "clock")
            clocks[size][str(turn)] = clock.key()
    return {"arms": arms, "clocks": clocks}


class Results(verdict.Results):
    """Also choices, times and the plan."""

    def __init__(self, measured):
        super().__init__(measured)
        self.plan = plan_of(measured, Plan)

    def gain(self, k):
        """Loss of the dense layer with the FLOPs of k minus loss of top k."""
        return minus(self(f"dense {self.plan.twin(k)}"), self(f"top {k}"))

    def loss_of_choice(self, k):
        return minus(self(f"top {k}"), self(f"dense {self.plan.ffn_tokens}"))

    def load(self, name, field):
        """The layer with the least of it, by seed."""
        loads = self.measured["arms"][name]["load"]
        return {seed: min(self.measured["runs"][key][field]) for seed, key in loads.items()}

    def times(self, size, k):
        keys = self.measured["clocks"][size]
        return {turn: self.measured["runs"][key]["milliseconds"][str(k)] for turn, key in keys.items()}

    def over_dense(self, size, k, ways):
        """Time of the fastest of some ways over that of the dense layer, by round."""
        return {turn: min(t[way] for way in ways) / t["dense"] for turn, t in self.times(size, k).items()}


def has(*ks):
    """Claims name their sizes: they are about plans that have them."""

    def applies(results):
        plan = results.plan
        same = (plan.ffn_tokens, plan.group, plan.large_tokens) == (256, 16, 2048)
        return same and set(ks) <= set(plan.ks)

    return applies


CLAIMS = (
    Claim(
        "at equal FLOPs the best 64 of 256 tokens beat a dense layer of 96",
        "dense minus top 64, nats",
        lambda r: r.gain(64),
        0.01,
        headline=True,
        applies=has(64),
    ),
    Claim(
        "so do the best 16 a dense layer of 56",
        "dense minus top 16, nats",
        lambda r: r.gain(16),
        0.01,
        expected=False,
        applies=has(16),
    ),
    Claim(
        "and the best 4 a dense layer of 46",
        "dense minus top 4, nats",
        lambda r: r.gain(4),
        0.01,
        expected=False,
        applies=has(4),
    ),
    Claim(
        "at equal parameters 64 of 256 are as good as all",
        "top 64 minus dense 256, nats",
        lambda r: r.loss_of_choice(64),
        0.01,
        at_least=False,
        applies=has(64),
    ),
    Claim(
        "and so are 16",
        "top 16 minus dense 256, nats",
        lambda r: r.loss_of_choice(16),
        0.01,
        at_least=False,
        expected=False,
        applies=has(16),
    ),
    Claim(
        "experts of 16 neighbors are as good as free tokens, at k = 64",
        "grouped minus free, nats",
        lambda r: minus(r(r.plan.grouped), r("top 64")),
        0.01,
        at_least=False,
        expected=False,
        applies=has(64),
    ),
    Claim(
        "with 64 of 256 hardly a token is idle",
        "share of tokens chosen at least once, layer with the fewest",
        lambda r: r.load("top 64", "used"),
        0.95,
        applies=has(64),
    ),
    Claim(
        "with 4 of 256 most are",
        "share of tokens chosen at least once, layer with the fewest",
        lambda r: r.load("top 4", "used"),
        0.5,
        at_least=False,
        applies=has(4),
    ),
    Claim(
        "in NumPy the choice of 64 of 256 saves time, if the fastest of three ways to multiply is taken",
        "time over that of the dense layer",
        lambda r: r.over_dense("small", 64, SAME),
        0.9,
        at_least=False,
        expected=False,
        headline=True,
        applies=has(64),
    ),
    Claim(
        "that of 16 of 2048 does",
        "time over that of the dense layer",
        lambda r: r.over_dense("large", 16, SAME),
        0.9,
        at_least=False,
        applies=has(16),
    ),
    Claim(
        "and as much as the FLOPs say (they fall to 0.17), within a half",
        "time over that of the dense layer",
        lambda r: r.over_dense("large", 16, SAME),
        0.26,
        at_least=False,
        expected=False,
        applies=has(16),
    ),
    Claim(
        "experts of 16 neighbors, 4 of 128, save a third of the time",
        "time over that of the dense layer",
        lambda r: r.over_dense("large", 64, ("in groups",)),
        0.67,
        at_least=False,
        expected=False,
        applies=has(64),
    ),
)


# ---------------------------------------------------------------------------------------------- drawing


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    results = Results(measured)
    plot.style()
    fig, axes = plt.subplots(2, 2, figsize=(8.6, 6.8))
    draw_losses(axes[0, 0], results)
    draw_loads(axes[0, 1], results)
    plan = results.plan
    sizes = {"small": (plan.ffn_tokens, plan.d_model), "large": (plan.large_tokens, plan.large_width)}
    for ax, (size, (n, width)) in zip(axes[1], sizes.items(), strict=True):
        draw_times(ax, results, size, n)
        ax.set_title(f"{n} tokens of width {width}, {plan.rows} rows, one core", fontsize=9)
    fig.legend(*axes[1, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncol=4)
    plot.save(fig, stem, ALT)


def draw_losses(ax, results):
    """Pairs of equal FLOPs side by side, beside the dense layer of equal parameters."""
    plan, arms = results.plan, results.measured["arms"]
    whole = f"dense {plan.ffn_tokens}"
    lines = {
        "dense, equal FLOPs": [f"dense {plan.twin(k)}" for k in plan.ks],
        f"best k of {plan.ffn_tokens}": [f"top {k}" for k in plan.ks],
        f"experts of {plan.group} neighbors": [plan.grouped],
    }
    for index, (label, names) in enumerate(lines.items()):
        losses = np.array([list(results(name).values()) for name in names])
        at = np.arange(len(plan.ks))[-len(names) :] + 0.16 * (index - 1)
        look = {"color": plot.PALETTE[index], "marker": plot.MARKERS[index]}
        ax.plot(at, losses.mean(axis=1), linestyle=plot.LINES[index], label=label, markersize=7, **look)
        for x, ends in zip(at, losses, strict=True):
            ax.plot([x] * len(ends), ends, linestyle="none", markersize=3.5, alpha=0.5, **look)
    ends = list(results(whole).values())
    ax.axhline(np.mean(ends), color="gray", label=f"{whole}, equal parameters")
    ax.axhspan(min(ends), max(ends), color="gray", alpha=0.15, linewidth=0)
    share = [arms[f"top {k}"]["flops"] / arms[whole]["flops"] for k in plan.ks]
    ax.set_xticks(
        range(len(plan.ks)),
        [f"k = {k}, dense {plan.twin(k)}\n{s:.2f} of the FLOPs" for k, s in zip(plan.ks, share, strict=True)],
        fontsize=8,
    )
    ax.set_xlim(-0.4, len(plan.ks) - 0.6)
    ax.set_ylabel("held-out loss (nats per character)")
    ax.set_title("small marks: seeds", fontsize=9)
    ax.legend(fontsize=7.5)


def draw_loads(ax, results):
    plan = results.plan
    for index, name in enumerate([*(f"top {k}" for k in plan.ks), plan.grouped]):
        loads = [results.measured["runs"][key] for key in results.measured["arms"][name]["load"].values()]
        busiest = [layer for load in loads for layer in load["busiest"]]
        plot.band(ax, SHARES, busiest, name, index)
    ax.plot(SHARES, SHARES, color="gray", linestyle="-", linewidth=1, marker="", label="even load")
    ax.set(xscale="log", xlabel="share of the tokens, busiest first", ylabel="their share of all choices")
    ax.set_xticks(SHARES, [f"1/{1 / s:g}" if s < 1 else "all" for s in SHARES])
    ax.minorticks_off()
    ax.set_title("mean and range of seeds and layers", fontsize=9)
    ax.set_ylim(top=1.42)  # room for the legend
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(fontsize=7.5, loc="upper left", ncol=2)


def draw_times(ax, results, size, n):
    ks = results.plan.ks
    for index, way in enumerate(WAYS):
        points = {k: over for k in ks if (over := ratios(results, size, k, way))}
        if way == "dense" or not points:
            continue
        low, mean, high = np.array([(min(o), np.mean(o), max(o)) for o in points.values()]).T
        look = {"color": plot.PALETTE[index], "marker": plot.MARKERS[index], "linestyle": plot.LINES[index]}
        at = np.array(list(points)) * 1.03 ** (index - 3)  # bars beside each other
        ax.errorbar(at, mean, (mean - low, high - mean), label=way, elinewidth=1, **look)
    ax.axhline(1, color="black", label="dense")
    ax.plot(
        ks, [(2 * n + 10 * k) / (12 * n) for k in ks], color="gray", linestyle="-", marker="", label="FLOPs"
    )
    ax.set(xscale="log", yscale="log", xlabel="k, tokens that a row uses", ylabel="time over that of dense")
    ax.set_xticks(ks, ks)
    ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.minorticks_off()


def ratios(results, size, k, way):
    """Time of a way over that of the dense layer, for every round that timed it."""
    return [t[way] / t["dense"] for t in results.times(size, k).values() if way in t]


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw, claims=CLAIMS, results=Results)
