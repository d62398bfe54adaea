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
# # Fit shapes in one line
#
# Twelve puzzles, from an outer product to the three gradients of Pattention. Each begins with a function that is obviously right and slow:
# loops. You write the same thing in one line.
#
# **You will be able to**
# - line axes up for broadcasting, and say which axis a product sums over
# - split heads and merge them
# - write the gradients of a Pattention as three products
#
# **You need**
# - NumPy: shapes, `@`, broadcasting; lesson 02 for puzzle 8, lesson 04 for puzzles 9 to 12
#
# **Minutes** 60; each puzzle says when to open its solution
#
# **Rules.** One `return` of at most 80 characters. No loop and no library call: `np.` stays out. Allowed are `@`, `+ - * / **`, comparisons, indexing, `len`, and an array's own
# `.T`, `.sum`, `.mean`, `.reshape`, `.swapaxes`, `.shape`. Letters in a shape are sizes, and all of them differ: with equal sizes a wrong line can run.
#
# Replace `...` and run the cell. The check tries your line on random shapes, and says what it looks like when it is wrong.

# %%
import numpy as np

from minitf import pattention_backward, pattention_forward
from minitf.checks import check

# %% [markdown]
# ## Line up
#
# An array of shape `(n,)` lies down: broadcasting puts it along the *last* axis. `a[:, None]` has the shape `(n, 1)` and stands.

# %% [markdown]
# ### 1. Every product
#
# > **Puzzle 1: `outer`** · difficulty ●○○○○ · importance ●●●●○ · 3 minutes; open the solution after 6
#
# `a` is (n,), `b` is (m,). Out comes (n, m).


# %%
def outer_loop(a, b):
    out = np.zeros((len(a), len(b)))
    for i, j in np.ndindex(out.shape):
        out[i, j] = a[i] * b[j]
    return out


def outer(a, b):
    return ...


# %%
outer = check("outer", outer)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Let `a` stand and `b` lie.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (n, 1) * (m,) → (n, m)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def outer(a, b):
#     return a[:, None] * b
# ```
#
# </details>

# %% [markdown]
# ### 2. The first half of a layer norm
#
# > **Puzzle 2: `center`** · difficulty ●○○○○ · importance ●●●●○ · 3 minutes; open the solution after 6
#
# `x` is (t, d). Every row gets the mean 0.


# %%
def center_loop(x):
    out = np.zeros(x.shape)
    for t, c in np.ndindex(x.shape):
        out[t, c] = x[t, c] - sum(x[t]) / len(x[t])
    return out


def center(x):
    return ...


# %%
center = check("center", center)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A mean per row has to be (t, 1) to line up with (t, d): `keepdims=True` leaves the 1.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (t, d) - (t, 1) → (t, d)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def center(x):
#     return x - x.mean(axis=-1, keepdims=True)
# ```
#
# </details>

# %% [markdown]
# ### 3. The norm inside Theta
#
# > **Puzzle 3: `unit_rows`** · difficulty ●●○○○ · importance ●●●●● · 3 minutes; open the solution after 6
#
# `a` is (t, n). Every row gets the length 1.


# %%
def unit_rows_loop(a):
    out = np.zeros(a.shape)
    for t, i in np.ndindex(a.shape):
        out[t, i] = a[t, i] / sum(score * score for score in a[t]) ** 0.5
    return out


def unit_rows(a):
    return ...


# %%
unit_rows = check("unit_rows", unit_rows)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `** 0.5` is a root. Where does `keepdims=True` go?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (t, n) / (t, 1) → (t, n)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def unit_rows(a):
#     return a / (a * a).sum(axis=-1, keepdims=True) ** 0.5
# ```
#
# </details>

# %% [markdown]
# ### 4. An embedding
#
# > **Puzzle 4: `pick`** · difficulty ●○○○○ · importance ●●●●○ · 2 minutes; open the solution after 4
#
# `table` is (v, d), `ids` are t integers below v. Out comes (t, d).


# %%
def pick_loop(table, ids):
    out = np.zeros((len(ids), table.shape[1]))
    for t, c in np.ndindex(out.shape):
        out[t, c] = table[ids[t], c]
    return out


def pick(table, ids):
    return ...


# %%
pick = check("pick", pick)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# An array of integers is an index, too.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (v, d) indexed by (t,) → (t, d)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def pick(table, ids):
#     return table[ids]
# ```
#
# </details>

# %% [markdown]
# ### 5. Who may look at whom
#
# > **Puzzle 5: `mask`** · difficulty ●●○○○ · importance ●●●●○ · 3 minutes; open the solution after 6
#
# `p` are the positions of t tokens, in any order. Row i is True where token i comes later than token j, or is token j. Out comes (t, t).


