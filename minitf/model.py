"""Transformer and Tokenformer on one skeleton.

    x = embedding[ids]
    x = x + attention(norm(x))        } in every block
    x = x + ffn(norm(x))              }
    logits = norm(x) @ unembedding

The two differ only where a token meets parameters: a weight matrix there, parameter tokens here. The backward
of the whole model is the forward read from the bottom up. Tokens travel as rows of one (B·T, d) matrix; only
token-token attention needs to know which sequence a row belongs to.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from .attention import (
    causal_attention_backward,
    causal_attention_forward,
    full_attention_backward,
    full_attention_forward,
    rotary_channels,
)
from .backend import array_module, check_number, to_host, tree_from_items, tree_items
from .ops import (
    check_choice,
    check_ids,
    check_like,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_backward,
    embedding_forward,
    gelu_backward,
    gelu_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
)
from .pattention import KINDS, check_tau, pattention_backward, pattention_forward
from .top_k import TopKCache, check_top_k, top_k_pattention_backward, top_k_pattention_forward

# ---------------------------------------------------------------------------------------------- configs


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a Transformer. Raises ValueError for sizes that make no model.

    >>> TransformerConfig(vocab_size=65, context=64, n_layers=2, d_model=32, n_heads=4, d_ff=128).head_dim
    8
    """

    vocab_size: int
    context: int  # longest sequence, in tokens
    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int  # hidden units of the MLP
    rotary_fraction: float = 0.25  # share of each head's channels that rotate with the position
    parametric_norm: bool = False  # True: block norms have weight and bias, as in GPT-2
    tied: bool = True  # True: the embedding is also the unembedding
    approximate: str = "none"  # GeLU: "none" is exact, "tanh" is GPT-2's
    init_std: float = 0.02
    norm_eps: float = 1e-5

    def __post_init__(self):
        _check_sizes(self, "d_ff")

    @property
    def head_dim(self):
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class TokenformerConfig:
    """Shape of a Tokenformer. Raises ValueError for sizes that make no model.

    The three taus are √n where they are None; growth that holds tau writes the number here.

    >>> config = TokenformerConfig(65, 64, n_layers=2, d_model=32, n_heads=4, attention_tokens=16, ffn_tokens=64)
    >>> config.tokens("proj"), config.tau("ffn")
    (16, 8.0)
    """

    vocab_size: int
    context: int  # longest sequence, in tokens
    n_layers: int
    d_model: int
    n_heads: int
    attention_tokens: int  # parameter tokens of each query, key and value Pattention
    ffn_tokens: int  # parameter tokens of each feed-forward Pattention
    ffn_blocks: int = 1  # 1: paper and release; 2: two Pattentions in a row
    theta: str = "l2_norm_gelu"
    rotary_fraction: float = 0.25  # share of each head's channels that rotate with the position
    parametric_norm: bool = False  # True: block norms have weight and bias, as in GPT-2
    tied: bool = True  # True: the embedding is also the unembedding
    attention_tau: float | None = None
    ffn_tau: float | None = None
    proj_tokens: int | None = None  # parameter tokens of attention's output; None: attention_tokens
    proj_tau: float | None = None
    held_tau: tuple | None = None  # (attention, proj, ffn) where `growth.anneal_tau` starts from
    approximate: str = "none"  # GeLU: "none" is exact, "tanh" is the TPU code's
    init_std: float = 0.02
    norm_eps: float = 1e-5
    ffn_top_k: int | None = None  # feed-forward tokens that a row uses (`top_k`); None: all of them
    ffn_group: int = 1  # with ffn_top_k: so many neighbors are one expert

    def __post_init__(self):
        _check_sizes(self, "attention_tokens", "ffn_tokens")
        _check_positive(self, "ffn_group")
        if self.ffn_top_k is not None:
            _check_positive(self, "ffn_top_k")
            check_top_k(self.ffn_top_k, self.ffn_group, self.ffn_tokens, ("ffn_top_k", "ffn_group"))
        elif self.ffn_group != 1:
            raise ValueError(f"ffn_group is {self.ffn_group} without ffn_top_k: set both, or neither")
        if self.proj_tokens is not None:
            _check_positive(self, "proj_tokens")
        if check_number("ffn_blocks", self.ffn_blocks, whole=True) not in (1, 2):
            raise ValueError(f"ffn_blocks is {self.ffn_blocks}: choose 1 (paper, release) or 2")
        if not isinstance(self.theta, str) or self.theta not in KINDS:
            raise ValueError(f"theta {self.theta!r} is unknown: choose one of {', '.join(KINDS)}")
        for part in PARTS:
            self.tau(part)
        if self.held_tau is not None:
            if not (isinstance(self.held_tau, tuple) and len(self.held_tau) == len(PARTS)):
                raise ValueError(
                    f"held_tau is {self.held_tau!r}: pass None, or a tuple of {', '.join(PARTS)}"
                )
            for tau in self.held_tau:
                check_tau(tau, 1)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in config_fields(self).items())})"

    @property
    def head_dim(self):
        return self.d_model // self.n_heads

    def tokens(self, part):
        """Parameter tokens of one layer of a part: "attention" (query, key, value), "proj" or "ffn"."""
        if part == "proj" and self.proj_tokens is None:
            return self.attention_tokens
        return {"attention": self.attention_tokens, "proj": self.proj_tokens, "ffn": self.ffn_tokens}[part]

    def used_tokens(self, part):
        """Tokens of a part that one row uses; √ of it is tau at birth."""
        return self.ffn_top_k if part == "ffn" and self.ffn_top_k is not None else self.tokens(part)

    def tau(self, part):
        """tau of a part. Where only attention_tau is given, a proj of the same size shares it."""
        tau = {"attention": self.attention_tau, "proj": self.proj_tau, "ffn": self.ffn_tau}[part]
        if part == "proj" and tau is None and self.proj_tokens is None:
            tau = self.attention_tau
        return check_tau(tau, self.used_tokens(part))


