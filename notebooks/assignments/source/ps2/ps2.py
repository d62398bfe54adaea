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
# # PS2 Backpropagate what nobody has derived for you
#
# Lesson 04 derived the backward of the paper's $\Theta$ and of Pattention. Here is a normalizer that is in no library, a Pattention whose
# groups share their keys, and three backward functions with a bug in each.
#
# **You will be able to**
# - derive the backward of a new normalizer, and keep it right where exponentials vanish
# - add up gradients where an array is used more than once
# - write a gradient checker that cannot be fooled, and mend what it finds
#
# **You need** lesson 04
#
# **Minutes** 150
#
# **Points** 30, in 13 graded cells, one for each property
#
# How it is graded:
# - The cells below a question check one example. The grader checks more: shapes and numbers that it draws itself.
# - Every question is graded alone. Where it uses an earlier one, the grader puts a right answer in its place.
# - A backward function returns one gradient for each array of its forward, in that order, of the same shape and dtype. Inputs stay as
#   they were.

# %% nbgrader={"grade": false, "grade_id": "ps2-setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math
from typing import NamedTuple

import numpy as np

import minitf
from minitf.checks import grade


class ThetaCache(NamedTuple):
    """What the forward of question 1 keeps for the backward of question 2."""

    scores: np.ndarray  # (..., n)
    positive: np.ndarray  # softplus of the scores, (..., n)
    norm: np.ndarray  # |positive|_p of each row, (..., 1)
    power: float  # p
    tau: float  # the number that was used


def gradient_shapes(backward, forward, arrays, part=slice(None)):
    """Check that gradients have the shapes of their arrays: all of them, or the one of index `part`."""

    def run(*arrays):
        out, cache = forward(*arrays)
        return backward(np.ones_like(out), cache)[part]

    grade.shape(
        run, grade.Exercise(lambda *arrays: arrays[part], lambda rng: [tuple(arrays)])
    )


# %% [markdown]
# ## 1. Softplus, then a p-norm: forward (5 points, 25 minutes)
#
# $$g_i = \log(1 + e^{a_i}), \qquad w_i = \tau\,\frac{g_i}{\lvert g\rvert_p}, \qquad \lvert g\rvert_p = \left(\textstyle\sum_j g_j^p\right)^{1/p}, \qquad p \ge 1.$$
#
# `tau=None` means $n^{1/p}$, which makes the mean of $w_i^p$ equal to 1.
#
# - *values* (3 points): the weights
# - *edges* (2 points): scores of 1000 and of $-60$ are fine, in float32 too. ($-60$ is no zero: a row of $-60$ and $-61$ has weights like any
#   other. Only a row whose softplus is exactly 0, at $-1000$ say, gets weights 0.) dtype and inputs as above.
#
# <details><summary>Hint 1</summary>
#
# `np.log(1 + np.exp(-60))` is 0. NumPy has a function for $\log(e^a + e^b)$ that neither overflows nor rounds to 0; what is $b$ here?
#
# </details>
# <details><summary>Hint 2</summary>
#
# $10^{-27}$ to the third power is 0 in float32. Divide a row by its largest entry, take the norm, multiply again.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps2-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def softplus_theta_forward(scores, power=3.0, tau=None):
    """Weights tau g / |g|_p with g = log(1 + exp(scores)). scores: (..., n)  ->  weights (..., n), ThetaCache."""
    ### BEGIN SOLUTION
    positive = np.logaddexp(scores, 0)
    largest = positive.max(axis=-1, keepdims=True)
    relative = positive / np.where(largest > 0, largest, 1)
    norm = largest * (relative**power).sum(axis=-1, keepdims=True) ** (1 / power)
    if tau is None:
        tau = scores.shape[-1] ** (1 / power)
    weights = tau * (positive / np.where(norm > 0, norm, 1))
    return weights, ThetaCache(scores, positive, norm, power, tau)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps2-q1-values", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_theta_forward(scores, power=3.0, tau=None):
    """In logarithms: log w = log τ + log g - log |g|_p, so nothing under- or overflows."""
    positive = np.maximum(scores, 0) + np.log1p(np.exp(-np.abs(scores)))
    alive = positive.max(axis=-1, keepdims=True) > 0
    with np.errstate(divide="ignore"):
        log = np.log(np.where(alive, positive, 1))
    peak = log.max(axis=-1, keepdims=True)
    log_norm = (
        peak + np.log(np.exp(power * (log - peak)).sum(axis=-1, keepdims=True)) / power
    )
    tau = scores.shape[-1] ** (1 / power) if tau is None else tau
    norm = np.where(alive, np.exp(log_norm), 0)
    weights = np.where(alive, tau * np.exp(log - log_norm), 0)
    return weights, ThetaCache(scores, positive, norm, power, tau)