# %%
def mask_loop(p):
    out = np.zeros((len(p), len(p)), dtype=bool)
    for i, j in np.ndindex(out.shape):
        out[i, j] = p[i] >= p[j]
    return out


def mask(p):
    return ...


# %%
mask = check("mask", mask)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Puzzle 1, with another operation than `*`.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (t, 1) >= (t,) → (t, t)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def mask(p):
#     return p[:, None] >= p
# ```
#
# </details>

# %% [markdown]
# ## Heads
#
# A token of width $h \cdot e$ is cut into $h$ heads of width $e$: channels 0 to $e - 1$ are head 0. `reshape` keeps the order in which numbers lie in memory,
# it never moves one past another. `swapaxes` does.

# %% [markdown]
# ### 6. Cut
#
# > **Puzzle 6: `split_heads`** · difficulty ●●●○○ · importance ●●●●○ · 5 minutes; open the solution after 10
#
# `x` is (t, h e), `h` the number of heads. Out comes (h, t, e).


# %%
def split_heads_loop(x, h):
    e = x.shape[1] // h
    out = np.zeros((h, len(x), e))
    for i, t, c in np.ndindex(out.shape):
        out[i, t, c] = x[t, i * e + c]
    return out


def split_heads(x, h):
    return ...


# %%
split_heads = check("split_heads", split_heads)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# First cut every row, (t, h, e), then bring the heads to the front. `-1` lets `reshape` find a size.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (t, h e) → (t, h, e) → (h, t, e)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def split_heads(x, h):
#     return x.reshape(len(x), h, -1).swapaxes(0, 1)
# ```
#
# </details>

# %% [markdown]
# ### 7. And mend
#
# > **Puzzle 7: `merge_heads`** · difficulty ●●●○○ · importance ●●●●○ · 5 minutes; open the solution after 10
#
# `x` is (h, t, e). Out comes (t, h e): puzzle 6 backwards.


# %%
def merge_heads_loop(x):
    h, t, e = x.shape
    out = np.zeros((t, h * e))
    for i, s, c in np.ndindex(x.shape):
        out[s, i * e + c] = x[i, s, c]
    return out


def merge_heads(x):
    return ...


# %%
merge_heads = check("merge_heads", merge_heads)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Undo the steps of puzzle 6, the last one first.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (h, t, e) → (t, h, e) → (t, h e); the t is `x.shape[1]`
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def merge_heads(x):
#     return x.swapaxes(0, 1).reshape(x.shape[1], -1)
# ```
#
# </details>

# %% [markdown]
# ### 8. Every query meets every key, head by head
#
# > **Puzzle 8: `head_scores`** · difficulty ●●○○○ · importance ●●●●○ · 3 minutes; open the solution after 6
#
# `query` and `key` are (h, t, e). Out comes (h, t, t): row i of a head holds the scores of query i.


# %%
def head_scores_loop(query, key):
    h, t, e = query.shape
    out = np.zeros((h, t, t))
    for i, q, k, c in np.ndindex(h, t, t, e):
        out[i, q, k] += query[i, q, c] * key[i, k, c]
    return out


def head_scores(query, key):
    return ...


# %%
head_scores = check("head_scores", head_scores)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `@` multiplies the last two axes and keeps the others. `.T` would reverse all three.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (h, t, e) @ (h, e, t) → (h, t, t)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def head_scores(query, key):
#     return query @ key.swapaxes(1, 2)
# ```
#
# </details>

# %% [markdown]
# ## Gradients
#
# The layer is $\text{out} = f(XK^\top)\,V$, with $f$ entry by entry: lesson 02's MLP. `x` is (t, d), `key` (n, d), `value` (n, o), `dout` (t, o). `weights`, (t, n), is $f$ of the
# scores, `slope`, (t, n), is $f'$ of the scores. A gradient has the shape of its array, and an index that is not in that shape is summed over: all paths add up.

# %% [markdown]
# ### 9. Back through the norm of puzzle 3
#
# > **Puzzle 9: `norm_backward`** · difficulty ●●●●○ · importance ●●●●● · 8 minutes; open the solution after 16
#
# `u` are the unit rows, (t, n), `length` is (t, 1), `du` is (t, n). Out comes the gradient of the rows before the norm. The loop follows every path from entry i to entry j.


