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
# # PS3 Design a growth rule
#
# Lesson 06 grows parameter tokens with zero keys while $\tau$ is held. Here $\tau$ may not be held: it is $\sqrt n$ of the moment, as in
# the released code. And tokens are not all that must grow: the model gets wider as well.
#
# **You will be able to**
# - design a growth that is exact although $\tau$ moves
# - make every token wider without changing a logit
# - tell which new parameters will never learn
# - prove all three
#
# **You need** lessons 04 and 06; orthonormal columns and the QR decomposition
#
# **Minutes** 180
#
# **Points** 30: 18 in 8 graded cells, 12 for four short proofs, marked by hand
#
# How it is graded:
# - There is more than one right answer. The grader does not compare arrays; it asks whether the grown model has the old logits, and
#   whether its new parameters learn, for sizes and numbers that it draws itself.
# - Every question is graded alone. Where it uses an earlier one, the grader puts a right answer in its place.
# - A proof is three to ten lines. Write formulas in $\LaTeX$ or in words.
#
# ## The model
#
# A TokenFormer without token-token attention: embedding, blocks of RMS norm, Pattention and residual, and at the end an RMS norm and the
# unembedding. Its parameters:
#
# | | shape | |
# |---|---|---|
# | `params["embedding"]`, `params["unembedding"]` | $(V, d)$ | one row for each id |
# | `params["blocks"][i]["key"]`, `["value"]` | $(n_i, d)$ | $n_i$ parameter tokens; $\tau$ is always $\sqrt{n_i}$ |

# %% nbgrader={"grade": false, "grade_id": "ps3-model", "locked": true, "schema_version": 3, "solution": false, "task": false}
import copy
import math

import numpy as np

import minitf
from minitf.checks import grade


def rms_norm(x):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True))


def rms_norm_backward(dout, x):
    size = np.sqrt((x * x).mean(axis=-1, keepdims=True))
    return (dout - x * (x * dout).mean(axis=-1, keepdims=True) / size**2) / size


def forward(params, ids):
    """Logits (T, V) of ids (T,), and what the backward needs."""
    x, inputs = params["embedding"][ids], []
    for block in params["blocks"]:
        out, cache = minitf.pattention_forward(rms_norm(x), block["key"], block["value"])
        inputs.append((x, cache))
        x = x + out
    return rms_norm(x) @ params["unembedding"].T, (x, inputs)


def loss_and_grads(params, ids, targets):
    """Mean cross-entropy and its gradients, a dict like params."""
    logits, (x, inputs) = forward(params, ids)
    loss, cache = minitf.cross_entropy_forward(logits, targets)
    dlogits = minitf.cross_entropy_backward(1.0, cache)
    dx = rms_norm_backward(dlogits @ params["unembedding"], x)
    grads = {"unembedding": dlogits.T @ rms_norm(x), "blocks": []}
    for x, cache in reversed(inputs):
        dnormed, dkey, dvalue = minitf.pattention_backward(dx, cache)
        grads["blocks"].insert(0, {"key": dkey, "value": dvalue})
        dx = dx + rms_norm_backward(dnormed, x)
    grads["embedding"] = np.zeros_like(params["embedding"])
    np.add.at(grads["embedding"], ids, dx)
    return loss, grads


def random_model(rng, vocab_size=11, d=6, tokens=(5, 9)):
    def normal(*shape):
        return rng.standard_normal(shape)

    blocks = [{"key": normal(n, d), "value": normal(n, d) / math.sqrt(n)} for n in tokens]
    return {
        "embedding": normal(vocab_size, d),
        "blocks": blocks,
        "unembedding": normal(vocab_size, d),
    }


