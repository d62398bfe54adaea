"""Token-token attention, multi-head: causal with rotary positions for text, full for the patches of an image.

This half of a TokenFormer is an ordinary Transformer's (paper, eq. 8; release, megatron/model/tokenformer.py).
"""

import math
from typing import NamedTuple

from .backend import array_module, check_number, float_module, has_fast_twin
from .ops import Array, check_like, softmax_backward, softmax_forward


class RotaryCache(NamedTuple):
    cos: Array  # (T, r/2) for r rotated channels
    sin: Array


def rotary_channels(head_dim, fraction):
    """How many channels of a head are rotated: fraction of head_dim, rounded down to pairs, at least one.

    release: `rotary_pct` 0.25 (150M: 16 of 64 channels). Raises ValueError for a fraction outside 0..1.

    >>> rotary_channels(64, 0.25), rotary_channels(4, 0.25), rotary_channels(64, 0.0)
    (16, 2, 0)
    """
    if not 0 <= check_number("rotary_fraction", fraction) <= 1:
        raise ValueError(f"rotary_fraction is {fraction}: it is a share of each head, from 0 to 1")
    if fraction > 0 and head_dim < 2:
        raise ValueError("a head of width 1 has no pair of channels to rotate: use rotary_fraction=0")
    return max(int(head_dim * fraction) // 2 * 2, 2 if fraction > 0 else 0)


def rotary_forward(x, fraction=0.25, offset=0, base=10000.0):
    """Rotate channel pairs (i, i + r/2) of each head by the angle position · base^(-2i/r).

    x: (..., T, head_dim)  ->  same shape; the first r = fraction · head_dim channels turn (GPT-NeoX
    half-split), the rest pass. offset: position of the first token. Source: Su et al. (2021); release,
    megatron/model/positional_embeddings.py.

    >>> import numpy as np
    >>> rotary_forward(np.array([[1.0, 0.0], [1.0, 0.0]]), fraction=1.0)[0].round(3)
    array([[1.   , 0.   ],
           [0.54 , 0.841]])
    """
    xp = float_module(x=x)
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"x has shape {x.shape}: it must be (..., T, head_dim)")
    offset = check_number("offset", offset, low=-(2**53), high=2**53, whole=True)  # exact in float64
    base = check_number("base", base, low=1)
    r = rotary_channels(x.shape[-1], fraction)
    frequency = base ** (-xp.arange(0, r, 2) / max(r, 1))
    angle = (offset + xp.arange(x.shape[-2]))[:, None] * frequency  # (T, r/2)
    cos, sin = xp.cos(angle).astype(x.dtype), xp.sin(angle).astype(x.dtype)
    return _rotate(x, cos, sin), RotaryCache(cos, sin)


def rotary_backward(dout, cache):
    """dx: a rotation's gradient turns back by the same angle."""
    array_module(dout=dout)
    shape, (length, half) = getattr(dout, "shape", ()), cache.cos.shape
    check_like("dout", dout, (*shape[:-2], length, max((2 * half, *shape[-1:]))), cache.cos.dtype)
    return _rotate(dout, cache.cos, -cache.sin)


def _rotate(x, cos, sin):
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return array_module(x=x).concatenate(turned, axis=-1)


class AttentionCache(NamedTuple):
    query: Array  # (..., H, T, head_dim), rotated
    key: Array  # (..., H, past + T, head_dim), rotated
    value: Array  # (..., H, past + T, head_dim)
    weights: Array  # (..., H, T, past + T)
    rotary: RotaryCache

    @property
    def past(self):
        """The keys and values so far: what the next call takes as `past` to generate token by token."""
        return self.key, self.value


@has_fast_twin
def causal_attention_forward(query, key, value, n_heads=1, rotary_fraction=0.0, past=None):
    """Each token attends to itself and the tokens before it: softmax(Q Kᵀ / √head_dim) V in every head.

    query, key, value: (..., T, d), split into n_heads heads of d / n_heads channels  ->  out: (..., T, d)
    rotary_fraction: share of each head's channels that carry the position (0: none).
    past: `cache.past` of the call on the tokens before these (the KV cache), or None.
    paper: eq. 8 divides by √d / release: by √head_dim / here: as the release. Cost: 4 T² d FLOPs.

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> causal_attention_forward(x, x, x)[1].weights.round(2)  # the first token sees only itself
    array([[[1.  , 0.  ],
            [0.33, 0.67]]])
    """
    xp = array_module(query=query)
    n_heads = check_heads(query, key, value, n_heads)
    past_length = check_past(past, query, n_heads) if past is not None else 0

    query, rotary = rotary_forward(split_heads(query, n_heads), rotary_fraction, past_length)
    key, _ = rotary_forward(split_heads(key, n_heads), rotary_fraction, past_length)
    value = split_heads(value, n_heads)
    if past is not None:
        key = xp.concatenate([past[0], key], axis=-2)
        value = xp.concatenate([past[1], value], axis=-2)

    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])  # (..., H, T, past + T)
    position = xp.arange(key.shape[-2])
    visible = position <= position[past_length:, None]
    weights, _ = softmax_forward(xp.where(visible, scores, -math.inf))
    out = merge_heads(weights @ value)
    return out, AttentionCache(query, key, value, weights, rotary)