def right_weights(scores, power=3.0, tau=None):
    return right_theta_forward(scores, power, tau)[0]


def q1_weights(*arguments):
    return softplus_theta_forward(*arguments)[0]


def q1_rows(rng):
    for shape in ((1, 2), (4, 7), (2, 3, 5), (9,)):
        yield 2 * rng.standard_normal(shape), rng.uniform(1, 5)
        yield 2 * rng.standard_normal(shape), rng.uniform(1, 5), rng.uniform(0.5, 3)


q1_question = grade.Exercise(
    right_weights,
    q1_rows,
    mistakes={
        "None means n^(1/p), not √n": lambda a, p=3.0, t=None: right_weights(
            a, p, t or math.sqrt(a.shape[-1])
        ),
        "a tau that is given must be used, not computed again": lambda a, p=3.0, t=None: (
            right_weights(a, p)
        ),
        "is the power fixed?": lambda a, p=3.0, t=None: right_weights(a, 3.0, t),
        "is the softplus missing?": lambda a, p=3.0, t=None: (
            (t or a.shape[-1] ** (1 / p))
            * a
            / (np.abs(a) ** p).sum(axis=-1, keepdims=True) ** (1 / p)
        ),
    },
)
grade.values(q1_weights, q1_question)
### END HIDDEN TESTS
grade.example(
    lambda a: softplus_theta_forward(a, 1.0)[0].round(3),
    [np.array([0.0, 2.0])],
    np.array([0.492, 1.508]),
)


# %% nbgrader={"grade": true, "grade_id": "ps2-q1-edges", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q1_edge_rows(rng):
    scores = rng.standard_normal((3, 5))
    for shift in (1000, -60, -1000):
        yield (scores + shift,)
        yield ((scores + shift).astype(np.float32),)
    yield (np.stack([scores[0] - 1000, scores[1]]),)


grade.values(
    q1_weights, q1_question._replace(sample=q1_edge_rows, mistakes={}, tolerance=1e-5)
)
grade.dtype(q1_weights, q1_question)
grade.inputs(q1_weights, q1_question)
### END HIDDEN TESTS
grade.example(
    lambda a: softplus_theta_forward(a)[0], [np.array([1000.0, 1000.0])], np.ones(2)
)