# %% [markdown]
# ## 1. More tokens while tau moves (8 points, 50 minutes)
#
# Append tokens to one Pattention. Zero keys will not do: $\tau$ grows from $\sqrt n$ to $\sqrt{n'}$, and with it every old weight. So the new keys must
# make up for it. The old rows come first and stay as they are. You get at least $\min(n, d)$ new tokens, and in general $n'/n$ is no whole number.
#
# - *exact* (3 points): the output is unchanged for every input, to rounding; inputs stay as they were
# - *alive* (2 points): every new token gets a gradient in its key or its value, and no two tokens are *twins*, with equal keys and equal values:
#   they would stay equal for ever
# - *proof* (3 points)
#
# <details><summary>Hint 1</summary>
#
# Which length must the row of scores $(Kx, Nx)$ have, for new keys $N$, so that $\sqrt{n'}/\lvert\cdot\rvert$ is what $\sqrt n/\lvert\cdot\rvert$ was?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Write $K = QR$ with orthonormal columns in $Q$. What is the length of $Kx$? Which other matrices $N$ have scores of the same length for every $x$?
#
# </details>
# <details><summary>Hint 3</summary>
#
# New weights are then not 0. What must the new values be?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps3-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def grow_tokens(key, value, n_new, seed):
    """key (n, d), value (n, e)  ->  key (n_new, d), value (n_new, e), old rows first."""
    ### BEGIN SOLUTION
    extra, rng = n_new - len(key), np.random.default_rng(seed)
    triangle = np.linalg.qr(key, mode="r")  # |R x| = |K x| for every x
    turn, _ = np.linalg.qr(rng.standard_normal((extra, len(triangle))))  # keeps lengths
    new_key = math.sqrt(extra / len(key)) * turn @ triangle  # |N x|² = (extra / n) |K x|²
    new_value = np.zeros((extra, value.shape[1]))  # because the new weights are not 0
    return np.concatenate((key, new_key)), np.concatenate((value, new_value))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps3-q1-exact", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_grow_tokens(key, value, n_new, seed):
    """By singular values: another matrix whose scores are as long as the old ones."""
    _, size, direction = np.linalg.svd(key, full_matrices=False)
    extra = n_new - len(key)
    if extra < len(size):
        raise ValueError(f"{extra} new tokens for keys of rank {len(size)}: see proof 1")
    noise = np.random.default_rng(seed).standard_normal((extra, len(size)))
    basis, _, _ = np.linalg.svd(noise, full_matrices=False)
    new_key = (basis * size) @ direction * math.sqrt(extra / len(key))
    return np.concatenate([key, new_key]), np.pad(value, ((0, extra), (0, 0)))


def q1_layers(rng):
    for n, d, e, extra in (
        (5, 3, 4, 3),
        (3, 6, 2, 3),
        (4, 4, 4, 7),
        (6, 2, 5, 6),
        (1, 4, 3, 2),
    ):
        layer = rng.standard_normal((n, d)), rng.standard_normal((n, e))
        yield *layer, n + extra, grade.seed() + n


def q1_exact(arguments, got):
    key, value, _, _ = arguments
    n = len(key)
    if not all(
        np.array_equal(new[:n], old) for new, old in zip(got, (key, value), strict=True)
    ):
        return "the old rows must come first and stay as they are"
    x = np.random.default_rng(0).standard_normal((20, key.shape[1]))
    before, after = (
        minitf.pattention_forward(x, *layer)[0] for layer in ((key, value), got)
    )
    if np.abs(after - before).max() <= 1e-9 * np.abs(before).max():
        return None
    weights = [
        minitf.pattention_forward(x, *layer)[1].weights[:, :n]
        for layer in ((key, value), got)
    ]
    if np.abs(weights[0] - weights[1]).max() <= 1e-9:
        return "the old weights stay, but the output moves: what do the new tokens say?"
    return "the output moves: the old weights are not what they were when tau was √n"


q1_question = grade.Exercise(
    right_grow_tokens, q1_layers, outputs=("key", "value"), accept=q1_exact
)
grade.values(grow_tokens, q1_question)
grade.inputs(
    lambda key, value: grow_tokens(key, value, 9, 0),
    grade.Exercise(
        lambda key, value: right_grow_tokens(key, value, 9, 0),
        lambda rng: [(rng.standard_normal((4, 3)), rng.standard_normal((4, 2)))],
    ),
)
### END HIDDEN TESTS
q1_x, q1_layer = np.ones((1, 3)), (np.eye(5, 3), np.ones((5, 2)))
grade.example(
    lambda *layer: minitf.pattention_forward(q1_x, *grow_tokens(*layer, 9, 1))[0],
    q1_layer,
    minitf.pattention_forward(q1_x, *q1_layer)[0],
)


# %% nbgrader={"grade": true, "grade_id": "ps3-q1-alive", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def twins(*arrays):
    """Are two rows equal in all of these arrays?"""
    rows = np.concatenate(arrays, axis=1).round(9)
    return len(np.unique(rows, axis=0)) < len(rows)


