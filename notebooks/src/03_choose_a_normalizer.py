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
# # Choose a normalizer
#
# $\Theta$ turns scores into weights: in TokenFormer by a norm and a GeLU, not by softmax. Why? A layer that is to grow from 4
# parameter tokens to 4096 must neither fall silent nor shout on the way. You compare six candidates.
#
# **You will be able to**
# - predict from the scores how loud a layer speaks and how much gradient passes it
# - say what $\sqrt n$, the order of norm and GeLU, and eps are for
# - answer two readers: is "softmax" in the code softmax (issue #9)? Where is $\sqrt n$ (issue #16)?
#
# **You need**
# - lesson 02 (Pattention), and softmax with its backward from lesson 01
#
# **Minutes** 45 to read, 1 to run
#
# **Equations covered** 4 and 16 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168), and its table 4

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf.checks import check
from minitf.plot import band, show, slider, style

style()
np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. Two moves, six candidates
#
# Every candidate is made of two moves. **Bend**: $e^a$ or GeLU, so that the layer is not linear. **Normalize**: divide a row by the sum
# of its absolute values (L1) or by its length (L2), and set the size with a factor. The order matters.
#
# | name | first | then | kind in `minitf` |
# |---|---|---|---|
# | softmax | exp | L1 | `softmax` with `tau=1` |
# | n softmax | exp | L1, times $n$ | `softmax` |
# | GeLU | GeLU | nothing: an MLP | `gelu` |
# | GeLU, L2 | GeLU | L2, times $\sqrt n$ | `gelu_l2_norm` |
# | **L2, GeLU** (the paper) | L2, times $\sqrt n$ | GeLU | `l2_norm_gelu` |
# | L1, GeLU | L1, times $n$ | GeLU | `l1_norm_gelu` |
#
# **Predict.** The scores are $(2, 2, -1, 0)$: $n = 4$, L1 norm 5, L2 norm 3. Which candidates give the last token, whose score is 0, a
# weight? Which give the third a negative one? Do "n softmax" and "L2, GeLU" by hand.

# %%
e = [7.389, 7.389, 0.368, 1.0]  # e^2, e^2, e^-1, e^0
print("n softmax", *(f"{4 * number / sum(e):6.3f}" for number in e))
z = [2 * number / 3 for number in (2, 2, -1, 0)]  # sqrt(4) a / 3
print("L2, GeLU ", *(f"{v * 0.5 * (1 + math.erf(v / math.sqrt(2))):6.3f}" for v in z))

# %% [markdown]
# **Code.** Now for whole tables of scores. Three of the moves:


# %%
def gelu(a):  # a Phi(a), see lesson 02
    return minitf.gelu_forward(a)[0]


def exp(a):
    return np.exp(a - a.max(axis=-1, keepdims=True))  # lesson 01: the shift changes nothing


def l1(a):
    return a / np.abs(a).sum(axis=-1, keepdims=True)


# %% [markdown]
# > **Exercise 03.1: `l2_norm_gelu`** · difficulty ●●○○○ · importance ●●●●● · 5 minutes; open the solution after 8
# >
# > Write the paper's candidate. A row is the last axis; there may be any number of axes before it.


# %%
def l2_norm_gelu(a):
    """L2, times the root of n, then GeLU. a: scores (..., n) -> weights (..., n)"""
    ...


# %%
l2_norm_gelu = check("l2_norm_gelu", l2_norm_gelu)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Three steps: the length of every row, the row divided by it and multiplied by $\sqrt n$, GeLU. `gelu` is given.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `a` is (T, n), and `(a * a).sum(axis=-1, keepdims=True)` is (T, 1): one number per row, ready to divide by. $n$ is `a.shape[-1]`.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def l2_norm_gelu(a):
#     length = np.sqrt((a * a).sum(axis=-1, keepdims=True))
#     return gelu(math.sqrt(a.shape[-1]) * a / length)
# ```
#
# </details>
#
# The other five are one line each.


# %%
def l2(a):
    return a / np.sqrt((a * a).sum(axis=-1, keepdims=True))


