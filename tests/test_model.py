"""Whole models: shapes, names, initialization, the KV cache, and generation."""

import math

import helpers
import numpy as np
import pytest

from minitf import model
from minitf.backend import tree_items, tree_map

every_config = pytest.mark.parametrize("config", helpers.CONFIGS.values(), ids=helpers.CONFIGS)
both_models = pytest.mark.parametrize(
    "config", [helpers.tokenformer(), helpers.transformer()], ids=["tf", "t"]
)


# ---------------------------------------------------------------------------------- parameters and shapes


def test_a_tokenformer_has_the_releases_parameters_under_readable_names():
    names = [name for name, _ in tree_items(model.init_params(helpers.tokenformer(n_layers=1)))]
    assert names == [
        "embedding.weight",
        *(
            f"block_0.attention.{part}.{leaf}"
            for part in ("query", "key", "value", "proj")
            for leaf in ("key", "value")
        ),
        *("block_0.ffn.key", "block_0.ffn.value", "norm.weight", "norm.bias"),
    ]


def test_a_transformer_has_matrices_where_a_tokenformer_has_tokens():
    names = [name for name, _ in tree_items(model.init_params(helpers.transformer(n_layers=1)))]
    assert names == [
        "embedding.weight",
        *(f"block_0.attention.{part}.weight" for part in ("query", "key", "value", "proj")),
        *("block_0.ffn.up.weight", "block_0.ffn.down.weight", "norm.weight", "norm.bias"),
    ]


def test_options_add_their_parameters_and_no_others():
    plain = dict(tree_items(model.parameter_shapes(helpers.tokenformer(n_layers=1))))
    rich = helpers.tokenformer(n_layers=1, parametric_norm=True, tied=False, ffn_blocks=2)
    rich = dict(tree_items(model.parameter_shapes(rich)))
    assert set(rich) - set(plain) == {
        *(f"block_0.{norm}.{leaf}" for norm in ("attention_norm", "ffn_norm") for leaf in ("weight", "bias")),
        *(f"block_0.ffn.{block}.{leaf}" for block in ("first", "second") for leaf in ("key", "value")),
        "unembedding.weight",
    }


@every_config
def test_logits_and_gradients_have_the_shapes_they_should(config):
    params = model.init_params(config)
    ids, targets, mask = helpers.random_batch(config)
    logits, cache = model.forward(params, ids, config)
    assert logits.shape == (*ids.shape, config.vocab_size)
    assert logits.dtype == np.float32
    grads = model.backward(logits, cache)
    assert tree_map(lambda g: (g.shape, g.dtype), grads) == tree_map(lambda p: (p.shape, p.dtype), params)
    loss, _ = model.loss_and_grads(params, ids, targets, config, mask)
    assert loss == pytest.approx(math.log(config.vocab_size), rel=0.2)  # a new model knows nothing


@both_models
def test_ids_may_have_any_leading_dimensions(config):
    params = helpers.random_params(config)
    ids = np.random.default_rng(0).integers(0, 11, (2, 3, 5))
    logits, cache = model.forward(params, ids, config)
    alone, _ = model.forward(params, ids[1, 2], config)
    assert logits.shape == (2, 3, 5, 11)
    assert helpers.relative_error(alone, logits[1, 2]) < 1e-13
    assert model.backward(logits, cache)["embedding"]["weight"].shape == (11, 8)


@every_config
def test_changing_a_later_token_changes_no_earlier_logit(config):
    params = helpers.random_params(config)
    ids, _, _ = helpers.random_batch(config)
    changed = ids.copy()
    changed[:, 4:] = (changed[:, 4:] + 1) % config.vocab_size
    before, after = (model.forward(params, x, config)[0] for x in (ids, changed))
    assert helpers.relative_error(after[:, :4], before[:, :4]) < 1e-13
    assert helpers.relative_error(after[:, 4:], before[:, 4:]) > 1e-3


def test_a_tied_embedding_gets_the_gradient_of_both_of_its_jobs():
    tied, untied = (helpers.tokenformer(n_layers=1, tied=tied) for tied in (True, False))
    params = helpers.random_params(tied)
    ids, targets, mask = helpers.random_batch(tied)
    _, grads = model.loss_and_grads(params, ids, targets, tied, mask)
    _, apart = model.loss_and_grads(params | {"unembedding": params["embedding"]}, ids, targets, untied, mask)
    both = apart["embedding"]["weight"] + apart["unembedding"]["weight"]
    assert helpers.relative_error(grads["embedding"]["weight"], both) < 1e-13


