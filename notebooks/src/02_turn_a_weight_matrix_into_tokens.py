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
# # Turn a weight matrix into tokens
#
# A weight matrix looks like one solid block. Here you take it apart into rows that an input *attends to*. You write
# Pattention, the layer that TokenFormer is made of, and measure what it adds to a linear layer and to an MLP.
#
# **You will be able to**
# - read a linear layer, an MLP and attention as one formula
# - write Pattention forward: by hand, as a loop, as a matrix product
# - say what the L2 norm and $\sqrt n$ do
# - answer "how is this more than an FFN?" by experiment
#
# **You need**
# - NumPy: shapes, `@`, broadcasting
#
# **Minutes** 40 to read and code, 1 to run
#
# **Equations covered** 4, 8, 10 and 16 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168)

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from minitf import (
    causal_attention_forward,
    gelu_forward,
    linear_forward,
    pattention_forward,
    theta_forward,
)
from minitf.checks import check
from minitf.plot import show, slider, style

style()
np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A linear layer has two readings
#
# A *token* is a piece of text or of an image, written as a row $x$ of numbers. A linear layer computes $Wx$.
#
# **Predict.** Take $x = (1, 2)$ and $W$ with the rows $(2, 0)$, $(1, -1)$, $(0, 3)$. Compute $Wx$ on paper, twice:
# row by row (each row of $W$ times $x$), and column by column (each column of $W$ times one entry of $x$, added up).

# %%
x = np.array([1.0, 2.0])
W = np.array([[2.0, 0.0], [1.0, -1.0], [0.0, 3.0]])
by_rows = [float(row @ x) for row in W]
by_columns = x[0] * W[:, 0] + x[1] * W[:, 1]
print("row by row:      ", by_rows)
print("column by column:", by_columns.tolist())

# %% [markdown]
# **Explain.** The same numbers, but two different jobs.
# - First reading: a row of $W$ is *compared* with the input. It is a **key**; its dot product with $x$ is a **score**.
# - Second reading: a column of $W$ is *added to the output*, times a number. It is a **value**; the number is its **weight**.
#
# **Derive.** Let a layer have both: $n$ keys $k_i$, $n$ values $v_i$, and a rule $\Theta$ from scores to weights.
#
# $$a_i = x \cdot k_i, \qquad w = \Theta(a), \qquad \text{out} = \sum_{i=1}^{n} w_i\, v_i$$
#
# Keys are the rows of $K$, values the rows of $V$, and $X$ holds $T$ tokens as rows. Then
#
# $$\text{out} = \Theta(X K^\top)\, V \qquad X: (T, d_{in}) \quad K: (n, d_{in}) \quad XK^\top: (T, n) \quad V: (n, d_{out}).$$
#
# This is equation 4 of the paper. A pair $(k_i, v_i)$ is a **parameter token**. In a linear layer $\Theta$ does nothing:
# either $K = W$, $V = I$, or $K = I$, $V = W^\top$.


# %%
def attend_loop(x, key, value, theta):
    out = np.zeros((len(x), value.shape[1]))
    for t in range(len(x)):
        scores = np.array([x[t] @ k for k in key])
        for w, v in zip(theta(scores), value, strict=True):
            out[t] += w * v
    return out


def attend(x, key, value, theta):
    return theta(x @ key.T) @ value  # (T, d_in) -> (T, n) -> (T, d_out)


# %%
def nothing(scores):
    return scores


def same(a, b):
    return a.shape == b.shape and bool(np.abs(a - b).max() < 1e-13)


X = rng.standard_normal((5, 2))
linear = linear_forward(X, W)[0]
print("K = W, V = I,   loop:  ", same(attend_loop(X, W, np.eye(3), nothing), linear))
print("K = W, V = I,   matrix:", same(attend(X, W, np.eye(3), nothing), linear))
print("K = I, V = W^T, matrix:", same(attend(X, np.eye(2), W.T, nothing), linear))