rules = {
    "softmax": lambda a: l1(exp(a)),
    "n softmax": lambda a: a.shape[-1] * l1(exp(a)),
    "GeLU": gelu,
    "GeLU, L2": lambda a: math.sqrt(a.shape[-1]) * l2(gelu(a)),
    "L2, GeLU": l2_norm_gelu,
    "L1, GeLU": lambda a: gelu(a.shape[-1] * l1(a)),
}
kinds = ("softmax", "softmax", "gelu", "gelu_l2_norm", "l2_norm_gelu", "l1_norm_gelu")
library = {name: {"kind": kind} for name, kind in zip(rules, kinds, strict=True)}
library["softmax"]["tau"] = 1.0

# %% [markdown]
# **Check** against the library, as a loop over rows and all rows at once; and see the row from above.

# %%
a = rng.standard_normal((5, 7))
for name, rule in rules.items():
    theirs = minitf.theta_forward(a, **library[name])[0]
    looped = np.array([rule(row) for row in a])
    same = all(np.abs(mine - theirs).max() < 1e-12 for mine in (looped, rule(a)))
    print(f"{name:9}  {rule(np.array([2.0, 2.0, -1.0, 0.0]))}  agrees: {same}")

# %% [markdown]
# **Explain.** What the released code calls `softmax` is exp, L1 norm, times $n$: its weights sum to $n$, not to 1. A reader asked about that
# (issue #9). The author's answer: without the $n$ the output is tiny and the model bad. Let us see why.
#
# ## 2. How loud is a layer?
#
# **Derive.** Take values that are independent random numbers with mean 0 and standard deviation $1/\sqrt n$, as usual for a sum of $n$ terms. For fixed weights:
#
# $$\text{out}_c = \sum_{i=1}^n w_i v_{ic} \qquad\Rightarrow\qquad \text{Var}(\text{out}_c) = \sum_i w_i^2\,\frac1n = \text{mean of } w_i^2.$$
#
# So the loudness of a layer is the *root mean square* (rms) of its weights. It should be near 1 at every $n$: then a token comes out as loud as it went in.
#
# - **Softmax**: the weights sum to 1, so their mean is $1/n$, and the rms falls about like that. Times $n$, it stays.
# - **L1**: $u = a/\lvert a\rvert_1$ has $\sum_i \lvert u_i\rvert = 1$. Here $\lvert u_i\rvert$ has the mean $1/n$, so the factor is $n$.
# - **L2**: $u = a/\lvert a\rvert$ has $\sum_i u_i^2 = 1$. Now the *squares* have the mean $1/n$; a typical entry is $1/\sqrt n$. Hence $\tau = \sqrt n$: for $z = \tau u$ the mean of $z_i^2$ is exactly 1, in every row, at every $n$.
#
# **Predict** the output of softmax at $n = 4096$, if it is 0.38 at $n = 4$.


# %%
def measure(name, n, seed, spread=2.0, d=64):
    """Standard deviations of the output, and of the gradient at the input (section 3)."""
    rng = np.random.default_rng(seed)
    x, _ = minitf.layer_norm_forward(rng.standard_normal((d, d)))
    key = rng.standard_normal((n, d)) * spread / math.sqrt(d)  # scores of this spread
    value = rng.standard_normal((n, d)) / math.sqrt(n)
    out, cache = minitf.pattention_forward(x, key, value, **library[name])
    dx, _, _ = minitf.pattention_backward(rng.standard_normal(out.shape), cache)
    return out.std(), dx.std()


# %%
sizes = 2 ** np.arange(2, 13)  # 4 to 4096
runs = {
    name: np.array([[measure(name, n, seed) for n in sizes] for seed in range(3)])
    for name in rules
}  # 3 seeds, 11 sizes, 2 numbers


def table(column):
    print("n         " + "".join(f"{n:9}" for n in sizes[::2]))
    for name, run in runs.items():
        means = run[:, ::2, column].mean(axis=0)
        print(f"{name:9} " + "".join(f"{mean:9.2g}" for mean in means))


table(column=0)

