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
# # Backpropagate by hand, and prove it
#
# Training asks every parameter: if I nudge you, how does the loss change? The answer is the gradient.
# You derive the gradients of Pattention, write them in NumPy, and then prove that they are right.
#
# **You will be able to**
# - derive the backward pass of a matrix product, GeLU, the L2 norm, softmax, layer norm and Pattention
# - explain why a token with zero key and zero value never learns
# - check a gradient by finite differences, with the right step, and see where a bug sits
# - find three bugs in a backward that somebody else wrote
#
# **You need**
# - lesson 02, and partial derivatives
#
# **Minutes** 60 to read, 1 to run
#
# **Equations covered** 4 and 25 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168)

# %%
import itertools
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf.checks import check
from minitf.plot import show, style

style()
np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A matrix product, and the only shape that fits
#
# The loss $L$ is one number. We write $dX$ for the array of $\partial L/\partial X_{tc}$, so a gradient has the shape of its array.
# Backpropagation hands us $dA$ for an output $A$; we owe it the gradients of the inputs.
#
# **Predict.** In lesson 02 the input $(2, 1)$ met the keys $(2, -1)$ and $(1, 2)$ and got the scores $(3, 4)$. Say $dA = (1, 10)$.
# Nudge the first input by $h$: the scores move by $2h$ and $1h$, the loss by $1 \cdot 2h + 10 \cdot 1h$. So $dx_1 = 12$. What is $dx_2$?
#
# **Derive.** $A = XK^\top$ says $A_{ti} = \sum_c X_{tc} K_{ic}$. The entry $X_{tc}$ reaches the loss through every $A_{ti}$ of its row, with slope $K_{ic}$;
# $K_{ic}$ through every $A_{ti}$ of its column, with slope $X_{tc}$. The chain rule adds the paths:
#
# $$dX_{tc} = \sum_i dA_{ti} K_{ic} \;\Rightarrow\; dX = dA\,K \qquad\qquad dK_{ic} = \sum_t dA_{ti} X_{tc} \;\Rightarrow\; dK = dA^\top X$$
#
# No need to memorize: with $dA: (T, n)$, $X: (T, d)$, $K: (n, d)$ these are the only products of the right shape.


# %%
def product_backward_loop(da, x, key):
    dx, dkey = np.zeros_like(x), np.zeros_like(key)
    for t, i, c in np.ndindex(len(x), len(key), x.shape[1]):  # every path
        dx[t, c] += da[t, i] * key[i, c]
        dkey[i, c] += da[t, i] * x[t, c]
    return dx, dkey


def product_backward(da, x, key):
    return da @ key, da.T @ x


# %%
x, key = np.array([[2.0, 1.0]]), np.array([[2.0, -1.0], [1.0, 2.0]])
da = np.array([[1.0, 10.0]])
print("by hand: dx = (1*2 + 10*1, 1*-1 + 10*2) =", (1 * 2 + 10 * 1, 1 * -1 + 10 * 2))
for name, backward in {"loop": product_backward_loop, "matrix": product_backward}.items():
    dx, dkey = backward(da, x, key)
    print(f"{name:7}: dx = {dx.tolist()}, dkey = {dkey.tolist()}")

# %% [markdown]
# **Check.** A derivative can be measured: nudge one entry up and down by $h$, and divide the difference by $2h$.
#
# > **Exercise 04.1: `numerical_gradient`** · difficulty ●●○○○ · importance ●●●●○ · 8 minutes; open the solution after 12
# >
# > Measure the slope of `f`, which takes an array and returns a number, against every entry of `x`, one entry at a time.


# %%
def numerical_gradient(f, x, h=1e-6):
    """(f(x + nudge) - f(x - nudge)) / 2h for a nudge of h in each entry of x; the shape of x"""
    ...