# %% [markdown]
# (`linear_forward` returns the output and a cache for the backward pass; `[0]` takes the output.)
#
# Can both $K$ and $V$ be learned while $\Theta$ does nothing? It buys nothing: $(XK^\top)V = X(K^\top V)$, and
# $K^\top V$ is again one matrix. So $\Theta$ must not be linear.
#
# ## 2. An MLP is a memory
#
# The feed-forward layer (FFN) of a Transformer is a two-layer MLP, $\text{out} = W_2\, f(W_1 x)$, with $f$ applied to each entry.
#
# **Derive.** Read $W_1$ by rows $k_i$: hidden entry $i$ is $f(k_i \cdot x)$. Read $W_2$ by columns $v_i$: it adds
# $v_i$ times hidden entry $i$. So
#
# $$\text{out} = \sum_i f(k_i \cdot x)\, v_i = f(xK^\top)\,V, \qquad K = W_1, \quad V = W_2^\top.$$
#
# **Predict.** $f$ is ReLU, which replaces negative numbers by 0. With $x = (1, 2)$ and keys $(1, 1)$, $(1, -1)$, $(0, 2)$,
# which parameter token stays silent?


# %%
def relu(scores):
    return np.maximum(scores, 0)


key = np.array([[1.0, 1.0], [1.0, -1.0], [0.0, 2.0]])
value = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
scores = key @ x
print("scores ", scores, "-> weights", relu(scores))
print("by hand", 3 * value[0] + 0 * value[1] + 4 * value[2])
print("matrix ", attend(x, key, value, relu))

# %% [markdown]
# **Explain.** The second token scores $-1$ and says nothing. The others say "3 times my value" and "4 times my value".
# That is a memory: a key asks *is my pattern here?*, a value says *then write this* (Geva et al., 2021).
# With one key per input it is a Python dictionary that can also blend:

# %%
countries = np.eye(3)  # the keys: France, Japan, Kenya
capitals = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])  # Paris, Tokyo, Nairobi, made up
print(
    "France:                 ", attend(np.array([1.0, 0.0, 0.0]), countries, capitals, relu)
)
print(
    "half France, half Kenya:", attend(np.array([0.5, 0.0, 0.5]), countries, capitals, relu)
)

# %% [markdown]
# Transformers use GeLU: $\text{GeLU}(a) = a\,\Phi(a)$, where $\Phi(a)$ is the probability that a standard
# normal number lies below $a$. Large scores pass, very negative ones become 0, with a smooth bend between.
#
# **Check.** The library's Pattention with `kind="gelu"` should be a Transformer's MLP, exactly.


# %%
def gelu(scores):
    return gelu_forward(scores)[0]


by_hand = (
    1.0 * 0.5 * (1 + math.erf(1.0 / math.sqrt(2)))
)  # Phi(a) = (1 + erf(a / sqrt(2))) / 2
print(f"GeLU(1) by hand {by_hand:.3f}, library", gelu(np.array([1.0])))
X, W1, W2 = (rng.standard_normal(shape) for shape in ((5, 4), (8, 4), (3, 8)))
mlp = linear_forward(gelu(linear_forward(X, W1)[0]), W2)[0]
library = pattention_forward(X, W1, W2.T, kind="gelu")[0]
print("MLP without biases = Pattention of kind gelu:", same(mlp, library))

# %% [markdown]
# **And a linear layer?** No `kind` is linear. Yet two tokens can be, as a pair. The bell curve is symmetric, so
# $\Phi(a) + \Phi(-a) = 1$, and
#
# $$\text{GeLU}(a) - \text{GeLU}(-a) = a\,\Phi(a) + a\,\Phi(-a) = a.$$
#
# The tokens $(k, v)$ and $(-k, -v)$ together write $(x \cdot k)\, v$. So stack $I$ on $-I$ for $K$, and $W^\top$ on $-W^\top$ for $V$.

# %%
W = rng.standard_normal((3, 4))
key = np.concatenate([np.eye(4), -np.eye(4)])
value = np.concatenate([W.T, -W.T])
out = pattention_forward(X, key, value, kind="gelu")[0]
print("tokens:", len(key), " linear layer:", same(out, X @ W.T))

# %% [markdown]
# ## 3. Attention is the same sum
#
# In attention between tokens, keys and values are computed from the tokens of the sequence. $\Theta$ divides the scores by $\sqrt d$
# and takes the softmax, $w_i = e^{a_i} / \sum_j e^{a_j}$: positive weights that sum to 1 (equation 8).
#
# **Predict.** Can `pattention_forward` *be* attention, if we hand it such keys and values?
# (`kind="softmax"` multiplies by $\tau^2$, so $\tau = 1$ leaves plain softmax. We compare the last token, which may look at all others.)

