"""What students get wrong: every mistake is an error whose message holds the word that helps; no input is changed."""

import fake_cupy
import helpers
import numpy as np
import pytest

from minitf import attention, growth, model, ops, optim, pattention
from minitf.backend import to_device, tree_map


def ones(*shape, dtype=np.float64):
    return np.ones(shape, dtype)


def ids(*values):
    return np.array(values)


X = ones(2, 3)  # two tokens, three channels

WIDTHS = {
    "linear: weight transposed": (
        lambda: ops.linear_forward(X, ones(3, 5)),
        r"weight must be \(d_out, d_in\).*transposed\?",
    ),
    "linear: weight a vector": (lambda: ops.linear_forward(X, ones(3)), r"weight must be \(d_out, d_in\)"),
    "linear: x a number": (lambda: ops.linear_forward(np.array(1.0), ones(5, 3)), "x has shape"),
    "linear: bias": (lambda: ops.linear_forward(X, ones(5, 3), ones(3)), "bias has shape.*weight has 5 rows"),
    "layer norm: weight": (lambda: ops.layer_norm_forward(X, ones(2)), "weight has shape.*have 3 entries"),
    "layer norm: bias": (lambda: ops.layer_norm_forward(X, ones(3), ones(2)), "bias has shape"),
    "cross-entropy: targets": (
        lambda: ops.cross_entropy_forward(X, ids(0)),
        r"targets has shape \(1,\), but \(2,\)",
    ),
    "cross-entropy: mask": (lambda: ops.cross_entropy_forward(X, ids(0, 1), ones(1) > 0), "mask has shape"),
    "pattention: value for key": (
        lambda: pattention.pattention_forward(X, ones(4, 5), ones(4, 3)),
        "key has 5 columns but x has 3: did you pass value",
    ),
    "pattention: token counts": (
        lambda: pattention.pattention_forward(X, ones(4, 3), ones(5, 3)),
        r"key has 4 tokens \(rows\) but value has 5",
    ),
    "pattention: key a vector": (
        lambda: pattention.pattention_forward(X, ones(3), ones(4, 3)),
        "one row per parameter token",
    ),
    "pattention: mask": (
        lambda: pattention.pattention_forward(X, ones(4, 3), ones(4, 3), mask=ones(3, 4) > 0),
        r"mask has shape \(3, 4\) but the scores have \(2, 4\)",
    ),
    "pattention: mask that would add an axis": (
        lambda: pattention.pattention_forward(X, ones(4, 3), ones(4, 3), mask=ones(2, 2, 4) > 0),
        r"mask has shape \(2, 2, 4\)",
    ),
    "theta: no tokens": (
        lambda: pattention.theta_forward(ones(2, 0)),
        "last axis must hold the parameter tokens",
    ),
    "rotary: no positions": (lambda: attention.rotary_forward(ones(4)), r"must be \(..., T, head_dim\)"),
    "attention: key": (
        lambda: attention.causal_attention_forward(X, ones(3, 3), X),
        r"key has shape \(3, 3\), but \(2, 3\) is needed",
    ),
    "attention: value": (lambda: attention.causal_attention_forward(X, X, ones(2, 4)), "value has shape"),
    "attention: heads": (
        lambda: attention.causal_attention_forward(X, X, X, n_heads=2),
        r"2 heads do not divide queries of shape \(2, 3\)",
    ),
    "attention: no heads": (
        lambda: attention.causal_attention_forward(X, X, X, n_heads=0),
        "0 heads do not divide",
    ),
    "config: heads": (lambda: helpers.transformer(n_heads=3), "3 heads do not divide d_model 8"),
}

CHOICES = {
    "gelu": (lambda: ops.gelu_forward(X, approximate="fast"), "choose 'none' or 'tanh'"),
    "theta": (
        lambda: pattention.theta_forward(X, "relu"),
        "theta 'relu' is unknown: choose one of l2_norm_gelu",
    ),
    "tau zero": (lambda: pattention.theta_forward(X, tau=0), "tau is 0.0: it must be positive and finite"),
    "tau nan": (lambda: pattention.theta_forward(X, tau=np.nan), "tau is nan"),
    "rotary fraction": (lambda: attention.rotary_forward(X, fraction=2), "a share of each head, from 0 to 1"),
    "cross-entropy of nothing": (
        lambda: ops.cross_entropy_forward(X, ids(0, 1), np.zeros(2, bool)),
        "no token to average over",
    ),
}