# %% [markdown]
# ## 2. Softplus, then a p-norm: backward (6 points, 35 minutes)
#
# Derive it on paper first: what does $\lvert g\rvert_p$ do when one $g_j$ moves? Then the slope of softplus. The cache is question 1's; the
# grader fills it with the right numbers.
#
# - *values* (4 points): the gradient at ordinary scores
# - *edges* (2 points): at scores near $-60$ the gradient is as large as anywhere; where the norm is 0 it is 0; dtype and inputs as above
#
# <details><summary>Hint 1</summary>
#
# $\partial\lvert g\rvert_p / \partial g_j = u_j^{p-1}$ with $u = g/\lvert g\rvert_p$. Check: for $p = 2$ it is $u_j$, as in lesson 04.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Making $g$ longer changes no weight. So before the slope of softplus comes in, your gradient must satisfy $\sum_j dg_j\,g_j = 0$: check that.
#
# </details>
# <details><summary>Hint 3</summary>
#
# At $-60$ one factor is huge and the slope of softplus tiny. Their product is neither, if both have correct digits: $\tfrac12(1 + \tanh\tfrac a2)$ has none.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps2-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def softplus_theta_backward(dweights, cache):
    """dscores (..., n) from dweights (..., n) and the ThetaCache of the forward."""
    ### BEGIN SOLUTION
    scores, positive, norm, power, tau = cache
    alive = norm > 0
    inverse = np.where(alive, 1 / np.where(alive, norm, 1), 0)
    unit = positive * inverse
    along = (dweights * unit).sum(axis=-1, keepdims=True)
    dpositive = tau * inverse * (dweights - unit ** (power - 1) * along)
    # 1 / (1 + exp(-a)), with all digits at both ends
    slope = np.exp(-np.logaddexp(-scores, 0))
    return dpositive * slope
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps2-q2-values", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_theta_backward(dweights, cache):
    """Through the weights: da = g'/g w (dw - w^(p-1) (dw·w) / τ^p)."""
    scores, positive, norm, power, tau = cache
    weights = tau * positive / np.where(norm > 0, norm, 1)
    along = (dweights * weights).sum(axis=-1, keepdims=True)
    log_positive = np.log(np.where(positive > 0, positive, 1))
    ratio = np.exp(-np.logaddexp(-scores, 0) - log_positive)  # g'/g
    return ratio * weights * (dweights - weights ** (power - 1) * along / tau**power)


def q2_calls(rng):
    for shape in ((1, 2), (4, 7), (2, 3, 5), (9,)):
        for tau in (None, rng.uniform(0.5, 3)):
            _, cache = right_theta_forward(
                2 * rng.standard_normal(shape), rng.uniform(1.5, 5), tau
            )
            yield rng.standard_normal(shape), cache


def q2_without_norm(dweights, cache):
    return dweights * cache.tau / cache.norm / (1 + np.exp(-cache.scores))


def q2_wrong_exponent(dweights, cache):
    unit = cache.positive / cache.norm
    along = (dweights * unit).sum(axis=-1, keepdims=True)
    return (
        cache.tau
        / cache.norm
        * (dweights - unit**cache.power * along)
        / (1 + np.exp(-cache.scores))
    )


q2_question = grade.Exercise(
    right_theta_backward,
    q2_calls,
    mistakes={
        "the norm moves too, when a score moves: that term is missing": q2_without_norm,
        "the norm's slope has the exponent p - 1": q2_wrong_exponent,
        "is tau missing?": lambda dw, cache: right_theta_backward(dw, cache) / cache.tau,
        "where is the slope of softplus?": lambda dw, cache: (
            right_theta_backward(dw, cache) * (1 + np.exp(-cache.scores))
        ),
    },
)
grade.values(softplus_theta_backward, q2_question)
### END HIDDEN TESTS
grade.example(
    lambda dweights, cache: softplus_theta_backward(dweights, cache).round(4),
    [
        np.array([1.0, 0.0]),
        ThetaCache(np.zeros(2), np.full(2, math.log(2)), np.array([math.log(4)]), 1.0, 2.0),
    ],
    np.array([0.3607, -0.3607]),
)


# %% nbgrader={"grade": true, "grade_id": "ps2-q2-edges", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q2_edge_calls(rng):
    scores = rng.standard_normal((3, 5))
    for dtype, shifts in (
        (np.float64, (30, -30, -60, -1000)),
        (np.float32, (30, -30, -60)),
    ):
        for shift in shifts:
            _, cache = right_theta_forward((scores + shift).astype(dtype))
            yield rng.standard_normal((3, 5)).astype(dtype), cache


