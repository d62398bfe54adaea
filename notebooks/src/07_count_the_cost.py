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
# # Count the cost honestly
#
# The paper's headline: a model grown to 1.4B parameters is as good as one trained from scratch, at a third of the cost. Cost of what, and for whom? You
# count what a model costs, find two questions in that sentence, and judge our own experiment by predictions that were written down before it ran.
#
# **You will be able to**
# - count parameters, FLOPs and bytes by formula, and prove the count by watching the products that run
# - tell the cost of one model from the cost of a family of models
# - name the controls that a cost curve needs, and what each of them rules out
# - pass a verdict on a claim: *holds*, *fails* or *within noise*
#
# **You need**
# - lesson 02 (Pattention), lesson 06 (growing)
#
# **Minutes** 45 to read, 1 to run
#
# **Equations covered** tables 3, 6 and 7 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168)

# %%
import importlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import minitf
from minitf import laboratory
from minitf.checks import check
from minitf.laboratory import Stage, Store, sweep
from minitf.laboratory.verdict import judge, number, predictions_table
from minitf.plot import LINES, MARKERS, PALETTE, show, style

style()

# %% [markdown]
# ## 1. One product
#
# A **FLOP** is one multiplication or one addition of two numbers. **Predict**: how many does the product of a $2 \times 3$ and a $3 \times 4$ matrix take?
#
# By hand: the result has $2 \cdot 4$ entries, and each is a sum of 3 products: 3 multiplications and, starting from 0, 3 additions. As a loop:


# %%
def product(a, b):
    """a (m, k), b (k, n) -> a @ b and its FLOPs."""
    out, flops = np.zeros((len(a), b.shape[1])), 0
    for i in range(len(a)):
        for j in range(b.shape[1]):
            for k in range(len(b)):
                out[i, j] += a[i, k] * b[k, j]
                flops += 2
    return out, flops


a, b = np.ones((2, 3)), np.ones((3, 4))
print("loop   ", product(a, b)[1], "FLOPs")
counter = minitf.FlopCounter()
counter.wrap(a) @ b
print("counter", counter.flops, "FLOPs, formula 2 m k n =", 2 * 2 * 3 * 4)

# %% [markdown]
# **Explain.** $2mkn$. The `FlopCounter` follows a wrapped array through NumPy and notes every matrix product that it meets. So we need not trust a formula: we can watch.
#
# ## 2. Parameters
#
# **Derive.** A parameter token is a key and a value, $d$ numbers each. A layer has four Pattentions in attention (query, key, value, output) with $n_a$ tokens, and one with $n_f$ in its
# feed-forward part. A Transformer has four $d \times d$ matrices there and two of $d \times 4d$:
#
# $$N_\text{Tokenformer} = 2\,L\,d\,(4 n_a + n_f), \qquad N_\text{Transformer} = L\,(4 d^2 + 2 \cdot 4 d^2) = 12\,L\,d^2.$$
#
# In the first version of the paper's table 3 the 2 was missing for the four in attention; a reader noticed (issue #12). **Predict** by what share that
# undercounts the released 150M model, with $n_a = d$ and $n_f = 4d$.

# %%
released = minitf.TokenformerConfig(
    50304, 2048, n_layers=12, d_model=768, n_heads=12, attention_tokens=768, ffn_tokens=3072
)
L, d, n_a, n_f = 12, 768, 768, 3072
v1, now = L * d * (4 * n_a + 2 * n_f), 2 * L * d * (4 * n_a + n_f)
print(f"table 3, first version {v1:,}   now {now:,}   missing {1 - v1 / now:.0%}")
print(f"counted in the shapes: {minitf.count_layer_parameters(released):,}")
print(f"all: {now + 50304 * d + 2 * d:,}, the release's training log: 151,881,216")

# %% [markdown]
# **Explain.** With equal $d$, $n_a = d$ and $n_f = 4d$ give $16 L d^2$, a third more than a Transformer. To compare them fairly, take $n_a = 0.75\,d$: the paper's 124M model has
# 576 and 2304.
#
# ## 3. FLOPs
#
# **Derive**, for one sequence of $T$ tokens:
# - *layers*: every parameter multiplies one number of each token, and the result is added: $2 N T$;
# - *token-token attention*: scores $QK^\top$ are $(T, d)$ times $(d, T)$, the mix of values $(T, T)$ times $(T, d)$, in each layer: $2 \cdot 2 L d\,T^2$;
# - *logits*: $(T, d)$ times the embedding's $(d, V)$: $2 V d\,T$. (The last row of table 3 lacks this $T$ in our copy.)
#
# > **Exercise 07.1: `forward_flops`** · difficulty ●●○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > The FLOPs of one sequence through a Tokenformer, all three terms.