DTYPES = {
    "linear of integers": (
        lambda: ops.linear_forward(X.astype(int), ones(5, 3)),
        r"x has dtype int64: convert it to floats, as in x.astype\(np.float32\)",
    ),
    "two precisions": (
        lambda: pattention.pattention_forward(X, ones(4, 3, dtype=np.float32), ones(4, 3)),
        "x is float64, key is float32.*one dtype",
    ),
    "softmax of integers": (lambda: ops.softmax_forward(ids(1, 2)), "x has dtype int64"),
    "gelu of booleans": (lambda: ops.gelu_forward(X > 0), "x has dtype bool"),
    "layer norm of integers": (lambda: ops.layer_norm_forward(ids(1, 2)), "x has dtype int64"),
    "logits of integers": (
        lambda: ops.cross_entropy_forward(X.astype(int), ids(0, 1)),
        "logits has dtype int64",
    ),
    "theta of integers": (lambda: pattention.theta_forward(ids(1, 2)), "scores has dtype int64"),
    "mask of numbers": (
        lambda: pattention.pattention_forward(X, ones(4, 3), ones(4, 3), mask=ones(2, 4)),
        "mask has dtype float64: pass booleans, True where a token is kept",
    ),
    "loss mask of numbers": (
        lambda: ops.cross_entropy_forward(X, ids(0, 1), ids(0, 1)),
        "mask has dtype int64: pass booleans",
    ),
    "embedding ids of floats": (
        lambda: ops.embedding_forward(ones(2), X),
        "ids must be an integer array, not float64",
    ),
    "targets of floats": (lambda: ops.cross_entropy_forward(X, ones(2)), "targets must be an integer array"),
    "a list": (lambda: ops.linear_forward([[1.0]], ones(1, 1)), "x is a builtins.list.*np.asarray"),
    "a list of ids": (lambda: ops.embedding_forward([1, 2], X), "ids is a builtins.list"),
}

RANGES = {
    "embedding: too large": (lambda: ops.embedding_forward(ids(0, 2), X), "ids contain 2.*ids 0 to 1"),
    "embedding: negative": (lambda: ops.embedding_forward(ids(0, -1), X), "ids contain -1.*ids 0 to 1"),
    "targets: too large": (lambda: ops.cross_entropy_forward(X, ids(0, 3)), "targets contain 3.*ids 0 to 2"),
    "targets: negative": (lambda: ops.cross_entropy_forward(X, ids(-100, 0)), "targets contain -100"),
}


def table(cases):
    return pytest.mark.parametrize(("call", "message"), cases.values(), ids=cases)


@table(WIDTHS | CHOICES)
def test_wrong_widths_and_choices(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@table(DTYPES)
def test_wrong_dtypes(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@table(RANGES)
def test_ids_outside_the_vocabulary(call, message):
    with pytest.raises(IndexError, match=message):
        call()


# ------------------------------------------------------------------------------------------ whole models

CONFIG = helpers.tokenformer()
both = pytest.mark.parametrize("config", [CONFIG, helpers.transformer()], ids=["tokenformer", "transformer"])
callers = pytest.mark.parametrize(
    "call",
    [
        lambda params, ids, config: model.forward(params, ids, config),
        lambda params, ids, config: model.loss_and_grads(params, ids, np.zeros(np.shape(ids), int), config),
        lambda params, ids, config: model.generate(params, ids, 2, config),
    ],
    ids=["forward", "loss_and_grads", "generate"],
)


@both
@callers
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (ids(0, 11), IndexError, "ids contain 11.*ids 0 to 10"),
        (ids(-1, 0), IndexError, "ids contain -1"),
        (ones(2), TypeError, "ids must be an integer array, not float64"),
        (3, TypeError, "ids must be an integer array, not int"),
        (np.zeros((1, 0), int), ValueError, "ids have shape.* at least one token|T >= 1 tokens"),
        (np.array(3), ValueError, "ids have shape"),
        ([1, 2], TypeError, "ids is a builtins.list.*np.asarray makes one from a list"),
        ("text", TypeError, "ids is a builtins.str"),
    ],
    ids=["too large", "negative", "floats", "a number", "empty", "no dimensions", "a list", "a text"],
)
def test_bad_ids_in_every_function_that_takes_them(config, call, bad, error, message):
    params = helpers.random_params(config)
    before = helpers.fingerprint(params)
    with pytest.raises(error, match=message):
        call(params, bad, config)
    assert helpers.fingerprint(params) == before


@both
def test_more_tokens_than_the_context_are_an_error_forward_and_a_sliding_window_in_generate(config):
    params = helpers.random_params(config)
    long = np.zeros(9, int)
    for call in (model.forward, lambda p, x, c: model.loss_and_grads(p, x, x, c)):
        with pytest.raises(
            ValueError, match="9 tokens are more than the context of 8.*generate, whose window slides"
        ):
            call(params, long, config)
    _, cache = model.forward(params, long[:6], config)
    with pytest.raises(ValueError, match="9 tokens are more than the context of 8"):
        model.forward(params, long[:3], config, cache.past)
    assert model.generate(params, long, 5, config).shape == (14,)


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"top_k": 0}, {"n_new": -1}], ids=lambda options: next(iter(options))
)
def test_generation_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="n_new and temperature must be at least 0, and top_k at least 1"):
        model.generate(helpers.random_params(CONFIG), ids(1), config=CONFIG, **{"n_new": 1} | options)