def q2_tanh_slope(dweights, cache):
    scores, positive, norm, power, tau = cache
    inverse = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0)
    unit = positive * inverse
    along = (dweights * unit).sum(axis=-1, keepdims=True)
    slope = (1 + np.tanh(scores / 2)) / 2
    return tau * inverse * (dweights - unit ** (power - 1) * along) * slope


q2_edges = q2_question._replace(
    sample=q2_edge_calls,
    mistakes={"½(1 + tanh) has no digits left at -60": q2_tanh_slope},
    tolerance=1e-3,
)
grade.values(softplus_theta_backward, q2_edges)
grade.dtype(softplus_theta_backward, q2_question)
grade.inputs(softplus_theta_backward, q2_question)
### END HIDDEN TESTS
grade.example(
    softplus_theta_backward,
    [np.ones(2), ThetaCache(np.full(2, -1000.0), np.zeros(2), np.zeros(1), 3.0, 1.0)],
    np.zeros(2),
)

# %% [markdown]
# ## 3. Groups that share their keys: backward (9 points, 40 minutes)
#
# Cut the channels of every input token into $G$ groups. All groups are compared with the *same* keys, and each group has values of its own.
# The forward is given; it uses your normalizer with its defaults.


# %% nbgrader={"grade": false, "grade_id": "ps2-grouped", "locked": true, "schema_version": 3, "solution": false, "task": false}
class GroupedCache(NamedTuple):
    x: np.ndarray  # (..., G, c)
    key: np.ndarray  # (n, c), of all groups
    value: np.ndarray  # (G, n, e), each group has its own
    weights: np.ndarray  # (..., G, n)
    theta: ThetaCache


def grouped_forward(x, key, value):
    """x: (..., G·c)   key: (n, c)   value: (G, n, e)   ->   out: (..., G·e), cache."""
    groups, n, width = value.shape
    x = x.reshape(*x.shape[:-1], groups, key.shape[1])
    weights, theta = softplus_theta_forward(x @ key.T)  # (..., G, n)
    out = np.einsum("...gn,gne->...ge", weights, value)
    return out.reshape(*x.shape[:-2], groups * width), GroupedCache(
        x, key, value, weights, theta
    )


q3_arrays = [np.ones((3, 4)), np.ones((5, 2)), np.ones((2, 5, 3))]  # x, key, value


# %% [markdown]
# Write its backward, with `softplus_theta_backward`.
#
# - *dx* (2 points), *dkey* (3 points), *dvalue* (2 points): for `x` of shape $(T, G c)$
# - *batch* (2 points): all three, for any axes before the last, none included
#
# <details><summary>Hint 1</summary>
#
# Make one axis of all leading ones, and give `dout` its group axis: $(T, G, e)$. Then write each gradient as an einsum: which axes does the result
# have, and over which must you sum?
#
# </details>
# <details><summary>Hint 2</summary>
#
# A key is used by all tokens *and* all groups. A value is used by all tokens of one group.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps2-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def grouped_backward(dout, cache):
    """dx (..., G·c), dkey (n, c), dvalue (G, n, e) from dout (..., G·e)."""
    ### BEGIN SOLUTION
    groups, n, width = cache.value.shape
    dgroups = dout.reshape(-1, groups, width)  # all leading axes as one
    x = cache.x.reshape(len(dgroups), groups, -1)
    dvalue = np.einsum("tgn,tge->gne", cache.weights.reshape(-1, groups, n), dgroups)
    dweights = np.einsum("tge,gne->tgn", dgroups, cache.value)
    dscores = softplus_theta_backward(dweights.reshape(cache.weights.shape), cache.theta)
    dkey = np.einsum("tgn,tgc->nc", dscores.reshape(-1, groups, n), x)
    dx = (dscores @ cache.key).reshape(*dout.shape[:-1], -1)
    return dx, dkey, dvalue
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps2-q3-dx", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
# question 3 is graded on the right answers to questions 1 and 2
softplus_theta_forward, softplus_theta_backward = right_theta_forward, right_theta_backward


