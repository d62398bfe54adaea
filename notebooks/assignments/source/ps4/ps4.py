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
# # PS4 Predict, run and report a growth experiment
#
# A TokenFormer has two kinds of parameter tokens: those of attention (query, key, value and output) and those of the feed-forward layer. If you
# may add a fixed number of them, *where should they go*? The paper grows both in proportion. You predict, you run a small experiment at
# equal parameters and equal FLOPs, with three seeds and a control, and you report what it shows, and what it does not.
#
# **You will be able to**
# - commit to a prediction that a result can refute
# - plan runs that cost the same
# - compare models seed by seed, and say how sure you are
# - report a result with its spread and its limits
#
# **You need** lessons 05 to 07
#
# **Minutes** 180, of which 1 to run
#
# **Points** 35: 25 in 11 graded cells, 10 for a figure and a report, marked by hand
#
# How it is graded:
# - The cells below a question check one example. The grader checks more, and repeats your experiment with a seed of its own.
# - Every question is graded alone. Where it uses an earlier one, the grader puts a right answer in its place.
# - Nothing depends on which hypothesis wins. A refuted prediction earns what a confirmed one earns.

# %% nbgrader={"grade": false, "grade_id": "ps4-setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import hashlib
import math
import os
from typing import NamedTuple

# to nbgrader a progress bar in a graded cell is an error
os.environ["MINITF_PROGRESS"] = "0"

import numpy as np

import minitf
from minitf.checks import grade

BUDGET = 5.2e9  # FLOPs of one model: its base and its stage
SHARE = 0.55  # of the budget for the base
ROWS = 64  # parameter tokens that a grown model has more, in each block
BATCH, LR = 8, 5e-3
SEEDS = (0, 1, 2)
ARMS = ("control", "ffn", "attention")

train_text = minitf.load_shakespeare("train")[:400_000]
tokenizer = minitf.CharTokenizer.from_text(train_text)
train_ids = tokenizer.encode(train_text)
heldout_ids = tokenizer.encode(minitf.load_shakespeare("scenes")[:16_500])

sizes = {"n_layers": 1, "d_model": 32, "n_heads": 4, "attention_tokens": 4}
BASE = minitf.TokenformerConfig(tokenizer.vocab_size, context=32, ffn_tokens=16, **sizes)


def fresh(seed):
    """An untrained base. In float64, so that a run that is repeated elsewhere ends with the same loss."""
    return minitf.init_params(BASE, seed, np.float64)


def train(params, config, steps, seed):
    """Params and config after some steps. A tau that growth held moves to √n during the first half of them."""
    anneal_share = 0.0 if config.held_tau is None else 0.5
    settings = minitf.TrainConfig(
        steps, BATCH, peak_lr=LR, anneal_share=anneal_share, eval_every=steps, seed=seed
    )
    result = minitf.train_model(params, config, train_ids, settings)
    return result.params, result.config


# %% [markdown]
# ## The experiment
#
# For each seed a small base is trained. Then there are three *arms*, which all start from that base and cost the same FLOPs:
#
# | arm | what is added to each block | steps |
# |---|---|---|
# | `control` | nothing: the base is trained on | more, because each is cheaper |
# | `ffn` | 64 tokens in the feed-forward layer | as the budget allows |
# | `attention` | 64 tokens, 16 each for query, key, value and output | as the budget allows |
#
# The result is the held-out loss in nats per character. What is compared is *loss of `attention` minus loss of `ffn`*, seed by seed.
#
# ## 1. Predict (2 points, 15 minutes)
#
# Write your prediction as a range in which the *mean difference* will lie, and say why in at least fifteen words. A range from $-10$ to 10 cannot be wrong, and
# says nothing: `high - low` may be 0.2 at most.
#
# - *complete* (2 points)
#
# <details><summary>Hint</summary>
#
# Which kind has more tokens per channel before the growth? What can more tokens of each kind do that fewer cannot? Lesson 05 shows how large differences in loss are.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps4-prediction-class", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Prediction(NamedTuple):
    low: float  # of loss(attention) - loss(ffn): negative means that attention is the better place
    high: float
    because: str


