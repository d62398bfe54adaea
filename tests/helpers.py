"""What the tests share: errors, hashes, small models, and one list of every forward / backward pair.

`PAIRS` is the heart of it. Each entry names a pair and holds float64 inputs for which its gradients are neither
zero nor ill-conditioned; `test_gradients` checks them by finite differences, `test_backend` runs them on the
stand-in for CuPy, `test_bad_input` sees that they change no input, and `test_mutations` breaks the backward
functions one at a time to see that this list notices.
"""

import dataclasses
import hashlib
from functools import partial
from typing import NamedTuple

import numpy as np

from minitf import attention, gradcheck, merge, model, nested, ops, pattention, top_k, transfer, vision
from minitf.backend import tree_from_items, tree_items, tree_map

KINDS = pattention.KINDS
GELUS = ("none", "tanh")


# ---------------------------------------------------------------------------------------------- measures


def relative_error(got, expected):
    """Largest difference, relative to the largest entry of what was expected."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape} instead of {expected.shape}"
    difference, scale = np.abs(got - expected).max(initial=0), np.abs(expected).max(initial=0)
    return 0.0 if difference == 0 else float(difference / scale) if scale > 0 else np.inf


def tree_error(got, expected):
    """The largest relative error of any leaf, and the leaf's name."""
    errors = tree_map(relative_error, got, expected)
    # max() over tuples would step over a NaN
    return max((np.inf if np.isnan(error) else error, name) for name, error in tree_items(errors))


def fingerprint(*trees):
    """A hash of every byte, name and dtype: equal before and after means that nothing was touched."""
    digest = hashlib.sha256()
    for name, array in tree_items({str(i): tree for i, tree in enumerate(trees)}):
        digest.update(name.encode())
        if array is not None:
            array = array if isinstance(array, np.ndarray) else np.asarray(array)
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ models

TINY = {"vocab_size": 11, "context": 8, "n_layers": 2, "d_model": 8, "n_heads": 2}


def tokenformer(**changes):
    return model.TokenformerConfig(**TINY | {"attention_tokens": 5, "ffn_tokens": 7} | changes)


def transformer(**changes):
    return model.TransformerConfig(**TINY | {"d_ff": 12} | changes)


CONFIGS = {
    **{f"tokenformer {kind}": tokenformer(theta=kind, n_layers=1) for kind in KINDS},
    "tokenformer": tokenformer(),
    "tokenformer untied, two ffn blocks": tokenformer(tied=False, ffn_blocks=2, n_layers=1),
    "tokenformer parametric, proj_tokens, taus": tokenformer(
        parametric_norm=True, proj_tokens=6, attention_tau=1.5, proj_tau=2.0, ffn_tau=3.0, approximate="tanh"
    ),
    "tokenformer top-k": tokenformer(ffn_top_k=3),
    "tokenformer top-k in groups": tokenformer(
        ffn_tokens=8, ffn_top_k=4, ffn_group=2, theta="softmax", ffn_blocks=2
    ),
    "transformer": transformer(),
    "transformer untied, parametric, tanh": transformer(tied=False, parametric_norm=True, approximate="tanh"),
}

NESTED_CONFIG = tokenformer(attention_tokens=10, ffn_tokens=20, n_layers=1)


