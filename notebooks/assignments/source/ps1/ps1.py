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
# # PS1 Build and compare normalizers
#
# Lesson 03 compared six versions of $\Theta$. Here you add two of your own, predict how loud one of them speaks, and write a test that
# tells which normalizers can grow.
#
# **You will be able to**
# - write a normalizer that keeps its promises for every row: one without a positive score, a constant one, one whose squares overflow
# - predict its loudness in closed form
# - test any normalizer for what growth needs
#
# **You need** lessons 02 and 03
#
# **Minutes** 90
#
# **Points** 25, in 10 graded cells, one for each property
#
# How it is graded:
# - The cells below a question check one example. The grader checks more: shapes and numbers that it draws itself.
# - Every question is graded alone: a mistake in one costs nothing in the next.
# - `scores` may have any number of axes; the last one holds the parameter tokens.
# - Results have the dtype of `scores`, and inputs stay as they were.

# %% nbgrader={"grade": false, "grade_id": "ps1-setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import numpy as np

import minitf
from minitf.checks import grade

# %% [markdown]
# ## 1. A power, then L1 (7 points, 20 minutes)
#
# Some Transformers square the ReLU of their MLP. As a normalizer, with any power $q > 0$:
#
# $$r_i = \max(a_i, 0)^q, \qquad w_i = \tau^2\,\frac{r_i}{\sum_j r_j}.$$
#
# `tau=None` means $\sqrt n$, so the weights of a row sum to $n$. A `tau` that is given is used as it is.
#
# - *values* (3 points): the formula
# - *tau* (2 points): what `tau` does
# - *edges* (2 points): a row without a positive score gets weights 0; a score of $10^{30}$ in float32 is fine; dtype and inputs as above
#
# <details><summary>Hint for the edges</summary>
#
# What happens to $w$ when a row of scores is divided by its largest one?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps1-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def power_l1(scores, power=2.0, tau=None):
    """Weights tau² r / sum(r) with r = max(scores, 0)^power. scores: (..., n)  ->  (..., n)."""
    ### BEGIN SOLUTION
    positive = np.maximum(scores, 0)
    largest = positive.max(axis=-1, keepdims=True)
    powered = (
        positive / np.where(largest > 0, largest, 1)
    ) ** power  # no entry above 1 to overflow
    total = powered.sum(axis=-1, keepdims=True)
    factor = scores.shape[-1] if tau is None else tau**2
    return factor * (powered / np.where(total > 0, total, 1))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps1-q1-values", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q1_loop(scores, power=2.0, tau=None):
    """Row by row, entry by entry."""
    weights = np.zeros_like(scores)
    for index in np.ndindex(scores.shape[:-1]):
        row = scores[index]
        r = [(a / row.max()) ** power if a > 0 else 0.0 for a in row.astype(float)]
        factor = len(row) if tau is None else tau * tau
        weights[index] = [factor * each / (sum(r) or 1) for each in r]
    return weights


def q1_rows(rng):
    for shape in ((1, 2), (4, 7), (2, 3, 5), (9,)):
        for tau in (None, rng.uniform(0.5, 3)):
            scores = 2 * rng.standard_normal(shape)
            scores[..., 0] = rng.uniform(0.5, 2)  # a positive one in every row
            yield scores, rng.uniform(0.5, 4), tau


q1_question = grade.Exercise(
    q1_loop,
    q1_rows,
    mistakes={
        "is the ReLU an absolute value?": lambda a, q=2.0, t=None: q1_loop(np.abs(a), q, t),
        "is tau used where tau² is asked for?": lambda a, q=2.0, t=None: q1_loop(
            a, q, math.sqrt(t or math.sqrt(a.shape[-1]))
        ),
        "is the power fixed at 2?": lambda a, q=2.0, t=None: q1_loop(a, 2.0, t),
        "mean or sum?": lambda a, q=2.0, t=None: a.shape[-1] * q1_loop(a, q, t),
    },
)
grade.values(power_l1, q1_question)
### END HIDDEN TESTS
grade.example(power_l1, [np.array([[-1.0, 1.0, 2.0]])], np.array([[0.0, 0.6, 2.4]]))


# %% nbgrader={"grade": true, "grade_id": "ps1-q1-tau", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q1_tau_rows(rng):
    for n in (1, 4, 16, 50):
        scores = np.abs(rng.standard_normal((3, n))) + 0.1
        yield scores, None
        yield scores, rng.uniform(0.5, 5)


def q1_row_sums(scores, tau):
    return np.full(scores.shape[:-1], float(scores.shape[-1]) if tau is None else tau * tau)