# %% [markdown]
# **See.** Softmax becomes 270 times quieter; the last four stand still. But where?
#
# **Derive.** Let the scores be normal with standard deviation $s$ (their *spread*), and $n$ large.
# - **L2, GeLU**: $z$ is standard normal, whatever $s$. The rms is $\sqrt{\text E[\text{GeLU}(z)^2]}$, one integral.
# - **L1, GeLU**: the mean of $\lvert a\rvert$ is $\frac{2s}{\sqrt{2\pi}} \int_0^\infty t\,e^{-t^2/2}\,dt = s\sqrt{2/\pi}$, so $z$ has the spread $\sqrt{\pi/2} = 1.25$, whatever $s$.
# - **GeLU, L2**: exactly 1. **GeLU**: the integral again, with spread $s$.
# - **n softmax**: $w = e^a/\text E[e^a]$. In the integral of $e^a e^{-a^2/2s^2}$ complete the square, $a - \frac{a^2}{2s^2} = \frac{s^2}2 - \frac{(a - s^2)^2}{2s^2}$: so $\text E[e^a] = e^{s^2/2}$. Likewise (twice the spread) $\text E[e^{2a}] = e^{2s^2}$. The rms is $e^{s^2}/e^{s^2/2} = e^{s^2/2}$.


# %%
def expectation(f, spread=1.0):
    z = np.linspace(-9, 9, 18001)
    return (f(spread * z) * minitf.normal_cdf_pdf(z)[1]).sum() * 0.001


def rms_of_gelu(spread):
    return math.sqrt(expectation(lambda z: gelu(z) ** 2, spread))


predicted = {"n softmax": math.exp(2.0**2 / 2), "GeLU": rms_of_gelu(2), "GeLU, L2": 1.0}
predicted |= {"L2, GeLU": rms_of_gelu(1), "L1, GeLU": rms_of_gelu(math.sqrt(math.pi / 2))}
for name, size in predicted.items():
    print(f"{name:9} predicted {size:.2f}   measured {runs[name][:, -1, 0].mean():.2f}")

# %% [markdown]
# **Explain.** Four agree. n softmax is still on its way up: rare large scores carry a mean of exponentials, and 4096 tokens do not hold enough of them.
#
# ### Any row, not just a normal one
#
# **Derive.** $\lvert\text{GeLU}(z)\rvert = \lvert z\rvert\,\Phi(z) \le \lvert z\rvert$, and L2 pins $\sum_i z_i^2 = n$. So the rms of the weights of "L2, GeLU" is at most 1 for *every* row of scores.
# **Predict** who shouts when one score of 1024 is loud. **Break it**: set `LOUD` to 10000. Who has a ceiling?

# %%
LOUD = 1000.0
normal = rng.standard_normal(1024)
rows = {"all 1": np.ones(1024), "normal": normal, "one loud": normal.copy()}
rows["one loud"][0] = LOUD
print("rms of weights" + "".join(f"{name:>10}" for name in rows))
for name, rule in rules.items():
    sizes_of_w = [np.sqrt((rule(a) ** 2).mean()) for a in rows.values()]
    print(f"{name:14}" + "".join(f"{size:10.2g}" for size in sizes_of_w))

# %% [markdown]
# **Explain.** Both candidates with an L2 norm stay at 1 or below. L1 pins only $\sum_i \lvert z_i\rvert = n$, and a row may put all of that into one token: its ceiling is $\sqrt n = 32$.
#
# **See** one row of scores become weights. In JupyterLab move the sliders. **Predict** first: which of them changes the picture of "L2, GeLU"?


# %%
def row_of_scores(n, spread):
    return spread * np.random.default_rng(0).standard_normal(n)


def weights_of_a_row(theta, n, spread):
    scores = row_of_scores(n, spread)
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    ax.plot(scores, rules[theta](scores), "o")
    ax.set(xlabel="score", ylabel="weight", title=f"{theta}, n = {n}, spread {spread}")
    return fig