# %%
def forward_flops(n_layers, d, n_attention, n_ffn, vocab, T):
    """Six whole numbers -> FLOPs of the forward pass of one sequence of T tokens."""
    ...


# %%
forward_flops = check("forward_flops", forward_flops)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# First the parameters of all layers, by section 2. Then three terms.
#
# </details>
#
# <details><summary>Hint 2: the units</summary>
#
# $N$ has no $T$ in it. The first and the third term have one $T$, the second has $T^2$ and no parameters.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def forward_flops(n_layers, d, n_attention, n_ffn, vocab, T):
#     N = 2 * n_layers * d * (4 * n_attention + n_ffn)
#     return 2 * N * T + 4 * n_layers * d * T**2 + 2 * vocab * d * T
# ```
#
# </details>
#
# **Check** it against what runs: wrap the parameters of a small model, and the counter sees every product of a real forward and backward pass. **Predict** how many times more than forward the two take.

# %%
config = minitf.TokenformerConfig(
    65, context=32, n_layers=2, d_model=24, n_heads=2, attention_tokens=10, ffn_tokens=40
)
counter = minitf.FlopCounter()
watched = minitf.tree_map(counter.wrap, minitf.init_params(config))
ids = np.arange(32)[None] % 65
minitf.forward(watched, ids, config)
forward = counter.flops
print(f"formula {forward_flops(2, 24, 10, 40, vocab=65, T=32):,}, counted {forward:,}")
minitf.loss_and_grads(watched, ids, ids, config)
print(f"forward and backward: {(counter.flops - forward) / forward:.2f} times as many")
print("the first products:", counter.shapes[:3])

# %% [markdown]
# **Explain.** Three times. **Derive**: the product $Y = XW$ of an $(m, k)$ and a $(k, n)$ matrix has two gradients, $dX = dY\,W^\top$ and $dW = X^\top dY$. Both multiply the
# same three sizes, $2mkn$ each.
#
# What we do *not* count: GeLU, norms, softmax, the optimizer, and the way to memory and back, which lesson 08 is about. What we count although a fast kernel may skip it: the half of the
# $T \times T$ square that the mask throws away.
# FLOPs are the same on every machine. Seconds are what you pay, and they depend on the machine and on what else it does. Each of our stored runs has both.
#
# ## 4. Memory, and long texts
#
# **Predict**: training keeps the parameters, their gradients and AdamW's two means in float32. How many bytes per parameter?

# %%
series = {"124M": (576, 2304), "757M": (4850, 19400), "1.4B": (8620, 34480)}  # table 9
grown = {
    name: minitf.TokenformerConfig(50304, 1024, 12, 768, 12, *tokens)
    for name, tokens in series.items()
}
for name, each in grown.items():
    count, size = minitf.count_parameters(each), minitf.parameter_bytes(each, training=True)
    print(f"{name}: {count:13,} parameters, {size / 1e9:5.1f} GB in training")

params = minitf.init_params(config)
_, grads = minitf.loss_and_grads(params, ids, ids, config)
state = minitf.adamw_init(params)
trees = params, grads, state["m"], state["v"]
held = sum(array.nbytes for tree in trees for _, array in minitf.tree_items(tree))
formula = minitf.parameter_bytes(config, training=True)
print(f"our small model: formula {formula:,} bytes, counted in the arrays {held:,}")

# %% [markdown]
# 16 bytes: $4 \cdot 4$. Both kinds of model pay that. They differ in what has $d$ in it and no $N$: the cache of keys and values, $2 L d\,T$ numbers, and the FLOPs of token-token attention.
# A Transformer needs a larger $d$ to have more parameters. From the paper's table 8 one can compute that of its 757M model: 2112, against 768. **Predict** for which $T$ that
# matters.

