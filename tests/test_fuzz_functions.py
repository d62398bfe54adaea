"""Odd arguments to every public function: a right result, or an error that names the argument; nothing is changed.

`CALLS` lists the functions, each with arguments that are right. A test replaces one argument by every odd value
that this file can think of (a wrong shape, dtype, memory layout, NaN, a list, None, ...), and hypothesis replaces
two at once. What comes back is judged by these rules:

- an error is a ValueError, TypeError or IndexError whose message says the name of an argument;
- a result has the dtype of the arrays that went in; the same numbers in another memory layout give the same;
- finite arrays give what the same call gives in long double, as far as the dtype can hold it;
- no Python warning; NumPy's own report of an overflow or an invalid value is allowed only where numbers that
  are infinite or NaN went in, or came out because the dtype cannot hold the true ones;
- no argument has changed (but for the memory that `adamw_step` says it reuses, and that not before an error).

As a program, with more examples:  MINITF_FUZZ_EXAMPLES=2000 python -m pytest tests/test_fuzz_functions.py
"""

import copy
import dataclasses
import inspect
import os
import re
import warnings
from decimal import Decimal
from fractions import Fraction
from functools import partial

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitf import (
    attention,
    backend,
    cost,
    data,
    gradcheck,
    growth,
    model,
    nested,
    ops,
    optim,
    pattention,
    top_k,
    train,
    vision,
)
from minitf.backend import tree_map

EXAMPLES = int(os.environ.get("MINITF_FUZZ_EXAMPLES", "15"))
DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64, "long double": np.longdouble}
TOLERANCE = {np.float16: 5e-2, np.float32: 2e-3, np.float64: 1e-6, np.longdouble: 1e-9}

# ---------------------------------------------------------------------------------------- the right arguments


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def pair(module, name):
    """forward and backward in one call: function(*, dout, ...) -> out and gradients."""
    forward, backward = getattr(module, f"{name}_forward"), getattr(module, f"{name}_backward")

    def both(dout="as out", **arguments):
        out, cache = forward(**arguments)
        if isinstance(dout, str) and dout == "as out":
            dout = np.cos(np.arange(np.size(out))).reshape(np.shape(out)).astype(np.asarray(out).dtype)
        try:
            return out, backward(dout, cache)
        except Exception as error:
            error.add_note("in the backward")
            raise

    both.__name__ = name
    both.names = {*inspect.signature(forward).parameters, *inspect.signature(backward).parameters}
    return both


def model_pair(params, ids, config, dlogits="as out", past=None):
    logits, cache = model.forward(params, ids, config, past)
    if isinstance(dlogits, str) and dlogits == "as out":
        dlogits = np.cos(np.arange(logits.size)).reshape(logits.shape).astype(logits.dtype)
    return logits, model.backward(dlogits, cache) if past is None else 0


def numbers_of(config):
    """A function that makes a config of these fields, so that each of them can be odd."""
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}

    def make(**fields):
        made = type(config)(**fields)
        assert cost.count_parameters(made) > 0
        return repr(made)

    make.names = set(fields)
    return make, fields


TOKENFORMER = helpers.tokenformer(n_layers=1, parametric_norm=True)
TRANSFORMER = helpers.transformer(n_layers=1)
MODELS = {"tokenformer": TOKENFORMER, "transformer": TRANSFORMER}
PARAMS = {name: helpers.random_params(config) for name, config in MODELS.items()}
IDS, TARGETS, MASK = helpers.random_batch(TOKENFORMER, batch=2, length=4)
HELD = growth.grow(PARAMS["tokenformer"], TOKENFORMER, ffn_tokens=9)
STATE = optim.adamw_init(PARAMS["tokenformer"]) | {"step": 3}
STATE["m"] = tree_map(lambda m: m + 0.1, STATE["m"])
STATE["v"] = tree_map(lambda v: v + 0.2, STATE["v"])
STREAM = np.arange(40) % 11
NESTED = helpers.random_params(helpers.NESTED_CONFIG)
SQUARE = {
    "forward": lambda x, y: (x * x * y, (x, y)),
    "backward": lambda dout, c: (2 * dout * c[0] * c[1], dout * c[0] ** 2),
}
KEYS = {"key": draw(5, 3), "value": draw(5, 4)}
THREE = {name: draw(2, 4, 8) for name in ("query", "key", "value")}
PAST = attention.causal_attention_forward(*(draw(2, 3, 8) for _ in range(3)), n_heads=2)[1].past

