# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Move it to the GPU
#
# Moving the model takes one line. Making it fast there takes one idea: arithmetic is cheap, memory is not. You learn
# that idea on a CPU, where it holds too, and write a CUDA kernel. **No GPU is needed.** You measure your CPU; what was measured
# on a GPU is read from a file, and what is a data sheet's is marked so.
#
# **You will be able to**
# - move a model to a GPU, and say what then still crosses the bus in a training step
# - say from two numbers of a machine how fast a formula can be at best
# - count the trips to memory of a formula, and write a CUDA kernel that needs one
# - tell a rounding difference between CPU and GPU from a bug
#
# **You need**
# - lessons 02 and 03 (Pattention and $\Theta$). No C: the few words of it are explained
#
# **Minutes** 45 to read, 1 to run
#
# **Equations covered** 4 and 16 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168)

# %%
import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf import kernels
from minitf.backend import array_module
from minitf.checks import check
from minitf.checks.lesson_08 import run_kernel, tools
from minitf.plot import show, style

style()
measured, on_gpu = (
    json.loads(Path(f"../figures/{name}.json").read_text(encoding="utf-8"))
    for name in ("speed", "speed_gpu")
)
print("GPU:", on_gpu["gpu"])

# %% [markdown]
# ## 1. The arrays decide
#
# CuPy has NumPy's functions for arrays in a GPU's memory. So a formula need not be written twice; it has to ask whose arrays it was
# given. `array_module` does. **Predict** how many lines of the model change for a GPU.

# %%
DEVICE = "cpu"  # "cuda", if you have an NVIDIA GPU and CuPy: pip install -e ".[cuda13]"


def l2_norm(a):
    xp = array_module(a)  # numpy or cupy
    return a / xp.sqrt((a * a).sum(axis=-1, keepdims=True))


config = minitf.TokenformerConfig(
    vocab_size=96, context=128, n_layers=2, d_model=128, n_heads=4,
    attention_tokens=128, ffn_tokens=512,
)  # fmt: skip
params = minitf.to_device(minitf.init_params(config), DEVICE)  # the one line
xp = array_module(params["embedding"]["weight"])
ids = xp.asarray(np.random.default_rng(0).integers(0, 96, (16, 128)))
logits, _ = minitf.forward(params, ids, config)
print(xp.__name__, logits.shape, logits.dtype, l2_norm(xp.ones((1, 4))))

# %% [markdown]
# **Break it.** What if some arrays moved and some did not? Nothing moves silently: a copy that you did not ask for is the most common reason for a slow
# GPU. To see it without a GPU we let a stand-in pose as CuPy:


# %%
class PretendArray:
    """To minitf an array on a GPU: not NumPy's, and named so by the module `cupy`."""


cupy = ModuleType("cupy")
cupy.ndarray = PretendArray
with mock.patch.dict(sys.modules, cupy=cupy):
    try:
        array_module(x=PretendArray(), key=np.ones((4, 8)))
    except TypeError as error:
        print(error)

# %% [markdown]
# ## 2. What crosses the bus
#
# CPU and GPU have memories of their own, with a bus between them (PCIe). **Predict**: of parameters, gradients, the optimizer's two moments, ids and loss,
# what must cross it in a training step?

# %%
MB = 1e6
model_bytes = minitf.cost.parameter_bytes(config)
batch_bytes = 2 * ids.size * 8  # ids and targets, int64
print(f"parameters, gradients, moments: {4 * model_bytes / MB:5.2f} MB, live on the GPU")
print(f"ids and targets:                {batch_bytes / MB:5.2f} MB, each step, one way")
print("the loss:                       4 bytes, back, when somebody reads it")

# %% [markdown]
# **Explain.** Move the model once, feed ids, and read the loss seldom. That last word costs most. A GPU works through a queue; `float(loss)`
# makes Python wait until the queue is empty, and the GPU wait until Python has filled it again. So `train_model` reads a GPU's losses only
# where it evaluates or saves.
#
# ## 3. Two numbers of a machine
#
# A machine has a **peak** (FLOP/s) and a **bandwidth** (bytes/s between memory and processor). Yours:


