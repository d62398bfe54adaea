"""Causal attention in tiles of queries: half of the T x T square is never computed."""

import functools
import math
from typing import NamedTuple

import numpy as np

from ... import attention
from ..memory import empty, scratch
from ..threads import blocks, run
from .common import BLOCK, compiled, dot, formula, gradient, ones, plain

QUERY_ROWS = 64  # queries of a tile: keys after the tile's last query are never looked at
KEEP_LENGTH = (
    256  # tokens; up to here the tiles are small beside the other activations, and reading them faster
)
SAFE_SCORE = 30.0  # no row maximum is subtracted where all scores of a tile are this small


class AttentionCache(NamedTuple):
    query: np.ndarray  # (..., H, T, head_dim), rotated
    key: np.ndarray
    value: np.ndarray
    out: np.ndarray  # (..., T, H, head_dim)
    shift: np.ndarray  # (..., H, T): the weights are exp(scores - shift) · inverse_total
    inverse_total: np.ndarray
    tiles: np.ndarray  # (..., H, room): exp(scores - shift) tile after tile; no room for long sequences
    rotary: attention.RotaryCache

    @property
    def past(self):
        """The keys and values so far: what the next call takes as `past` to generate token by token."""
        return self.key, self.value

    @property
    def weights(self):
        """(..., H, T, T), computed when asked for."""
        scores = self.query @ self.key.swapaxes(-1, -2) / math.sqrt(self.query.shape[-1])
        visible = np.tri(scores.shape[-1], dtype=bool)
        weights = np.exp(np.where(visible, scores - self.shift[..., None], -math.inf))
        return weights / weights.sum(axis=-1, keepdims=True)


def causal_attention_forward(query, key, value, n_heads=1, rotary_fraction=0.0, past=None):
    """Long sequences keep nothing of size T x T."""
    if past is not None or not plain(query, key, value) or query.ndim < 2:
        return NotImplemented
    if not isinstance(n_heads, int) or n_heads < 1 or query.shape[-1] % n_heads:
        return NotImplemented
    if not query.shape == key.shape == value.shape:
        return NotImplemented
    if query.shape[-2] == 1 or query.shape[-1] // n_heads < 2:
        return NotImplemented
    *batch, length, d = query.shape
    dtype, head_dim = query.dtype, d // n_heads
    _, rotary = formula(attention.rotary_forward)(np.zeros((length, head_dim), dtype), rotary_fraction)
    inputs = [_by_head(a, n_heads) for a in (query, key, value)]
    shape = (math.prod(batch), n_heads, length, head_dim)
    q, k, v = (empty(shape, dtype) for _ in range(3))
    shift, inverse = (empty(shape[:3], dtype) for _ in range(2))
    room = sum((rows.stop - rows.start) * rows.stop for rows in _tiles(length))
    tiles = empty((*shape[:2], room if length <= KEEP_LENGTH else 0), dtype)
    out = empty((shape[0], length, n_heads, head_dim), dtype)
    arrays = *inputs, *rotary, q, k, v, shift, inverse, tiles, out
    if compiled(dtype) is not None:
        compiled(dtype).attention(_tiles(length)[0].stop, *arrays)
    else:
        _share_heads(_forward, shape, arrays)
    kept = (a.reshape(*batch, *a.shape[1:]) for a in (q, k, v, out, shift, inverse, tiles))
    return out.reshape(query.shape), AttentionCache(*kept, rotary)


def causal_attention_backward(dout, cache):
    """The tiles again. Long sequences recompute exp(scores), so that no T x T array is kept."""
    query, key, value, out, shift, inverse, tiles, rotary = cache
    *batch, n_heads, length, head_dim = query.shape
    dout = _by_head(gradient(dout, (*batch, length, n_heads * head_dim), query.dtype), n_heads)
    q, k, v, out = (a.reshape(-1, *a.shape[-3:]) for a in (query, key, value, out))
    shift, inverse, tiles = (a.reshape(len(q), n_heads, a.shape[-1]) for a in (shift, inverse, tiles))
    grads = [empty(out.shape, out.dtype) for _ in range(3)]
    arrays = dout, *rotary, q, k, v, shift, inverse, tiles, out, *grads
    if compiled(q.dtype) is not None:
        compiled(q.dtype).attention_backward(_tiles(length)[0].stop, *arrays)
    else:
        _share_heads(_backward, q.shape, arrays)
    return tuple(grad.reshape(*batch, length, n_heads * head_dim) for grad in grads)


def _share_heads(function, shape, arrays):
    """Share the sequences and heads of (B, H, T, head_dim) among the threads."""
    tasks = _head_tasks(shape)
    run(lambda i: function(*tasks[i], *arrays), len(tasks))


