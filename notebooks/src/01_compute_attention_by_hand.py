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
# # Compute attention by hand
#
# In a network a text is a table: one row of numbers, a *token*, for each word. At first a row knows only its own word.
# Attention is how it collects what it needs from other rows. You compute it here, first with a pencil.
#
# **You will be able to**
# - compute attention for one query by hand, for many as a loop and as a matrix product
# - say why softmax, why $\sqrt d$, why a mask, why heads, why positions
# - derive the backward of softmax and prove it right
#
# **You need**
# - NumPy: shapes, `@`, broadcasting; the derivative of $e^x$
#
# **Minutes** 45 to read and code, 1 to run
#
# **Equations covered** 8 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168)

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf.checks import check
from minitf.plot import show, style

style()
np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. One query, three keys
#
# Each token shows three faces. Its **query** says what it looks for. Its **key** says what it can be found by. Its **value** is what it
# hands over. Learned layers, the subject of lesson 02, make all three out of the token; here the numbers are given.
#
# **Predict.** The query is $(2, 1)$. Which of the keys $(1, 0)$, $(0, 1)$, $(-1, 1)$ agrees with it most?
# Compute the dot products, the **scores** $a_i = q \cdot k_i$.

# %%
query = np.array([2.0, 1.0])
keys = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
scores = [2 * 1 + 1 * 0, 2 * 0 + 1 * 1, 2 * -1 + 1 * 1]
print("by hand", scores, "  keys @ query", keys @ query)

# %% [markdown]
# **Derive.** Why does a dot product measure agreement? Write two vectors of the plane by length and angle, $q = \lvert q\rvert(\cos\alpha, \sin\alpha)$ and
# $k = \lvert k\rvert(\cos\beta, \sin\beta)$. Then
#
# $$q \cdot k = \lvert q\rvert\lvert k\rvert(\cos\alpha\cos\beta + \sin\alpha\sin\beta) = \lvert q\rvert\lvert k\rvert\cos(\alpha - \beta).$$
#
# Largest when both point the same way, 0 at a right angle, negative if they oppose.
#
# ## 2. From scores to weights
#
# We want an average of the values in which keys that agree count more: weights $w_i$ that are positive and sum to 1. Dividing the
# scores by their sum fails, because scores can be negative. So take a positive, rising function $f$, and $w_i = f(a_i)/\sum_j f(a_j)$.
#
# **Derive.** Which $f$? Raising *all* scores by the same $c$ prefers nobody, so let us wish that it changes no weight. Then no ratio of weights
# may change. Take the scores $a$ and $0$: $f(a + c)/f(c) = f(a)/f(0)$, for all $a$ and $c$. Cross-multiply, then differentiate by $c$ at $c = 0$:
#
# $$f(a+c)\,f(0) = f(a)\,f(c) \quad\Rightarrow\quad f'(a)\,f(0) = f(a)\,f'(0).$$
#
# So $f' = \beta f$ with $\beta = f'(0)/f(0)$, and only $f(a) = f(0)\,e^{\beta a}$ does that. $f(0)$ cancels in the ratio, and $\beta$ can move into the scores. What is left is the **softmax**,
# $w_i = e^{a_i} / \sum_j e^{a_j}$.
#
# **Predict** the weights of the scores 2, 1, $-1$, with $e^2 = 7.389$, $e = 2.718$, $e^{-1} = 0.368$.