# %%
wide = minitf.TransformerConfig(50304, 1024, 12, 2112, 12, d_ff=4 * 2112)
print("     T   FLOPs, Transformer / Tokenformer   cache in MB")
for T in (1024, 8192, 65536):
    ratio = minitf.forward_flops(wide, T) / minitf.forward_flops(grown["757M"], T)
    caches = [4 * 2 * 12 * width * T / 1e6 for width in (2112, 768)]
    print(f"{T:6} {ratio:33.2f}   {caches[0]:.0f} / {caches[1]:.0f}")

# %% [markdown]
# **Explain.** At the 1,024 tokens of the paper's training hardly. In the limit the ratio is that of the widths, 2.75. This saving comes from a narrow model, not from growing; what the narrow width
# costs in quality is a question for measurements (there is a claim about it in section 8).
#
# ## 5. Two questions in one sentence
#
# Suppose that sizes 1 to 4 cost 10, 20, 30, 40 from scratch. Growing pays 10 for the base and a tenth for each further size: 2, 3, 4. **Predict** by which factor growing saves.
#
# It depends on what you want. *One target*: only the largest model. Scratch costs 40, growing $10 + 2 + 3 + 4 = 19$, because the small ones are on the way: a factor of 2.1.
# *The family*: all four. Scratch costs $10 + 20 + 30 + 40 = 100$, growing still 19: 5.3.
#
# > **Exercise 07.2: `savings`** · difficulty ●○○○○ · importance ●●●●● · 3 minutes; open the solution after 6
# >
# > Both factors.


# %%
def savings(scratch, grown):
    """Costs of each size's own run (S,); of the base and each stage of growing (S,) -> target, family."""
    ...


# %%
savings = check("savings", savings)
target, family = savings(np.array([10, 20, 30, 40]), np.array([10, 2, 3, 4]))
print(f"the example: one target {target:.1f} times, family {family:.1f} times")

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Both have the same denominator: to have the last size you must have paid for everything before it, and then you have everything.
#
# </details>
#
# <details><summary>Hint 2: the units</summary>
#
# Two costs go in, in the same unit; two ratios without a unit come out, each one number.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def savings(scratch, grown):
#     total = grown.sum()
#     return scratch[-1] / total, scratch.sum() / total
# ```
#
# </details>
#
# Now the paper: perplexity on OpenWebText (tables 6 and 7), and TPU hours read off its figure. **Predict**: is the headline's third about one target or about a family?

# %%
sys.path.append("../figures")
cost_curves = importlib.import_module("cost_curves")  # the script of the experiment below
PAPER = cost_curves.PAPER | {
    "Transformer, scratch, 30B tokens": ([406, 723, 1149], [15.97, 13.78, 13.34])
}
for name, (hours, perplexity) in PAPER.items():
    print(f"{name:33} 1.4B: perplexity {perplexity[-1]:.2f}, {hours[-1]:6,} hours")
own_runs = np.array(PAPER["Transformer, scratch, 300B tokens"][0])
for name in ("Tokenformer, grown, 30B a stage", "Tokenformer, grown, 60B a stage"):
    target, family = savings(own_runs, np.diff(PAPER[name][0], prepend=0))
    print(f"{name}: one target {target:.1f}, family {family:.1f} times cheaper")

# %% [markdown]
# **Explain.** The paper's figure puts each Transformer at the hours of its *own* run (a tenth of the tokens, a tenth of the hours), and a grown model at all hours so far. So the headline is about one
# target. Somebody who wants all four sizes saves six times.
#
# But the rival that a buyer would ask for is missing: a Transformer trained from scratch for *as many* hours.
#
# ## 6. What else could it be?
#
# A curve that falls while a model grows proves little: the model also saw more text. Each rival explanation gets an arm of the experiment that it would explain:
#
# | rival explanation | control |
# |---|---|
# | it only trained longer | the same extra tokens, no growth |
# | it only got more compute | the same extra FLOPs, no growth |
# | the small models were a detour | the final size from scratch, with all FLOPs that the grown one had |
# | any exact growth would do | a Transformer widened by Net2Net, same budgets |
# | the width is the limit | a Tokenformer of the final size from scratch, full budget |
# | the rival was badly tuned | every arm tuned on the same grid of learning rates |
# | luck | several seeds, lowest to highest shown |
# | we found the claim after the data | claims with thresholds, committed before the run |
#
# ## 7. Run it, small
#
# **Code.** A `Stage` says everything about one run. Four tiny ones: a base; the base grown; the same tokens without growth; a Transformer of that size from scratch, at equal FLOPs.

