"""Wrong answers to the exercises of lesson 10, each with a word that must be in what the check says."""

import numpy as np


def cut(images, size):
    *batch, height, width = images.shape
    grid = images.reshape(*batch, height // size, size, width // size, size)
    return grid.swapaxes(-2, -3).reshape(*batch, -1, size * size)


def cut_one_image(images, size):
    height, width = images.shape
    return cut(images.reshape(height, width), size)


def cut_squares_only(images, size):
    count = images.shape[-1] // size
    grid = images.reshape(*images.shape[:-2], count, size, count, size)
    return grid.swapaxes(-2, -3).reshape(*images.shape[:-2], count * count, size * size)


def cut_first_axes(images, size):
    height, width = images.shape[-2:]
    grid = images.reshape(-1, height // size, size, width // size, size).swapaxes(1, 2)
    return grid.reshape(*images.shape[:-2], -1, size * size)


def cut_by_a_loop_in_float64(images, size):
    out = np.zeros(cut(images, size).shape)
    out[:] = cut(images, size)
    return out


def cut_in_place(images, size):
    images *= 16
    return cut(images, size) / 16


def embed_by_a_loop_over_images(patches, weight, position):
    out = np.zeros((*patches.shape[:2], len(weight)))
    for i, image in enumerate(patches):
        out[i] = image @ weight.T + position
    return out


def embed_in_place(patches, weight, position):
    position += patches[0] @ weight.T
    return patches @ weight.T + position


def backward_in_place(dout, patches):
    dout *= 2
    return np.einsum("bpk,bpq->kq", dout, patches) / 2, dout.sum(axis=0) / 2


def dweight(dout, patches):
    return np.einsum("bpk,bpq->kq", dout, patches)


WRONG = {
    "cut_patches": [
        (lambda images, size: images.reshape(*images.shape[:-2], -1, size * size), "wrong values"),
        (lambda images, size: np.moveaxis(cut(images, size), -1, -2), "One row per patch"),
        (lambda images, size: cut(images.swapaxes(-1, -2), size), "transposed"),
        (lambda images, size: cut(images, size)[..., ::-1], "wrong values"),
        (lambda images, size: cut(images, size)[..., ::-1, :], "wrong values"),
        (lambda images, size: cut(images, size).sum(axis=-1), "shape"),
        (lambda images, size: cut(images, size).ravel(), "shape"),
        (lambda images, size: list(cut(images, size)), "list"),
        (cut_one_image, "raises"),
        (cut_squares_only, "raises"),
        (cut_first_axes, "wrong values"),
        (cut_by_a_loop_in_float64, "float64"),
        (cut_in_place, "in place"),
    ],
    "embed_patches": [
        (lambda patches, weight, position: np.matmul(patches, weight.T), "position missing"),
        (lambda patches, weight, position: patches @ weight.T + position.sum(axis=0), "wrong values"),
        (lambda patches, weight, position: patches @ weight.T + position.mean(axis=0), "wrong values"),
        (lambda patches, weight, position: patches @ weight.T + position[0], "its own"),
        (lambda patches, weight, position: (patches @ weight.T) * position, "a factor"),
        (lambda patches, weight, position: patches @ weight.T + position.T, "raises"),
        (lambda patches, weight, position: np.matmul(patches, weight) + position, "transposed"),
        (lambda patches, weight, position: -(patches @ weight.T + position), "sign"),
        (lambda patches, weight, position: patches[0] @ weight.T + position, "shape"),
        (embed_by_a_loop_over_images, "float64"),
        (embed_in_place, "wrong values"),
    ],
    "embed_patches_backward": [
        (lambda dout, patches: (dweight(dout, patches).T, dout.sum(axis=0)), "transposed"),
        (lambda dout, patches: (dweight(dout, patches) / len(dout), dout.sum(axis=0)), "a mean"),
        (lambda dout, patches: (dweight(dout, patches), dout.mean(axis=0)), "mean over the images"),
        (lambda dout, patches: (dweight(dout, patches), dout.sum(axis=1)), "over the images"),
        (lambda dout, patches: (dweight(dout, patches), dout.sum(axis=(0, 1))), "shape"),
        (lambda dout, patches: (dweight(dout, patches), dout), "shape"),
        (lambda dout, patches: (dout.sum(axis=0), dweight(dout, patches)), "dweight comes first"),
        (lambda dout, patches: dweight(dout, patches), "expected 2"),
        (lambda dout, patches: (-dweight(dout, patches), dout.sum(axis=0)), "sign"),
        (lambda dout, patches: (dweight(dout, patches), dout.sum(axis=0)[::-1]), "wrong values"),
        (backward_in_place, "in place"),
    ],
}