# %%
def best_seconds(function, repeats=7):
    """The shortest of some runs: other programs can only make a run longer."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


square = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
big = np.ones((3, 8_000_000), np.float32)  # three rows of 32 MB: too large for any cache
peak = 2 * 1024**3 / best_seconds(lambda: square @ square)
bandwidth = big.nbytes / best_seconds(lambda: np.add(big[0], big[1], out=big[2]))

# %% tags=["nbval-ignore-output"]
print(f"peak {peak / 1e9:.0f} GFLOP/s, bandwidth {bandwidth / 1e9:.1f} GB/s", end=": ")
print(f"{peak / bandwidth:.0f} FLOPs in the time of one byte")

# %% [markdown]
# **Derive.** A task of $F$ FLOPs that moves $B$ bytes cannot end before its arithmetic is done, nor before its bytes are there. While the processor computes, the next bytes are
# under way, so the two overlap.
#
# > **Exercise 08.1: `least_time`** · difficulty ●○○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > Return the shortest possible time of a task.


# %%
def least_time(flops, bytes_moved, peak, bandwidth):
    """FLOPs, bytes, FLOP/s, bytes/s -> seconds."""
    ...


# %%
least_time = check("least_time", least_time)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two things happen at the same time. When is the later one finished?
#
# </details>
#
# <details><summary>Hint 2: the units</summary>
#
# FLOPs / (FLOP/s) = s, and bytes / (bytes/s) = s. Of two times, one decides.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def least_time(flops, bytes_moved, peak, bandwidth):
#     return max(flops / peak, bytes_moved / bandwidth)
# ```
#
# </details>
#
# **Check** the idea on one product. This is the **roofline** (Williams et al., 2009). The ratio $F/B$ is a task's *intensity*; where it is under peak / bandwidth, memory decides. **By hand**, for
# $XK^\top$ with $T = 2048$, $d = 128$, $n = 512$, in float32:
#
# $$F = 2Tdn = 268\text{ million}, \qquad B = 4\,(Td + nd + Tn) = 5.5\text{ million}, \qquad F/B = 49.$$
#
# **Predict** the intensity of $\Theta$, which takes some 16 FLOPs for each score.
#
# ## 4. Count the trips
#
# **Code.** $\Theta$ in NumPy, step by step. Every operation reads whole arrays from memory and writes a whole array back; on a GPU it is one *kernel launch*.
# A subclass of `ndarray` can count that:


# %%
class Counted(np.ndarray):
    """An array that counts the operations it takes part in, and the bytes they move."""

    trips, moved = 0, 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [a.view(np.ndarray) if isinstance(a, Counted) else a for a in inputs]
        out = getattr(ufunc, method)(*plain, **options)
        Counted.trips += 1
        Counted.moved += sum(a.nbytes for a in (*plain, out) if isinstance(a, np.ndarray))
        return out.view(Counted)


def theta(a, tau):
    length = np.sqrt((a * a).sum(axis=-1, keepdims=True))
    z = tau * (a / length)
    inner = 0.7978845608 * (z + 0.044715 * (z * z * z))
    return 0.5 * (z * (1 + np.tanh(inner)))  # GeLU, the tanh formula


# %%
T, d, n = 2048, 128, 512
scores = np.random.default_rng(1).standard_normal((T, n), dtype=np.float32)
tau = math.sqrt(n)
weights = theta(scores.view(Counted), tau)
print(f"{Counted.trips} trips, {Counted.moved / MB:.0f} MB; ", end="")
print(f"the scores alone have {scores.nbytes / MB:.1f} MB")
expected = minitf.theta_forward(scores, approximate="tanh")[0]
print("agrees with the library:", np.abs(weights - expected).max() < 1e-5)

# %% [markdown]
# **Explain.** Written as one loop over a row, $\Theta$ reads the scores once and writes the weights once: 8.4 MB. Everything between stays in registers or cache.
# Merging operations so is called **fusion**. What is it worth? Your CPU by your measurements, beside a GPU's *data sheet* (NVIDIA H100 SXM: 67 TFLOP/s in float32
# without tensor cores, 3.35 TB/s; not measured here). **Predict** which of the three tasks takes longest on the GPU.

# %% tags=["nbval-ignore-output"]
elements = T * n
tasks = {
    "X K^T": (2 * elements * d, 4 * (T * d + n * d + elements)),
    "theta in trips": (16 * elements, Counted.moved),
    "theta fused": (16 * elements, 8 * elements),
}
machines = {"your CPU": (peak, bandwidth), "H100, data sheet": (67e12, 3.35e12)}
print(f"{'at best':15}" + "".join(f"{name:>20}" for name in machines))
for task, (flops, moved) in tasks.items():
    times = [1e6 * least_time(flops, moved, *machine) for machine in machines.values()]
    print(f"{task:15}" + "".join(f"{t:17.1f} us" for t in times))

# %% [markdown]
# **See.** $\Theta$ has a sixteenth of the product's FLOPs, but in trips it moves 120 bytes for 16 of them, fused 8. In trips it takes several times as long as the product; fused, it is the cheaper one. The faster a machine multiplies, the worse
# the trips look, and on a GPU each of them costs a launch too. Fusion is not polish.
#
# On a CPU "fused" means block by block, while a block is in the cache. The library's twin against its formula, on your CPU:

# %% tags=["nbval-ignore-output"]
twin = best_seconds(lambda: minitf.theta_forward(scores))
with kernels.resting():  # the formula as it stands
    formula = best_seconds(lambda: minitf.theta_forward(scores))
print(f"exact theta, formula {1e3 * formula:.1f} ms, twin {1e3 * twin:.1f} ms", end=", ")
print(f"at best {1e3 * 8 * elements / bandwidth:.2f} ms")

# %% [markdown]
# What is left to "at best" is arithmetic after all: the peak counts multiplications, and an exp or erf takes many of them.
#
# ## 5. Ten thousand threads
#
# A CUDA **kernel** is a function that describes what *one thread* does; the GPU runs it as thousands of threads. Threads come in **blocks**. Each thread finds its entry
# from three numbers: `i = blockIdx.x * blockDim.x + threadIdx.x`.
#
# **By hand**: five entries, blocks of two. **Predict** how many blocks, how many threads, and what the last thread does.

# %%
a, out = [3.0, -1.0, 4.0, -1.0, 5.0], [None] * 5
block_dim = 2
grid_dim = -(-len(a) // block_dim)  # 5 / 2, rounded up

for block in range(grid_dim):
    for thread in range(block_dim):
        i = block * block_dim + thread
        if i < len(a):  # the guard
            out[i] = max(a[i], 0.0)
        print(
            f"block {block} thread {thread}: entry {i}",
            "" if i < len(a) else "is not there",
        )
print("ReLU:", out)

# %% [markdown]
# On a GPU there is no loop: all of these happen at once, in no order. So no thread may rely on another's result, and without the guard the last one would write into somebody else's
# memory. The body of that loop in CUDA C, which is C++ with a few new words:
#
# ```cuda
# extern "C" __global__ void relu(const float *a, float *out, int size)
# {
#     const int i = blockIdx.x * blockDim.x + threadIdx.x;
#     if (i < size)
#         out[i] = a[i] > 0 ? a[i] : 0;
# }
# ```
#
# `__global__` marks a kernel, `extern "C"` keeps its name findable, `float *` is an array of floats, without a shape: a table lies in it row after row, entry $(r, c)$ at $rn + c$.
#
# > **Exercise 08.2: `scale_gelu`** · difficulty ●●●○○ · importance ●●●○○ · 15 minutes; open the solution after 20
# >
# > The second half of $\Theta$, fused. The norms are known: `inverse_norm` has one number for each row. Write the kernel: `weights` = GeLU(`tau` · `inverse_norm` of the row · `scores`), for all
# > `size` entries of a table with `n` columns. GeLU$(z) = \tfrac12 z\,\text{erfc}(-z/\sqrt2)$, the exact one; CUDA has `erfc`.
# > A compiler for GPUs reads it, if you have one (`pip install -e ".[gpu-check]"`), and your C++ compiler runs it, one thread after the other.


# %%
def scale_gelu(scores, inverse_norm, tau):
    """scores (rows, n), inverse_norm (rows, 1), tau -> weights (rows, n)."""
    source = """