def _by_head(a, n_heads):
    """(..., T, d) -> (B, T, H, head_dim), a view where the array is C-contiguous."""
    return np.ascontiguousarray(a).reshape(-1, a.shape[-2], n_heads, a.shape[-1] // n_heads)


def _head_tasks(shape):
    """Slices of sequences and heads, so that a tile of all of them has about two blocks of scores."""
    batch, n_heads, length, _ = shape
    units = max(1, 2 * BLOCK // (min(QUERY_ROWS, length) * length))
    heads = blocks(n_heads, 1, units)
    return [(sequences, some) for sequences in blocks(batch, 1, max(1, units // n_heads)) for some in heads]


def _tiles(length):
    return blocks(length, 1, QUERY_ROWS)


# ----------------------------------------------------------------------------------- NumPy, some heads at once


def _forward(sequences, heads, query, key, value, cos, sin, q, k, v, shift, inverse, tiles, out):
    """Heads of sequences; query, key, value, out: (B, T, H, head_dim); q, k (turned), v: (B, H, T, head_dim)."""
    part = sequences, heads
    query, key, value, out = (a[sequences, :, heads].swapaxes(1, 2) for a in (query, key, value, out))
    q, k, v, shift, inverse, tiles = (a[part] for a in (q, k, v, shift, inverse, tiles))
    q[...], k[...], v[...] = query, key, value
    _turn(q, cos, sin)
    _turn(k, cos, sin)
    for rows, kept in _kept_tiles(tiles, q):
        weights = _tile_weights(q, k, rows, shift[:, :, rows], kept)
        np.divide(1, np.vecdot(weights, ones(weights)), out=inverse[:, :, rows])
        product = np.matmul(weights, v[:, :, : rows.stop], out=out[:, :, rows])
        product *= inverse[:, :, rows, None]


def _backward(sequences, heads, dout, cos, sin, q, k, v, shift, inverse, tiles, out, dquery, dkey, dvalue):
    part, dtype, scale = (sequences, heads), q.dtype, 1 / math.sqrt(q.shape[-1])
    dout, out, dquery, dkey, dvalue = (
        a[sequences, :, heads].swapaxes(1, 2) for a in (dout, out, dquery, dkey, dvalue)
    )
    q, k, v, shift, inverse, tiles = (a[part] for a in (q, k, v, shift, inverse, tiles))
    dk, dv, term = (scratch(name, k.shape, dtype) for name in ("dkey", "dvalue", "term"))
    for rows, kept in reversed([*_kept_tiles(tiles, q)]):  # the last tile sees all keys: it fills dk, dv
        seen, last = slice(0, rows.stop), rows.stop == q.shape[2]
        weights = _tile_weights(q, k, rows, shift[:, :, rows], known=True) if kept is None else kept
        # weights lack the factor `inverse`, which goes into dheads
        dheads = scratch("dheads", (*q.shape[:2], rows.stop - rows.start, q.shape[3]), dtype)
        np.multiply(dout[:, :, rows], inverse[:, :, rows, None], out=dheads)
        target = dv if last else term[:, :, seen]
        np.matmul(weights.swapaxes(-1, -2), dheads, out=target)
        if not last:
            dv[:, :, seen] += target
        dheads *= scale
        dscores = scratch("dscores", weights.shape, dtype)
        np.matmul(dheads, v[:, :, seen].swapaxes(-1, -2), out=dscores)
        dscores -= dot(dheads, out[:, :, rows])
        dscores *= weights
        np.matmul(dscores, k[:, :, seen], out=dquery[:, :, rows])
        target = dk if last else term[:, :, seen]
        np.matmul(dscores.swapaxes(-1, -2), q[:, :, rows], out=target)
        if not last:
            dk[:, :, seen] += target
    dkey[...], dvalue[...] = dk, dv
    _turn(dquery, cos, -sin)
    _turn(dkey, cos, -sin)


def _kept_tiles(tiles, q):
    """Rows of each tile with the room for its weights, (B, H, rows, keys); None where there is no room."""
    offset = 0
    for rows in _tiles(q.shape[2]):
        shape = (*q.shape[:2], rows.stop - rows.start, rows.stop)
        size = shape[2] * shape[3]
        yield rows, tiles[:, :, offset : offset + size].reshape(shape) if tiles.shape[2] else None
        offset += size


@functools.lru_cache(64)
def _causal_of(size, dtype):
    return np.tri(size, dtype=dtype)


def _tile_weights(q, k, rows, shift, out=None, known=False):
    """exp(q · k / √head_dim - shift) of a tile, 0 where a key is not visible; shift is an output unless known."""
    shape = (*q.shape[:2], rows.stop - rows.start, rows.stop)
    weights = scratch("scores", shape, q.dtype) if out is None else out
    np.matmul(q[:, :, rows], k[:, :, : rows.stop].swapaxes(-1, -2), out=weights)
    weights *= q.dtype.type(1 / math.sqrt(q.shape[-1]))
    mask = _causal_of(rows.stop - rows.start, q.dtype)  # 1 where a query of the tile sees a key of the tile
    if not known:
        shift[...] = 0
        largest = max(weights.max(), -weights.min())
        if not largest <= SAFE_SCORE:
            weights[..., rows] = np.where(mask, weights[..., rows], -math.inf)
            shift[...] = weights.max(axis=-1)
    if shift.any():
        weights -= shift[..., None]
        np.minimum(weights, 0, out=weights)  # what is not visible may be huge
    np.exp(weights, out=weights)
    weights[..., rows] *= mask
    return weights


def _turn(a, cos, sin):
    """Rotate the first channels of (B, H, T, head_dim) in place, 2 · (r/2) of them for cos and sin (T, r/2).

    Channels of one pair of halves are r/2 numbers long, too short for a ufunc's inner loop: they are copied
    side by side first, each half as one item of r/2 · itemsize bytes.
    """
    half = cos.shape[1]
    if not half:
        return
    a = a.swapaxes(1, 2)  # (B, T, H, head_dim)
    cos, sin = (np.repeat(angles[:, None], a.shape[2], axis=1) for angles in (cos, sin))  # (T, H, r/2)
    item = np.dtype({4: "u4", 8: "u8", 16: "c16"}.get(half * a.itemsize, f"V{half * a.itemsize}"))
    bytes_of = (a[..., start : start + half].view(np.uint8) for start in (0, half))
    views = [b.view(item)[..., 0] for b in bytes_of]  # (B, T, H)
    first, second = (np.ascontiguousarray(view).view(a.dtype).reshape(*a.shape[:3], -1) for view in views)
    turned = first * cos
    turned -= second * sin
    np.copyto(views[0], turned.view(item)[..., 0])
    second *= cos
    first *= sin
    second += first
    np.copyto(views[1], second.view(item)[..., 0])