CLASSIFIER = dataclasses.replace(TOKENFORMER, context=6)
IMAGES, LABELS = helpers.random_images(CLASSIFIER)
IMAGE = {"params": helpers.random_image_params(CLASSIFIER), "images": IMAGES, "labels": LABELS}
IMAGE |= {"config": CLASSIFIER}

CALLS = {
    "linear": (
        pair(ops, "linear"),
        {"x": draw(2, 3), "weight": draw(4, 3), "bias": draw(4), "dout": draw(2, 4)},
    ),
    "gelu": (pair(ops, "gelu"), {"x": draw(2, 3), "approximate": "none", "dout": draw(2, 3)}),
    "gelu tanh": (pair(ops, "gelu"), {"x": draw(2, 3), "approximate": "tanh"}),
    "softmax": (pair(ops, "softmax"), {"x": draw(2, 3), "dout": draw(2, 3)}),
    "layer_norm": (
        pair(ops, "layer_norm"),
        {"x": draw(3, 5), "weight": draw(5), "bias": draw(5), "eps": 1e-5, "dout": draw(3, 5)},
    ),
    "embedding": (pair(ops, "embedding"), {"ids": IDS, "weight": draw(11, 3), "dout": draw(2, 4, 3)}),
    "cross_entropy": (
        pair(ops, "cross_entropy"),
        {"logits": draw(2, 4, 11), "targets": TARGETS, "mask": MASK, "dout": 1.0},
    ),
    "normal_cdf_pdf": (ops.normal_cdf_pdf, {"x": draw(4)}),
    **{
        f"theta {kind}": (
            pair(pattention, "theta"),
            {"scores": draw(3, 6), "kind": kind, "tau": 2.0, "approximate": "none", "dout": draw(3, 6)},
        )
        for kind in pattention.KINDS
    },
    "pattention": (
        pair(pattention, "pattention"),
        {
            "x": draw(2, 2, 3),
            **KEYS,
            "kind": "l2_norm_gelu",
            "tau": None,
            "scale": 0.5,
            "dout": draw(2, 2, 4),
        },
    ),
    "pattention masked": (
        pair(pattention, "pattention"),
        {"x": draw(2, 3), **KEYS, "kind": "softmax", "mask": draw(2, 5) > -0.5, "approximate": "tanh"},
    ),
    "top_k_pattention": (
        pair(top_k, "top_k_pattention"),
        {"x": draw(2, 2, 3), **KEYS, "k": 2, "tau": 1.5, "group": 1, "gather": False, "dout": draw(2, 2, 4)},
    ),
    "top_k_pattention expert by expert": (
        pair(top_k, "top_k_pattention"),
        {"x": draw(2, 3), "key": draw(6, 3), "value": draw(6, 4), "k": 4, "group": 2, "gather": True},
    ),
    "rotary": (
        pair(attention, "rotary"),
        {"x": draw(2, 4, 8), "fraction": 0.5, "offset": 3, "base": 1e4, "dout": draw(2, 4, 8)},
    ),
    "causal_attention": (
        pair(attention, "causal_attention"),
        {**THREE, "n_heads": 2, "rotary_fraction": 0.5, "dout": draw(2, 4, 8)},
    ),
    "full_attention": (pair(attention, "full_attention"), {**THREE, "n_heads": 2, "dout": draw(2, 4, 8)}),
    "cut_patches": (vision.cut_patches, {"images": draw(3, 4, 6), "patch_size": 2}),
    "overlap_patches": (vision.overlap_patches, {"images": draw(3, 4, 6), "patch_size": 2, "margin": 1}),
    "warp_images": (
        lambda **a: vision.warp_images(rng=np.random.default_rng(1), **a),
        {"images": draw(3, 4, 6), "shift": 0.5, "turn": 10.0, "stretch": 0.1, "slant": 0.1},
    ),
    "patch_embedding": (
        pair(vision, "patch_embedding"),
        {"images": draw(2, 4, 6), "weight": draw(5, 4), "position": draw(6, 5), "dout": draw(2, 6, 5)},
    ),
    "image: init_params": (
        vision.init_image_params,
        {"config": CLASSIFIER, "patch_size": 2, "seed": 1, "dtype": np.float32},
    ),
    "image_loss_and_grads": (vision.image_loss_and_grads, IMAGE),
    "evaluate_images": (
        lambda **a: vision.evaluate_images(**a)[0],
        IMAGE,
    ),  # an accuracy jumps where logits tie
    "train_image_model": (
        lambda **a: vision.train_image_model(**a)[0],
        IMAGE | {"settings": train.TrainConfig(steps=2, batch_size=2)},
    ),
    "causal_attention with past": (
        lambda **a: attention.causal_attention_forward(**a)[0],
        {**THREE, "n_heads": 2, "rotary_fraction": 0.5, "past": PAST},
    ),
    **{
        f"{name}: {label}": call
        for name, config in MODELS.items()
        for label, call in {
            "forward, backward": (
                model_pair,
                {
                    "params": PARAMS[name],
                    "ids": IDS,
                    "config": config,
                    "dlogits": draw(2, 4, 11),
                    "past": None,
                },
            ),
            "loss_and_grads": (
                model.loss_and_grads,
                {"params": PARAMS[name], "ids": IDS, "targets": TARGETS, "config": config, "mask": MASK},
            ),
            "generate": (
                model.generate,
                {"params": PARAMS[name], "prompt_ids": IDS, "n_new": 3, "config": config}
                | {"temperature": 0.7, "top_k": 4, "seed": 1},
            ),
            "init_params": (model.init_params, {"config": config, "seed": 1, "dtype": np.float32}),
            "config": numbers_of(config),
            "check_params": (model.check_params, {"params": PARAMS[name], "config": config}),
            "forward_flops": (cost.forward_flops, {"config": config, "context": 4}),
            "training_flops": (cost.training_flops, {"config": config, "context": 4}),
            "count_parameters": (cost.count_parameters, {"config": config}),
            "count_layer_parameters": (cost.count_layer_parameters, {"config": config}),
            "parameter_bytes": (cost.parameter_bytes, {"config": config, "dtype": np.float32}),
            "evaluate": (
                train.evaluate,
                {"params": PARAMS[name], "config": config, "ids": STREAM, "batch_size": 2, "limit": 2},
            ),
        }.items()
    },
    "grow": (
        growth.grow,
        {"params": PARAMS["tokenformer"], "config": TOKENFORMER, "attention_tokens": 6, "ffn_tokens": 9}
        | {"proj_tokens": 6, "key": "normal", "value": "normal", "tau": "hold", "seed": 1}
        | {"key_std": 0.1, "value_std": 0.1},
    ),
    "grow by copies": (
        growth.grow,
        {
            "params": PARAMS["tokenformer"],
            "config": TOKENFORMER,
            "ffn_tokens": 14,
            "key": "copy",
            "value": "halved",
        },
    ),
    "prefix": (
        nested.prefix,
        {"params": NESTED, "config": helpers.NESTED_CONFIG, "tokens": 5, "tau": "hold"},
    ),
    "prefix_backward": (
        nested.prefix_backward,
        {"dprefix": nested.prefix(NESTED, helpers.NESTED_CONFIG, 5)[0], "params": NESTED},
    ),
    "nested_loss_and_grads": (
        nested.nested_loss_and_grads,
        {"params": NESTED, "ids": IDS, "targets": TARGETS, "config": helpers.NESTED_CONFIG, "tokens": 5}
        | {"mask": MASK},
    ),
    "anneal_tau": (
        lambda config, progress: repr(growth.anneal_tau(config, progress)),
        {"config": HELD[1], "progress": 0.5},
    ),
    "grow_state": (growth.grow_state, {"state": STATE, "params": HELD[0]}),
    "net2net_widen": (
        growth.net2net_widen,
        {"params": PARAMS["transformer"], "config": TRANSFORMER, "d_model": 16, "d_ff": 15, "seed": 1},
    ),
    "adamw_init": (optim.adamw_init, {"params": PARAMS["tokenformer"]}),
    "adamw_step": (
        optim.adamw_step,
        {"params": PARAMS["tokenformer"], "grads": PARAMS["tokenformer"], "state": STATE, "lr": 0.1}
        | {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1},
    ),
    "clip_by_global_norm": (optim.clip_by_global_norm, {"grads": PARAMS["transformer"], "max_norm": 0.5}),
    "warmup_cosine": (optim.warmup_cosine, {"step": 3, "peak": 1.0, "floor": 0.1, "warmup": 2, "total": 9}),
    "load_text": (data.load_text, {"path": __file__, "min_chars": 1000}),
    "CharTokenizer": (lambda characters: data.CharTokenizer(characters).characters, {"characters": "abc"}),
    "from_text": (lambda text: data.CharTokenizer.from_text(text).characters, {"text": "to be"}),
    "encode": (lambda text: data.CharTokenizer("abc").encode(text), {"text": "cab"}),
    "decode": (lambda ids: data.CharTokenizer("abcdefghijk").decode(ids), {"ids": IDS[0]}),
    "from_json": (
        lambda text: data.CharTokenizer.from_json(text).characters,
        {"text": data.CharTokenizer("abc").to_json()},
    ),
    "train_bpe": (
        lambda text, vocab_size: data.train_bpe(text, vocab_size).to_json(),
        {"text": "aaa aab aac aad", "vocab_size": 258},
    ),
    "batch": (data.batch, {"ids": STREAM, "step": 2, "batch_size": 3, "context": 4, "seed": 1}),
    "heldout_batches": (
        lambda **a: list(data.heldout_batches(**a)),
        {"ids": STREAM, "batch_size": 2, "context": 4, "limit": 3},
    ),
    "load_shakespeare": (data.load_shakespeare, {"split": "heldout"}),
    "load_digits": (data.load_digits, {"split": "heldout"}),
    "numerical_gradient": (
        partial(gradcheck.numerical_gradient, lambda x: (x * x).sum()),
        {"x": draw(2, 2), "step": 1e-6},
    ),
    "check_gradients": (
        lambda **a: gradcheck.check_gradients(**SQUARE, **a).ok,
        {"arrays": {"x": draw(2, 2), "y": draw(2, 2)}, "seed": 1, "step": 1e-6, "tolerance": 1e-5},
    ),
    "directional_error": (
        lambda **a: gradcheck.directional_error(**SQUARE, **a) < 1e-5,
        {"arrays": {"x": draw(2, 2), "y": draw(2, 2)}, "seed": 1, "step": 1e-6},
    ),
    "tree_directional_error": (
        lambda params, **a: (
            gradcheck.tree_directional_error(
                lambda p: model.loss_and_grads(p, IDS, TARGETS, TRANSFORMER), params, **a
            )
            < 1e-5
        ),
        {"params": PARAMS["transformer"], "seed": 1, "step": 1e-6},
    ),
    "array_module": (lambda a, b: backend.array_module(a, b).__name__, {"a": draw(2), "b": draw(2)}),
    "tree_map": (
        partial(backend.tree_map, lambda a, b: a),
        {"tree": {"x": draw(2), "y": {"z": draw(1)}}, "others": {"x": draw(2), "y": {"z": draw(1)}}},
    ),
    "tree_items": (
        lambda tree: dict(backend.tree_items(tree)),
        {"tree": {"x": draw(2), "y": {"z": draw(1)}}},
    ),
    "tree_from_items": (
        lambda items: backend.tree_from_items(items.items() if isinstance(items, dict) else items),
        {"items": {"a.key": draw(2), "a.value": draw(2), "b": draw(1)}},
    ),
    "to_device": (backend.to_device, {"tree": {"x": draw(2)}, "device": "cpu"}),
    "to_host": (backend.to_host, {"tree": {"x": draw(2), "y": {"z": draw(1)}}}),
    "TrainConfig": (
        lambda **a: repr(train.TrainConfig(**a)),
        {f.name: f.default for f in dataclasses.fields(train.TrainConfig)} | {"steps": 3},
    ),
    "train_model": (
        lambda **a: train.train_model(**a)[0],
        {"params": PARAMS["transformer"], "config": TRANSFORMER, "ids": STREAM}
        | {"settings": train.TrainConfig(steps=2, batch_size=2), "heldout_ids": STREAM, "state": None}
        | {"checkpoint_every": 1},
    ),
}
CALLS["tree_map"] = (lambda tree, others: tree_map(lambda a, b: a, tree, others), CALLS["tree_map"][1])
# these say float64 only, or take no floats, or give integers: another dtype is refused, or does not matter
ONLY_FLOAT64 = {"numerical_gradient", "check_gradients", "directional_error", "tree_directional_error"}
NO_TRUTH = ONLY_FLOAT64 | {
    "train_model",
    "train_image_model",
}  # a step of Adam turns rounding noise into a step of its own
REUSES = {"adamw_step": ("params", "state")}