PARTS = ("attention", "proj", "ffn")
LATER = {"ffn_top_k": None, "ffn_group": 1}  # fields that came later: files and names of before lack them


def config_fields(config):
    """{name: value} of a config, without later fields at their default: what files, keys and repr say."""
    said = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: value for name, value in said.items() if name not in LATER or value != LATER[name]}


def _check_positive(config, *names):
    for name in names:
        size = getattr(config, name)
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or not 1 <= size < 2**63:
            raise ValueError(f"{name} is {size!r}: it must be a positive integer")
        object.__setattr__(config, name, int(size))  # products of NumPy's small integers would overflow


def _check_sizes(config, *names):
    _check_positive(config, "vocab_size", "context", "n_layers", "d_model", "n_heads", *names)
    if config.d_model % config.n_heads:
        raise ValueError(f"{config.n_heads} heads do not divide d_model {config.d_model}")
    check_choice("approximate", config.approximate, ("none", "tanh"))
    rotary_channels(config.head_dim, config.rotary_fraction)
    for name in ("init_std", "norm_eps"):
        check_number(name, getattr(config, name), low=0)
    for name in ("parametric_norm", "tied"):
        if not isinstance(getattr(config, name), bool | np.bool_):
            raise TypeError(f"{name} is {getattr(config, name)!r}: choose True or False")


# ------------------------------------------------------------------------------------------- parameters


def parameter_shapes(config):
    """The tree of a model's parameters, with the shape of each array instead of the array."""
    if not isinstance(config, TokenformerConfig | TransformerConfig):
        raise TypeError(
            f"config is a {type(config).__name__}: pass a TokenformerConfig or a TransformerConfig"
        )
    d = config.d_model

    def tokens(part):
        return {"key": (config.tokens(part), d), "value": (config.tokens(part), d)}

    def norm():
        return {"weight": (d,), "bias": (d,)}

    if isinstance(config, TokenformerConfig):
        attention = {
            **{name: tokens("attention") for name in ("query", "key", "value")},
            "proj": tokens("proj"),
        }
        ffn = tokens("ffn") if config.ffn_blocks == 1 else {"first": tokens("ffn"), "second": tokens("ffn")}
    else:
        attention = {name: {"weight": (d, d)} for name in ("query", "key", "value", "proj")}
        ffn = {"up": {"weight": (config.d_ff, d)}, "down": {"weight": (d, config.d_ff)}}
    block = {"attention": attention, "ffn": ffn}
    if config.parametric_norm:
        block |= {"attention_norm": norm(), "ffn_norm": norm()}

    tree = {"embedding": {"weight": (config.vocab_size, d)}}
    tree |= {f"block_{i}": block for i in range(config.n_layers)}
    tree |= {"norm": norm()}
    if not config.tied:
        tree |= {"unembedding": {"weight": (config.vocab_size, d)}}
    return tree