extern "C" __global__ void scale_gelu(const float *scores, const float *inverse_norm, float *weights,
                                      float tau, int n, int size)
{
    // your lines
}
"""
    return run_kernel(source, scores, inverse_norm, tau)


# %%
scale_gelu = check("scale_gelu", scale_gelu)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Start as `relu` does. Whole numbers divide without rest in C: entry $i$ is in row `i / n`.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `scores` (rows, n) is `size` numbers in a row here, `inverse_norm` (rows, 1) is `size / n`:
#
# ```cuda
# const int i = ...;
# if (i < size) {
#     const float z = tau * inverse_norm[...] * scores[...];
#     weights[i] = ... erfc(...);
# }
# ```
#
# Write numbers with an f: `0.5f`. A plain `0.5` is a double, and most GPUs compute doubles many times slower.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def scale_gelu(scores, inverse_norm, tau):
#     source = """
# extern "C" __global__ void scale_gelu(const float *scores, const float *inverse_norm, float *weights,
#                                       float tau, int n, int size)
# {
#     const int i = blockIdx.x * blockDim.x + threadIdx.x;
#     if (i < size) {
#         const float z = tau * inverse_norm[i / n] * scores[i];
#         weights[i] = 0.5f * z * erfc(-z * 0.70710678f);
#     }
# }
# """
#     return run_kernel(source, scores, inverse_norm, tau)
# ```
#
# </details>

