"""How fast is a training step? minitf beside torch, and beside the matrix products alone, in one interleaved run.

    python figures/speed.py             measures (about 10 minutes; needs torch) and draws
    python figures/speed.py --redraw    draws from speed.json

Every engine gets the same weights and the same batch, and does forward, backward and AdamW. One step of each in
turn, so that a noisy machine disturbs all alike; medians are reported. Two limits stand beside them: the same
matrix products alone in the same BLAS (torch's MKL where the twins use MKL, since it has threads for a whole
product), and the largest speed that one big product reaches.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

if os.environ.pop("OPENBLAS_CORETYPE", None):  # set for old builds, it would slow a current one down
    os.environ.pop("OPENBLAS_L2_SIZE", None)
    os.execv(sys.executable, [sys.executable, *sys.argv])

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from threadpoolctl import threadpool_info

from minitf import (
    FlopCounter,
    TokenformerConfig,
    TransformerConfig,
    adamw_init,
    adamw_step,
    count_parameters,
    init_params,
    loss_and_grads,
    plot,
    to_device,
    training_flops,
    tree_items,
    tree_map,
)
from minitf.kernels.cpu.common import compiled, uses_mkl
from minitf.laboratory.verdict import write_section
from minitf.train import progress

STEM = Path(__file__).with_suffix("")
PAGE = STEM.parents[1] / "minitf" / "kernels" / "README.md"
ALT = (
    "Four panels. First: milliseconds per training step against parameters for minitf, torch eager, torch.compile and "
    "the matrix products alone, for Tokenformers and Transformers. Second: share of the step that the matrix products "
    "alone would take. Third: step time against parameter tokens at fixed width. Fourth: step time against "
    "sequence length. In the last two, FLOPs from the formula are drawn beside the measured points."
)
SETTLE = 0.05  # seconds between two engines: idle OpenMP and BLAS threads spin for a while
VOCABULARY = 96


def tokenformer(d, layers, heads, n, context):
    return TokenformerConfig(VOCABULARY, context, layers, d, heads, attention_tokens=n, ffn_tokens=4 * n)


def transformer(d, layers, heads, context):
    return TransformerConfig(VOCABULARY, context, layers, d, heads, d_ff=4 * d)


SIZES = {  # name: (config, batch size)
    "Tokenformer 0.1M": (tokenformer(64, 2, 4, 64, 64), 16),
    "Tokenformer 1M": (tokenformer(128, 4, 4, 128, 128), 16),
    "Tokenformer 10M": (tokenformer(320, 6, 10, 320, 128), 8),
    "Transformer 0.1M": (transformer(64, 2, 4, 64), 16),
    "Transformer 1M": (transformer(128, 4, 4, 128), 16),
    "Transformer 10M": (transformer(320, 6, 10, 128), 8),
}
TOKENS_SCAN = {n: (tokenformer(128, 2, 4, n, 128), 16) for n in (64, 128, 256, 512, 1024)}
CONTEXT_SCAN = {
    context: (tokenformer(128, 2, 4, 128, context), 2048 // context) for context in (64, 128, 256, 512, 1024)
}


# ------------------------------------------------------------------------------------------------ engines


def make_batch(config, batch_size):
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (batch_size, config.context + 1))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


@functools.lru_cache(maxsize=1)
def weights(config):
    """The same for every engine; each copies them."""
    return init_params(config)


def minitf_engine(config, batch_size, compute=loss_and_grads, device="cpu"):
    params = to_device(tree_map(np.copy, weights(config)), device)
    state = adamw_init(params)
    ids, targets = (to_device(array, device) for array in make_batch(config, batch_size))

    def step():
        nonlocal params, state
        loss, grads = compute(params, ids, targets, config)
        params, state = adamw_step(params, grads, state, lr=1e-3)
        return loss

    return step


def torch_engine(config, batch_size, compiled=False, device="cpu"):
    """compiled: False, True, or a mode of torch.compile. On a GPU AdamW is torch's fused one."""
    import torch

    from minitf import oracle

    params = oracle.to_torch(weights(config), device=device)
    leaves = [leaf for _, leaf in tree_items(params)]
    groups = [
        {"params": [p for p in leaves if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in leaves if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = True if device == "cuda" else None
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    ids, targets = (torch.tensor(array, device=device) for array in make_batch(config, batch_size))

    def forward(ids, targets):
        return oracle.loss(params, ids, targets, config)

    if compiled:
        torch._dynamo.reset()  # else the second size would be compiled for sizes not known, into slower code
        mode = None if compiled is True else compiled
        forward = torch.compile(forward, dynamic=False, mode=mode)

    def step():
        optimizer.zero_grad()
        loss = forward(ids, targets)
        loss.backward()
        optimizer.step()
        return loss.detach().clone()

    return step


def products_engine(config, batch_size):
    """The matrix products of one training step and nothing else, on arrays that are there already."""
    counter = FlopCounter()
    ids, targets = make_batch(config, batch_size)
    loss_and_grads(tree_map(counter.wrap, weights(config)), ids, targets, config)
    assert counter.flops == batch_size * training_flops(config, config.context)
    rng = np.random.default_rng(0)

    def array(shape):
        return rng.standard_normal(shape, dtype=np.float32)

    matmul, of_library = multiplier()
    products = [(array(left), array(right)) for left, right in sorted(set(counter.shapes))]
    products = [
        (*map(of_library, (left, right, left @ right)), counter.shapes.count((left.shape, right.shape)))
        for left, right in products
    ]

    def step():
        for left, right, out, times in products:
            for _ in range(times):
                matmul(left, right, out=out)

    return step


def multiplier():
    """matmul in the BLAS of the twins, and what makes its arguments of NumPy's arrays."""
    if uses_mkl():
        import torch

        return torch.matmul, torch.from_numpy
    return np.matmul, np.asarray


ENGINES = {
    "minitf": minitf_engine,
    "torch eager": torch_engine,
    "torch.compile": lambda config, batch_size: torch_engine(config, batch_size, compiled=True),
    "products alone": products_engine,
}


# ---------------------------------------------------------------------------------------------- measuring


def interleave(steps, repeats):
    """Median seconds of each step function, its memory being in the caches as in training: every turn is two steps."""
    seconds = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            time.sleep(SETTLE)
            step()  # the engine before has emptied the caches
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def measure_size(config, batch_size, engines, repeats):
    steps, first_loss = {}, {}
    for name in engines:
        step = ENGINES[name](config, batch_size)
        try:
            first_loss[name] = step()  # torch.compile compiles here
        except Exception as error:
            if name != "torch.compile":
                raise
            print(f"torch.compile does not run here: {type(error).__name__}", file=sys.stderr)
        else:
            steps[name] = step
    first_loss = {name: float(loss) for name, loss in first_loss.items() if loss is not None}
    losses = first_loss.values()
    assert max(losses) - min(losses) < 1e-3, f"the engines do not compute the same loss: {first_loss}"
    seconds = interleave(steps, repeats)
    return {
        "config": repr(config),
        "parameters": count_parameters(config),
        "tokens": batch_size * config.context,
        "flops": batch_size * training_flops(config, config.context),
        "seconds": {name: round(value, 6) for name, value in seconds.items()},
        "first_loss": {name: round(loss, 5) for name, loss in first_loss.items()},
    }


def peak_flops(size=2048, repeats=7):
    """FLOP/s of one large float32 product in this BLAS: the machine's speed, for all practical purposes."""
    matmul, of_library = multiplier()
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    a, out = of_library(a), of_library(np.empty_like(a))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(a, a, out=out)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def peak_memory(engine, name):
    """Bytes that three training steps add to a fresh process of that engine, per token of the batch."""
    command = [sys.executable, __file__, "--memory-of", engine, name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def peak_bytes():
    """The largest resident memory of this process so far."""
    try:  # getrusage's ru_maxrss starts at the peak of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def print_memory(engine, name):
    import torch  # noqa: F401  (the twins take MKL only after it)

    config, batch_size = SIZES[name]
    step = ENGINES[engine](config, batch_size)
    ENGINES[engine](*SIZES["Tokenformer 0.1M"])()  # loads what the engine loads once
    before = peak_bytes()
    for _ in range(3):
        step()
    print((peak_bytes() - before) // (batch_size * config.context))


def run(repeats):
    import torch  # before the first step: the twins take MKL only after it

    load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sizes = {
        name: measure_size(config, batch_size, ENGINES, repeats)
        for name, (config, batch_size) in progress(SIZES.items(), "sizes")
    }
    few = ("minitf", "products alone")
    scans = {
        name: {
            key: measure_size(config, batch_size, few, repeats)
            for key, (config, batch_size) in progress(scan.items(), name)
        }
        for name, scan in (("parameter tokens", TOKENS_SCAN), ("context", CONTEXT_SCAN))
    }
    memory = {
        name: {engine: peak_memory(engine, name) for engine in ("minitf", "torch eager")}
        for name in ("Tokenformer 1M", "Transformer 1M")
    }
    blas = next(
        info for info in threadpool_info() if info["user_api"] == "blas" and "numpy" in info["filepath"]
    )
    measured = {
        "command": "python figures/speed.py",
        "repeats": repeats,
        "machine": f"{platform.system()} {platform.machine()}, {cpu_name()}, {len(os.sched_getaffinity(0))} cores",
        "threads": {
            "minitf": os.environ.get("MINITF_NUM_THREADS", "all cores"),
            "torch": torch.get_num_threads(),
        },
        "blas": {key: blas.get(key) for key in ("internal_api", "version", "architecture", "num_threads")},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "numba": version("numba") if compiled(np.float32) is not None else None,
            "mkl": version("mkl") if uses_mkl() else None,
        },
        "load_before": load,
        "priority": priority(),
        "peak_flops_per_second": round(peak_flops()),
        "sizes": sizes,
        "scans": scans,
        "memory_bytes_per_token": memory,
    }
    STEM.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(table(measured))


def priority():
    """How this process is scheduled: at real-time priority, what else runs takes little of the cores."""
    return "real-time" if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) else "normal"


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def table(measured):
    """What was measured, in Markdown: minitf/kernels/README.md shows it."""
    versions, peak = measured["versions"], measured["peak_flops_per_second"] / 1e9
    about = ", ".join(
        f"{name} {version}" for name, version in versions.items() if version and name != "python"
    )
    ratios = ["minitf / eager", "minitf / compile", "products / minitf"]
    lines = [
        f"{measured['machine']}; {about}; medians of {measured['repeats']}; one large product reaches "
        f"{peak:.0f} GFLOP/s. Milliseconds:",
        "",
        f"| {measured['threads']['torch']} threads | " + " | ".join([*ENGINES, *ratios]) + " |",
        "|---" * (len(ENGINES) + 4) + "|",
    ]
    for name, size in measured["sizes"].items():
        seconds = size["seconds"]
        columns = [
            *milliseconds(seconds, ENGINES),
            over(seconds, "minitf", "torch eager"),
            over(seconds, "minitf", "torch.compile"),
            over(seconds, "products alone", "minitf"),
        ]
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    memory = [
        f"{name} {engines['minitf'] / 1e3:.0f} kB (torch {engines['torch eager'] / 1e3:.0f})"
        for name, engines in measured["memory_bytes_per_token"].items()
    ]
    return "\n".join([*lines, "", f"Memory that training adds, per token: {', '.join(memory)}."])


def milliseconds(seconds, engines):
    """One entry for each engine, three digits, or a dash where it was not measured."""
    return [f"{1e3 * seconds[engine]:#.3g}".rstrip(".") if engine in seconds else "-" for engine in engines]


def over(seconds, one, other):
    return f"{seconds[one] / seconds[other]:.2f}" if {one, other} <= seconds.keys() else "-"


# ---------------------------------------------------------------------------------------------- drawing


def draw():
    measured = json.loads(STEM.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, axes = plt.subplots(2, 2, figsize=(10, 7.2))
    draw_sizes(axes[0, 0], measured)
    draw_shares(axes[0, 1], measured)
    draw_scan(
        axes[1, 0],
        measured["scans"]["parameter tokens"],
        "parameter tokens n (attention; feed-forward has 4 n)",
    )
    draw_scan(axes[1, 1], measured["scans"]["context"], "sequence length T (2,048 tokens a step)")
    fig.suptitle(f"training step, float32, {measured['machine']}", fontsize=9)
    plot.save(fig, STEM, ALT)


def draw_sizes(ax, measured):
    for i, engine in enumerate(ENGINES):
        for kind, filled in (("Tokenformer", True), ("Transformer", False)):
            points = [
                (size["parameters"], 1e3 * size["seconds"][engine])
                for name, size in measured["sizes"].items()
                if name.startswith(kind) and engine in size["seconds"]
            ]
            if points:
                look = {
                    "color": plot.PALETTE[i],
                    "marker": plot.MARKERS[i],
                    "linestyle": "-" if filled else ":",
                }
                label = engine if filled else None
                ax.plot(
                    *zip(*points, strict=True),
                    **look,
                    markerfacecolor=None if filled else "white",
                    label=label,
                )
    ax.set(xscale="log", yscale="log", xlabel="parameters", ylabel="milliseconds per step")
    plain_numbers(ax.yaxis)
    ax.set_title("filled: Tokenformer, open: Transformer", fontsize=9)
    ax.legend()


def plain_numbers(axis):
    """Ticks of a logarithmic axis as 20, 50, 100."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def draw_shares(ax, measured):
    names = list(measured["sizes"])
    for i, engine in enumerate(("minitf", "torch eager", "torch.compile")):
        shares = [
            size["seconds"]["products alone"] / size["seconds"][engine] if engine in size["seconds"] else 0
            for size in measured["sizes"].values()
        ]
        where = np.arange(len(names)) + 0.27 * (i - 1)
        ax.bar(
            where,
            shares,
            0.25,
            color=plot.PALETTE[i],
            hatch=("", "//", "..")[i],
            edgecolor="white",
            label=engine,
        )
    ax.axhline(1, color="gray", linewidth=1)
    kinds, sizes = zip(*(name.split() for name in names), strict=True)
    labels = [f"{size}\n{kind if size == '1M' else ''}" for kind, size in zip(kinds, sizes, strict=True)]
    ax.set_xticks(np.arange(len(names)), labels)
    ax.set(ylim=(0, 1.2), ylabel="products alone / step")
    ax.set_title("share of the matrix-product limit (the line at 1)", fontsize=9)
    ax.legend(ncol=3, loc="upper left")


def draw_scan(ax, scan, label):
    x = [int(key) for key in scan]
    times = [1e3 * point["seconds"]["minitf"] for point in scan.values()]
    flops = np.array([point["flops"] for point in scan.values()])
    scale = times[-1] / flops[-1]
    products = [1e3 * point["seconds"]["products alone"] for point in scan.values()]
    ax.plot(x, times, label="minitf")
    ax.plot(x, flops * scale, label="FLOPs by formula, scaled to the last point")
    ax.plot(x, products, label="products alone")
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="milliseconds per step")
    ax.set_ylim(bottom=min(products) / 2)  # room for the legend
    ax.set_xticks(x, x)
    ax.xaxis.set_minor_formatter(NullFormatter())
    plain_numbers(ax.yaxis)
    ax.legend(loc="lower right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redraw", action="store_true", help="only draw, from the stored measurements")
    parser.add_argument(
        "--repeats", type=int, default=9, help="timed steps of each engine (default 9, at least 7)"
    )
    parser.add_argument("--memory-of", nargs=2, metavar=("ENGINE", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print_memory(*arguments.memory_of)
    else:
        if not arguments.redraw:
            run(max(arguments.repeats, 7))
        draw()
        measured = json.loads(STEM.with_suffix(".json").read_text(encoding="utf-8"))
        write_section(PAGE, "speed", table(measured))