def part_of(name):
    """Which part of a Tokenformer the parameter of this dotted name grows with; None for what does not grow.

    >>> part_of("block_0.attention.query.key"), part_of("block_0.ffn.value"), part_of("norm.weight")
    ('attention', 'ffn', None)
    """
    branches = name.split(".")
    if branches[-1] not in ("key", "value"):
        return None
    return "ffn" if "ffn" in branches else "proj" if "proj" in branches else "attention"


def init_params(config, seed=0, dtype=np.float32):
    """Random parameters, initialized as the release does it (facts: configs/tokenformer/*.yml).

    Keys, embedding and inner weights: N(0, 0.02²), the std being config.init_std. Values, and the matrices
    that write to the residual stream: "wang_init", N(0, (2 / (n_layers √d_model))²). Norms: weight 1, bias 0.
    Numbers are drawn in float64, so one seed gives the same model in every dtype.
    """
    if np.dtype(dtype).kind != "f":
        raise TypeError(f"dtype is {np.dtype(dtype)}: parameters are floats, np.float32 or np.float64 say")
    shapes = parameter_shapes(config)
    rng = np.random.default_rng(check_number("seed", seed, low=0, whole=True))
    wang_std = 2 / (config.n_layers * math.sqrt(config.d_model))

    def draw(name, shape):
        *_, layer, kind = name.split(".")
        if kind == "bias":
            return np.zeros(shape, dtype)
        if layer.endswith("norm"):
            return np.ones(shape, dtype)
        writes = kind == "value" or (kind == "weight" and layer in ("proj", "down"))
        std = wang_std if writes else config.init_std
        return (std * rng.standard_normal(shape)).astype(dtype)

    return tree_from_items((name, draw(name, shape)) for name, shape in tree_items(shapes))


def check_params(params, config):
    """Raise ValueError unless the tree has the names and shapes of the config, in one floating dtype."""
    expected = dict(tree_items(parameter_shapes(config)))
    found = dict(tree_items(params))
    for name in expected | found:
        if name not in found:
            raise ValueError(
                f"params lack {name}, which {type(config).__name__} has: do they belong together?"
            )
        if name not in expected:
            raise ValueError(
                f"params have {name}, which {type(config).__name__} lacks: do they belong together?"
            )
        check_like(f"params {name}", found[name], expected[name])
    dtypes = {str(array.dtype) for array in found.values()}
    if len(dtypes) > 1 or not next(iter(dtypes)).startswith("float"):
        raise ValueError(f"params have dtypes {sorted(dtypes)}: they must share one floating dtype")


# ----------------------------------------------------- the seam: where a token meets parameters


def layer_forward(x, layer, config, part):
    """A linear layer or a Pattention, whichever the parameters are: x (rows, d) -> (rows, d).

    With config.ffn_top_k it is a Pattention of each row's best tokens (`top_k`).
    A "mask" (rows, n) beside a Pattention's "key" and "value" says which tokens each row may read (`merge`).
    """
    if "weight" in layer:
        return linear_forward(x, layer["weight"])
    tau, mask = config.tau(part), layer.get("mask")
    if config.used_tokens(part) < config.tokens(part):
        if mask is not None:
            raise ValueError(
                "a layer with a mask and ffn_top_k: a mask must say alone which tokens a row uses"
            )
        k, group = config.ffn_top_k, config.ffn_group
        return top_k_pattention_forward(
            x, layer["key"], layer["value"], k, config.theta, tau, config.approximate, group
        )
    return pattention_forward(
        x, layer["key"], layer["value"], config.theta, tau, mask=mask, approximate=config.approximate
    )