# %%
numerical_gradient = check("numerical_gradient", numerical_gradient)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `np.ndindex(x.shape)` gives the index of every entry. Do not change `x` itself.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `nudge` is an array like `x`, all 0 but for one entry, which is $h$. `f(x + nudge)` is one number, the gradient an array like `x`.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def numerical_gradient(f, x, h=1e-6):
#     grad = np.zeros_like(x)
#     for i in np.ndindex(x.shape):
#         nudge = np.zeros_like(x)
#         nudge[i] = h
#         grad[i] = (f(x + nudge) - f(x - nudge)) / (2 * h)
#     return grad
# ```
#
# </details>
#
# To get one number from many outputs, weigh them with random numbers $G$: $L = \sum_{ti} A_{ti} G_{ti}$. Then $dA = G$.


# %%
def close(a, b, tolerance=1e-12):
    return a.shape == b.shape and bool(np.abs(a - b).max() < tolerance)


x, key, G = (rng.standard_normal(shape) for shape in ((3, 2), (4, 2), (3, 4)))
dx, dkey = product_backward(G, x, key)
measured = numerical_gradient(lambda x: ((x @ key.T) * G).sum(), x)
print("loop = matrix:      ", close(product_backward_loop(G, x, key)[1], dkey))
print("formula = measured: ", close(dx, measured, 1e-8))

# %% [markdown]
# ## 2. GeLU
#
# **Derive.** $\text{GeLU}(z) = z\,\Phi(z)$. The distribution $\Phi$ is the integral of the density $\varphi$, so $\Phi' = \varphi$, and the product rule gives
#
# $$\text{GeLU}'(z) = \Phi(z) + z\,\varphi(z), \qquad dz_i = dw_i \left(\Phi(z_i) + z_i\,\varphi(z_i)\right).$$
#
# Each entry has one path only, so nothing is summed. **Predict** the slope at $z = 0$, and whether a slope can exceed 1.

# %%
z = np.array([-3.0, 0.0, 1.0, 3.0])
cdf, pdf = minitf.normal_cdf_pdf(z)  # Phi and phi
slope = cdf + z * pdf
print("slope", slope)
measured = numerical_gradient(lambda z: minitf.gelu_forward(z)[0].sum(), z)
print("measured:", close(slope, measured, 1e-8))

# %% [markdown]
# ## 3. The L2 norm removes a direction
#
# $u = a/\lvert a\rvert$ is the heart of $\Theta$. Make $a$ longer, and $u$ stays. So the gradient cannot point along $a$.
#
# **Derive.** From $\lvert a\rvert = \sqrt{\sum_k a_k^2}$ we get $\partial \lvert a\rvert/\partial a_i = 2a_i / (2\lvert a\rvert) = u_i$. The quotient rule, with $\delta_{ij} = 1$ if $i = j$ and 0 otherwise:
#
# $$\frac{\partial u_j}{\partial a_i} = \frac{\delta_{ij}\,\lvert a\rvert - a_j\,u_i}{\lvert a\rvert^2} = \frac{\delta_{ij} - u_j u_i}{\lvert a\rvert},$$
#
# $$da_i = \sum_j du_j \frac{\delta_{ij} - u_j u_i}{\lvert a\rvert} = \frac{du_i - u_i\,(u \cdot du)}{\lvert a\rvert}$$
#
# **Predict.** For $a = (3, 4)$: $\lvert a\rvert = 5$, $u = (0.6, 0.8)$. Let $du = (1, 0)$. What is $u \cdot du$, what is $da$, and what is $a \cdot da$?


# %%
def norm_backward_loop(du, a):
    length = math.sqrt(sum(v * v for v in a))
    da = np.zeros_like(a)
    for i, j in np.ndindex(len(a), len(a)):  # the path a[i] -> u[j]
        da[i] += du[j] * ((i == j) - a[j] * a[i] / length**2) / length
    return da


def norm_backward(du, u, length):
    return (du - u * (u * du).sum(axis=-1, keepdims=True)) / length  # row by row