# %% tags=["nbval-ignore-output"]
print(
    "this machine can check a kernel with:",
    " and ".join(tools()) or "nothing; the text goes on",
)

# %%
few = scores[:8]
inverse_norm = 1 / np.linalg.norm(few, axis=1, keepdims=True)
fused = scale_gelu(few, inverse_norm, tau)
print("theta:", np.abs(fused - minitf.theta_forward(few)[0]).max() < 1e-5)

# %% [markdown]
# On a GPU the same source would run like this; here that is not tried:
#
# ```python
# kernel = cupy.RawKernel(source, "scale_gelu")
# kernel((-(-scores.size // 256),), (256,), (scores, inverse_norm, weights, np.float32(tau), np.int32(n), np.int32(scores.size)))
# ```
#
# ### The other half: a sum over a row
#
# The norm needs a sum, and threads that add to one number at the same time would lose some. The library lets 32 threads, a **warp**, own a row. Each adds up every 32nd entry; then they exchange
# numbers in five rounds, each with the partner whose number differs in one bit. **Predict** what every lane holds at the end.

# %%
lanes = np.arange(32)
partial = np.array([scores[0, lane::32].sum() for lane in lanes])  # one for each lane
for bit in (16, 8, 4, 2, 1):
    partial = partial + partial[lanes ^ bit]  # in CUDA: __shfl_xor_sync
print("all lanes the same:", len(set(partial)) == 1)
print(
    "the sum of the row:",
    np.isclose(partial[0], scores[0].sum(dtype=np.float64), atol=1e-4),
)

# %% [markdown]
# So a warp reads a row once, knows its norm and writes its weights: `minitf/kernels/theta.cu` is yours and this sum together.
#
# ## 6. Why the numbers differ
#
# Move a model to a GPU, and the loss changes in the seventh digit. Three reasons, all visible on a CPU.
#
# **Another order.** $(a + b) + c \ne a + (b + c)$ in floating point. **Predict** whether the warp's tree or one long chain is nearer to the truth.

