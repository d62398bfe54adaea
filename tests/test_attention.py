"""Token-token attention by its properties: causality, the KV cache, and what a rotary position means."""

import math

import helpers
import numpy as np
import pytest

from minitf.attention import (
    causal_attention_backward,
    causal_attention_forward,
    merge_heads,
    rotary_backward,
    rotary_channels,
    rotary_forward,
    split_heads,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def qkv(rng, shape=(2, 6, 8)):
    return rng.standard_normal((3, *shape))


# -------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("rotary_fraction", [0.0, 0.5])
def test_changing_a_later_token_changes_no_earlier_output_bit(rng, rotary_fraction):
    before = qkv(rng)
    after = before.copy()
    after[:, :, 4:] += rng.standard_normal(after[:, :, 4:].shape)
    first, second = (causal_attention_forward(*x, 2, rotary_fraction)[0] for x in (before, after))
    assert np.array_equal(first[:, :4], second[:, :4])
    assert (first[:, 4:] != second[:, 4:]).any(axis=-1).all()


def test_no_gradient_reaches_a_later_token(rng):
    out, cache = causal_attention_forward(*qkv(rng), 2, 0.5)
    dout = np.zeros_like(out)
    dout[:, 2] = 1
    for grad in causal_attention_backward(dout, cache):
        assert not grad[:, 3:].any()


def test_attention_is_the_textbook_loop(rng):
    query, key, value = qkv(rng, (5, 6))
    out, _ = causal_attention_forward(query, key, value, n_heads=2)
    for head in (slice(0, 3), slice(3, 6)):
        for t in range(5):
            weights = np.exp([query[t, head] @ key[s, head] / math.sqrt(3) for s in range(t + 1)])
            expected = sum(w * value[s, head] for s, w in enumerate(weights)) / weights.sum()
            assert helpers.relative_error(out[t, head], expected) < 1e-13


def test_the_first_token_sees_only_itself(rng):
    query, key, value = qkv(rng)
    out, cache = causal_attention_forward(query, key, value, 2)
    assert np.allclose(out[:, 0], value[:, 0])
    assert np.allclose(cache.weights.sum(axis=-1), 1)
    assert not np.triu(cache.weights, 1).any()


@pytest.mark.parametrize("chunks", [[1] * 6, [4, 1, 1], [2, 3, 1]], ids=str)
def test_a_kv_cache_gives_what_no_cache_gives_even_in_chunks(rng, chunks):
    query, key, value = qkv(rng)
    whole, _ = causal_attention_forward(query, key, value, 2, 0.5)
    past, parts, start = None, [], 0
    for length in chunks:
        part = slice(start, start + length)
        out, cache = causal_attention_forward(query[:, part], key[:, part], value[:, part], 2, 0.5, past)
        past, start = cache.past, start + length
        parts.append(out)
    assert helpers.relative_error(np.concatenate(parts, axis=1), whole) < 1e-14


def test_there_is_no_backward_through_a_kv_cache(rng):
    query, key, value = qkv(rng)
    _, cache = causal_attention_forward(query, key, value, 2)
    out, cache = causal_attention_forward(query, key, value, 2, past=cache.past)
    with pytest.raises(ValueError, match="no backward through a KV cache"):
        causal_attention_backward(out, cache)


def test_huge_scores_do_not_overflow(rng):
    query, key, value = (1e4 * qkv(rng)).astype(np.float32)
    out, cache = causal_attention_forward(query, key, value, 2)
    assert np.isfinite(out).all()
    assert all(np.isfinite(grad).all() for grad in causal_attention_backward(np.ones_like(out), cache))


@pytest.mark.parametrize("shape", [(5, 8), (1, 5, 8), (2, 3, 5, 8)], ids=str)
def test_leading_dimensions_are_independent_sequences(rng, shape):
    x = qkv(rng, shape)
    out, _ = causal_attention_forward(*x, 2, 0.5)
    assert out.shape == shape
    alone, _ = causal_attention_forward(*(part.reshape(-1, 5, 8)[-1] for part in x), 2, 0.5)
    assert helpers.relative_error(out.reshape(-1, 5, 8)[-1], alone) < 1e-13


def test_heads_are_split_into_neighbouring_channels_and_merged_back(rng):
    x = rng.standard_normal((2, 3, 8))
    heads = split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2)
    assert np.array_equal(heads[1, 2, 0], x[1, 0, 4:6])
    assert np.array_equal(merge_heads(heads), x)