q1_tau_question = grade.Exercise(
    q1_row_sums,
    q1_tau_rows,
    mistakes={
        "a tau that is given must be used, not computed again": lambda a, t: q1_row_sums(
            a, None
        ),
        "is tau used where tau² is asked for?": lambda a, t: np.sqrt(q1_row_sums(a, t)),
    },
)
grade.values(lambda scores, tau: power_l1(scores, tau=tau).sum(axis=-1), q1_tau_question)
### END HIDDEN TESTS
grade.example(lambda a: power_l1(a, tau=3.0).sum(), [np.array([1.0, 2.0])], np.array(9.0))


# %% nbgrader={"grade": true, "grade_id": "ps1-q1-edges", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q1_edge_rows(rng):
    scores = -np.abs(rng.standard_normal((3, 6)))
    signs = np.array([[0.0], [1.0], [-1.0]])
    yield (scores,)
    yield (scores * signs,)
    for size in (1e30, 1e-30):
        yield ((size * rng.standard_normal((3, 6))).astype(np.float32),)


q1_edges = q1_question._replace(sample=q1_edge_rows, mistakes={})
grade.values(power_l1, q1_edges)
grade.dtype(power_l1, q1_question)
grade.inputs(power_l1, q1_question)
### END HIDDEN TESTS
grade.example(power_l1, [np.array([[-1.0, -2.0]])], np.array([[0.0, 0.0]]))