# %%
Wq, Wk, Wv = rng.standard_normal((3, 4, 4))
query, from_tokens, contents = X @ Wq.T, X @ Wk.T, X @ Wv.T
attention = causal_attention_forward(query, from_tokens, contents)[0]
plain = {"kind": "softmax", "tau": 1.0, "scale": 1 / math.sqrt(4)}
last = pattention_forward(query[-1:], from_tokens, contents, **plain)[0]
print("last token, attention = Pattention over the sequence:", same(last, attention[-1:]))

# %% [markdown]
# **See.** Which score matrix grows with the sequence, which with the layer?

# %%
for T, n in ((5, 8), (6, 8), (5, 9)):
    tokens, keys = np.zeros((T, 4)), np.zeros((n, 4))
    between, to_parameters = tokens @ tokens.T, tokens @ keys.T
    print(
        f"T={T} n={n}  token-token {between.shape}  token-parameter {to_parameters.shape}"
    )

# %% [markdown]
# **Explain.**
#
# | | token-token attention | Pattention |
# |---|---|---|
# | who asks | a token | a token |
# | who provides keys and values | the tokens of this sequence | the layer: learned, equal for all inputs |
# | scores | $(T, T)$ | $(T, n)$ |
# | grows with | the text | the model |
# | weights | softmax: positive, sum to 1 | section 4: any sign |
# | multiply-adds | $2T^2 d$ | $2Tnd$ |
#
# ## 4. What Theta adds
#
# **Derive.** The paper's $\Theta$ divides a row of scores by its length, multiplies by $\tau = \sqrt n$, and applies GeLU (equation 16):
#
# $$\Theta(a)_i = \text{GeLU}\!\left(\tau\, \frac{a_i}{\lvert a\rvert}\right), \qquad \lvert a\rvert = \sqrt{a_1^2 + \dots + a_n^2}, \qquad \tau = \sqrt n.$$
#
# **Predict.** By hand: $x = (2, 1)$, keys $(2, -1)$ and $(1, 2)$, values $(1, 0)$ and $(1, 2)$. What are the scores, and what is $\lvert a\rvert$?

# %%
a = [2 * 2 + 1 * -1, 2 * 1 + 1 * 2]
length = math.sqrt(a[0] ** 2 + a[1] ** 2)
z = [math.sqrt(2) * score / length for score in a]
w = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z]
out = [w[0] * 1 + w[1] * 1, w[0] * 0 + w[1] * 2]
for name, row in {
    "scores": a,
    "length": [length],
    "z": z,
    "weights": w,
    "out": out,
}.items():
    print(f"{name:8}", *(f"{v:.3f}" for v in row))

# %% [markdown]
# **Code.** Each row of a matrix is such a list of scores, for one input token.
#
# > **Exercise 02.1: `theta`** · difficulty ●●○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > Write $\Theta$ for a whole matrix of scores; every row has a length of its own. `gelu` from section 2 takes arrays.


# %%
def theta(scores, tau):
    """scores (..., n), tau a number -> weights (..., n)."""
    ...


# %%
theta = check("theta", theta)


def theta_loop(scores, tau):
    length = math.sqrt(sum(score**2 for score in scores))
    return np.array([gelu(np.array([tau * score / length]))[0] for score in scores])


print("loop = matrix:", same(theta_loop(scores, 2.0), theta(scores, 2.0)))

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Translate the formula from the inside: length of each row, division, times $\tau$, GeLU.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# scores (..., n) → squares (..., n) → length (..., 1), by `axis=-1, keepdims=True` → quotient (..., n) → weights (..., n).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def theta(scores, tau):
#     length = np.sqrt((scores**2).sum(axis=-1, keepdims=True))
#     return gelu(tau * scores / length)
# ```
#
# </details>
#
# > **Exercise 02.2: `pattention`** · difficulty ●●○○○ · importance ●●●●● · 5 minutes; open the solution after 10
# >
# > Put the layer together: scores, weights with $\tau = \sqrt n$, output. `pattention_forward` does it; you do it without.


# %%
def pattention(x, key, value):
    """x (..., d_in), key (n, d_in), value (n, d_out) -> (..., d_out)."""
    ...