# ----------------------------------------------------------------------------------------------- rotary


@pytest.mark.parametrize(("head_dim", "channels"), [(64, 16), (80, 20), (96, 24)])
def test_the_released_sizes_rotate_a_quarter_of_each_head(head_dim, channels):
    assert rotary_channels(head_dim, 0.25) == channels


@pytest.mark.parametrize(
    ("head_dim", "fraction", "channels"), [(4, 0.25, 2), (8, 0.5, 4), (6, 1.0, 6), (10, 0.5, 4)]
)
def test_channels_come_in_pairs_rounded_down_but_at_least_one(head_dim, fraction, channels):
    assert rotary_channels(head_dim, fraction) == channels
    assert rotary_channels(head_dim, 0.0) == 0


def test_rotary_is_a_loop_over_half_split_pairs(rng):
    x = rng.standard_normal((5, 8))
    out, _ = rotary_forward(x, fraction=0.5, offset=3)  # channels 0..3 turn: pairs (0, 2) and (1, 3)
    expected = x.copy()
    for t in range(5):
        for i in range(2):
            angle = (3 + t) * 10000.0 ** (-2 * i / 4)
            a, b = x[t, i], x[t, i + 2]
            expected[t, i] = a * math.cos(angle) - b * math.sin(angle)
            expected[t, i + 2] = b * math.cos(angle) + a * math.sin(angle)
    assert helpers.relative_error(out, expected) < 1e-14


def test_rotary_is_multiplication_by_a_complex_phase(rng):
    x = rng.standard_normal((6, 8))
    out, _ = rotary_forward(x, fraction=1.0)
    phase = np.exp(1j * np.outer(np.arange(6), 10000.0 ** (-np.arange(4) / 4)))
    turned = (x[:, :4] + 1j * x[:, 4:]) * phase
    assert helpers.relative_error(out, np.concatenate([turned.real, turned.imag], axis=-1)) < 1e-14


def test_only_the_first_channels_turn_and_the_first_position_does_not(rng):
    x = rng.standard_normal((4, 16))
    out, _ = rotary_forward(x, fraction=0.25)
    assert np.array_equal(out[:, 4:], x[:, 4:])
    assert np.array_equal(out[0], x[0])
    assert (out[1:, :4] != x[1:, :4]).all()
    assert np.array_equal(rotary_forward(x, fraction=0.0)[0], x)


def test_scores_of_rotated_tokens_depend_on_their_distance_only(rng):
    query, key = rng.standard_normal((2, 1, 8))

    def score(query_position, key_position):
        turned_query, _ = rotary_forward(query, 1.0, offset=query_position)
        turned_key, _ = rotary_forward(key, 1.0, offset=key_position)
        return float(turned_query[0] @ turned_key[0])

    assert score(5, 2) == pytest.approx(score(105, 102), rel=1e-10)
    assert score(5, 2) == pytest.approx(score(3, 0), rel=1e-10)
    assert score(5, 2) != pytest.approx(score(5, 3), rel=1e-3)


def test_rotation_keeps_lengths_and_its_backward_turns_back(rng):
    x = rng.standard_normal((2, 5, 8))
    out, cache = rotary_forward(x, 0.5, offset=7)
    assert np.allclose(np.linalg.norm(out, axis=-1), np.linalg.norm(x, axis=-1))
    assert helpers.relative_error(rotary_backward(out, cache), x) < 1e-14


def test_an_offset_continues_where_the_sequence_stopped(rng):
    x = rng.standard_normal((6, 8))
    whole, _ = rotary_forward(x, 0.5)
    assert np.array_equal(rotary_forward(x[4:], 0.5, offset=4)[0], whole[4:])