# %%
choices = {"theta": ["L2, GeLU", "GeLU", "softmax"], "n": [16, 64, 256, 1024]}
choices["spread"] = [0.1, 0.3, 1.0, 3.0, 10.0]
alt = "Weights against scores, one point per parameter token: under L2, GeLU the curve of GeLU."
lowest, *_, highest = np.sort(rules["L2, GeLU"](row_of_scores(16, 0.1)))
digest = f"weights from {lowest:.2f} to {highest:.2f}"
slider(weights_of_a_row, alt=alt, digest=digest, **choices)

# %% [markdown]
# **Explain.** Under "L2, GeLU" the spread changes only the numbers on the lower axis: the points lie on GeLU of $z$, which does not know the spread. "GeLU" bends from a line to a ReLU, softmax from a line to one tall point.
#
# ## 3. How much gradient passes?
#
# **Derive.** Hand every output entry a random gradient of size 1. Then $dw_i = d\text{out} \cdot v_i$ is a sum of $d$ terms of variance $1/n$: its variance is $d/n$.
# Write $\sigma_i$ for the slope of $w_i$ against its own score, so $da_i \approx \sigma_i\,dw_i$. (A norm also subtracts one direction of $n$; that is little.)
# Last, $dx_c = \sum_i da_i k_{ic}$ with keys of variance $s^2/d$:
#
# $$\text{Var}(dx_c) = n \cdot \text{mean of }\sigma_i^2 \cdot \frac dn \cdot \frac{s^2}d = s^2\,(\text{mean of } \sigma_i^2).$$
#
# So the *slopes* should have size $1/s$. For softmax, $\sigma_i = w_i(1 - w_i)$, about $1/n$. For "L2, GeLU", $\sigma_i \approx \frac{\tau}{\lvert a\rvert}\text{GeLU}'(z_i)$, and
# since $\lvert a\rvert \approx s\sqrt n$ the factor is $1/s$: $s$ and $n$ are both gone. What stays is the rms of GeLU's slope. **Predict** whether it is above 1.

# %%
table(column=1)


def gelu_slope(z):
    return minitf.gelu_backward(np.ones_like(z), minitf.gelu_forward(z)[1])


slope = math.sqrt(expectation(lambda z: gelu_slope(z) ** 2))
print(f"rms of GeLU's slope: {slope:.2f}")

# %% [markdown]
# **See.** "L2, GeLU" passes on 0.67, as predicted. Softmax loses most of its gradient too.
#
# ### Starving tokens
#
# The total is one thing, who gets it another. **Predict.** Scores of spread 10 are *peaked*: $e^a$ makes one stand out. How many of 1024 tokens share 90 % of the squared gradient?


# %%
def carriers(rows):
    """How many entries of a row carry 90 % of its sum of squares; the mean over rows."""
    share = np.sort(rows**2, axis=-1)[:, ::-1].cumsum(axis=-1)
    return (share < 0.9 * share[:, -1:]).sum(axis=-1).mean() + 1


# %%
a, dw = rng.standard_normal((2, 200, 1024))
spreads = (1, 3, 10, 30)
print("spread    " + "".join(f"{s:14}" for s in spreads))
for name in rules:
    line = f"{name:9} "
    for s in spreads:
        _, cache = minitf.theta_forward(s * a, **library[name])
        da = minitf.theta_backward(dw, cache)
        line += f"{carriers(da):6.0f} ({np.median(da.std(axis=-1)):5.0e})"
    print(line)

# %% [markdown]
# **Explain.** (In brackets: the size of the gradient in a typical row.) In softmax every $da_j$ carries the factor $w_j$ (lesson 01). Peaked scores leave a winner and a rival, and once the winner's $w$ is near 1,
# its slope $w(1 - w)$ dies too. The factor $n$ repairs the size, not the sharing. Under GeLU hundreds of tokens learn at *every* spread. With a norm the size falls
# too, since a longer row is harder to turn, but for all tokens alike.
#
# ## 4. Where is $\sqrt n$, and why is `scale` 1?
#
# A reader looked for $\tau = \sqrt n$ in the release and found a `scale` of 1 (issue #16). It multiplies the scores *before* $\Theta$. **Predict** what a `scale` of $\sqrt n$ changes for each kind.