# %%
values = np.array([[10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
e = [math.exp(a) for a in scores]
w = [each / sum(e) for each in e]
out = [w[0] * 10 + w[1] * 0 + w[2] * 10, w[0] * 0 + w[1] * 10 + w[2] * 10]
for name, row in {"exp": e, "weights": w, "out": out}.items():
    print(f"{name:7}", *(f"{number:.3f}" for number in row))

# %% [markdown]
# **See.** The answer lies near $(10, 0)$, the value of the key that agrees most. An average always lies between the values.
#
# **Code, and break it.** Nothing bounds a dot product. **Predict** what the formula makes of the scores 1000, 999, 997.


# %%
def fragile_softmax(scores):
    e = np.exp(scores)
    return e / e.sum(axis=-1, keepdims=True)


large = np.array([1000.0, 999.0, 997.0])
with np.errstate(over="ignore", invalid="ignore"):
    print("exp(1000) =", np.exp(large[0]), " fragile:", fragile_softmax(large))

# %% [markdown]
# **Explain.** $e^{1000}$ is larger than any float64: it becomes infinity, and infinity by infinity is not a number. The wish that led us to
# $e^a$ helps: adding $c = -\max_j a_j$ to all scores changes no weight, and then the largest exponential is $e^0 = 1$.
#
# > **Exercise 01.1: `softmax`** · difficulty ●○○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > Write a softmax that no score can break. Any axes may stand before the last; each row gets weights of its own.
# > Replace `...`, run both cells, and read what the check says. Where yours is not right, the lesson goes on with the library's.


# %%
def softmax(scores):
    """scores (..., n) -> weights (..., n)."""
    ...


# %%
softmax = check("softmax", softmax)
print("weights of 1000, 999, 997:", softmax(large), " of 2, 1, -1:", softmax(large - 998))

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `fragile_softmax` is almost right. Which number may be subtracted from all scores of a row, so that none is positive?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# scores (..., n) → maximum of each row (..., 1), by `axis=-1, keepdims=True` → difference (..., n) → sum of each row (..., 1) → weights (..., n).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def softmax(scores):
#     e = np.exp(scores - scores.max(axis=-1, keepdims=True))
#     return e / e.sum(axis=-1, keepdims=True)
# ```
#
# </details>
#
# ## 3. Many queries
#
# In a text every token asks. **Code**: first a loop over the queries.


# %%
def attend_loop(queries, keys, values):
    out = np.zeros((len(queries), values.shape[1]))
    for t, query in enumerate(queries):
        weights = softmax(np.array([query @ key for key in keys]))
        for w, value in zip(weights, values, strict=True):
            out[t] += w * value
    return out


# %% [markdown]
# > **Exercise 01.2: `attend`** · difficulty ●○○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > The same without a loop: two matrix products, and `softmax` between them.


# %%
def attend(queries, keys, values):
    """queries (T, d), keys (S, d), values (S, d_out) -> (T, d_out)."""
    ...


# %%
attend = check("attend", attend)
queries = np.array([[2.0, 1.0], [0.0, 2.0], [-1.0, -1.0]])
print(queries @ keys.T)
print(attend(queries, keys, values))
difference = attend_loop(queries, keys, values) - attend(queries, keys, values)
print("loop = matrix:", np.abs(difference).max() < 1e-12)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Entry $(t, s)$ of a matrix product is a dot product of row $t$ and column $s$. You want query $t$ with *row* $s$ of the keys.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (T, d) @ (d, S) → scores (T, S) → weights (T, S); (T, S) @ (S, d_out) → (T, d_out).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def attend(queries, keys, values):
#     return softmax(queries @ keys.T) @ values
# ```
#
# </details>
#
# **See.** Row $t$, column $s$ of the first matrix is the score of query $t$ with key $s$. The first row is the one from above.
#
# ## 4. Why the scores are divided by $\sqrt d$
#
# **Derive.** Let the entries of $q$ and $k$ be independent, with mean 0 and variance 1. A product $q_c k_c$ has mean 0 and variance
# $\mathrm E[q_c^2]\,\mathrm E[k_c^2] = 1$. A dot product is a sum of $d$ of them, so its variance is $d$ and its standard deviation $\sqrt d$.
#
# **Predict.** With 8 keys and $d = 1024$, how large is the largest weight? Remember that $e^{32}$ is ten trillion times $e^{2}$.

# %%
print("   d   std of scores   largest of 8 weights: raw  divided by sqrt(d)")
for d in (4, 64, 1024):
    a = (rng.standard_normal((2000, 1, d)) * rng.standard_normal((2000, 8, d))).sum(axis=-1)
    raw, divided = (softmax(scores).max(axis=-1).mean() for scores in (a, a / math.sqrt(d)))
    print(f"{d:4}   {a.std():13.1f}   {raw:25.2f}  {divided:18.2f}")

# %% [markdown]
# **Explain.** With wide vectors softmax becomes a switch: one weight near 1, the others near 0. Section 8 shows that a switch hardly learns.
# Divided by $\sqrt d$, scores have the size 1 at every width:
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\!\left(\frac{QK^\top}{\sqrt d}\right) V \qquad\text{(equation 8)}$$
#
# ## 5. The mask: no looking ahead
#
# A language model guesses the next token. If a token could read the next one, it would copy the answer. So token $t$ sees tokens $1$ to $t$ only.
#
# **Predict.** We can set the forbidden *weights* to 0, or the forbidden *scores* to $-\infty$, since $e^{-\infty} = 0$. Is there a difference?


# %%
def causal_weights(queries, keys):
    scores = queries @ keys.swapaxes(-1, -2) / math.sqrt(keys.shape[-1])
    visible = np.tri(scores.shape[-1], dtype=bool)  # True on and below the diagonal
    return softmax(np.where(visible, scores, -np.inf))


def masked_too_late(queries, keys):
    weights = softmax(queries @ keys.T / math.sqrt(keys.shape[-1]))
    return weights * np.tri(len(keys))


changed = keys.copy()
changed[2] = [5.0, 5.0]  # the last token becomes another word
for rule in (causal_weights, masked_too_late):
    before, after = rule(queries, keys), rule(queries, changed)
    print(f"{rule.__name__}, row sums {before.sum(axis=-1)}")
    print(f"  row 1 moves by {np.abs(after - before)[0].max():.3f} when token 3 changes")

# %% [markdown]
# **Explain.** Masked too late, the forbidden score still stands in the denominator: rows no longer sum to 1, and the future leaks through that sum. Masked as
# scores, later tokens do not exist. The test for any such leak: change a later token; nothing before it may move.
#
# ## 6. Heads: several averages at once
#
# One row of weights makes one average. But a word may need its verb *and* the word before it. So the $d$ channels are split into $H$ groups;
# each attends by itself, and the results stand side by side. First as a loop, then with one more axis.
#
# **Check** against the library. **Break it**: `wrong_split` also returns $(H, T, d/H)$, but without the `swapaxes`. **Predict**: does anybody notice?


# %%
def heads_loop(q, k, v, n_heads):
    width = q.shape[-1] // n_heads
    parts = [slice(h * width, (h + 1) * width) for h in range(n_heads)]
    heads = [causal_weights(q[:, p], k[:, p]) @ v[:, p] for p in parts]
    return np.concatenate(heads, axis=-1)


def split(x, n_heads):  # (T, d) -> (H, T, d / H)
    return x.reshape(len(x), n_heads, -1).swapaxes(0, 1)


def heads_matrix(q, k, v, n_heads, split=split):
    q, k, v = split(q, n_heads), split(k, n_heads), split(v, n_heads)
    out = causal_weights(q, k) @ v  # (H, T, d / H)
    return out.swapaxes(0, 1).reshape(out.shape[1], -1)  # (T, d)


# %%
q, k, v = rng.standard_normal((3, 6, 8))
for n_heads in (1, 2, 4):
    library, _ = minitf.causal_attention_forward(q, k, v, n_heads)
    mine = [each(q, k, v, n_heads) for each in (heads_loop, heads_matrix)]
    print(n_heads, "heads:", [bool(np.abs(out - library).max() < 1e-12) for out in mine])


def wrong_split(x, n_heads):
    return x.reshape(n_heads, len(x), -1)


out = heads_matrix(q, k, v, 4, wrong_split)
error = np.abs(out - library).max()
print(f"wrong split: shape {out.shape}, largest error {error:.1f}")

# %% [markdown]
# **Explain.** No error, a right shape, wrong numbers: `reshape` alone cuts the table into bands of tokens instead of columns of channels.
#
# A head's dot product has only $d/H$ terms, so by section 4 its standard deviation is $\sqrt{d/H}$. Equation 8 divides by
# $\sqrt d$; the released code, like this library, by $\sqrt{d/H}$.

# %%
wide_q, wide_k = (split(rng.standard_normal((500, 64)), n_heads=4) for _ in range(2))
a = wide_q @ wide_k.swapaxes(-1, -2)  # (H, T, T)
print("4 heads of 16 channels, std of the scores")
print(f"divided by sqrt(64): {a.std() / 8:.2f}   by sqrt(16): {a.std() / 4:.2f}")

# %% [markdown]
# ### Which axis is which?
#
# Several texts at once make an array $(B, T, d)$: batch, sequence, width. The released code turns it to $(T, B, d)$ inside its blocks,
# and a reader tripped over that (issue #17). **Predict** what our attention does with the other layout.


# %%
def self_attend(x):
    return minitf.causal_attention_forward(x, x, x)[0]


def turn(x):
    return x.swapaxes(0, 1)


x = rng.standard_normal((3, 5, 8))  # 3 texts of 5 tokens
y = x.copy()
y[0] = rng.standard_normal((5, 8))  # only text 0 is another one
right = self_attend(x) - self_attend(y)
wrong = turn(self_attend(turn(x)) - self_attend(turn(y)))
for name, difference in {"(B, T, d)": right, "(T, B, d)": wrong}.items():
    texts = [i for i in range(3) if difference[i].any()]
    print(name, "texts whose output changes:", texts)

# %% [markdown]
# **Explain.** No error again: the texts attend to each other. If a model works with one text and fails with several, look here first.
#
# ## 7. Attention does not know where anything stands
#
# **Predict.** *Dog bites man*, *man bites dog*. What happens to the output, without a mask, when the tokens are shuffled? And with the mask, what
# does the *last* token notice when those before it are shuffled?

# %%
x, shuffle = rng.standard_normal((6, 8)), [3, 0, 4, 1, 2, 5]  # the last token stays last
y = x[shuffle]
moved = attend(y, y, y) - attend(x, x, x)[shuffle]
last = (self_attend(y) - self_attend(x))[-1]
print("no mask: the output is shuffled in the same way:", np.abs(moved).max() < 1e-12)
print("mask: the last token notices nothing:", np.abs(last).max() < 1e-12)

# %% [markdown]
# **Explain.** A sum has no order: what a token sees is a *set*. The position has to be put in.
#
# **Rotary positions.** Take two channels of a query as a vector in the plane, and turn it by the angle $m\theta$ at position $m$. Do the same with
# keys. By section 1 a score depends only on the lengths and the angle between. For a query at position $m$ and a key at $n$ it becomes
#
# $$\lvert q\rvert\lvert k\rvert \cos\!\big((\alpha + m\theta) - (\beta + n\theta)\big) = \lvert q\rvert\lvert k\rvert\cos\!\big(\alpha - \beta + (m - n)\theta\big).$$
#
# Only the *distance* $m - n$ is left. Other channel pairs turn at other speeds $\theta$, like the hands of a clock.


# %%
def rotate(x, position):
    return minitf.rotary_forward(x, fraction=1.0, offset=position)[0]


x = rotate(np.array([[1.0, 0.0]] * 3), 0)  # one vector at the positions 0, 1, 2
print("scores with the last:", x @ x[2], "  cosines of 2, 1, 0:", np.cos([2, 1, 0]))
q, k = rng.standard_normal((2, 1, 8))
for m, n in ((5, 2), (105, 102), (6, 2)):
    score = (rotate(q, m) @ rotate(k, n).T).item()
    print(f"query at {m:3}, key at {n:3}: score {score:.2f}")

# %% [markdown]
# ## 8. The backward of softmax
#
# Training asks how the loss $L$ moves when a score moves. The layer above hands us $dw_i = \partial L/\partial w_i$; we owe $da_j = \partial L/\partial a_j$.
#
# **Derive.** Let $e_i = e^{a_i}$ and $Z = \sum_k e_k$, so $w_i = e_i/Z$. Moving $a_j$ changes $e_j$, and with it $Z$, at the rate $e_j$. The quotient rule:
#
# $$i = j: \ \frac{\partial w_i}{\partial a_i} = \frac{e_i Z - e_i e_i}{Z^2} = w_i - w_i w_i \qquad\qquad i \ne j: \ \frac{\partial w_i}{\partial a_j} = \frac{0 - e_i e_j}{Z^2} = -w_i w_j.$$
#
# As a matrix, the Jacobian: $J = \text{diag}(w) - w w^\top$. The chain rule adds the paths from $a_j$ through every $w_i$:
#
# $$da_j = \sum_i dw_i J_{ij} = dw_j\, w_j - \sum_i dw_i\, w_i\, w_j = w_j\,\Big(dw_j - \sum_i w_i\, dw_i\Big).$$
#
# **Predict.** For $w = (0.5, 0.25, 0.25)$ and $dw = (4, 0, 0)$: what is $\sum_i w_i\,dw_i$, what is $da$, and what do its entries add up to?
#
# > **Exercise 01.3: `softmax_backward`** · difficulty ●●○○○ · importance ●●●●○ · 10 minutes; open the solution after 15
# >
# > Write the last formula, for all rows of a table at once and without a square matrix. `w` is the output of softmax.


# %%
def softmax_backward(dw, w):
    """dw, w (..., n) -> da (..., n)."""
    ...


# %%
softmax_backward = check("softmax_backward", softmax_backward)


def softmax_backward_loop(dw, w):
    da = np.zeros_like(w)
    for i, j in np.ndindex(len(w), len(w)):  # the path a[j] -> w[i]
        da[j] += dw[i] * ((i == j) * w[i] - w[i] * w[j])
    return da


w, dw = np.array([0.5, 0.25, 0.25]), np.array([4.0, 0.0, 0.0])
print("by hand", [0.5 * (4 - 2), 0.25 * (0 - 2), 0.25 * (0 - 2)])
print("loop   ", softmax_backward_loop(dw, w))
print("matrix ", dw @ (np.diag(w) - np.outer(w, w)))
print("formula", softmax_backward(dw, w))

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The bracket compares each slope with one number per row, their average. What are its weights?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# w · dw (..., n) → average (..., 1) → bracket (..., n) → da (..., n).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def softmax_backward(dw, w):
#     return w * (dw - (w * dw).sum(axis=-1, keepdims=True))
# ```
#
# </details>
#
# **Explain.** $\sum_i w_i\,dw_i$ is the average slope. Descent goes against $da$: it raises the scores of tokens whose slope lies below the average.
# The entries of $da$ sum to 0, since a common shift changes nothing. And the formula never builds the square matrix.
#
# **Check.** `check_gradients` nudges every score up and down and compares. **Break it**: forget the average, or average over the whole table.


# %%
def forward(scores):
    w = softmax(scores)
    return w, w  # the output, and the cache that the backward needs


arrays = {"scores": rng.standard_normal((3, 4))}
rules = {
    "softmax_backward": softmax_backward,
    "no average": lambda dw, w: w * dw,
    "one average for all rows": lambda dw, w: w * (dw - (w * dw).sum()),
}
for name, backward in rules.items():
    report = minitf.check_gradients(forward, backward, arrays)
    print(f"{name:24}", str(report).split(";")[0])

# %% [markdown]
# **See** what a switch learns. Attending to token 2 would lower the loss, but token 1 has the larger score. **Predict** $da_2$ when the scores are 20 apart.

# %%
for gap in (0.0, 2.0, 20.0):
    w = softmax(np.array([gap, 0.0]))
    da = softmax_backward(np.array([0.0, -1.0]), w)
    print(f"gap {gap:4}  w2 {w[1]:.2g}  da2 {da[1]:.2g}")

# %% [markdown]
# **Explain.** Here $da_2 = w_2(-1 + w_2) = -w_1 w_2$. A weight near 0 gets no gradient, so it stays near 0. That is why section 4 keeps the scores small,
# and lesson 03 returns to it. The other steps of attention are matrix products; lesson 04 runs them backward.
#
# ## 9. What it costs
#
# **Predict.** $T$ queries meet $T$ keys of width $d$, then $T^2$ weights mix the values: how many multiplications and additions? And for a text twice as long?

# %%
print("   T    weights      FLOPs  4 T^2 d")
for T in (64, 128, 256):
    counter = minitf.FlopCounter()  # counts the matrix products that really run
    x = counter.wrap(rng.standard_normal((T, 8)))
    _, cache = minitf.causal_attention_forward(x, x, x)
    print(f"{T:4}  {cache.weights.size:9,}  {counter.flops:9,}  {4 * T**2 * 8:9,}")

# %% [markdown]
# **Explain.** Twice the text, four times the work. And the cost contains the width $d$, but no parameter. A Transformer grows by widening $d$,
# which makes its attention dearer too; a TokenFormer grows at fixed $d$.
#
# ## 10. The figure
#
# Six words, two heads, made by hand so that you know what to expect. In the *content* head each different word has a channel of its own. In the *position* head all words
# are the same vector, turned by position, with the queries set back by one step: they point where the word before points. **Predict** the last row of each.

# %%
words = ["To", "be", "or", "not", "to", "be"]
vocabulary = ["to", "be", "or", "not"]
q, k = np.zeros((2, 6, 16))
for t, word in enumerate(words):
    q[t, 2 + vocabulary.index(word.lower())] = k[t, 2 + vocabulary.index(word.lower())] = 3
q[:, 8], q[:, 9] = 3 * math.cos(-1), 3 * math.sin(-1)  # one step of 1 radian behind
k[:, 8] = 3
_, cache = minitf.causal_attention_forward(q, k, k, n_heads=2, rotary_fraction=0.25)
sums = cache.weights.sum(axis=-1)
print("rows sum to 1:", bool(np.abs(sums - 1).max() < 1e-12))


# %%
def draw(ax, weights, name):
    ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    for t, s in zip(*np.tril_indices(6), strict=True):
        ink = "white" if weights[t, s] > 0.55 else "black"
        ax.text(s, t, f"{weights[t, s]:.2f}", ha="center", va="center", color=ink)
    for t, total in enumerate(weights.sum(axis=-1)):
        ax.text(5.7, t, f"= {total:.2f}", va="center")
    ax.set(title=f"{name} head", xlabel="key: attended to", ylabel="query: attends")
    ax.set_xticks(range(6), words)
    ax.set_yticks(range(6), words)
    ax.grid(False)


# %%
fig, axes = plt.subplots(1, 2, figsize=(9.4, 4.4))
for ax, weights, name in zip(axes, cache.weights, ("content", "position"), strict=True):
    draw(ax, weights, name)
alt = "Two heat maps of causal attention over To be or not to be: queries as rows, keys as "
alt += "columns, the weight in each cell, the row sum of 1.00 at the right. Both are lower "
alt += "triangles. In the content head repeated words attend to their earlier copy and to "
alt += "themselves alike. In the position head each row looks mostly at the word before it."
last = ["/".join(f"{w:.2f}" for w in weights[-1]) for weights in cache.weights]
show(fig, alt=alt, digest=f"last row: content {last[0]}; position {last[1]}")

# %% [markdown]
# **Explain.** Empty cells are the future; every row sums to 1. In the content head the last *be* gives the other *be* exactly as much as itself: it cannot tell near from far. The position
# head finds the word before, whatever it is. A trained head can mix the two jobs.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | scores divided by | $\sqrt d$ (eq. 8) | $\sqrt{d/H}$, the width of a head | as the release |
# > | layout | not stated | $(T, B, d)$ inside a block | $(B, T, d)$ everywhere |
# > | rotary channels | not stated | a quarter of each head; TPU code: no positions by default | `rotary_fraction` |
#
# ## Summary
#
# - Scores are dot products, softmax turns them into an average, values are what is averaged.
# - Softmax follows from one wish: a common shift changes nothing. The same shift prevents overflow.
# - Dividing by the root of a head's width keeps softmax from becoming a switch, which cannot learn.
# - Mask scores, not weights. Rotate queries and keys, and scores know the distance.
# - $da = w\,(dw - w \cdot dw)$: each score is judged against the average.
#
# ## Quiz
#
# 1. All keys of a text are equal. What is the output of a token?
#
# <details><summary>Answer</summary>
#
# The plain mean of the values that it sees: equal scores give equal weights, whatever the query.
#
# </details>
#
# 2. The mask hides token 3 from token 1. You change the *value* of token 3. With the mask applied too late, does the output of token 1 move?
#
# <details><summary>Answer</summary>
#
# No: its weight was set to 0 after all. Only its *key* leaks, through the denominator. A test that changes values alone misses the bug.
#
# </details>
#
# 3. Two weights are $(0.9, 0.1)$ and $dw = (1, 1)$. What is $da$?
#
# <details><summary>Answer</summary>
#
# Zero. The average is $0.9 + 0.1 = 1$, and neither is better than it.
#
# </details>
#
# ## References
#
# - Vaswani et al., *Attention Is All You Need*, 2017: section 3.2.
# - Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021: section 3.
# - Wang et al., *TokenFormer*, ICLR 2025, arXiv 2410.23168: section 3.2.
# - Released code, github.com/Haiyang-W/TokenFormer: `megatron/model/tokenformer.py`; issue #17.
#
# **Next**: lesson 02 lets tokens attend not to each other but to parameters.