def random_params(config, seed=0, dtype=np.float64, std=0.3):
    """Parameters with no special values (init_params has norms of one and zero), and scores of about one."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        center = 1.0 if name.endswith("norm.weight") else 0.0
        return (center + std * rng.standard_normal(shape)).astype(dtype)

    shapes = tree_items(model.parameter_shapes(config))
    return tree_from_items((name, draw(name, shape)) for name, shape in shapes)


def random_batch(config, seed=0, batch=2, length=6, mask=True):
    """ids, targets and a mask that keeps at least one token."""
    rng = np.random.default_rng((seed, 1))
    ids, targets = rng.integers(0, config.vocab_size, (2, batch, length))
    keep = rng.random((batch, length)) < 0.7
    keep[0, 0] = True
    return ids, targets, keep if mask else None


IMAGE_CONFIGS = {"tokenformer": tokenformer(context=6), "transformer": transformer(context=6)}


def random_image_params(config, seed=0, dtype=np.float64):
    """`random_params` of a classifier of 4 x 6 images in patches of 2 x 2."""
    draw = np.random.default_rng((seed, 2)).standard_normal
    weight, position = draw((config.d_model, 4)), draw((config.context, config.d_model))
    patch_embedding = {"weight": weight.astype(dtype), "position": position.astype(dtype)}
    return {"patch_embedding": patch_embedding, "body": random_params(config, seed, dtype)}


def random_images(config, seed=0, dtype=np.float64, batch=3):
    """Images and labels."""
    rng = np.random.default_rng((seed, 3))
    return rng.random((batch, 4, 6)).astype(dtype), rng.integers(0, config.vocab_size, batch)


def merged_config(routed, **changes):
    """Two parents of different sizes (their taus agree) and new tokens: 6 patches before captions of any length."""
    text = tokenformer(context=12, attention_tau=2.0, proj_tau=1.8, ffn_tau=2.5, **changes)
    image = dataclasses.replace(text, vocab_size=4, context=6, attention_tokens=4, ffn_tokens=6)
    body = dataclasses.replace(text, attention_tokens=12, proj_tokens=11, ffn_tokens=17)
    return merge.MergedConfig(body, text, image, routed)


MERGED_CONFIGS = {"routed": merged_config(True), "shared": merged_config(False, ffn_blocks=2)}


def random_merged_params(config, seed=0, dtype=np.float64):
    """Random params of a merged model, as `merge.merge_models` lays them out."""
    image, body = random_image_params(config.image, seed, dtype), random_params(config.body, seed, dtype)
    classes = {name: image["body"][name] for name in ("embedding", "norm")}
    return {"patch_embedding": image["patch_embedding"], "classes": classes, "body": body}


def random_captions(config, seed=0, dtype=np.float64):
    """Images of 4 x 6 pixels, inputs, targets and a mask."""
    images, _ = random_images(config.image, seed, dtype, batch=2)
    return images, *random_batch(config.body, seed, batch=2, length=5)


# ------------------------------------------------------------------------------------------------- pairs


class Pair(NamedTuple):
    """forward(*arrays.values()) -> out, cache; backward(dout, cache) -> gradients, one per array."""

    name: str
    forward: object
    backward: object
    arrays: dict
    extra: dict  # arrays without a gradient (ids, targets, masks), passed to forward by name


def _pair(name, forward, backward, arrays, extra=None, **options):
    """Functions are looked up when they are called, so that a test can replace them."""

    def run_forward(*inputs, **extra):
        return forward()(**dict(zip(arrays, inputs, strict=True)), **extra, **options)

    def run_backward(dout, cache):
        return backward()(dout, cache)

    return Pair(name, run_forward, run_backward, arrays, extra or {})


def every_pair(seed=0):
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal
    pairs = []

    def add(module, function, arrays, label="", extra=None, **options):
        forward = partial(getattr, module, f"{function}_forward")
        backward = partial(getattr, module, f"{function}_backward")
        pairs.append(_pair(f"{function} {label}".strip(), forward, backward, arrays, extra, **options))

    add(ops, "linear", {"x": draw((2, 3, 4)), "weight": draw((5, 4))})
    add(ops, "linear", {"x": draw((3, 4)), "weight": draw((5, 4)), "bias": draw(5)}, "with bias")
    for approximate in GELUS:
        add(ops, "gelu", {"x": 2 * draw((3, 7))}, approximate, approximate=approximate)
    add(ops, "softmax", {"x": draw((2, 3, 4))})
    x, weight, bias = 2 + 3 * draw((2, 3, 5)), draw(5), draw(5)
    add(ops, "layer_norm", {"x": x}, eps=0.1)  # a large eps would show if the backward forgot it
    add(ops, "layer_norm", {"x": x, "weight": weight}, "with weight")
    add(ops, "layer_norm", {"x": x, "bias": bias}, "with bias")
    add(ops, "layer_norm", {"x": x, "weight": weight, "bias": bias}, "with weight and bias", eps=0.1)
    ids = np.array([[1, 4, 1], [0, 1, 5]])  # row 1 three times: its gradients add up
    add(ops, "embedding", {"weight": draw((6, 4))}, extra={"ids": ids})
    targets, mask = rng.integers(0, 5, (2, 3)), np.array([[True, False, True], [True, True, False]])
    add(ops, "cross_entropy", {"logits": draw((2, 3, 5))}, extra={"targets": targets})
    masked = {"targets": targets, "mask": mask}
    add(ops, "cross_entropy", {"logits": draw((2, 3, 5))}, "with mask", extra=masked)

    for kind in KINDS:
        for approximate in GELUS if "gelu" in kind else GELUS[:1]:
            options = {"kind": kind, "approximate": approximate}
            label = f"{kind} {approximate}"
            add(pattention, "theta", {"scores": draw((2, 3, 6))}, label, **options)
            add(pattention, "theta", {"scores": draw((3, 6))}, f"{label} tau", tau=1.7, **options)
            tokens = {"key": draw((6, 4)), "value": draw((6, 3))}
            add(pattention, "pattention", {"x": draw((2, 3, 4)), **tokens}, label, **options)
            keep = rng.random((3, 6)) < 0.7
            keep[:, 0] = True
            masked = {"x": draw((2, 3, 4)), **tokens}
            options |= {"scale": 0.6, "tau": 1.7}
            label += " tau, scale, mask"
            add(pattention, "pattention", masked, label, extra={"mask": keep}, **options)

    add(attention, "rotary", {"x": draw((2, 4, 8))}, fraction=0.5, offset=3)
    three = {name: draw((2, 4, 8)) for name in ("query", "key", "value")}
    add(attention, "causal_attention", three)
    options = {"n_heads": 2, "rotary_fraction": 0.5}
    add(attention, "causal_attention", three, "two heads, rotary", **options)
    add(attention, "full_attention", three, n_heads=2)
    patches = {"images": draw((2, 4, 6)), "weight": draw((5, 4)), "position": draw((6, 5))}
    add(vision, "patch_embedding", patches)
    arrays = {"x": draw((2, 3, 4)), "key": draw((8, 4)), "value": draw((8, 3))}
    for kind in KINDS:
        for label, options in {
            "": {"k": 3},
            "tau, groups": {"k": 4, "group": 2, "tau": 1.7},
            "gather": {"k": 3, "gather": True},
            "groups, gather": {"k": 4, "group": 2, "gather": True},
        }.items():
            add(top_k, "top_k_pattention", arrays, f"{kind} {label}".strip(), kind=kind, **options)
    return pairs


PAIRS = every_pair()


# --------------------------------------------------------------------------------------- gradient checks


def model_gradient_error(config, seed=0):
    """Along one random direction of all parameters: is the whole model's gradient the slope of its loss?"""
    ids, targets, mask = random_batch(config, seed)

    def loss_and_grads(params):
        return model.loss_and_grads(params, ids, targets, config, mask)

    return gradcheck.tree_directional_error(loss_and_grads, random_params(config, seed), step=1e-5)