# %%
a, du = np.array([3.0, 4.0]), np.array([1.0, 0.0])
by_hand = np.array([(1 - 0.6 * 0.6) / 5, (0 - 0.8 * 0.6) / 5])
da = norm_backward(du, a / 5, 5.0)
print("by hand", by_hand, " loop", norm_backward_loop(du, a), " formula", da)
print("a . da = 3 * 0.128 - 4 * 0.096 =", f"{3 * 0.128 - 4 * 0.096:.3f}")

# %% [markdown]
# **Explain.** $u\,(u \cdot du)$ is the part of $du$ that lies along the row. Subtracting it is a *projection*: $da$ stands at a right angle to $a$.
# And the longer the row, the less a nudge turns it: hence $1/\lvert a\rvert$.
#
# ## 4. Theta
#
# **Derive.** $\Theta$ is three steps: $u = a/\lvert a\rvert$, $z = \tau u$, $w = \text{GeLU}(z)$. From the last to the first:
#
# $$dz = dw \odot \text{GeLU}'(z), \qquad du = \tau\,dz,$$
#
# $$da = \frac{du - u\,(u \cdot du)}{\lvert a\rvert} = \frac{\tau}{\lvert a\rvert}\left(dz - \frac{z\,(z \cdot dz)}{\tau^2}\right).$$
#
# ($\odot$ multiplies entry by entry; the last form replaces $u$ by $z/\tau$.) With $\tau = \sqrt n$ and $f$ for GeLU this is equation 25 of the paper:
#
# $$\frac{\partial w_i}{\partial a_j} = \frac{f'(z_i)}{\sqrt n\,\lvert a\rvert}\left(n\,\delta_{ij} - z_i z_j\right).$$
#
# **Code.** The library's forward keeps what we need in its cache: `gelu` holds $z$, $\Phi(z)$, $\varphi(z)$; `normed` is $u$; `inverse_norm` is $1/\lvert a\rvert$.
#
# > **Exercise 04.2: `theta_backward`** · difficulty ●●●○○ · importance ●●●●● · 10 minutes; open the solution after 15
# >
# > Write the three steps above, row by row, for any number of axes before the last.


# %%
def theta_backward(dweights, cache):
    """dweights (..., n) -> dscores (..., n); cache: tau, gelu, normed, inverse_norm"""
    ...


# %%
theta_backward = check("theta_backward", theta_backward)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One line for each step of the forward, from the last to the first. The last line is `norm_backward` of section 3.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# Everything is (..., n), but `inverse_norm` and the dot product $u \cdot du$, `(u * du).sum(axis=-1, keepdims=True)`, are (..., 1).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def theta_backward(dweights, cache):
#     z, cdf, pdf = cache.gelu
#     dz = dweights * (cdf + z * pdf)  # weights = GeLU(z)
#     du = cache.tau * dz  # z = tau u
#     u = cache.normed
#     return cache.inverse_norm * (du - u * (u * du).sum(axis=-1, keepdims=True))
# ```
#
# </details>
#
# **Check** on the 3-4-5 row, then against equation 25 as a full matrix and against the library.

# %%
_, cache = minitf.theta_forward(np.array([[3.0, 4.0]]))
print("z", cache.gelu.x, " da", theta_backward(np.array([[1.0, 0.0]]), cache))

a, dw = rng.standard_normal((1, 4)), rng.standard_normal((1, 4))
_, cache = minitf.theta_forward(a)
(z,), (cdf,), (pdf,) = cache.gelu  # one row each, n = 4
jacobian = (
    (cdf + z * pdf)[:, None] / (2 * np.linalg.norm(a)) * (4 * np.eye(4) - np.outer(z, z))
)
print("equation 25:", close(dw @ jacobian, theta_backward(dw, cache)))
print("library:    ", close(minitf.theta_backward(dw, cache), theta_backward(dw, cache)))

