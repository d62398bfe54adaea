"""Image classifiers: patches, positions, what sees what, growth, training; gradients are tested elsewhere."""

from dataclasses import replace

import fake_cupy
import helpers
import numpy as np
import pytest

from minitf import attention, cost, growth, kernels, model, ops, vision
from minitf.backend import to_device, to_host, tree_items, tree_map
from minitf.train import TrainConfig, TrainingDiverged

both_models = pytest.mark.parametrize("config", helpers.IMAGE_CONFIGS.values(), ids=helpers.IMAGE_CONFIGS)


def small(name, dtype=np.float64):
    """params, images, labels and config of one of the small classifiers."""
    config = helpers.IMAGE_CONFIGS[name]
    images, labels = helpers.random_images(config, dtype=dtype)
    return helpers.random_image_params(config, dtype=dtype), images, labels, config


# ---------------------------------------------------------------------------------------------- patches


def test_patches_are_in_reading_order_and_so_are_their_pixels():
    image = np.arange(24.0).reshape(4, 6)
    patches = vision.cut_patches(image, 2)
    assert patches.tolist()[:4] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19]]
    loop = [image[i : i + 2, j : j + 2].ravel() for i in (0, 2) for j in (0, 2, 4)]
    assert np.array_equal(patches, loop)


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6), (2, 3, 6, 4)])
@pytest.mark.parametrize("size", [1, 2])
def test_joined_patches_are_the_images_again(shape, size):
    images = np.random.default_rng(0).random(shape)
    patches = vision.cut_patches(images, size)
    assert patches.shape == (*shape[:-2], 24 // size**2, size**2)
    assert np.array_equal(vision.join_patches(patches, shape), images)


def test_a_patch_with_one_white_pixel_looks_up_a_column_of_the_weight_as_an_embedding_does_a_row():
    weight = np.random.default_rng(0).standard_normal((5, 4))
    image = np.zeros((2, 4))
    image[0, 1] = image[1, 2] = 1  # pixel 1 of the first patch, pixel 2 of the second
    out, _ = vision.patch_embedding_forward(image, weight, np.zeros((2, 5)))
    assert np.array_equal(out, ops.embedding_forward(np.array([1, 2]), weight.T)[0])


# ------------------------------------------------------------------------------------- what sees what


def test_full_attention_is_causal_attention_for_the_last_token_and_other_for_the_first():
    query, key, value = np.random.default_rng(0).standard_normal((3, 2, 5, 8))
    full, _ = attention.full_attention_forward(query, key, value, 2)
    causal, _ = attention.causal_attention_forward(query, key, value, 2)
    assert helpers.relative_error(full[:, -1], causal[:, -1]) < 1e-14
    assert helpers.relative_error(full[:, 0], causal[:, 0]) > 0.1


def test_full_attention_knows_no_order():
    query, key, value = np.random.default_rng(0).standard_normal((3, 5, 8))
    order = [3, 0, 4, 1, 2]
    out, _ = attention.full_attention_forward(query, key, value, 2)
    shuffled, _ = attention.full_attention_forward(query[order], key[order], value[order], 2)
    assert helpers.relative_error(shuffled, out[order]) < 1e-14


@both_models
def test_only_the_position_tells_an_image_from_its_shuffled_patches(config):
    params = helpers.random_image_params(config)
    images, _ = helpers.random_images(config)
    patches = vision.cut_patches(images, 2)
    shuffled = vision.join_patches(patches[:, ::-1], images.shape)

    def change(params):
        before, after = (vision.image_forward(params, x, config)[0] for x in (images, shuffled))
        return helpers.relative_error(after, before)

    blind = params | {"patch_embedding": params["patch_embedding"] | {"position": np.zeros((6, 8))}}
    assert change(blind) < 1e-13
    assert change(params) > 0.01


@both_models
def test_the_first_patch_sees_the_last(config):
    x = np.random.default_rng(0).standard_normal((6, config.d_model))
    changed = x.copy()
    changed[-1, 0] += 1
    block = helpers.random_params(config)["block_0"]
    for causal, moves in ((False, True), (True, False)):
        before, after = (
            model.block_forward(a, block, config, (1, 6), causal=causal)[0] for a in (x, changed)
        )
        assert (np.abs(after[0] - before[0]).max() > 1e-4) == moves


@both_models
def test_images_may_have_any_leading_dimensions(config):
    params = helpers.random_image_params(config)
    images = np.random.default_rng(0).random((2, 3, 4, 6))
    logits, cache = vision.image_forward(params, images, config)
    alone, _ = vision.image_forward(params, images[1, 2], config)
    assert logits.shape == (2, 3, config.vocab_size)
    assert helpers.relative_error(alone, logits[1, 2]) < 1e-13
    grads = vision.image_backward(logits, cache)
    assert tree_map(np.shape, grads) == tree_map(np.shape, params)


def test_a_new_classifier_knows_nothing():
    for config in helpers.IMAGE_CONFIGS.values():
        images, labels = helpers.random_images(config, dtype=np.float32, batch=50)
        loss, _ = vision.evaluate_images(vision.init_image_params(config, 2), images, labels, config)
        assert loss == pytest.approx(np.log(config.vocab_size), rel=0.1)


@pytest.mark.parametrize("name", helpers.IMAGE_CONFIGS)
def test_single_precision_through_the_twins_gives_what_the_formulas_give(name):
    params, images, labels, config = small(name, np.float32)
    loss, grads = vision.image_loss_and_grads(params, images, labels, config)
    with kernels.resting():
        expected_loss, expected = vision.image_loss_and_grads(params, images, labels, config)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    error, leaf = helpers.tree_error(grads, expected)
    assert error < 1e-4, leaf


def test_accuracy_is_the_share_of_right_answers():
    params, images, _, config = small("tokenformer")
    logits, _ = vision.image_forward(params, images, config)
    labels = logits.argmax(axis=-1)
    assert vision.evaluate_images(params, images, labels, config)[1] == 1.0
    labels[0] = (labels[0] + 1) % config.vocab_size
    loss, accuracy = vision.evaluate_images(params, images, labels, config)
    assert accuracy == pytest.approx(2 / 3)
    assert loss == pytest.approx(float(ops.cross_entropy_forward(logits, labels)[0]))


# ----------------------------------------------------------------------------------------------- growth


def test_the_body_grows_as_a_text_model_does():
    params, images, _, config = small("tokenformer")
    before, _ = vision.image_forward(params, images, config)
    body, grown = growth.grow(params["body"], config, attention_tokens=9, ffn_tokens=20)
    after, _ = vision.image_forward(params | {"body": body}, images, grown)
    assert helpers.relative_error(after, before) < 1e-13
    body, grown = growth.grow(params["body"], config, attention_tokens=9, ffn_tokens=20, tau="rescale")
    after, _ = vision.image_forward(params | {"body": body}, images, grown)
    assert helpers.relative_error(after, before) > 0.01


# --------------------------------------------------------------------------------------------- training

SETTINGS = TrainConfig(steps=60, batch_size=8, peak_lr=1e-2, eval_every=25)


def bars(n=40):
    """Images with a bright upper or lower half: two classes that a position must tell apart."""
    labels = np.arange(n, dtype=np.int32) % 2
    images = np.random.default_rng(0).random((n, 4, 6)).astype(np.float32) * 0.1
    images[labels == 0, :2] += 0.9
    images[labels == 1, 2:] += 0.9
    return images, labels


@both_models
def test_training_learns_repeats_exactly_and_leaves_its_inputs_alone(config):
    images, labels = bars()
    params = vision.init_image_params(replace(config, vocab_size=2), 2)
    before = helpers.fingerprint(params)
    arguments = (
        params,
        replace(config, vocab_size=2),
        images[8:],
        labels[8:],
        SETTINGS,
        (images[:8], labels[:8]),
    )
    result = vision.train_image_model(*arguments)
    assert helpers.fingerprint(params) == before
    assert [line["step"] for line in result.history] == [25, 50, 60]
    last = result.history[-1]
    assert last["heldout_accuracy"] == 1.0
    assert last["train_loss"] < 0.1 and last["heldout_loss"] < 0.1
    again = vision.train_image_model(*arguments)
    assert helpers.fingerprint(again.params) == helpers.fingerprint(result.params)
    assert again.history == result.history


class Most:
    """In place of a random generator: every draw is at its upper limit, or at its lower one."""

    def __init__(self, end=1):
        self.end = end

    def uniform(self, low, high, shape):
        return np.full(shape, {1: high, -1: low}[self.end])


def test_warped_images_are_moved_turned_stretched_and_slanted_about_their_center():
    image = np.random.default_rng(0).random((1, 5, 5))
    assert np.array_equal(vision.warp_images(image, Most()), image)
    moved = vision.warp_images(image, Most(), shift=1)
    assert np.allclose(moved[0, :-1, :-1], image[0, 1:, 1:]) and not moved[0, -1].any()
    back = vision.warp_images(image, Most(-1), shift=1)
    assert np.allclose(back[0, 1:, 1:], image[0, :-1, :-1]) and not back[0, :, 0].any()
    half = vision.warp_images(image, Most(), shift=0.5)
    assert half[0, 1, 2] == pytest.approx(image[0, 1:3, 2:4].mean())
    turned = vision.warp_images(image, Most(), turn=90)
    assert np.allclose(turned[0], np.rot90(image[0], k=-1))
    small = vision.warp_images(image, Most(), stretch=np.log(2))
    assert np.allclose(small[0, 1:4, 1:4], image[0, ::2, ::2]) and not small[0, 0].any()
    slanted = vision.warp_images(image, Most(), slant=1)
    assert np.allclose(slanted[0, 2], image[0, 2])
    assert np.allclose(slanted[0, 3, :-1], image[0, 3, 1:]) and np.allclose(
        slanted[0, 1, 1:], image[0, 1, :-1]
    )


def test_every_image_is_warped_in_its_own_way_and_stays_a_picture():
    images = np.full((50, 4, 6), 0.5, np.float32)
    limits = {"shift": 1.0, "turn": 20.0, "stretch": 0.2, "slant": 0.2}
    warped = vision.warp_images(images, np.random.default_rng(0), **limits)
    assert warped.dtype == np.float32 and warped.min() >= 0 and warped.max() <= 0.5 + 1e-6
    assert len({image.tobytes() for image in warped}) == 50
    again = vision.warp_images(images, np.random.default_rng(0), **limits)
    assert np.array_equal(again, warped) and (images == 0.5).all()


def test_overlapping_patches_are_the_patches_and_a_margin_of_their_neighbors():
    images = np.random.default_rng(0).random((3, 4, 6))
    larger = vision.overlap_patches(images, 2, 1)
    assert larger.shape == (3, 8, 12)
    patches = vision.cut_patches(larger, 4).reshape(3, 2, 3, 4, 4)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    for row in range(2):
        for column in range(3):
            expected = padded[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            assert np.array_equal(patches[:, row, column], expected)
    assert np.array_equal(vision.overlap_patches(images, 2, 0), images)


def test_annealing_moves_tau_to_its_end():
    images, labels = bars(8)
    config = replace(helpers.IMAGE_CONFIGS["tokenformer"], vocab_size=2)
    params = vision.init_image_params(config, 2)
    body, config = growth.grow(params["body"], config, ffn_tokens=16)
    settings = replace(SETTINGS, steps=4, anneal_share=0.5)
    result = vision.train_image_model(params | {"body": body}, config, images, labels, settings)
    assert config.tau("ffn") == pytest.approx(7**0.5)
    assert result.config.tau("ffn") == 4.0


def test_a_loss_that_is_no_number_stops_the_run():
    images, labels = bars(8)
    config = replace(helpers.IMAGE_CONFIGS["transformer"], vocab_size=2)
    params = vision.init_image_params(config, 2)
    images[:] = np.nan
    with pytest.raises(TrainingDiverged, match="the loss became nan by step 3: lower peak_lr"):
        vision.train_image_model(params, config, images, labels, replace(SETTINGS, steps=4))


def test_an_augmentation_is_a_function():
    images, labels = bars(8)
    config = replace(helpers.IMAGE_CONFIGS["transformer"], vocab_size=2)
    params = vision.init_image_params(config, 2)
    with pytest.raises(TypeError, match="augment is 1: pass a function"):
        vision.train_image_model(params, config, images, labels, SETTINGS, augment=1)


# ---------------------------------------------------------------------------------------- on the device


@pytest.mark.parametrize("name", helpers.IMAGE_CONFIGS)
def test_everything_runs_on_the_stand_in_for_cupy(name):
    params, images, labels, config = small(name)
    settings = replace(SETTINGS, steps=3, eval_every=2)
    batch = images, labels

    def augment(images, rng):
        warped = vision.warp_images(images, rng, shift=0.5, turn=10, stretch=0.1, slant=0.1)
        return vision.overlap_patches(warped, patch_size=2, margin=0)

    expected = vision.train_image_model(params, config, *batch, settings, batch, augment)
    with fake_cupy.installed():
        device_batch = tuple(map(fake_cupy.asarray, batch))
        device_params = to_device(params, "cuda")
        result = vision.train_image_model(
            device_params, config, *device_batch, settings, device_batch, augment
        )
        for _, leaf in tree_items(result.params):
            assert isinstance(leaf, fake_cupy.ndarray)
        assert helpers.fingerprint(to_host(result.params)) == helpers.fingerprint(expected.params)
        assert result.history == expected.history
        with pytest.raises(TypeError, match=r"images is on the GPU|did you call to_device"):
            vision.image_loss_and_grads(params, device_batch[0], labels, config)


# ----------------------------------------------------------------------------------------------- errors

PARAMS, IMAGES, LABELS, CONFIG = small("tokenformer")
EMBEDDING = PARAMS["patch_embedding"]
ERRORS = {
    "patches that do not tile": (
        lambda: vision.cut_patches(np.zeros((5, 6)), 2),
        r"patches of 2 x 2 pixels do not tile images of shape \(5, 6\)",
    ),
    "a row of pixels": (lambda: vision.cut_patches(np.zeros(8), 2), "do not tile"),
    "a weight of no square": (
        lambda: vision.patch_embedding_forward(IMAGES, np.zeros((8, 5)), np.zeros((6, 8))),
        r"weight has shape \(8, 5\): it must be \(d, patch_size²\)",
    ),
    "too few positions": (
        lambda: vision.patch_embedding_forward(IMAGES, np.zeros((8, 4)), np.zeros((7, 8))),
        r"position has shape \(7, 8\), but \(6, 8\) is needed",
    ),
    "a text model's params": (
        lambda: vision.image_forward(PARAMS["body"], IMAGES, CONFIG),
        r"params must be \{'patch_embedding', 'body'\}",
    ),
    "another body": (
        lambda: vision.image_forward(PARAMS, IMAGES, replace(CONFIG, ffn_tokens=9)),
        "params block_0.ffn.key has shape",
    ),
    "untied": (lambda: vision.init_image_params(replace(CONFIG, tied=False), 2), "use tied=True"),
    "other images": (lambda: vision.image_forward(PARAMS, np.zeros((2, 4, 4)), CONFIG), "position has shape"),
    "no images": (lambda: vision.image_forward(PARAMS, IMAGES[:0], CONFIG), "at least one image"),
    "patches to overlap that do not tile": (lambda: vision.overlap_patches(IMAGES, 4, 1), "do not tile"),
    "a margin below 0": (lambda: vision.overlap_patches(IMAGES, 2, -1), "margin"),
    "one image to warp": (
        lambda: vision.warp_images(IMAGES[0], np.random.default_rng(0)),
        r"images have shape \(4, 6\): pass \(n, H, W\)",
    ),
    "a turn below 0": (lambda: vision.warp_images(IMAGES, np.random.default_rng(0), turn=-1), "turn"),
    "labels of other length": (
        lambda: vision.train_image_model(PARAMS, CONFIG, IMAGES, LABELS[:2], SETTINGS),
        r"labels has shape \(2,\), but \(3,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_flops_of_the_layers_are_those_of_a_text_model():
    """What `cost` says of N holds for the body: 2 N per token forward, 3 times that with the backward."""
    params, images, labels, config = small("tokenformer")
    counter = cost.FlopCounter()
    vision.image_loss_and_grads(tree_map(counter.wrap, params), images, labels, config)
    batch, length, d, classes = len(images), config.context, config.d_model, config.vocab_size
    layers = 2 * cost.count_layer_parameters(config) * length
    between = 4 * config.n_layers * d * length**2
    ends = 2 * 4 * d * length + 2 * d * classes
    assert counter.flops == 3 * batch * (layers + between + ends)