# %%
pattention = check("pattention", pattention)
x, key = np.array([[2.0, 1.0], [-1.0, 2.0]]), np.array([[2.0, -1.0], [1.0, 2.0]])
value = np.array([[1.0, 0.0], [1.0, 2.0]])
print(pattention(x, key, value))
looped = attend_loop(x, key, value, lambda scores: theta_loop(scores, math.sqrt(2)))
print("loop = matrix:", same(looped, pattention(x, key, value)))

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `attend` from section 1 has all of it but the rule and its $\tau$. Is $n$ the number of rows or of columns of `key`?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (..., d_in) @ (d_in, n) → scores (..., n) → weights (..., n); (..., n) @ (n, d_out) → (..., d_out).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def pattention(x, key, value):
#     return theta(x @ key.T, math.sqrt(len(key))) @ value
# ```
#
# </details>
#
# **Check.** The first row is the one from above.
#
# ### The scale of the input cancels
#
# **Predict.** Multiply every input by 10. What happens to the output of a ReLU MLP, a GeLU MLP and a Pattention?
# Then **break it**: set `FACTOR` to `-10`.

# %%
FACTOR = 10.0
x, key, value = (rng.standard_normal(shape) for shape in ((3, 4), (8, 4), (8, 4)))
layers = {
    "ReLU MLP": relu,
    "GeLU MLP": gelu,
    "Pattention": lambda a: theta(a, math.sqrt(8)),
}
for name, rule in layers.items():
    before, after = attend(x, key, value, rule), attend(FACTOR * x, key, value, rule)
    print(f"{name:10}  |out| {np.linalg.norm(before):5.2f} -> {np.linalg.norm(after):6.2f}")

# %% [markdown]
# **Explain.** For $c > 0$ the scores $ca$ have the length $c\lvert a\rvert$, so $ca/(c\lvert a\rvert) = a/\lvert a\rvert$: the factor is gone,
# only the *direction* of the scores is left. For $c < 0$ the length is $-c\lvert a\rvert$ and the sign survives: $-10$ gives $\Theta(-a)$.
# So `scale=1.0` in the release is no bug (its issue #16): before an L2 norm a scale does nothing.
#
# ### Pattention is an MLP that reads a rescaled input
#
# Since $a = xK^\top$, the factor $\sqrt n / \lvert a\rvert$ may move into the input:
#
# $$\text{Pattention}(x) = \text{GeLU}(c\,xK^\top)\,V = \text{MLP}(c\,x), \qquad c = \frac{\sqrt n}{\lvert xK^\top\rvert}.$$

# %%
c = math.sqrt(8) / np.linalg.norm(x @ key.T, axis=-1, keepdims=True)  # one number per token
print("c =", c.ravel())
mlp = attend(c * x, key, value, gelu)
print("Pattention(x) = MLP(c x):", same(pattention(x, key, value), mlp))

# %% [markdown]
# ### The tokens of a layer are tied
#
# **Predict.** Double one of 8 keys. How many weights change, in the MLP and in Pattention?

# %%
doubled = key.copy()
doubled[0] *= 2
for name, rule in {"GeLU MLP": gelu, "Pattention": layers["Pattention"]}.items():
    change = np.abs(rule(x @ doubled.T) - rule(x @ key.T))[0]
    print(f"{name:10}  {int((change > 1e-6).sum())} of 8 weights changed")

# %% [markdown]
# **Explain.** In Pattention one loud token makes the others quieter, because all share one length. Growing a TokenFormer has to
# take care of this.
#
# ### Why $\sqrt n$
#
# **Predict.** The vector $a/\lvert a\rvert$ has length 1, so the squares of its $n$ entries average $1/n$. How large is a typical
# entry of $z = \tau a / \lvert a\rvert$, with $\tau = \sqrt n$ and with $\tau = 1$?

# %%
print("    n   typical z: tau=sqrt(n)  tau=1")
for n in (25, 400, 10000):
    scores = rng.standard_normal(n)
    unit = scores / np.linalg.norm(scores)
    sizes = [math.sqrt(((tau * unit) ** 2).mean()) for tau in (math.sqrt(n), 1.0)]
    print(f"{n:5}   {sizes[0]:21.3f}  {sizes[1]:.3f}")

# %% [markdown]
# **Explain.** With $\sqrt n$ a typical entry has size 1 at every $n$, where GeLU bends. With $\tau = 1$ it shrinks like $1/\sqrt n$,
# and near 0 GeLU is almost the straight line $z/2$, which buys nothing (section 1).
#
# **See** it. Each point is a parameter token: its score, and the weight that $\Theta$ makes of it. In JupyterLab, move the slider and press the buttons.
# **Predict** first: what happens to the cloud from $n = 8$ to $2048$ with $\tau = \sqrt n$, and with $\tau = 1$?