# %%
small = laboratory.tokenformer(4, d_model=20, n_layers=1, context=32)
large = laboratory.transformer(20, n_layers=1, context=32)
few = {"eval_points": 1, "eval_windows": 64}
base = Stage(steps=300, peak_lr=1e-2, config=small, **few)
(grow,) = laboratory.grown(base, "faded keys", [15], steps=60, peak_lr=1e-2)
(go_on,) = laboratory.continued(base, 1, steps=60, peak_lr=1e-2)
bigger = laboratory.tokenformer(15, d_model=20, n_layers=1, context=32)
spent = 300 * minitf.training_flops(small, 32) + 60 * minitf.training_flops(bigger, 32)
steps = round(spent / minitf.training_flops(large, 32))
scratch = Stage(steps, peak_lr=1e-2, config=large, **few)
arms = {"base": base, "grown": grow, "no growth": go_on, "scratch, equal FLOPs": scratch}
print("key of the base:", base.key(), "  with another seed:", replace(base, seed=1).key())

# %% [markdown]
# The key is a hash of all that decides the result. `sweep` runs what the store has not seen, parents first. We let it finish one run, and then the power fails in the middle of writing the
# next. **Predict** what a second sweep will run.

# %%
folder = tempfile.TemporaryDirectory()
with Store(folder.name) as store:
    sweep([base], store)
    runs = store.path
with runs.open("a") as file:
    file.write('{"key": "half a li')  # the power fails

with Store(folder.name) as store:
    print(f"in the store again: {len(store.records)} run;", end=" ")
    records = dict(zip(arms, sweep(arms.values(), store), strict=True))
print(f"after the second sweep: {len(runs.read_text().splitlines())} runs")

# %% tags=["nbval-ignore-output"]
print("                       characters         FLOPs   held-out nats per character")
for name, record in records.items():
    chain = [records["base"], record] if name in ("grown", "no growth") else [record]
    tokens, flops = (sum(each[field] for each in chain) for field in ("tokens", "flops"))
    print(f"{name:21} {tokens:11,} {flops:13,}   {record['heldout']:.2f}")

# %%
assert records["grown"]["birth"]["max_logit_change"] < 1e-4, "exact at birth"
assert records["base"]["heldout"] < np.log(65), "better than guessing"
with tempfile.TemporaryDirectory() as other, Store(other) as store:
    (again,) = sweep([base], store)
folder.cleanup()
same = again["heldout"] == records["base"]["heldout"]
print("the base again, in another store: the same loss to the last bit:", same)

# %% [markdown]
# **Explain.** The half line is dropped, the base is not run again, and every run has one line. So the real experiment can be stopped at any moment, and it can be trusted to be complete.
# Conclude nothing from the losses: one seed, one learning rate, a base that has learned next to nothing.
#
# ## 8. Predictions first
#
# Now the real one. A base is trained with the full budget $B$; then it grows through three more sizes, with $B/10$ or $B/5$ each. The page
# [`cost_curves.md`](../figures/cost_curves.md) has had this table since before the first run. **Predict**: tick what you expect, and count afterwards who was right, you or we.

# %%
display(Markdown(predictions_table(cost_curves.CLAIMS)))

# %% [markdown]
# **Derive.** Seeds differ by luck: initial weights, order of the text, new rows. Take three values of the same quantity, one per seed. If the claim had no truth in it and each seed were a coin, all three would
# say yes with probability $1/8$. So three seeds that agree are weak evidence, and three that disagree are none. Hence three words:
#
# > **Exercise 07.3: `verdict`** · difficulty ●○○○○ · importance ●●●●○ · 4 minutes; open the solution after 8
# >
# > The claim is *value ≥ threshold*. Return `"holds"` if that is true for every seed, `"fails"` if for none, and `"within noise"` otherwise.


# %%
def verdict(values, threshold):
    """values (seeds,), threshold -> "holds", "fails" or "within noise"."""
    ...


