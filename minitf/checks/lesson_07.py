"""Exercises of lesson 07: the FLOPs of a Tokenformer, what growing saves, and the verdict on a claim."""

import numpy as np

from .core import Exercise

# --------------------------------------------------------------------------------------- forward_flops


def forward_flops(n_layers, d, n_attention, n_ffn, vocab, T):
    layer_parameters = 2 * n_layers * d * (4 * n_attention + n_ffn)
    return 2 * layer_parameters * T + 4 * n_layers * d * T**2 + 2 * vocab * d * T


def sizes(rng):
    """Six sizes that differ from each other."""
    for _ in range(4):
        yield tuple(int(size) for size in rng.permutation(np.arange(2, 20))[:6])


def _flops(attention_tokens=8, ffn_tokens=2, layers=2, mixing=4, vocabulary=2):
    """forward_flops with other factors.

    attention_tokens and ffn_tokens: parameters in a layer, of d for each token; layers: FLOPs of a parameter.
    """

    def wrong(n_layers, d, n_attention, n_ffn, vocab, T):
        parameters = n_layers * d * (attention_tokens * n_attention + ffn_tokens * n_ffn)
        return layers * parameters * T + mixing * n_layers * d * T**2 + vocabulary * vocab * d * T

    return wrong


def _plus(change):
    """forward_flops with something added."""
    return lambda *sizes: forward_flops(*sizes) + change(*sizes)


FORWARD_FLOPS = Exercise(
    reference=forward_flops,
    sample=sizes,
    mistakes={
        "are the values of the attention tokens missing? The first version of table 3 forgot them, too": _flops(
            attention_tokens=4
        ),
        "is a 2 missing from the layers? A token has a key and a value, a product two FLOPs per entry": _flops(
            4, 1
        ),
        "how many Pattentions are in attention? Query, key, value and the output projection": _flops(6),
        "are the query, key, value and output Pattentions counted as one?": _flops(2),
        "is the Pattention of the feed-forward layer missing?": _flops(ffn_tokens=0),
        "does each product count half? A multiplication and an addition are two FLOPs": _flops(
            layers=1, mixing=2, vocabulary=1
        ),
        "is a product between tokens missing? There are two, the scores and the mix of values": _flops(
            mixing=2
        ),
        "is attention between tokens missing?": _flops(mixing=0),
        "are the logits missing?": _flops(vocabulary=0),
        "is it one FLOP for each entry of the embedding? A multiplication and an addition are two": _flops(
            vocabulary=1
        ),
        "do the logits lack T, as in the last row of the paper's table? Every token gets them": _plus(
            lambda n_layers, d, n_attention, n_ffn, vocab, T: 2 * vocab * d * (1 - T)
        ),
        "does attention between tokens grow with T only? Every token meets every token: T squared": _plus(
            lambda n_layers, d, n_attention, n_ffn, vocab, T: 4 * n_layers * d * (T - T**2)
        ),
        "is the layers' share counted for one token? There are T of them": _plus(
            lambda n_layers, d, n_attention, n_ffn, vocab, T: (
                4 * n_layers * d * (4 * n_attention + n_ffn) * (1 - T)
            )
        ),
        "is this one layer only?": lambda n_layers, *rest: forward_flops(1, *rest),
        "is this training? Forward alone is a third of it": lambda *sizes: 3 * forward_flops(*sizes),
        "is this for one token? Count the whole sequence": lambda *sizes: forward_flops(*sizes) / sizes[-1],
        "does the mask halve attention here? The table counts the whole T x T square": _plus(
            lambda n_layers, d, n_attention, n_ffn, vocab, T: -2 * n_layers * d * T * (T - 1)
        ),
    },
)  # fmt: skip

# --------------------------------------------------------------------------------------------- savings


def savings(scratch, grown):
    total = grown.sum()
    return scratch[-1] / total, scratch.sum() / total


def costs(rng):
    """Costs of 2 to 5 sizes, smallest first."""
    for count in (3, 5, 2):
        yield np.cumsum(1 + rng.random(count)), rng.random(count)


def _savings(target=None, family=None):
    """savings with another formula for one of its two results."""

    def wrong(scratch, grown):
        right = savings(scratch, grown)
        return (
            target(scratch, grown) if target else right[0],
            family(scratch, grown) if family else right[1],
        )

    return wrong


