"""Two models in one: parameter tokens of a text model and of an image model side by side, and new ones to align them.

    K = [K_text; K_image; K_new]     V = [V_text; V_image; V_new]         in every layer, on one width
    x = [patches(image) @ weightᵀ + position; embedding[ids]]             the picture is a prefix of its caption
    logits = norm(x at the characters) @ embeddingᵀ                       causal over all: pictures see no characters

The trap is Θ's norm: GeLU(τ a / |a|) with a = [a_text, a_image] divides the text's scores by a length in which the
image's have a share, and adds the image's values. Neither parent is what it was. The way out is `routed`: a mask, by
which characters read text and new tokens, and patches image and new ones. A score of zero leaves norm and output
alone, so with tau held both parents are unchanged at birth, new tokens with zero keys included. `text_part` and
`image_part` take such a model apart again. Source: paper, section 5, a hope without an experiment.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .backend import array_module, check_number, tree_from_items, tree_items, tree_map
from .growth import grow
from .model import PARTS, TokenformerConfig, block_backward, block_forward, check_params, part_of
from .ops import (
    check_like,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_backward,
    embedding_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
)
from .vision import check_image_params, patch_embedding_backward, patch_embedding_forward

SHARED = (
    "n_layers",
    "d_model",
    "n_heads",
    "ffn_blocks",
    "theta",
    "rotary_fraction",
    "approximate",
    "norm_eps",
)
GROUPS = ("text", "image", "new")


@dataclass(frozen=True)
class MergedConfig:
    """Shape of a merged model: all tokens together (body), and how many of them are whose.

    Every layer's rows are the text parent's tokens, the image parent's, then new ones. image: vocab_size classes,
    context patches. routed: characters do not read the image's tokens, patches do not read the text's.
    Raises ValueError for sizes that do not add up.
    """

    body: TokenformerConfig
    text: TokenformerConfig
    image: TokenformerConfig
    routed: bool = True

    def __post_init__(self):
        _check_parents(self.text, self.image)
        for part in PARTS:
            if (new := self.tokens(part, "new")) < 0:
                raise ValueError(
                    f"{part}: the parents' tokens are {-new} more than the body's: its sizes must hold both"
                )

    def tokens(self, part, group):
        """How many tokens of a layer of this part belong to "text", to "image" or are "new"."""
        if group == "new":
            return self.body.tokens(part) - self.text.tokens(part) - self.image.tokens(part)
        return {"text": self.text, "image": self.image}[group].tokens(part)

    def owners(self, part):
        """The group of every token of a layer of this part, as indices into GROUPS: integers (n,)."""
        return np.repeat(np.arange(3), [self.tokens(part, group) for group in GROUPS])


def _check_parents(text, image):
    for name, config in (("text", text), ("image", image)):
        if not isinstance(config, TokenformerConfig):
            raise TypeError(f"the {name} config is a {type(config).__name__}: only Tokenformers merge")
        if not config.tied or config.parametric_norm:
            raise ValueError(
                f"the {name} config has tied={config.tied}, parametric_norm={config.parametric_norm}: merging takes "
                "True and False, one table a parent and no block norms to fight over"
            )
    for name in SHARED:
        mine, other = getattr(text, name), getattr(image, name)
        if mine != other:
            raise ValueError(
                f"{name} is {mine} of the text model and {other} of the image model: make them equal"
            )


# ----------------------------------------------------------------------------------- merging and parting


def merge_models(
    text, text_config, image, image_config, routed=True, tau="hold", attention_tokens=0, ffn_tokens=0, seed=0
):
    """A text model and an image classifier as one model; returns its params and MergedConfig.

    text: params of `init_params`, image: of `init_image_params`; the tree has image's "patch_embedding", "classes"
    (its table and last norm), and "body", an ordinary text model with all tokens. attention_tokens, ffn_tokens: new
    ones on top, with zero keys and random values (`growth.grow`). tau: "hold" keeps the parents', which must agree;
    "rescale" takes √n of the parents' tokens together. routed needs "hold", and then text and images alone have
    the logits that they had. Not routed, no choice of tau keeps them. Raises ValueError for parents that do not fit.
    """
    check_params(text, text_config)
    check_image_params(image, image_config)
    _check_parents(text_config, image_config)
    if tau not in ("hold", "rescale"):
        raise ValueError(f"tau is {tau!r}: choose 'hold' or 'rescale'")
    taus = {part: text_config.tau(part) for part in PARTS}
    if tau == "hold" and taus != {part: image_config.tau(part) for part in PARTS}:
        raise ValueError(
            "the parents have different taus: train them with as many tokens, or pass tau='rescale'"
        )
    if routed and (tau != "hold" or text_config.theta == "softmax"):
        raise ValueError(
            "routed=True keeps both parents: it needs tau='hold', and a theta that gives a zero score 0"
        )
    sizes = {part: text_config.tokens(part) + image_config.tokens(part) for part in PARTS}
    taus = {f"{part}_tau": taus[part] if tau == "hold" else math.sqrt(sizes[part]) for part in PARTS}
    sizes = {f"{part}_tokens": size for part, size in sizes.items()}
    body_config = replace(text_config, **sizes, **taus, held_tau=None)
    pictures = dict(tree_items(image["body"]))

    def both(name, array):
        if part_of(name) is None:
            return array.copy()
        return array_module(text=array, image=pictures[name]).concatenate([array, pictures[name]])

    body = tree_from_items((name, both(name, array)) for name, array in tree_items(text))
    more = {"attention": attention_tokens, "proj": attention_tokens, "ffn": ffn_tokens}
    more = {
        f"{part}_tokens": body_config.tokens(part) + check_number(f"{part}_tokens", n, low=0, whole=True)
        for part, n in more.items()
    }
    body, body_config = grow(body, body_config, **more, seed=seed)
    copies = tree_map(lambda array: array.copy(), image)
    params = {
        "patch_embedding": copies["patch_embedding"],
        "classes": {name: copies["body"][name] for name in ("embedding", "norm")},
        "body": body,
    }
    return params, MergedConfig(body_config, text_config, image_config, routed)


def text_part(params, config, new=True):
    """The model that reads text alone, as an ordinary one: params and TokenformerConfig.

    What a text without a picture computes in the merged model, this computes: routed, it has the text's tokens and
    the new ones; else all of them. new=False leaves the new tokens out: what is left of the parent.
    """
    groups = ("text",) if config.routed else ("text", "image")
    return _part(params["body"], config, (*groups, "new") if new else groups, config.text)


def image_part(params, config, new=True):
    """The classifier that sees pictures alone, as `vision` takes it with causal=True; new: as `text_part`."""
    groups = ("image",) if config.routed else ("text", "image")
    body, part = _part(params["body"], config, (*groups, "new") if new else groups, config.image)
    return {"patch_embedding": params["patch_embedding"], "body": body | params["classes"]}, part


def _part(body, config, groups, parent):
    """The rows of the tokens of some groups; sizes and taus to match, the rest as the parent had it."""

    def rows(name, array):
        part = part_of(name)
        return array if part is None else array[_indices(array, config, part, groups)]

    kept = {f"{part}_tokens": sum(config.tokens(part, group) for group in groups) for part in PARTS}
    taus = {f"{part}_tau": config.body.tau(part) for part in PARTS}
    tree = tree_from_items((name, rows(name, array)) for name, array in tree_items(body))
    return tree, replace(parent, **kept, **taus, held_tau=None)


def _indices(array, config, part, groups):
    chosen = [GROUPS.index(group) for group in groups]
    return array_module(array).asarray(np.flatnonzero(np.isin(config.owners(part), chosen)))


def take_new(tree, config):
    """The rows of the new tokens alone: a tree of the layers with nothing else, to be trained alone."""
    rows = (
        (name, array[_indices(array, config, part_of(name), ("new",))])
        for name, array in tree_items(tree["body"])
        if part_of(name)
    )
    return tree_from_items(rows)


def put_new(params, new, config):
    """The params with these rows for new tokens; all other arrays are the same ones, or have the same bits."""
    rows = dict(tree_items(new))

    def swap(name, array):
        if name not in rows:
            return array
        old = len(array) - config.tokens(part_of(name), "new")
        return array_module(array, rows[name]).concatenate([array[:old], rows[name]])

    return params | {"body": tree_from_items((name, swap(name, a)) for name, a in tree_items(params["body"]))}


# -------------------------------------------------------------------------------------- pictures with words


class CaptionCache(NamedTuple):
    params: dict
    config: MergedConfig
    batch_shape: tuple
    patch_embedding: tuple
    embedding: tuple
    blocks: list
    norm: tuple
    unembedding: tuple


def check_merged_params(params, config):
    """Raise TypeError or ValueError unless params are a merged model of this config."""
    if not isinstance(config, MergedConfig):
        raise TypeError(f"config is a {type(config).__name__}: pass the MergedConfig of merge_models")
    if not isinstance(params, dict) or params.keys() != {"patch_embedding", "classes", "body"}:
        raise ValueError(
            "params must be {'patch_embedding', 'classes', 'body'}, as merge_models returns them"
        )
    check_params(params["body"], config.body)
    check_image_params(*image_part(params, config))


def caption_forward(params, images, ids, config):
    """Logits of the next character at every character of the captions, and the cache that the backward reads.

    images: (..., H, W) floats; ids: integers (..., T), with the same leading shape  ->  logits: (..., T, vocab_size)
    Raises ValueError where patches and characters together are longer than the body's context.
    """
    check_merged_params(params, config)
    body, patches = params["body"], config.image.context
    xp = array_module(images=images, ids=ids, embedding=body["embedding"]["weight"])
    if ids.ndim < 1 or ids.size == 0 or images.shape[:-2] != ids.shape[:-1]:
        raise ValueError(
            f"images have shape {images.shape} and ids {ids.shape}: pass (..., H, W) and (..., T), T of at least 1"
        )
    length = patches + ids.shape[-1]
    if length > config.body.context:
        raise ValueError(
            f"{patches} patches and {ids.shape[-1]} characters are more than the context of {config.body.context}"
        )
    picture, patch_embedding = patch_embedding_forward(images, **params["patch_embedding"])
    words, embedding = embedding_forward(ids, body["embedding"]["weight"])
    x = xp.concatenate([picture, words], axis=-2)  # (..., P, d) and (..., T, d) -> (..., P + T, d)
    shape = (math.prod(ids.shape[:-1]), length)
    x = x.reshape(-1, config.body.d_model)
    routes = masks(config, ids.shape[-1], shape[0], xp)
    blocks = []
    for i in range(config.body.n_layers):
        x, block = block_forward(x, _routed(body[f"block_{i}"], routes), config.body, shape)
        blocks.append(block)
    x = x.reshape(*shape, -1)[:, patches:].reshape(-1, config.body.d_model)  # the characters' rows
    x, norm = layer_norm_forward(x, **body["norm"], eps=config.body.norm_eps)
    logits, unembedding = linear_forward(x, body["embedding"]["weight"])
    cache = CaptionCache(params, config, ids.shape, patch_embedding, embedding, blocks, norm, unembedding)
    return logits.reshape(*ids.shape, config.body.vocab_size), cache


def caption_backward(dlogits, cache):
    """The tree of gradients, with the names and shapes of the parameters; those of "classes", not used, are zero."""
    params, config, grads = cache.params, cache.config.body, {}
    body, patches = params["body"], cache.config.image.context
    check_like("dlogits", dlogits, (*cache.batch_shape, config.vocab_size), body["embedding"]["weight"].dtype)
    xp = array_module(dlogits=dlogits)
    dx, dunembedding = linear_backward(dlogits.reshape(-1, config.vocab_size), cache.unembedding)
    dx, dweight, dbias = layer_norm_backward(dx, cache.norm)
    grads["norm"] = {"weight": dweight, "bias": dbias}
    *_, length = cache.batch_shape
    dx = dx.reshape(-1, length, config.d_model)
    shape = (len(dx), patches + length)
    dpicture = xp.zeros((len(dx), patches, config.d_model), dx.dtype)  # no logits at the patches
    dx = xp.concatenate([dpicture, dx], axis=1).reshape(-1, config.d_model)
    for i in reversed(range(config.n_layers)):
        dx, grads[f"block_{i}"] = block_backward(dx, cache.blocks[i], config, shape)
    dx = dx.reshape(*cache.batch_shape[:-1], shape[1], config.d_model)
    dembedding = embedding_backward(dx[..., patches:, :], cache.embedding)
    grads["embedding"] = {"weight": dembedding + dunembedding}
    _, dweight, dposition = patch_embedding_backward(dx[..., :patches, :], cache.patch_embedding)
    return {
        "patch_embedding": {"weight": dweight, "position": dposition},
        "classes": tree_map(xp.zeros_like, params["classes"]),
        "body": {name: grads[name] for name in body},
    }


def masks(config, length, batch, xp=np):
    """{part: which token each row may read} for pictures and so many characters each; None where all read all.

    bool (B (P + T), n): the first P rows of every sequence are patches and read image and new tokens, the other T
    are characters and read text and new tokens.
    """
    if not config.routed:
        return None
    is_character = np.tile(np.arange(config.image.context + length) >= config.image.context, batch)
    return {
        part: xp.asarray(config.owners(part) != np.where(is_character, 1, 0)[:, None])  # not the other's
        for part in PARTS
    }


def _routed(block, routes):
    """A block with the masks beside its keys and values, where `model.layer_forward` finds them."""
    if routes is None:
        return block

    def add(tree, part):
        if "key" in tree and "value" in tree and not isinstance(tree["key"], dict):
            return tree | {"mask": routes[part]}
        return {name: add(branch, "proj" if name == "proj" else part) for name, branch in tree.items()}

    return {name: add(tree, name) for name, tree in block.items()}


def caption_loss_and_grads(params, images, inputs, targets, config, mask=None):
    """Mean cross-entropy of the captions' characters in nats, and the tree of its gradients."""
    logits, cache = caption_forward(params, images, inputs, config)
    loss, loss_cache = cross_entropy_forward(logits, targets, mask)
    return loss, caption_backward(cross_entropy_backward(1.0, loss_cache), cache)


