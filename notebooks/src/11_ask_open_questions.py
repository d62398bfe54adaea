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
# # Ask open questions
#
# The paper ends with five hopes and no experiment for any of them: tokens as experts, new tokens for new tasks, merged models, a device that holds a
# part, parameters that can be read. Here each gets the smallest experiment that could have said no. Some did.
#
# **You will be able to**
# - turn a hope into a claim with a number, a rival and a way to fail
# - choose the best $k$ tokens for every row, and say what that can save at most
# - say what freezing tokens keeps, and what it does not
# - measure how selective a unit is, and against what
#
# **You need**
# - lessons 02, 04 and 06; verdicts from lesson 07, units from lesson 09
#
# **Minutes** 40 to read and code, 1 to run
#
# **Equations covered** section 5 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168), by experiment

# %%
import importlib
import json
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf.checks import check
from minitf.laboratory.verdict import judge, mean
from minitf.plot import PALETTE, show, style

style()
np.set_printoptions(precision=2, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# Every experiment has three seeds, a rival that could win, and a page with the claims that were committed before the run. All were trained on small models
# in minutes; `python figures/top_k.py` and its sisters do it again. This reads what they stored:

# %%
sys.path.append("../figures")
NAMES = "top_k", "transfer", "merge", "device_cloud", "specialists"
verdicts = {}
for name in NAMES:
    script = importlib.import_module(name)
    measured = json.loads(Path(f"../figures/{name}.json").read_text(encoding="utf-8"))
    verdicts[name] = judge(script.CLAIMS, script.Results(measured))


def answers(name):
    for claim, values, word in verdicts[name]:
        if claim.headline:
            text = f"{word}: {claim.text} ({claim.quantity}: {mean(values)})"
            print(textwrap.fill(text, 88, subsequent_indent="    "))


# %% [markdown]
# ## 1. Is a parameter token an expert?
#
# A mixture of experts asks a few of many. Pattention scores all its tokens anyway, so let every row use only the $k$ that it scores highest:
# $\text{out} = \Theta(x K_S^\top)\, V_S$, where $S$ are the $k$ best for this row and $\tau = \sqrt k$.
#
# **Predict.** By hand: a row has the scores $3, -1, 4, 2$ and $k = 2$. Which tokens does it use, and what is the length that $\Theta$ divides by?

# %%
scores = np.array([[3.0, -1.0, 4.0, 2.0], [0.0, 5.0, 1.0, 6.0]])
print("row 1 uses", [3.0, 4.0], "length", (3.0**2 + 4.0**2) ** 0.5)


# %% [markdown]
# **Code.** Each row has a choice of its own.
#
# > **Exercise 11.1: `choose`** · difficulty ●●○○○ · importance ●●●○○ · 6 minutes; open the solution after 12
# >
# > True for the $k$ highest scores of every row. No two scores of a row are equal.


# %%
def choose(scores, k):
    """scores (rows, n), 1 <= k <= n -> bool (rows, n), k times True in every row."""
    ...


# %%
choose = check("choose", choose)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Sort a copy of each row. The $k$-th largest score is a threshold.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# sorted (rows, n), the $k$-th column from the end as (rows, 1), compared with (rows, n).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def choose(scores, k):
#     return scores >= np.sort(scores, axis=-1)[:, [-k]]
# ```
#
# </details>
#
# **Check** against the library, as a loop over rows: each row is an ordinary Pattention of its own $k$ tokens.

# %%
x, key, value = (rng.standard_normal(shape) for shape in ((5, 4), (8, 4), (8, 3)))
used = choose(x @ key.T, 3)
rows = [
    minitf.pattention_forward(x[t : t + 1], key[used[t]], value[used[t]])[0]
    for t in range(5)
]
library, cache = minitf.top_k_pattention_forward(x, key, value, k=3)
print("loop = library:", np.abs(np.concatenate(rows) - library).max() < 1e-12)
_, dkey, dvalue = minitf.top_k_pattention_backward(np.ones_like(library), cache)
print("tokens that somebody chose", used.any(axis=0).astype(int))
print("tokens with a gradient    ", (np.abs(dvalue).max(axis=1) > 0).astype(int))

# %% [markdown]
# **Explain.** The choice is constant in the backward: a token that nobody chose learns nothing.
#
# **Derive** what $k$ of $n$ can save. Dense, a row costs three products with $K$ and three with $V$, forward and backward: $12\,n d$ FLOPs. To choose, all $n$
# keys must be scored, $2nd$; the other five products need $k$ tokens: $(2n + 10k)\,d$. For $k \to 0$ that is a sixth, never less.
#
# **Predict.** At equal FLOPs, 64 of 256 tokens against a dense layer of 96: which is better? And does NumPy run the choice any faster?

# %%
answers("top_k")

# %% [markdown]
# ![Loss, load and time of a feed-forward layer that uses its best k tokens](../figures/top_k.png)
#
# **Explain.** At equal FLOPs the best 64 of 256 are ahead in the mean and not in every seed: within noise. The best 16 or 4 are not ahead. The fewer are chosen, the more tokens nobody
# ever chooses: three quarters, at 4 of 256. And the FLOPs are saved on paper: in NumPy choosing 64 of 256 takes longer than multiplying everything. Only 16 of 2,048 save time, a quarter, where
# FLOPs fall to a sixth.
#
# ## 2. Can new tokens alone move a model?
#
# A model has read tragedies and is to read histories. Train all of it, and the tragedies may suffer. Or append tokens and train only those: the old ones stay,
# and the new ones can be taken off again.
#
# **Predict.** Two old tokens, and a third with a zero key, $\tau$ held. Does its key get a gradient? Once the key has moved, do the *weights* of the old
# tokens change?

# %%
x, key, value = np.array([[3.0, 4.0]]), np.eye(2), np.array([[1.0], [10.0]])
longer = np.vstack([key, np.zeros((1, 2))]), np.vstack([value, [[7.0]]])
for moved in (0.0, 1.0):
    longer[0][2, 0] = moved
    out, cache = minitf.pattention_forward(x, *longer, tau=5.0)
    _, dkey, _ = minitf.pattention_backward(np.ones((1, 1)), cache)
    print(f"new key ({moved:.0f}, 0): weights {cache.weights[0]}, its gradient {dkey[2]}")

# %% [markdown]
# **Explain.** The key learns at once, since GeLU has the slope one half at 0. And all three scores share one length: a louder new token makes the old ones
# quieter. *Frozen* are the numbers, not what they do. The whole model is two trees; the optimizer sees the small one.

# %%
sizes = {
    "n_layers": 2,
    "d_model": 32,
    "n_heads": 2,
    "attention_tokens": 16,
    "ffn_tokens": 64,
}
config = minitf.TokenformerConfig(65, 64, **sizes)
params = minitf.init_params(config)
new, joined = minitf.append_tokens(params, config, attention_tokens=2, ffn_tokens=8)
count = [sum(array.size for _, array in minitf.tree_items(tree)) for tree in (params, new)]
back, _ = minitf.remove_tokens(minitf.join(params, new), joined, config)
pairs = zip(minitf.tree_items(params), minitf.tree_items(back), strict=True)
print(f"{count[0]:,} old parameters, {count[1]:,} new ones to train")
print(
    "taken off, bit for bit the old model:", all((a == b).all() for (_, a), (_, b) in pairs)
)

# %% [markdown]
# The rival is LoRA (Hu et al., 2022): a matrix $W$ becomes $W + BA$, with few columns in $B$ and few rows in $A$, here as many parameters as the new tokens have.
# **Predict** who comes nearer to training everything, and who forgets the tragedies.

# %%
answers("transfer")

# %% [markdown]
# ![Loss on held-out tragedies and histories after moving a model by new tokens, LoRA or all parameters](../figures/transfer.png)
#
# **Explain.** The hope holds. With a seventh of the parameters new tokens bring most of what training everything brings, as much as LoRA does. They
# forget less than training everything at its best rate; at a smaller rate that forgets little, too. What is sure: taking them off restores the model exactly.
#
# ## 3. Can two models be merged by their tokens?
#
# One model reads text, another one digits, on the same width. Put their tokens side by side, add new ones that align the two, show a picture as prefix, and ask
# for "seven".
#
# **Predict.** A layer of two tokens becomes one of four. A row has the scores $(3, 4)$ with the first two and $(0, 5)$ with the others. What becomes of the
# output?

# %%
x, tau = np.array([[3.0, 4.0]]), 2**0.5
text = np.eye(2), np.array([[1.0], [10.0]])
image = np.array([[4.0, -3.0], [0.6, 0.8]]), np.array([[100.0], [1000.0]])
key, value = (np.concatenate(pair) for pair in zip(text, image, strict=True))
silent = np.concatenate([text[1], 0 * image[1]])
mask = np.array([[True, True, False, False]])
for name, v, t, m in (("text alone", value, tau, mask), ("both", value, 2.0, None),
                      ("both, image values 0", silent, 2.0, None)):  # fmt: skip
    out, _ = minitf.pattention_forward(x, key, v, tau=t, mask=m)
    print(f"{name:21} {out.item():8.2f}")

# %% [markdown]
# **Explain.** Two things happen. The length now covers both groups, so the text's scores shrink by $|a_\text{text}| / |a|$; with $\tau = \sqrt 4$ and groups of
# equal size the factors cancel (last line). And the image's values come on top: its patterns fire on whatever comes. So norms of their own would cure nothing. A
# **mask** does: text reads text and new tokens, patches read image and new ones.

# %%
answers("merge")

# %% [markdown]
# ![Captions spelled right against training FLOPs, and what survives of the parents](../figures/merge.png)
#
# **Explain.** Masked, both parents are untouched at birth; plainly side by side, the text loss rises from 2.0 to 3.4 nats. But as a way to a captioner merging wins nothing that
# three seeds can tell from noise, and while the new tokens are in place the text parent is lost: they fire on text, too. Leave them out, and both parents are back.
#
# ## 4. One set of tokens for device and cloud
#
# A device holds the first $m$ tokens of every layer, a cloud all of them. **Nested dropout** trains for that: every step draws $m$ and trains this prefix alone.
#
# **Predict.** An ordinary model is cut to its first half. Can $\tau = \sqrt m$ save it?


# %%
def loss(params, config):
    return minitf.loss_and_grads(params, ids[None, :-1], ids[None, 1:], config)[0]


ids = rng.integers(0, 65, 65)
half, half_config = minitf.prefix(params, config, tokens=8)
print(
    "tokens of a layer:",
    len(params["block_0"]["ffn"]["key"]),
    "->",
    len(half["block_0"]["ffn"]["key"]),
)
print(
    "a view, no copy:",
    np.shares_memory(params["block_0"]["ffn"]["key"], half["block_0"]["ffn"]["key"]),
)
step_loss, grads = minitf.nested_loss_and_grads(
    params, ids[None, :-1], ids[None, 1:], config, tokens=8
)
print("loss of the step = loss of the prefix:", step_loss == loss(half, half_config))
print("gradient of dropped tokens:", np.abs(grads["block_0"]["ffn"]["key"][32:]).max())

# %% [markdown]
# **Explain.** A step trains the first 8 tokens and leaves the others alone. So the loss of an ordinary model, which never practiced this, is not saved by $\tau$: nobody asked
# its first half to work alone.
#
# Now the device has a prefix, and may send some positions to the cloud. **Predict**: should it ask where it is most *unsure*? Three characters, with the losses of both:

# %%
entropy = np.array([2.9, 1.5, 0.3])  # a name begins; the middle of a word; a "u" after "q"
device, cloud = np.array([3.0, 2.0, 0.1]), np.array([2.9, 1.0, 0.1])
for rule, score in (("unsure", entropy), ("gain", device - cloud)):
    asked = score == score.max()
    print(f"ask by {rule}: loss {np.where(asked, cloud, device).mean():.2f}")

# %% [markdown]
# Nobody can know how a name begins. Unsure is not the same as curable.

# %%
answers("device_cloud")

# %% [markdown]
# ![Loss against the prefix kept, and loss against the share of positions that ask the cloud](../figures/device_cloud.png)
#
# **Explain.** With the FLOPs of four trainings one set of tokens holds four models, each about as good as one trained alone: within noise. With those of one it does not, and cutting an ordinary
# model is hopeless. The surprise is the split: to ask where the device is unsure closes *less* of the gap than to ask at random. To ask where a linear guess expects a gain closes more, and two models trained apart do better still. And the
# cloud must read every character anyway, since the device's keys and values are no help to it: asking rarely saves answers, and little arithmetic.
#
# ## 5. Are parameter tokens specialists?
#
# The same question to tokens and to the neurons of a Transformer's MLP: **how far does the character decide whether you fire?** A unit *fires* at its own loudest
# share of all characters, so all fire equally often. Its **selectivity** is the mutual information of firing and character over the entropy of firing:
#
# $$\frac{H(F) - \sum_c p(c)\, H(F \mid c)}{H(F)}, \qquad H(F) = -p\log p - (1-p)\log(1-p), \quad p = p(\text{fires}).$$
#
# **Predict** it for three units on "abababab": one fires at every a, one at the first four characters, one at three of the four a.

# %%
letters = np.array([0, 1, 0, 1, 0, 1, 0, 1])
units = (
    np.array([[1, 0, 1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0, 0, 0]])
    > 0
)
print(minitf.selectivity(units.T, letters, n_labels=2))


def entropy(p):
    return -sum(q * np.log(q) for q in (p, 1 - p) if q > 0)


# %% [markdown]
# > **Exercise 11.2: `selectivity`** · difficulty ●●●○○ · importance ●●●○○ · 8 minutes; open the solution after 15
# >
# > Of one unit. `entropy` stands above and knows that $0 \log 0 = 0$. A unit that always or never fires has 0.


# %%
def selectivity(fires, labels):
    """fires: bool (rows,), labels: integers (rows,) -> a number from 0 to 1."""
    ...


# %%
selectivity = check("selectivity", selectivity)
print("by yours:", [round(float(selectivity(unit, letters)), 2) for unit in units])

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# For every label: how often does it come, and how often does the unit fire there?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `fires[labels == c].mean()` is one number, $p(\text{fires} \mid c)$; `(labels == c).mean()` is its weight.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def selectivity(fires, labels):
#     whole, left = entropy(fires.mean()), 0.0
#     for c in np.unique(labels):
#         left += (labels == c).mean() * entropy(fires[labels == c].mean())
#     return (whole - left) / whole if whole else 0.0
# ```
#
# </details>
#
# **Break it.** What does a number like 0.4 mean? Take units that have learned nothing: random keys, on an input that holds the character and nothing else.

# %%
ids = rng.integers(0, 20, 4000)
stream = rng.standard_normal((20, 16))[ids]
fires = minitf.loudest(stream @ rng.standard_normal((16, 100)), share=0.05)
for name, labels in (
    ("the characters", ids),
    ("shuffled characters", rng.permutation(ids)),
):
    print(f"random keys, {name}: {minitf.selectivity(fires, labels, 20).mean():.2f}")

# %% [markdown]
# **Explain.** A random key looks like a specialist, because its input is one. Trained units must be compared with random ones, never with zero.

# %%
answers("specialists")

# %% [markdown]
# ![Selectivity of tokens, neurons and random keys; what units fire for; what is lost without them](../figures/specialists.png)
#
# **Explain.** Tokens and neurons are alike, and hardly more selective than random keys for the character just read; what training adds is foresight, for the next one. Tokens that growth adds
# are *less* selective than the old ones: no specialists, and hardly missed. The hope fails, here.
#
# ## 6. The figure
#
# **See** how well we knew. Every bar counts the claims of one experiment: did they end as we had written down?


# %%
def count(name):
    """Predictions that were right, wrong, and within noise."""
    said = [
        (word, "holds" if claim.expected else "fails") for claim, _, word in verdicts[name]
    ]
    noise = sum(word == "within noise" for word, _ in said)
    right = sum(word == expected for word, expected in said)
    return right, len(said) - right - noise, noise


counts = np.array([count(name) for name in NAMES])
print(dict(zip(NAMES, counts.tolist(), strict=True)))

# %%
fig, ax = plt.subplots(figsize=(7.2, 3))
left = np.zeros(len(NAMES))
kinds = ("right", "wrong", "within noise")
for i, kind in enumerate(kinds):
    look = {"color": PALETTE[i + 1], "hatch": ("", "//", "..")[i], "edgecolor": "white"}
    ax.barh(NAMES, counts[:, i], left=left, label=kind, **look)
    left += counts[:, i]
ax.invert_yaxis()
ax.set(xlabel="claims")
ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.18))
alt = "Bars of the claims of five experiments, split into predictions that were right, wrong and within noise."
total = ", ".join(
    f"{kind} {number}" for kind, number in zip(kinds, counts.sum(axis=0), strict=True)
)
show(fig, alt=alt, digest=total)

