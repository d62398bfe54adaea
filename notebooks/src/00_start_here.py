# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here
#
# A small network has read 34 plays of Shakespeare, one character at a time. In the next minutes it finishes a line
# for you. Then you make it twice as large while it runs, and it finishes the same line, letter for letter.
#
# **You will be able to**
#
# - run a lesson, and change it without fear
# - read a shape
# - load a trained TokenFormer, let it write, and grow it
# - say in one sentence what "parameters are tokens" means
#
# **You need**: to have seen a NumPy array. Nothing else.
#
# **Minutes**: 10 to read, half of one to run. Equations covered: paper, eq. 4 and section 3.3, by example.

# %% [markdown]
# A gray box below is a *cell*: click it and press Shift+Enter to run it and go on. Change anything you like; the menu
# *Kernel*, *Restart Kernel and Run All Cells* runs the whole lesson again from the top.
#
# From lesson 01 on there are exercises. You write a function, say `f`; the cell under it, `f = check("f", f)`, says what is
# wrong with it, or that it is right. If you write nothing, the lesson goes on without you.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import count_parameters, forward, generate, grow, tree_items, tree_map
from minitf.checkpoint import load_training
from minitf.data import CharTokenizer
from minitf.plot import PALETTE, show, style

style()

# %% [markdown]
# ## 1 Load it
#
# A model is two things: a config (how large it is) and a nested dict of arrays (what it has learned). This one was
# trained by `figures/shakespeare_model.py`, in the same code that you will write in this course. We take float64 so
# that every machine writes the same text.

# %%
saved = load_training(Path("../figures/shakespeare_model.safetensors"))
config = saved.config
params = tree_map(lambda array: array.astype(np.float64), saved.params)
tokenizer = CharTokenizer.from_json(saved.extra["tokenizer"])
print(
    f"{count_parameters(config):,} parameters in {config.n_layers} blocks,",
    tokenizer.vocab_size,
    "characters",
)

# %% [markdown]
# ## 2 Let it finish a line
#
# **Predict**: it has seen only letters, never a dictionary or a grammar. Will it write words? Sentences? Sense?

# %%
PROMPT = "JULIET:\nO, "  # change me


def finish(params, config, n_new=120, seed=3):
    prompt = tokenizer.encode(PROMPT)
    ids = generate(params, prompt, n_new, config, temperature=0.6, seed=seed)
    return tokenizer.decode(ids)


line = finish(params, config)
print(line)

# %% [markdown]
# Mostly words, often grammar, no sense: 0.4 million numbers hold a lot of spelling and little else. It writes one
# character at a time. Each one is drawn from the probabilities that it gives to the 65 characters.

# %%
logits, _ = forward(params, tokenizer.encode(PROMPT), config)  # (T, 65)
last = np.exp(logits[-1] - logits[-1].max())
probability = last / last.sum()
for i in probability.argsort()[::-1][:5]:
    print(repr(tokenizer.decode([i])), f"{probability[i]:.2f}")

# %% [markdown]
# ## 3 Read a shape
#
# An array is a box of numbers, and its *shape* says how long its sides are. The text above is $T$ characters; inside,
# every character is a row of $d$ numbers, called a **token**. So the text is an array of shape $(T, d)$.
#
# Now look at what one layer of the model has learned:

# %%
print(f"T = {len(PROMPT)} tokens, d = {config.d_model} numbers each")
for name, array in tree_items(params["block_0"]["ffn"]):
    print(f"{name:6} {array.shape}")

# %% [markdown]
# Two arrays, $n$ rows each. Row $i$ of `key` and row $i$ of `value` belong together, and they are as wide as a token
# of the text. **The parameters are tokens too.** That is the whole idea:
#
# 1. a text token is compared with all $n$ keys, which gives $n$ scores: shapes $(T, d) \times (d, n) \to (T, n)$;
# 2. a function called $\Theta$ turns scores into weights, still $(T, n)$;
# 3. the weights mix the $n$ values into one row per text token: $(T, n) \times (n, d) \to (T, d)$.
#
# $$\mathrm{Pattention}(X, K, V) = \Theta(X K^\top)\, V$$
#
# Look at $n$: it is summed away. What goes in is $(T, d)$, what comes out is $(T, d)$, and $n$ can be any number. An
# ordinary weight matrix has no such side; to make it larger, you must change what goes in or what comes out.
#
# ## 4 Grow it
#
# So let us append tokens. `grow` adds rows to every key and value array: new keys of zeros, new values at random.
# **Predict**: almost two hundred thousand random numbers have just been put into the model. Does it still write the
# same line?

# %%
size = {
    "attention_tokens": 2 * config.attention_tokens,
    "ffn_tokens": 2 * config.ffn_tokens,
}
grown, grown_config = grow(params, config, **size, key="zero", value="normal", tau="hold")
print(f"{count_parameters(config):,} -> {count_parameters(grown_config):,} parameters")
print(finish(grown, grown_config))

# %%
assert finish(grown, grown_config) == line
old, _ = forward(params, tokenizer.encode(PROMPT), config)
new, _ = forward(grown, tokenizer.encode(PROMPT), grown_config)
print(
    "letter for letter the same; largest change of a score below 1e-12:",
    np.abs(new - old).max() < 1e-12,
)

# %% [markdown]
# **Explain**: a key of zeros gives the score $0$ to every text token, and $\Theta$ gives a score of $0$ the weight $0$.
# The new values are random, but nobody asks for them yet. Training can now move the new keys away from zero, and the
# model has twice the room. It does not start over: that is what the paper is about.
#
# ## 5 Break it
#
# $\Theta$ has one number to get right. It divides the scores by their length and multiplies them by $\tau$, which is
# $\sqrt n$ when a model is born. If $\tau$ follows the new $n$, as it does in the released code, every old score is
# stretched too.

