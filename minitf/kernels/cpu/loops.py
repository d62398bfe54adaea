"""The twins as numba compiles them, where it and SciPy are installed (extra `fast`); float32, exact erf.

A compiled loop reads and writes each number once, where NumPy makes a pass over the block for every operation.
And a compiled twin, matrix products included, runs without the GIL on threads of numba's own, which wait for the
next call awake: to hand a block to a sleeping Python thread and to wait for it costs some 200 µs, as long as a
block itself takes. Each function stands at the top of the module: numba's cache on disk finds no others.
"""

import contextlib
import functools
import math
import threading

import numpy as np
from numba import config, get_num_threads, get_thread_id, njit, prange, set_num_threads

from .. import threads
from .blas import TRANSPOSED, USES_MKL, sgemm

f4, i4 = np.float32, np.int32

# exp(r) = 1 + r + r² p(r) for |r| <= log(2)/2: Cephes, expf.c
P0, P1, P2, P3, P4, P5 = map(f4, (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666666e-1, 0.5))
LOG2E, LN2_HIGH, LN2_LOW = f4(math.log2(math.e)), f4(0.693359375), f4(math.log(2) - 0.693359375)
LOW, BIAS, UNIT = f4(-87), f4(127), f4(1 << 23)

# Φ(-|z|) = exp(-z²/2) (c0 t + ... + c5 t⁶), t = 1 / (1 + k |z|): scipy.special.erfcx fitted by Lawson's
# algorithm as in tests/test_twins.py; largest error in Φ: 9e-9
K = f4(0.2719641466)
C0, C1, C2, C3, C4, C5 = map(
    f4, (0.11858317, 0.0268095345, 0.372761456, -0.386308765, 0.487284945, -0.119130332)
)
DENSITY = f4(1 / math.sqrt(2 * math.pi))
ZERO, HALF, ONE = f4(0), f4(0.5), f4(1)
SAFE_LOW, SAFE_HIGH, SAFE_SCORE = f4(1e-15), f4(1e15), f4(30)


_one_team = threading.Lock()  # not all of numba's threading layers allow two callers at once


