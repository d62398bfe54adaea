"""Parameter-efficient transfer: a trained model stays as it is, and a small tree beside it learns.

    new tokens   key = [old key; new key], value = [old value; new value]     (TokenFormer, its future work)
    LoRA         W = old W + B A, with few rows in A                          (Hu et al., 2022, arXiv 2106.09685)

The parameters are two trees, the old one and the small one. `join` and `merge_lora` make one model of them; gradients
are computed for the small tree alone, and the optimizer, which keeps two numbers for each number that it trains, sees
no other. What was trained comes off again, and the old model is there, bit for bit.
"""

from dataclasses import fields

import numpy as np

from .backend import array_module, check_number, float_module, tree_from_items, tree_items, tree_map
from .growth import grow
from .model import PARTS, TokenformerConfig, backward, check_params, forward, part_of
from .ops import cross_entropy_backward, cross_entropy_forward
from .pattention import theta_backward

# ------------------------------------------------------------------------------------------ new tokens


def append_tokens(
    old, config, attention_tokens=0, ffn_tokens=0, key="zero", value="normal", tau="hold", **options
):
    """New parameter tokens for every layer: returns their tree and the config of the joined model.

    attention_tokens, ffn_tokens: how many to append to each Pattention of that part (its output projection counts as
    attention); 0 gives arrays without rows. key, value, tau, and options seed, key_std, value_std: as for `grow`.
    tau="hold" with zero keys: the joined model is the old one at birth. "rescale": √n of the joined layer; the old
    config keeps the old tau, so taking the tokens off restores the old model in both cases.
    Raises TypeError for a Transformer, ValueError for values that would change old tokens and as `grow` does.
    """
    if not isinstance(config, TokenformerConfig):
        raise TypeError("append_tokens adds tokens to a Tokenformer: for a Transformer, use lora_init")
    for name, count in (("attention_tokens", attention_tokens), ("ffn_tokens", ffn_tokens)):
        check_number(name, count, low=0, whole=True)
    if value not in ("normal", "zero"):
        raise ValueError(f"value is {value!r}: choose 'normal' or 'zero', the old tokens stay as they are")
    sizes = {
        "attention_tokens": config.attention_tokens + attention_tokens,
        "ffn_tokens": config.ffn_tokens + ffn_tokens,
        "proj_tokens": config.proj_tokens and config.proj_tokens + attention_tokens,
    }
    grown, joined = grow(old, config, **sizes, key=key, value=value, tau=tau, **options)
    rows = ((name, array[config.tokens(part_of(name)) :].copy()) for name, array in _tokens(grown))
    return tree_from_items(rows), joined


def join(old, new):
    """The parameters of the joined model: new rows below the old ones, and everything else of the old tree.

    Raises ValueError where the trees do not belong together.

    >>> old = {"norm": np.ones(1), "ffn": {"key": np.zeros((2, 1)), "value": np.zeros((2, 1))}}
    >>> join(old, {"ffn": {"key": np.ones((1, 1)), "value": np.ones((1, 1))}})["ffn"]["key"].ravel()
    array([0., 0., 1.])
    """
    rows, names = dict(tree_items(new)), {name for name, _ in _tokens(old)}
    if rows.keys() != names:
        odd = min(rows.keys() ^ names)
        raise ValueError(f"new and old tokens differ in {odd}: did append_tokens make them for this model?")

    def stack(name, array):
        if name not in rows:
            return array
        xp = float_module(old=array, new=rows[name])
        if rows[name].ndim != 2 or rows[name].shape[1] != array.shape[1]:
            raise ValueError(f"new {name} has shape {rows[name].shape}, and the old one {array.shape}")
        return xp.concatenate([array, rows[name]])

    return tree_from_items((name, stack(name, array)) for name, array in tree_items(old))


def remove_tokens(params, config, old_config):
    """Take appended tokens off again: returns the old params, as copies, and old_config.

    The old rows are those that `join` put in, so they are the old model's to the last bit if only the new tree was
    trained. Raises ValueError where the configs differ in more than tokens and tau, or old_config is the larger one.
    """
    check_params(params, config)
    changes = {
        "attention_tokens",
        "ffn_tokens",
        "proj_tokens",
        "held_tau",
        *(f"{part}_tau" for part in PARTS),
    }
    same = type(config) is type(old_config) is TokenformerConfig and all(
        getattr(config, each.name) == getattr(old_config, each.name)
        for each in fields(config)
        if each.name not in changes
    )
    if not same or any(config.tokens(part) < old_config.tokens(part) for part in PARTS):
        raise ValueError(
            "old_config is not the config of a smaller model of this kind: pass the one that grew"
        )

    def rows(name, array):
        part = part_of(name)
        return (array if part is None else array[: old_config.tokens(part)]).copy()

    return tree_from_items((name, rows(name, array)) for name, array in tree_items(params)), old_config


def new_tokens_loss_and_grads(new, old, ids, targets, config, mask=None):
    """Mean cross-entropy of the joined model in nats, and the gradients of the new tokens alone.

    new, config: as from `append_tokens`; ids, targets, mask: as for `loss_and_grads`. Costs about two thirds of its
    FLOPs: the gradients of old tokens are not computed.
    """
    return _loss_and_grads(join(old, new), new, ids, targets, config, mask, new_rows_backward)