# %% [markdown]
# ## 2. Center, L2, GeLU (5 points, 20 minutes)
#
# What if only the *differences* between scores mattered? Subtract the mean first:
#
# $$c_i = a_i - \frac1n\sum_j a_j, \qquad w_i = \text{GeLU}\!\left(\tau\,\frac{c_i}{\lvert c\rvert}\right), \qquad \lvert c\rvert = \sqrt{\textstyle\sum_j c_j^2}.$$
#
# `tau=None` means $\sqrt n$. The GeLU is the exact one, `minitf.gelu_forward(z)[0]`.
#
# - *values* (3 points): the formula
# - *edges* (2 points): a *constant* row gets weights 0. The mean of $(0.1, 0.1, 0.1)$ is not exactly 0.1, so a row counts as constant if no
#   $\lvert c_i\rvert$ is larger than $8\varepsilon$ times the largest $\lvert a_i\rvert$, with $\varepsilon$ = `np.finfo(scores.dtype).eps`.
#   A row that is not constant is as loud at $10^{30}$ and at $10^{-30}$ as at 1, in float32 too; dtype and inputs as above.
#
# <details><summary>Hint</summary>
#
# This is not a layer norm with an eps: nothing is added to the length. Divide $c$ by its largest entry before you square it.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps1-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def centered_theta(scores, tau=None):
    """Weights GeLU(tau c / |c|) with c = scores - mean. scores: (..., n)  ->  (..., n)."""
    ### BEGIN SOLUTION
    centered = scores - scores.mean(axis=-1, keepdims=True)
    widest = np.abs(centered).max(axis=-1, keepdims=True)
    rounding = 8 * np.finfo(scores.dtype).eps * np.abs(scores).max(axis=-1, keepdims=True)
    varies = widest > rounding
    relative = np.where(varies, centered / np.where(varies, widest, 1), 0)
    length = np.sqrt((relative * relative).sum(axis=-1, keepdims=True))
    size = math.sqrt(scores.shape[-1]) if tau is None else tau
    return minitf.gelu_forward(size * (relative / np.where(varies, length, 1)))[0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps1-q2-values", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q2_statistics(scores, tau=None):
    """The same from the standard deviation: |c| = std √n."""
    n, a = scores.shape[-1], scores.astype(np.float64)
    std = a.std(axis=-1, keepdims=True)
    varies = std > 16 * np.finfo(scores.dtype).eps * np.abs(a).mean(axis=-1, keepdims=True)
    z = (a - a.mean(axis=-1, keepdims=True)) / np.where(varies, std, 1) * varies
    z *= 1 if tau is None else tau / math.sqrt(n)
    return (z * np.vectorize(math.erfc)(-z / math.sqrt(2)) / 2).astype(scores.dtype)


def q2_rows(rng):
    for shape in ((1, 2), (4, 7), (2, 3, 5), (9,)):
        yield 3 * rng.standard_normal(shape) + 1, None
        yield 3 * rng.standard_normal(shape) + 1, rng.uniform(0.5, 5)


def q2_size(scores, tau):
    return 1 if tau is None else tau / math.sqrt(scores.shape[-1])


def q2_sample_std(scores, tau):
    centered = scores - scores.mean(axis=-1, keepdims=True)
    normed = centered / scores.std(axis=-1, ddof=1, keepdims=True)
    return minitf.gelu_forward(q2_size(scores, tau) * normed)[0]


def q2_layer_norm(scores, tau):
    return minitf.gelu_forward(q2_size(scores, tau) * minitf.layer_norm_forward(scores)[0])[
        0
    ]


def q2_norm_first(scores, tau):
    size = math.sqrt(scores.shape[-1]) if tau is None else tau
    length = np.sqrt((scores * scores).sum(axis=-1, keepdims=True))
    return minitf.gelu_forward(
        size * (scores - scores.mean(axis=-1, keepdims=True)) / length
    )[0]


q2_question = grade.Exercise(
    q2_statistics,
    q2_rows,
    mistakes={
        "where is the mean subtracted?": lambda a, t: minitf.theta_forward(a, tau=t)[0],
        "is tau missing?": lambda a, t: q2_statistics(a, 1.0),
        "a tau that is given must be used, not computed again": lambda a, t: q2_statistics(
            a
        ),
        "is the length that of the scores, before the mean was subtracted?": q2_norm_first,
        "does the standard deviation divide by n - 1?": q2_sample_std,
        "is this a layer norm, with an eps?": q2_layer_norm,
    },
)
grade.values(centered_theta, q2_question)
### END HIDDEN TESTS
grade.example(
    lambda a: centered_theta(a).round(3), [np.array([3.0, 5.0])], np.array([-0.159, 0.841])
)


# %% nbgrader={"grade": true, "grade_id": "ps1-q2-edges", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q2_edge_rows(rng):
    constants = rng.standard_normal((5, 1))
    for n in (3, 10, 40):
        yield np.repeat(constants, n, axis=1), None
        yield np.repeat(constants, n, axis=1).astype(np.float32), None
    for size in (1e30, 1e-30):
        yield (size * rng.standard_normal((3, 6))).astype(np.float32), None
    yield np.stack([np.ones(5), rng.standard_normal(5)]), None


def q2_loud_rounding(scores, tau):
    centered = scores - scores.mean(axis=-1, keepdims=True)
    widest = np.abs(centered).max(axis=-1, keepdims=True)
    unit = centered / np.where(widest > 0, widest, 1)
    length = np.sqrt((unit * unit).sum(axis=-1, keepdims=True))
    size = math.sqrt(scores.shape[-1])
    return minitf.gelu_forward(size * unit / np.where(length > 0, length, 1))[0]


q2_edges = q2_question._replace(
    sample=q2_edge_rows,
    mistakes={
        "in a constant row rounding errors are no signal": q2_loud_rounding,
        "is this a layer norm, with an eps?": q2_layer_norm,
    },
)
grade.values(centered_theta, q2_edges)
grade.dtype(centered_theta, q2_question)
grade.inputs(centered_theta, q2_question)
### END HIDDEN TESTS
grade.example(centered_theta, [np.full(3, 0.1)], np.zeros(3))

# %% [markdown]
# ## 3. How loud? (3 points, 15 minutes)
#
# Scores are normal with mean 0 and any spread $s$, and $n$ is large. **Predict** the rms of the weights of `power_l1`, with $\tau = \sqrt n$, as a
# function of the power: a formula, no sampling.
#
# <details><summary>Hint 1</summary>
#
# For large $n$ a mean over tokens is an expectation: $w \approx r / \text E[r]$. Lesson 03, section 2, does this for its own candidates.
#
# </details>
# <details><summary>Hint 2</summary>
#
# For $a$ normal with spread 1, $\text E[\lvert a\rvert^q] = 2^{q/2}\,\Gamma\!\left(\tfrac{q+1}2\right)/\sqrt\pi$. Python has `math.gamma`. How many of the $\lvert a\rvert$ does a
# ReLU keep?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps1-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def predicted_rms(power):
    """The rms of the weights of power_l1 for normal scores and n -> infinity: a float."""

    ### BEGIN SOLUTION
    def mean_of_power(q):  # E[max(a, 0)^q]: half of E[|a|^q]
        return 2 ** (q / 2) * math.gamma((q + 1) / 2) / math.sqrt(math.pi) / 2

    return math.sqrt(mean_of_power(2 * power)) / mean_of_power(power)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps1-q3-values", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q3_integral(power, sides=1):
    """By quadrature; sides=2 forgets that the ReLU keeps half."""
    a = np.linspace(0, 14, 40001)[1:]
    density = np.exp(-a * a / 2) / math.sqrt(2 * math.pi) * (a[1] - a[0])
    first, second = (sides * (a**q * density).sum() for q in (power, 2 * power))
    return float(math.sqrt(second) / first)


q3_question = grade.Exercise(
    q3_integral,
    lambda rng: [(float(q),) for q in rng.uniform(1, 4, 6)],
    mistakes={
        "how many of the scores does the ReLU keep?": lambda q: q3_integral(q, sides=2),
        "is that the mean square? The question is for its root": lambda q: (
            q3_integral(q) ** 2
        ),
        "does it depend on the power?": lambda q: math.sqrt(math.pi),
    },
    tolerance=1e-4,
)
grade.values(predicted_rms, q3_question)
### END HIDDEN TESTS
grade.example(predicted_rms, [1.0], math.sqrt(math.pi))

# %% [markdown]
# ## 4. Who can grow? (5 points, 20 minutes)
#
# A layer grows by tokens with zero keys, that is with *zero scores*, while $\tau$ is held. A normalizer **keeps the function** if for every row
# of scores and any number of appended zeros the old weights stay and the new weights are 0.
#
# Write a test of that. It gets a normalizer, a function `theta(scores, tau)`, and returns `True` or `False`. Rounding is no difference: weights
# that agree to $10^{-9}$ of the largest one agree.
#
# - *accepts* (2 points): it accepts those that keep the function
# - *rejects* (3 points): it rejects those that do not. Some of these are sly.
#
# <details><summary>Hint 1</summary>
#
# "Every row": also short ones, and rows in which every score is negative. Draw many.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A comparison with nan is always False. Which way around did you write it?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps1-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def keeps_function(theta):
    """Does theta(scores, tau) keep old weights, and give new tokens none, when zero scores are appended?"""
    ### BEGIN SOLUTION
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 8, 20):
        for n_new in (1, 2, n, 5 * n):
            scores = rng.standard_normal((20, n)) + rng.uniform(-3, 3, (20, 1))
            grown_scores = np.concatenate([scores, np.zeros((20, n_new))], axis=1)
            tau = rng.uniform(0.5, 5)
            weights, grown = theta(scores, tau), theta(grown_scores, tau)
            limit = 1e-9 * np.abs(weights).max()
            stays = (np.abs(grown[:, :n] - weights) <= limit).all()  # False for nan
            if not (stays and (np.abs(grown[:, n:]) <= limit).all()):
                return False
    return True
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps1-q4-accepts", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q4_asks(normalizers):
    """A question over a table of (what it does, normalizer, does it keep the function?)."""

    def accept(arguments, got):
        what, _, answer = next(row for row in normalizers if row[1] is arguments[0])
        return None if got == answer else f"wrong about a normalizer that {what}"

    return grade.Exercise(
        reference=lambda theta: True,
        sample=lambda rng: [(theta,) for _, theta, _ in normalizers],
        accept=accept,
    )


