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
# # Grow a network without forgetting
#
# A trained layer gets more parameter tokens. You prove when its output stays the same, break the proof with one number,
# mend it, and find that an exact birth is only half of the story.
#
# **You will be able to**
# - prove that zero keys with $\tau$ held change nothing, and copies with $\tau$ rescaled neither
# - grow a layer in three lines
# - tell which new tokens learn, which are dead, and which stay twins
# - weigh an exact birth against room to learn, by an experiment with three seeds
#
# **You need**
# - lessons 02 and 04; the training loop of lesson 05
#
# **Minutes** 50 to read, 1 to run
#
# **Equations covered** 4 and 16, section 3.3 and appendix B of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168)

# %%
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf import pattention_backward, pattention_forward
from minitf.checks import check
from minitf.data import CharTokenizer, load_shakespeare
from minitf.laboratory.run import no_bars
from minitf.plot import PALETTE, band, show, slider, style
from minitf.train import TrainConfig, evaluate, progress, train_model

style()
np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. Prove it: a key of zeros
#
# We append a token to the layer of lesson 04: input $(2, 1)$, keys $(2, -1)$ and $(1, 2)$, scores $(3, 4)$, length 5. The new key is
# $(0, 0)$, the new value a loud 100.
#
# **Predict.** Which change: the old scores, the length, the old weights, the output?

# %%
x, tau = np.array([[2.0, 1.0]]), math.sqrt(2)
key, value = np.array([[2.0, -1.0], [1.0, 2.0]]), np.array([[1.0], [10.0]])
grown_key = np.array([[2.0, -1.0], [1.0, 2.0], [0.0, 0.0]])
grown_value = np.array([[1.0], [10.0], [100.0]])
for k, v in ((key, value), (grown_key, grown_value)):
    out, cache = pattention_forward(x, k, v, tau=tau)
    (a,), (w,) = cache.scores, cache.weights
    print("scores", a, "length", np.linalg.norm(a), "weights", w, "output", out[0])

# %% [markdown]
# **Derive.** Append $m$ zero keys below $K$ and any values $V'$ below $V$. Let $a$ be a row of $XK^\top$. Step by step:
#
# | | before | after |
# |---|---|---|
# | scores | $a$ | $(a, 0)$, since $x \cdot 0 = 0$ |
# | length | $\lvert a\rvert$ | $\sqrt{\sum_i a_i^2 + m \cdot 0^2} = \lvert a\rvert$ |
# | $z$ | $\tau a/\lvert a\rvert$ | $(\tau' a/\lvert a\rvert,\; 0)$ |
# | weights | $\text{GeLU}(\tau a/\lvert a\rvert)$ | $(\text{GeLU}(\tau' a/\lvert a\rvert),\; 0)$, since $\text{GeLU}(0) = 0$ |
# | output | $\text{GeLU}(\tau a/\lvert a\rvert)\,V$ | $\text{GeLU}(\tau' a/\lvert a\rvert)\,V + 0\,V'$ |
#
# The two outputs are equal for every input if $\tau' = \tau$. So $\tau$ must be **held** at the $\sqrt n$ of its birth. $V'$ is free. $\blacksquare$
#
# **Code** it, first as a loop, one token at a time. (`change` is for later.)


# %%
def grow_loop(key, value, new_value):
    for v in new_value:
        key = np.append(key, [np.zeros(key.shape[1])], axis=0)
        value = np.append(value, [v], axis=0)
    return key, value


def change(key2, value2, tau2, kind="l2_norm_gelu"):
    """How far the output of the layer below moves, relative to its size."""
    old, _ = pattention_forward(X, key, value, kind, tau)
    new, _ = pattention_forward(X, key2, value2, kind, tau2)
    return np.linalg.norm(new - old) / np.linalg.norm(old)


# %% [markdown]
# > **Exercise 06.1: `grow_layer`** · difficulty ●●○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > Append `len(new_value)` tokens at once, without a loop. Return the grown key, the grown value and the $\tau$ that the grown layer needs.
#
# **Check** it, and the theorem, on a layer of 8 tokens that meets 32 inputs.


# %%
def grow_layer(key, value, tau, new_value):
    """key (n, d_in), value (n, d_out), new_value (m, d_out) -> key, value, tau."""
    ...