# %% [markdown]
# ## 5. The same pattern: softmax, layer norm, cross-entropy
#
# Every normalizer ignores some direction, and its backward removes it.
#
# **Softmax**, $w_i = e^{a_i}/\sum_k e^{a_k}$, ignores a constant added to all scores. Differentiate $\log w_i = a_i - \log \sum_k e^{a_k}$;
# the last term has the slope $e^{a_j}/\sum_k e^{a_k} = w_j$:
#
# $$\frac{1}{w_i}\frac{\partial w_i}{\partial a_j} = \delta_{ij} - w_j \qquad\Rightarrow\qquad da_j = \sum_i dw_i\, w_i\,(\delta_{ij} - w_j) = w_j\,(dw_j - w \cdot dw).$$
#
# **Cross-entropy**, $L = -\log w_y$ for the right answer $y$, has by the equation on the left $da_j = w_j - \delta_{yj}$: probability minus truth.
#
# **Layer norm** centers, $c = x - \text{mean}(x)$, and divides by the standard deviation $\lvert c\rvert/\sqrt d$. That is our norm with $\tau = \sqrt d$.
# For the centering, $\partial c_i/\partial x_j = \delta_{ij} - 1/d$, so $dx_j = \sum_i dc_i (\delta_{ij} - 1/d) = dc_j - \text{mean}(dc)$.


# %%
def layer_norm_backward(dout, x):
    c = x - x.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(c, axis=-1, keepdims=True)
    dc = norm_backward(math.sqrt(x.shape[-1]) * dout, c / length, length)
    return dc - dc.mean(axis=-1, keepdims=True)


x, dout = rng.standard_normal((2, 3, 5))
_, cache = minitf.layer_norm_forward(x, eps=0.0)
library = minitf.layer_norm_backward(dout, cache)
print("layer norm:", close(layer_norm_backward(dout, x), library))
sums = minitf.softmax_backward(dout, minitf.softmax_forward(x)[0]).sum(axis=-1)
print("softmax ignores a constant, so each row of da sums to 0:", close(sums, np.zeros(3)))

# %% [markdown]
# The rest of a TokenFormer is quickly said. Token-token attention is two matrix products around a softmax. A residual $x + f(x)$ has two paths: add both gradients.
# An embedding row looked up twice gets the sum of both gradients. A rotation (positions) turns back.
#
# ## 6. Pattention
#
# **Derive.** Three steps forward, so three backward, in reverse. Two are matrix products, and we know what fits:
#
# | forward | backward |
# |---|---|
# | $A = XK^\top$ | $dX = dA\,K, \quad dK = dA^\top X$ |
# | $W = \Theta(A)$ | $dA = $ `theta_backward` $(dW)$ |
# | $\text{out} = WV$ | $dW = d\text{out}\,V^\top, \quad dV = W^\top d\text{out}$ |
#
# > **Exercise 04.3: `pattention_backward`** · difficulty ●●●○○ · importance ●●●●● · 10 minutes; open the solution after 15
# >
# > Write the table for one sequence. Call `theta_rule` for the middle line: section 8 will put wrong rules in.


# %%
def pattention_backward(dout, cache, theta_rule=theta_backward):
    """dout (T, d_out); cache: x, key, value, scores, weights, theta -> dx, dkey, dvalue"""
    ...


# %%
pattention_backward = check("pattention_backward", pattention_backward)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Start from the bottom of the table. The middle line is `theta_rule(dweights, cache.theta)`.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `dout` is (T, d_out), `cache.weights` (T, n), `cache.value` (n, d_out). So `dvalue` is (n, T) times (T, d_out), and `dweights` (T, d_out) times (d_out, n).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def pattention_backward(dout, cache, theta_rule=theta_backward):
#     dvalue = cache.weights.T @ dout  # out = weights @ value
#     dweights = dout @ cache.value.T
#     dscores = theta_rule(dweights, cache.theta)  # weights = theta(scores)
#     dkey = dscores.T @ cache.x  # scores = x @ key.T
#     dx = dscores @ cache.key
#     return dx, dkey, dvalue
# ```
#
# </details>