def q1_alive(arguments, got):
    key, value = got
    rng, n = np.random.default_rng(0), len(arguments[0])
    x = rng.standard_normal((50, key.shape[1]))
    out, cache = minitf.pattention_forward(x, key, value)
    _, dkey, dvalue = minitf.pattention_backward(rng.standard_normal(out.shape), cache)
    moves = np.abs(np.concatenate([dkey, dvalue], axis=1)).max(axis=1)
    if not (moves[n:] > 1e-12).all():
        return "a new token is dead: both of its gradients are 0"
    return "two tokens are twins, and stay so for ever" if twins(key, value) else None


grade.values(grow_tokens, q1_question._replace(accept=q1_alive))
### END HIDDEN TESTS
q1_key, q1_value = grow_tokens(np.eye(5, 3), np.ones((5, 2)), 9, 1)
grade.shape(
    lambda: (q1_key, q1_value),
    grade.Exercise(lambda: (np.eye(9, 3), np.ones((9, 2))), lambda rng: [()]),
)

# %% [markdown]
# **Proof 1** (3 points). $K$ are the $n$ old keys and $N$ the $m$ new ones; $\tau$ goes from $\sqrt n$ to $\sqrt{n + m}$. Prove that the old arguments of the GeLU stay as they are
# for every input $x$ if and only if $N^\top N = \frac mn K^\top K$. Why can fewer than $\operatorname{rank} K$ new tokens not do it?

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps3-p1", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# **Model answer.** With $a = Kx$ an old argument is $\sqrt n\,a_i/\lvert a\rvert$ before and $\sqrt{n+m}\,a_i/\sqrt{\lvert Kx\rvert^2 + \lvert Nx\rvert^2}$ after. They are equal for some $a_i \ne 0$ exactly if
# $n(\lvert Kx\rvert^2 + \lvert Nx\rvert^2) = (n+m)\lvert Kx\rvert^2$, that is $\lvert Nx\rvert^2 = \frac mn\lvert Kx\rvert^2$. Where $Kx = 0$ nothing is asked, but these $x$ are limits of others, so the equation
# holds there too. It says $x^\top(N^\top N - \frac mn K^\top K)x = 0$ for all $x$; the matrix is symmetric, so it is 0. The other direction reads the lines
# upwards. Ranks: $\operatorname{rank} K = \operatorname{rank} K^\top K = \operatorname{rank} N^\top N = \operatorname{rank} N \le m$.
#
# === BEGIN MARK SCHEME ===
# 1 point: both arguments written down and the condition on the two lengths.
# 1 point: from "for every x" to the matrices, by symmetry (or by polarization). The case Kx = 0 need not be mentioned.
# 1 point: the rank argument.
# === END MARK SCHEME ===