# %%
grow_layer = check("grow_layer", grow_layer)
X, key, value = (rng.standard_normal(shape) for shape in ((32, 6), (8, 6), (8, 6)))
tau = math.sqrt(8)
for m in (1, 1000):
    moved = change(*grow_layer(key, value, tau, rng.standard_normal((m, 6))))
    print(f"{m:4} new tokens: the output moved by less than 1e-12: {moved < 1e-12}")

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which rows of the table above made the proof work? Write these rows, in the dtype that `key` has.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# New keys are (m, d_in), below the (n, d_in) old ones: (n + m, d_in). Values: (n + m, d_out). $\tau$ is one number.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def grow_layer(key, value, tau, new_value):
#     new_key = np.zeros((len(new_value), key.shape[1]), key.dtype)
#     return np.concatenate([key, new_key]), np.concatenate([value, new_value]), tau
# ```
#
# </details>
#
# ## 2. Break it: tau
#
# The release computes $\tau = \sqrt{n + m}$ anew after growing. **Predict** by how many percent the output of our layer changes when $n$ doubles.
# **Break it**:

# %%
for m in (1, 8, 56):
    k, v, _ = grow_layer(key, value, tau, rng.standard_normal((m, 6)))
    print(f"{m:2} new tokens, tau rescaled: moved by {change(k, v, math.sqrt(8 + m)):.0%}")

# %% [markdown]
# **Explain.** Every $z$ is stretched by $\sqrt{(n+m)/n}$. GeLU is no straight line: small and large weights grow by different factors, so no factor in the values can undo it.
# The paper's proof (appendix B) fixes $\tau$. Its large runs and the release do not, and the author expects that "the loss will increase at the beginning" (issue #11).
#
# **See** the weights of one input, before and after. In JupyterLab, move the slider and press the buttons: which $\tau$ keeps the old weights, whatever the number of new tokens?


# %%
def draw(new_tokens, tau_is):
    k, v, _ = grow_layer(key, value, tau, np.ones((new_tokens, 6)))
    new_tau = {"rescaled": math.sqrt(len(k)), "held": tau, "halved": tau / 2}[tau_is]
    before = pattention_forward(X, key, value, tau=tau)[1].weights[0]
    after = pattention_forward(X, k, v, tau=new_tau)[1].weights[0]
    fig, ax = plt.subplots(figsize=(7.5, 3))
    ax.bar(np.arange(8) - 0.2, before, 0.4, color=PALETTE[1], label="before")
    ax.bar(np.arange(len(k)) + 0.2, after, 0.4, color=PALETTE[2], hatch="//", label="after")
    ax.set(title=f"the output moved by {change(k, v, new_tau):.0%}")
    ax.set(xlabel="parameter token", ylabel="weight")
    ax.legend()
    return fig


# %%
alt = "Bars of the weights of 8 old and 8 new parameter tokens for one input, before and after "
alt += "growing with tau rescaled. The new ones are 0. The positive old ones became larger."
grown_key, grown_value, _ = grow_layer(key, value, tau, np.ones((8, 6)))
digest = f"the output moved by {change(grown_key, grown_value, 4.0):.0%}"
slider(draw, alt, digest, new_tokens=[8, 24, 56], tau_is=["rescaled", "held", "halved"])

# %% [markdown]
# ### Which normalizers can grow?
#
# The proof used two facts about $\Theta$: zeros do not change the norm, and a score of 0 gets the weight 0. **Predict** which of lesson 03's kinds
# have both.

# %%
k, v, _ = grow_layer(key, value, tau, rng.standard_normal((8, 6)))
for kind in minitf.pattention.KINDS:
    held, rescaled = change(k, v, tau, kind), change(k, v, 4.0, kind)
    print(f"{kind:13}  tau held {held:4.0%}   tau rescaled {rescaled:4.0%}")

# %% [markdown]
# **Explain.** Softmax fails twice: a score of 0 gets the weight $e^0/\sum_j e^{a_j}$, never 0, and it makes the sum larger. `gelu` has no norm
# and no $\tau$: an MLP can always grow. `gelu_l2_norm` multiplies by $\tau$ last, so its output is stretched by exactly $\sqrt{16/8} = 1.41$.
#
# ## 3. Dead, alive
#
# The new values are free. **Predict**: is $V' = 0$ a good choice? Lesson 04 derived, for a token with $k_i = 0$:
#
# $$dv_i = \sum_t w_{ti}\, d\text{out}_t = 0, \qquad dk_i = \sum_t \frac{\tau}{2\lvert a_t\rvert}\,(d\text{out}_t \cdot v_i)\, x_t.$$
#
# We let our layer learn a random target by plain gradient descent, then grow it and let it go on.