def q4_library(kind):
    return lambda scores, tau: minitf.theta_forward(scores, kind, tau)[0]


def q4_power(scores, tau):
    r = np.maximum(scores, 0) ** 2
    total = r.sum(axis=-1, keepdims=True)
    return tau**2 * r / np.where(total > 0, total, 1)


q4_steady = (
    ("keeps the function: the paper's", q4_library("l2_norm_gelu"), True),
    ("keeps the function: L1, GeLU", q4_library("l1_norm_gelu"), True),
    ("keeps the function: GeLU, L2", q4_library("gelu_l2_norm"), True),
    ("keeps the function: GeLU alone", q4_library("gelu"), True),
    ("keeps the function: a power, L1", q4_power, True),
    (
        "keeps it but for rounding",
        lambda a, t: t * a * a.shape[-1] / 3 / a.shape[-1] * 3,
        True,
    ),
    ("shares out a fixed budget", q4_library("softmax"), False),
)
grade.values(keeps_function, q4_asks(q4_steady))
### END HIDDEN TESTS
grade.example(
    keeps_function, [lambda scores, tau: minitf.theta_forward(scores, tau=tau)[0]], True
)
grade.example(
    keeps_function,
    [lambda scores, tau: minitf.theta_forward(scores, "softmax", tau)[0]],
    False,
)