# %%
stretched, stretched_config = grow(
    params, config, **size, key="zero", value="normal", tau="rescale"
)
print(finish(stretched, stretched_config))

# %%
assert finish(stretched, stretched_config) != line
print("another line: tau has changed what the old tokens say")

# %% [markdown]
# Is holding $\tau$ always better, then? No, and that is one of the better stories of this course: a $\tau$ that is held
# for ever starves the new tokens. You will see it measured, and mended.
#
# ## 6 The same thing as a picture
#
# The probabilities of the character after the prompt, from the three models.


# %%
def next_character(params, config):
    logits, _ = forward(params, tokenizer.encode(PROMPT), config)
    exp = np.exp(logits[-1] - logits[-1].max())
    return exp / exp.sum()


# %%
models = {
    "trained": (params, config),
    "grown, tau held": (grown, grown_config),
    "grown, tau rescaled": (stretched, stretched_config),
}
rows = np.array([next_character(*model) for model in models.values()])
top = rows[0].argsort()[::-1][:8]

# %%
moved = [np.abs(row - rows[0]).max() for row in rows]
digest = f"top three {tokenizer.decode(top[:3])!r}; trained and held equal: "
digest += f"{moved[1] < 1e-12}; rescaled moves by {moved[2]:.2f}"
alt = "Bars of the probabilities of the eight likeliest next characters, for the trained model, "
alt += "the model grown with tau held and the model grown with tau rescaled. The first two bars are "
alt += "equal everywhere; the third differs."

# %%
fig, ax = plt.subplots(figsize=(7.5, 3.4))
for i, (name, row) in enumerate(zip(models, rows, strict=True)):
    look = {"label": name, "color": PALETTE[i + 1], "hatch": ("", "//", "..")[i]}
    ax.bar(np.arange(8) + 0.27 * (i - 1), row[top], 0.25, **look)
ax.set_xticks(np.arange(8), [repr(tokenizer.decode([i])) for i in top])
ax.set(xlabel=f"next character after {PROMPT!r}", ylabel="probability")
ax.legend()
show(fig, alt=alt, digest=digest)

# %% [markdown]
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | new keys | zero (section 3.3), random in its large runs (4.1) | random (`checkpointing.py`, 414-427) | zero, unless asked |
# > | $\tau$ after growing | fixed in the proof (appendix B) | $\sqrt n$ of the new $n$ (`tokenformer.py`, 96-99) | held, unless asked |
# > | a row of scores that is all zero | not defined | NaN | weights of zero |

# %% [markdown]
# ## Where to go from here
#
# ![The parts of a TokenFormer from the characters to the loss, with the lesson that builds each: 01 attention, 02 the Pattentions, 03 the normalizer inside them, 04 the gradients, 05 the whole model, 06 how it grows, 07 what it costs, 08 how it moves to a GPU, 09 what is inside the tokens, 10 images instead of characters, 11 open questions, 00 this page.](../figures/course_map.png)
#
# - **01 Compute attention by hand**: tokens that look at tokens, from three keys on paper to a causal head.
# - **02 Turn a weight matrix into tokens**: Pattention by hand, beside the linear layer, the MLP and attention.
# - **03 Choose a normalizer**: what $\Theta$ has to do, six candidates, and why $\sqrt n$.
# - **04 Backpropagate by hand**: every gradient, derived and then proved right.
# - **05 Train a tiny TokenFormer**: assemble it, train it beside a Transformer, and judge the result.
# - **06 Grow without forgetting**: when a grown model is the old one, exactly, and when it learns more.
# - **07 Count the cost**: parameters, FLOPs, and a verdict on what the paper promises.
# - **08 Move it to the GPU**: the same code on other arrays, and what a fused kernel saves.
# - **09 Look inside parameter tokens**: which tokens fire, and which matter.
# - **10 Go beyond text**: the same blocks read pictures.
# - **11 Ask open questions**: the five hopes at the end of the paper, each with an experiment that can say no.
#
# Names of the paper, of the released code and of this course stand side by side in the [glossary](GLOSSARY.md).

# %% [markdown]
# ## Summary
#
# - A token is a row of $d$ numbers. A TokenFormer's parameters are such rows too, in pairs of key and value.
# - The number of parameter tokens $n$ does not show in what goes in or comes out of a layer, so it can grow.
# - Zero keys and a $\tau$ that is held: the grown model is the old one, exactly, with room to learn.
#
# ## Quiz
#
# 1. A layer has `key` of shape (288, 96) and `value` of shape (288, 96). The text has 50 characters. What is the shape
#    of the scores, and of what comes out?
#
# <details><summary>Answer</summary>
#
# Scores (50, 288): one per text token and parameter token. Out comes (50, 96), the same shape as went in.
#
# </details>
#
# 2. Why can you not append rows to an ordinary weight matrix $W$ of shape (96, 96) in the same way?
#
# <details><summary>Answer</summary>
#
# Each row of $W$ makes one number of the output. A row more, and every token that comes out has 97 numbers; the next
# layer expects 96.
#
# </details>
#
# 3. After the growth, nobody uses the new values. What has to change first so that they are used?
#
# <details><summary>Answer</summary>
#
# Their keys. A key that is no longer zero gives scores that are not zero, and then the value gets weight. Lesson 04
# shows that the gradient of the new keys is not zero, because the new values are not.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer: Rethinking Transformer Scaling with Tokenized Model Parameters*, arXiv 2410.23168,
#   sections 3.2 and 3.3.
#
# **Next**: lesson 01; or lesson 02, if you know attention.
