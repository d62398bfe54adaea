"""Every op and both whole models against torch: the forward, and every gradient against autograd.

Errors are relative to the largest entry. Inputs are drawn so that this means something: scores of order one,
at least two parameter tokens (one token behind a norm has a gradient of exactly zero, so its rounding errors
have nothing to be relative to; `test_pattention` looks at that case; a single channel of x cancels in the same
way) and at least three channels per layer norm.
"""

import math
from functools import partial

import helpers
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
oracle = pytest.importorskip("minitf.oracle")

from minitf import attention, backend, model, ops, optim, pattention, vision  # noqa: E402

F = torch.nn.functional
torch.set_num_threads(1)  # the tensors are tiny
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-4}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: dtype.__name__)

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 7)
leading = st.lists(st.integers(1, 4), max_size=3).map(tuple)
taus = st.none() | st.floats(0.5, 4.0)
scales = st.sampled_from([1.0, 0.5, -2.0])
gelus = st.sampled_from(helpers.GELUS)
kinds = st.sampled_from(helpers.KINDS)


def judged(judge, arrays, dout):
    """torch's output and autograd's gradients, as NumPy arrays."""
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    out = judge(*tensors)
    out.backward(torch.tensor(dout))
    return [out.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)]


def assume_that_torch_keeps_its_digits(single, double):
    """A draw whose terms cancel so far that torch itself loses digits in float32 tells nothing about minitf."""
    assume(
        all(
            helpers.relative_error(a, b) < TOLERANCE[np.float32] / 10
            for a, b in zip(single, double, strict=True)
        )
    )


def compare(forward, backward, judge, arrays, dtype):
    """forward(*arrays) -> out, cache and backward(dout, cache), against judge(*tensors) -> out and autograd."""
    arrays = [array.astype(dtype) for array in arrays]
    out, cache = forward(*arrays)
    dout = np.asarray(np.random.default_rng(7).standard_normal(np.shape(out)), dtype)
    grads = backward(dout, cache)
    found = [out, *(grads if isinstance(grads, tuple) else (grads,))]
    expected = judged(judge, arrays, dout)
    if dtype is np.float32:
        double = judged(judge, [array.astype(float) for array in arrays], dout.astype(float))
        assume_that_torch_keeps_its_digits(expected, double)
    for position, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == dtype
        assert helpers.relative_error(a, b) < TOLERANCE[dtype], (
            f"gradient {position}" if position else "forward"
        )


def with_a_positive(x):
    """In GeLU's far left tail torch's 1 + erf keeps few digits: give every row something else to be measured by."""
    x[..., 0] = 0.1 + np.abs(x[..., 0])
    return x


# -------------------------------------------------------------------------------------------------- ops


@both_dtypes
@given(leading, sizes, sizes, st.booleans(), seeds)
@settings(max_examples=30)
def test_linear(dtype, shape, d_in, d_out, with_bias, seed):
    draw = np.random.default_rng(seed).standard_normal
    arrays = [draw((*shape, d_in)), draw((d_out, d_in)), *([draw(d_out)] if with_bias else [])]
    compare(ops.linear_forward, ops.linear_backward, F.linear, arrays, dtype)


@both_dtypes
@given(leading, sizes, gelus, seeds)
@settings(max_examples=30)
def test_gelu(dtype, shape, n, approximate, seed):
    x = with_a_positive(2 * np.random.default_rng(seed).standard_normal((*shape, n)))
    forward = partial(ops.gelu_forward, approximate=approximate)
    compare(forward, ops.gelu_backward, partial(F.gelu, approximate=approximate), [x], dtype)


@both_dtypes
@given(leading, st.integers(2, 7), seeds)
@settings(max_examples=30)
def test_softmax(dtype, shape, n, seed):
    x = np.random.default_rng(seed).standard_normal((*shape, n))
    compare(ops.softmax_forward, ops.softmax_backward, partial(torch.softmax, dim=-1), [x], dtype)


@both_dtypes
@given(leading, st.integers(3, 9), st.booleans(), st.booleans(), st.sampled_from([1e-5, 0.1]), seeds)
@settings(max_examples=40)
def test_layer_norm(dtype, shape, d, with_weight, with_bias, eps, seed):
    rng = np.random.default_rng(seed)
    arrays = {"x": rng.normal(1, 2, (*shape, d))}
    arrays |= {"weight": rng.standard_normal(d)} if with_weight else {}
    arrays |= {"bias": rng.standard_normal(d)} if with_bias else {}

    def by_name(function, *inputs):
        return function(**dict(zip(arrays, inputs, strict=True)))

    def judge(x, weight=None, bias=None):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    forward = partial(by_name, partial(ops.layer_norm_forward, eps=eps))
    compare(forward, ops.layer_norm_backward, partial(by_name, judge), arrays.values(), dtype)