# %%
def norm_backward_loop(du, u, length):
    da = np.zeros(u.shape)
    for t, i, j in np.ndindex(*u.shape, u.shape[1]):
        da[t, i] += du[t, j] * ((i == j) - u[t, j] * u[t, i]) / length[t, 0]
    return da


def norm_backward(du, u, length):
    return ...


# %%
norm_backward = check("norm_backward", norm_backward)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The path $i = j$ gives `du / length`. In the others, $\sum_j du_j u_j$ is one number per row.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# ((t, n) - (t, n) * (t, 1)) / (t, 1) → (t, n)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def norm_backward(du, u, length):
#     return (du - u * (u * du).sum(axis=-1, keepdims=True)) / length
# ```
#
# </details>

# %% [markdown]
# ### 10. The gradient of the values, for a batch
#
# > **Puzzle 10: `dvalue`** · difficulty ●●●○○ · importance ●●●●● · 5 minutes; open the solution after 10
#
# Here `weights` is (b, t, n) and `dout` (b, t, o): b sequences share one `value`. Out comes (n, o).


# %%
def dvalue_loop(weights, dout):
    out = np.zeros((weights.shape[2], dout.shape[2]))
    for b, t, i, o in np.ndindex(*weights.shape, dout.shape[2]):
        out[i, o] += weights[b, t, i] * dout[b, t, o]
    return out


def dvalue(weights, dout):
    return ...


# %%
dvalue = check("dvalue", dvalue)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One product per sequence sums over t; then sum over b.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (b, n, t) @ (b, t, o) → (b, n, o) → (n, o)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def dvalue(weights, dout):
#     return (weights.swapaxes(1, 2) @ dout).sum(axis=0)
# ```
#
# </details>

# %% [markdown]
# ### 11. The gradient of the keys
#
# > **Puzzle 11: `dkey`** · difficulty ●●●●○ · importance ●●●●● · 8 minutes; open the solution after 16
#
# Out comes (n, d).


# %%
def dkey_loop(dout, value, slope, x):
    out = np.zeros((len(value), x.shape[1]))
    for t, o, i, c in np.ndindex(*dout.shape, *out.shape):
        out[i, c] += dout[t, o] * value[i, o] * slope[t, i] * x[t, c]
    return out


def dkey(dout, value, slope, x):
    return ...


# %%
dkey = check("dkey", dkey)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# From the right end to the left: `dout` to the weights (t, n), through $f$, to the keys.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (t, o) @ (o, n) → (t, n); (n, t) @ (t, d) → (n, d)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def dkey(dout, value, slope, x):
#     return ((dout @ value.T) * slope).T @ x
# ```
#
# </details>

# %% [markdown]
# ### 12. The gradient of the input
#
# > **Puzzle 12: `dx`** · difficulty ●●●○○ · importance ●●●●● · 5 minutes; open the solution after 10
#
# Out comes (t, d).


# %%
def dx_loop(dout, value, slope, key):
    out = np.zeros((len(dout), key.shape[1]))
    for t, o, i, c in np.ndindex(*dout.shape, *key.shape):
        out[t, c] += dout[t, o] * value[i, o] * slope[t, i] * key[i, c]
    return out


def dx(dout, value, slope, key):
    return ...


# %%
dx = check("dx", dx)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# As puzzle 11 up to the scores; then sum over n.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (t, o) @ (o, n) → (t, n); (t, n) @ (n, d) → (t, d)
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def dx(dout, value, slope, key):
#     return ((dout @ value.T) * slope) @ key
# ```
#
# </details>

# %% [markdown]
# ## Together
#
# With $f = \text{GeLU}$ puzzles 10 to 12 are the backward of a Pattention of kind `gelu`. The paper's $\Theta$ puts puzzle 3 in front of GeLU, so its backward
# puts puzzle 9 behind `slope`. The library should agree:

# %%
rng = np.random.default_rng(0)
shapes = {"x": (3, 4), "key": (5, 4), "value": (5, 6), "dout": (3, 6)}
x, key, value, dout = (rng.standard_normal(shape) for shape in shapes.values())
_, cache = pattention_forward(x, key, value, kind="gelu")
z, cdf, pdf = cache.theta.gelu
slope = cdf + z * pdf
yours = (
    dx(dout, value, slope, key),
    dkey(dout, value, slope, x),
    dvalue(cache.weights[None], dout[None]),
)
for name, mine, library in zip(
    ("dx", "dkey", "dvalue"), yours, pattention_backward(dout, cache), strict=True
):
    print(f"{name:6} agrees with the library: {np.allclose(mine, library)}")

# %% [markdown]
# **Next**: the [growth puzzles](p2_keep_the_function.ipynb).