# %%
TARGET = rng.standard_normal((32, 6))


def learn(key, value, tau, frozen=0, steps=300, lr=0.01):
    """Gradient descent on half the squared error; `frozen` tokens stay as they are."""
    for _ in range(steps):
        out, cache = pattention_forward(X, key, value, tau=tau)
        _, dkey, dvalue = pattention_backward(out - TARGET, cache)
        dkey[:frozen], dvalue[:frozen] = 0, 0
        key, value = key - lr * dkey, value - lr * dvalue
    error = ((pattention_forward(X, key, value, tau=tau)[0] - TARGET) ** 2).mean()
    return key, value, error


# %%
old_key, old_value, error = learn(key, value, tau)
print(f"trained: error {error:.3f}")
print(f"trained on, not grown: error {learn(old_key, old_value, tau)[2]:.3f}")
for name, size in {"zero": 0.0, "random": 1.0}.items():
    new_value = size * rng.standard_normal((8, 6))
    k, _, error = learn(*grow_layer(old_key, old_value, tau, new_value))
    moved = np.abs(k[8:]).max()
    print(f"grown, V' {name:6}: error {error:.3f}, new keys moved {moved:.2f}")

# %% [markdown]
# **Explain.** With $V' = 0$ both gradients are exactly zero, now and at every later step: the tokens are **dead**, and the grown layer learns what the small one would. It passes
# every test of exactness; two re-implementations and a switch of the TPU code have it. With random $V'$ the keys move first, then the weights are not zero and the values follow.
#
# Readers asked whether the old parameters are frozen (issue #15). In the release they are not; the author found that training all is slightly better and less stable. Here:

# %%
for frozen in (0, 8):
    error = learn(*grow_layer(old_key, old_value, tau, new_value), frozen)[2]
    print(f"{frozen} old tokens frozen: error {error:.3f}")

# %% [markdown]
# Freezing keeps the old *tokens*, not the old *output*: once a new score is not zero, the length grows and every old weight shrinks.
#
# ## 4. Mend it: copies
#
# Zero keys need $\tau$ held. Copies are another exact birth, and they need $\tau$ rescaled.
#
# **Derive.** Take every token twice. A row of scores becomes $(a, a)$, its length $\sqrt{2\lvert a\rvert^2} = \sqrt 2\,\lvert a\rvert$.
#
# $$z = \tau'\,\frac{(a, a)}{\sqrt 2\,\lvert a\rvert} \quad\text{is the old } z \text{, twice, if } \tau' = \sqrt 2\,\tau;\quad\text{for } \tau = \sqrt n \text{ that is } \sqrt{2n}.$$
#
# The weights are the old ones twice, $(w, w)$, and the output is $w V_1 + w V_2 = w(V_1 + V_2)$. So any $V_1 + V_2 = V$ will do: $V/2 + U$ and $V/2 - U$. $\blacksquare$
#
# > **Exercise 06.2: `split_layer`** · difficulty ●●○○○ · importance ●●●●○ · 5 minutes; open the solution after 10
# >
# > Return key, value and $\tau$ of the layer with every token twice: first all of them, then all copies. `noise` is $U$.
#
# **Predict.** Both births below are exact. After training, how far are the keys of a token and of its copy apart, without noise and with it?


# %%
def split_layer(key, value, tau, noise):
    """key (n, d_in), value and noise (n, d_out) -> key, value, tau of 2n tokens."""
    ...