def layer_backward(dout, cache, layer):
    """dx and the tree of the layer's gradients."""
    if "weight" in layer:
        dx, dweight = linear_backward(dout, cache)
        return dx, {"weight": dweight}
    pair_backward = top_k_pattention_backward if isinstance(cache, TopKCache) else pattention_backward
    dx, dkey, dvalue = pair_backward(dout, cache)
    return dx, {"key": dkey, "value": dvalue}


def ffn_forward(x, ffn, config):
    """One Pattention, two Pattentions in a row, or the Transformer's MLP: x (rows, d) -> (rows, d)."""
    if "up" in ffn:
        hidden, up = layer_forward(x, ffn["up"], config, "ffn")
        hidden, gelu = gelu_forward(hidden, config.approximate)
        out, down = layer_forward(hidden, ffn["down"], config, "ffn")
        return out, (up, gelu, down)
    if "first" in ffn:
        hidden, first = layer_forward(x, ffn["first"], config, "ffn")
        out, second = layer_forward(hidden, ffn["second"], config, "ffn")
        return out, (first, second)
    return layer_forward(x, ffn, config, "ffn")


def ffn_backward(dout, cache, ffn, of_layer=None):
    """dx and the tree of the gradients."""
    each_backward = of_layer or layer_backward
    if "up" in ffn:
        up, gelu, down = cache
        dhidden, ddown = each_backward(dout, down, ffn["down"])
        dhidden = gelu_backward(dhidden, gelu)
        dx, dup = each_backward(dhidden, up, ffn["up"])
        return dx, {"up": dup, "down": ddown}
    if "first" in ffn:
        first, second = cache
        dhidden, dsecond = each_backward(dout, second, ffn["second"])
        dx, dfirst = each_backward(dhidden, first, ffn["first"])
        return dx, {"first": dfirst, "second": dsecond}
    return each_backward(dout, cache, ffn)


# ------------------------------------------------------------------------------------------------ block


class BlockCache(NamedTuple):
    params: dict
    attention_norm: tuple
    query: tuple
    key: tuple
    value: tuple
    attention: tuple
    proj: tuple
    ffn_norm: tuple
    ffn: tuple


def block_forward(x, params, config, batch_shape, past=None, causal=True):
    """x + attention(norm(x)), then x + ffn(norm(x)): pre-norm (release, tokenformer.py 590-628).

    x: (B·T, d); batch_shape: (B, T); past: the block's keys and values of earlier tokens, or None.
    causal=False: every token sees every other one and nothing is rotated (`vision`).
    """
    layers = params["attention"]
    h, attention_norm = layer_norm_forward(x, **params.get("attention_norm", {}), eps=config.norm_eps)
    query, query_cache = layer_forward(h, layers["query"], config, "attention")
    key, key_cache = layer_forward(h, layers["key"], config, "attention")
    value, value_cache = layer_forward(h, layers["value"], config, "attention")
    query, key, value = (a.reshape(*batch_shape, config.d_model) for a in (query, key, value))
    if causal:
        rotary_fraction = config.rotary_fraction
        h, attention = causal_attention_forward(query, key, value, config.n_heads, rotary_fraction, past)
    else:
        h, attention = full_attention_forward(query, key, value, config.n_heads)
    h, proj = layer_forward(h.reshape(x.shape), layers["proj"], config, "proj")
    x = x + h
    h, ffn_norm = layer_norm_forward(x, **params.get("ffn_norm", {}), eps=config.norm_eps)
    h, ffn = ffn_forward(h, params["ffn"], config)
    x = x + h
    cache = BlockCache(
        params, attention_norm, query_cache, key_cache, value_cache, attention, proj, ffn_norm, ffn
    )
    return x, cache