@both_dtypes
@given(leading, sizes, sizes, seeds)
@settings(max_examples=30)
def test_embedding(dtype, shape, vocab_size, d, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocab_size, shape)
    judge = partial(F.embedding, torch.tensor(ids))
    weight = rng.standard_normal((vocab_size, d))
    compare(partial(ops.embedding_forward, ids), ops.embedding_backward, judge, [weight], dtype)


@both_dtypes
@given(leading, st.integers(2, 7), st.booleans(), seeds)
@settings(max_examples=40)
def test_cross_entropy(dtype, shape, vocab_size, masked, seed):
    rng = np.random.default_rng(seed)
    logits, targets = rng.standard_normal((*shape, vocab_size)), rng.integers(0, vocab_size, shape)
    mask = np.asarray(rng.random(shape) < 0.6) if masked else None
    if masked and not mask.any():
        mask = np.ones(shape, bool)

    def judge(logits):
        losses = F.cross_entropy(
            logits.reshape(-1, vocab_size), torch.tensor(targets.reshape(-1)), reduction="none"
        )
        return losses.mean() if mask is None else losses[torch.tensor(mask.reshape(-1))].mean()

    def forward(logits):
        return ops.cross_entropy_forward(logits, targets, mask)

    compare(forward, ops.cross_entropy_backward, judge, [logits], dtype)


# ------------------------------------------------------------------------------------------- pattention


@both_dtypes
@given(leading, st.integers(2, 9), kinds, taus, gelus, seeds)
@settings(max_examples=80)
def test_theta(dtype, shape, n, kind, tau, approximate, seed):
    scores = with_a_positive(np.random.default_rng(seed).standard_normal((*shape, n)))
    options = {"kind": kind, "tau": tau, "approximate": approximate}
    forward, judge = (partial(f, **options) for f in (pattention.theta_forward, oracle.theta))
    compare(forward, pattention.theta_backward, judge, [scores], dtype)


@both_dtypes
@given(
    st.lists(st.integers(2, 4), min_size=1, max_size=3).map(tuple),
    st.tuples(st.integers(2, 7), st.integers(4, 9), sizes),
    *(kinds, taus, gelus, scales, st.booleans(), seeds),
)
@settings(max_examples=120)
def test_pattention(dtype, shape, widths, kind, tau, approximate, scale, masked, seed):
    d_in, n, d_out = widths
    rng = np.random.default_rng(seed)
    x, key = rng.standard_normal((*shape, d_in)), rng.standard_normal((n, d_in)) / math.sqrt(d_in)
    key[1] = -key[0]  # every row has a positive score: see with_a_positive
    mask = None
    if masked:
        mask = rng.random((shape[-1], n)) < 0.7
        mask[:, :3] = True
    options = {"kind": kind, "tau": tau, "scale": scale, "approximate": approximate}
    forward = partial(pattention.pattention_forward, mask=mask, **options)
    judge = partial(oracle.pattention, mask=None if mask is None else torch.tensor(mask), **options)
    arrays = [x, key, rng.standard_normal((n, d_out))]
    compare(forward, pattention.pattention_backward, judge, arrays, dtype)


# -------------------------------------------------------------------------------------------- attention


@both_dtypes
@given(leading, sizes, st.integers(2, 9), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 50), seeds)
@settings(max_examples=40)
def test_rotary(dtype, shape, length, head_dim, fraction, offset, seed):
    x = np.random.default_rng(seed).standard_normal((*shape, length, head_dim))
    options = {"fraction": fraction, "offset": offset}
    forward, judge = (partial(f, **options) for f in (attention.rotary_forward, oracle.rotary))
    compare(forward, attention.rotary_backward, judge, [x], dtype)


@both_dtypes
@given(
    leading, st.integers(3, 7), st.integers(1, 3), st.integers(2, 5), st.sampled_from([0.0, 0.5, 1.0]), seeds
)
@settings(max_examples=40)
def test_causal_attention(dtype, shape, length, n_heads, head_dim, fraction, seed):
    arrays = np.random.default_rng(seed).standard_normal((3, *shape, length, n_heads * head_dim))
    options = {"n_heads": n_heads, "rotary_fraction": fraction}
    forward, judge = (
        partial(f, **options) for f in (attention.causal_attention_forward, oracle.causal_attention)
    )
    compare(forward, attention.causal_attention_backward, judge, list(arrays), dtype)