# %%
split_layer = check("split_layer", split_layer)
for size in (0.0, 1.0):
    noise = size * rng.standard_normal(value.shape)
    exact = change(*split_layer(key, value, tau, noise)) < 1e-12
    k, _, error = learn(*split_layer(old_key, old_value, tau, noise))
    apart = np.abs(k[:8] - k[8:]).max()
    print(f"noise {size}: exact {exact}, keys {apart:.2f} apart, error {error:.3f}")

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Three lines of the derivation, three things to return. Where is the noise added, and where is it taken away?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (2n, d_in) and (2n, d_out). Row $i$ and row $n + i$ have the same key, and their values sum to the old value $i$.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def split_layer(key, value, tau, noise):
#     values = np.concatenate([value / 2 + noise, value / 2 - noise])
#     return np.concatenate([key, key]), values, math.sqrt(2) * tau
# ```
#
# </details>
#
# **Explain.** Equal key and equal value get equal scores, equal weights, equal gradients, and so an equal step: **twins**, for ever. 16 tokens
# do the work of 8. Noise in the values makes the gradients of the keys differ, since $dk_i$ contains $v_i$, and from then on everything differs.
#
# ## 5. Exact at birth, or room to learn?
#
# **Derive.** $z = \tau u$, and $u$ has length 1, so $\sum_i z_i^2 = \tau^2$. Once the new tokens score like the old ones, a typical $z$ is
#
# $$\sqrt{\frac{\tau^2}{n + m}} = \sqrt{\frac{n}{n+m}} \quad (\tau = \sqrt n \text{ held}), \qquad 1 \quad (\tau = \sqrt{n+m}).$$
#
# Held for ever, a fixed sum of squares is shared by more and more tokens. And near 0, by Taylor's series, $\Phi(z) = \tfrac12 + \tfrac{1}{\sqrt{2\pi}} z + \dots$, so $\text{GeLU}(z) = z\,\Phi(z)$ is almost
# $z/2$. Then the layer is $\tfrac{\tau}{2\lvert a\rvert}\, x K^\top V$: a number times *one* matrix $K^\top V$, and $d$ tokens are enough for any such matrix.
#
# **Predict** the share of the weights that the straight line $z/2$ explains, at 8 times the tokens.

# %%
print("tokens   tau   typical z   share of the weights not on the line z/2")
for n in (8, 64, 512):
    scores = rng.standard_normal((1000, n))
    for t in sorted({math.sqrt(8), math.sqrt(n)}):
        weights, cache = minitf.theta_forward(scores, tau=t)
        z = t * cache.normed
        bent = np.linalg.norm(weights - z / 2) / np.linalg.norm(weights)
        print(f"{n:6} {t:5.1f}   {np.sqrt((z**2).mean()):9.2f}   {bent:.0%}")

# %% [markdown]
# **Explain.** Exactness holds at one moment; room is needed afterwards. So: hold $\tau$ at birth, then move it to $\sqrt{n+m}$ *while the model trains* and can adapt.
#
# > **Exercise 06.3: `tau_at`** · difficulty ●○○○○ · importance ●●●●○ · 3 minutes; open the solution after 6
# >
# > $\tau$ at a progress of 0 is `tau_born`, at 1 it is $\sqrt n$ of the grown layer, between them a straight line. After 1 it stays. The library's `anneal_tau` does that for every layer of a model.


# %%
def tau_at(progress, tau_born, n):
    """progress >= 0, tau_born, n tokens after growing -> tau."""
    ...


# %%
tau_at = check("tau_at", tau_at)
sizes = {"d_model": 32, "n_heads": 4, "attention_tokens": 25, "ffn_tokens": 100}
small = minitf.TokenformerConfig(vocab_size=65, context=32, n_layers=1, **sizes)
params = minitf.init_params(small, dtype=np.float64)
_, config = minitf.grow(params, small, ffn_tokens=400, key="zero", tau="hold")
for share in (0.0, 0.5, 1.0):
    library = minitf.anneal_tau(config, share).tau("ffn")
    print(f"progress {share}: tau {tau_at(share, 10.0, 400)}, library {library}")

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A straight line is a mix of its two ends.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# Three numbers in, one number out. First cap the progress at 1.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def tau_at(progress, tau_born, n):
#     progress = min(progress, 1.0)
#     return (1 - progress) * tau_born + progress * math.sqrt(n)
# ```
#
# </details>
#
# ## 6. What the optimizer keeps
#
# AdamW keeps two running means per parameter, $m$ of $g$ and $v$ of $g^2$. `grow_state` keeps those of the old rows and starts new rows at zero.
# The step count $t$ stays large, so the corrections $1 - \beta^t$ are 1, for new rows too.
#
# **Derive.** Let a new row see the same gradient $g$ at every step. After $k$ steps $m = (1 - \beta_1^k)\,g$ and $v = (1 - \beta_2^k)\,g^2$, so it moves by
#
# $$\eta\,\frac{m}{\sqrt v} = \pm\,\eta\,\frac{1 - \beta_1^k}{\sqrt{1 - \beta_2^k}}.$$
#
# **Predict**: more than $\eta$ or less, at the first step? ($\beta_1 = 0.9$, $\beta_2 = 0.95$.)