# %%
x, key, value = (rng.standard_normal(shape) for shape in ((5, 8), (16, 8), (16, 8)))
key *= 0.1  # small, as in a fresh model
for kind in dict.fromkeys(kinds):
    one, other = (
        minitf.pattention_forward(x, key, value, kind, scale=s)[0] for s in (1, 4)
    )
    change = np.linalg.norm(other - one) / np.linalg.norm(one)
    print(f"{kind:13} output changes by {change:.0%}")

# %% [markdown]
# **Explain.** A factor before a norm cancels, a factor after it does not. The release's $\sqrt n$ stands after: `* math.sqrt(inputs.shape[dim])` in `nonlinear_norm_func`. When GeLU comes first,
# `scale` decides whether it works as a straight line (small scores) or as a ReLU (large ones).
#
# ## 5. Edges: zero rows, overflow, eps
#
# **Break it.** The release subtracts no maximum and adds no eps. **Predict** what its formulas make of a row of zeros, and of a score of 100 in float32.


# %%
def released_softmax(a):
    return a.shape[-1] * l1(np.exp(a))


def released_theta(a):
    return gelu(math.sqrt(a.shape[-1]) * l2(a))


released = {"softmax": released_softmax, "l2_norm_gelu": released_theta}
for scores in ([0, 0, 0, 0], [100, 0, 0, 0]):
    a = np.array([scores], np.float32)
    for kind, rule in released.items():
        with np.errstate(all="ignore"):
            theirs = rule(a)[0]
        ours = minitf.theta_forward(a, kind)[0][0]
        print(f"{scores!s:14} {kind:12}  release {theirs}  here {ours}")

# %% [markdown]
# **Explain.** A row of zeros has no direction: $0/0$ is not a number, and one NaN spreads through the whole model. An input of zeros makes such a row, or a mask over all tokens. Here it gets zero weights and gradients.
# And $e^{100}$ overflows; subtracting the maximum cures that. The L2 norm overflows as well: in float32 the square of $10^{30}$ is infinite, that of $10^{-30}$ is 0.
#
# > **Exercise 03.2: `safe_l2`** · difficulty ●●●○○ · importance ●●●○○ · 10 minutes; open the solution after 15
# >
# > Write the L2 norm of rows, $a/\lvert a\rvert$, so that a row of zeros stays zero and rows of $10^{30}$ or $10^{-30}$ get length 1, in float32, too.


# %%
def safe_l2(a):
    """a: scores (..., n) -> rows of length 1, or of zeros (..., n)"""
    ...


# %%
safe_l2 = check("safe_l2", safe_l2)
print(safe_l2(np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0]], np.float32)))

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Make the entries harmless before you square them: what may every row be divided by without changing its direction?
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `largest = np.abs(a).max(axis=-1, keepdims=True)` is (T, 1). Where it is 0, divide by 1: `np.where(largest > 0, largest, 1)`. The lengths are (T, 1), too.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def safe_l2(a):
#     largest = np.abs(a).max(axis=-1, keepdims=True)
#     unit = a / np.where(largest > 0, largest, 1)
#     length = np.sqrt((unit * unit).sum(axis=-1, keepdims=True))
#     return unit / np.maximum(length, 1)  # the largest entry is 1: only a row of zeros is shorter
# ```
#
# </details>
#
# The TPU code adds $\varepsilon = 10^{-5}$ to the norm. **Predict** what that does to ever smaller scores.

# %%
a, dw = rng.standard_normal((2, 1, 64))
print("scores   weights without eps  with eps   gradient without eps")
for size in (1.0, 1e-5, 1e-8):
    exact, cache = minitf.theta_forward(size * a)
    eps = gelu(8 * size * a / (np.linalg.norm(size * a) + 1e-5))
    da = minitf.theta_backward(dw, cache)
    print(f"{size:6.0e} {exact.std():21.2g} {eps.std():9.2g} {da.std():22.0e}")