def evaluate_captions(params, images, inputs, targets, config, mask=None):
    """Mean loss in nats per character, and the share of pictures whose whole caption greedy decoding would get right.

    Decoding gets a caption right just if every character is the likeliest after the right ones before it, so one
    pass over the right captions says it.
    """
    logits, _ = caption_forward(params, images, inputs, config)
    loss, _ = cross_entropy_forward(logits, targets, mask)
    right = logits.argmax(axis=-1) == targets
    if mask is not None:
        right = right | ~mask
    return float(loss), float(right.all(axis=-1).mean())


def caption_images(params, images, n_new, config, start):
    """Greedy captions of images (n, H, W): integers (n, n_new) on the device of the params; start: the first id."""
    xp = array_module(images=images)
    n_new = check_number("n_new", n_new, low=1, whole=True)
    ids = xp.full((len(images), 1), check_number("start", start, low=0, whole=True))
    for _ in range(n_new):
        logits, _ = caption_forward(params, images, ids, config)
        ids = xp.concatenate([ids, logits[:, -1:].argmax(axis=-1)], axis=1)
    return ids[:, 1:]


def spell(words, tokenizer, start="\n", end="\n"):
    """Words as captions to learn: inputs (n, T), targets (n, T) and a mask (n, T) that is False after the end.

    Every word is read after `start` and closed by `end`, and padded with `end` to the longest.

    >>> from minitf import CharTokenizer
    >>> inputs, targets, mask = spell(["no", "yes"], CharTokenizer("\\nenosy"))
    >>> inputs.tolist(), targets.tolist(), mask.sum(axis=1).tolist()
    ([[0, 2, 3, 0], [0, 5, 1, 4]], [[2, 3, 0, 0], [5, 1, 4, 0]], [3, 4])
    """
    longest = max(map(len, words))
    rows = np.array([tokenizer.encode(start + word + end * (longest + 1 - len(word))) for word in words])
    mask = np.arange(longest + 1) <= np.array([[len(word)] for word in words])
    return rows[:, :-1], rows[:, 1:], mask