# %%
verdict = check("verdict", verdict)
measured = json.loads(Path("../figures/cost_curves.json").read_text(encoding="utf-8"))
results = cost_curves.Results(measured)
plan = results.plan
print(f"B = {plan.base_steps:,} steps of {plan.batch_size * plan.context:,} characters")
print(f"seeds {plan.seeds}, learning rates {plan.lrs}, {len(measured['runs'])} runs")

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# First a list: does the claim hold for this seed?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (seeds,) to (seeds,) true or false, to one word. Python's `all` and `any` do the second step.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def verdict(values, threshold):
#     passed = [value >= threshold for value in values]
#     if all(passed):
#         return "holds"
#     return "within noise" if any(passed) else "fails"
# ```
#
# </details>
#
# **See** the losses first, seed by seed, before any claim.

# %%
last, exact = results.last, results.exact
names = ["Tokenformer 1, B", *(f"Transformer {last}, {b}" for b in ("B", results.small))]
for share in results.shares:
    names += [f"{arm}, {share}" for arm in (f"grown ({exact})", "no growth", "Net2Net")]
    names += [f"Transformer {last}, FLOPs of grown {share}"]
for name in names:
    losses = " ".join(f"{loss:.4f}" for loss in results.loss(name).values())
    print(f"{name:36} {results.flops(name) / 1e12:6.2f} TFLOPs   {losses}")

# %% [markdown]
# **Break it.** Tuning is where comparisons are lost. The bold numbers below won the grid. **Predict** what happens to the first claim if only the grown model is tuned, and the
# Transformer has to take the *worst* rate of the grid.

# %%
display(Markdown(cost_curves.grid_table(measured)))
grids = measured["grids"]
ours = min(grids[f"grown ({exact}), {results.small}"].values())
rival = sorted(grids[f"Transformer {last}, {results.small}"].values())
print(f"scratch minus grown: {rival[0] - ours:+.3f} tuned, {rival[-1] - ours:+.3f} not")
edges = {str(min(plan.lrs)), str(max(plan.lrs))}
at_edge = sum(min(grid, key=grid.get) in edges for grid in grids.values())
print(f"best at an edge of the grid: {at_edge} of {len(grids)} arms")

# %% [markdown]
# **Explain.** A rival with a bad rate is easy to beat, and nobody sees it in a figure. So the grid belongs to the result. What remains: an arm whose best rate lies at an
# edge might do better beyond it.
#
# ## 9. The figure
#
# Above the paper's points, below ours. Left the cost of each model alone, right that of a family; a grown model has paid for its family anyway, so its line is the same.
# By which factors do *we* save? No run is needed for that: sizes and shares of the budget decide. What an experiment must find out is the loss.
#
# **Predict** where a black cross must lie if growing pays for somebody who wants only the last size: a Transformer of that size, from scratch, at the FLOPs of the grown one.


# %%
def line(ax, costs, losses, label, index, add_up=False):
    """losses: for each point, the losses of its seeds."""
    costs = np.cumsum(costs) if add_up else np.array(costs)
    low, mean, high = (np.array([f(each) for each in losses]) for f in (min, np.mean, max))
    look = {"color": PALETTE[index], "marker": MARKERS[index], "linestyle": LINES[index]}
    ax.plot(costs, mean, label=label, **look)
    ax.fill_between(costs, low, high, color=PALETTE[index], alpha=0.2, linewidth=0)


def draw_paper(ax, family):
    for index, label in zip((0, 2, 3, 1), PAPER, strict=True):
        if family and label.endswith("scratch, 30B tokens"):
            continue  # the smallest size is missing
        hours, perplexity = PAPER[label]
        losses = np.log(perplexity)[:, None]
        line(ax, hours, losses, label, index, add_up=family and "scratch" in label)


# %%
alone = {
    f"Transformer, scratch, {share}": cost_curves.scratch_points(
        results, [f"Transformer {i}, {share}" for i in range(1, last + 1)]
    )
    for share in ("B", results.small)
}
chains = {
    f"{label}, {share}": cost_curves.chain_points(results, f"{arm}, {share}")
    for label, arm in {"grown": f"grown ({exact})", "not grown": "no growth"}.items()
    for share in results.shares
}
own_runs = np.array([flops for flops, *_ in alone["Transformer, scratch, B"]])
for share in results.shares:
    spent = np.diff([flops for flops, *_ in chains[f"grown, {share}"]], prepend=0)
    target, family = savings(own_runs, spent)
    print(f"ours, {share} a stage: one target {target:.1f}, family {family:.1f} times")