# %% [markdown]
# ## 2. More width (7 points, 45 minutes)
#
# Widen every array of the model from $d$ to $d'$ channels. Old entries stay where they are, `a[:, :d]`, except in the unembedding, which may be
# multiplied by a number.
#
# - *exact* (3 points): the logits of all ids are unchanged, to rounding; the model that was passed in is untouched
# - *alive* (1 point): within three steps of gradient descent every new channel of the embedding has moved, and no two channels are twins
# - *proof* (3 points)
#
# <details><summary>Hint 1</summary>
#
# Let the new channels be 0 everywhere in the model. What does an RMS norm make of a row with $d' - d$ zeros appended?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Who *writes* a new channel, and who *reads* it? Readers of zeros can be anything.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps3-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def widen(params, d_new, seed):
    """The model with d_new channels and the same logits; a new dict."""
    ### BEGIN SOLUTION
    d, rng = params["embedding"].shape[1], np.random.default_rng(seed)

    def silent(array):  # writes nothing into the new channels
        return np.concatenate([array, np.zeros((len(array), d_new - d))], axis=1)

    def listening(array):  # reads them with random weights
        noise = array.std() * rng.standard_normal((len(array), d_new - d))
        return np.concatenate([array, noise], axis=1)

    return {
        "embedding": silent(params["embedding"]),
        "blocks": [
            {"key": listening(block["key"]), "value": silent(block["value"])}
            for block in params["blocks"]
        ],
        "unembedding": listening(params["unembedding"] * math.sqrt(d / d_new)),
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps3-q2-exact", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_widen(params, d_new, seed):
    """Pads with zeros, then lets random columns read."""
    d, rng = params["embedding"].shape[1], np.random.default_rng(seed)
    wide = copy.deepcopy(params)
    wide["unembedding"] *= math.sqrt(d / d_new)
    for tree in (wide, *wide["blocks"]):
        for name in tree.keys() - {"blocks"}:
            tree[name] = np.pad(tree[name], ((0, 0), (0, d_new - d)))
            if name in ("key", "unembedding"):
                tree[name][:, d:] = rng.standard_normal((len(tree[name]), d_new - d))
    return wide


def q2_models(rng):
    for vocab_size, d, tokens, d_new in (
        (7, 3, (4,), 5),
        (11, 6, (5, 9), 7),
        (5, 4, (8, 3, 6), 12),
    ):
        yield random_model(rng, vocab_size, d, tokens), d_new, grade.seed() + d


def same_logits(before, after):
    """None, or how the logits of all ids differ."""
    ids = np.arange(len(before["embedding"]))
    old, new = (forward(params, ids)[0] for params in (before, after))
    if np.abs(new - old).max() <= 1e-9 * np.abs(old).max():
        return None
    factor = (new * old).sum() / (old * old).sum()
    if np.abs(new - factor * old).max() <= 1e-9 * np.abs(old).max():
        return "all logits are multiplied by one number: what does the RMS norm do to a row with zeros appended?"
    return "the logits move"


def kept(old, new):
    """None, or which old entry is not where it was."""
    d = old["embedding"].shape[1]
    pairs = [(old["embedding"], new["embedding"])]
    for before, after in zip(old["blocks"], new["blocks"], strict=True):
        pairs += [(before[name], after[name]) for name in ("key", "value")]
    if not all(np.array_equal(after[:, :d], before) for before, after in pairs):
        return "an old entry is not where it was, or not what it was"
    ratio = new["unembedding"][:, :d] / old["unembedding"]
    return (
        None
        if np.ptp(ratio) <= 1e-9
        else "the unembedding is not the old one times a number"
    )


def q2_exact(arguments, got):
    return kept(arguments[0], got) or same_logits(arguments[0], got)


q2_question = grade.Exercise(right_widen, q2_models, accept=q2_exact)
grade.values(widen, q2_question)
grade.inputs(
    lambda params: widen(params, 9, 0),
    grade.Exercise(
        lambda params: right_widen(params, 9, 0),
        lambda rng: [(random_model(rng),)],
    ),
)
### END HIDDEN TESTS
q2_model = random_model(np.random.default_rng(2))
grade.shape(
    lambda: widen(q2_model, 8, 3),
    grade.Exercise(lambda: random_model(np.random.default_rng(2), d=8), lambda rng: [()]),
)


# %% nbgrader={"grade": true, "grade_id": "ps3-q2-alive", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def descend(params, steps, lr=0.1):
    """A copy of the params after some steps of gradient descent on made-up targets."""
    params, ids = copy.deepcopy(params), np.arange(len(params["embedding"]))
    for _ in range(steps):
        _, grads = loss_and_grads(params, ids, np.roll(ids, 1))
        for name in ("embedding", "unembedding"):
            params[name] -= lr * grads[name]
        for block, dblock in zip(params["blocks"], grads["blocks"], strict=True):
            for name in block:
                block[name] -= lr * dblock[name]
    return params


def channels_sleep(old, new):
    """None, or why a new channel does not learn."""
    trained, d = descend(new, steps=3), old["embedding"].shape[1]
    moved = np.abs(trained["embedding"] - new["embedding"])[:, d:].max(axis=0)
    if not (moved > 1e-9).all():
        return "a new channel of the embedding does not move: who reads it?"
    alike = twins(trained["embedding"].T, trained["unembedding"].T)
    return "two channels are twins" if alike else None


q2_alive = q2_question._replace(
    accept=lambda arguments, got: channels_sleep(arguments[0], got)
)
grade.values(widen, q2_alive)
### END HIDDEN TESTS
q2_wide = widen(random_model(np.random.default_rng(2)), 8, 3)
q2_grads = loss_and_grads(q2_wide, np.arange(11), np.roll(np.arange(11), 1))[1]
grade.example(lambda: bool(q2_grads["embedding"][:, 6:].any()), [], True)

# %% [markdown]
# **Proof 2** (3 points). Prove that your model has the old logits: what happens to the new channels from block to block, to the weights inside Pattention,
# and to the logits? Where do you use that $\Theta$ divides by a norm?

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps3-p2", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# **Model answer.** Claim: before every block the new channels are 0 and the old ones as before. It holds after the embedding, whose new columns are 0. If it
# holds before a block, the mean of squares is the old one times $d/d'$, so the RMS norm gives $s\hat x$ in the old channels, $s = \sqrt{d'/d}$, and 0 in the new ones. The
# scores are $s\,K\hat x$, whatever the new columns of the keys are. $\Theta$ divides by the norm of the scores, so the factor $s$ cancels and the weights are the old ones. (A plain GeLU
# would get scores that are $s$ times too large.) The new columns of the values are 0, so the block writes the old numbers into the old channels and 0 into the new
# ones. At the end the norm gives $(s\hat x, 0)$ again; with the old unembedding the logits were $s$ times too large, and the factor $1/s = \sqrt{d/d'}$ mends that.
#
# === BEGIN MARK SCHEME ===
# 1 point: the RMS norm multiplies by s = √(d'/d), and this factor cancels in Θ because of its norm.
# 1 point: induction over blocks: new channels stay 0 because nobody writes them.
# 1 point: the logits, and why the new columns of keys and unembedding are free.
# === END MARK SCHEME ===

# %% [markdown]
# ## 3. Both at once (5 points, 30 minutes)
#
# Grow width *and* tokens: `tokens` holds the new number for each block, at least $\min(n, d)$ more than before, with the *old* width $d$.
#
# - *exact* (3 points): the logits of all ids are unchanged
# - *alive* (2 points): within three steps of gradient descent every new channel of the embedding and every new token has moved, and there are no twins,
#   neither tokens nor channels
#
# <details><summary>Hint</summary>
#
# Two functions, two orders. In one of them $\min(n, d)$ new tokens are too few. Which, and what does proof 1 say about it?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps3-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def grow(params, d_new, tokens, seed):
    """The model with d_new channels, tokens[i] tokens in block i, and the same logits; a new dict."""
    ### BEGIN SOLUTION
    blocks = []
    for block, n_new in zip(params["blocks"], tokens, strict=True):
        # before the width, while the rank of the keys is low
        key, value = grow_tokens(block["key"], block["value"], n_new, seed)
        blocks.append({"key": key, "value": value})
    return widen({**params, "blocks": blocks}, d_new, seed)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps3-q3-exact", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
# question 3 is graded on the right answers to questions 1 and 2
grow_tokens, widen = right_grow_tokens, right_widen


def right_grow(params, d_new, tokens, seed):
    pairs = zip(params["blocks"], tokens, strict=True)
    grown = [right_grow_tokens(*block.values(), n_new, seed) for block, n_new in pairs]
    blocks = [{"key": key, "value": value} for key, value in grown]
    return right_widen({**params, "blocks": blocks}, d_new, seed)


def q3_models(rng):
    for d, tokens, d_new in ((3, (4,), 5), (6, (5, 9), 8), (4, (8, 3, 6), 7)):
        grown = tuple(n + min(n, d) for n in tokens)
        yield (
            random_model(rng, 11, d, tokens),
            d_new,
            grown,
            grade.seed() + d,
        )


q3_question = grade.Exercise(
    right_grow, q3_models, accept=lambda arguments, got: same_logits(arguments[0], got)
)
grade.values(grow, q3_question)
### END HIDDEN TESTS
q3_model = random_model(np.random.default_rng(2))
grade.shape(
    lambda: grow(q3_model, 8, (11, 16), 3),
    grade.Exercise(
        lambda: random_model(np.random.default_rng(2), d=8, tokens=(11, 16)),
        lambda rng: [()],
    ),
)


# %% nbgrader={"grade": true, "grade_id": "ps3-q3-alive", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q3_alive(arguments, got):
    old, trained = arguments[0], descend(got, steps=3)
    complaint = channels_sleep(old, got)
    if complaint:
        return complaint
    for before, birth, now in zip(
        old["blocks"], got["blocks"], trained["blocks"], strict=True
    ):
        moves = [np.abs(now[name] - birth[name]).max(axis=1) for name in ("key", "value")]
        if not (np.max(moves, axis=0)[len(before["key"]) :] > 1e-9).all():
            return "a new token does not move"
        if twins(now["key"], now["value"]):
            return "two tokens are twins"
    return None


grade.values(grow, q3_question._replace(accept=q3_alive))
### END HIDDEN TESTS
q3_model = random_model(np.random.default_rng(2))
q3_grown = grow(q3_model, 8, (11, 16), 3)
q3_grads = loss_and_grads(q3_grown, np.arange(11), np.roll(np.arange(11), 1))[1]
grade.example(
    lambda: bool(np.abs(q3_grads["embedding"][:, 6:]).min(axis=0).max() > 0), [], True
)

# %% [markdown]
# ## 4. What never learns? (7 points, 40 minutes)
#
# A channel is *dead* if all gradients of its entries, in the embedding, keys, values and unembedding, are 0 at every step, whatever the data. A token is dead if
# all gradients of its key and value are. Find the dead ones of a model of any number of blocks. (No live token reads dead channels only.)
#
# - *channels* (2 points)
# - *tokens* (2 points)
# - *proof* (3 points)
#
# <details><summary>Hint</summary>
#
# You can look for zeros, or train a copy and see what stays. If you look for zeros: is a channel that nobody writes dead? One that nobody reads?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps3-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def dead(params):
    """{"channels": (d,) bool, "tokens": [(n_i,) bool for each block]}, True where something never learns."""
    ### BEGIN SOLUTION
    readers = [params["unembedding"], *(block["key"] for block in params["blocks"])]
    writers = [params["embedding"], *(block["value"] for block in params["blocks"])]
    channels = ~np.any(np.concatenate(readers + writers), axis=0)  # used by nobody
    tokens = [
        ~np.any(np.concatenate([b["key"], b["value"]], axis=1), axis=1)
        for b in params["blocks"]
    ]
    return {"channels": channels, "tokens": tokens}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps3-q4-channels", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def dead_by_training(params):
    """Trains a copy with random learning rates and looks at what stayed."""
    rng, trained = np.random.default_rng(0), params
    for _ in range(6):
        trained = descend(trained, steps=1, lr=rng.uniform(0.02, 0.08))

    def still(name, axis):
        trees = ((params, trained), *zip(params["blocks"], trained["blocks"], strict=True))
        return [(a[name] == b[name]).all(axis=axis) for a, b in trees if name in a]

    names = ("embedding", "unembedding", "key", "value")
    channels = np.all([stays for name in names for stays in still(name, 0)], axis=0)
    tokens = [
        key & value for key, value in zip(still("key", 1), still("value", 1), strict=True)
    ]
    return {"channels": channels, "tokens": tokens}


def q4_models(rng):
    for d, tokens in ((6, (5,)), (9, (5, 9)), (7, (8, 6, 7))):
        params = random_model(rng, 11, d, tokens)
        writers = [params["embedding"], *(block["value"] for block in params["blocks"])]
        readers = [params["unembedding"], *(block["key"] for block in params["blocks"])]
        both, unread, unwritten, late = rng.permutation(d)[:4]  # only the first is dead
        for array in writers:
            array[:, [both, unwritten, late]] = 0
        for array in readers:
            array[:, [both, unread, late]] = 0
        params["blocks"][-1]["key"][:, late] = 1  # the only one who reads it
        for block in params["blocks"]:
            both, no_key, no_value = rng.permutation(len(block["key"]))[:3]
            block["key"][[both, no_key]] = 0
            block["value"][[both, no_value]] = 0
        yield (params,)


def q4_only(part, function):
    return lambda params: function(params)[part]


def q4_zeros(names):
    """Channels that are 0 in all arrays of these names: too few arrays, too many dead."""

    def channels(params):
        arrays = [
            tree[name]
            for tree in (params, *params["blocks"])
            for name in names
            if name in tree
        ]
        return ~np.any(np.concatenate(arrays), axis=0)

    return channels


q4_channels = grade.Exercise(
    q4_only("channels", dead_by_training),
    q4_models,
    mistakes={
        "a channel that nobody writes wakes up if somebody reads it": q4_zeros(
            ("embedding", "value")
        ),
        "a channel that nobody reads wakes up if somebody writes it": q4_zeros(
            ("key", "unembedding")
        ),
        "embedding and unembedding are not all who write and read": q4_zeros(
            ("embedding", "unembedding")
        ),
    },
)
grade.values(q4_only("channels", dead), q4_channels)
grade.inputs(dead, grade.Exercise(dead_by_training, q4_models))
### END HIDDEN TESTS
q4_model = random_model(np.random.default_rng(2))
grade.example(lambda: dead(q4_model)["channels"], [], np.zeros(6, bool))

# %% nbgrader={"grade": true, "grade_id": "ps3-q4-tokens", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
q4_tokens = grade.Exercise(
    q4_only("tokens", dead_by_training),
    q4_models,
    mistakes={
        "a token with a zero key learns if its value is not zero": lambda params: [
            ~block["key"].any(axis=1) for block in params["blocks"]
        ],
        "a token with a zero value learns if its key is not zero": lambda params: [
            ~block["value"].any(axis=1) for block in params["blocks"]
        ],
    },
)
grade.values(q4_only("tokens", dead), q4_tokens)
### END HIDDEN TESTS
q4_model = random_model(np.random.default_rng(2))
grade.example(lambda: dead(q4_model)["tokens"], [], [np.zeros(5, bool), np.zeros(9, bool)])

# %% [markdown]
# **Proof 3** (3 points). Let channel $c$ be 0 in every row of the embedding, of all keys, of all values, and of the unembedding. Prove that it stays so for ever
# under AdamW with weight decay. Then let one entry of the unembedding in that channel be 1: which array gets a gradient first?

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps3-p3", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# **Model answer.** Forward: the embedding and all values are 0 in channel $c$, so $x_c = 0$ before and after every block, and so is $\hat x_c$. Backward: the gradient of the residual stream in channel $c$ is
# a sum of what readers send back, $d\text{logits}\cdot U_{\cdot c}$ and $d\text{scores}\cdot K_{\cdot c}$, both 0; the RMS norm's second term is proportional to $x_c = 0$. So $dx_c = 0$ everywhere. The gradients are
# $dE_{\cdot c} = dx_c = 0$, $dV_{\cdot c} = w^\top dx_c = 0$, and for the readers $dK_{\cdot c} = d\text{scores}^\top \hat x_c = 0$, $dU_{\cdot c} = d\text{logits}^\top \hat x_c = 0$. AdamW: both moments stay 0, so the step is $0/(0 + \epsilon) = 0$, and
# weight decay multiplies a 0. Hence the same holds at the next step. With one entry $U_{vc} = 1$ the stream gets $dx_c \ne 0$, so the writers, embedding and values, get gradients
# first. $U$ and $K$ follow when $x_c$ is no longer 0.
#
# === BEGIN MARK SCHEME ===
# 1 point: x_c = 0 in the whole forward.
# 1 point: all four gradients are 0 (writers because dx_c = 0, readers because x_c = 0).
# 1 point: moments and weight decay keep zeros, and the last answer: embedding and values.
# === END MARK SCHEME ===

# %% [markdown]
# ## 5. Why not with a layer norm? (3 points, 15 minutes)
#
# TokenFormer has layer norms, which subtract the mean. (Take $\varepsilon = 0$.)
#
# **Proof 4** (3 points). Show that appending zero channels changes what such a model computes, unless the mean of the old channels is 0. Then show that it stays the same, up to a
# factor that $\Theta$ ignores, if every new channel is the *mean of the old ones*. How must embedding and values be widened for that?
#
# <details><summary>Hint</summary>
#
# Compute mean and variance of the longer row in both cases. The residual stream is a sum of rows of the embedding and of the values; taking a mean is linear.
#
# </details>

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps3-p4", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# **Model answer.** Let the old row have mean $\mu$ and variance $\sigma^2$. With $e$ zeros appended the mean is $\mu d/(d+e)$: an old channel is now $(x_i - \mu\,\tfrac{d}{d+e})/\sigma'$, and these differ from $(x_i - \mu)/\sigma$ by more than a
# factor unless $\mu = 0$; the new channels become $-\mu\,\tfrac d{d+e}/\sigma' \ne 0$, so the new columns of the keys are heard as well. If the new channels are $\mu$, the mean is $\mu$ still, the
# sum of squared deviations is $d\sigma^2$ still, and so the variance is $\sigma^2 d/(d+e)$. Old channels come out $\sqrt{(d+e)/d}$ times as large and new ones as 0: the situation of proof 2, where $\Theta$
# ignores the factor. The stream is a sum of embedding rows and of values times weights. So let every new column of the embedding and of each value be the mean
# of its row: then, by linearity, the new channels are the mean of the old ones before every block.
#
# === BEGIN MARK SCHEME ===
# 1 point: zeros move the mean, and with it more than a factor.
# 1 point: with the mean, the mean stays, the deviations stay, the new channels normalize to 0.
# 1 point: new columns are row means, by linearity of the stream.
# === END MARK SCHEME ===
