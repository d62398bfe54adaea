"""Top-k Pattention: every input row uses only k of the n parameter tokens, so each key-value pair is an expert.

The paper names this among its future directions (section 5): Pattention is a mixture of experts at its most extreme,
and using few of them would cut the cost of parameter tokens. Here the scores, which Pattention has anyway, decide
which; the choice is constant in the backward.
"""

from typing import NamedTuple

from .backend import array_module, check_number, float_module
from .ops import Array, check_like
from .pattention import theta_backward, theta_forward


class TopKCache(NamedTuple):
    x: Array
    key: Array
    value: Array
    chosen: Array  # the k tokens of every row, ascending: integers (rows, k)
    weights: Array  # of all tokens, zero for those that were not chosen: (rows, n)
    theta: tuple  # of theta_forward on the chosen scores
    experts: list  # (rows that use it, its tokens) of every expert; None where products take the zeros along


def top_k_pattention_forward(
    x, key, value, k, kind="l2_norm_gelu", tau=None, approximate="none", group=1, gather=False
):
    """Attend from each row to the k parameter tokens that it scores highest: out = Θ(x K_Sᵀ) V_S, S = top k of x Kᵀ.

    Θ sees the k chosen scores alone and tau=None means √k: a row's layer is an ordinary Pattention of k tokens,
    picked anew for each row, and k = n is Pattention itself. (A norm over all n scores would send gradients to every
    key.) Chosen by score, which needs no Θ: for more than a third of n, |Θ| could prefer some negative scores.
    group: so many neighbors are one expert, chosen together by their best score. Ties go to the earlier tokens.
    x: (..., d_in)   key: (n, d_in)   value: (n, d_out)   ->   out: (..., d_out). group must divide k and n.
    FLOPs per row: 2 n d_in to score, 2 k d_out for the values; backward 4 k (d_in + d_out). gather=True runs these,
    expert by expert; False, faster in NumPy unless k is tiny or group large, multiplies the zeros as well.

    >>> import numpy as np
    >>> x, key, value = np.array([[3.0, 4.0]]), np.array([[1.0, 0], [0, 1], [-1, 0]]), np.array([[1.0], [10], [100]])
    >>> top_k_pattention_forward(x, key, value, k=2, tau=5.0)[0].round(2)  # as Pattention without the third token
    array([[42.99]])
    """
    xp = float_module(x=x, key=key, value=value)
    if key.ndim != 2 or value.ndim != 2 or 0 in key.shape + value.shape or x.ndim < 1:
        raise ValueError(
            f"x has shape {x.shape}, key {key.shape}, value {value.shape}: "
            "key and value must be (n, d_in) and (n, d_out), one row per parameter token"
        )
    if x.shape[-1] != key.shape[1]:
        raise ValueError(f"key has {key.shape[1]} columns but x has {x.shape[-1]}: did you pass value?")
    if len(key) != len(value):
        raise ValueError(f"key has {len(key)} tokens (rows) but value has {len(value)}")
    k, group = check_top_k(k, group, len(key))
    if not isinstance(gather, bool):
        raise TypeError(f"gather is {gather!r}: choose True or False")
    rows = x.reshape(-1, x.shape[-1])
    scores = rows @ key.T  # (rows, d_in) -> (rows, n)
    used = choose(scores, k // group, group)
    chosen = _tokens(used, k, group)
    own, theta = theta_forward(xp.take_along_axis(scores, chosen, axis=-1), kind, tau, approximate)
    weights = _spread(own, chosen, len(key))  # (rows, k) -> (rows, n)
    experts = _rows_of_experts(used, group) if gather else None
    out = weighted_sum(weights, value, experts)
    cache = TopKCache(x, key, value, chosen, weights, theta, experts)
    return out.reshape(*x.shape[:-1], value.shape[1]), cache


def top_k_pattention_backward(dout, cache):
    """dx, dkey, dvalue; tokens that no row chose get zeros.

    With k = 1 and a norm in Θ the one weight does not depend on its score: dx and dkey are zero, choose k of 2 or more.
    """
    x, key, value, chosen, weights, theta, experts = cache
    check_like("dout", dout, (*x.shape[:-1], value.shape[1]), x.dtype)
    xp = array_module(x=x)
    rows, drows = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    dvalue = token_sums(weights, drows, experts)
    dweights = xp.take_along_axis(token_scores(drows, value, experts), chosen, axis=-1)
    dscores = _spread(theta_backward(dweights, theta), chosen, len(key))
    dkey = token_sums(dscores, rows, experts)
    dx = weighted_sum(dscores, key, experts)
    return dx.reshape(x.shape), dkey, dvalue


def choose(scores, n_experts, group=1):
    """True for the experts of every row, bool (rows, n / group): those whose best token has one of the best scores.

    >>> import numpy as np
    >>> choose(np.array([[0.0, 3, 1, 2], [5, 5, 5, 5]]), 2).astype(int)
    array([[0, 1, 0, 1],
           [1, 1, 0, 0]])
    """
    xp = array_module(scores=scores)
    best = scores if group == 1 else scores.reshape(len(scores), scores.shape[1] // group, group).max(axis=-1)
    best = xp.where(xp.isnan(best), xp.inf, best)  # NaN is chosen, and so is seen
    last = best.shape[-1] - n_experts
    threshold = xp.partition(best, last, axis=-1)[:, last, None]
    above, ties = best > threshold, best == threshold
    room = n_experts - above.sum(axis=-1, keepdims=True)
    return above | (ties & (xp.cumsum(ties, axis=-1) <= room))


def check_top_k(k, group, n, names=("k", "group")):
    """k and group as integers. Raises ValueError unless group divides both n and k, which is 1 to n."""
    k = check_number(names[0], k, low=1, high=n, whole=True)
    group = check_number(names[1], group, low=1, high=k, whole=True)
    if k % group or n % group:
        raise ValueError(
            f"{names[1]} is {group}: it must divide {names[0]}, {k}, and the number of tokens, {n}"
        )
    return k, group


# ------------------------------------- products with weights (rows, n), most of them zero


def weighted_sum(weights, tokens, experts=None):
    """weights @ tokens: (rows, n), (n, d) -> (rows, d). With experts, each meets only the rows that use it."""
    if experts is None:
        return weights @ tokens
    out = array_module(tokens=tokens).zeros_like(tokens, shape=(len(weights), tokens.shape[1]))
    for rows, own in experts:
        out[rows] += weights[rows, own] @ tokens[own]
    return out


def token_sums(weights, x, experts=None):
    """weights.T @ x: (rows, n), (rows, d) -> (n, d)."""
    if experts is None:
        return weights.T @ x
    out = array_module(x=x).zeros_like(x, shape=(weights.shape[1], x.shape[1]))
    for rows, own in experts:
        out[own] = weights[rows, own].T @ x[rows]
    return out


def token_scores(x, tokens, experts=None):
    """x @ tokens.T: (rows, d), (n, d) -> (rows, n), with experts zero where a row does not use a token."""
    if experts is None:
        return x @ tokens.T
    out = array_module(x=x).zeros_like(x, shape=(len(x), len(tokens)))
    for rows, own in experts:
        out[rows, own] = x[rows] @ tokens[own].T
    return out


def _rows_of_experts(used, group):
    """[(rows that use it, its tokens as a slice)] of every expert."""
    by_expert = used.T.copy()
    return [(used.nonzero()[0], slice(i * group, (i + 1) * group)) for i, used in enumerate(by_expert)]


def _tokens(used, k, group):
    """The tokens of the experts that each row uses, ascending: integers (rows, k)."""
    xp = array_module(used=used)
    experts = used.nonzero()[1].reshape(len(used), k // group)
    return (experts[:, :, None] * group + xp.arange(group)).reshape(len(used), k)


def _spread(weights, chosen, n):
    """Weights (rows, k) of the chosen tokens as weights (rows, n) of all."""
    xp = array_module(weights=weights)
    out = xp.zeros_like(weights, shape=(len(weights), n))
    out[xp.arange(len(weights))[:, None], chosen] = weights
    return out