# %% nbgrader={"grade": false, "grade_id": "ps4-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
prediction = None  # write here prediction = Prediction(low=..., high=..., because="...")
### BEGIN SOLUTION
prediction = Prediction(
    low=-0.1,
    high=0.0,
    because="The base has only four tokens in each of query, key, value and output, far fewer than its 32 "
    "channels, so attention is the narrower bottleneck and gains more from new ones.",
)
### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "ps4-receipt", "locked": true, "schema_version": 3, "solution": false, "task": false}
receipt = hashlib.sha256(repr(prediction).encode()).hexdigest()[:12]
print(f"receipt of {prediction}: {receipt}")

# %% [markdown]
# The receipt changes with every letter of the prediction. Send it to your instructor *now*, before you see a result, and quote it in the report.


# %% nbgrader={"grade": true, "grade_id": "ps4-q1-complete", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q1_complaint(arguments, got):
    if type(got).__name__ != "Prediction":
        return f"prediction is a {type(got).__name__}: make it a Prediction(low, high, because)"
    if not all(
        isinstance(bound, int | float) and math.isfinite(bound) for bound in got[:2]
    ):
        return "low and high must be two finite numbers"
    if not 0 < got.high - got.low <= 0.2:
        return "low must be below high, and the range no wider than 0.2"
    if not isinstance(got.because, str) or len(got.because.split()) < 15:
        return "say why in at least fifteen words"
    return None


grade.values(
    lambda: prediction,
    grade.Exercise(lambda: "a prediction", lambda rng: [()], accept=q1_complaint),
)
### END HIDDEN TESTS
grade.example(lambda: prediction and prediction.low < prediction.high, [], True)

