"""Exercises of lesson 10: cut an image into patches, embed them, and the backward of that."""

import numpy as np

from .. import vision
from .core import Exercise

# ----------------------------------------------------------------------------------------- cut_patches


def cut_patches(images, size):
    return vision.cut_patches(images, size)


def _grid(images, size):
    """(..., H / size, size, W / size, size): patch row, pixel row, patch column, pixel column."""
    *batch, height, width = images.shape
    return images.reshape(*batch, height // size, size, width // size, size)


def _cut(*order):
    """cut_patches with the four axes of the grid in another order, the last two of them the pixels of a patch."""

    def wrong(images, size):
        grid = _grid(images, size)
        batch = list(range(grid.ndim - 4))
        grid = grid.transpose(batch + [len(batch) + axis for axis in order])
        count = images.shape[-2] * images.shape[-1] // size**2
        return grid.reshape(*images.shape[:-2], count, size**2)

    return wrong


def images_and_sizes(rng):
    for shape, size in (((2, 4, 6), 2), ((3, 9, 6), 3), ((4, 8), 2), ((2, 3, 6, 4), 2)):
        yield rng.random(shape), size


CUT_PATCHES = Exercise(
    reference=cut_patches,
    sample=images_and_sizes,
    mistakes={
        "are the axes still in the order of the grid? Swap the two in the middle": _cut(0, 1, 2, 3),
        "do the patches come column by column? The first row of patches comes first": _cut(2, 0, 1, 3),
        "are the pixels of a patch in columns? Read its rows": _cut(0, 2, 3, 1),
        "is the whole image transposed?": _cut(2, 0, 3, 1),
        "is every size-th pixel taken? The pixels of a patch are neighbors": _cut(1, 3, 0, 2),
        "is each patch a block of its own? Its pixels are one row, size * size long": (
            lambda images, size: _grid(images, size).swapaxes(-2, -3)
        ),
        "is it (size * size, P)? One row per patch": (
            lambda images, size: vision.cut_patches(images, size).swapaxes(-1, -2)
        ),
        "are the pixels averaged? Keep all of them": (
            lambda images, size: vision.cut_patches(images, size).mean(axis=-1)
        ),
    },
)

# -------------------------------------------------------------------------------------- embed_patches


def embed_patches(patches, weight, position):
    return patches @ weight.T + position


def patches_and_weights(rng):
    for batch, count, pixels, d in ((2, 3, 4, 5), (4, 2, 9, 3), (1, 6, 4, 2)):
        arrays = rng.random((batch, count, pixels)), rng.standard_normal((d, pixels))
        yield *arrays, rng.standard_normal((count, d))


EMBED_PATCHES = Exercise(
    reference=embed_patches,
    sample=patches_and_weights,
    mistakes={
        "is the position missing?": lambda patches, weight, position: patches @ weight.T,
        "does only the position come out?": (
            lambda patches, weight, position: 0 * (patches @ weight.T) + position
        ),
        "is it the first position for all patches? Each place has its own": (
            lambda patches, weight, position: patches @ weight.T + position[0]
        ),
        "are the positions in reverse?": (
            lambda patches, weight, position: patches @ weight.T + position[::-1]
        ),
        "is the position taken away? Add it": lambda patches, weight, position: patches @ weight.T - position,
        "is the position a factor? Add it": lambda patches, weight, position: patches @ weight.T * position,
        "are the patches averaged already? That comes at the end": (
            lambda patches, weight, position: (patches @ weight.T + position).mean(axis=1)
        ),
        "is weight transposed? It is (d, pixels)": lambda patches, weight, position: patches @ weight + position,
    },
)  # fmt: skip

# ----------------------------------------------------------------------------- embed_patches_backward


def embed_patches_backward(dout, patches):
    rows = dout.reshape(-1, dout.shape[-1])
    return rows.T @ patches.reshape(-1, patches.shape[-1]), dout.sum(axis=0)


def gradients_and_patches(rng):
    for batch, count, pixels, d in ((2, 3, 4, 5), (4, 2, 9, 3), (1, 6, 4, 2)):
        yield rng.standard_normal((batch, count, d)), rng.random((batch, count, pixels))


def _backward(dweight=None, dposition=None):
    """embed_patches_backward with another formula for one of its two results."""

    def wrong(dout, patches):
        right = embed_patches_backward(dout, patches)
        return (
            dweight(dout, patches) if dweight else right[0],
            dposition(dout, patches) if dposition else right[1],
        )

    return wrong


EMBED_PATCHES_BACKWARD = Exercise(
    reference=embed_patches_backward,
    sample=gradients_and_patches,
    outputs=("dweight", "dposition"),
    mistakes={
        "is dweight the gradient of one image only? Add up all of them": _backward(
            lambda dout, patches: dout[0].T @ patches[0]
        ),
        "is dweight a mean? A sum has the slope 1 for each term": _backward(
            lambda dout, patches: embed_patches_backward(dout, patches)[0] / len(dout)
        ),
        "is dweight transposed? It has the shape of weight, (d, pixels)": _backward(
            lambda dout, patches: embed_patches_backward(dout, patches)[0].T
        ),
        "is there a dweight for each image? There is one weight: add up": _backward(
            lambda dout, patches: dout.swapaxes(1, 2) @ patches
        ),
        "is dposition a mean over the images? Every image adds its own": _backward(
            dposition=lambda dout, patches: dout.mean(axis=0)
        ),
        "is dposition one for all places? Each place has its own row": _backward(
            dposition=lambda dout, patches: np.broadcast_to(dout.sum(axis=(0, 1)), dout.shape[1:]).copy()
        ),
        "is dposition summed over the patches? Sum over the images": _backward(
            dposition=lambda dout, patches: dout.sum(axis=1)
        ),
        "is dposition of the first image only?": _backward(dposition=lambda dout, patches: dout[0]),
        "are the two in the other order? dweight comes first": (
            lambda dout, patches: embed_patches_backward(dout, patches)[::-1]
        ),
    },
)

EXERCISES = {
    "cut_patches": CUT_PATCHES,
    "embed_patches": EMBED_PATCHES,
    "embed_patches_backward": EMBED_PATCHES_BACKWARD,
}