@both_dtypes
@given(leading, st.integers(3, 7), st.integers(1, 3), st.integers(2, 5), seeds)
@settings(max_examples=30)
def test_full_attention(dtype, shape, length, n_heads, head_dim, seed):
    arrays = np.random.default_rng(seed).standard_normal((3, *shape, length, n_heads * head_dim))
    forward, judge = (
        partial(f, n_heads=n_heads) for f in (attention.full_attention_forward, oracle.full_attention)
    )
    compare(forward, attention.full_attention_backward, judge, list(arrays), dtype)


# ---------------------------------------------------------------------------------------------- images


@both_dtypes
@given(leading, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), sizes, seeds)
@settings(max_examples=30)
def test_patch_embedding_is_a_convolution(dtype, shape, size, rows, columns, d, seed):
    draw = np.random.default_rng(seed).standard_normal
    arrays = [draw((*shape, rows * size, columns * size)), draw((d, size**2)), draw((rows * columns, d))]
    forward, backward = vision.patch_embedding_forward, vision.patch_embedding_backward
    compare(forward, backward, oracle.patch_embedding, arrays, dtype)


@both_dtypes
@pytest.mark.parametrize("config", helpers.IMAGE_CONFIGS.values(), ids=helpers.IMAGE_CONFIGS)
def test_whole_image_models(dtype, config):
    params = helpers.random_image_params(config, dtype=dtype)
    images, labels = helpers.random_images(config, dtype=dtype)
    loss, grads = vision.image_loss_and_grads(params, images, labels, config)
    tensors = oracle.to_torch(params)
    expected = F.cross_entropy(
        oracle.image_forward(tensors, torch.tensor(images), config), torch.tensor(labels)
    )
    expected.backward()
    assert abs(loss - expected.item()) < TOLERANCE[dtype] * expected.item()
    wanted = backend.tree_map(lambda tensor: tensor.grad.numpy(), tensors)
    error, name = helpers.tree_error(grads, wanted)
    assert error < TOLERANCE[dtype], name
    assert {grad.dtype for _, grad in backend.tree_items(grads)} == {np.dtype(dtype)}


# --------------------------------------------------------------------------------------------- models

skeletons = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(5, 12),
        "n_layers": st.integers(1, 2),
        "n_heads": st.sampled_from([1, 2]),
        "d_model": st.sampled_from([8, 12]),
        "rotary_fraction": st.sampled_from([0.0, 0.25, 1.0]),
        "parametric_norm": st.booleans(),
        "tied": st.booleans(),
        "approximate": gelus,
    }
)
tokens = st.integers(5, 9)
model_taus = st.none() | st.floats(
    0.5, 2.5
)  # larger ones, twice in a row, saturate a softmax: no gradient is left
tokenformers = st.builds(
    lambda skeleton, **own: model.TokenformerConfig(context=8, **skeleton, **own),
    skeletons,
    attention_tokens=tokens,
    ffn_tokens=tokens,
    proj_tokens=st.none() | tokens,
    ffn_blocks=st.sampled_from([1, 2]),
    theta=kinds,
    attention_tau=model_taus,
    ffn_tau=model_taus,
    proj_tau=model_taus,
)
transformers = st.builds(
    lambda skeleton, d_ff: model.TransformerConfig(context=8, d_ff=d_ff, **skeleton),
    skeletons,
    st.integers(5, 9),
)


@both_dtypes
@given(tokenformers | transformers, st.booleans(), seeds)
@settings(max_examples=60)
def test_whole_models(dtype, config, masked, seed):
    params = helpers.random_params(config, seed, dtype)
    ids, targets, mask = helpers.random_batch(config, seed, mask=masked)
    loss, grads = model.loss_and_grads(params, ids, targets, config, mask)
    expected_loss, expected = oracle.loss_and_grads(params, ids, targets, config, mask)
    if dtype is np.float32:
        double = backend.tree_map(lambda p: p.astype(float), params)
        _, exact = oracle.loss_and_grads(double, ids, targets, config, mask)
        leaves = ([leaf for _, leaf in backend.tree_items(tree)] for tree in (expected, exact))
        assume_that_torch_keeps_its_digits(*leaves)
    logits, _ = model.forward(params, ids, config)
    expected_logits = oracle.forward(oracle.to_torch(params, False), torch.tensor(ids), config)
    assert helpers.relative_error(logits, expected_logits.numpy()) < TOLERANCE[dtype]
    assert abs(loss - expected_loss) < TOLERANCE[dtype] * abs(expected_loss)
    error, name = helpers.tree_error(grads, expected)
    assert error < TOLERANCE[dtype], name
    assert {grad.dtype for _, grad in backend.tree_items(grads)} == {np.dtype(dtype)}