def right_grouped_backward(dout, cache):
    """One group and one token at a time."""
    groups, n, width = cache.value.shape
    dx, dkey, dvalue = (np.zeros_like(a) for a in (cache.x, cache.key, cache.value))
    dgroups = dout.reshape(*dout.shape[:-1], groups, width)
    for index in np.ndindex(dgroups.shape[:-1]):
        g = index[-1]
        dvalue[g] += np.outer(cache.weights[index], dgroups[index])
        theta = ThetaCache(*(a[index] for a in cache.theta[:3]), *cache.theta[3:])
        dscores = right_theta_backward(cache.value[g] @ dgroups[index], theta)
        dkey += np.outer(dscores, cache.x[index])
        dx[index] = dscores @ cache.key
    return dx.reshape(*dout.shape[:-1], -1), dkey, dvalue


def q3_calls(rng, leading=((1,), (4,), (6,))):
    for shape in leading:
        groups, c, n, e = rng.permutation([2, 3, 4, 5])  # sizes that differ
        arrays = (
            rng.standard_normal(s) for s in ((*shape, groups * c), (n, c), (groups, n, e))
        )
        out, cache = grouped_forward(*arrays)
        yield rng.standard_normal(out.shape), cache


def q3_only(part, backward):
    return lambda dout, cache: backward(dout, cache)[part]


q3_dx = grade.Exercise(q3_only(0, right_grouped_backward), q3_calls)
grade.values(q3_only(0, grouped_backward), q3_dx)
### END HIDDEN TESTS
gradient_shapes(grouped_backward, grouped_forward, q3_arrays, part=0)


# %% nbgrader={"grade": true, "grade_id": "ps2-q3-dkey", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q3_one_group(dout, cache):
    """dkey of the first group alone."""
    groups, _, width = cache.value.shape
    first = np.zeros((*dout.shape[:-1], groups, width))
    first[..., 0, :] = dout.reshape(first.shape)[..., 0, :]
    return right_grouped_backward(first.reshape(dout.shape), cache)[1]


q3_dkey = grade.Exercise(
    q3_only(1, right_grouped_backward),
    q3_calls,
    mistakes={
        "every group uses the keys: add up their gradients": q3_one_group,
        "is it a mean over groups? Gradients add up": lambda dout, cache: (
            right_grouped_backward(dout, cache)[1] / len(cache.value)
        ),
    },
)
grade.values(q3_only(1, grouped_backward), q3_dkey)
### END HIDDEN TESTS
gradient_shapes(grouped_backward, grouped_forward, q3_arrays, part=1)

# %% nbgrader={"grade": true, "grade_id": "ps2-q3-dvalue", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
q3_dvalue = grade.Exercise(
    q3_only(2, right_grouped_backward),
    q3_calls,
    mistakes={
        "is it a mean over tokens? Gradients add up": lambda dout, cache: (
            right_grouped_backward(dout, cache)[2] / dout[..., 0].size
        )
    },
)
grade.values(q3_only(2, grouped_backward), q3_dvalue)
### END HIDDEN TESTS
gradient_shapes(grouped_backward, grouped_forward, q3_arrays, part=2)

# %% nbgrader={"grade": true, "grade_id": "ps2-q3-batch", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
q3_batch = grade.Exercise(
    right_grouped_backward,
    lambda rng: q3_calls(rng, leading=((), (2, 3), (2, 1, 4))),
    outputs=("dx", "dkey", "dvalue"),
)
grade.values(grouped_backward, q3_batch)
grade.dtype(grouped_backward, q3_batch)
grade.inputs(grouped_backward, q3_batch)
### END HIDDEN TESTS
gradient_shapes(grouped_backward, grouped_forward, [np.ones((2, 3, 4)), *q3_arrays[1:]])