# %%
def draw_weights(n, tau, theta):
    scores = np.random.default_rng(0).standard_normal(n)
    tau = {"√n": math.sqrt(n), "1": 1.0, "n": float(n)}[tau]
    weights, _ = theta_forward(scores, theta, tau)
    fig, ax = plt.subplots(figsize=(6.4, 3))
    ax.plot(scores, weights, "o")
    ax.set(xlabel="score", ylabel="weight", xlim=(-4, 4), ylim=(-0.5, 4))
    return fig


first, _ = theta_forward(np.random.default_rng(0).standard_normal(8))
slider(
    draw_weights,
    alt="Weights of 8 parameter tokens over their scores, on the bent curve of GeLU: "
    "near zero for negative scores, rising with positive ones.",
    digest=f"weights from {first.min():.2f} to {first.max():.2f}",
    n=[8, 32, 128, 512, 2048],
    tau=["√n", "1", "n"],
    theta=["l2_norm_gelu", "gelu_l2_norm", "softmax", "gelu"],
)

# %% [markdown]
# **Explain.** With $\sqrt n$ the points stay on one curve, only denser. With $\tau = 1$ the curve flattens into a line through 0, with $\tau = n$ it leaves the picture.
# `softmax` lifts a few tokens and is never negative; `gelu` knows neither $n$ nor $\tau$. Lesson 03 compares them.
#
# ## 5. How is this more than an FFN?
#
# A reader asked this of the release (issue #13). *As a function*, hardly: it is an MLP without biases, read at $c\,x$.
# The difference is *what you can do with it*. TokenFormer puts it in place of every linear layer: query, key, value and output of attention too.
#
# **Predict.** Add two rows to a linear layer, and two tokens to a Pattention. The next layer expects 4 numbers. Which still runs?

# %%
x, W, next_W = (rng.standard_normal(shape) for shape in ((3, 4), (4, 4), (4, 4)))
wider = linear_forward(x, np.concatenate([W, rng.standard_normal((2, 4))]))[0]
print("linear with 2 more rows: output", wider.shape)
try:
    linear_forward(wider, next_W)
except ValueError as error:
    print("next layer:", str(error).split(":")[0], "do not fit")

key, value = rng.standard_normal((8, 4)), rng.standard_normal((8, 4))
grown_key = np.concatenate([key, np.zeros((2, 4))])
grown_value = np.concatenate([value, rng.standard_normal((2, 4))])
out = pattention_forward(x, key, value, tau=math.sqrt(8))[0]
grown = pattention_forward(x, grown_key, grown_value, tau=math.sqrt(8))[0]
print("2 more tokens: output", grown.shape)
print("next layer: output", linear_forward(grown, next_W)[0].shape)
print("new keys zero, tau held at sqrt(8): the same function:", same(out, grown))

# %% [markdown]
# **Explain.** More rows widen the *output*, so every layer that reads it must change. More tokens lengthen the *sum*; no shape that
# others see changes. To be fair: hidden units of an MLP can be appended in the same way. A Transformer's four attention projections
# cannot: they are $d \times d$. In a TokenFormer every layer can grow while the width $d$ stays.
#
# The price is $2nd$ parameters against $d^2$. Does Pattention at least contain the linear layer that it replaces?
# Take the pairs of section 2. Their scores $(x, -x)$ have the length $\sqrt 2\,\lvert x\rvert$, and $n = 2d$, so
# $c = \sqrt{2d} / (\sqrt 2\,\lvert x\rvert) = \sqrt d/\lvert x\rvert$, and the pairs write $c\,xW^\top$. This $c$ is 1 when the squares of $x$ average 1.
# Layer norm, which stands in front of query, key, value and FFN, makes them so (up to its small eps).

# %%
pairs = np.concatenate([np.eye(4), -np.eye(4)])
answers = np.concatenate([W.T, -W.T])
normed = (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)  # layer norm
print("any x:    linear layer:", same(pattention(x, pairs, answers), x @ W.T))
print("normed x: linear layer:", same(pattention(normed, pairs, answers), normed @ W.T))

# %% [markdown]
# ## 6. The figure
#
# Five tokens meet six keys; token 5 is 3 times token 2. The first three layers share their keys. In the fourth panel the tokens
# themselves are the keys. **Predict**: in which panels do rows 2 and 5 agree?