def test_masked_targets_do_not_matter():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    ids, targets, mask = helpers.random_batch(config)
    loss, grads = model.loss_and_grads(params, ids, targets, config, mask)
    other, other_grads = model.loss_and_grads(params, ids, np.where(mask, targets, 0), config, mask)
    assert loss == other
    assert helpers.fingerprint(grads) == helpers.fingerprint(other_grads)


def test_the_taus_of_the_config_reach_their_layers():
    base = helpers.tokenformer(proj_tokens=6, ffn_blocks=2)
    params = helpers.random_params(base)
    ids, _, _ = helpers.random_batch(base)
    logits, _ = model.forward(params, ids, base)
    sizes = {"attention_tau": 5, "proj_tau": 6, "ffn_tau": 7}
    born = helpers.tokenformer(
        proj_tokens=6, ffn_blocks=2, **{name: math.sqrt(n) for name, n in sizes.items()}
    )
    assert np.array_equal(model.forward(params, ids, born)[0], logits)
    for name in sizes:
        moved = helpers.tokenformer(proj_tokens=6, ffn_blocks=2, **{name: 1.0})
        assert helpers.relative_error(model.forward(params, ids, moved)[0], logits) > 1e-3, name


def test_a_proj_that_follows_attention_tokens_follows_its_tau():
    assert helpers.tokenformer(attention_tau=1.5).tau("proj") == 1.5
    assert helpers.tokenformer(attention_tau=1.5, proj_tokens=9).tau("proj") == 3.0


# -------------------------------------------------------------------------------------- initialization


def test_a_tokenformer_is_initialized_as_the_release_does_it():
    config = model.TokenformerConfig(500, 8, 6, 256, 4, attention_tokens=200, ffn_tokens=300)
    params = model.init_params(config, dtype=np.float64)
    wang = 2 / (6 * math.sqrt(256))  # facts 1.3: 0.0208
    for name, array in tree_items(params):
        if name.startswith("norm"):
            continue
        expected = wang if name.endswith(".value") else 0.02
        assert array.std() == pytest.approx(expected, rel=0.03), name
        assert abs(array.mean()) < 5 * expected / math.sqrt(array.size), name
    assert (params["norm"]["weight"] == 1).all()
    assert not params["norm"]["bias"].any()


def test_a_transformer_writes_to_the_residual_stream_with_the_same_std():
    config = model.TransformerConfig(500, 8, 6, 256, 4, d_ff=512, parametric_norm=True)
    params = model.init_params(config)
    block = params["block_3"]
    for matrix, expected in (
        (block["attention"]["query"]["weight"], 0.02),
        (block["ffn"]["up"]["weight"], 0.02),
        (block["attention"]["proj"]["weight"], 2 / (6 * 16)),
        (block["ffn"]["down"]["weight"], 2 / (6 * 16)),
    ):
        assert matrix.std() == pytest.approx(expected, rel=0.03)
    assert (block["ffn_norm"]["weight"] == 1).all()


def test_one_seed_is_one_model_in_every_dtype_and_another_seed_another():
    config = helpers.tokenformer()
    double, single = (model.init_params(config, seed=3, dtype=dtype) for dtype in (np.float64, np.float32))
    assert helpers.fingerprint(tree_map(lambda p: p.astype(np.float32), double)) == helpers.fingerprint(
        single
    )
    assert helpers.fingerprint(model.init_params(config, seed=3)) == helpers.fingerprint(single)
    assert helpers.fingerprint(model.init_params(config, seed=4)) != helpers.fingerprint(single)


# ------------------------------------------------------------------------------------------- KV cache


@every_config
@pytest.mark.parametrize("chunks", [[1] * 6, [3, 1, 2]], ids=["one by one", "chunks"])
def test_a_kv_cache_gives_the_logits_of_no_cache(config, chunks):
    params = helpers.random_params(config)
    ids, _, _ = helpers.random_batch(config)
    whole, _ = model.forward(params, ids, config)
    past, parts, start = None, [], 0
    for length in chunks:
        logits, cache = model.forward(params, ids[:, start : start + length], config, past)
        past, start = cache.past, start + length
        parts.append(logits)
    assert helpers.relative_error(np.concatenate(parts, axis=1), whole) < 1e-12


# ----------------------------------------------------------------------------------------- generation


def slow_greedy(params, ids, n_new, config):
    """Generation without a cache: crop to the context by hand, run everything, take the likeliest."""
    for _ in range(n_new):
        logits, _ = model.forward(params, ids[..., -config.context :], config)
        ids = np.concatenate([ids, logits[..., -1, :].argmax(axis=-1)[..., None]], axis=-1)
    return ids


PROMPT = np.array([3, 1, 4])


@both_models
@pytest.mark.parametrize("n_new", [0, 1, 4, 5, 6, 20])
def test_greedy_generation_equals_generation_without_a_cache_past_the_context_too(config, n_new):
    params = helpers.random_params(config)
    ids = model.generate(params, PROMPT, n_new, config, temperature=0)
    assert ids.tolist() == slow_greedy(params, PROMPT, n_new, config).tolist()