SAVINGS = Exercise(
    reference=savings,
    sample=costs,
    outputs=("target", "family"),
    mistakes={
        "is target divided by the last stage alone? The stages before it had to be paid, too": _savings(
            lambda scratch, grown: scratch[-1] / grown[-1]
        ),
        "is family divided by the last stage alone? The grown family is all of its stages": _savings(
            family=lambda scratch, grown: scratch.sum() / grown[-1]
        ),
        "are both divided by the last stage alone? All of its stages had to be paid": (
            lambda scratch, grown: (scratch[-1] / grown[-1], scratch.sum() / grown[-1])
        ),
        "is target the whole family? Only the last size is wanted": _savings(
            lambda scratch, grown: scratch.sum() / grown.sum()
        ),
        "is target the smallest size? The last one is wanted": _savings(
            lambda scratch, grown: scratch[0] / grown.sum()
        ),
        "is family the last size only? All sizes are wanted": _savings(
            family=lambda scratch, grown: scratch[-1] / grown.sum()
        ),
        "is family a mean of ratios? Add up the costs first": _savings(
            family=lambda scratch, grown: (scratch / grown).mean()
        ),
        "is the base missing from the grown total? It had to be trained": (
            lambda scratch, grown: (scratch[-1] / grown[1:].sum(), scratch.sum() / grown[1:].sum())
        ),
        "are the ratios upside down? How many times *more* does scratch cost": (
            lambda scratch, grown: (grown.sum() / scratch[-1], grown.sum() / scratch.sum())
        ),
        "is there a ratio for each size? For the target only the last size counts": (
            lambda scratch, grown: (scratch / grown.cumsum(), scratch.cumsum() / grown.cumsum())
        ),
        "are these differences? Divide": (
            lambda scratch, grown: (scratch[-1] - grown.sum(), scratch.sum() - grown.sum())
        ),
        "are the two in the other order? One target comes first": (
            lambda scratch, grown: savings(scratch, grown)[::-1]
        ),
    },
)  # fmt: skip

# --------------------------------------------------------------------------------------------- verdict


def verdict(values, threshold):
    passed = [value >= threshold for value in values]
    if all(passed):
        return "holds"
    return "within noise" if any(passed) else "fails"


def seeds(rng):
    """All above the threshold, none, some, one; a mean on either side of it; a value that equals or just misses it."""
    for threshold, above in ((0.0, 3), (0.5, 0), (-0.2, 2), (0.1, 1)):
        distance = 0.1 + rng.random(3)
        yield rng.permutation(threshold + np.where(np.arange(3) < above, distance, -distance)), threshold
    yield np.array([-0.1, 2.0, 3.0]), 0.0
    yield np.array([0.1, -2.0, -3.0]), 0.0
    yield np.array([0.1, -3.0, 0.2]), 0.0
    yield np.array([0.25, 0.5]), 0.25
    yield np.array([0.25, 0.25]), 0.25
    yield np.array([0.249, 0.3]), 0.25
    yield np.array([-0.5]), 0.0


def _says(decide):
    """verdict by another rule: decide(values, threshold) is "holds", "fails" or neither."""
    return lambda values, threshold: decide(values, threshold) or "within noise"


def _by(number):
    """verdict by one number instead of every seed."""
    return lambda values, threshold: "holds" if number(values) >= threshold else "fails"


VERDICT = Exercise(
    reference=verdict,
    sample=seeds,
    mistakes={
        "is this the mean's verdict? Ask every seed": _by(np.mean),
        "is this the median's verdict? Ask every seed": _by(np.median),
        "does one good seed make it hold? All of them must": _by(np.max),
        "does one bad seed make it fail? It fails if none holds": _by(np.min),
        "is a seed that equals the threshold counted as failing? The claim is >=": _says(
            lambda values, threshold: (
                "holds" if (values > threshold).all() else "fails" if (values <= threshold).all() else None
            )
        ),
        "is the inequality turned around?": lambda values, threshold: verdict(-values, -threshold),
        "is the threshold left out?": lambda values, threshold: verdict(values, 0.0),
        "are holds and fails swapped?": (
            lambda values, threshold: {"holds": "fails", "fails": "holds"}.get(
                verdict(values, threshold), "within noise"
            )
        ),
        "is there a word for each seed? Pass one verdict on the claim": (
            lambda values, threshold: ["holds" if value >= threshold else "fails" for value in values]
        ),
        "is this True or False? There are three answers, in words": (
            lambda values, threshold: bool((values >= threshold).all())
        ),
    },
)  # fmt: skip

EXERCISES = {"forward_flops": FORWARD_FLOPS, "savings": SAVINGS, "verdict": VERDICT}