def test_the_judge_shares_no_number_of_tau_or_rotary_with_the_model_by_accident():
    """The oracle asks the config for tau and minitf for the rotated channels: write both out once."""
    config = helpers.tokenformer(
        attention_tokens=6,
        proj_tokens=9,
        ffn_tokens=4,
        proj_tau=2.5,
        n_layers=1,
        rotary_fraction=1.0,
        tied=False,
    )
    params = helpers.random_params(config)
    ids, _, _ = helpers.random_batch(config)
    tensors = oracle.to_torch(params, False)

    def pattention_layer(x, leaf, tau):
        scores = x @ leaf["key"].T
        scores = scores / (scores**2).sum(-1, keepdim=True).sqrt()
        return F.gelu(tau * scores) @ leaf["value"]

    def norm(x):
        return F.layer_norm(x, (8,))

    def turn(x):  # (B, T, 8), two heads of four channels as two complex numbers each
        x = x.reshape(2, 6, 2, 4)
        turned = torch.complex(x[..., :2], x[..., 2:])
        angle = torch.arange(6.0, dtype=torch.float64)[:, None, None] * torch.tensor(
            [1.0, 0.01], dtype=torch.float64
        )
        turned = turned * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], dim=-1)

    block, x = tensors["block_0"], tensors["embedding"]["weight"][torch.tensor(ids)]
    h, layers = norm(x), block["attention"]
    query, key, value = (
        pattention_layer(h, layers[name], math.sqrt(6)) for name in ("query", "key", "value")
    )
    scores = torch.einsum("bthc,bshc->bhts", turn(query), turn(key)) / math.sqrt(4)
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    h = torch.einsum("bhts,bshc->bthc", scores.softmax(-1), value.reshape(2, 6, 2, 4)).reshape(2, 6, 8)
    x = x + pattention_layer(h, layers["proj"], 2.5)
    x = x + pattention_layer(norm(x), block["ffn"], 2.0)
    expected = norm(x) * tensors["norm"]["weight"] + tensors["norm"]["bias"]
    expected = expected @ tensors["unembedding"]["weight"].T
    assert helpers.relative_error(model.forward(params, ids, config)[0], expected.numpy()) < 1e-12


# -------------------------------------------------------------------------------------------- optimizer


def torch_adamw(tensors, lr, weight_decay):
    """torch.optim.AdamW in the two groups that minitf makes by itself: matrices decay, vectors do not."""
    leaves = [tensor for _, tensor in backend.tree_items(tensors)]
    groups = [
        {"params": [t for t in leaves if t.ndim >= 2], "weight_decay": weight_decay},
        {"params": [t for t in leaves if t.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8), leaves


@pytest.mark.parametrize("max_norm", [0.3, 1e6], ids=["clipped", "not clipped"])
def test_fifty_adamw_steps_with_clipping_and_a_schedule_follow_torch(max_norm):
    rng = np.random.default_rng(0)
    params = {"matrix": rng.standard_normal((4, 3)), "norm": {"weight": rng.standard_normal(3)}}
    tensors = oracle.to_torch(params)
    optimizer, leaves = torch_adamw(tensors, lr=0.0, weight_decay=0.1)
    state = optim.adamw_init(params)
    for step in range(50):
        grads = backend.tree_map(lambda p: rng.standard_normal(p.shape), params)
        lr = optim.warmup_cosine(step, 0.1, 0.01, 5, 50)
        for tensor, (_, grad) in zip(leaves, backend.tree_items(grads), strict=True):
            tensor.grad = torch.tensor(grad)
        for group in optimizer.param_groups:
            group["lr"] = lr
        expected_norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm)
        optimizer.step()
        grads, norm = optim.clip_by_global_norm(grads, max_norm)
        params, state = optim.adamw_step(params, grads, state, lr)
        assert norm == pytest.approx(expected_norm.item(), rel=1e-12)
    error, name = helpers.tree_error(params, oracle.to_numpy(tensors))
    assert error < 1e-8, name


@pytest.mark.parametrize("name", ["tokenformer", "transformer untied, parametric, tanh"])
def test_fifty_training_steps_of_a_whole_model_stay_with_torch(name):
    config = helpers.CONFIGS[name]
    params = helpers.random_params(config, 3)
    tensors, state = oracle.to_torch(params), optim.adamw_init(params)
    optimizer, leaves = torch_adamw(tensors, lr=1e-2, weight_decay=0.1)
    for step in range(50):
        ids, targets, mask = helpers.random_batch(config, step, batch=4)
        optimizer.zero_grad()
        oracle.loss(tensors, *map(torch.tensor, (ids, targets)), config, torch.tensor(mask)).backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimizer.step()
        _, grads = model.loss_and_grads(params, ids, targets, config, mask)
        grads, _ = optim.clip_by_global_norm(grads, 1.0)
        params, state = optim.adamw_step(params, grads, state, lr=1e-2)
    error, leaf = helpers.tree_error(params, oracle.to_numpy(tensors))
    assert error < 1e-8, leaf
