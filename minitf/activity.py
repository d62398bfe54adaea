"""What the hidden units of a feed-forward layer do: when each fires, for which text, and what is lost without it.

A unit is a parameter token of a Pattention or a neuron of a Transformer's MLP. Both layers are the same sum,

    out = Σᵢ wᵢ(x) vᵢ        tokens: w = Θ(x Kᵀ), V the values;  neurons: w = GeLU(x Upᵀ), V = Downᵀ

so one measure serves both. The measures here depend on the order of a unit's activations alone, because tokens and
neurons, and Θ and GeLU, have other scales.
"""

from typing import NamedTuple

from .backend import array_module, check_number, float_module
from .model import block_forward, check_params, ffn_forward
from .ops import (
    Array,
    check_choice,
    check_ids,
    cross_entropy_forward,
    embedding_forward,
    layer_norm_forward,
    linear_forward,
)

ENDS = ("value", "key")


class Units(NamedTuple):
    x: Array  # (rows, d), what the layer was given
    activations: Array  # w, (rows, n)
    values: Array  # V, (n, d): out = activations @ values


def ffn_units(ffn):
    """The units of a feed-forward layer, from `cache.blocks[i].ffn` of a forward pass. rows: B T.

    Raises ValueError for two Pattentions in a row: pass one of the two.
    """
    if hasattr(ffn, "weights"):  # of a Pattention
        return Units(ffn.x, ffn.weights, ffn.value)
    if len(ffn) != 3:
        raise ValueError(
            f"the cache has {len(ffn)} parts: of two Pattentions in a row, pass the first or the second"
        )
    up, _, down = ffn
    return Units(up.x, down.x, down.weight.T)


def loudest(activations, share):
    """Where each unit is among its own loudest `share` of rows: (rows, n) -> bool (rows, n).

    A fair question to units of any scale: all fire equally often. Rows equal to the threshold are left out, so a unit
    that is always the same fires nowhere.

    >>> import numpy as np
    >>> loudest(np.array([[1.0, 0.0], [2.0, 0.0], [9.0, 0.0], [3.0, 0.0]]), share=0.25)[:, 0]
    array([False, False,  True, False])
    """
    xp = float_module(activations=activations)
    if activations.ndim != 2 or 0 in activations.shape:
        raise ValueError(f"activations have shape {activations.shape}: pass (rows, units), as B T rows")
    if not 0 < check_number("share", share) < 1:
        raise ValueError(f"share is {share}: it is a share of the rows, above 0 and below 1")
    return activations > xp.percentile(activations, 100 * (1 - share), axis=0)


def label_counts(fires, labels, n_labels):
    """How often each unit fires at each label: bool (rows, n), integers (rows,) -> (n_labels, n), float64."""
    xp = array_module(fires=fires, labels=labels)
    if getattr(fires, "dtype", None) != "bool" or fires.ndim != 2:
        raise TypeError("fires must be booleans (rows, units): compare activations with a threshold first")
    check_ids("labels", labels, n_labels)
    if labels.shape != fires.shape[:1]:
        raise ValueError(
            f"labels have shape {labels.shape}, but fires has {len(fires)} rows: one label for each row"
        )
    return xp.eye(n_labels, dtype="float64")[labels].T @ fires.astype("float64")


def selectivity(fires, labels, n_labels):
    """How far the label decides when a unit fires: I(fires; label) / H(fires), (n,), from 0 to 1.

    The mutual information is that of the counted frequencies, over the entropy of the yes or no; 0 for a unit that
    always or never fires. Labels that say nothing give about (n_labels - 1) / (2 rows H), not 0: shuffle them to see.

    >>> import numpy as np
    >>> fires = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
    >>> selectivity(fires, np.array([1, 1, 0, 0]), 2)  # the first unit fires at label 1, the second at random
    array([1., 0.])
    """
    xp = array_module(fires=fires)
    counts = label_counts(fires, labels, n_labels)
    of_label = xp.bincount(labels, minlength=n_labels)[:, None]
    given = counts / xp.where(of_label > 0, of_label, 1)  # share of a label's rows at which a unit fires
    whole = _entropy(counts.sum(axis=0) / len(labels))
    left = (of_label / len(labels) * _entropy(given)).sum(axis=0)
    return xp.where(whole > 0, (whole - left) / xp.where(whole > 0, whole, 1), 0)