# %% [markdown]
# ## 4. A checker that cannot be fooled (4 points, 25 minutes)
#
# Write a function that says which gradients of a layer are wrong. `forward(*arrays)` returns `out, cache`, and `backward(dout, cache)` a tuple with one
# gradient for each array. `arrays` is a dict from names to float64 arrays. Return the names of the wrong ones, in their order, as a list.
#
# A gradient is right if it has the shape of its array and no entry is off by more than $10^{-5}$ times the largest entry of the true one.
# `minitf.numerical_gradient(function, x)` differentiates a scalar function.
#
# - *finds* (3 points): it names what is wrong, also where the mistakes of a row cancel, where a gradient is transposed, or nan
# - *quiet* (1 point): it names nothing where nothing is wrong
#
# <details><summary>Hint</summary>
#
# Which scalar do you differentiate? The sum of the outputs of a softmax is always 1.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps2-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def wrong_gradients(forward, backward, arrays):
    """Names of the arrays whose gradient by `backward` is wrong, in order: a list."""
    ### BEGIN SOLUTION
    result, cache = forward(*arrays.values())
    # random, so that mistakes do not cancel
    dout = np.random.default_rng(0).standard_normal(result.shape)
    found = []
    for i, (got, (name, array)) in enumerate(
        zip(backward(dout, cache), arrays.items(), strict=True)
    ):

        def scalar(moved, i=i):
            replaced = [moved if j == i else a for j, a in enumerate(arrays.values())]
            return (forward(*replaced)[0] * dout).sum()

        true = minitf.numerical_gradient(scalar, array)
        right = (
            got.shape == true.shape
            and (np.abs(got - true) <= 1e-5 * np.abs(true).max()).all()
        )
        if not right:
            found.append(name)
    return found
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps2-q4-finds", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q4_forward(x, weight, shift):
    """softmax((x + shift) Wᵀ), a layer with three arrays."""
    out, softmax = minitf.softmax_forward((x + shift) @ weight.T)
    return out, (x + shift, weight, softmax)


def q4_backward(dout, cache):
    moved, weight, softmax = cache
    dscores = minitf.softmax_backward(dout, softmax)
    dmoved = dscores @ weight
    return dmoved, dscores.T @ moved, dmoved.sum(axis=0)


def q4_arrays(rng):
    return {
        "x": rng.standard_normal((4, 3)),
        "weight": rng.standard_normal((3, 3)),  # square: transposing it keeps the shape
        "shift": rng.standard_normal(3),
    }


Q4_BUGS = {
    "is all zero where outputs sum to 1": lambda g: 0 * g,
    "is 1 per mille too large": lambda g: 1.001 * g,
    "has the wrong sign": lambda g: -g,
    "is transposed": lambda g: g.T if g.ndim == 2 else g[::-1],
    "is nan": lambda g: np.nan * g,
    "has one wrong entry": lambda g: (
        g + 0.1 * (np.arange(g.size) == g.size - 1).reshape(g.shape)
    ),
    "has one axis too many": lambda g: g[None],
}


def q4_planted(rng):
    """(arguments, names that are wrong, what the bug is) of layers with one, two or three wrong gradients."""
    for what, bug in Q4_BUGS.items():
        bad = rng.random(3) < 0.5
        bad[rng.integers(3)] = True

        def backward(dout, cache, bad=bad, bug=bug):
            return tuple(
                bug(g) if b else g
                for g, b in zip(q4_backward(dout, cache), bad, strict=True)
            )

        arrays = q4_arrays(rng)
        yield (
            (q4_forward, backward, arrays),
            [name for name, b in zip(arrays, bad, strict=True) if b],
            what,
        )
    yield (q4_forward, q4_backward, q4_arrays(rng)), [], "there is none"


def q4_accept(arguments, got):
    planted = q4_planted(np.random.default_rng(grade.seed()))
    names, what = next(
        (names, what)
        for (_, _, arrays), names, what in planted
        if arrays["x"][0, 0] == arguments[2]["x"][0, 0]
    )
    found = ", ".join(map(str, got)) if isinstance(got, list) else type(got).__name__
    return None if got == names else f"says '{found}' where a gradient {what}"