def draw_ours(ax, family):
    for index, (label, points) in enumerate((alone | chains).items()):
        flops, losses, _ = zip(*points, strict=True)
        line(ax, np.array(flops) / 1e12, losses, label, index, family and label in alone)
    if not family:
        for share in results.shares:
            arm = f"Transformer {last}, FLOPs of grown {share}"
            mean = np.mean(list(results.loss(arm).values()))
            ax.plot(results.flops(arm) / 1e12, mean, "x", color="black", markersize=10)


# %%
shape = {"figsize": (9.2, 8.6), "height_ratios": (1, 1.6)}
fig, axes = plt.subplots(2, 2, sharex="row", sharey="row", **shape)
titles = "the paper: one target", "the paper: family", "ours: one target", "ours: family"
draws = draw_paper, draw_paper, draw_ours, draw_ours
for i, (ax, title, draw) in enumerate(zip(axes.flat, titles, draws, strict=True)):
    draw(ax, family=i % 2 == 1)
    ax.set(xscale="log", title=title, xlabel=("TPU-v4 hours", "training TFLOPs")[i // 2])
axes[0, 0].set_ylabel("nats per token (log of perplexity)")
axes[1, 0].set_ylabel("held-out loss (nats per character)")
for ax in axes[:, 0]:
    ax.legend(fontsize=7)
alt = "Four panels of loss against training cost on a log scale. Above, the paper: grown "
alt += "Tokenformers lie left of the full-budget Transformers and end close to their loss. "
alt += "Below, ours, the same arms and a model that was not grown; the black crosses are "
alt += "Transformers of the last size from scratch at the FLOPs of the grown ones."
ends = {label: np.mean(points[-1][1]) for label, points in (alone | chains).items()}
show(fig, alt, "last points, nats: " + ", ".join(f"{k} {v:.4f}" for k, v in ends.items()))

# %% [markdown]
# ## 10. The verdict
#
# Your `verdict` on every claim. Where a claim says *at most*, both sides change their sign.

# %%
rows = []
for claim, by_seed, _ in judge(cost_curves.CLAIMS, results):
    sign = 1 if claim.at_least else -1
    values = np.array(list(by_seed.values()))
    word = verdict(sign * values, sign * claim.threshold)
    rows.append((claim, word, values.mean(), values.min(), values.max()))

expected = {True: "holds", False: "fails"}
lines = ["| claim | mean (lowest to highest) | threshold | we expected | verdict |"]
lines += ["|---|---|---|---|---|"]
for claim, word, *numbers in rows:
    mean, low, high = map(number, numbers)
    cells = [
        claim.text,
        f"{mean} ({low} to {high})",
        claim.bound(),
        expected[claim.expected],
    ]
    lines += [f"| {' | '.join(cells)} | **{word}** |"]
display(Markdown("\n".join(lines)))

# %%
right = sum(word == expected[claim.expected] for claim, word, *_ in rows)
noise = sum(word == "within noise" for _, word, *_ in rows)
wrong = len(rows) - right - noise
print(f"{len(rows)} predictions: {right} right, {wrong} wrong, {noise} within noise")
single = sum(low == high for *_, low, high in rows)
print(f"resting on one seed, without a spread: {single}")
questions = {
    "without growth": "Is it the new tokens, not the extra training?",
    "closes": "Gap: 96 % closed at B/10? half of it? 68 % at B/5?",
    "same total FLOPs": "One target: no worse than scratch at equal FLOPs?",
    "widened by Net2Net": "No worse than a widened Transformer?",
    "the release's": "Does an exact birth cost nothing in the end?",
    "family": "Is the family three times cheaper?",
    "last member": "And its last member as good?",
}
for part, question in questions.items():
    asked = [(word, mean) for claim, word, mean, *_ in rows if part in claim.text]
    answers = ", ".join(f"{word} ({mean:.2g})" for word, mean in asked)
    print(f"{question:50} {answers}")

# %% [markdown]
# **Explain.** If *extra training* failed, the new tokens did nothing, and nothing below would matter. *Scratch at equal FLOPs* is the rival that the paper lacks.
#
# **In words.** Growing is real here, and less than the headline. Real: in every seed the grown model beats both controls that did not grow, and the widened Transformer; and
# an exact birth costs nothing that these seeds can show. Less: with a tenth of the budget a stage it closes two fifths of the gap, where the paper closes 96 %. Who wants only the last size
# does about as well from scratch for the same FLOPs: the crosses lie on the grown lines, within noise. The family is six times cheaper, but its last member is not as good as
# the Transformer that it replaces.
#
# **What this does not show.** Models a thousand times smaller than the paper's, two layers, characters, one corpus, one $B$. The paper's base had seen far more text per parameter. That matters:
# [another experiment](../figures/regime_scan.png), with one seed, took bases from 40 to 320 characters per parameter, and the share of the gap that growing by $B/10$ closes rose from 0.22 to 0.43.
#
# ## 11. Change a constant and rerun
#
# In a terminal, in the folder above `notebooks`:
#
# ```sh
# alias experiment=".venv/bin/python figures/cost_curves.py"
# experiment --help                          # what each constant does
# experiment --budget quick                  # a small version, in minutes
# experiment --budget quick --d-token 80     # a wider Tokenformer; only its runs are new
# experiment --seeds 3,4,5                   # the whole experiment with other seeds: hours
# ```
#
# Finished runs stay in `build/laboratory`, the curves of another plan go to `build/figures`. What makes no sense is refused before anything runs. **Break it**:

# %%
for name, value in {"widths": (40, 20), "d_token": 50, "base_steps": 0}.items():
    try:
        cost_curves.Plan(**{name: value})
    except ValueError as error:
        print(f"{name} = {value}: {error}")

# %% [markdown]
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | parameters of an attention Pattention | table 3: $2\,d\,n$ for each; first version $d\,n$ (issue #12) | $2\,d\,n$ | $2\,d\,n$, counted in the shapes |
# > | FLOPs | table 3, forward, whole $T \times T$ square | | the same, and counted while they run; training is 3 times that |
# > | cost | TPU hours; Transformers alone, grown models in all | | FLOPs and seconds; both kinds of cost |
# > | last point | 11.63 for the 1.4B Transformer in tables 6 and 7 | about 11.77 in its figures | tables |
# > | scratch at equal total cost | not shown | | the black crosses |
# > | seeds | not stated in our copy | | section 8 prints which were run |
# > | size | 124M to 1.4B, 300B tokens | | 1,000 times smaller and more |
#
# ## Summary
#
# - A product of $(m, k)$ and $(k, n)$ costs $2mkn$; training costs three times forward; a formula is proven by a counter.
# - $2NT + 4LdT^2 + 2VdT$: growing tokens changes the first term only.
# - "Cheaper" has two meanings, one target and a family. Always say which, and against what.
# - A falling curve needs controls: section 6 has eight.
# - Write the claim and its threshold down first. Then let a function pass the verdict.
#
# ## Quiz
#
# 1. Somebody grows 1B to 7B parameters and reports: "a tenth of the cost of training 7B from scratch". Which cost is missing, and which rival?
#
# <details><summary>Answer</summary>
#
# The cost of the 1B model, and of everything between. And a 7B model trained from scratch for exactly what all of that cost.
#
# </details>
#
# 2. You double the parameter tokens of every layer. By what factor do the forward FLOPs grow, when $T$ is very long?
#
# <details><summary>Answer</summary>
#
# By almost 1: $4LdT^2$ has no tokens in it. When $T$ is short and the vocabulary small, by almost 2.
#
# </details>
#
# 3. Three seeds give scratch minus grown as $0.004$, $0.011$ and $-0.002$. A colleague reports the mean, $+0.004$, as a win. What do you say?
#
# <details><summary>Answer</summary>
#
# Within noise: one seed of three says the opposite. Neither a win nor a loss has been shown; more seeds, or a claim with a wider threshold, may decide.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, arXiv 2410.23168: sections 4.1 and 4.3; tables 3, 6, 7, 8 and 9.
# - The release, github.com/Haiyang-W/TokenFormer: issue #12 (table 3); the figure of training cost in its README.
# - Chen, Goodfellow and Shlens, *Net2Net*, ICLR 2016: section 2.
# - Kaplan et al., *Scaling Laws for Neural Language Models*, 2020: section 2.1 (what to count).
# - The experiment: `figures/cost_curves.py`, its predictions and verdict [`cost_curves.md`](../figures/cost_curves.md).
#
# **Next**: lesson 08 moves the model to a GPU, where FLOPs are cheap and memory is not.