# %%
zeros = {"key": np.zeros((8, 6))}
state = {"step": 1000, "m": zeros, "v": zeros}
tree = {"key": np.zeros((10, 6))}  # two rows more than the moments know
state = minitf.grow_state(state, tree)
for k in range(1, 41):
    before = tree["key"][9, 0]
    ones = {"key": np.ones((10, 6))}
    tree, state = minitf.adamw_step(tree, ones, state, lr=1.0, weight_decay=0.0)
    moved, formula = before - tree["key"][9, 0], (1 - 0.9**k) / math.sqrt(1 - 0.95**k)
    if k in (1, 2, 5, 20, 40):
        print(f"step {k:2}: moved {moved:.3f} eta, formula {formula:.3f}")

# %% [markdown]
# **Explain.** New rows start at 0.45 of the learning rate and overshoot it by a tenth: they need no warm-up of their own. A *new* optimizer, the release's choice, moves every
# old row too by the full $\pm\eta$ at its first step, whatever the size of its gradient. Hence the warm-up at each stage.
#
# ## 7. Against Net2Net
#
# A Transformer can be grown exactly, too. **Net2Net** widens it: every channel of $x$ is copied, every hidden unit too, and copies share what they write.
# That is section 4, done to channels. **Predict** what it costs that section 4 does not.

# %%
narrow = minitf.TransformerConfig(65, 32, n_layers=1, d_model=32, n_heads=4, d_ff=128)
weights = minitf.init_params(narrow, dtype=np.float64)
pairs = {
    "Tokenformer": [(params, small), minitf.grow(params, small, 100, 400)],
    "Transformer": [(weights, narrow), minitf.net2net_widen(weights, narrow, 64, 256)],
}
text = rng.integers(0, 65, 32)
for name, (old, new) in pairs.items():
    logits = [minitf.forward(tree, text, config)[0] for tree, config in (old, new)]
    exact = np.abs(logits[1] - logits[0]).max() < 1e-12
    size = [minitf.count_layer_parameters(config) for _, config in (old, new)]
    d = [config.d_model for _, config in (old, new)]
    print(f"{name}: exact {exact}, layer parameters {size}, d {d}")

# %% [markdown]
# **Explain.** Both are exact. But the Transformer's tokens became twice as wide, and with them the KV cache and the $4LdT^2$ FLOPs of attention between tokens.
# A Tokenformer grows at fixed $d$: the paper's table 8 counts $3.6$, $6.8$, $10.1$ (times $10^4\,T^2$) for Net2Net at 124M, 354M, 757M parameters, and $3.6$ throughout for TokenFormer.
# A reader asked how released models of different $d$ grow into one another (issue #8): they do not. Appended tokens are rows; another $d$ means other columns.
#
# ## 8. The experiment
#
# A tiny Tokenformer reads Shakespeare for 300 steps. Then its parameter tokens become four times as many and it trains for 100 steps; and that once more.
# Five recipes, three seeds; the seed decides the initial weights, the new rows and the order of the text. The loss is that on 64 windows of held-out plays.
#
# **Predict.** Order the recipes by their loss at the end. The first says what the extra steps do without growing; the second is the release's; the last three are exact at birth.

# %%
corpus = load_shakespeare("train")
tokenizer = CharTokenizer.from_text(corpus)
ids, heldout = tokenizer.encode(corpus), tokenizer.encode(load_shakespeare("heldout"))
SEEDS = (0, 1, 2)
RECIPES = {  # options of grow; the share of a stage over which tau moves to sqrt(n)
    "no growth": (None, 0.0),
    "random rows": ({"key": "normal", "tau": "rescale"}, 0.0),
    "zero keys, tau held": ({"key": "zero", "tau": "hold"}, 0.0),
    "split copies": ({"key": "copy", "value": "split", "tau": "rescale"}, 0.0),
    "zero keys, tau annealed": ({"key": "zero", "tau": "hold"}, 0.5),
}