# %% [markdown]
# **Explain.** Without eps a whisper is as loud as a shout, and its gradient grows like $1/\lvert a\rvert$, without bound. With eps rows shorter than $\varepsilon$ fade: there the scale
# no longer cancels.
#
# ## 6. Weights below zero, and weights near zero
#
# **Predict.** No key fits: all scores are $-3$. What will each candidate say? How negative can a weight be? And how many of 1024 tokens hold 90 % of the squared weight?

# %%
a = 2 * rng.standard_normal((200, 1024))
print("          all scores -3   negative   below 1% of largest   90% of squares in")
for name, rule in rules.items():
    w, fits_nothing = rule(a), rule(np.full(4, -3.0))[0]
    small = (np.abs(w) < 0.01 * w.max(axis=-1, keepdims=True)).mean()
    line = f"{name:9} {fits_nothing:13.3f} {(w < 0).mean():10.0%} {small:21.0%}"
    print(line + f"{carriers(w):13.0f} tokens")
z = np.linspace(-3, 0, 30001)
print(f"smallest GeLU: {gelu(z).min():.3f} at z = {z[gelu(z).argmin()]:.2f}")

# %% [markdown]
# **Explain.** Softmax must hand out its whole budget, even when nothing fits. "GeLU, L2" blows a murmur up to a full $-1$. With the GeLU *last* no weight falls
# under $-0.17$. Softmax leaves the talking to 2 % of the tokens; under GeLU a fifth carry most, and half of all weights are slightly below zero. Exactly 0 is none of them.
#
# ## 7. Growing with zero keys
#
# Append 8 tokens with zero keys to 8 old ones. **Predict** who keeps the output: if $\tau$ is held, and if it follows $\sqrt n$.

# %%
x, key, value, more = (rng.standard_normal((rows, 8)) for rows in (5, 8, 8, 8))
key *= 0.1
keys, values = np.concatenate([key, 0 * key]), np.concatenate([value, more])
print("             tau held   tau = sqrt(16)")
for kind in dict.fromkeys(kinds):
    old = minitf.pattention_forward(x, key, value, kind)[0]
    new = [minitf.pattention_forward(x, keys, values, kind, tau**0.5)[0] for tau in (8, 16)]
    changes = [np.linalg.norm(out - old) / np.linalg.norm(old) for out in new]
    print(f"{kind:13} {changes[0]:8.0%} {changes[1]:16.0%}")

# %% [markdown]
# **Explain.** A zero key scores 0. Zeros change neither norm, and $\text{GeLU}(0) = 0$: the four GeLU kinds keep their function while $\tau$ is held. If it follows $n$, "GeLU, L2" is stretched by exactly $\sqrt 2$, and the paper's $\Theta$ is bent as well.
# Softmax cannot keep its function: $e^0 = 1$ takes a share from everyone. For a model that is to grow, this is the strongest reason against it.
#
# ## 8. The figure
#
# Both tables, drawn: means of 3 seeds, bands from lowest to highest. **Predict** which lines fall, rise and stand.

# %%
alt = "Two log-log panels against the number of parameter tokens from 4 to 4096, one line per "
alt += "normalizer. Left, the output: softmax falls to 0.0014, n softmax rises from 1.5 to 5.8, "
alt += "the four with GeLU are flat between 0.6 and 1.4. Right, the gradient: softmax falls to "
alt += "0.0029, n softmax rises to 12, the four with GeLU are flat between 0.7 and 1.5."
ends = [run[:, -1].mean(axis=0) for run in runs.values()]
digest = " ".join(f"{out:.2g}/{dx:.2g}" for out, dx in ends)

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.4, 4.4), sharex=True)
titles = ("output, standard deviation", "gradient at the input, standard deviation")
for column, (ax, title) in enumerate(zip(axes, titles, strict=True)):
    for index, (name, run) in enumerate(runs.items()):
        band(ax, sizes, run[:, :, column], name, index)
    ax.set(xscale="log", yscale="log", xlabel="parameter tokens n", title=title)
    ax.set_xticks(sizes[::2], sizes[::2])
    ax.minorticks_off()
axes[0].legend(loc="lower left")
show(fig, alt=alt, digest=f"n = 4096, output/gradient: {digest}")