def test_targets_and_gradients_of_another_shape():
    params = helpers.random_params(CONFIG)
    with pytest.raises(ValueError, match=r"targets has shape \(2,\), but \(3,\) is needed"):
        model.loss_and_grads(params, ids(1, 2, 3), ids(1, 2), CONFIG)
    _, cache = model.forward(params, ids(1, 2, 3), CONFIG)
    with pytest.raises(ValueError, match=r"dlogits has shape \(2, 11\), but \(3, 11\) is needed"):
        model.backward(ones(2, 11), cache)


@pytest.mark.parametrize(
    "config",
    [helpers.tokenformer(n_layers=3), helpers.tokenformer(d_model=16), helpers.tokenformer(tied=False)],
    ids=["more layers", "wider", "untied"],
)
def test_params_of_another_config_are_found_out_by_check_params(config):
    with pytest.raises(ValueError, match="do they belong together|params .* has shape"):
        model.check_params(helpers.random_params(CONFIG), config)


def test_params_in_two_precisions_are_refused_by_forward():
    params = helpers.random_params(CONFIG)
    params["block_1"] = tree_map(np.float32, params["block_1"])
    with pytest.raises(ValueError, match="float32.*float64.*one floating dtype"):
        model.forward(params, ids(1, 2), CONFIG)


# ---------------------------------------------------------------------------------------- mixed devices


@pytest.mark.parametrize(
    "pair", [pair for pair in helpers.PAIRS if len(pair.arrays) > 1], ids=lambda pair: pair.name
)
def test_every_pair_refuses_arrays_on_two_devices(pair):
    with fake_cupy.installed():
        first, *others = pair.arrays.values()
        with pytest.raises(TypeError, match="on the GPU and .* is not: did you call to_device"):
            pair.forward(to_device(first, "cuda"), *others, **pair.extra)


def test_the_optimizer_and_growth_refuse_trees_on_two_devices():
    params = helpers.random_params(CONFIG)
    with fake_cupy.installed():
        moved = to_device(params, "cuda")
        state = optim.adamw_init(params)
        before = helpers.fingerprint(params)
        with pytest.raises(TypeError, match="grad is on the GPU and param is not: did you call to_device"):
            optim.adamw_step(params, moved, state, lr=0.1)
        assert helpers.fingerprint(params) == before
        with pytest.raises(TypeError):
            growth.grow_state(state, moved)


# -------------------------------------------------------------------------------------- gradients' shape


# a loss is a number, and rotary passes channels that it does not turn: neither knows a shape to check against
SHAPED = [pair for pair in helpers.PAIRS if not pair.name.startswith(("cross_entropy", "rotary"))]


@pytest.mark.parametrize("pair", SHAPED, ids=lambda pair: pair.name)
def test_a_gradient_of_the_wrong_shape_is_refused(pair):
    out, cache = pair.forward(*pair.arrays.values(), **pair.extra)
    with pytest.raises(ValueError, match="(dout|dweights) has shape"):
        pair.backward(np.ones((*out.shape[:-1], out.shape[-1] + 1)), cache)


# -------------------------------------------------------------------------------- nothing is changed


@pytest.mark.parametrize("pair", helpers.PAIRS, ids=lambda pair: pair.name)
def test_no_pair_changes_its_inputs_its_cache_or_the_gradient_it_gets(pair):
    inputs = pair.arrays | pair.extra
    before = helpers.fingerprint(inputs)
    out, cache = pair.forward(*pair.arrays.values(), **pair.extra)
    assert helpers.fingerprint(inputs) == before
    dout = np.asarray(np.random.default_rng(0).standard_normal(np.shape(out)))
    kept = helpers.fingerprint({"dout": dout, "out": np.asarray(out)})
    first = pair.backward(dout, cache)
    assert helpers.fingerprint(inputs) == before
    assert helpers.fingerprint({"dout": dout, "out": np.asarray(out)}) == kept
    second = pair.backward(dout, cache)  # nothing was accumulated, the cache is as it was
    for a, b in zip(*(g if isinstance(g, tuple) else (g,) for g in (first, second)), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("config", helpers.CONFIGS.values(), ids=helpers.CONFIGS)
def test_no_model_changes_its_params_or_its_batch(config):
    params = helpers.random_params(config)
    batch = dict(zip(("ids", "targets", "mask"), helpers.random_batch(config), strict=True))
    before = helpers.fingerprint(params, batch)
    first = model.loss_and_grads(params, batch["ids"], batch["targets"], config, batch["mask"])
    second = model.loss_and_grads(params, batch["ids"], batch["targets"], config, batch["mask"])
    assert helpers.fingerprint(params, batch) == before
    assert first[0] == second[0]
    assert helpers.fingerprint(first[1]) == helpers.fingerprint(second[1])
