"""Growing a trained model: append parameter tokens (Tokenformer) or widen matrices (Transformer, Net2Net).

TokenFormer, section 3.3: new key-value rows are appended to the old ones, and training goes on. Whether the
grown model still computes the old function depends on the new keys and on tau:

    key      tau       the output at birth
    zero     hold      unchanged: a zero score leaves the norm alone, and GeLU(0) = 0
    zero     rescale   moves by tens of percent: √n grows and rescales every score
    normal   rescale   moves (what the release does)
    copy     rescale   unchanged with halved, split or zero values, if every token is copied equally often

An exact birth is not the whole story: a tau that stays held starves the new tokens. `anneal_tau` moves it to √n
during the stage.
"""

import math
from dataclasses import replace

import numpy as np

from .backend import array_module, check_number, float_module, to_host, tree_from_items, tree_items, tree_map
from .model import PARTS, TokenformerConfig, TransformerConfig, check_params, part_of

KEYS = ("zero", "normal", "copy")
VALUES = ("normal", "zero", "halved", "split")
TAUS = ("hold", "rescale")


def grow(
    params,
    config,
    attention_tokens=None,
    ffn_tokens=None,
    proj_tokens=None,
    key="zero",
    value="normal",
    tau="hold",
    seed=0,
    key_std=None,
    value_std=None,
):
    """Append parameter tokens; returns new params and config, the old ones are untouched.

    attention_tokens, ffn_tokens, proj_tokens: the new sizes; None keeps a size (and a proj that follows
    attention_tokens goes on following).
    key: "zero", "normal" N(0, key_std²), or "copy" (the old tokens in turn).
    value: "normal" N(0, value_std²), "zero", or with key="copy": "halved" shares every copied value out among the
    copies, "split" does so in unequal random parts, N(0, value_std²) off the mean: copies with equal values would
    get equal gradients for ever. Standard deviations of None are those of `init_params`, as in the release.
    tau: "hold" keeps the tau of every layer, "rescale" sets √n (silently the release's choice).
    paper: zero keys (3.3), random ones in its runs (4.1) / release: random rows, tau rescaled / here: zero, held.
    Raises ValueError for a size that shrinks and for params that do not fit the config. zero keys with zero
    values are allowed, and dead: their gradients are exactly zero. Where rows use the ffn_top_k best tokens, tau
    stays √k whatever n is, and only key="normal" may add feed-forward tokens: no other birth would be exact.
    """
    if not isinstance(config, TokenformerConfig):
        raise TypeError("grow appends tokens to a Tokenformer: to widen a Transformer, use net2net_widen")
    for name, choice, choices in (("key", key, KEYS), ("value", value, VALUES), ("tau", tau, TAUS)):
        if not isinstance(choice, str) or choice not in choices:
            raise ValueError(f"{name} is {choice!r}: choose one of {', '.join(choices)}")
    if value in ("halved", "split") and key != "copy":
        raise ValueError(f"value={value!r} shares values out among copies: use it with key='copy'")
    check_params(params, config)

    def size(asked, current):
        return current if asked is None else asked

    new = replace(
        config,
        attention_tokens=size(attention_tokens, config.attention_tokens),
        ffn_tokens=size(ffn_tokens, config.ffn_tokens),
        proj_tokens=size(proj_tokens, config.proj_tokens),
    )
    for part in PARTS:
        if new.tokens(part) < config.tokens(part):
            raise ValueError(
                f"{part}_tokens would shrink from {config.tokens(part)} to {new.tokens(part)}: growth only appends"
            )
    if config.ffn_top_k is not None and key != "normal" and new.ffn_tokens > config.ffn_tokens:
        raise ValueError(
            f"key={key!r} with ffn_top_k={config.ffn_top_k}: a zero score takes the place of a negative one, or is "
            "never chosen, and copies crowd out other tokens: grow ffn_tokens with key='normal'"
        )
    held = tuple(config.tau(part) for part in PARTS) if tau == "hold" else None
    new = _with_tau(new, held or (None, None, None), held)

    std = {
        "key": config.init_std if key_std is None else check_number("key_std", key_std, low=0),
        "value": 2 / (config.n_layers * math.sqrt(config.d_model))
        if value_std is None
        else check_number("value_std", value_std, low=0),
    }
    rng = np.random.default_rng(check_number("seed", seed, low=0, whole=True))

    def grow_leaf(name, old):
        part = part_of(name)
        if part is None:
            return old.copy()
        xp = array_module(old)
        column = name.rsplit(".", 1)[1]  # "key" or "value"
        choice = key if column == "key" else value
        n_old, n_new = len(old), new.tokens(part)
        source = np.arange(n_new) % n_old  # the old token that each token copies
        if choice in ("halved", "split"):
            copies = np.bincount(source)[source][:, None]
            shares = old[xp.asarray(source)] / xp.asarray(copies, old.dtype)
            if choice == "halved":
                return shares
            off = std[column] * rng.standard_normal((n_new, old.shape[1]))
            sums = np.zeros(old.shape)
            np.add.at(sums, source, off)
            return shares + xp.asarray(off - sums[source] / copies, old.dtype)
        if choice == "copy":
            return old[xp.asarray(source)]
        rows = np.zeros((n_new - n_old, old.shape[1]))
        if choice == "normal":
            rows = std[column] * rng.standard_normal(rows.shape)
        return xp.concatenate([old, xp.asarray(rows, old.dtype)])

    return tree_from_items((name, grow_leaf(name, old)) for name, old in tree_items(params)), new