# %% [markdown]
# **Explain.** A power of $n$ is a straight line here. Softmax runs down at a slope that nears $-1$, forward and backward. The four with GeLU are flat.
# (Each size is born afresh here. A layer that grows keeps its old values at their old size.)
#
# | | size flat in $n$ | bounded for any row | many tokens learn | zero keys keep the function | scale cancels |
# |---|---|---|---|---|---|
# | softmax | falls | yes | if scores are small | no | no |
# | n softmax | rises | no | if scores are small | no | no |
# | GeLU | yes | no | yes | yes | no |
# | GeLU, L2 | yes | yes | yes | yes | no |
# | **L2, GeLU** | yes | yes | yes | yes | yes |
# | L1, GeLU | yes | no | yes | yes | yes |
#
# **Does it make better models?** We measured sizes, not accuracy. The paper's table 4 trained, on images (ImageNet, base size): exp with L1 79.6 %, GeLU with L1 81.7 %, GeLU with L2 82.5 %. That fits our
# picture without proving it: it does not compare the orders, and has no plain GeLU. `figures/theta_ablation.py` trained all of them on text, at one output size, with tuned learning rates, three seeds: L2 then GeLU 1.841 nats, L1 then GeLU 1.838, GeLU then L2 1.871, softmax 1.923, and GeLU without any norm 1.803. So L2 beats softmax here too, but after 1,000 steps of a small model no norm at all is best.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | "softmax" | exp, L1 (table 4) | exp, L1, times $n$; no maximum subtracted | $\tau^2 \cdot$ softmax, maximum subtracted |
# > | $\sqrt n$ | eq. 16 | after the norm, from the current $n$ | `tau`; `None` means $\sqrt n$ |
# > | a row of zeros | undefined | NaN; TPU code: eps $10^{-5}$ | zeros |
# > | GeLU | not specified | exact; TPU code: tanh | exact, tanh on request |
# > | new values | | std $2/(L\sqrt d)$ for $L$ blocks, at any $n$; TPU code: $1/\sqrt n$, as in this lesson | as the release |
#
# ## Summary
#
# - With values of size $1/\sqrt n$ the loudness of a layer is the rms of its weights.
# - After an L2 norm entries have size $1/\sqrt n$; times $\tau = \sqrt n$, 1, in every row. GeLU only shrinks them.
# - Softmax weights shrink like $1/n$, and peaked scores starve most tokens. The factor $n$ mends only the first.
# - A scale before a norm cancels; $\tau$ after it does not. Zero rows need a rule.
# - Zero keys keep the function under GeLU while $\tau$ is held, never under softmax.
#
# ## Quiz
#
# 1. Somebody replaces $\sqrt n$ by 1 in "L2, GeLU". What happens to the output as $n$ grows?
#
# <details><summary>Answer</summary>
#
# $z$ shrinks like $1/\sqrt n$, and there GeLU is almost $z/2$. The rms of the weights is about $1/(2\sqrt n)$: the layer falls silent.
#
# </details>
#
# 2. What does "L2, GeLU" make of the scores $(1, 2)$ and $(100, 200)$, and which row has the larger gradient?
#
# <details><summary>Answer</summary>
#
# The same weights. The first row has 100 times the gradient: the factor is $1/\lvert a\rvert$.
#
# </details>
#
# 3. A layer has learned softmax weights near $(1, 0, 0, 0)$, and that is wrong. Why is it hard to unlearn?
#
# <details><summary>Answer</summary>
#
# $da_j = w_j (dw_j - w \cdot dw)$. For the losers $w_j$ is near 0; for the winner $w \cdot dw$ is near its own $dw_j$. All of $da$ is near 0.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, ICLR 2025, arXiv 2410.23168: section 3.2, table 4; appendix A, eq. 16.
# - Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016: section 2.
# - Glorot and Bengio, *Understanding the Difficulty of Training Deep Feedforward Neural Networks*, 2010: section 4.2.
# - Released code, github.com/Haiyang-W/TokenFormer: `nonlinear_norm_func` in `megatron/model/tokenformer.py`; issues #9, #16.
#
# **Next**: lesson 04 derives the backward that you have just used.