# %% [markdown]
# ## 2. Plan (4 points, 25 minutes)
#
# How many steps may each run have? The base gets `share` of the budget, and a stage all that the base really left. A step is one forward and backward of
# `batch_size` sequences of `context` tokens; `minitf.training_flops(config, context)` counts one sequence. Only whole steps are possible.
#
# - *within* (2 points): no run costs more than its budget
# - *spent* (2 points): and none could have had one step more
#
# <details><summary>Hint</summary>
#
# What the base did not spend, because steps are whole, belongs to the stage.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps4-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def plan(budget, share, base, grown, batch_size):
    """Steps as {"base": ..., "control": ..., "grown": ...}; base and grown are configs, budget is in FLOPs."""
    ### BEGIN SOLUTION
    base_step, grown_step = (
        batch_size * minitf.training_flops(config, config.context)
        for config in (base, grown)
    )
    base_steps = int(share * budget // base_step)
    left_for_stage = budget - base_steps * base_step
    return {
        "base": base_steps,
        "control": int(left_for_stage // base_step),
        "grown": int(left_for_stage // grown_step),
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps4-q2-within", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q2_costs(base, grown, batch_size):
    costs = {"base": base, "control": base, "grown": grown}
    return {
        run: batch_size * 3 * minitf.forward_flops(each, each.context)
        for run, each in costs.items()
    }


def right_plan(budget, share, base, grown, batch_size):
    """One step at a time, until the next would cost too much."""
    costs, steps = q2_costs(base, grown, batch_size), {}
    for run in ("base", "control", "grown"):
        spent = steps.get("base", 0) * costs["base"]
        limit = share * budget if run == "base" else budget
        steps[run] = 0
        while spent + (steps[run] + 1) * costs[run] <= limit:
            steps[run] += 1
    return steps


def q2_plans(rng):
    for context in (16, 32, 64):
        n, batch_size = (int(i) for i in rng.integers(4, 40, 2))
        base = minitf.TokenformerConfig(65, context, 2, 32, 4, n, 4 * n)
        grown = minitf.TokenformerConfig(65, context, 2, 32, 4, 2 * n, 5 * n)
        budget = float(rng.uniform(20, 60)) * q2_costs(base, grown, batch_size)["grown"]
        yield budget, float(rng.uniform(0.3, 0.7)), base, grown, batch_size


def q2_within(arguments, got):
    budget, share, *run = arguments
    costs = q2_costs(*run)
    if min(got.values()) < 1:
        return "there is money for more than no step"
    if got["base"] * costs["base"] > share * budget:
        return "the base costs more than its share: is a step one sequence, or one pass?"
    if any(
        got["base"] * costs["base"] + got[arm] * costs[arm] > budget
        for arm in ("control", "grown")
    ):
        return "base and stage together cost more than the budget"
    return None


q2_question = grade.Exercise(right_plan, q2_plans, accept=q2_within)
grade.values(plan, q2_question)
### END HIDDEN TESTS
q2_flops = BATCH * minitf.training_flops(BASE, BASE.context)
grade.example(lambda: plan(10 * q2_flops, 0.5, BASE, BASE, BATCH)["base"] <= 5, [], True)

# %% nbgrader={"grade": true, "grade_id": "ps4-q2-spent", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
q2_spent = q2_question._replace(
    accept=None,
    mistakes={
        "the control is cheaper per step, so it gets more steps": lambda *run: {
            **right_plan(*run),
            "control": right_plan(*run)["grown"],
        },
        "what the base did not spend belongs to the stage": lambda budget, share, *run: {
            **right_plan(budget, share, *run),
            **{
                arm: int((budget - share * budget) // q2_costs(*run)[arm])
                for arm in ("control", "grown")
            },
        },
    },
)
grade.values(plan, q2_spent)
### END HIDDEN TESTS
q2_flops = BATCH * minitf.training_flops(BASE, BASE.context)
grade.example(
    plan, [10.5 * q2_flops, 0.5, BASE, BASE, BATCH], {"base": 5, "control": 5, "grown": 5}
)

# %% [markdown]
# ## 3. Grow one part (4 points, 30 minutes)
#
# Add `rows` parameter tokens to *each block*, all to its feed-forward layer or all to its attention, with `minitf.grow`. Zero keys, random values, $\tau$ held:
# an exact birth. `rows` is a multiple of 4.
#
# - *equal* (2 points): either part makes the model larger by the same number of parameters, also where `proj_tokens` is a number of its own, and where a block has
#   two feed-forward Pattentions (`ffn_blocks=2`)
# - *exact* (2 points): the grown model has the logits of the old one, and its new tokens can learn
#
# <details><summary>Hint</summary>
#
# In how many Pattentions of a block do the tokens of attention stand? Read the docstring of `grow` about `proj_tokens`.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps4-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def grow_part(params, config, part, rows, seed):
    """Params and config with `rows` more parameter tokens in every block. part: "ffn" or "attention"."""
    ### BEGIN SOLUTION
    if part == "ffn":
        tokens = {"ffn_tokens": config.ffn_tokens + rows // config.ffn_blocks}
    else:
        each = rows // 4  # query, key, value and output
        tokens = {"attention_tokens": config.attention_tokens + each}
        if config.proj_tokens:  # a proj of its own size does not follow
            tokens["proj_tokens"] = config.proj_tokens + each
    return minitf.grow(params, config, seed=seed, **tokens)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps4-q3-equal", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_grow_part(params, config, part, rows, seed):
    each = rows // 4
    attention = {"attention_tokens": each, "proj_tokens": each}
    more = {"ffn_tokens": rows // config.ffn_blocks} if part == "ffn" else attention
    # proj_tokens is None where it follows attention_tokens
    sizes = {
        name: getattr(config, name) + n for name, n in more.items() if getattr(config, name)
    }
    return minitf.grow(params, config, seed=seed, **sizes)


def q3_models(rng):
    for part in ("ffn", "attention"):
        for settings in ({}, {"proj_tokens": 7}, {"ffn_blocks": 2}):
            config = minitf.TokenformerConfig(
                11, 8, 2, 8, 2, attention_tokens=5, ffn_tokens=6, **settings
            )
            yield minitf.init_params(config, seed=1, dtype=np.float64), config, part, 8, 3


def q3_equal(arguments, got):
    params, config, part, rows, _ = arguments
    added = minitf.count_parameters(got[1]) - minitf.count_parameters(config)
    owed = 2 * config.d_model * rows * config.n_layers  # a key and a value for each
    if added == owed:
        return None
    variant = "proj_tokens" if config.proj_tokens else f"ffn_blocks={config.ffn_blocks}"
    return f"part {part!r} with {variant} adds {added / owed:.3g} times the parameters of {rows} tokens in each block"


q3_question = grade.Exercise(
    lambda *arguments: ("params", "config"), q3_models, accept=q3_equal
)
grade.values(grow_part, q3_question)
### END HIDDEN TESTS
q3_params = fresh(0)
grade.example(
    lambda part: minitf.count_parameters(grow_part(q3_params, BASE, part, 8, 0)[1]),
    ["ffn"],
    minitf.count_parameters(BASE) + 2 * 32 * 8,
)


# %% nbgrader={"grade": true, "grade_id": "ps4-q3-exact", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q3_exact(arguments, got):
    params, config, part, _, _ = arguments
    grown, grown_config = got
    ids = np.random.default_rng(0).integers(0, 11, (2, 8))
    before, after = (
        minitf.forward(p, ids, c)[0] for p, c in ((params, config), (grown, grown_config))
    )
    if np.abs(after - before).max() > 1e-9:
        return "the logits move at birth: what about keys, values and tau?"
    _, grads = minitf.loss_and_grads(grown, ids, np.roll(ids, 1, axis=1), grown_config)
    old, new = (dict(minitf.tree_items(tree)) for tree in (params, grads))
    new_keys = [
        new[name][len(old[name]) :]
        for name in new
        if name.endswith(".key") and len(new[name]) > len(old[name])
    ]
    learn = new_keys and all(key.any() for key in new_keys)
    return None if learn else "new tokens are dead: no new key has a gradient"


grade.values(grow_part, q3_question._replace(accept=q3_exact))
### END HIDDEN TESTS
q3_params, q3_ids = fresh(0), train_ids[None, :8]
q3_grown, q3_config = grow_part(q3_params, BASE, "ffn", 8, 0)
grade.example(
    lambda: minitf.forward(q3_grown, q3_ids, q3_config)[0],
    [],
    minitf.forward(q3_params, q3_ids, BASE)[0],
)

# %% [markdown]
# ## 4. One arm (5 points, 25 minutes)
#
# From a trained base to the held-out loss of one arm: grow (unless it is the control) by `ROWS`, train, evaluate on *all* windows of `heldout_ids` with
# `minitf.evaluate`. Growth and training get the same `seed`.
#
# - *grown* (3 points): the losses of `ffn` and `attention`
# - *control* (2 points): the loss of the control; the base that was passed in is untouched, as the next arm starts from it
#
# <details><summary>Hint</summary>
#
# Training moves $\tau$, and $\tau$ is in the config. Which config belongs to the trained parameters?
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps4-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def run_arm(params, config, arm, steps, seed):
    """Held-out loss, a float, of one arm that starts from a trained base."""
    ### BEGIN SOLUTION
    if arm != "control":
        params, config = grow_part(params, config, arm, ROWS, seed)
    trained, trained_config = train(params, config, steps, seed)
    return minitf.evaluate(trained, trained_config, heldout_ids)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps4-q4-grown", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
# question 4 is graded on the right answers to questions 2 and 3
plan, grow_part = right_plan, right_grow_part


def right_run_arm(params, config, arm, steps, seed, finish=True, ids=heldout_ids):
    """finish=False forgets where training left tau."""
    start = (
        (params, config)
        if arm == "control"
        else right_grow_part(params, config, arm, ROWS, seed)
    )
    trained, trained_config = train(*start, steps, seed)
    return minitf.evaluate(trained, trained_config if finish else start[1], ids)


def q4_arms(*arms):
    base = fresh(grade.seed() % 1000)
    return lambda rng: [(base, BASE, arm, 4, int(rng.integers(1000))) for arm in arms]


q4_question = grade.Exercise(
    right_run_arm,
    q4_arms("ffn", "attention"),
    mistakes={
        "training moved tau: evaluate with the config that it returned": lambda *run: (
            right_run_arm(*run, finish=False)
        ),
        "is that the loss on the text that it was trained on?": lambda *run: right_run_arm(
            *run, ids=train_ids[: len(heldout_ids)]
        ),
    },
)
grade.values(run_arm, q4_question)
### END HIDDEN TESTS
q4_loss = run_arm(fresh(0), BASE, "ffn", 2, 0)
grade.example(lambda: 2.0 < q4_loss < 1.5 * math.log(tokenizer.vocab_size), [], True)

# %% nbgrader={"grade": true, "grade_id": "ps4-q4-control", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
q4_control = q4_question._replace(
    sample=q4_arms("control"),
    mistakes={
        "the control does not grow": lambda params, config, arm, steps, seed: right_run_arm(
            params, config, "ffn", steps, seed
        )
    },
)
# question 5 is graded on the right answer to this one
q4_answer, run_arm = run_arm, right_run_arm
grade.values(q4_answer, q4_control)
grade.inputs(q4_answer, q4_control)
### END HIDDEN TESTS
q4_loss = run_arm(fresh(0), BASE, "control", 2, 0)
grade.example(lambda: 2.0 < q4_loss < 1.5 * math.log(tokenizer.vocab_size), [], True)

# %% [markdown]
# ## 5. Run it (6 points, 25 minutes)
#
# For each seed: a base from `fresh(seed)`, trained with `seed`; then every arm of `ARMS` from that base with the seed `1000 + seed`, so that all arms
# see the same batches. The steps come from your plan: the same for both grown arms, which cost the same.
#
# - *table* (3 points): `results` holds three losses for each arm, of your seeds
# - *repeat* (3 points): the grader runs your function with another seed, and finds the right losses
#
# <details><summary>Hint</summary>
#
# One base for each seed, not for each arm. `plan` needs the config of a grown model: grow one.
#
# </details>


# %% nbgrader={"grade": false, "grade_id": "ps4-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def experiment(seeds):
    """{arm: held-out losses, (number of seeds,)} for every arm of ARMS."""
    ### BEGIN SOLUTION
    _, grown = grow_part(fresh(0), BASE, "ffn", ROWS, 0)
    steps = plan(BUDGET, SHARE, BASE, grown, BATCH)
    losses = {arm: [] for arm in ARMS}
    for seed in seeds:
        base, config = train(fresh(seed), BASE, steps["base"], seed)
        for arm in ARMS:
            stage_steps = steps["control" if arm == "control" else "grown"]
            losses[arm].append(run_arm(base, config, arm, stage_steps, 1000 + seed))
    return {arm: np.array(runs) for arm, runs in losses.items()}
    ### END SOLUTION


# %%
results = None
results = experiment(SEEDS)
for arm, losses in results.items():
    print(f"{arm:10}", *(f"{loss:.4f}" for loss in losses), f"  mean {losses.mean():.4f}")


# %% nbgrader={"grade": true, "grade_id": "ps4-q5-table", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def q5_complaint(arguments, got):
    if not isinstance(got, dict) or set(got) != set(ARMS):
        return f"results must be a dict with the arms {', '.join(ARMS)}"
    losses = np.array([got[arm] for arm in ARMS])
    if losses.shape != (len(ARMS), len(SEEDS)):
        return f"results hold an array of shape {losses.shape}: three arms, three seeds"
    if not (np.isfinite(losses).all() and (losses < math.log(tokenizer.vocab_size)).all()):
        return "a model that was trained must have a smaller loss than one that guesses"
    if len(np.unique(losses)) < losses.size:
        return "two runs have the same loss: do seeds and arms reach the runs?"
    return None


grade.values(
    lambda: results,
    grade.Exercise(lambda: "a table", lambda rng: [()], accept=q5_complaint),
)
### END HIDDEN TESTS
grade.example(lambda: results and len(results["ffn"]), [], 3)


# %% nbgrader={"grade": true, "grade_id": "ps4-q5-repeat", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_experiment(seeds, base_is_trained=True, stage_seed=1000):
    grown = right_grow_part(fresh(0), BASE, "attention", ROWS, 0)[1]
    steps, losses = right_plan(BUDGET, SHARE, BASE, grown, BATCH), {arm: [] for arm in ARMS}
    for seed in seeds:
        base = fresh(seed), BASE
        base = train(*base, steps["base"], seed) if base_is_trained else base
        for arm, each in losses.items():
            stage_steps = steps.get(arm, steps["grown"])
            each.append(right_run_arm(*base, arm, stage_steps, stage_seed + seed))
    return {arm: np.array(each) for arm, each in losses.items()}


grade.values(
    experiment,
    grade.Exercise(
        right_experiment,
        lambda rng: [((int(rng.integers(10, 1000)),),)],
        mistakes={
            "is the base trained?": lambda seeds: right_experiment(
                seeds, base_is_trained=False
            ),
            "stages have the seed 1000 + seed": lambda seeds: right_experiment(
                seeds, stage_seed=0
            ),
            "does the seed reach the runs?": lambda seeds: right_experiment(
                [0] * len(seeds)
            ),
        },
        tolerance=1e-4,
    ),
)
### END HIDDEN TESTS
grade.example(lambda: sorted(experiment(())), [], sorted(ARMS))

# %% [markdown]
# ## 6. How sure are you? (4 points, 25 minutes)
#
# Three seeds, two arms. The seeds differ by more than the arms do, but both arms of a seed share base and batches: so look at the differences *within* seeds.
#
# - *interval* (2 points): the mean of $a_i - b_i$ and its 95 % confidence interval by Student's $t$, half-width $t_{n-1}\,s/\sqrt n$, with $s$ the standard
#   deviation of the differences that divides by $n - 1$. `T95[n]` is the factor for $n$ seeds.
# - *verdict* (2 points): `"confirmed"` if the whole interval lies in the predicted range, ends included; `"refuted"` if they have no point in common; else
#   `"undecided"`
#
# <details><summary>Hint</summary>
#
# What is the interval if every $a_i - b_i$ is the same number?
#
# </details>

# %% nbgrader={"grade": false, "grade_id": "ps4-t", "locked": true, "schema_version": 3, "solution": false, "task": false}
# number of seeds n: 97.5 % quantile of t with n - 1 degrees of freedom
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}


# %% nbgrader={"grade": false, "grade_id": "ps4-q6-interval-answer", "locked": false, "schema_version": 3, "solution": true, "task": false}
def paired_interval(a, b):
    """(low, mean, high) of the mean of a - b, arrays (n,) with one entry for each seed, n = 2 to 6."""
    ### BEGIN SOLUTION
    difference = np.asarray(a) - np.asarray(b)
    n = len(difference)
    half_width = T95[n] * difference.std(ddof=1) / math.sqrt(n)
    return difference.mean() - half_width, difference.mean(), difference.mean() + half_width
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "ps4-q6-verdict-answer", "locked": false, "schema_version": 3, "solution": true, "task": false}
def verdict(prediction, interval):
    """ "confirmed", "refuted" or "undecided", from a Prediction and (low, mean, high)."""
    ### BEGIN SOLUTION
    low, _, high = interval
    if prediction.low <= low and high <= prediction.high:
        return "confirmed"
    return "refuted" if high < prediction.low or prediction.high < low else "undecided"
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "ps4-q6-interval", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_interval(a, b, ddof=1, factor=None):
    n, mean = len(a), sum(a - b) / len(a)
    s = math.sqrt(sum((x - y - mean) ** 2 for x, y in zip(a, b, strict=True)) / (n - ddof))
    half = (factor or T95[n]) * s / math.sqrt(n)
    return float(mean - half), float(mean), float(mean + half)


def q6_unpaired(a, b):
    n = len(a)
    mean, variance = a.mean() - b.mean(), a.var(ddof=1) + b.var(ddof=1)
    half = T95[n] * math.sqrt(variance / n)
    return float(mean - half), float(mean), float(mean + half)


def q6_runs(rng):
    for n in (2, 3, 4, 5, 6):
        seeds = rng.standard_normal(n)
        yield 2 + seeds, 2 + seeds + 0.1 * rng.standard_normal(n)


q6_question = grade.Exercise(
    right_interval,
    q6_runs,
    outputs=("low", "mean", "high"),
    mistakes={
        "the runs are paired: take differences first": q6_unpaired,
        "divide by n - 1": lambda a, b: right_interval(a, b, ddof=0),
        "1.96 is for many runs, not for three": lambda a, b: right_interval(
            a, b, factor=1.96
        ),
    },
)
grade.values(paired_interval, q6_question)
grade.inputs(paired_interval, q6_question)
### END HIDDEN TESTS
grade.example(
    paired_interval, [np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.5, 3.5])], (0.5, 0.5, 0.5)
)


# %% nbgrader={"grade": true, "grade_id": "ps4-q6-verdict", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
def right_verdict(prediction, interval):
    points = sorted(
        [(interval[0], 1), (interval[2], 1), (prediction.low, 0), (prediction.high, 0)]
    )
    owners = [owner for _, owner in points]
    outside = owners in ([0, 0, 1, 1], [1, 1, 0, 0])
    return "confirmed" if owners == [0, 1, 1, 0] else "refuted" if outside else "undecided"


def q6_cases(rng):
    for low, high in (
        (-0.5, 0.5),
        (0.1, 0.3),
        (-2, -1),
        (1.5, 2),
        (-1.5, 0.2),
        (0.5, 1.5),
        (-2, 2),
    ):
        shift, size = rng.standard_normal(), rng.uniform(0.5, 2)
        predicted = Prediction(shift - size, shift + size, "")
        yield (
            predicted,
            (shift + size * low, shift + size * (low + high) / 2, shift + size * high),
        )


grade.values(
    verdict,
    grade.Exercise(
        right_verdict,
        q6_cases,
        mistakes={
            "an interval that merely overlaps the range confirms nothing": lambda p, i: (
                "refuted" if i[2] < p.low or p.high < i[0] else "confirmed"
            ),
            "the mean alone is not enough": lambda p, i: (
                "confirmed" if p.low <= i[1] <= p.high else "refuted"
            ),
        },
    ),
)
### END HIDDEN TESTS
grade.example(verdict, [Prediction(-0.1, 0.1, ""), (-0.2, 0.0, 0.2)], "undecided")

# %% [markdown]
# ## 7. Report (10 points, 35 minutes)
#
# **Figure** (2 points). Draw the held-out losses so that a reader sees every run, which runs belong to one seed, and the mean of each arm. Label the axes with units.
#
# <details><summary>Hint</summary>
#
# `from minitf.plot import show, style`. One line for each seed, from arm to arm, makes the pairs visible.
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "ps4-q7-figure", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
# Marks: 1 for every run visible with its seed and the means; 1 for labels, unit and a scale that does not exaggerate unsaid.
import matplotlib.pyplot as plt

from minitf.plot import show, style

style()
fig, ax = plt.subplots()
for i, seed in enumerate(SEEDS):
    ax.plot(ARMS, [results[arm][i] for arm in ARMS], label=f"seed {seed}")
ax.plot(
    ARMS,
    [results[arm].mean() for arm in ARMS],
    "_",
    color="gray",
    markersize=30,
    label="mean",
)
ax.set(xlabel="arm, equal FLOPs", ylabel="held-out loss (nats per character)")
ax.legend()
show(
    fig,
    alt="Held-out loss of the three arms, one line for each of three seeds, and the means.",
    digest=", ".join(f"{arm} {results[arm].mean():.2f}" for arm in ARMS),
)
### END SOLUTION

# %%
interval = paired_interval(results["attention"], results["ffn"])
print(
    "loss(attention) - loss(ffn): {:.4f} to {:.4f}, mean {:.4f}".format(
        *np.array(interval)[[0, 2, 1]]
    )
)
print("prediction", prediction[:2], verdict(prediction, interval), "receipt", receipt)

# %% [markdown]
# **Report** (8 points), at most 300 words: your prediction and its receipt; what was run, with sizes, FLOPs and seeds; the result with its interval, and what the control says; the verdict;
# and what limits it. Would you tell a friend with a large model to follow your result?

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps4-q7-report", "locked": false, "points": 8, "schema_version": 3, "solution": true, "task": false}
# === BEGIN MARK SCHEME ===
# 1 point: the prediction and its receipt are quoted, and the receipt is the one that was sent in before.
# 1 point: what was run: one block of width 32, 64 new tokens, 5.2 GFLOPs per model, three seeds, three arms from one base.
# 2 points: the paired difference with its interval and unit, in agreement with the printed numbers; a spread, not only means.
# 1 point: the control: growing against training on at equal FLOPs.
# 1 point: the verdict follows from the interval. A refuted or undecided prediction loses nothing.
# 2 points: limits: at least two that could change the sign, and no claim beyond the runs. Minus 1 for more than 330 words.
# === END MARK SCHEME ===
#
# **Model answer.** I predicted a difference loss(attention) - loss(ffn) between -0.1 and 0 nats (receipt as printed above). A base of one block, width 32, with 4 tokens in each attention layer and 16
# in the feed-forward layer, was trained on 400,000 characters of Shakespeare. From it started three arms: 64 more tokens in one of the two parts, exact at birth, or the base trained
# on. Each model cost 5.2 GFLOPs, base included. There were three seeds; within a seed all arms share base and batches.
#
# The difference was -0.035 nats per character, with a 95 % interval from -0.040 to -0.031: attention was better in every seed, and the prediction is confirmed. The control warns against more:
# its mean loss was 2.477, that of `ffn` 2.488 and of `attention` 2.453. At equal FLOPs, feed-forward growth earned less than training the base on.
#
# Limits: attention started with fewer tokens per layer, so the result may only say that the narrower part should grow first. One learning rate, not tuned. Stages of about 150 steps, for half of which tau still
# moves; longer ones might reverse the order. 16,500 held-out characters of one author, one block of width 32. I would not advise a large model from this. The run that could change my mind: a base
# with as many tokens in each attention layer as in the feed-forward layer.