def image_gradient_error(config, seed=0):
    """The same of a whole image classifier."""
    images, labels = random_images(config, seed)

    def loss_and_grads(params):
        return vision.image_loss_and_grads(params, images, labels, config)

    return gradcheck.tree_directional_error(loss_and_grads, random_image_params(config, seed), step=1e-5)


def merged_gradient_error(config, seed=0):
    """The same of a merged model with captions. No gradient reaches the classes, which captions do not use."""
    images, inputs, targets, mask = random_captions(config, seed)

    def loss_and_grads(params):
        return merge.caption_loss_and_grads(params, images, inputs, targets, config, mask)

    return gradcheck.tree_directional_error(loss_and_grads, random_merged_params(config, seed), step=1e-5)


def new_tokens_gradient_error(config, seed=0):
    """The same of tokens that are appended to a model which stays as it is."""
    batch, old = random_batch(config, seed), random_params(config, seed)
    new, joined = transfer.append_tokens(old, config, 2, 3, key="normal", key_std=0.3, value_std=0.3)

    def loss_and_grads(new):
        return transfer.new_tokens_loss_and_grads(new, old, *batch[:2], joined, batch[2])

    return gradcheck.tree_directional_error(loss_and_grads, new, step=1e-5)


def lora_gradient_error(config, seed=0):
    """The same of low-rank additions."""
    batch, old = random_batch(config, seed), random_params(config, seed)
    draw = np.random.default_rng((seed, 4)).standard_normal
    lora = tree_map(lambda factor: 0.3 * draw(factor.shape), transfer.lora_init(old, rank=2))

    def loss_and_grads(lora):
        return transfer.lora_loss_and_grads(lora, old, *batch[:2], config, batch[2])

    return gradcheck.tree_directional_error(loss_and_grads, lora, step=1e-5)


def nested_gradient_error(config, seed=0):
    """The same of a step that trains half of the tokens; the direction moves the others, too."""
    ids, targets, mask = random_batch(config, seed)
    tokens = config.attention_tokens // 2

    def loss_and_grads(params):
        return nested.nested_loss_and_grads(params, ids, targets, config, tokens, mask)

    return gradcheck.tree_directional_error(loss_and_grads, random_params(config, seed), step=1e-5)


def gradient_checks():
    """Every pair and every model as (name, function that returns the relative error along one direction)."""
    for pair in PAIRS:
        forward = partial(pair.forward, **pair.extra)
        yield pair.name, partial(gradcheck.directional_error, forward, pair.backward, pair.arrays)
    for name, config in CONFIGS.items():
        yield f"model: {name}", partial(model_gradient_error, config)
    for name, config in IMAGE_CONFIGS.items():
        yield f"image model: {name}", partial(image_gradient_error, config)
    yield "nested dropout", partial(nested_gradient_error, NESTED_CONFIG)
    yield "new tokens", partial(new_tokens_gradient_error, CONFIGS["tokenformer"])
    yield "lora: tokenformer", partial(lora_gradient_error, CONFIGS["tokenformer"])
    yield "lora: transformer", partial(lora_gradient_error, CONFIGS["transformer"])
    for name, config in MERGED_CONFIGS.items():
        yield f"merged model: {name}", partial(merged_gradient_error, config)


def first_wrong_gradient(tolerance=1e-6):
    """The name of the first check whose gradient is wrong (or whose backward raises), None if all are right."""
    for name, error_of in gradient_checks():
        try:
            error = error_of()
        except Exception:
            return name
        if not error < tolerance:  # `not <` so that NaN counts as wrong
            return name
    return None
