"""How fast is a training step on a GPU? minitf beside torch, and beside the matrix products alone.

    python figures/speed_gpu.py             measures (some minutes; needs CuPy, torch and an NVIDIA GPU) and draws
    python figures/speed_gpu.py --redraw    draws from speed_gpu.json

Every engine gets the same weights and the same batch, and does forward, backward and AdamW. They take turns; a turn is
a few steps, after which the host waits for the device; medians are reported. Then the kernels alone: how much of the
speed of a plain copy do they reach, if every array they need is read once and every result written once?
"""

import argparse
import contextlib
import gc
import itertools
import json
import os
import platform
import statistics
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import speed

from minitf import (
    count_parameters,
    kernels,
    loss_and_grads,
    plot,
    training_flops,
)
from minitf.kernels import cuda
from minitf.laboratory.verdict import write_section
from minitf.train import progress

STEM = Path(__file__).with_suffix("")
ALT = (
    "Two panels. Left: milliseconds per training step on a GPU against parameters, for Tokenformers and Transformers, "
    "by minitf's formulas, its kernels one by one, its kernels as a CUDA graph, torch eager, torch.compile, and the "
    "matrix products alone. Right: the share of the speed of a plain copy that each kernel reaches, for minitf, torch "
    "eager and torch.compile."
)
SIZES = {  # name: (config, batch size)
    "Tokenformer 1M": (speed.tokenformer(128, 4, 4, 128, 128), 16),
    "Tokenformer 10M": (speed.tokenformer(320, 6, 10, 320, 128), 64),
    "Tokenformer 100M": (speed.tokenformer(1024, 6, 16, 1024, 512), 16),
    "Transformer 1M": (speed.transformer(128, 4, 4, 128), 16),
    "Transformer 10M": (speed.transformer(320, 6, 10, 128), 64),
    "Transformer 100M": (speed.transformer(1024, 6, 16, 512), 16),
}
KERNEL_ENGINES = ("minitf", "torch eager", "torch.compile")
TURN = 0.03  # seconds that a turn should last


# ------------------------------------------------------------------------------------------------ engines


def minitf_engine(config, batch_size, compute=loss_and_grads):
    return speed.minitf_engine(config, batch_size, compute, device="cuda")


def formulas_engine(config, batch_size):
    """The formulas as they stand, on CuPy's arrays."""
    step = minitf_engine(config, batch_size)

    def on_formulas():
        with kernels.resting():
            return step()

    return on_formulas


def products_engine(config, batch_size):
    """The matrix products of one step and nothing else, as a graph."""
    operands, multiply = [], cuda.product

    def remember(a, b):
        operands.append((a, b))
        return multiply(a, b)

    cuda.product = remember
    try:
        minitf_engine(config, batch_size)()
    finally:
        cuda.product = multiply

    def products(_):
        for a, b in operands:
            multiply(a, b)
        return operands[0][0][:1]

    again = kernels.Replayed(products)
    tree = {"x": operands[0][0]}
    return lambda: again(tree)


ENGINES = {
    "formulas": formulas_engine,
    "kernels one by one": minitf_engine,
    "minitf": lambda config, batch: minitf_engine(config, batch, kernels.Replayed(loss_and_grads)),
    "torch eager": lambda config, batch: speed.torch_engine(config, batch, device="cuda"),
    "torch.compile": lambda config, batch: speed.torch_engine(  # reduce-overhead: CUDA graphs, as ours
        config, batch, compiled="reduce-overhead", device="cuda"
    ),
    "products alone": products_engine,
}
LARGE = ("Tokenformer 100M", "Transformer 100M")
FAST = ("minitf", "torch eager", "torch.compile", "products alone")  # measured with TF32 too


@contextlib.contextmanager
def precision(tf32):
    """float32 products as they are, or with their inputs rounded to TF32, in both libraries."""
    import torch

    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    with cuda.tf32() if tf32 else contextlib.nullcontext():
        yield


# ---------------------------------------------------------------------------------------------- measuring


def wait():
    import cupy
    import torch

    cupy.cuda.Device().synchronize()
    torch.cuda.synchronize()


def seconds_of(function, times):
    wait()
    start = time.perf_counter()
    for _ in range(times):
        function()
    wait()
    return (time.perf_counter() - start) / times


def interleave(functions, repeats):
    """Median seconds of each function; a turn calls it as often as fits into TURN."""
    times = {}
    for name, function in functions.items():
        for _ in range(3):  # the third call of `Replayed` is the first replay
            function()
        times[name] = max(1, min(100, round(TURN / seconds_of(function, 2))))
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(seconds_of(function, times[name]))
    return {name: float(f"{statistics.median(values):.4g}") for name, values in seconds.items()}