# %%
shapes = {"x": (3, 2), "key": (4, 2), "value": (4, 5)}  # T=3, d_in=2, n=4, d_out=5
arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
out, cache = minitf.pattention_forward(**arrays)
dout = rng.standard_normal(out.shape)
mine, library = pattention_backward(dout, cache), minitf.pattention_backward(dout, cache)
print({name: close(a, b) for name, a, b in zip(arrays, mine, library, strict=True)})

# %% [markdown]
# ## 7. Which new tokens learn?
#
# We append tokens to a trained layer. A zero key is tempting: its score is 0, its weight $\text{GeLU}(0) = 0$, and the output stays as it was.
#
# **Predict.** Which gradients of the new tokens are exactly zero? **Break it**: set `SIZE` to `1e-9`.

# %%
SIZE = 1.0
keys = {"zero": np.zeros((2, 2)), "random": rng.standard_normal((2, 2))}
values = {"zero": np.zeros((2, 5)), "random": SIZE * rng.standard_normal((2, 5))}
for k, v in itertools.product(keys, values):
    key = np.concatenate([arrays["key"], keys[k]])
    value = np.concatenate([arrays["value"], values[v]])
    _, cache = minitf.pattention_forward(
        arrays["x"], key, value, tau=2.0
    )  # held at sqrt(4)
    _, dkey, dvalue = pattention_backward(dout, cache)
    dk, dv = np.abs(dkey[4:]).max(), np.abs(dvalue[4:]).max()
    print(f"key {k:6} value {v:6}: largest dkey {dk:.2e}, dvalue {dv:.2e}")

# %% [markdown]
# **Explain.** Follow a new token $i$ with $k_i = 0$. In every row $a_i = 0$, so $z_i = 0$ and $w_i = 0$. Going back:
#
# $$dv_i = \sum_t w_{ti}\, d\text{out}_t = 0, \qquad dz_{ti} = \tfrac12\, d\text{out}_t \cdot v_i, \qquad dk_i = \sum_t \frac{\tau}{\lvert a_t\rvert}\,dz_{ti}\, x_t,$$
#
# because $\text{GeLU}'(0) = \Phi(0) = \tfrac12$ and the projection $z_i(z \cdot dz)$ is 0 where $z_i$ is 0. With a random value, the key moves first and the value follows
# in the next step. With $v_i = 0$ too, nothing moves, so both gradients are 0 in the next step as well. The token is **dead** for good. A tiny value is not dead:
# its gradient is tiny, as your broken cell shows, but not zero. (A random key learns even with a zero value, through the projection. But it lengthens the row of scores, so the output changes.)
#
# ## 8. Prove it
#
# Agreeing with a library proves little if both make one mistake. `check_gradients` does to every argument what your `numerical_gradient` does, and reports.
#
# **Break it.** Three bugs that real people write. **Predict** for each which of `x`, `key`, `value` the report will call wrong.


# %%
def no_projection(dweights, cache):
    z, cdf, pdf = cache.gelu
    return cache.inverse_norm * cache.tau * dweights * (cdf + z * pdf)


def no_tau(dweights, cache):
    return theta_backward(dweights, cache._replace(tau=1.0))  # a changed copy


def transposed(dout, cache):
    dx, dkey, dvalue = pattention_backward(dout, cache)
    return dx, dkey.T, dvalue


# %%
for rule in (theta_backward, no_projection, no_tau):
    backward = partial(pattention_backward, theta_rule=rule)  # theta_rule filled in
    report = minitf.check_gradients(minitf.pattention_forward, backward, arrays)
    print(f"{rule.__name__}:\n{report}")
try:
    minitf.check_gradients(minitf.pattention_forward, transposed, arrays)