# %%
def train(params, config, steps, seed, anneal_share=0.0):
    """Trained params, their config, held-out losses every 20 steps."""
    settings = TrainConfig(
        steps, peak_lr=1e-2, anneal_share=anneal_share, eval_every=20, seed=seed
    )
    with no_bars():  # one bar for all runs, below
        result = train_model(params, config, ids, settings, heldout)
    return result.params, result.config, [line["heldout_loss"] for line in result.history]


base = minitf.TokenformerConfig(tokenizer.vocab_size, context=32, n_layers=1, d_model=32, n_heads=4,
                                attention_tokens=4, ffn_tokens=16, rotary_fraction=1.0, init_std=0.1)  # fmt: skip
models = {}
for seed in progress(SEEDS, "before growing"):
    models[seed] = train(minitf.init_params(base, seed), base, 300, seed)


# %%
def next_stage(models, n):
    """All models grown to n and 4n tokens and trained on; the losses begin at birth and are appended."""
    after = {}
    for (recipe, seed), (params, config, losses) in progress(models.items(), f"to {n}"):
        options, anneal_share = RECIPES[recipe]
        if options:
            params, config = minitf.grow(params, config, n, 4 * n, seed=seed, **options)
        birth = evaluate(params, config, heldout, limit=64)
        params, config, more = train(params, config, 100, seed + n, anneal_share)
        after[recipe, seed] = params, config, [*losses, birth, *more]
    return after


# %%
models = {(recipe, seed): models[seed] for recipe in RECIPES for seed in SEEDS}
models = next_stage(models, 16)
models = next_stage(models, 64)
curves = {name: np.array([models[name, seed][2] for seed in SEEDS]) for name in RECIPES}

# %% tags=["nbval-ignore-output"]
births = np.array([15, 21])  # columns of the curves
gaps = {name: curve - curves["no growth"] for name, curve in curves.items()}  # seed by seed
for recipe, curve in curves.items():
    jumps, gap = (curve[:, births] - curve[:, births - 1]).mean(axis=0), gaps[recipe][:, -1]
    end = f"{gap.mean():+.2f} ({gap.min():+.2f} to {gap.max():+.2f})"
    print(f"{recipe:24} births {jumps[0]:+z.2f} {jumps[1]:+z.2f}, end from no growth {end}")

# what must hold on every machine
for recipe in ("zero keys, tau held", "split copies", "zero keys, tau annealed"):
    jumps = curves[recipe][:, births] - curves[recipe][:, births - 1]
    assert np.abs(jumps).max() < 1e-3, "not exact at birth"
    assert gaps[recipe][:, -1].mean() < 0, "growing did not help"
below = gaps["zero keys, tau annealed"][:, -1] < gaps["zero keys, tau held"][:, -1]
assert below.all(), "annealing did not help"

# %% [markdown]
# ## 9. The figure


# %%
def panel(ax, lines, low, high, title):
    stage = np.arange(0, 101, 20)
    steps = np.concatenate([np.arange(20, 301, 20), 300 + stage, 400 + stage])
    for index, (recipe, curve) in enumerate(lines.items()):
        band(ax, steps, curve, recipe, index)
    for growth in (300, 400):
        ax.axvline(growth, color="gray", linewidth=1)
    ax.set(xlim=(200, 505), ylim=(low, high), xlabel="training step", title=title)


# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
panel(left, curves, 2.2, 4.2, "held-out loss, nats per character")
panel(right, gaps, -0.15, 0.15, "difference from no growth, same seed")
left.legend(fontsize=8)
alt = "Two panels over training steps, with growths at steps 300 and 400, for five recipes with "
alt += "bands over three seeds. Left, held-out loss: random rows jump up at both growths and are "
alt += "almost back 20 steps later, the others do not jump. Right, the difference from no growth: at the "
alt += "end tau annealed is lowest, then split copies, then random rows and tau held, all below 0."
digest = f"5 recipes, {len(SEEDS)} seeds; annealed ends below held in {below.sum()} of them"
show(fig, alt, digest)

# %% [markdown]
# **Explain.**
# - All recipes end below "no growth", which read the same text. That line is the control: it falls, too, and without it you would credit the new tokens with all that was learned. (It also rises after
#   each growth. The learning rate starts again; that is no forgetting.)
# - Random rows jump by about 1 and 1.5 nats at their births and win it back; zero keys with $\tau$ held do not jump, and starve. They end side by side: "roughly the same", as the author said of
#   random and zero keys (issue #11).
# - Annealing and split copies are exact at birth *and* have $\tau = \sqrt n$ afterwards. They end lowest.
#
# **A base that has finished learning.** `figures/growth_mechanics.py` doubled a model that had trained 20 times as long, once, and trained it on for 600 steps. Two recipes are new. *Matched
# keys*: random keys as large as the old ones, values of zero, $\tau$ rescaled. *Faded keys*: the same keys, but they come in little by little while $\tau$ moves. **Predict** what the release's
# random rows do to a model that has something to lose.

