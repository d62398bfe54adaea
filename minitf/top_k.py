"""Top-k Pattention: every input row uses only k of the n parameter tokens, so each key-value pair is an expert.

The paper names this among its future directions (section 5): Pattention is a mixture of experts at its most extreme,
and using few of them would cut the cost of parameter tokens. Here the scores, which Pattention has anyway, decide
which; the choice is constant in the backward.
"""

from typing import NamedTuple

import numpy as np

from .backend import array_module, check_number, float_module, to_host
from .ops import Array, check_like
from .pattention import theta_backward, theta_forward


class Choice(NamedTuple):
    """Which tokens each row uses, and for gather=True the same expert by expert."""

    chosen: Array  # the k tokens of every row, ascending: integers (rows, k)
    group: int
    order: Array  # sorts pairs (row, expert), row by row in `chosen`, by expert: integers (rows · k / group,)
    rows: Array  # the rows of the sorted pairs
    ends: list  # where each expert's pairs end; None with gather=False


class TopKCache(NamedTuple):
    x: Array
    key: Array
    value: Array
    choice: Choice
    weights: Array  # of the chosen tokens: (rows, k)
    theta: tuple  # of theta_forward on the chosen scores


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
    scores = x.reshape(-1, x.shape[-1]) @ key.T  # (rows, d_in) -> (rows, n)
    used = choose(scores, k // group, group)
    choice = _choice(used, k, group, gather)
    weights, theta = theta_forward(xp.take_along_axis(scores, choice.chosen, axis=-1), kind, tau, approximate)
    out = weighted_sum(weights, value, choice)
    cache = TopKCache(x, key, value, choice, weights, theta)
    return out.reshape(*x.shape[:-1], value.shape[1]), cache


def top_k_pattention_backward(dout, cache):
    """dx, dkey, dvalue; tokens that no row chose get zeros.

    With k = 1 and a norm in Θ the one weight does not depend on its score: dx and dkey are zero, choose k of 2 or more.
    """
    x, key, value, choice, weights, theta = cache
    check_like("dout", dout, (*x.shape[:-1], value.shape[1]), x.dtype)
    rows, drows = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    dvalue = token_sums(weights, drows, choice, len(key))
    dweights = chosen_scores(drows, value, choice)
    dscores = theta_backward(dweights, theta)
    dkey = token_sums(dscores, rows, choice, len(key))
    dx = weighted_sum(dscores, key, choice)
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
    last = best.shape[-1] - n_experts
    used = best >= xp.partition(best, last, axis=-1)[:, last, None]
    if xp is np and (used.sum(axis=-1) == n_experts).all():  # no ties; a GPU would have to tell the host
        return used
    best = xp.where(xp.isnan(best), xp.inf, best)  # NaN is chosen, and so is seen
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


# ------------------------------- products of rows with the tokens that they chose; weights: (rows, k)


def weighted_sum(weights, tokens, choice):
    """The sum of the chosen tokens, weighted: (rows, k), (n, d) -> (rows, d)."""
    if choice.ends is None:
        return _spread(weights, choice, len(tokens)) @ tokens
    by_expert = _sorted(weights, choice)
    out = array_module(tokens=tokens).zeros_like(tokens, shape=(len(weights), tokens.shape[1]))
    for pairs, own in _experts(choice):
        out[choice.rows[pairs]] += by_expert[pairs] @ tokens[own]
    return out


def token_sums(weights, x, choice, n):
    """For each token the sum of the rows that chose it, weighted: (rows, k), (rows, d) -> (n, d)."""
    if choice.ends is None:
        return _spread(weights, choice, n).T @ x
    by_expert = _sorted(weights, choice)
    out = array_module(x=x).zeros_like(x, shape=(n, x.shape[1]))
    for pairs, own in _experts(choice):
        out[own] = by_expert[pairs].T @ x[choice.rows[pairs]]
    return out


def chosen_scores(x, tokens, choice):
    """x @ tokens.T where it was chosen: (rows, d), (n, d) -> (rows, k)."""
    xp = array_module(x=x)
    if choice.ends is None:
        return xp.take_along_axis(x @ tokens.T, choice.chosen, axis=-1)
    by_expert = xp.zeros_like(x, shape=(len(choice.order), choice.group))
    for pairs, own in _experts(choice):
        by_expert[pairs] = x[choice.rows[pairs]] @ tokens[own].T
    scores = xp.empty_like(by_expert)
    scores[choice.order] = by_expert
    return scores.reshape(choice.chosen.shape)


def _choice(used, k, group, gather):
    xp = array_module(used=used)
    experts = used.ravel().nonzero()[0].reshape(len(used), k // group) % used.shape[1]
    chosen = (experts[:, :, None] * group + xp.arange(group)).reshape(len(used), k)
    if not gather:
        return Choice(chosen, group, None, None, None)
    order = xp.argsort(experts.ravel(), kind="stable")
    ends = to_host(xp.cumsum(used.sum(axis=0))).tolist()  # a GPU's products need their sizes here, too
    return Choice(chosen, group, order, order // experts.shape[1], ends)


def _experts(choice):
    """(its pairs, its tokens) of every expert that some row uses, both as slices."""
    start = 0
    for i, end in enumerate(choice.ends):
        if end > start:
            yield slice(start, end), slice(i * choice.group, (i + 1) * choice.group)
        start = end


def _sorted(weights, choice):
    """Weights (rows, k) as (pairs, group), expert by expert."""
    return weights.reshape(-1, choice.group)[choice.order]


def _spread(weights, choice, n):
    """Weights (rows, k) as (rows, n), zero for tokens that were not chosen."""
    xp = array_module(weights=weights)
    out = xp.zeros_like(weights, shape=(len(weights), n))
    out[xp.arange(len(weights))[:, None], choice.chosen] = weights
    return out