except ValueError as error:
    print("transposed:", error)

# %% [markdown]
# **See** which lines are wrong, and by which ratio. **Explain.**
# - `value` right, `key` and `x` wrong: the bug sits in $\Theta$, between `dweights` and `dscores`.
# - `no_tau`: expected is $2 = \sqrt 4$ times got, in both lines. A constant ratio is a forgotten *factor*.
# - `no_projection`: no constant ratio. A forgotten *term*.
# - `transposed`: the shape gives it away, because $n \ne d$. Test with sizes that all differ.
#
# Now you. Somebody wrote the backward of attention (lesson 01: one head, no mask) and planted three bugs. It runs, and all shapes are right.


# %%
def attention_forward(query, key, value):
    weights, _ = minitf.softmax_forward(query @ key.T / math.sqrt(query.shape[1]))
    return weights @ value, (query, key, value, weights)


def planted_backward(dout, cache):
    query, key, value, weights = cache
    dvalue = weights @ dout
    dweights = dout @ value.T
    average = dweights.sum(axis=-1, keepdims=True)
    dscores = weights * (dweights - average)
    dkey = dscores.T @ query
    dquery = dscores @ key / math.sqrt(query.shape[1])
    return dquery, dkey, dvalue


three = {"query": (3, 4), "key": (3, 4), "value": (3, 5)}
three = {name: rng.standard_normal(shape) for name, shape in three.items()}
print(minitf.check_gradients(attention_forward, planted_backward, three))

# %% [markdown]
# > **Exercise 04.4: `attention_backward`** · difficulty ●●●●○ · importance ●●●○○ · 15 minutes; open the solution after 20
# >
# > Copy `planted_backward` and mend it. Print the report on your function under it, as in the cell above, after every change: which lines are wrong, and by
# > which ratio, tells you where to look.


# %%
def attention_backward(dout, cache):
    """dout (T, d_out); cache: query, key, value, weights -> dquery, dkey, dvalue"""
    ...


# %%
attention_backward = check("attention_backward", attention_backward)
assert minitf.check_gradients(attention_forward, attention_backward, three).ok

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `dvalue` does not meet the other two: mend it first. `query` and `key` are both wrong, so look at what they share, and compare it with section 5. Then one of them is still wrong, by one ratio.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `weights` is (T, T), and so is its transpose: no shape gives that away. `average` is (T, 1), one number per row of `weights`. The scores were divided by $\sqrt d$, and $d = 4$.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def attention_backward(dout, cache):
#     query, key, value, weights = cache
#     dvalue = weights.T @ dout
#     dweights = dout @ value.T
#     average = (weights * dweights).sum(axis=-1, keepdims=True)
#     dscores = weights * (dweights - average) / math.sqrt(query.shape[1])
#     dkey = dscores.T @ query
#     dquery = dscores @ key
#     return dquery, dkey, dvalue
# ```
#
# </details>
#
# Nudges prove that the backward belongs to *this* forward. Whether the forward is the paper's, they cannot know. For that one needs an independent judge:
# `tests/test_parity_torch.py` lets torch differentiate a second implementation, written from the equations.
#
# **The whole model.** Nudging every entry costs two runs per parameter. Cheaper: nudge *all* parameters at once, along one random direction $v$.
# The slope must be $\sum g\,v$. Two runs serve any model, but tell only *that* something is wrong.

# %%
sizes = {"d_model": 8, "n_heads": 2, "attention_tokens": 6, "ffn_tokens": 12}
config = minitf.TokenformerConfig(vocab_size=11, context=8, n_layers=2, **sizes)
params = minitf.init_params(config, dtype=np.float64)
ids = rng.integers(0, 11, (2, 9))


def right(params):
    return minitf.loss_and_grads(params, ids[:, :-1], ids[:, 1:], config)


def wrong(params):
    loss, grads = right(params)
    grads["block_0"]["ffn"]["key"] *= 1.1  # one array of 23, 10 percent too large
    return loss, grads