# %% nbgrader={"grade": true, "grade_id": "ps1-q4-rejects", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
q4_sly = (
    ("keeps the function: the paper's", q4_library("l2_norm_gelu"), True),
    ("ignores tau and takes √n", lambda a, t: minitf.theta_forward(a)[0], False),
    ("keeps old weights but lets new tokens speak", lambda a, t: t * np.exp(a), False),
    (
        "differs only in rows of negative scores",
        lambda a, t: t * a / a.max(-1, keepdims=True),
        False,
    ),
    ("answers nan to a new token", lambda a, t: np.where(a == 0, np.nan, t * a), False),
    ("differs only in long rows", lambda a, t: t * a + 0.1 * (a.shape[-1] > 30), False),
)
grade.values(keeps_function, q4_asks(q4_sly))
### END HIDDEN TESTS
grade.example(
    keeps_function, [lambda scores, tau: minitf.theta_forward(scores, tau=tau)[0]], True
)
grade.example(
    keeps_function,
    [lambda scores, tau: scores - scores.mean(axis=-1, keepdims=True)],
    False,
)

# %% [markdown]
# ## 5. How many tokens speak? (5 points, 15 minutes)
#
# Lesson 03 counts tokens that carry 90 % of the squares. A smooth count, known as participation ratio, needs no 90 %:
#
# $$N(w) = \frac{\left(\sum_i w_i^2\right)^2}{\sum_i w_i^4}.$$
#
# It is $k$ where $k$ weights are equally large and the others 0.
#
# - *values* (3 points): the formula, for each row
# - *edges* (2 points): a row of zeros has 0; a row times $10^{-20}$ or $10^{20}$ has the same $N$ in float32 too; dtype and inputs as above
#
# <details><summary>Hint</summary>
#
# $(10^{-20})^4$ is 0 in float32. What can you divide a row by without changing $N$?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps1-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def participation(weights):
    """Effective number of tokens that speak. weights: (..., n)  ->  (...)."""
    ### BEGIN SOLUTION
    loudest = np.abs(weights).max(axis=-1, keepdims=True)
    square = (weights / np.where(loudest > 0, loudest, 1)) ** 2
    fourth = (square * square).sum(axis=-1)
    return square.sum(axis=-1) ** 2 / np.where(fourth > 0, fourth, 1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps1-q5-values", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q5_shares(weights):
    """One over the sum of squared shares of the squares."""
    square = weights.astype(np.float64) ** 2
    total = square.sum(axis=-1, keepdims=True)
    share = square / np.where(total > 0, total, 1)
    concentration = np.asarray((share * share).sum(axis=-1))
    return np.asarray(
        (total[..., 0] > 0) / np.where(concentration > 0, concentration, 1), weights.dtype
    )


q5_question = grade.Exercise(
    q5_shares,
    lambda rng: [
        (rng.standard_normal(shape),) for shape in ((3, 4), (2, 3, 9), (6, 1), (7,))
    ],
    mistakes={
        "are these the weights themselves, not their squares?": lambda w: q5_shares(
            np.sqrt(np.abs(w))
        ),
        "one number for each row, please": lambda w: q5_shares(w.ravel()),
    },
)
grade.values(participation, q5_question)
### END HIDDEN TESTS
grade.example(
    participation, [np.array([[1.0, -1.0, 0.0], [2.0, 0.0, 0.0]])], np.array([2.0, 1.0])
)


# %% nbgrader={"grade": true, "grade_id": "ps1-q5-edges", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q5_edge_rows(rng):
    weights = rng.standard_normal((3, 5))
    yield (weights * np.array([[0.0], [1.0], [-1.0]]),)
    for size in (1e20, 1e-20):
        yield ((size * weights).astype(np.float32),)


grade.values(participation, q5_question._replace(sample=q5_edge_rows, mistakes={}))
grade.dtype(participation, q5_question)
grade.inputs(participation, q5_question)
### END HIDDEN TESTS
grade.example(participation, [np.zeros((2, 3))], np.zeros(2))

# %% [markdown]
# ## Compare
#
# Your normalizers beside the paper's, on 512 tokens with normal scores. Which of them would you grow? (Not graded.)

# %%
scores = np.random.default_rng(0).standard_normal((100, 512))
normalizers = {f"power {q}, L1": lambda a, tau, q=q: power_l1(a, q, tau) for q in (1, 2, 4)}
normalizers["center, L2, GeLU"] = centered_theta
normalizers["L2, GeLU (paper)"] = lambda a, tau: minitf.theta_forward(a, tau=tau)[0]
print(f"{'':18}    rms   tokens that speak   keeps the function")
for name, theta in normalizers.items():
    weights = theta(scores, None)
    rms, speak = np.sqrt((weights**2).mean()), participation(weights).mean()
    print(f"{name:18} {rms:6.2f} {speak:19.0f}   {keeps_function(theta)}")