q4_question = grade.Exercise(
    lambda forward, backward, arrays: "names",
    lambda rng: (arguments for arguments, _, _ in q4_planted(rng)),
    accept=q4_accept,
)
grade.values(wrong_gradients, q4_question)
### END HIDDEN TESTS
grade.example(
    wrong_gradients,
    # the 2 is missing
    [lambda x: (x * x, x), lambda dout, x: (dout * x,), {"x": np.array([1.0, 2.0])}],
    ["x"],
)


# %% nbgrader={"grade": true, "grade_id": "ps2-q4-quiet", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q4_right_layers(rng):
    for _ in range(5):
        yield q4_forward, q4_backward, q4_arrays(rng)
    small = lambda x: (1e-4 * x, None), lambda dout, cache: (1e-4 * (1 + 1e-9) * dout,)
    yield *small, {"x": np.ones((2, 2))}


def q4_accuses_nobody(arguments, got):
    if got == []:
        return None
    found = ", ".join(map(str, got)) if isinstance(got, list) else type(got).__name__
    return f"says '{found}' where every gradient is right"


grade.values(
    wrong_gradients,
    grade.Exercise(lambda *arguments: "names", q4_right_layers, accept=q4_accuses_nobody),
)
grade.example(
    wrong_gradients,
    [lambda x: (x, x), lambda dout, x: (-dout,), {"x": np.ones((2, 2))}],
    ["x"],
)
### END HIDDEN TESTS
grade.example(
    wrong_gradients,
    [lambda x: (x * x, x), lambda dout, x: (2 * dout * x,), {"x": np.ones(2)}],
    [],
)

# %% [markdown]
# ## 5. Three bugs (6 points, 25 minutes)
#
# Each of these layers has a right forward and a backward with one bug. Let your checker find the array, then think: why is it wrong?


# %% nbgrader={"grade": false, "grade_id": "ps2-bugs", "locked": true, "schema_version": 3, "solution": false, "task": false}
def rms_forward(x, gain):
    """x / rms(x) times gain. x: (T, d)   gain: (d,)   ->   (T, d)."""
    size = np.sqrt((x * x).mean(axis=-1, keepdims=True))
    return x / size * gain, (x / size, size, gain)


def rms_backward(dout, cache):
    normed, size, gain = cache
    dnormed = dout * gain
    dx = (dnormed - normed * (normed * dnormed).mean(axis=-1, keepdims=True)) / size
    dgain = (dout * normed).mean(axis=0)
    return dx, dgain


def glu_forward(x, up, gate):
    """(x upᵀ) sigmoid(x gateᵀ), a gated linear unit. x: (T, d)   up, gate: (h, d)   ->   (T, h)."""
    hidden = x @ up.T
    opened = 1 / (1 + np.exp(-x @ gate.T))
    return hidden * opened, (x, up, gate, hidden, opened)


def glu_backward(dout, cache):
    x, up, gate, hidden, opened = cache
    dhidden = dout * opened
    dscores = dout * hidden * opened * (1 - opened)
    dx = dhidden @ up
    return dx, dhidden.T @ x, dscores.T @ x


def running_mean_forward(x):
    """Row t is the mean of the rows up to t. x: (T, d)   ->   (T, d)."""
    count = np.arange(1, len(x) + 1)[:, None]
    return x.cumsum(axis=0) / count, count


def running_mean_backward(dout, cache):
    count = cache
    dx = (dout / count).cumsum(axis=0)
    return (dx,)