def block_backward(dx, cache, config, batch_shape, causal=True, of_layer=None):
    """dx and the tree of the block's gradients. of_layer: what to call instead of `layer_backward`."""
    each_backward = of_layer or layer_backward
    attention_backward = causal_attention_backward if causal else full_attention_backward
    params, layers = cache.params, cache.params["attention"]
    grads, norms = {}, {}
    dh, grads["ffn"] = ffn_backward(dx, cache.ffn, params["ffn"], of_layer)
    dh, norms["ffn_norm"] = _norm_backward(dh, cache.ffn_norm)
    dx = dx + dh
    dh, dproj = each_backward(dx, cache.proj, layers["proj"])
    dquery, dkey, dvalue = attention_backward(dh.reshape(*batch_shape, config.d_model), cache.attention)
    dquery, dkey, dvalue = (a.reshape(dx.shape) for a in (dquery, dkey, dvalue))
    dh_query, dquery = each_backward(dquery, cache.query, layers["query"])
    dh_key, dkey = each_backward(dkey, cache.key, layers["key"])
    dh_value, dvalue = each_backward(dvalue, cache.value, layers["value"])
    dh, norms["attention_norm"] = _norm_backward(dh_query + dh_key + dh_value, cache.attention_norm)
    dx = dx + dh
    grads["attention"] = {"query": dquery, "key": dkey, "value": dvalue, "proj": dproj}
    if config.parametric_norm:
        grads |= norms
    return dx, {name: grads[name] for name in params}


def _norm_backward(dout, cache):
    """dx and {"weight", "bias"}, empty for a norm without parameters."""
    grads = layer_norm_backward(dout, cache)
    if not isinstance(grads, tuple):
        return grads, {}
    dx, dweight, dbias = grads
    return dx, {"weight": dweight, "bias": dbias}


# ------------------------------------------------------------------------------------------------ model


class ModelCache(NamedTuple):
    params: dict
    config: object
    batch_shape: tuple
    embedding: tuple
    blocks: list
    norm: tuple
    unembedding: tuple

    @property
    def past(self):
        """Keys and values of every block so far: what the next call of `forward` takes as `past`."""
        return [block.attention.past for block in self.blocks]


def forward(params, ids, config, past=None):
    """Logits of the next token at every position.

    ids: integers (..., T)  ->  logits: (..., T, vocab_size), and the cache that `backward` reads.
    past: `cache.past` of the call on the tokens before these: generation then computes only what is new, with
    the same logits. Raises ValueError where past and ids together are longer than config.context.
    """
    check_params(params, config)
    array_module(ids=ids, embedding=params["embedding"]["weight"])
    check_ids("ids", ids, config.vocab_size)
    if ids.ndim < 1 or ids.size == 0:
        raise ValueError(f"ids have shape {ids.shape}: pass at least one token")
    length = ids.shape[-1] + (_past_length(past, config) if past is not None else 0)
    if length > config.context:
        raise ValueError(
            f"{length} tokens are more than the context of {config.context}: pass the last {config.context}, "
            "or call generate, whose window slides"
        )
    x, embedding = embedding_forward(ids, params["embedding"]["weight"])
    x = x.reshape(-1, config.d_model)  # (..., T, d) -> (B·T, d)
    blocks = []
    for i in range(config.n_layers):
        layer_past = past[i] if past is not None else None
        x, block = block_forward(x, params[f"block_{i}"], config, ids.shape, layer_past)
        blocks.append(block)
    x, norm = layer_norm_forward(x, **params["norm"], eps=config.norm_eps)
    logits, unembedding = linear_forward(x, params["embedding" if config.tied else "unembedding"]["weight"])
    cache = ModelCache(params, config, ids.shape, embedding, blocks, norm, unembedding)
    return logits.reshape(*ids.shape, config.vocab_size), cache


def _past_length(past, config):
    try:
        lengths = {key.shape[-2] for key, _ in past}
    except (TypeError, ValueError, AttributeError, IndexError):
        lengths = set()
    if len(lengths) != 1 or len(past) != config.n_layers:
        raise ValueError(
            "past does not fit the config: pass cache.past of the call on the tokens before these"
        )
    return lengths.pop()