@both_models
@pytest.mark.parametrize("length", [8, 9, 30])
def test_a_prompt_as_long_as_the_context_or_longer_is_cropped_but_returned_whole(config, length):
    params = helpers.random_params(config)
    prompt = np.random.default_rng(0).integers(0, 11, length)
    ids = model.generate(params, prompt, 5, config, temperature=0)
    assert ids.shape == (length + 5,)
    assert ids.tolist() == slow_greedy(params, prompt, 5, config).tolist()


def test_a_batch_of_prompts_is_as_many_single_prompts():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    prompts = np.random.default_rng(0).integers(0, 11, (3, 4))
    together = model.generate(params, prompts, 10, config, temperature=0)
    alone = [model.generate(params, prompt, 10, config, temperature=0).tolist() for prompt in prompts]
    assert together.tolist() == alone


def test_a_seed_fixes_a_sample_and_another_seed_gives_another():
    config = helpers.tokenformer()
    params = model.init_params(config)
    samples = [model.generate(params, PROMPT, 30, config, seed=seed).tolist() for seed in (0, 0, 1)]
    assert samples[0] == samples[1]
    assert samples[0] != samples[2]
    assert samples[0][:3] == PROMPT.tolist()
    assert set(samples[0]) <= set(range(11))


def test_top_1_is_greedy_and_top_k_of_all_changes_nothing():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    greedy = model.generate(params, PROMPT, 12, config, temperature=0)
    assert model.generate(params, PROMPT, 12, config, top_k=1).tolist() == greedy.tolist()
    free = model.generate(params, PROMPT, 12, config, seed=5)
    for top_k in (11, 100):
        assert model.generate(params, PROMPT, 12, config, top_k=top_k, seed=5).tolist() == free.tolist()


def test_top_k_samples_only_the_k_likeliest_but_all_of_them():
    config = helpers.tokenformer()
    params = model.init_params(config)
    logits, _ = model.forward(params, PROMPT, config)
    likeliest = set(np.argsort(logits[-1])[-3:].tolist())
    sampled = {int(model.generate(params, PROMPT, 1, config, top_k=3, seed=seed)[-1]) for seed in range(60)}
    assert sampled == likeliest


def test_samples_follow_the_softmax_at_the_temperature_asked_for():
    config = helpers.tokenformer(n_layers=1)
    params = helpers.random_params(config)
    logits, _ = model.forward(params, PROMPT, config)
    prompts = np.tile(PROMPT, (4000, 1))
    for temperature in (0.5, 1.0, 2.0):
        exp = np.exp((logits[-1] - logits[-1].max()) / temperature)
        sampled = model.generate(params, prompts, 1, config, temperature=temperature)[:, -1]
        share = np.bincount(sampled, minlength=11) / 4000
        assert np.abs(share - exp / exp.sum()).max() < 0.04  # 5 standard deviations of a share of one half


def test_generation_changes_neither_params_nor_prompt():
    config = helpers.tokenformer()
    params, prompt = helpers.random_params(config), PROMPT.copy()
    before = helpers.fingerprint(params, {"prompt": prompt})
    model.generate(params, prompt, 12, config)
    assert helpers.fingerprint(params, {"prompt": prompt}) == before


# -------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3}, "3 heads do not divide d_model 8"),
        ({"d_model": 0}, "d_model is 0: it must be a positive integer"),
        ({"n_layers": 1.5}, "n_layers is 1.5: it must be a positive integer"),
        ({"attention_tokens": -4}, "attention_tokens is -4"),
        ({"proj_tokens": 0}, "proj_tokens is 0"),
        ({"ffn_tokens": True}, "ffn_tokens is True"),
        ({"ffn_blocks": 3}, "ffn_blocks is 3: choose 1"),
        ({"theta": "relu"}, "theta 'relu' is unknown: choose one of l2_norm_gelu"),
        ({"approximate": "erf"}, "approximate is 'erf': choose 'none' or 'tanh'"),
        ({"attention_tau": 0.0}, "tau is 0.0: it must be positive"),
        ({"ffn_tau": math.nan}, "tau is nan: it must be positive"),
        ({"rotary_fraction": 1.5}, "rotary_fraction is 1.5"),
        ({"n_heads": 8}, "width 1 has no pair of channels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_makes_no_model_says_why(changes, message):
    with pytest.raises(ValueError, match=message):
        helpers.tokenformer(**changes)


def test_a_config_cannot_be_changed_behind_a_models_back():
    with pytest.raises(AttributeError):
        helpers.tokenformer().d_model = 16