print("parameters:", minitf.count_parameters(config))
for gradients in (right, wrong):  # keys are about 0.02 here, so the step is small
    error = minitf.tree_directional_error(gradients, params, seed=1, step=1e-7)
    print(f"{gradients.__name__}: relative error below 1e-5:", error < 1e-5)

# %% [markdown]
# ## 9. The figure: how small a step?
#
# **Predict.** A smaller $h$ comes closer to the derivative. So is $h = 10^{-13}$ the best step?
#
# **Derive.** Taylor's series for both sides, $f(\pm h) = f \pm hf' + \tfrac{h^2}{2}f'' \pm \tfrac{h^3}{6}f''' + \dots$ In the difference the even terms cancel:
#
# $$\frac{f(h) - f(-h)}{2h} = f' + \frac{h^2}{6}f''' + \dots$$
#
# The *truncation* error falls like $h^2$. But $f(h)$ is stored with a relative error of about $\varepsilon$ (float64: $2 \cdot 10^{-16}$), and dividing the difference by $2h$ makes a
# *rounding* error of about $\varepsilon\lvert f\rvert/h$, which grows as $h$ shrinks. The sum $E(h) = Ch^2 + \varepsilon D/h$ is smallest where $E' = 2Ch - \varepsilon D/h^2 = 0$:
#
# $$h = \left(\frac{\varepsilon D}{2C}\right)^{1/3}.$$
#
# With $C$ and $D$ near 1 that is $h \approx \varepsilon^{1/3} = 6 \cdot 10^{-6}$, with an error of $E \approx \varepsilon^{2/3} = 4 \cdot 10^{-11}$.
#
# **Code.** Nudge `x`, `key` and `value` together, along 20 random directions, with 25 steps $h$. A V-curve is the error of the measured slopes against $\sum g\,v$.
# Beside the right gradient we draw two wrong ones. One lacks the projection. The other, a small slip, takes GeLU's slope from the tanh formula
# while the forward is exact.

# %%
steps = 10.0 ** np.arange(-1, -13.5, -0.5)
directions = [[rng.standard_normal(a.shape) for a in arrays.values()] for _ in range(20)]


def loss(direction, h, dtype):
    pairs = zip(arrays.values(), direction, strict=True)
    out, _ = minitf.pattention_forward(*((a + h * v).astype(dtype) for a, v in pairs))
    return float((out * dout.astype(dtype)).sum())


def v_curve(grads, dtype):
    exact = [sum((g * v).sum() for g, v in zip(grads, d, strict=True)) for d in directions]
    errors = []
    for h in steps:
        measured = [(loss(d, h, dtype) - loss(d, -h, dtype)) / (2 * h) for d in directions]
        errors.append(np.linalg.norm(np.subtract(measured, exact)) / np.linalg.norm(exact))
    return np.array(errors)


# %%
def tanh_slope(dweights, cache):
    _, gelu = minitf.gelu_forward(cache.gelu.x, approximate="tanh")
    return theta_backward(dweights, cache._replace(gelu=gelu))


_, cache = minitf.pattention_forward(**arrays)
rules = (theta_backward, no_projection, tanh_slope)
correct, unprojected, slipped = (pattention_backward(dout, cache, rule) for rule in rules)
curves = {
    "float64, right": v_curve(correct, np.float64),
    "float32, right": v_curve(correct, np.float32),
    "float64, no projection": v_curve(unprojected, np.float64),
    "float64, tanh slope": v_curve(slipped, np.float64),
}

