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
# # Keep the function
#
# Eight puzzles about layers that grow. In each, somebody changes a layer, and you supply the missing piece so that it still computes what it computed before,
# for every input: *make this equality hold*.
#
# **You will be able to**
# - say at sight what a growth does to the scores, to their length, to the weights and to the output
# - find $\tau$ for any mix of zero keys and copies
# - shrink a layer, too
#
# **You need**
# - lesson 02; lesson 06 helps, and the puzzles prepare for it
#
# **Minutes** 45; each puzzle says when to open its solution
#
# **Rules.** One `return`, no library call. You always get the whole layer: `key` (n, d), `value` (n, o) and `tau`, which need not be $\sqrt n$: the layer may have grown
# before. Some puzzles have many answers; the check compares outputs, not answers.

# %%
import math

import numpy as np

from minitf.checks import check

# %% [markdown]
# The layer, as loops. $[K; k]$ below means: the rows of $K$, and below them $k$.


# %%
def gelu(z):
    return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))


def layer(x, key, value, tau):
    scores = [sum(a * b for a, b in zip(x, k, strict=True)) for k in key]
    length = math.sqrt(sum(score**2 for score in scores))
    weights = [gelu(tau * score / length) for score in scores]
    return [
        sum(w * v[o] for w, v in zip(weights, value, strict=True))
        for o in range(len(value[0]))
    ]


# %% [markdown]
# ## 1. A silent newcomer
#
# > **Puzzle 1: `new_key`** · difficulty ●○○○○ · importance ●●●●● · 3 minutes; open the solution after 6
#
# One token is appended, with a loud value $v$ that you cannot choose. Which key, a row of d numbers?
#
# $$\text{layer}(x, [K; ?], [V; v], \tau) = \text{layer}(x, K, V, \tau)$$


# %%
def new_key(key, value, tau):
    return ...


# %%
new_key = check("new_key", new_key)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which score leaves the length of the row as it is?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# One row, (d,).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def new_key(key, value, tau):
#     return 0 * key[0]
# ```
#
# A score of 0 adds nothing to the length and gets the weight GeLU(0) = 0. No other key does this for every $x$.
#
# </details>

# %% [markdown]
# ## 2. Everyone twice
#
# > **Puzzle 2: `two_values`** · difficulty ●○○○○ · importance ●●●●● · 3 minutes; open the solution after 6
#
# Every token appears twice, and $\tau$ becomes $\sqrt 2\,\tau$. Which two values, both (n, o)?
#
# $$\text{layer}(x, [K; K], [?; ?], \sqrt 2\,\tau) = \text{layer}(x, K, V, \tau)$$


# %%
def two_values(key, value, tau):
    return ...


# %%
two_values = check("two_values", two_values)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The row of scores is $\sqrt 2$ times longer, and $\tau$ makes up for it. So what are the weights?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# Two arrays, (n, o) and (n, o).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def two_values(key, value, tau):
#     return value / 2, value / 2
# ```
#
# The weights are the old ones, twice, so only the sum of both values matters: `value, 0 * value` is right too, and so is `value / 2 + u, value / 2 - u`.
#
# </details>

# %% [markdown]
# ## 3. Everyone m times
#
# > **Puzzle 3: `m_copies`** · difficulty ●●○○○ · importance ●●●●○ · 4 minutes; open the solution after 8
#
# Now $\tau$ is yours to choose. Return the value that each of the m copies gets, and $\tau$.
#
# $$\text{layer}(x, [K; \dots; K], [?; \dots; ?], ?) = \text{layer}(x, K, V, \tau)$$


# %%
def m_copies(key, value, tau, m):
    return ...


# %%
m_copies = check("m_copies", m_copies)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# By which factor is $(a, a, \dots, a)$ longer than $a$?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# An array (n, o) and a number.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def m_copies(key, value, tau, m):
#     return value / m, m**0.5 * tau
# ```
#
# The length is $\sqrt{m\lvert a\rvert^2} = \sqrt m\,\lvert a\rvert$.
#
# </details>

# %% [markdown]
# ## 4. Two growths in a row
#
# > **Puzzle 4: `tau_after`** · difficulty ●●○○○ · importance ●●●●○ · 4 minutes; open the solution after 8
#
# First m tokens with zero keys are appended. Then every token, the new ones too, appears twice, with half of its value. Which $\tau$ makes the last layer equal to the first?


# %%
def tau_after(key, value, tau, m):
    return ...


# %%
tau_after = check("tau_after", tau_after)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One of the two growths does not touch the length.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# One number.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def tau_after(key, value, tau, m):
#     return 2**0.5 * tau
# ```
#
# $\sqrt{2(n + m)}$, the root of the number of tokens, is right only for m = 0 and $\tau = \sqrt n$.
#
# </details>