def _entropy(p):
    """Of a yes with probability p, in nats."""
    xp = array_module(p)
    inside = (p > 0) & (p < 1)
    p = xp.where(inside, p, 0.5)
    return xp.where(inside, -p * xp.log(p) - (1 - p) * xp.log1p(-p), 0)


def token_importance(weights, value, dout):
    """The rise of the loss without each unit, to first order: -Σₜ wₜᵢ (vᵢ · doutₜ), (n,), in nats.

    weights: (..., n)   value: (n, d)   dout: (..., d), the gradient of the loss for the layer's output.
    It is -vᵢ · dvᵢ: one backward pass foresees all knock-outs (Molchanov et al., 2017, section 2.2).

    >>> import numpy as np
    >>> token_importance(np.array([[2.0, 0.5]]), np.array([[1.0], [5.0]]), np.array([[-0.5]])).tolist()
    [1.0, 1.25]
    """
    float_module(weights=weights, value=value, dout=dout)
    return -(weights * (dout @ value.T)).reshape(-1, len(value)).sum(axis=0)


def knock_out(ffn, units, end="value"):
    """The parameters of a feed-forward layer without some units: copies, in which rows of one end are zero.

    ffn: a leaf {"key", "value"} of a Tokenformer, or {"up", "down"} of a Transformer; units: what selects rows.
    end: "value", the unit says nothing and all others speak as before; or "key", the unit is as if deleted with tau
    held: its score leaves the norm of Θ, and the others speak louder. Neurons know no norm: both ends are the same.
    """
    check_choice("end", end, ENDS)
    if "first" in ffn:
        raise ValueError("the layer is two Pattentions in a row: pass ffn['first'] or ffn['second']")
    if "up" in ffn:
        up, down = (ffn[name]["weight"].copy() for name in ("up", "down"))
        (down.T if end == "value" else up)[units] = 0
        return {"up": {"weight": up}, "down": {"weight": down}}
    silent = ffn[end].copy()
    silent[units] = 0
    return {**ffn, end: silent}


def knock_outs(params, config, ids, targets, block, end="value", units=None):
    """The rise of the loss without each unit of a block's feed-forward layer, in nats per token: (n,).

    ids, targets: integers (B, T); end: see `knock_out`; units: which to ask, None asks all. What stands before the
    layer is computed once.
    """
    xp = array_module(ids=ids, embedding=params["embedding"]["weight"])
    check_choice("end", end, ENDS)
    check_params(params, config)
    block = check_number("block", block, low=0, high=config.n_layers - 1, whole=True)
    x, _ = embedding_forward(ids, params["embedding"]["weight"])
    x = x.reshape(-1, config.d_model)  # (B, T, d) -> (B T, d)
    for i in range(block + 1):
        x, cache = block_forward(x, params[f"block_{i}"], config, ids.shape)
    given, activations, values = ffn_units(cache.ffn)
    ffn, before = params[f"block_{block}"]["ffn"], x - activations @ values

    def loss_after(x):
        for i in range(block + 1, config.n_layers):
            x, _ = block_forward(x, params[f"block_{i}"], config, ids.shape)
        x, _ = layer_norm_forward(x, **params["norm"], eps=config.norm_eps)
        logits, _ = linear_forward(x, params["embedding" if config.tied else "unembedding"]["weight"])
        return cross_entropy_forward(logits, targets.reshape(-1))[0]

    def without(unit):
        if end == "value":  # nothing but its own term goes
            return x - activations[:, unit, None] * values[unit]
        return before + ffn_forward(given, knock_out(ffn, unit, end), config)[0]

    whole = loss_after(x)
    units = range(len(values)) if units is None else units
    return xp.stack([loss_after(without(unit)) - whole for unit in units])