# %%
measured = json.loads(Path("../figures/growth_mechanics.json").read_text(encoding="utf-8"))
runs = {
    name: [measured["runs"][key] for key in keys.values()]
    for name, keys in measured["keys"].items()
}
control = np.array([run["heldout"] for run in runs.pop("no growth")])
for recipe, seeds in runs.items():
    jump = np.mean(
        [run["birth"]["loss_after"] - run["birth"]["loss_before"] for run in seeds]
    )
    gap = np.array([run["heldout"] for run in seeds]) - control
    print(f"{recipe:20} birth {jump:+z.2f}, end {gap.min():+z.4f} to {gap.max():+z.4f}")

# %% [markdown]
# **Explain.** Random rows jump by 3 nats and are still behind after 600 steps: the more a model knows, the more there is to win back. Faded keys are exact at birth, and end lowest in every seed,
# level with matched keys, which jump. Dead tokens end where nothing grew, to the last digit.
#
# **What this does not show.** Tiny sizes, one learning rate for all, three seeds. Whether growing beats a model that was large from the start is another question. Lesson 07 asks it.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | new keys | zero (3.3); random in the large runs (4.1) | random (`checkpointing.py`, 414-427) | `key=`: zero, unless asked |
# > | new values | random | random; a TPU switch makes both zero: dead | `value=`: random, unless asked |
# > | $\tau$ after growing | fixed (appendix B) | $\sqrt n$ of the new $n$; TPU: `zoom_dim` can fix it | held; `anneal_tau` moves it |
# > | old parameters | trained with the new ones (4.1) | trained; nothing is frozen | trained |
# > | optimizer | anew at each stage (appendix E) | anew | `grow_state` can keep it; the runs above start anew |
#
# ## Summary
#
# - Zero keys, $\tau$ held: exact, because zeros do not lengthen a row and $\text{GeLU}(0) = 0$. Copies, $\tau$ rescaled: exact, because both grow by $\sqrt 2$.
# - Zero keys with zero values are dead. Copies with equal values are twins.
# - A held $\tau$ starves new tokens: the layer comes close to one matrix product. Anneal $\tau$, or split.
# - New rows in a kept optimizer start gently; a new optimizer needs warm-up.
# - Growing needs a control that trains as long without growing.
#
# The [growth puzzles](puzzles/p2_keep_the_function.ipynb) have eight more equalities to make hold.
#
# ## Quiz
#
# 1. A layer of 16 tokens grew to 64 by zero keys with $\tau$ held at 4. Now you copy every token. Which $\tau$ is exact?
#
# <details><summary>Answer</summary>
#
# $4\sqrt 2$: the copies make each row $\sqrt 2$ times longer. Not $\sqrt{128}$, which is what a layer of 128 tokens has when it is born.
#
# </details>
#
# 2. You grow by zero keys and random values, and then train with all *keys* frozen. What happens to the new tokens?
#
# <details><summary>Answer</summary>
#
# Nothing. Their keys stay zero, so their weights stay zero, and the gradient of a value is its weight times something: zero at every step.
#
# </details>
#
# 3. Somebody reports that growing took the loss from 2.52 to 2.34. What do you ask first?
#
# <details><summary>Answer</summary>
#
# What the old model reaches in as many steps on as much text, without growing; then, at how many seeds, and whether the learning rate was chosen for both.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, arXiv 2410.23168: sections 3.3 and 4.1; appendices B (zero keys) and E (Net2Net); table 8.
# - The release, github.com/Haiyang-W/TokenFormer: `megatron/checkpointing.py`, `megatron/model/tokenformer.py`; issues #8, #11, #15.
# - Chen, Goodfellow and Shlens, *Net2Net*, ICLR 2016: section 2.
# - Kingma and Ba, *Adam*, ICLR 2015: section 3 (why the means are corrected).
#
# **Next**: lesson 07 counts what all this costs.