# %% [markdown]
# Write the three backward functions without their bugs (2 points each).
#
# <details><summary>Hint</summary>
#
# Ask for each array in how many places of the forward it is used, and by which outputs. Gradients *add up* over uses. Which outputs does the first
# row of a running mean reach, and which the last?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps2-q5-rms", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mended_rms_backward(dout, cache):
    """dx (T, d), dgain (d,)."""
    ### BEGIN SOLUTION
    normed, _, _ = cache
    dx, _ = rms_backward(dout, cache)
    return dx, (dout * normed).sum(axis=0)  # every row uses the gain once
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "ps2-q5-glu", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mended_glu_backward(dout, cache):
    """dx (T, d), dup (h, d), dgate (h, d)."""
    ### BEGIN SOLUTION
    _, _, gate, hidden, opened = cache
    dx, dup, dgate = glu_backward(dout, cache)
    from_gate = (dout * hidden * opened * (1 - opened)) @ gate
    return dx + from_gate, dup, dgate  # x takes two paths
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "ps2-q5-mean", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mended_running_mean_backward(dout, cache):
    """(dx,), dx (T, d)."""
    ### BEGIN SOLUTION
    # row t reaches the outputs from t on, so the sum runs backward
    from_the_end = (dout / cache)[::-1].cumsum(axis=0)
    return (from_the_end[::-1],)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps2-q5-rms-values", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q5_rms_arrays(rng):
    for rows, d in ((1, 3), (4, 5), (7, 2)):
        yield rng.standard_normal((rows, d)), rng.standard_normal(d)


grade.gradients(
    mended_rms_backward,
    rms_forward,
    q5_rms_arrays,
    outputs=("dx", "dgain"),
    mistakes={"every row uses the gain: is their mean what you want?": rms_backward},
)
### END HIDDEN TESTS
gradient_shapes(mended_rms_backward, rms_forward, [np.ones((2, 3)), np.ones(3)])


# %% nbgrader={"grade": true, "grade_id": "ps2-q5-glu-values", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q5_glu_arrays(rng):
    for rows, d, h in ((1, 3, 2), (4, 2, 5), (3, 5, 4)):
        yield tuple(rng.standard_normal(shape) for shape in ((rows, d), (h, d), (h, d)))


grade.gradients(
    mended_glu_backward,
    glu_forward,
    q5_glu_arrays,
    outputs=("dx", "dup", "dgate"),
    mistakes={"x goes into two products": glu_backward},
)
### END HIDDEN TESTS
gradient_shapes(
    mended_glu_backward, glu_forward, [np.ones((2, 3)), np.ones((4, 3)), np.ones((4, 3))]
)


# %% nbgrader={"grade": true, "grade_id": "ps2-q5-mean-values", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q5_first_gradient(dout, cache):
    gradients = mended_running_mean_backward(dout, cache)
    return gradients[0] if isinstance(gradients, tuple) else gradients


grade.gradients(
    q5_first_gradient,
    running_mean_forward,
    lambda rng: [(rng.standard_normal(shape),) for shape in ((1, 2), (5, 3), (8, 1))],
    mistakes={
        "an early row reaches late outputs, not the other way": lambda d, c: (
            running_mean_backward(d, c)[0]
        )
    },
)
### END HIDDEN TESTS
gradient_shapes(mended_running_mean_backward, running_mean_forward, [np.ones((2, 3))])

# %% [markdown]
# ## Try your checker
#
# On the three layers, with the bugs and without. (Not graded.)

# %%
rng = np.random.default_rng(0)
layers = {
    "rms": (rms_forward, {"x": (4, 3), "gain": (3,)}, rms_backward, mended_rms_backward),
    "glu": (
        glu_forward,
        {"x": (4, 3), "up": (5, 3), "gate": (5, 3)},
        glu_backward,
        mended_glu_backward,
    ),
    "mean": (
        running_mean_forward,
        {"x": (4, 3)},
        running_mean_backward,
        mended_running_mean_backward,
    ),
}
for name, (forward, shapes, buggy, mended) in layers.items():
    arrays = {array: rng.standard_normal(shape) for array, shape in shapes.items()}
    print(
        name, [wrong_gradients(forward, backward, arrays) for backward in (buggy, mended)]
    )