# %%
numbers = np.random.default_rng(2).random(2**20, dtype=np.float32)
truth = numbers.sum(dtype=np.float64)
chain = numbers.cumsum(dtype=np.float32)[-1]  # one after the other
tree = numbers
while len(tree) > 1:
    tree = tree[: len(tree) // 2] + tree[len(tree) // 2 :]
for name, total in (("chain", chain), ("tree", tree[0])):
    print(f"{name:5} relative error {abs(total - truth) / truth:.0e}")

# %% [markdown]
# **Explain.** In a chain a small number meets an ever larger sum and loses its last digits, a million times. In a tree numbers meet their like, 20 times. A GPU's sums are
# trees, so of two answers that differ the GPU's may be the better one.
#
# **Fewer roundings.** GPUs, and many CPUs, compute $ab + c$ with *one* rounding (FMA). For three float32 numbers, with float64 as the exact product:

# %%
a, b, c = np.float32([1 + 2.0**-12, 1 + 2.0**-12, -1 - 2.0**-11])
print("two roundings", a * b + c, " one rounding", np.float32(np.float64(a) * b + c))

# %% [markdown]
# **Shorter numbers.** Tensor cores multiply float32 as **TF32**: 10 bits of mantissa instead of 23. We cut the others off:


# %%
def tf32(a):
    """Keeps sign, exponent and 10 bits of the mantissa."""
    return (a.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


x, key = np.random.default_rng(3).standard_normal((2, 256, 128), dtype=np.float32)
exact = x.astype(np.float64) @ key.T.astype(np.float64)
for name, product in (("float32", x @ key.T), ("TF32", tf32(x) @ tf32(key).T)):
    error = np.abs(product - exact).max() / np.abs(exact).max()
    print(f"{name:8} error below 1e-6: {error < 1e-6}, below 1e-3: {error < 1e-3}")

# %% [markdown]
# **Explain.** Order and FMA move the seventh digit; that is no bug, and a test allows it: here 1e-5 in float32, 1e-12 in float64. TF32 moves the third. It is off unless you ask
# (`minitf.kernels.cuda.tf32()`; other libraries have their own defaults, so look before you compare losses). And a *text* may change altogether: two characters of nearly the same probability, one digit, and the stories part. So compare logits, never
# texts.
#
# What does *not* differ is one run from the next: no kernel here depends on which block comes first, so a run on one GPU can be repeated to the last bit.
#
# ## 7. The figure: how near is the limit?
#
# Recorded on the CPU named below: the time of one training step as parameter tokens are added at fixed width; the same step's matrix products alone; and the least time, FLOPs over the peak of one large product.
# **Predict** the shape of the first line.

# %%
scan = measured["scans"]["parameter tokens"]
tokens = np.array([int(key) for key in scan])
step, products = (
    np.array([1e3 * point["seconds"][engine] for point in scan.values()])
    for engine in ("minitf", "products alone")
)
limit = [
    1e3 * least_time(point["flops"], 0, measured["peak_flops_per_second"], 1)
    for point in scan.values()
]
slope, fixed = np.polyfit(tokens, step, 1)
print(measured["machine"])
print(f"step = {fixed:.0f} ms + {1e3 * slope:.0f} us for each parameter token")
for i in (0, -1):
    print(f"products alone: {products[i] / step[i]:.0%} of the step at n = {tokens[i]}")

# %%
fig, ax = plt.subplots()
ax.plot(tokens, step, label="training step")
ax.plot(tokens, products, label="products alone")
ax.plot(tokens, limit, label="least time")
ax.set(xscale="log", yscale="log", ylabel="milliseconds")
ax.set_xlabel("parameter tokens n (attention; the feed-forward layer has 4 n)")
ax.set_xticks(tokens, tokens)
ax.minorticks_off()
ax.legend()
show(
    fig,
    alt="Log-log lines against parameter tokens from 64 to 1024, in milliseconds: a training step, its matrix products alone, and the least time. "
    "All three rise; at every size the step lies above its products, and these above the least time.",
    digest=f"step {step.round()} products {products.round()} least {np.round(limit)}",
)

# %% [markdown]
# **Explain.** Nearly a straight line with an offset. The offset is what does not grow with $n$: token-token attention, norms, embedding, loss. Each parameter token adds its products and its $\Theta$, so as $n$ grows the products take more of the
# step. What is left between the two lower lines is the BLAS, between the upper two memory and functions such as exp: there fusion works.
#
# ### And on a GPU
#
# There are two things to save there: trips, by fusion, and Python's time to start a kernel, by recording all launches of a step once, as
# a *CUDA graph*, which one launch repeats (`train_model` does; "minitf" below). **Predict** the factor that each saves at 1M parameters, and at 100M.

# %%
steps, exact = ("formulas", "kernels one by one", "minitf"), on_gpu["sizes"]
for name in ("Tokenformer 1M", "Tokenformer 100M"):
    seconds = exact[name]["seconds"]
    print(f"{name}, ms:", *(f"{s} {1e3 * seconds[s]:.1f}" for s in steps), sep="   ")
seconds = on_gpu["tf32"]["Tokenformer 100M"]["seconds"]
steps = ("minitf", "products alone")
print("with TF32, ms:", *(f"{s} {1e3 * seconds[s]:.1f}" for s in steps), sep="   ")

# %% [markdown]
# **Explain.** At 1M a kernel is done before Python has started the next one. Fusion helps because there are fewer to start, the graph because
# one start is enough. At 100M the GPU has work enough to hide Python: fusion halves the time, the graph hardly matters, and nine
# tenths of what is left is products. TF32 shortens those, and the trips count again. (PyTorch's compiler on the same GPU: `minitf/kernels/README.md`.)
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | hardware | TPU v4 hours for its cost figure | needs CUDA; its 150M log: 64 GPUs, 62.8 TFLOP/s each | CPU; a GPU through CuPy |
# > | $\Theta$ | one equation (16) | separate PyTorch operations (`nonlinear_norm_func`) | one kernel (`theta.cu`) |
# > | token-token attention | | flash-attn | two cuBLAS products and a softmax kernel |
# > | optimizer | AdamW | fused Adam of apex | one kernel for the whole tree |
# > | precision | | float16, loss scaling | float32, TF32 on request |
#
# ## Summary
#
# - The arrays decide: one line moves the model, and nothing else moves by itself.
# - Least time = max(FLOPs / peak, bytes / bandwidth). Products are bound by the first, $\Theta$ by the second.
# - Fusion keeps arithmetic and saves trips. The faster the products, the more it is worth.
# - A kernel says what one thread does: find your entry, guard, compute, write.
# - Order and FMA move the seventh digit, TF32 the third. Compare logits with a tolerance, not texts.
#
# ## Quiz
#
# 1. A kernel of one thread for each entry runs with blocks of 256 on an array of 1000. How many threads start, and what must the last 24 do?
#
# <details><summary>Answer</summary>
#
# 4 blocks, 1024 threads. The last 24 have no entry: the guard `if (i < size)` sends them home.
#
# </details>
#
# 2. Somebody replaces the GPU by one with twice the FLOP/s and the same bandwidth. What becomes faster?
#
# <details><summary>Answer</summary>
#
# What is bound by arithmetic: large products. $\Theta$, norms and AdamW are bound by memory and stay as they are, so the gain of a step is less than 2, and fusion is worth more than before.
#
# </details>
#
# 3. On the GPU the first logits differ by 3e-6 from the CPU's, and the 40th generated character is another one. Is that a bug?
#
# <details><summary>Answer</summary>
#
# No. 3e-6 is rounding in float32. Sampling takes the likeliest or draws near a border; once two characters are nearly tied, such a difference decides, and from then on the texts have different pasts.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, ICLR 2025, arXiv 2410.23168: section 3.2, eq. 4; appendix A, eq. 16.
# - Williams, Waterman and Patterson, *Roofline*, Communications of the ACM, 2009: section The Roofline Model.
# - NVIDIA, *CUDA C++ Programming Guide*: chapter Programming Model. NVIDIA, *H100 Tensor Core GPU* data sheet.
# - Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*, 1991: section 1, Rounding Error.
#
# **Next**: lesson 09 looks inside the tokens that you have made fast.