@has_fast_twin
def causal_attention_backward(dout, cache):
    """dquery, dkey, dvalue, each (..., T, d); for a forward without `past`."""
    query, key, value, weights, rotary = cache
    if query.shape[-2] != key.shape[-2]:
        raise ValueError("there is no backward through a KV cache: run the whole sequence without past")
    n_heads = query.shape[-3]
    check_like("dout", dout, merge_heads(query).shape, query.dtype)
    dheads = split_heads(dout, n_heads)
    dvalue = weights.swapaxes(-1, -2) @ dheads
    dweights = dheads @ value.swapaxes(-1, -2)
    dscores = softmax_backward(dweights, weights) / math.sqrt(query.shape[-1])  # zero where not visible
    dkey = dscores.swapaxes(-1, -2) @ query
    dquery = dscores @ key
    dquery, dkey = rotary_backward(dquery, rotary), rotary_backward(dkey, rotary)
    return merge_heads(dquery), merge_heads(dkey), merge_heads(dvalue)


def full_attention_forward(query, key, value, n_heads=1):
    """Each token attends to all tokens, as the patches of an image do: softmax(Q Kᵀ / √head_dim) V in every head.

    query, key, value: (..., T, d), split into n_heads heads of d / n_heads channels  ->  out: (..., T, d)
    Nothing here knows the order of the tokens: what they are must say where they are (`vision` adds a position).
    Source: Dosovitskiy et al. (2021), ViT. Raises as `causal_attention_forward`. Cost: 4 T² d FLOPs.

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> full_attention_forward(x, x, x)[1].weights.round(2)  # the first token sees the second, too
    array([[[0.67, 0.33],
            [0.33, 0.67]]])
    """
    n_heads = check_heads(query, key, value, n_heads)
    query, rotary = rotary_forward(
        split_heads(query, n_heads), 0.0
    )  # turns nothing: what the backward expects
    key, value = split_heads(key, n_heads), split_heads(value, n_heads)
    weights, _ = softmax_forward(query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1]))  # (..., H, T, T)
    return merge_heads(weights @ value), AttentionCache(query, key, value, weights, rotary)


def full_attention_backward(dout, cache):
    """dquery, dkey, dvalue, each (..., T, d): a causal mask only makes weights zero, so the formula is the same."""
    return causal_attention_backward(dout, cache)


def check_heads(query, key, value, n_heads):
    """n_heads as an int; raises TypeError or ValueError unless the three fit each other and the heads divide d."""
    float_module(query=query, key=key, value=value)
    check_like("key", key, query.shape)
    check_like("value", value, query.shape)
    n_heads = check_number("n_heads", n_heads, whole=True)
    if query.ndim < 2 or 0 in query.shape[-2:] or n_heads < 1 or query.shape[-1] % n_heads:
        raise ValueError(f"{n_heads} heads do not divide queries of shape {query.shape} = (..., T, d)")
    return n_heads


def check_past(past, query, n_heads):
    """The number of tokens in past; raises TypeError or ValueError unless it fits the query (..., T, d)."""
    if not (isinstance(past, tuple) and len(past) == 2):
        raise TypeError(f"past is a {type(past).__name__}: pass cache.past of the call before")
    past_key, past_value = past
    float_module(query=query, past_key=past_key, past_value=past_value)
    *batch_shape, _, d = query.shape
    past_length = past_key.shape[-2] if past_key.ndim >= 2 else 0
    for name, array in (("past key", past_key), ("past value", past_value)):
        check_like(name, array, (*batch_shape, n_heads, past_length, d // n_heads))
    return past_length


def split_heads(x, n_heads):
    """(..., T, d) -> (..., H, T, d / H)."""
    return x.reshape(*x.shape[:-1], n_heads, x.shape[-1] // n_heads).swapaxes(-2, -3)


def merge_heads(x):
    """(..., H, T, head_dim) -> (..., T, H · head_dim)."""
    x = x.swapaxes(-2, -3)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