def anneal_tau(config, progress):
    """The config with every tau moved from where growth held it (progress 0) to √n (progress 1), linearly.

    The config remembers where it started, so progress counts from the growth, not from the last call.
    Raises ValueError for progress outside 0..1 and for a config that never grew with tau="hold".

    >>> from minitf import init_params
    >>> config = TokenformerConfig(65, 64, 2, 32, 4, attention_tokens=16, ffn_tokens=64)
    >>> _, grown = grow(init_params(config), config, ffn_tokens=100)
    >>> [anneal_tau(grown, progress).tau("ffn") for progress in (0, 0.5, 1)]
    [8.0, 9.0, 10.0]
    """
    if not 0 <= check_number("progress", progress) <= 1:
        raise ValueError(f"progress is {progress}: it runs from 0 (tau as held) to 1 (sqrt(n))")
    if getattr(config, "held_tau", None) is None:
        raise ValueError("this config holds no tau: grow with tau='hold' first")
    moved = tuple(
        (1 - progress) * start + progress * math.sqrt(config.used_tokens(part))
        for part, start in zip(PARTS, config.held_tau, strict=True)
    )
    return _with_tau(config, moved, config.held_tau)


def _with_tau(config, tau, held):
    attention, proj, ffn = tau
    return replace(config, attention_tau=attention, proj_tau=proj, ffn_tau=ffn, held_tau=held)


def grow_state(state, params):
    """The optimizer state for grown params: old moments stay with old rows, new rows start at zero.

    paper, release: the optimizer starts anew / here: what it knows about the old rows is kept.
    Raises ValueError where params are not old rows plus appended ones (as after net2net_widen).
    """

    check_state(state)

    def pad(moment, array):
        float_module(moment=moment, param=array)
        fits = 0 < moment.ndim == array.ndim and moment.shape[1:] == array.shape[1:]
        if not fits or len(moment) > len(array):
            raise ValueError(
                f"a moment of shape {moment.shape} does not grow into {array.shape} by appending rows: "
                "start the optimizer anew with adamw_init"
            )
        grown = array_module(array).zeros_like(array)
        grown[: len(moment)] = moment
        return grown

    return {**state, "m": tree_map(pad, state["m"], params), "v": tree_map(pad, state["v"], params)}


def check_state(state):
    """Raise TypeError unless the state is what `adamw_init` or `adamw_step` returned, as far as its names tell."""
    if not isinstance(state, dict) or not {"step", "m", "v"} <= state.keys():
        raise TypeError("state must be a dict with step, m and v, as adamw_init and adamw_step return it")
    check_number("step", state["step"], low=0, whole=True)


# ---------------------------------------------------------------------------- Net2Net, the baseline


