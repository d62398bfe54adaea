"""Image classifiers from the blocks of `model`: patches in place of letters, classes in place of a vocabulary.

    x = patches(image) @ weightᵀ + position      a linear layer where the text model looks rows up
    x = block(x)                                 the same blocks; every patch sees every patch
    logits = mean over patches of norm(x) @ classesᵀ

The parameters are {"patch_embedding": {"weight", "position"}, "body": a tied text model's}: its vocabulary is the
classes, its context the patches, and its embedding is only read at the end. So everything that works on a text
model's parameters works on the body's, growth above all. Source: ViT (Dosovitskiy et al., 2021), with the mean
over patches of Beyer et al. (2022) in place of a class token; paper, table 2 (ImageNet).
"""

import math
from typing import NamedTuple

import numpy as np

from .backend import array_module, check_number, float_module, tree_map
from .model import block_backward, block_forward, check_params, init_params
from .ops import (
    check_ids,
    check_like,
    cross_entropy_backward,
    cross_entropy_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
)
from .train import TrainConfig, TrainingDiverged, TrainResult, config_at, descend, progress

# ---------------------------------------------------------------------------------------------- patches


def cut_patches(images, patch_size):
    """Images (..., H, W) as rows of pixels, patch by patch in reading order: (..., P, patch_size²).

    Raises ValueError where patch_size does not divide height and width.

    >>> cut_patches(np.arange(8.0).reshape(2, 4), patch_size=2)
    array([[0., 1., 4., 5.],
           [2., 3., 6., 7.]])
    """
    float_module(images=images)
    size = check_number("patch_size", patch_size, low=1, whole=True)
    if images.ndim < 2 or 0 in images.shape[-2:] or images.shape[-2] % size or images.shape[-1] % size:
        raise ValueError(
            f"patches of {size} x {size} pixels do not tile images of shape {images.shape} = (..., H, W)"
        )
    *batch_shape, height, width = images.shape
    grid = images.reshape(*batch_shape, height // size, size, width // size, size)
    return grid.swapaxes(-2, -3).reshape(*batch_shape, (height // size) * (width // size), size * size)


def join_patches(patches, shape):
    """What `cut_patches` took apart: (..., P, patch_size²) back to images of this shape (..., H, W)."""
    size = math.isqrt(patches.shape[-1])
    *batch_shape, height, width = shape
    grid = patches.reshape(*batch_shape, height // size, width // size, size, size)
    return grid.swapaxes(-2, -3).reshape(shape)


def overlap_patches(images, patch_size, margin):
    """Larger images whose patches, of patch_size + 2·margin pixels a side, overlap: each repeats a margin of its
    neighbors, black outside. (..., H, W) -> (..., H/patch_size · side, W/patch_size · side)

    A model that reads patches of that side then sees the strokes that cross from one patch to the next.

    >>> overlap_patches(np.array([[1.0, 2.0, 3.0]]), patch_size=1, margin=1)[1]
    array([0., 1., 2., 1., 2., 3., 2., 3., 0.])
    """
    cut_patches(images, patch_size)
    xp, margin = array_module(images), check_number("margin", margin, low=0, whole=True)
    *batch_shape, height, width = images.shape
    padded = xp.zeros((*batch_shape, height + 2 * margin, width + 2 * margin), images.dtype)
    padded[..., margin : margin + height, margin : margin + width] = images
    window = xp.arange(patch_size + 2 * margin)
    rows, columns = (
        (xp.arange(0, length, patch_size)[:, None] + window).reshape(-1) for length in (height, width)
    )
    return padded[..., rows[:, None], columns]


class PatchEmbeddingCache(NamedTuple):
    image_shape: tuple
    linear: tuple


def patch_embedding_forward(images, weight, position):
    """A linear layer on every patch, plus a learned vector for its place: patches @ weightᵀ + position.

    images: (..., H, W) floats   weight: (d, patch_size²)   position: (P, d), P patches in reading order
    -> (..., P, d). An embedding looks up rows; this is the same product with pixels in place of a one-hot row.
    Raises TypeError or ValueError where dtypes or shapes do not fit.

    >>> one = np.ones((1, 4))
    >>> patch_embedding_forward(np.arange(8.0).reshape(2, 4), one, position=np.array([[0.0], [100.0]]))[0]
    array([[ 10.],
           [118.]])
    """
    float_module(images=images, weight=weight, position=position)
    patches = cut_patches(images, _patch_size("weight", weight))
    check_like("position", position, (patches.shape[-2], weight.shape[0]))
    out, linear = linear_forward(patches, weight)
    return out + position, PatchEmbeddingCache(images.shape, linear)


def _patch_size(name, weight):
    """Side of the patches that a weight (d, patch_size²) embeds; raises TypeError or ValueError for another one."""
    float_module(**{name: weight})
    size = math.isqrt(weight.shape[-1]) if weight.ndim == 2 else 0
    if size == 0 or weight.shape[1] != size**2:
        raise ValueError(f"{name} has shape {weight.shape}: it must be (d, patch_size²)")
    return size


def patch_embedding_backward(dout, cache):
    """dimages, dweight, dposition."""
    dpatches, dweight = linear_backward(dout, cache.linear)
    dposition = dout.reshape(-1, *dout.shape[-2:]).sum(axis=0)
    return join_patches(dpatches, cache.image_shape), dweight, dposition


# ------------------------------------------------------------------------------------------------ model


def init_image_params(config, patch_size, seed=0, dtype=np.float32):
    """Random parameters of an image classifier: `init_params` for the body, N(0, init_std²) for the patches.

    config: a tied TokenformerConfig or TransformerConfig; vocab_size is the number of classes and context the
    number of patches (an 8 x 8 image in patches of 2: 16). Its rotary_fraction is not used.
    """
    _check_tied(config)
    size = check_number("patch_size", patch_size, low=1, whole=True)
    body = init_params(config, seed, dtype)
    rng = np.random.default_rng((seed, 1))

    def draw(*shape):
        return (config.init_std * rng.standard_normal(shape)).astype(dtype)

    patch_embedding = {
        "weight": draw(config.d_model, size**2),
        "position": draw(config.context, config.d_model),
    }
    return {"patch_embedding": patch_embedding, "body": body}


def check_image_params(params, config):
    """Raise TypeError or ValueError unless params are an image classifier of this config."""
    _check_tied(config)
    if not isinstance(params, dict) or params.keys() != {"patch_embedding", "body"}:
        raise ValueError("params must be {'patch_embedding', 'body'}, as init_image_params returns them")
    check_params(params["body"], config)
    embedding, dtype = params["patch_embedding"], params["body"]["embedding"]["weight"].dtype
    if not isinstance(embedding, dict) or embedding.keys() != {"weight", "position"}:
        raise ValueError("params patch_embedding must be {'weight', 'position'}")
    pixels = _patch_size("params weight", embedding["weight"]) ** 2
    check_like("params weight", embedding["weight"], (config.d_model, pixels), dtype)
    check_like("params position", embedding["position"], (config.context, config.d_model), dtype)


def _check_tied(config):
    if not getattr(config, "tied", True):
        raise ValueError(
            "config has tied=False: an image classifier has one table, of its classes; use tied=True"
        )


class ImageCache(NamedTuple):
    params: dict
    config: object
    batch_shape: tuple
    patch_embedding: tuple
    blocks: list
    norm: tuple
    classes: tuple
    causal: bool


def image_forward(params, images, config, causal=False):
    """Logits of the classes, and the cache that the backward reads.

    images: (..., H, W) floats, in the dtype of the params  ->  logits: (..., vocab_size)
    causal=True: a patch sees itself and those before it, and heads rotate, as a text model's (`merge`).
    """
    check_image_params(params, config)
    body = params["body"]
    x, patch_embedding = patch_embedding_forward(images, **params["patch_embedding"])
    if x.size == 0:
        raise ValueError(f"images have shape {images.shape}: pass at least one image")
    batch_shape = images.shape[:-2]
    shape = (math.prod(batch_shape), config.context)  # (B, P)
    x = x.reshape(-1, config.d_model)  # (..., P, d) -> (B·P, d)
    blocks = []
    for i in range(config.n_layers):
        x, block = block_forward(x, body[f"block_{i}"], config, shape, causal=causal)
        blocks.append(block)
    x, norm = layer_norm_forward(x, **body["norm"], eps=config.norm_eps)
    x = x.reshape(*shape, config.d_model).mean(axis=1)  # (B·P, d) -> (B, d)
    logits, classes = linear_forward(x, body["embedding"]["weight"])
    cache = ImageCache(params, config, batch_shape, patch_embedding, blocks, norm, classes, causal)
    return logits.reshape(*batch_shape, config.vocab_size), cache


def image_backward(dlogits, cache):
    """The tree of gradients, with the names and shapes of the parameters. dlogits: (..., vocab_size)."""
    config, body, grads = cache.config, cache.params["body"], {}
    check_like("dlogits", dlogits, (*cache.batch_shape, config.vocab_size), body["embedding"]["weight"].dtype)
    xp = array_module(dlogits=dlogits)
    dx, dclasses = linear_backward(dlogits.reshape(-1, config.vocab_size), cache.classes)
    shape = (len(dx), config.context, config.d_model)
    dx = xp.broadcast_to(dx[:, None] / config.context, shape)  # every patch has its share of the mean
    dx, dweight, dbias = layer_norm_backward(dx.reshape(-1, config.d_model), cache.norm)
    grads["norm"] = {"weight": dweight, "bias": dbias}
    for i in reversed(range(config.n_layers)):
        dx, grads[f"block_{i}"] = block_backward(dx, cache.blocks[i], config, shape[:2], cache.causal)
    grads["embedding"] = {"weight": dclasses}
    dx = dx.reshape(*cache.batch_shape, config.context, config.d_model)
    _, dweight, dposition = patch_embedding_backward(dx, cache.patch_embedding)
    return {
        "patch_embedding": {"weight": dweight, "position": dposition},
        "body": {name: grads[name] for name in body},
    }


def image_loss_and_grads(params, images, labels, config, causal=False):
    """Mean cross-entropy in nats per image, and the tree of its gradients. labels: integers (...)."""
    logits, cache = image_forward(params, images, config, causal)
    loss, loss_cache = cross_entropy_forward(logits, labels)
    return loss, image_backward(cross_entropy_backward(1.0, loss_cache), cache)


def evaluate_images(params, images, labels, config, causal=False):
    """Mean loss in nats per image, and accuracy: the share of images whose largest logit is the label's."""
    logits, _ = image_forward(params, images, config, causal)
    loss, _ = cross_entropy_forward(logits, labels)
    return float(loss), float((logits.argmax(axis=-1) == labels).mean())


# --------------------------------------------------------------------------------------------- training


def warp_images(images, rng, shift=0.0, turn=0.0, stretch=0.0, slant=0.0):
    """Every image (n, H, W) moved, turned, stretched and slanted a little, at random; black comes in from outside.

    A digit that leans is the same digit: training pictures that change are more pictures, and other people's. The
    limits: shift in pixels, turn in degrees, stretch of height and width by factors up to exp(stretch), slant in
    columns per row. A pixel between others has their bilinear mean.
    Raises TypeError or ValueError for images that are not (n, H, W), and for a limit below 0 or above the size of an
    image, 180, 1, 1.
    """
    xp = float_module(images=images)
    if images.ndim != 3:
        raise ValueError(f"images have shape {images.shape}: pass (n, H, W)")
    n, height, width = images.shape
    shift = check_number("shift", shift, low=0, high=max(height, width))
    turn = check_number("turn", turn, low=0, high=180)
    stretch, slant = check_number("stretch", stretch, low=0, high=1), check_number("slant", slant, 0, 1)
    draws = rng.uniform(-1, 1, (6, n, 1, 1))
    up, left = shift * draws[:2]
    tall, wide = np.exp(stretch * draws[2:4])
    angle, lean = math.radians(turn) * draws[4], slant * draws[5]
    y = np.arange(height)[:, None] - (height - 1) / 2  # from the center
    x = np.arange(width) - (width - 1) / 2
    # where the pixel (y, x) of the result lies in the image
    rows = np.cos(angle) * tall * y - np.sin(angle) * wide * x + up
    columns = (np.sin(angle) * tall + lean) * y + np.cos(angle) * wide * x + left
    return _between(images, xp.asarray(rows + (height - 1) / 2), xp.asarray(columns + (width - 1) / 2))


def _between(images, rows, columns):
    """Bilinear values of images (n, H, W) at fractional rows and columns (n, H, W), 0 outside."""
    xp, (n, height, width) = array_module(images), images.shape
    padded = xp.zeros((n, height + 2, width + 2), images.dtype)
    padded[:, 1:-1, 1:-1] = images
    rows, columns = xp.clip(rows + 1, 0, height + 1), xp.clip(columns + 1, 0, width + 1)
    top, left = xp.minimum(rows.astype(int), height), xp.minimum(columns.astype(int), width)
    down, right = (rows - top).astype(images.dtype), (columns - left).astype(images.dtype)
    image = xp.arange(n)[:, None, None]
    above, below = (
        padded[image, row, left] * (1 - right) + padded[image, row, left + 1] * right
        for row in (top, top + 1)
    )
    return above * (1 - down) + below * down


def train_image_model(params, config, images, labels, settings, heldout=None, augment=None, causal=False):
    """Train an image classifier; returns TrainResult. The params passed in are not changed.

    images: (n, H, W) and labels: (n,) on the device of the params; heldout: such a pair, whose loss and accuracy
    go into every line of the history. settings: a TrainConfig, as for `train_model`; batches depend on its seed
    and the step alone. augment(images, rng) -> images is what every batch goes through, `warp_images` say. causal:
    as in `image_forward`.
    Raises TrainingDiverged where the loss is not finite.
    """
    check_image_params(params, config)
    if not isinstance(settings, TrainConfig):
        raise TypeError(f"settings is a {type(settings).__name__}: pass a TrainConfig")
    if not (augment is None or callable(augment)):
        raise TypeError(f"augment is {augment!r}: pass a function of images and a random generator")
    xp = array_module(images=images, labels=labels)
    float_module(images=images)
    if images.ndim != 3 or len(images) == 0:
        raise ValueError(f"images have shape {images.shape}: pass (n, H, W), at least one")
    check_like("labels", labels, images.shape[:1])
    check_ids("labels", labels, config.vocab_size)
    params = tree_map(lambda p: p.copy(), params)

    def gradients(params, step):
        rng = np.random.default_rng((settings.seed, step))
        rows = xp.asarray(rng.integers(0, len(images), settings.batch_size))
        batch = images[rows] if augment is None else augment(images[rows], rng)
        return image_loss_and_grads(params, batch, labels[rows], config_at(step, config, settings), causal)

    losses, history = [], []
    steps = descend(params, gradients, settings)
    for step, loss, params, state in progress(steps, "training", total=settings.steps):  # noqa: B007
        step_config, lr = config_at(step, config, settings), settings.lr(step)
        losses.append(loss)
        done = step + 1
        if done % settings.eval_every == 0 or done == settings.steps:
            line = {"step": done, "lr": lr, "train_loss": float(sum(losses) / len(losses))}
            if not math.isfinite(line["train_loss"]):
                raise TrainingDiverged(
                    f"the loss became {line['train_loss']} by step {step}: lower peak_lr in the settings"
                )
            if heldout is not None:
                line["heldout_loss"], line["heldout_accuracy"] = evaluate_images(
                    params, *heldout, step_config, causal
                )
            history.append(line)
            losses = []
    return TrainResult(params, step_config, state, history)
