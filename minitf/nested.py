"""One trained set of parameter tokens, of which any prefix is a model: nested dropout over tokens.

A Tokenformer that keeps the first m tokens of every layer, with τ = √m, is a smaller Tokenformer of the same width: it
can be cut out of the large one without a copy. Ordinary training leaves it useless. Nested dropout draws a prefix at
every step and trains that alone, so the first tokens learn to do without the others, and the others to add to them.

Source: nested dropout (Rippel, Gelbart and Adams, 2014), there over hidden units; the paper names "device-cloud
collaboration" as a direction (section 5) and has no experiment on it.
"""

from dataclasses import replace

from .backend import array_module, check_number, float_module, tree_from_items, tree_items, tree_map
from .growth import TAUS
from .model import PARTS, TokenformerConfig, check_params, loss_and_grads, part_of


def prefix(params, config, tokens, tau="rescale"):
    """The model of the first tokens of every layer: its params, which are views, and its config.

    tokens: how many of config.attention_tokens are kept; the other layers keep the same share of theirs.
    tau: "rescale" sets √m for the m tokens that are left, "hold" keeps the tau of every layer.
    A token beyond the prefix is gone as if its score were 0, which softmax alone would still count.
    Raises TypeError for a Transformer, ValueError for a share that leaves no whole number of tokens somewhere.

    >>> from minitf import init_params
    >>> config = TokenformerConfig(65, 64, 2, 32, 4, attention_tokens=16, ffn_tokens=64)
    >>> small, small_config = prefix(init_params(config), config, tokens=4)
    >>> small["block_0"]["ffn"]["key"].shape, small_config.tau("ffn")
    ((16, 32), 4.0)
    """
    if not isinstance(config, TokenformerConfig):
        raise TypeError("prefix keeps the first parameter tokens: pass the config of a Tokenformer")
    if not isinstance(tau, str) or tau not in TAUS:
        raise ValueError(f"tau is {tau!r}: choose one of {', '.join(TAUS)}")
    check_params(params, config)
    kept = kept_tokens(config, tokens)

    def cut(name, array):
        part = part_of(name)
        return array if part is None else array[: kept[part]]

    taus = {part: config.tau(part) if tau == "hold" else None for part in PARTS}
    small = replace(
        config,
        **{f"{part}_tokens": kept[part] for part in PARTS if getattr(config, f"{part}_tokens") is not None},
        **{f"{part}_tau": taus[part] for part in PARTS},
        held_tau=None,
    )
    return tree_from_items((name, cut(name, array)) for name, array in tree_items(params)), small


def kept_tokens(config, tokens):
    """{part: tokens of a layer} of a prefix. Raises as `prefix` does."""
    tokens = check_number("tokens", tokens, low=1, high=config.attention_tokens, whole=True)
    kept = {}
    for part in PARTS:
        kept[part], rest = divmod(tokens * config.tokens(part), config.attention_tokens)
        if rest:
            raise ValueError(
                f"tokens={tokens} of {config.attention_tokens} is no whole number of the {config.tokens(part)} in "
                f"{part}: choose a share that divides both"
            )
    return kept


def prefix_backward(dprefix, params):
    """The gradients of the whole params from those of a prefix: zeros for the tokens that were dropped.

    >>> import numpy as np
    >>> prefix_backward({"key": np.ones((1, 2))}, {"key": np.ones((2, 2))})
    {'key': array([[1., 1.],
           [0., 0.]])}
    """

    def pad(grad, array):
        float_module(dprefix=grad, params=array)
        fits = grad.ndim == array.ndim > 0 and grad.shape[1:] == array.shape[1:]
        if not fits or len(grad) > len(array):
            raise ValueError(f"dprefix has a gradient of shape {grad.shape} for params of {array.shape}")
        whole = array_module(array).zeros_like(array)
        whole[: len(grad)] += grad
        return whole

    return tree_map(pad, dprefix, params)


def nested_loss_and_grads(params, ids, targets, config, tokens, mask=None):
    """`loss_and_grads` of a prefix, with gradients shaped as the whole params: one step of nested dropout.

    Dropped tokens cost nothing and get gradients of zero. That is not the same as being left alone: AdamW goes on with
    their momentum and their weight decay, as it does for an embedding row that a batch does not contain.
    """
    small, small_config = prefix(params, config, tokens)
    loss, grads = loss_and_grads(small, ids, targets, small_config, mask)
    return loss, prefix_backward(grads, params)