def measure_size(name, engines, repeats, tf32=False):
    import cupy

    config, batch_size = SIZES[name]
    with precision(tf32):
        steps = {engine: ENGINES[engine](config, batch_size) for engine in engines}
        losses = {e: float(step()) for e, step in steps.items() if e != "products alone"}
        assert max(losses.values()) - min(losses.values()) < (1e-2 if tf32 else 1e-3), losses
        seconds = interleave(steps, repeats)
    del steps
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    return {
        "config": repr(config),
        "parameters": count_parameters(config),
        "tokens": batch_size * config.context,
        "flops": batch_size * training_flops(config, config.context),
        "seconds": seconds,
        "first_loss": {engine: round(loss, 5) for engine, loss in losses.items()},
    }


# -------------------------------------------------------------------------------------- the kernels alone


def kernel_cases():
    """Yields (name, bytes that must move, {engine: function}), one direction at a time.

    2^27 entries: far more than the GPU's cache holds, and long enough for the host to stay ahead.
    """
    import cupy
    import torch

    from minitf import oracle

    functional, entries = torch.nn.functional, 2**27

    def rows_of(n):
        return cupy.random.standard_normal((entries // n, n), dtype=np.float32)

    def classes_of(n):
        return cupy.random.randint(0, n, entries // n, dtype=np.int64)

    pairs = {  # name: (forward and backward of minitf, the same in torch, arrays)
        "Θ, n 1024": (cuda.theta_forward, cuda.theta_backward, oracle.theta, [rows_of(1024)]),
        "Θ, n 4096": (cuda.theta_forward, cuda.theta_backward, oracle.theta, [rows_of(4096)]),
        "GeLU": (cuda.gelu_forward, cuda.gelu_backward, functional.gelu, [rows_of(4096)]),
        "layer norm, d 1024": (
            cuda.layer_norm_forward,
            cuda.layer_norm_backward,
            lambda x: functional.layer_norm(x, x.shape[-1:]),
            [rows_of(1024)],
        ),
        "softmax, n 1024": (
            cuda.softmax_forward,
            cuda.softmax_backward,
            lambda x: torch.softmax(x, -1),
            [rows_of(1024)],
        ),
        "cross-entropy, 4096": (
            cuda.cross_entropy_forward,
            cuda.cross_entropy_backward,
            functional.cross_entropy,
            [rows_of(4096), classes_of(4096)],
        ),
    }
    for name, (forward, backward, in_torch, arrays) in pairs.items():
        out, cache = forward(*arrays)
        dout = cupy.ones_like(out)
        tensors = [torch.from_dlpack(a) for a in arrays]
        leaf = tensors[0].requires_grad_()

        def gradient_of(function, tensors=tensors, leaf=leaf, dout=dout):
            result, dout = function(*tensors), torch.from_dlpack(dout)
            return lambda: torch.autograd.grad(result, leaf, dout, retain_graph=True)

        compiled = torch.compile(in_torch, dynamic=False)
        large = sum(a.size == entries for a in (arrays[0], out))  # arrays that one direction reads and writes
        yield (
            f"{name}, forward",
            4 * entries * large,
            {
                "minitf": lambda forward=forward, arrays=arrays: forward(*arrays),
                "torch eager": lambda in_torch=in_torch, tensors=tensors: in_torch(*tensors),
                "torch.compile": lambda compiled=compiled, tensors=tensors: compiled(*tensors),
            },
        )
        yield (
            f"{name}, backward",
            4 * entries * (large + 1),
            {
                "minitf": lambda backward=backward, dout=dout, cache=cache: backward(dout, cache),
                "torch eager": gradient_of(in_torch),
                "torch.compile": gradient_of(compiled),
            },
        )


def copy_case():
    """The same for a plain copy."""
    import cupy

    source = cupy.zeros((2**27,), np.float32)
    target = cupy.empty_like(source)
    return "copy", 2 * source.nbytes, {"minitf": lambda: cupy.copyto(target, source)}


def run(repeats):
    import cupy
    import torch

    measured = {
        "command": "python figures/speed_gpu.py",
        "repeats": repeats,
        "gpu": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        "machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "cuda": cupy.cuda.runtime.runtimeGetVersion(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cupy": cupy.__version__,
            "torch": torch.__version__,
        },
        "kernels": {},
        "sizes": {},
        "tf32": {},
    }

    def save(part, name, result):
        measured[part][name] = result
        STEM.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")

    for name, size, functions in progress(itertools.chain([copy_case()], kernel_cases()), "kernels"):
        save("kernels", name, {"bytes": size, "seconds": interleave(functions, repeats)})
    for name in progress(SIZES, "sizes"):
        save("sizes", name, measure_size(name, ENGINES, repeats))
    for name in progress(LARGE, "TF32"):
        save("tf32", name, measure_size(name, FAST, repeats, tf32=True))
    print(table(measured))


def table(measured):
    """What was measured, in Markdown: minitf/kernels/README.md shows it."""
    about = ", ".join(
        f"{name} {version}" for name, version in measured["versions"].items() if name != "python"
    )
    lines = [f"{measured['gpu']}; {about}; medians of {measured['repeats']}. Milliseconds:", ""]
    lines += ["| | " + " | ".join(ENGINES) + " | minitf / eager | minitf / compile |"]
    lines += ["|---" * (len(ENGINES) + 3) + "|"]
    for part, title in (("sizes", ""), ("tf32", ", TF32")):
        for name, size in measured[part].items():
            seconds = size["seconds"]
            ratios = [speed.over(seconds, "minitf", other) for other in ("torch eager", "torch.compile")]
            columns = [*speed.milliseconds(seconds, ENGINES), *ratios]
            lines.append(f"| {name}{title} | " + " | ".join(columns) + " |")
    lines += [
        "",
        "Kernels alone, TB/s, where every array is counted once for reading and once for writing:",
        "",
    ]
    lines += ["| | " + " | ".join(KERNEL_ENGINES) + " |", "|---" * (len(KERNEL_ENGINES) + 1) + "|"]
    for name, kernel in measured["kernels"].items():
        rates = [
            f"{kernel['bytes'] / kernel['seconds'][engine] / 1e12:.2f}"
            if engine in kernel["seconds"]
            else "-"
            for engine in KERNEL_ENGINES
        ]
        lines.append(f"| {name} | " + " | ".join(rates) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- drawing


def draw():
    measured = json.loads(STEM.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, axes = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
    draw_steps(axes[0], measured["sizes"])
    draw_kernels(axes[1], measured["kernels"])
    fig.suptitle(f"float32, {measured['gpu']}", fontsize=9)
    plot.save(fig, STEM, ALT)


def draw_steps(ax, sizes):
    for i, engine in enumerate(ENGINES):
        for kind, line in (("Tokenformer", "-"), ("Transformer", ":")):
            points = [
                (size["parameters"], 1e3 * size["seconds"][engine])
                for name, size in sizes.items()
                if name.startswith(kind)
            ]
            filled = kind == "Tokenformer"
            look = {"color": plot.PALETTE[i], "marker": plot.MARKERS[i], "linestyle": line}
            label = engine if filled else None
            ax.plot(
                *zip(*points, strict=True), **look, markerfacecolor=None if filled else "white", label=label
            )
    ax.set(xscale="log", yscale="log", xlabel="parameters", ylabel="milliseconds per training step")
    speed.plain_numbers(ax.yaxis)
    ax.set_title("filled: Tokenformer, open: Transformer", fontsize=9)
    ax.legend()


def draw_kernels(ax, measured):
    copy = measured["copy"]["bytes"] / measured["copy"]["seconds"]["minitf"]
    names = [name for name in measured if name != "copy"]
    for i, engine in enumerate(KERNEL_ENGINES):
        shares = [measured[name]["bytes"] / measured[name]["seconds"][engine] / copy for name in names]
        where = np.arange(len(names)) + 0.27 * (i - 1)
        hatch = ("", "//", "..")[i]
        ax.barh(where, shares, 0.25, color=plot.PALETTE[2 + i], hatch=hatch, edgecolor="white", label=engine)
    ax.axvline(1, color="gray", linewidth=1)
    ax.set_yticks(np.arange(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="share of the speed of a plain copy")
    ax.set_title(f"kernels alone; a plain copy moves {copy / 1e12:.1f} TB/s", fontsize=9)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, -0.2), ncol=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redraw", action="store_true", help="only draw, from the stored measurements")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each engine (default 9, at least 7)")
    arguments = parser.parse_args()
    if not arguments.redraw:
        run(max(arguments.repeats, 7))
    draw()
    measured = json.loads(STEM.with_suffix(".json").read_text(encoding="utf-8"))
    write_section(speed.PAGE, "speed_gpu", table(measured))