# %%
arm = curves["float64, right"]
fall = math.log10(arm[2] / arm[6]) / 2  # from h = 1e-2 to h = 1e-4
floors = [
    curves[f"float64, {bug}"][8] for bug in ("no projection", "tanh slope")
]  # h = 1e-5
digest = f"right falls with slope {fall:.1f}; floors {floors[0]:.2g} and {floors[1]:.2g}"
alt = "Log-log plot of the relative error of a measured slope against the step h. The "
alt += "right gradient in float64 makes a V: it falls with the square of h to about 1e-10 near "
alt += "h = 1e-6 and rises again as 1/h. In float32 the V is higher, lowest near h = 1e-3. "
alt += "Both wrong gradients run into flat floors, at about 1 and at 0.0002."

# %%
fig, ax = plt.subplots(figsize=(7.5, 5))
for name, curve in curves.items():
    ax.loglog(steps, curve, label=name)
guide = {"color": "gray", "marker": "", "linestyle": "-", "linewidth": 1}
slopes = "truncation: slope 2, rounding: -1"
ax.loglog(steps[1:10], 5 * steps[1:10] ** 2, label=slopes, **guide)
ax.loglog(steps[11:], 5e-16 / steps[11:], **guide)
ax.set(xlabel="step h (in units of the parameters)", ylim=(3e-12, 30))
ax.set_ylabel("relative error of the slope (no unit)")
ax.legend(loc="lower left")
show(fig, alt=alt, digest=digest)

# %% [markdown]
# **Explain.** A right gradient makes a V: truncation on the right arm, rounding on the left. The right arm passes $2 \cdot 10^{-3}$ at $h = 10^{-2}$, so $C \approx 20$, and the lowest
# point lies at $(\varepsilon/40)^{1/3} \approx 2 \cdot 10^{-6}$. In float32, with $\varepsilon = 10^{-7}$, it lies near $10^{-3}$, at an error of $10^{-4}$: a slip smaller than that hides there.
# A wrong gradient makes a floor that no step gets below. So check in float64, with $h$ near $10^{-6}$.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | gradients | eq. 25, the Jacobian of $\Theta$ | torch's autograd | by hand, `pattention.py` |
# > | slope of the norm | eq. 18, in our copy, lacks a square: $\lVert A\rVert_2 - A_i^2$ | | section 3 |
# > | a row of zero scores | undefined | NaN; the TPU code adds 1e-5 to the norm | weights and gradients 0 |
# > | new tokens | zero keys, random values (section 3.3) | GPU code: both random; TPU switch `load_parameters_zero_init`: both zero, dead | `grow`: zero keys, random values |
#
# ## Summary
#
# - A gradient has the shape of its array; for matrix products only one product fits.
# - Backward is forward read from the bottom up, one line per line.
# - Normalizers ignore a direction, and their backward projects it out.
# - Zero key and zero value is dead; zero key and random value learns.
# - Check with random weights on the output, different sizes, float64, and $h$ near $\varepsilon^{1/3}$ or a little below.
#
# ## Quiz
#
# 1. Somebody checks softmax with $L = \sum_i w_i$. A backward that returns only zeros passes. Why?
#
# <details><summary>Answer</summary>
#
# The weights always sum to 1, so the gradient of *this* $L$ is zero. Random weights $G$ on the outputs avoid such accidents.
#
# </details>
#
# 2. The report calls `value` wrong, `key` and `x` right. Where do you look?
#
# <details><summary>Answer</summary>
#
# At the line `dvalue = ...`: `dkey` and `dx` do not pass through it.
#
# </details>
#
# 3. You forget $\tau$ in the forward and in the backward. What does the check say, and who notices?
#
# <details><summary>Answer</summary>
#
# All is well: the backward belongs to that forward. Only an independent implementation notices.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, ICLR 2025, arXiv 2410.23168: section 3.3; appendix A, eq. 16 to 25.
# - Nocedal and Wright, *Numerical Optimization*, 2006: section 8.1 (finite differences).
# - Released code, github.com/Haiyang-W/TokenFormer: class `Pattention`; `tokenformer-tpu/MaxText/max_utils.py`.
#
# **Next**: lesson 05 puts these layers together and trains them on Shakespeare.
