"""What a longer context costs a Transformer and a Tokenformer of equal size.

    python figures/context_cost.py            measures (about 2 minutes on a quiet machine), draws
    python figures/context_cost.py --redraw   draws from context_cost.json

Both do O(parameters · T) work where tokens meet parameters. Token-token attention costs O(L d T²) in the one and
O(L d_token T²) in the other: at equal parameters the Tokenformer can be narrower, and keeps its width when it grows.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import (
    FlopCounter,
    count_layer_parameters,
    init_params,
    loss_and_grads,
    plot,
    training_flops,
    tree_map,
)
from minitf.laboratory import matching_tokens, tokenformer, transformer
from minitf.laboratory.command import constant, main
from minitf.train import progress

STEM = Path(__file__).with_suffix("")
ALT = (
    "Two panels against sequence length from 64 to 4,096 tokens. Left: training FLOPs per token by formula for a "
    "Transformer and a Tokenformer of equal size, split into work with parameters and token-token attention; counted "
    "FLOPs lie on the formula. Right: measured microseconds per token of a training step for both."
)


@dataclass(frozen=True)
class Plan:
    """All constants of the measurement. Raises ValueError for a plan that makes no sense."""

    width: int = constant(240, "width of the Transformer")
    d_token: int = constant(60, "width of the Tokenformer of as many parameters")
    contexts: tuple = constant((64, 128, 256, 512, 1024, 2048, 4096), "sequence lengths")
    tokens: int = constant(4096, "tokens in a step, at least one sequence")
    repeats: int = constant(7, "timed steps of each, in turn; medians are kept")
    counted_up_to: int = constant(
        512, "longest sequence whose FLOPs are counted (the formula keeps T x T arrays)"
    )

    def __post_init__(self):
        if min(self.contexts) < 1 or self.repeats < 1 or self.tokens < 1:
            raise ValueError("sequence lengths, repeats and tokens must be at least 1")
        self.models(self.contexts[0])

    def models(self, context):
        tokens = matching_tokens(self.width, self.d_token)
        return {
            "Transformer": transformer(self.width, context=context),
            "Tokenformer": tokenformer(tokens, self.d_token, context=context),
        }


QUICK = Plan(width=120, contexts=(64, 256), tokens=512, repeats=2, counted_up_to=64)


def run(plan, _sweep):
    points = {name: [] for name in plan.models(plan.contexts[0])}
    for context in progress(plan.contexts, "contexts"):
        models = plan.models(context)
        batch_size = max(1, plan.tokens // context)
        seconds = interleave(
            {name: step(config, batch_size) for name, config in models.items()}, plan.repeats
        )
        for name, config in models.items():
            point = {"context": context, "flops": training_flops(config, context) / context}
            if context <= plan.counted_up_to:
                point["counted"] = count(config) / context
            points[name].append(point | {"seconds": seconds[name] / (batch_size * context)})
    return {
        "points": points,
        "layer_parameters": {name: count_layer_parameters(config) for name, config in models.items()},
        "attention_flops": {name: 12 * config.n_layers * config.d_model for name, config in models.items()},
    }


def step(config, batch_size):
    params = init_params(config)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (batch_size, config.context))
    return lambda: loss_and_grads(params, ids, ids, config)


def interleave(steps, repeats):
    """Median seconds of each, one after the other in turn, after one round to warm up."""
    times = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, call in steps.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def count(config):
    """FLOPs of the matrix products that forward and backward of one sequence ran."""
    counter = FlopCounter()
    ids = np.zeros((1, config.context), dtype=np.int64)
    loss_and_grads(tree_map(counter.wrap, init_params(config)), ids, ids, config)
    return counter.flops


def draw(stem=STEM):
    measured = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for index, (name, points) in enumerate(measured["points"].items()):
        x = [point["context"] for point in points]
        color, marker = plot.PALETTE[index + 1], plot.MARKERS[index]
        look = {"color": color, "marker": marker}
        left.plot(
            x, [point["flops"] / 1e6 for point in points], linestyle="-", label=f"{name}, formula", **look
        )
        attention = [measured["attention_flops"][name] * context / 1e6 for context in x]
        left.plot(x, attention, linestyle=":", color=color, marker="", label=f"{name}, token-token part")
        counted = [(point["context"], point["counted"] / 1e6) for point in points if "counted" in point]
        left.plot(
            *zip(*counted, strict=True), "+", color="black", markersize=10, label=None if index else "counted"
        )
        right.plot(x, [1e6 * point["seconds"] for point in points], linestyle="-", label=name, **look)
    left.set(xscale="log", yscale="log", xlabel="sequence length T", ylabel="training MFLOPs per token")
    right.set(
        xscale="log", yscale="log", xlabel="sequence length T", ylabel="microseconds per token, measured"
    )
    parameters = measured["layer_parameters"]["Tokenformer"]
    left.set_title(f"equal size: {parameters:,} parameters in the layers", fontsize=9)
    left.legend(fontsize=8)
    right.legend()
    plot.save(fig, stem, ALT)


if __name__ == "__main__":
    main(STEM, __doc__, {"full": Plan(), "quick": QUICK}, run, draw)