def new_rows_backward(dout, cache, layer):
    """dx of a whole Pattention, and the gradients of its last rows, as many as `layer` has: {"key", "value"}."""
    dx, factors = _factored_backward(dout, cache)
    first = len(cache.key) - len(layer["key"])
    return dx, {name: left[:, first:].T @ right for name, (left, right) in factors.items()}


# ------------------------------------------------------------------------------------------------ LoRA


def lora_init(params, rank, seed=0):
    """Low-rank additions B A to every matrix of the layers: keys and values, or a Transformer's weights.

    The tree has {"a": (rank, columns), "b": (rows, rank)} in place of each matrix. A is N(0, 1/columns), B is zero: at
    birth they add nothing. paper: B A is scaled by α / rank / here: by 1, since learning rates are tuned.
    Raises ValueError for a rank under 1.
    """
    check_number("rank", rank, low=1, whole=True)
    rng = np.random.default_rng(check_number("seed", seed, low=0, whole=True))

    def pair(matrix):
        rows, columns = matrix.shape
        xp = array_module(matrix)
        a = rng.standard_normal((rank, columns)) / np.sqrt(columns)
        return {"a": xp.asarray(a, matrix.dtype), "b": xp.zeros((rows, rank), matrix.dtype)}

    return tree_from_items((name, pair(matrix)) for name, matrix in _matrices(params))


def merge_lora(params, lora):
    """The parameters with B A added to each matrix: an ordinary model of the old config. The old params are untouched.

    >>> params = {"block_0": {"ffn": {"key": np.zeros((2, 2))}}}
    >>> lora = {"block_0": {"ffn": {"key": {"a": np.array([[1.0, 2.0]]), "b": np.array([[1.0], [3.0]])}}}}
    >>> merge_lora(params, lora)["block_0"]["ffn"]["key"]
    array([[1., 2.],
           [3., 6.]])
    """
    factors = dict(tree_items(lora))
    names = {f"{name}.{letter}" for name, _ in _matrices(params) for letter in "ab"}
    if factors.keys() != names:
        odd = min(factors.keys() ^ names)
        raise ValueError(f"lora and params differ in {odd}: did lora_init make it for this model?")

    def add(name, matrix):
        if f"{name}.a" not in factors:
            return matrix
        a, b = factors[f"{name}.a"], factors[f"{name}.b"]
        float_module(params=matrix, a=a, b=b)
        if (
            a.ndim != 2
            or b.ndim != 2
            or (len(b), len(a), a.shape[1]) != (len(matrix), b.shape[1], matrix.shape[1])
        ):
            raise ValueError(
                f"{name} has shape {matrix.shape}, which b {b.shape} and a {a.shape} do not multiply to"
            )
        return matrix + b @ a

    return tree_from_items((name, add(name, array)) for name, array in tree_items(params))


def lora_loss_and_grads(lora, params, ids, targets, config, mask=None):
    """Mean cross-entropy of the merged model in nats, and the gradients of A and B alone.

    lora: as from `lora_init`; ids, targets, mask: as for `loss_and_grads`, and two thirds of its FLOPs.
    """
    return _loss_and_grads(merge_lora(params, lora), lora, ids, targets, config, mask, low_rank_backward)


def low_rank_backward(dout, cache, layer):
    """dx of a layer with merged matrices, and for each the gradients of its factors, {"a", "b"}.

    With dW = LᵀR:  dB = dW Aᵀ = Lᵀ(R Aᵀ)  and  dA = Bᵀ dW = (L B)ᵀR, so dW itself is never there.
    """
    dx, factors = _factored_backward(dout, cache)
    grads = {}
    for name, (left, right) in factors.items():
        a, b = layer[name]["a"], layer[name]["b"]
        grads[name] = {"a": (left @ b).T @ right, "b": left.T @ (right @ a.T)}
    return dx, grads


# ------------------------------------------------------------------------------------------ what they share


def _loss_and_grads(params, small, ids, targets, config, mask, of_layer):
    """The loss of the whole model, and the gradients of the small tree; of_layer(dout, cache, layer of that tree)."""
    if getattr(config, "ffn_top_k", None) is not None:
        raise ValueError(
            "the config has ffn_top_k: train new tokens or LoRA of a model that uses all its tokens"
        )
    logits, cache = forward(params, ids, config)
    loss, loss_cache = cross_entropy_forward(logits, targets, mask)
    blocks = [block._replace(params=small[f"block_{i}"]) for i, block in enumerate(cache.blocks)]
    grads = backward(cross_entropy_backward(1.0, loss_cache), cache._replace(blocks=blocks), of_layer)
    return loss, tree_map(lambda _, grad: grad, small, {name: grads[name] for name in small})


def _factored_backward(dout, cache):
    """dx, and for each matrix of a layer the factors (L, R) of its gradient LᵀR. dout: (rows, d), as in `model`."""
    if hasattr(cache, "weight"):
        return dout @ cache.weight, {"weight": (dout, cache.x)}
    dscores = theta_backward(dout @ cache.value.T, cache.theta)
    return dscores @ cache.key, {"key": (dscores, cache.x), "value": (cache.weights, dout)}


def _tokens(params):
    return ((name, array) for name, array in tree_items(params) if part_of(name) is not None)


def _matrices(params):
    """The matrices of the layers: what `cost.count_layer_parameters` counts."""
    for name, array in tree_items(params):
        if name.startswith("block_") and "_norm." not in name:
            yield name, array