# %% [markdown]
# **Explain.** Pilots had made us cautious, and so mostly right; and still every experiment has a claim that came out otherwise, or that three seeds cannot decide. Without the page from before,
# each result would now look obvious.
#
# **What this does not show.** Models a thousand times smaller than the paper's; one corpus; characters. Each page says what would change its verdict.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | tokens as experts | section 5, no experiment | no code | `top_k_pattention_forward`, `ffn_top_k` |
# > | new tokens for new tasks | section 5 | no code | `append_tokens`, `remove_tokens` |
# > | merging modalities | section 5 | no code | `merge_models` |
# > | device and cloud | first version only | no code; the author's words in issue #1 | `prefix`, `nested_loss_and_grads` |
# > | reading parameters | section 5 | no code | `selectivity`, `loudest` |
#
# ## Summary
#
# - A hope becomes an experiment by a number, a threshold, a rival and three seeds.
# - Choosing by score must score everything: top-$k$ saves five sixths at most.
# - Frozen tokens keep their numbers, not their effect; taking the new ones off brings the effect back.
# - Side by side, it is the other's values that disturb, more than the shared norm; a mask keeps them apart.
# - Compare a unit with a random one on the same input.
#
# ## Quiz
#
# 1. A colleague trains with the best 4 of 256 tokens and finds that most are never chosen. Why does that not mend itself?
#
# <details><summary>Answer</summary>
#
# A token that nobody chooses gets a gradient of zero, so its key stays where it is. Nothing here balances the load.
#
# </details>
#
# 2. You append tokens with zero keys, train only them, and take them off. Which $\tau$ must the restored model have, and why does the release's choice fail?
#
# <details><summary>Answer</summary>
#
# The old one, $\sqrt{n_\text{old}}$, held all the time. Had $\tau$ followed $n$, the old tokens would have said something else from the first step on, and training would have built on that.
#
# </details>
#
# 3. A unit has the selectivity 0.45 for the character just read. Is it a specialist?
#
# <details><summary>Answer</summary>
#
# That number alone cannot tell. Random keys on the same input had about as much.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, arXiv 2410.23168: section 5.
# - Hu et al., *LoRA*, ICLR 2022: section 4.1.
# - Rippel, Gelbart and Adams, *Learning Ordered Representations with Nested Dropout*, ICML 2014: section 2.
# - Shazeer et al., *Outrageously Large Neural Networks*, ICLR 2017: section 2.1.
#
# The pages of the experiments: [top_k](../figures/top_k.md), [transfer](../figures/transfer.md), [merge](../figures/merge.md),
# [device_cloud](../figures/device_cloud.md), [specialists](../figures/specialists.md).
#
# **Next**: a question of your own. Copy a script of `figures/`, write your claims first, and let it say no.
