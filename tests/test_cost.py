"""Costs: the numbers of the release and the paper, and formulas that agree with what really runs."""

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitf import cost, model
from minitf.backend import tree_items, tree_map

RELEASED = {  # layers, width, heads -> parameters (facts 1.4; 150M: the training log's own number)
    "150M": (12, 768, 12, 151_881_216),
    "450M": (24, 1024, 16, 454_166_528),
    "900M": (32, 1280, 16, 903_252_480),
    "1.5B": (40, 1536, 16, 1_587_219_456),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_sizes_have_the_released_number_of_parameters(name):
    layers, d, heads, parameters = RELEASED[name]
    config = model.TokenformerConfig(50304, 2048, layers, d, heads, attention_tokens=d, ffn_tokens=4 * d)
    assert cost.count_parameters(config) == parameters


@pytest.mark.parametrize(
    ("attention_tokens", "ffn_tokens", "millions"),
    [(576, 2304, 123.6), (2140, 8560, 354.2), (4850, 19400, 753.8), (8620, 34480, 1309.7)],
    ids=["124M", "354M", "757M", "1.4B"],
)
def test_the_papers_growth_series_has_the_sizes_it_is_named_for(attention_tokens, ffn_tokens, millions):
    config = model.TokenformerConfig(50304, 1024, 12, 768, 12, attention_tokens, ffn_tokens)
    assert round(cost.count_parameters(config) / 1e6, 1) == millions


def test_table_3_of_the_paper_for_a_transformer():
    layers, d, vocab, t = 12, 768, 50304, 1024
    config = model.TransformerConfig(vocab, t, layers, d, 12, d_ff=4 * d)
    n = 12 * layers * d**2
    layer_parameters = cost.count_layer_parameters(config)
    assert layer_parameters == n
    assert cost.forward_flops(config, t) == 2 * n * t + 4 * layers * d * t**2 + 2 * vocab * d * t


def test_table_3_of_the_paper_for_a_tokenformer():
    layers, d, vocab, t = 12, 768, 50304, 1024
    config = model.TokenformerConfig(vocab, t, layers, d, 12, 576, 2304, proj_tokens=600)
    n = 2 * layers * d * (3 * 576 + 600 + 2304)
    layer_parameters = cost.count_layer_parameters(config)
    assert layer_parameters == n
    assert cost.forward_flops(config, t) == 2 * n * t + 4 * layers * d * t**2 + 2 * vocab * d * t


def test_the_papers_worked_example_of_layer_and_attention_costs():
    config = model.TokenformerConfig(50304, 1024, 12, 768, 12, 8620, 34480)  # "1.4B"
    assert 2 * cost.count_layer_parameters(config) * 1024 == pytest.approx(2.60e12, rel=0.01)
    quadratic = cost.forward_flops(config, 1024) - 1024 * (cost.forward_flops(config, 1) - 4 * 12 * 768)
    assert quadratic == pytest.approx(0.0387e12, rel=0.01)


def test_growth_leaves_the_cost_of_token_token_attention_alone_and_widening_does_not():
    def attention(config):
        quadratic = [cost.forward_flops(config, t) - t * cost.forward_flops(config, 1) for t in (8, 16)]
        return quadratic[1] - quadratic[0]

    assert attention(helpers.tokenformer(attention_tokens=50, ffn_tokens=70)) == attention(
        helpers.tokenformer()
    )
    assert attention(helpers.transformer(d_model=16)) == 2 * attention(helpers.transformer())


# ------------------------------------------------------------------------- the formulas and reality

sizes = st.integers(1, 9)
skeletons = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(2, 12),
        "n_layers": st.integers(1, 3),
        "n_heads": st.sampled_from([1, 2]),
        "d_model": st.sampled_from([4, 8, 12]),
        "parametric_norm": st.booleans(),
        "tied": st.booleans(),
        "rotary_fraction": st.sampled_from([0.0, 0.25]),
    }
)
tokenformers = st.builds(
    lambda skeleton, **own: model.TokenformerConfig(context=9, **skeleton, **own),
    skeletons,
    attention_tokens=sizes,
    ffn_tokens=sizes,
    proj_tokens=st.none() | sizes,
    ffn_blocks=st.sampled_from([1, 2]),
    theta=st.sampled_from(helpers.KINDS),
)
transformers = st.builds(
    lambda skeleton, d_ff: model.TransformerConfig(context=9, d_ff=d_ff, **skeleton), skeletons, sizes
)
any_config = tokenformers | transformers


@given(any_config)
@settings(max_examples=40)
def test_the_count_is_the_number_of_entries_of_the_tree(config):
    entries = sum(array.size for _, array in tree_items(model.init_params(config)))
    assert cost.count_parameters(config) == entries


@given(any_config, sizes, st.integers(1, 3))
@settings(max_examples=60)
def test_the_flop_formulas_are_what_really_runs_forward_and_backward(config, length, batch):
    counter = cost.FlopCounter()
    params = tree_map(counter.wrap, helpers.random_params(config))
    ids, targets, _ = helpers.random_batch(config, batch=batch, length=length)
    model.forward(params, ids, config)
    assert counter.flops == batch * cost.forward_flops(config, length)
    counter.flops = 0
    model.loss_and_grads(params, ids, targets, config)
    assert counter.flops == batch * cost.training_flops(config, length)


def test_counting_does_not_change_the_result():
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    ids, targets, mask = helpers.random_batch(config)
    loss, grads = model.loss_and_grads(params, ids, targets, config, mask)
    counter = cost.FlopCounter()
    counted_loss, counted = model.loss_and_grads(tree_map(counter.wrap, params), ids, targets, config, mask)
    assert loss == counted_loss
    assert helpers.fingerprint(grads) == helpers.fingerprint(tree_map(lambda g: g.view(np.ndarray), counted))


def test_the_counter_counts_products_and_nothing_else():
    counter = cost.FlopCounter()
    x = counter.wrap(np.ones((2, 3, 4)))
    y = (np.concatenate([x, x], axis=-1) + 1).sum(axis=0)
    assert counter.flops == 0
    y @ np.ones((8, 5))
    assert counter.flops == 2 * 3 * 8 * 5
    np.ones((5, 3)) @ y
    assert counter.flops == 2 * 3 * 8 * 5 + 2 * 5 * 3 * 8
    x.swapaxes(-1, -2) @ x  # a batch of two
    assert counter.flops == 2 * 3 * 8 * 5 + 2 * 5 * 3 * 8 + 2 * 2 * 4 * 3 * 4


def test_bytes_are_those_of_the_arrays_and_training_needs_four_times_as_many():
    config = helpers.tokenformer()
    for dtype in (np.float32, np.float64):
        arrays = [array for _, array in tree_items(model.init_params(config, dtype=dtype))]
        assert cost.parameter_bytes(config, dtype) == sum(array.nbytes for array in arrays)
        assert cost.parameter_bytes(config, dtype, training=True) == 4 * cost.parameter_bytes(config, dtype)