def net2net_widen(params, config, d_model=None, d_ff=None, seed=0):
    """Widen a Transformer without changing its function (Net2Net, Chen et al., 2016); returns params, config.

    A wider vector y = M x carries the old one; with MᵀM = (d_new/d) I and M 1 = 1 it has the same mean and
    variance, so layer norms agree. Matrices that write to x become M W, matrices that read it W R with R M = I.
    For an integer factor M repeats every channel, as in Net2Net and HyperCloning; otherwise M is a random
    isometry, and a tied embedding is untied. Heads keep their width and are copied, MLP units too, and copies
    share what they write. A random part of R, which sees nothing at first, makes copies learn different things.
    Raises TypeError for a Tokenformer; ValueError for sizes that shrink or break heads, or params that do not fit.
    """
    if not isinstance(config, TransformerConfig):
        raise TypeError("net2net_widen widens a Transformer: a Tokenformer grows with grow")
    check_params(params, config)
    d, head_dim = config.d_model, config.head_dim
    d_new = d if d_model is None else check_number("d_model", d_model, whole=True)
    ff_new = config.d_ff if d_ff is None else check_number("d_ff", d_ff, whole=True)
    if d_new < d or ff_new < config.d_ff:
        raise ValueError(f"d_model {d} to {d_new}, d_ff {config.d_ff} to {ff_new}: growth does not shrink")
    if d_new % head_dim:
        raise ValueError(f"d_model={d_new} is not a multiple of the head width {head_dim}, which is kept")
    tied = config.tied and d_new % d == 0
    new = replace(config, d_model=d_new, n_heads=d_new // head_dim, d_ff=ff_new, tied=tied)
    rng = np.random.default_rng(check_number("seed", seed, low=0, whole=True))
    expand = _widening(d, d_new, rng)  # M
    if d_new % d and any((w == 0).any() for name, w in tree_items(params) if name.endswith("norm.weight")):
        raise ValueError("a norm weight is 0, so no isometry can carry its bias: widen by an integer factor")
    host = to_host(params)

    def read(weight, gain=None):
        """W diag(gain) R, with noise on the directions that M x never takes."""
        weight = weight if gain is None else weight * gain
        noise = config.init_std * rng.standard_normal((len(weight), d_new))
        unseen = noise - noise @ expand @ expand.T * (d / d_new)
        return weight @ expand.T * (d / d_new) + unseen

    def widen_norm(norm):
        """The wider norm and the gain that its readers must absorb (None where the norm can hold it)."""
        if not norm:
            return {}, None
        if d_new % d == 0:
            return {name: expand @ array for name, array in norm.items()}, None
        return {"weight": np.ones(d_new), "bias": expand @ (norm["bias"] / norm["weight"])}, norm["weight"]

    def widen_block(block):
        heads = np.arange(d_new) // head_dim % config.n_heads * head_dim + np.arange(d_new) % head_dim
        units = np.arange(ff_new) % config.d_ff
        attention, ffn = block["attention"], block["ffn"]
        attention_norm, gain = widen_norm(block.get("attention_norm"))
        wide = {
            name: {"weight": read(attention[name]["weight"][heads], gain)}
            for name in ("query", "key", "value")
        }
        wide["proj"] = {"weight": expand @ _share(attention["proj"]["weight"], heads)}
        ffn_norm, gain = widen_norm(block.get("ffn_norm"))
        up = read(ffn["up"]["weight"][units], gain)  # copied first: every copy has noise of its own
        tree = {
            "attention": wide,
            "ffn": {"up": {"weight": up}, "down": {"weight": expand @ _share(ffn["down"]["weight"], units)}},
        }
        return (
            tree | {"attention_norm": attention_norm, "ffn_norm": ffn_norm}
            if config.parametric_norm
            else tree
        )

    embedding = host["embedding"]["weight"]
    wide = {"embedding": {"weight": embedding @ expand.T}}
    wide |= {f"block_{i}": widen_block(host[f"block_{i}"]) for i in range(config.n_layers)}
    wide["norm"], gain = widen_norm(host["norm"])
    if tied:  # E Mᵀ reads every copy once, so the norm gives each its share
        wide["norm"] = {name: array * (d / d_new) for name, array in wide["norm"].items()}
    else:
        unembedding = embedding if config.tied else host["unembedding"]["weight"]
        wide["unembedding"] = {"weight": read(unembedding, gain)}
    xp = array_module(params["embedding"]["weight"])
    return tree_map(lambda array: xp.asarray(array, embedding.dtype), wide), new


def _widening(d, d_new, rng):
    """M (d_new, d) with MᵀM = (d_new/d) I and M 1 = 1: repeated identities, or a random isometry."""
    if d_new % d == 0:
        return np.tile(np.eye(d), (d_new // d, 1))

    def basis(size, columns):  # orthonormal columns, the first along the vector of ones
        start = np.concatenate([np.ones((size, 1)), rng.standard_normal((size, columns - 1))], axis=1)
        q, r = np.linalg.qr(start)
        return q * np.sign(r[0, 0])

    return math.sqrt(d_new / d) * basis(d_new, d) @ basis(d, d).T


def _share(weight, source):
    """Columns of weight (d_out, n) copied by `source`, each divided by how often it was copied."""
    return weight[:, source] / np.bincount(source)[source]