def jit(function, **options):
    """Compiled without the GIL; no fast math that would assume away NaN and infinity."""
    # Python's check for a division by 0 would stop SIMD
    options |= {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that the compiled code could be written to
        return njit(**options)(function)


def team(function):
    """Compiled; its prange is shared among as many threads as `threads.get_num_threads()` says."""
    loop = jit(function, parallel=True)

    @functools.wraps(function)
    def on_threads(*args):
        # MKL has no threads here
        with _one_team, contextlib.nullcontext() if USES_MKL else threads.single_threaded_blas():
            before = get_num_threads()
            set_num_threads(min(threads.get_num_threads(), config.NUMBA_NUM_THREADS))
            try:
                return loop(*args)
            finally:
                set_num_threads(before)

    return on_threads


@jit
def leading(a):
    """Whether the matrix is a transposed view, and the distance of its rows, or of its columns then."""
    transposed = a.strides[1] != 4
    return int(transposed), max(a.strides[1 if transposed else 0] // 4, a.shape[0 if transposed else 1])


@jit
def product(left, right, out, add=False):
    """out = left @ right, added to what is in out if `add`; rows or columns of left and right are contiguous."""
    numbers = np.empty(8, i4)
    left_kind, numbers[0] = leading(left)
    right_kind, numbers[1] = leading(right)
    numbers[2] = leading(out)[1]
    numbers[3], numbers[4], numbers[5] = out.shape[0], out.shape[1], left.shape[1]
    factors = numbers[6:].view(f4)
    factors[0], factors[1] = ONE, ONE if add else ZERO
    # sgemm has columns for rows: outᵀ = rightᵀ @ leftᵀ
    sgemm(
        TRANSPOSED[right_kind:].ctypes, TRANSPOSED[left_kind:].ctypes,
        numbers[4:].ctypes, numbers[3:].ctypes, numbers[5:].ctypes,
        factors.ctypes, right.ctypes, numbers[1:].ctypes, left.ctypes, numbers.ctypes,
        factors[1:].ctypes, out.ctypes, numbers[2:].ctypes,
    )  # fmt: skip


@jit
def exp(x, out, power, bits):
    """out = exp(x) for x <= 80, 0 below -87, NaN for NaN; power is bits seen as float32."""
    for j in range(x.size):
        n = np.floor(x[j] * LOG2E + HALF)
        bits[j] = i4(0) if x[j] < LOW else i4((n + BIAS) * UNIT)  # the float whose exponent is n
    for j in range(x.size):
        v = LOW if x[j] < LOW else x[j]
        n = np.floor(v * LOG2E + HALF)
        r = v - n * LN2_HIGH
        r = r - n * LN2_LOW
        p = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
        out[j] = (p * r * r + r + ONE) * power[j]


@jit
def square_norm(row):
    total = ZERO
    for j in range(row.size):
        total += row[j] * row[j]
    return total


@jit
def normal_cdf(x, bell):
    """Φ(x), with bell = exp(-x²/2)."""
    t = ONE / (ONE + K * abs(x))
    cdf = t * (C0 + t * (C1 + t * (C2 + t * (C3 + t * (C4 + t * C5))))) * bell
    return ONE - cdf if x > ZERO else cdf


@jit
def gelu_alone(a, factor, out):
    """out = GeLU(factor · a), one factor per row."""
    z, bits = np.empty(a.shape[1], f4), np.empty(a.shape[1], i4)
    power = bits.view(f4)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            x = a[i, j] * factor[i]
            z[j] = -HALF * x * x
        exp(z, out[i], power, bits)
        for j in range(a.shape[1]):
            x = a[i, j] * factor[i]
            out[i, j] = x * normal_cdf(x, out[i, j])


@jit
def gelu_rows(a, factor, out, slope):
    """out = GeLU(factor · a) and slope = 2 GeLU' there; one factor per row."""
    n = a.shape[1]
    z, bell, bits = np.empty(n, f4), np.empty(n, f4), np.empty(n, i4)
    power = bits.view(f4)
    for i in range(a.shape[0]):
        scale = factor[i]
        for j in range(n):
            x = a[i, j] * scale
            z[j] = -HALF * x * x
        exp(z, bell, power, bits)
        for j in range(n):
            x = a[i, j] * scale
            cdf = normal_cdf(x, bell[j])
            out[i, j] = x * cdf
            slope[i, j] = (cdf + cdf) + (DENSITY + DENSITY) * bell[j] * x


@team
def gelu(size, x, out, slope):
    """GeLU of flat arrays in blocks, and twice its slope."""
    for i in prange((len(x) + size - 1) // size):
        a, b = i * size, min((i + 1) * size, len(x))
        row = (1, b - a)
        gelu_rows(x[a:b].reshape(row), np.ones(1, f4), out[a:b].reshape(row), slope[a:b].reshape(row))


@team
def gelu_backward(size, dout, twice_slope, dx):
    for i in prange((len(dx) + size - 1) // size):
        for j in range(i * size, min((i + 1) * size, len(dx))):
            dx[j] = HALF * dout[j] * twice_slope[j]


@jit
def l2_norm_gelu_backward(dweights, a, slope, inverse, half_tau):
    """dscores in the memory of dweights; a: the scores, slope: 2 GeLU', inverse: 1 / norm of each row."""
    for i in range(a.shape[0]):
        along = ZERO
        for j in range(a.shape[1]):
            d = dweights[i, j] * slope[i, j]
            dweights[i, j] = d
            along += d * a[i, j]
        along *= inverse[i] * inverse[i]
        scale = half_tau * inverse[i]
        for j in range(a.shape[1]):
            dweights[i, j] = scale * (dweights[i, j] - along * a[i, j])


@jit
def pattention_block(x, key, value, tau, scores, inverse, out, weights):
    """l2_norm_gelu of some rows; False where a norm is so large or small that the formula has to do it."""
    product(x, key.T, scores)
    for i in range(len(x)):
        inverse[i] = ONE / np.sqrt(square_norm(scores[i]))
        if not SAFE_LOW < inverse[i] < SAFE_HIGH:
            return False
    gelu_alone(scores, tau * inverse, weights)
    product(weights, value, out)
    return True


@team
def pattention(size, x, key, value, tau, scores, inverse, out, safe, room):
    """Blocks of `size` rows; safe: for each block what `pattention_block` says; room: (threads, 1, size, n)."""
    for i in prange(len(safe)):
        a, b = i * size, min((i + 1) * size, len(x))
        weights = room[get_thread_id(), 0, : b - a]
        safe[i] = pattention_block(x[a:b], key, value, tau, scores[a:b], inverse[a:b], out[a:b], weights)


@jit
def add_transposed(size, start, left, right, out):
    """out = leftᵀ @ right[:len(left)] or, for a later start, out += leftᵀ @ right[start:][:len(left)].

    One block of `size` rows after the other, so that where a start lies changes no bit.
    """
    for a in range(0, len(left), size):
        b = min(a + size, len(left))
        product(left[a:b].T, right[start + a : start + b], out, start + a > 0)


@jit
def pattention_block_backward(dout, x, key, value, tau, scores, inverse, dx, weights, dscores, slope):
    """dx of some rows; weights and dscores are what the gradients of value and key need.

    Weights and slope are computed again: that is faster than to write them to memory and to read them.
    """
    gelu_rows(scores, tau * inverse, weights, slope)
    product(dout, value.T, dscores)
    l2_norm_gelu_backward(dscores, scores, slope, inverse, HALF * tau)
    product(dscores, key, dx)


@team
def pattention_backward(size, share, dout, x, key, value, tau, scores, inverse, dx, dkey, dvalue, room):
    """Some blocks of `size` rows, then what they add to each block of `share` tokens; and the next blocks.

    room: weights, dscores and slope of the rows that are worked on at once; their number changes no bit.
    """
    # by number: of what is unpacked, numba does not know that it is contiguous
    weights, dscores, slope = room[0], room[1], room[2]
    for start in range(0, len(x), len(weights)):
        stop = min(start + len(weights), len(x))
        for i in prange((stop - start + size - 1) // size):
            c, d = i * size, min((i + 1) * size, stop - start)
            a, b = start + c, start + d
            pattention_block_backward(
                dout[a:b], x[a:b], key, value, tau, scores[a:b], inverse[a:b], dx[a:b],
                weights[c:d], dscores[c:d], slope[c:d],
            )  # fmt: skip
        for i in prange((len(key) + share - 1) // share):
            first, last = i * share, min((i + 1) * share, len(key))
            add_transposed(size, start, weights[: stop - start, first:last], dout, dvalue[first:last])
            add_transposed(size, start, dscores[: stop - start, first:last], x, dkey[first:last])


@team
def linear(size, x, weight, out):
    """Blocks of `size` rows of x @ weightᵀ."""
    for i in prange((len(x) + size - 1) // size):
        a, b = i * size, min((i + 1) * size, len(x))
        product(x[a:b], weight.T, out[a:b])


@team
def linear_backward(size, share, dout, x, weight, dx, dweight):
    """dx in blocks of `size` rows, dweight in blocks of `share` rows of its own."""
    for i in prange((len(x) + size - 1) // size):
        a, b = i * size, min((i + 1) * size, len(x))
        product(dout[a:b], weight, dx[a:b])
    for i in prange((len(weight) + share - 1) // share):
        a, b = i * share, min((i + 1) * share, len(weight))
        add_transposed(size, 0, dout[:, a:b], x, dweight[a:b])


@team
def layer_norm(x, eps, normed, inverse):
    """normed = (x - mean) / std and inverse = 1 / std of each row."""
    share = ONE / f4(x.shape[1])
    for i in prange(len(x)):
        mean, square = ZERO, ZERO
        for j in range(x.shape[1]):
            mean += x[i, j]
        mean *= share
        for j in range(x.shape[1]):
            centered = x[i, j] - mean
            normed[i, j] = centered
            square += centered * centered
        inverse[i, 0] = ONE / np.sqrt(square * share + eps)
        for j in range(x.shape[1]):
            normed[i, j] *= inverse[i, 0]


@team
def layer_norm_backward(dnormed, normed, inverse, dx):
    """dx = (dnormed - mean(dnormed) - normed · mean(dnormed · normed)) / std of each row."""
    share = ONE / f4(normed.shape[1])
    for i in prange(len(normed)):
        mean, along = ZERO, ZERO
        for j in range(normed.shape[1]):
            mean += dnormed[i, j]
            along += dnormed[i, j] * normed[i, j]
        mean *= share
        along *= share
        for j in range(normed.shape[1]):
            dx[i, j] = inverse[i, 0] * (dnormed[i, j] - mean - normed[i, j] * along)


@team
def adamw(size, p, g, m, v, beta1, beta2, eps, scale, keep):
    """One step on flat arrays, in blocks: p = keep · p - scale · m / (√v + eps)."""
    rest1, rest2 = ONE - beta1, ONE - beta2
    for i in prange((p.size + size - 1) // size):
        for j in range(i * size, min((i + 1) * size, p.size)):
            m[j] = beta1 * m[j] + rest1 * g[j]
            v[j] = beta2 * v[j] + rest2 * (g[j] * g[j])
            p[j] = keep * p[j] - scale * m[j] / (np.sqrt(v[j]) + eps)


@jit
def turn(source, b, h, cos, sin, target):
    """Rotary positions of one head: source (B, T, H, head_dim), target (T, head_dim)."""
    half = cos.shape[1]
    for t in range(target.shape[0]):
        for j in range(half):
            first, second = source[b, t, h, j], source[b, t, h, j + half]
            target[t, j] = first * cos[t, j] - second * sin[t, j]
            target[t, j + half] = second * cos[t, j] + first * sin[t, j]
        for j in range(2 * half, target.shape[1]):
            target[t, j] = source[b, t, h, j]


@jit
def turn_back(source, b, h, cos, sin, target):
    """The same by the opposite angles: source (T, head_dim), target (B, T, H, head_dim)."""
    half = cos.shape[1]
    for t in range(source.shape[0]):
        for j in range(half):
            first, second = source[t, j], source[t, j + half]
            target[b, t, h, j] = first * cos[t, j] + second * sin[t, j]
            target[b, t, h, j + half] = second * cos[t, j] - first * sin[t, j]
        for j in range(2 * half, source.shape[1]):
            target[b, t, h, j] = source[t, j]


@jit
def tile_weights(q, k, scale, start, shift, known, weights):
    """exp(scale q · k - shift), 0 where a key is not visible; the shift is stored unless it is known.

    It is 0 where |q| |k| shows that no score is large, else the row's maximum.
    """
    product(q, k.T, weights)
    z, bits = np.empty(weights.shape[1], f4), np.empty(weights.shape[1], i4)
    power = bits.view(f4)
    longest = ZERO
    for j in range(len(k)):
        longest = max(longest, square_norm(k[j]))
    for i in range(len(q)):
        row, seen = weights[i], start + i + 1
        if not known:
            shift[i] = ZERO
            if not scale * scale * longest * square_norm(q[i]) < SAFE_SCORE * SAFE_SCORE:
                shift[i] = scale * row[:seen].max()
        for j in range(seen):
            z[j] = scale * row[j] - shift[i]
        exp(z[:seen], row[:seen], power, bits)
        row[seen:] = ZERO


@jit
def tile_room(tiles, offset, rows, keys):
    """Where a tile's weights are stored, or new memory where there is no room."""
    room = tiles[offset : offset + rows * keys] if tiles.size else np.empty(rows * keys, f4)
    return room.reshape((rows, keys))


@jit
def attention_head(b, h, tile, query, key, value, cos, sin, q, k, v, shift, inverse, tiles, out):
    scale = ONE / np.sqrt(f4(q.shape[3]))
    turn(query, b, h, cos, sin, q[b, h])
    turn(key, b, h, cos, sin, k[b, h])
    v[b, h] = value[b, :, h]
    offset = 0
    for start in range(0, q.shape[2], tile):
        stop = min(start + tile, q.shape[2])
        q_tile, k_seen, shift_tile = q[b, h, start:stop], k[b, h, :stop], shift[b, h, start:stop]
        weights = tile_room(tiles[b, h], offset, stop - start, stop)
        offset += weights.size
        tile_weights(q_tile, k_seen, scale, start, shift_tile, False, weights)
        product(weights, v[b, h, :stop], out[b, start:stop, h])
        for i in range(stop - start):
            total = ZERO
            for j in range(stop):
                total += weights[i, j]
            total = ONE / total
            inverse[b, h, start + i] = total
            for j in range(q.shape[3]):
                out[b, start + i, h, j] *= total


@team
def attention(tile, query, key, value, cos, sin, q, k, v, shift, inverse, tiles, out):
    """query, key, value, out: (B, T, H, head_dim); q, k (turned), v: (B, H, T, head_dim); tiles of `tile` queries."""
    n_heads = q.shape[1]
    for i in prange(q.shape[0] * n_heads):
        b, h = np.int64(i) // n_heads, np.int64(i) % n_heads
        attention_head(b, h, tile, query, key, value, cos, sin, q, k, v, shift, inverse, tiles, out)


@jit
def attention_head_backward(
    b, h, tile, dout, cos, sin, q, k, v, shift, inverse, tiles, out, dquery, dkey, dvalue
):
    length, head_dim = q.shape[2:]
    scale = ONE / np.sqrt(f4(head_dim))
    dq, dk, dv = np.empty(q.shape[2:], f4), np.zeros(q.shape[2:], f4), np.zeros(q.shape[2:], f4)
    offset = 0
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        q_tile, k_seen = q[b, h, start:stop], k[b, h, :stop]
        weights = tile_room(tiles[b, h], offset, stop - start, stop)
        offset += weights.size
        if not tiles.size:
            tile_weights(q_tile, k_seen, scale, start, shift[b, h, start:stop], True, weights)
        dheads, along = np.empty((stop - start, head_dim), f4), np.empty(stop - start, f4)
        for i in range(stop - start):
            total, factor = ZERO, inverse[b, h, start + i]
            for j in range(head_dim):
                d = dout[b, start + i, h, j] * factor
                dheads[i, j] = d
                total += d * out[b, start + i, h, j]
            along[i] = total
        product(weights.T, dheads, dv[:stop], True)
        dscores = np.empty((stop - start, stop), f4)
        product(dheads, v[b, h, :stop].T, dscores)
        for i in range(stop - start):
            for j in range(stop):
                dscores[i, j] = scale * weights[i, j] * (dscores[i, j] - along[i])
        product(dscores, k_seen, dq[start:stop])
        product(dscores.T, q_tile, dk[:stop], True)
    turn_back(dq, b, h, cos, sin, dquery)
    turn_back(dk, b, h, cos, sin, dkey)
    dvalue[b, :, h] = dv


@team
def attention_backward(tile, dout, cos, sin, q, k, v, shift, inverse, tiles, out, dquery, dkey, dvalue):
    """Shapes as in `attention`; dquery, dkey, dvalue: (B, T, H, head_dim)."""
    n_heads = q.shape[1]
    for i in prange(q.shape[0] * n_heads):
        b, h = np.int64(i) // n_heads, np.int64(i) % n_heads
        attention_head_backward(
            b, h, tile, dout, cos, sin, q, k, v, shift, inverse, tiles, out, dquery, dkey, dvalue
        )