def backward(dlogits, cache, of_layer=None):
    """The tree of gradients, with the names and shapes of the parameters. dlogits: (..., T, vocab_size).

    of_layer(dout, cache, layer) -> dx, gradients: called instead of `layer_backward` by who trains less than all of
    a layer (`transfer`).
    """
    params, config = cache.params, cache.config
    check_like(
        "dlogits", dlogits, (*cache.batch_shape, config.vocab_size), params["embedding"]["weight"].dtype
    )
    grads = {}
    dx, dunembedding = linear_backward(dlogits.reshape(-1, config.vocab_size), cache.unembedding)
    dx, grads["norm"] = _norm_backward(dx, cache.norm)
    for i in reversed(range(config.n_layers)):
        dx, grads[f"block_{i}"] = block_backward(
            dx, cache.blocks[i], config, cache.batch_shape, of_layer=of_layer
        )
    dembedding = embedding_backward(dx.reshape(*cache.batch_shape, config.d_model), cache.embedding)
    if config.tied:  # one array with two jobs gets the sum of both gradients
        grads["embedding"] = {"weight": dembedding + dunembedding}
    else:
        grads["embedding"] = {"weight": dembedding}
        grads["unembedding"] = {"weight": dunembedding}
    return {name: grads[name] for name in params}


def loss_and_grads(params, ids, targets, config, mask=None):
    """Mean cross-entropy over the unmasked tokens, in nats, and the tree of its gradients.

    ids, targets: integers (..., T); mask: bool (..., T), True = the token counts, or None.
    """
    logits, cache = forward(params, ids, config)
    loss, loss_cache = cross_entropy_forward(logits, targets, mask)
    return loss, backward(cross_entropy_backward(1.0, loss_cache), cache)


# ------------------------------------------------------------------------------------------- generation


def generate(params, prompt_ids, n_new, config, temperature=1.0, top_k=None, seed=0):
    """Append n_new sampled tokens to a prompt; returns prompt and continuation.

    prompt_ids: integers (T,) or (B, T), T >= 1  ->  the same with n_new more columns, on the host.
    temperature: 0 takes the likeliest token; top_k: sample among the k likeliest. Keys and values of earlier
    tokens are kept (KV cache). Once the context is full the window slides: each new token is computed from the
    last `context` tokens anew, as if the rest had never been there, which is slower.
    """
    prompt_ids = to_host(prompt_ids)
    new = list(generate_steps(params, prompt_ids, n_new, config, temperature, top_k, seed))
    return np.concatenate([prompt_ids.astype(np.int64), *(ids[..., None] for ids in new)], axis=-1)


def generate_steps(params, prompt_ids, n_new, config, temperature=1.0, top_k=None, seed=0):
    """Yield what `generate` appends as it comes, one token of every sequence a step: integers () or (B,)."""
    check_params(params, config)
    check_ids("prompt_ids", prompt_ids, config.vocab_size)
    if prompt_ids.ndim not in (1, 2) or prompt_ids.size == 0:
        raise ValueError(f"prompt_ids have shape {prompt_ids.shape}: pass (T,) or (B, T) with T >= 1 tokens")
    n_new, temperature = check_number("n_new", n_new, whole=True), check_number("temperature", temperature)
    top_k = None if top_k is None else check_number("top_k", top_k, whole=True)
    if n_new < 0 or not 0 <= temperature < math.inf or (top_k is not None and top_k < 1):
        raise ValueError("n_new and temperature must be at least 0, and top_k at least 1")
    xp = array_module(embedding=params["embedding"]["weight"])
    rng = np.random.default_rng(check_number("seed", seed, low=0, whole=True))
    ids = window = prompt_ids.astype(np.int64)  # a uint8 prompt must not wrap new ids around
    past = None
    for _ in range(n_new):
        if past is None or ids.shape[-1] > config.context:
            past, window = None, ids[..., -config.context :]
        logits, cache = forward(params, xp.asarray(window), config, past)
        past = cache.past
        new = _sample(to_host(logits[..., -1, :]), temperature, top_k, rng)
        window = new[..., None]
        ids = np.concatenate([ids, window], axis=-1)
        yield new


def _sample(logits, temperature, top_k, rng):
    """One id per row of logits (..., vocab_size)."""
    if temperature == 0:
        return logits.argmax(axis=-1)
    with np.errstate(over="ignore"):  # a temperature near 0 makes -inf of all but the likeliest, as it should
        logits = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = np.partition(logits, -top_k, axis=-1)[..., -top_k, None]
        logits = np.where(logits >= threshold, logits, -np.inf)
    # the Gumbel trick: the argmax of logits plus Gumbel noise is a sample of their softmax
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