# %% [markdown]
# ## 5. The input grows
#
# > **Puzzle 5: `two_keys`** · difficulty ●●●○○ · importance ●●●○○ · 5 minutes; open the solution after 10
#
# Somebody widened the model by writing every token twice, side by side: the input is $(x, x)$, of width 2d. Which keys, a left half and a right half, both (n, d)?
#
# $$\text{layer}((x, x), [?\;\; ?], V, \tau) = \text{layer}(x, K, V, \tau)$$


# %%
def two_keys(key, value, tau):
    return ...


# %%
two_keys = check("two_keys", two_keys)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The score is $x \cdot (\text{left} + \text{right})$. And what does the norm do to a factor?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# Two arrays, (n, d) and (n, d).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def two_keys(key, value, tau):
#     return key / 2, key / 2
# ```
#
# Every left + right $= cK$ with $c > 0$ will do, since the norm cancels $c$: `key, key` is right, `key, 0 * key` too. This is how Net2Net widens, and a weight matrix would insist on $c = 1$.
#
# </details>

# %% [markdown]
# ## 6. Mend it in the values
#
# > **Puzzle 6: `mended_value`** · difficulty ●●●○○ · importance ●●●○○ · 6 minutes; open the solution after 12
#
# Another normalizer: `gelu_l2_norm` takes GeLU first and the norm after it, weights $= \tau\,\text{GeLU}(a)/\lvert\text{GeLU}(a)\rvert$. It was born with $\tau = \sqrt n$. Then m tokens with zero keys came, and the code made $\tau = \sqrt{n + m}$, as the release does. Which values for the n *old* tokens mend it?


# %%
def mended_value(key, value, tau, m):
    return ...


# %%
mended_value = check("mended_value", mended_value)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# By which factor did all weights become larger?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# One array, (n, o). `len(key)` is n.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def mended_value(key, value, tau, m):
#     return value * (len(key) / (len(key) + m)) ** 0.5
# ```
#
# With the paper's $\Theta$ nothing could be mended: there $\tau$ stands inside of GeLU, and small and large weights are stretched differently.
#
# </details>

# %% [markdown]
# ## 7. Softmax, everyone twice
#
# > **Puzzle 7: `softmax_values`** · difficulty ●●○○○ · importance ●●●○○ · 4 minutes; open the solution after 8
#
# Weights $= \tau^2\,\text{softmax}(a)$, the release's kind `softmax`, and $\tau$ is *held*. Which two values?


# %%
def softmax_values(key, value, tau):
    return ...


# %%
softmax_values = check("softmax_values", softmax_values)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Every exponential appears twice. What does that do to the sum below the fraction?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# Two arrays, (n, o) and (n, o).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def softmax_values(key, value, tau):
#     return value, value
# ```
#
# Each weight is halved and appears twice, so the two values must sum to $2V$. Zero keys cannot be mended at all: each takes $e^0$ of the sum.
#
# </details>

# %% [markdown]
# ## 8. Shrink
#
# > **Puzzle 8: `merged`** · difficulty ●●○○○ · importance ●●●○○ · 4 minutes; open the solution after 8
#
# A layer of 2n tokens: the keys are $[K; K]$, the values $[V_1; V_2]$. Return `value` and `tau` of a layer with the n keys $K$ that computes the same.
#
# $$\text{layer}(x, K, ?, ?) = \text{layer}(x, [K; K], [V_1; V_2], \tau)$$


# %%
def merged(key, first, second, tau):
    return ...


# %%
merged = check("merged", merged)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Puzzle 2, read from right to left.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# An array (n, o) and a number.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def merged(key, first, second, tau):
#     return first + second, tau / 2**0.5
# ```
#
# A reader asked whether tokens can be dropped again (issue #20). Twins can, and tokens with a zero key, without any change of the output.
#
# </details>

# %% [markdown]
# ## Together
#
# Puzzles 1 and 2 on the smallest layer of the course, by loops: before, after a newcomer, after doubling.

# %%
x, key = [2.0, 1.0], np.array([[2.0, -1.0], [1.0, 2.0]])
value, tau = np.array([[1.0], [10.0]]), math.sqrt(2)
first, second = two_values(key, value, tau)
layers = {
    "before": (key, value, tau),
    "newcomer": ([*key, new_key(key, value, tau)], [*value, [100.0]], tau),
    "doubled": ([*key, *key], [*first, *second], math.sqrt(2) * tau),
}
for name, arrays in layers.items():
    print(f"{name:8} {layer(x, *arrays)[0]:.6f}")

# %% [markdown]
# **Explain.** Eight answers, three facts: a zero score is invisible; copies lengthen the row by a root that $\tau$ can undo; values only add up.
#
# **Next**: [lesson 06](../06_grow_without_forgetting.ipynb) proves them, breaks them, and finds out what they are worth.