# --------------------------------------------------------------------------------------------- the odd values


def spread(a):
    """The same numbers, every other place in a larger array."""
    wide = np.zeros((*a.shape, 2), a.dtype)
    wide[..., 0] = a
    return wide[..., 0]


def locked(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def poked(value):
    def poke(a):
        a = a.copy()
        a.flat[:1] = value
        return a

    return poke


SAME = {  # the same numbers in another form
    "strided": spread,
    "Fortran order": lambda a: np.asfortranarray(a),
    "reversed": lambda a: a[::-1].copy()[::-1] if a.ndim else a,
    "read-only": locked,
}
SHAPES = {
    "transposed": lambda a: a.T,
    "flat": lambda a: a.reshape(-1),
    "one more axis": lambda a: a[None],
    "a last axis of 1": lambda a: a[..., None],
    "a row less": lambda a: a[1:] if a.ndim else a,
    "a column less": lambda a: a[..., 1:] if a.ndim else a,
    "one row": lambda a: a[:1] if a.ndim else a,
    "a single row": lambda a: a[0] if a.ndim else a,
    "0-d": lambda a: a.reshape(-1)[0] if a.size == 0 else np.array(a.reshape(-1)[0]),
    "a scalar": lambda a: a.reshape(-1)[0],
    "no rows": lambda a: a[:0] if a.ndim else a,
    "no columns": lambda a: a[..., :0] if a.ndim else a,
    "empty": lambda a: np.zeros((0,), a.dtype),
    "twice as long": lambda a: np.concatenate([a, a]) if a.ndim else a,
}
TYPES = {
    **{
        f"as {dtype}": partial(lambda d, a: a.astype(d), dtype)
        for dtype in ("i8", "u1", "?", "f2", "f4", "f8", "g")
    },
    "complex": lambda a: a.astype(complex),
    "objects": lambda a: a.astype(object),
    "texts": lambda a: a.astype(str),
    "other bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "a list": lambda a: a.tolist(),
    "a tuple": lambda a: tuple(np.atleast_1d(a)),
    "a masked array": lambda a: np.ma.MaskedArray(a),
    "times": lambda a: np.zeros(a.shape, "M8[s]"),
    "records": lambda a: np.zeros(a.shape, "f4,i4"),
}
HUGE = {np.float16: 10, np.float32: 1e8, np.float64: 1e60, np.longdouble: 1e60}
FLOATS = {
    "zeros": np.zeros_like,
    "ones": np.ones_like,
    "negative": lambda a: -np.abs(a),
    "tiny": lambda a: (a * np.finfo(a.dtype).tiny).astype(a.dtype),
    "huge": lambda a: (a * HUGE.get(a.dtype.type, 1)).astype(a.dtype),
    "largest": lambda a: np.full_like(a, np.finfo(a.dtype).max),
    **{f"with {x}": poked(x) for x in (np.nan, np.inf, -np.inf, -0.0)},
    "all NaN": lambda a: np.full_like(a, np.nan),
    "all -inf": lambda a: np.full_like(a, -np.inf),
}
INTEGERS = {
    "as int8": lambda a: a.astype("i1"),
    "as uint64": lambda a: a.astype("u8"),
    **{f"with {x}": poked(x) for x in (-1, 10, 11, -(2**62), 2**62)},
}
ANYTHING = {
    repr(value)[:30]: partial(lambda value, _: copy.deepcopy(value), value)
    for value in (
        *(None, True, False, 0, 1, -1, 3, 8, 10**30, -(2**70), 0.5, 2.5, -0.5, 1e-300, 1e300, 1j),
        *(
            float("nan"),
            float("inf"),
            -float("inf"),
            "",
            "2",
            "nan",
            "zero",
            b"2",
            "x" * 300,
            "a\0b",
            "\ud800",
        ),
        *([], [1], [1, 2], (), (1, 2), (None, None), {}, {"a": 1}, {"a": {}}, {1: 2}, set(), object, ...),
        *(np.float32(0.5), np.float64(2), np.int64(2), np.uint8(3), np.bool_(True), np.longdouble(0.5)),
        *(np.float32("nan"), np.array(2), np.array(0.5), np.array([1, 2]), np.array([]), np.array("2")),
        *(
            Decimal("0.5"),
            Fraction(1, 2),
            range(3),
            slice(2),
            lambda: 1,
            TOKENFORMER,
            TRANSFORMER,
            np.float32,
        ),
    )
}


def odd_values(value):
    """{label: function of the right value} of everything that could stand in its place."""
    if isinstance(value, np.ndarray):
        own = INTEGERS if value.dtype.kind in "iu" else FLOATS if value.dtype.kind == "f" else {}
        return SAME | SHAPES | TYPES | own | ANYTHING
    if isinstance(value, dict):
        return trees(value) | ANYTHING
    if isinstance(value, tuple) and len(value) and isinstance(value[0], np.ndarray):
        odd = {}
        for label, change in odd_values(value[0]).items():
            odd[f"first {label}"] = partial(lambda change, v: (change(v[0]), *v[1:]), change)
            odd[f"last {label}"] = partial(lambda change, v: (*v[:-1], change(v[-1])), change)
        return odd | ANYTHING | {"one less": lambda v: v[1:], "one more": lambda v: (*v, v[0]), "list": list}
    return ANYTHING


def trees(tree):
    """One leaf of a tree odd, or its names."""
    names = [name for name, _ in backend.tree_items(tree)]
    odd = {}
    for name in {names[0], names[-1], names[len(names) // 2]}:
        leaf = dict(backend.tree_items(tree))[name]
        for label, change in odd_values(leaf).items():
            odd[f"{name} {label}"] = partial(with_leaf, name, change)
        odd[f"{name} missing"] = partial(with_leaf, name, None)
    odd["a name more"] = lambda tree: tree | {"more": np.zeros(3)}
    odd["a number for a name"] = lambda tree: tree | {7: np.zeros(3)}
    odd["a branch of nothing"] = lambda tree: tree | {names[0].split(".")[0]: {}}
    odd["a leaf for a branch"] = lambda tree: tree | {names[0].split(".")[0]: np.zeros(3)}
    odd["other order"] = lambda tree: dict(reversed(tree.items()))
    return odd


def with_leaf(name, change, tree):
    first, *rest = name.split(".") if name.split(".")[0] in tree else [name]
    tree = dict(tree)
    if rest:
        tree[first] = with_leaf(".".join(rest), change, tree[first])
    elif change is None:
        del tree[first]
    else:
        tree[first] = change(tree[first])
    return tree


# ------------------------------------------------------------------------------------------------- the judge

ARRAYS = (np.ndarray, np.generic)


def walk(thing):
    """All arrays and numbers in arguments or results."""
    if isinstance(thing, dict):
        for leaf in thing.values():
            yield from walk(leaf)
    elif isinstance(thing, tuple | list):
        for leaf in thing:
            yield from walk(leaf)
    else:
        yield thing


def rebuilt(thing, change):
    """The same arguments with every array changed."""
    if isinstance(thing, dict):
        return {name: rebuilt(leaf, change) for name, leaf in thing.items()}
    if isinstance(thing, tuple | list):
        return type(thing)(rebuilt(leaf, change) for leaf in thing)
    return (
        change(thing)
        if isinstance(thing, np.ndarray | np.floating)
        else copy.deepcopy(thing)
        if is_plain(thing)
        else thing
    )


def is_plain(thing):
    return isinstance(thing, np.generic | Decimal | Fraction | set)


def plain(a):
    """The same numbers, in C order, native bytes, writable."""
    return np.array(a, a.dtype.newbyteorder("="), order="C") if isinstance(a, np.ndarray) else a


def cast(dtype, a):
    return a.astype(dtype) if a.dtype.kind == "f" else a


def state_of(thing):
    """A hash of everything in the arguments."""
    return [
        (a.dtype.str, a.shape, a.strides, a.tobytes())
        if isinstance(a, np.ndarray) and a.dtype != object
        else repr(a)
        for a in walk(thing)
    ]


def floats(thing):
    return [np.asarray(a) for a in walk(thing) if isinstance(a, ARRAYS) and a.dtype.kind == "f"]


def run(name, arguments):
    """(result, warnings) of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = CALLS[name][0](**arguments)
    return result, [w for w in caught if not is_of_numpys_masked_arrays(w)]


def is_of_numpys_masked_arrays(warning):
    return "numpy/ma" in warning.filename


ALIASES = {
    "config": (
        "heads",
        "tau",
        "theta",
        "Tokenformer",
        "Transformer",
        "TokenformerConfig",
        "TransformerConfig",
    ),
    "params": ("param", "tree", "embedding", "moment", "arrays"),
    "grads": ("tree", "grad"),
    "state": ("tree", "moment", "param", "step", "m", "v"),
    "n_heads": ("heads",),
    "prompt_ids": ("ids",),
    "split": ("split",),
    "path": ("file", "path", "PathLike"),
    "text": ("text", "character", "codec", "CharTokenizer"),
    "others": ("tree",),
    "items": ("leaf", "twice", "iterable", "iteration", "unpack"),
    "a": ("argument 1",),
    "b": ("argument 2",),
    "arrays": ("x", "y", "broadcast", "positional argument"),  # the last two: of the reader's own forward
    "past": ("past_key", "past_value"),
    "kind": ("theta",),
    "fraction": ("rotary_fraction",),
    "d_model": ("d_ff",),
    "dtype": ("data type", "codec"),
    "heldout_ids": ("ids",),
    "labels": ("targets",),
    "settings": ("eps",),
    "attention_tau": ("tau",),  # and all other fields of a config
}


def names_an_argument(name, arguments, message):
    names = set(arguments) | getattr(CALLS[name][0], "names", set())
    for tree in arguments.values():
        if isinstance(tree, dict):
            names |= {dotted for dotted, _ in backend.tree_items(tree)} | set(map(str, tree))
    words = names.union(*(ALIASES.get(n, ()) for n in names))
    return any(re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", message) for word in words)


def judge(name, arguments):
    """ "result" or "error"; raises AssertionError where the call breaks a rule."""
    before = state_of(arguments)
    reused = {n: copy.deepcopy(arguments[n]) for n in REUSES.get(name, ())}
    arguments_before = arguments | reused
    try:
        result, warned = run(name, arguments)
    except (ValueError, TypeError, IndexError, train.TrainingDiverged) as error:
        assert state_of(arguments) == before, "arguments changed before the error"
        message = str(error)
        assert names_an_argument(name, arguments, message), (
            f"no argument is named: {type(error).__name__}: {message}"
        )
        return "error"
    except FileNotFoundError:
        assert name == "load_text"
        return "error"
    kept = {n: a for n, a in arguments.items() if n not in reused}
    assert state_of(kept) == state_of({n: arguments_before[n] for n in kept}), "arguments changed"
    if not reused:
        assert state_of(arguments) == before, "arguments changed"

    went_in = floats(arguments_before)
    arrays = [a for a in arguments_before.values() if not isinstance(a, np.generic)]
    dtypes = {a.dtype.newbyteorder("=") for a in floats(arrays)}
    came_out = floats(result)
    if name.split(": ")[-1] not in ("init_params", "load_digits") and came_out and len(dtypes) == 1:
        assert {a.dtype.newbyteorder("=") for a in came_out} == dtypes, (
            f"{dtypes} gave {[str(a.dtype) for a in came_out]}"
        )
    again, _ = run(name, rebuilt(arguments_before, plain))
    same(result, again, max((TOLERANCE[a.dtype.type] for a in came_out), default=0))

    numbers = [np.asarray(n, float) for n in walk(arguments_before) if type(n) in (int, float)]
    finite = all(np.isfinite(a).all() for a in [*went_in, *numbers])
    beyond = False
    if finite and len(dtypes) == 1:
        truth = (
            None
            if name in NO_TRUTH
            else run(name, rebuilt(arguments_before, partial(cast, np.longdouble)))[0]
        )
        limits = np.finfo(next(iter(dtypes)))
        # squares of the numbers, which norms and Adam take, must be numbers of the dtype, too; and 0 / 0 is none
        large, small = np.longdouble(limits.max) ** 0.5, np.longdouble(limits.tiny) * 1000
        beyond = any((~(np.abs(a) <= large)).any() for a in [*went_in, *numbers, *floats(truth)])
        beyond |= any(0 < abs(n) < small for n in numbers)  # an eps that is 0 in this dtype
        too_small = any(((np.abs(a) > 0) & (np.abs(a) < small)).any() for a in went_in)
        if not (beyond or too_small or name in NO_TRUTH):
            same(result, truth, TOLERANCE[limits.dtype.type], went_in)
        assert beyond or all(np.isfinite(a).all() for a in came_out), f"not finite: {came_out}"
    for warning in warned:
        assert issubclass(warning.category, RuntimeWarning), f"warning: {warning.message}"
        assert beyond or not finite, f"warning: {warning.message}"
    return "result"


def same(result, expected, tolerance, went_in=()):
    """Assert equality, relative to the largest number of all: gradients may cancel to nearly nothing."""
    results, wanted = list(walk(result)), list(walk(expected))
    scale = max((np.abs(a[np.isfinite(a)]).max(initial=0) for a in [*floats(expected), *went_in]), default=0)
    assert len(results) == len(wanted)
    for got, want in zip(results, wanted, strict=True):
        if isinstance(want, ARRAYS) and want.dtype.kind == "f":
            assert np.shape(got) == np.shape(want)
            nan = np.isnan(want)
            assert (np.isnan(got) == nan).all(), f"NaN: {got} instead of {want}"
            infinite = np.isinf(want)
            with np.errstate(all="ignore"):
                assert (np.where(infinite, got, 0) == np.where(infinite, want, 0)).all(), "infinity"
                error = np.abs(
                    np.where(nan | infinite, 0, got).astype(np.longdouble) - np.where(nan | infinite, 0, want)
                )
            floor = (
                float(np.finfo(np.asarray(got).dtype).tiny) * 10
                if isinstance(got, ARRAYS) and got.dtype.kind == "f"
                else 0
            )
            assert error.max(initial=0) <= tolerance * scale + floor, f"{got} instead of {want}"
        elif isinstance(want, ARRAYS):
            assert np.array_equal(got, want), f"{got} instead of {want}"
        elif isinstance(want, float):
            assert got == want or (got != got and want != want) or abs(got - want) <= 1e-2 * abs(want), (
                f"{got} instead of {want}"
            )
        else:
            assert type(got) is type(want) and (got == want or got is want)


def arguments_in(name, dtype):
    """The right arguments of a call, copied, with all floating arrays in one dtype."""
    return rebuilt(copy.deepcopy(CALLS[name][1]), lambda a: plain(cast(dtype, a)))


def unreasonable(argument, value):
    """Right, but it would take forever or all memory; or not ours to judge."""
    if argument == "dtype" and not isinstance(value, str | type | None):
        return True  # NumPy's own dtypes of structures
    if argument == "approximate" and isinstance(value, np.ndarray):
        return True  # a twin in kernels/ asks `approximate in (...)` before the formula can complain
    if (
        argument == "state"
        and isinstance(value, dict)
        and "v" in value
        and any((v < 0).any() for v in floats(value["v"]))
    ):
        return True  # no sum of squares is negative
    sizes = ("n_new", "batch_size", "eval_windows", "steps", "vocab_size")
    return argument in sizes and isinstance(value, int) and value > 1000


def odd_calls(name, dtype):
    """(description, arguments) of the call with each single odd value."""
    for argument, right in arguments_in(name, dtype).items():
        for label, change in odd_values(right).items():
            arguments = arguments_in(name, dtype)
            if changed(arguments, argument, change):
                yield f"{name}({argument}={label}) in {dtype.__name__}", arguments


def changed(arguments, argument, change):
    """Put the odd value in its place; False where there is none, or it would prove nothing."""
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            arguments[argument] = change(arguments[argument])
    except (ValueError, TypeError, OverflowError):
        return False  # numbers that cannot be cast to such a dtype, say
    return not unreasonable(argument, arguments[argument])


# ------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("name", CALLS)
def test_the_right_arguments_give_a_result_in_every_dtype(name):
    for dtype in DTYPES.values():
        refused = name in ONLY_FLOAT64 if dtype != np.float64 else False
        refused |= dtype == np.float16 and name in (
            "adamw_step",
            "train_model",
            "train_image_model",
        )  # whose eps is 0 in float16
        assert judge(name, arguments_in(name, dtype)) == ("error" if refused else "result")


@pytest.mark.parametrize("name", CALLS)
def test_one_odd_argument_gives_a_right_result_or_an_error_that_names_it(name):
    for dtype in (DTYPES[d] for d in os.environ.get("MINITF_FUZZ_DTYPES", "float32,float64").split(",")):
        for description, arguments in odd_calls(name, dtype):
            counts[attempt(description, name, arguments)] += 1


@pytest.mark.parametrize("name", [name for name in CALLS if len(CALLS[name][1]) > 1])
@settings(max_examples=EXAMPLES)
@given(random=st.randoms(use_true_random=False), dtype=st.sampled_from([*DTYPES.values()]))
def test_two_odd_arguments_give_a_right_result_or_an_error_that_names_one(name, random, dtype):
    arguments, description = arguments_in(name, dtype), f"{name} in {dtype.__name__}"
    for argument in random.sample(sorted(arguments), 2):
        label, change = random.choice(list(odd_values(arguments[argument]).items()))
        if not changed(arguments, argument, change):
            return
        description += f", {argument}={label}"
    counts[attempt(description, name, arguments)] += 1


counts = {"result": 0, "error": 0}  # a line at the end says how many calls were judged


@pytest.fixture(scope="module", autouse=True)
def _say_how_many(request):
    yield
    print(f"{sum(counts.values())} odd calls judged: {counts}")


def attempt(description, name, arguments):
    try:
        return judge(name, arguments)
    except Exception as error:
        error.add_note(description)
        raise