# %%
X, K = rng.standard_normal((5, 4)), rng.standard_normal((6, 4))
X[4] = 3 * X[1]
panels = {
    "Linear: scores": X @ K.T,
    "MLP: GeLU of the scores": gelu(X @ K.T),
    "Pattention: Theta of the scores": theta(X @ K.T, math.sqrt(6)),
    "Token-token attention: softmax": causal_attention_forward(X, X, X)[1].weights[0],
}


def draw(ax, name, matrix):
    limit = 1 if "softmax" in name else 3  # one color scale for the first three
    ax.imshow(matrix, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (t, i), number in np.ndenumerate(matrix):
        ink = "white" if abs(number) > 0.55 * limit else "black"
        ax.text(i, t, f"{number:z.1f}", ha="center", va="center", color=ink, fontsize=9)
    columns = "parameter token" if limit == 3 else "token of the sequence"
    ax.set(title=name, xlabel=columns, ylabel="input token")
    ax.set_xticks(range(matrix.shape[1]), range(1, matrix.shape[1] + 1))
    ax.set_yticks(range(5), range(1, 6))
    ax.grid(False)


# %%
fig, axes = plt.subplots(2, 2, figsize=(9, 6.4))
for ax, (name, matrix) in zip(axes.flat, panels.items(), strict=True):
    draw(ax, name, matrix)
numbers = [f"{k.split()[0]} {m[1].max():.2f}, {m[4].max():.2f}" for k, m in panels.items()]
alt = "Four heat maps, input tokens as rows, keys as columns, the number in each cell. Linear: "
alt += "scores of both signs, row 5 three times row 2. MLP: negative ones almost zero, row 5 largest. "
alt += "Pattention: all rows of similar size, rows 2 and 5 equal. Token-token attention: a "
alt += "lower triangle, each row sums to one."
show(fig, alt=alt, digest="largest of rows 2 and 5: " + "; ".join(numbers))

# %% [markdown]
# **Explain.** (Brown is positive, purple negative.) GeLU silences negative scores. The norm gives every token the same strength before GeLU, so rows 2 and 5
# become equal. Panel 4 has as many columns as tokens, zeros above the diagonal (causality), and rows that sum to 1.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | $\sqrt n$ | in eq. 16 | `nonlinear_norm_func` in `megatron/model/tokenformer.py` | argument `tau`; `None` means $\sqrt n$ |
# > | a row of zero scores | undefined | NaN | weights 0 |
# > | GeLU | not specified | exact; TPU code: tanh formula | exact; `approximate="tanh"` on request |
# > | attention divides by | $\sqrt d$ (eq. 8) | $\sqrt{d/\text{heads}}$ | as the release |
# > | feed-forward layer | one Pattention (eq. 10) | one | one; `ffn_blocks=2` builds two |
#
# ## Summary
#
# - Keys score the input, $\Theta$ turns scores into weights, values are added up: $\Theta(XK^\top)V$.
# - Linear layer: $\Theta$ does nothing. MLP: it works entry by entry. Attention: keys and values come from the sequence.
# - The paper's $\Theta$ normalizes each row: the input's scale cancels, and the tokens of a layer compete.
# - As a function, Pattention is an MLP without biases, read at a rescaled input.
# - It can stand in for every projection, so a whole model can grow while its width stays.
#
# ## Quiz
#
# 1. You permute the rows of `key` and of `value` in the same way. What changes in the output?
#
# <details><summary>Answer</summary>
#
# Nothing but rounding: the output is a sum over tokens, and the length of the scores does not depend on their order.
#
# </details>
#
# 2. A Pattention has one parameter token. What outputs can it give?
#
# <details><summary>Answer</summary>
#
# A score divided by its own length is $1$ or $-1$, and $\tau = 1$. So the weight is $\text{GeLU}(1) = 0.841$ or $\text{GeLU}(-1) = -0.159$
# (or 0, for a score of exactly 0): three multiples of one value.
#
# </details>
#
# 3. You insert `x = x / 2` in front of a Pattention and see no change in the loss. Is that a bug?
#
# <details><summary>Answer</summary>
#
# No. The L2 norm cancels every positive factor of a token. In front of a linear layer it would be one.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, ICLR 2025, arXiv 2410.23168: section 3.2; appendix A, eq. 16.
# - Geva et al., *Transformer Feed-Forward Layers Are Key-Value Memories*, EMNLP 2021: section 2.
# - Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016: section 2.
# - Released code, github.com/Haiyang-W/TokenFormer: class `Pattention`; issues #13, #16.
#
# **Next**: lesson 03 asks what else $\Theta$ could be; lesson 04 runs this layer backwards.
