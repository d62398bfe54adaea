"""Exercises of the first puzzles: shapes, up to the three gradients of Pattention."""

import numpy as np

from .core import Exercise


def row_sum(a):
    return a.sum(axis=-1, keepdims=True)


def random(*names):
    """sample: three draws of arrays with these letters as axes, every letter a size of its own."""

    def sample(rng):
        letters = sorted(set("".join(names)))
        for _ in range(3):
            sizes = dict(zip(letters, rng.permutation([2, 3, 4, 5, 6])[: len(letters)], strict=True))
            yield tuple(rng.standard_normal([sizes[letter] for letter in name]) for name in names)

    return sample


# -------------------------------------------------------------------------------------------- line up

OUTER = Exercise(
    reference=lambda a, b: a[:, None] * b,
    sample=random("n", "m"),
    mistakes={
        "is it transposed? a runs down the rows": lambda a, b: a * b[:, None],
        "is it a sum? The entries are products": lambda a, b: a[:, None] + b,
        "does a lack an axis? (n,) has to become (n, 1)": lambda a, b: a * b,
        "is it (1, n)? a has to stand upright, (n, 1)": lambda a, b: a[None, :] * b,
        "does @ want an axis to sum over? There is none here": lambda a, b: a @ b,
        "does it lack b? Every column is a": lambda a, b: a[:, None] + 0 * b,
    },
)

CENTER = Exercise(
    reference=lambda x: x - x.mean(axis=-1, keepdims=True),
    sample=random("td"),
    mistakes={
        "does the mean lack keepdims=True? (t,) does not line up with rows": lambda x: x - x.mean(axis=-1),
        "are the columns centered? A row is a token": lambda x: x - x.mean(axis=0),
        "is it one mean for the whole table?": lambda x: x - x.mean(),
        "is the sum subtracted, not the mean?": lambda x: x - row_sum(x),
        "is the sign wrong? Subtract the mean": lambda x: x + x.mean(axis=-1, keepdims=True),
        "is this the mean itself, spread over the row?": lambda x: x.mean(axis=-1, keepdims=True) + 0 * x,
    },
)

UNIT_ROWS = Exercise(
    reference=lambda a: a / row_sum(a * a) ** 0.5,
    sample=random("tn"),
    mistakes={
        "is the root missing?": lambda a: a / row_sum(a * a),
        "does the sum lack keepdims=True?": lambda a: a / (a * a).sum(axis=-1) ** 0.5,
        "do the columns get length 1? A row belongs to a token": lambda a: a / (a * a).sum(axis=0) ** 0.5,
        "is it one length for the whole table?": lambda a: a / (a * a).sum() ** 0.5,
        "are the entries not squared?": lambda a: a / row_sum(a),
        "is this the L1 norm, a sum of absolute values?": lambda a: a / row_sum(abs(a)),
        "is it a mean of squares? The length is the root of their sum": lambda a: (
            a / (a * a).mean(axis=-1, keepdims=True) ** 0.5
        ),
    },
)


def tables_and_ids(rng):
    for vocabulary, d, t in ((5, 3, 4), (4, 2, 6)):
        yield rng.standard_normal((vocabulary, d)), rng.integers(0, vocabulary, t)


PICK = Exercise(
    reference=lambda table, ids: table[ids],
    sample=tables_and_ids,
    mistakes={
        "are these columns? A token is a row of the table": lambda table, ids: table[:, ids],
        "is it transposed?": lambda table, ids: table[ids].T,
        "are these the first rows? ids says which": lambda table, ids: table[: len(ids)],
        "is it shifted by one? ids count from 0": lambda table, ids: table[ids - 1],
        "is this one number per token? Take the whole row": lambda table, ids: table[ids, 0],
        "is the order lost? Row t belongs to ids[t]": lambda table, ids: table[np.sort(ids)],
    },
)


def positions(rng):
    """Also the positions of a sequence that was cut out of a longer one, or shuffled."""
    for t in (4, 5):
        yield (np.arange(t),)
    yield (rng.permutation(6) + 3,)


MASK = Exercise(
    reference=lambda p: p[:, None] >= p,
    sample=positions,
    mistakes={
        "may nobody see itself? The diagonal is True": lambda p: p[:, None] > p,
        "is it transposed? A row sees the columns before it": lambda p: p >= p[:, None],
        "does everyone see only itself?": lambda p: p[:, None] == p,
        "is True what is hidden? True means keep": lambda p: p[:, None] < p,
        "does p lack an axis? (t,) has to become (t, 1)": lambda p: p >= p,
        "are these differences? Compare them with 0": lambda p: p[:, None] - p,
        "are these rows and columns counted from 0? Compare the positions": lambda p: np.tri(
            len(p), dtype=bool
        ),
    },
)

# ---------------------------------------------------------------------------------------------- heads


def tokens_and_heads(rng):
    for t, heads, e in ((2, 3, 4), (5, 2, 3)):
        yield rng.standard_normal((t, heads * e)), heads


SPLIT_HEADS = Exercise(
    reference=lambda x, h: x.reshape(len(x), h, -1).swapaxes(0, 1),
    sample=tokens_and_heads,
    mistakes={
        "do tokens come before heads? (t, h, e) has to become (h, t, e)": lambda x, h: x.reshape(
            len(x), h, -1
        ),
        "did reshape cut across tokens? First (t, h, e), then swap": lambda x, h: x.reshape(h, len(x), -1),
        "is h at the end? A head is a run of e neighbors": lambda x, h: x.reshape(len(x), -1, h).transpose(
            2, 0, 1
        ),
        "are all axes reversed? Swap the first two": lambda x, h: x.reshape(len(x), h, -1).T,
        "are the last two axes swapped?": lambda x, h: x.reshape(len(x), h, -1).swapaxes(1, 2),
        "is x transposed before it is cut?": lambda x, h: x.T.reshape(h, len(x), -1),
        "is e where t should be?": lambda x, h: x.T.reshape(h, -1, len(x)),
    },
)

MERGE_HEADS = Exercise(
    reference=lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1),
    sample=random("hte"),
    mistakes={
        "did reshape mix tokens? First swap h and t": lambda x: x.reshape(x.shape[1], -1),
        "is h the number of rows? A row is a token": lambda x: x.reshape(len(x), -1),
        "do the channels of the heads alternate? Head after head": lambda x: x.transpose(1, 2, 0).reshape(
            x.shape[1], -1
        ),
        "is it not merged yet? (t, h, e) has to become (t, h e)": lambda x: x.swapaxes(0, 1),
        "are the heads added? They stand side by side": lambda x: x.sum(axis=0),
        "is it transposed?": lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1).T,
    },
)

HEAD_SCORES = Exercise(
    reference=lambda query, key: query @ key.swapaxes(1, 2),
    sample=random("hte", "hte"),
    mistakes={
        "are these the wrong axes? .T reverses all three, swap the last two": lambda query, key: (
            query @ key.T
        ),
        "are query and key swapped? A row is a query": lambda query, key: key @ query.swapaxes(1, 2),
        "are the heads added? Each has its own scores": lambda query, key: (query @ key.swapaxes(1, 2)).sum(
            axis=0
        ),
        "are these entry by entry products? Each query meets each key": lambda query, key: query * key,
        "does each query meet its own key only?": lambda query, key: row_sum(query * key),
        "are the first two axes swapped? The heads stay apart": lambda query, key: query @ key.swapaxes(0, 1),
        "are these channels by channels? Each token meets each token": lambda query, key: (
            query.swapaxes(1, 2) @ key
        ),
    },
)

# ------------------------------------------------------------------------------------------ gradients


def unit_rows_and_lengths(rng):
    for t, n in ((3, 4), (2, 5)):
        du, a = rng.standard_normal((2, t, n))
        length = row_sum(a * a) ** 0.5
        yield du, a / length, length


NORM_BACKWARD = Exercise(
    reference=lambda du, u, length: (du - u * row_sum(u * du)) / length,
    sample=unit_rows_and_lengths,
    mistakes={
        "is the projection missing?": lambda du, u, length: du / length,
        "is the division by the length missing?": lambda du, u, length: du - u * row_sum(u * du),
        "does the sum lack keepdims=True?": lambda du, u, length: (du - u * (u * du).sum(axis=-1)) / length,
        "is the sum missing? u · du is one number per row": lambda du, u, length: (du - u * u * du) / length,
        "is it one dot product for all rows?": lambda du, u, length: (du - u * (u * du).sum()) / length,
        "is the projection added? Take it away": lambda du, u, length: (du + u * row_sum(u * du)) / length,
        "is it multiplied by the length?": lambda du, u, length: (du - u * row_sum(u * du)) * length,
        "is this the part along u? Subtract it from du": lambda du, u, length: u * row_sum(u * du) / length,
    },
)

DVALUE = Exercise(
    reference=lambda weights, dout: (weights.swapaxes(1, 2) @ dout).sum(axis=0),
    sample=random("btn", "btd"),
    mistakes={
        "is the batch not summed? All sequences share one value": lambda weights, dout: (
            weights.swapaxes(1, 2) @ dout
        ),
        "is it a mean over the batch? Paths add up": lambda weights, dout: (
            weights.swapaxes(1, 2) @ dout
        ).mean(axis=0),
        "is it transposed? It has the shape of value, (n, d)": lambda weights, dout: (
            dout.swapaxes(1, 2) @ weights
        ).sum(axis=0),
        "is weights not transposed? t is summed over": lambda weights, dout: weights @ dout,
        "does .T reverse all three axes? Swap the last two": lambda weights, dout: weights.T @ dout,
        "is it the first sequence only?": lambda weights, dout: weights[0].T @ dout[0],
        "is the wrong axis summed? b is gone, n and d stay": lambda weights, dout: (
            weights.swapaxes(1, 2) @ dout
        ).sum(axis=-1),
    },
)

DKEY = Exercise(
    reference=lambda dout, value, slope, x: ((dout @ value.T) * slope).T @ x,
    sample=random("to", "no", "tn", "td"),
    mistakes={
        "is slope missing? The gradient passes through f": lambda dout, value, slope, x: (
            (dout @ value.T).T @ x
        ),
        "is it transposed? It has the shape of key, (n, d)": lambda dout, value, slope, x: (
            x.T @ ((dout @ value.T) * slope)
        ),
        "does slope come too late? It belongs between the products": lambda dout, value, slope, x: (
            slope.T @ x * row_sum((dout @ value.T).T)
        ),
        "is value not transposed?": lambda dout, value, slope, x: ((dout @ value) * slope).T @ x,
        "is the last transpose missing? t is summed over": lambda dout, value, slope, x: (
            ((dout @ value.T) * slope) @ x
        ),
        "are these the slopes alone? dout and value are missing": lambda dout, value, slope, x: slope.T @ x,
        "is it divided by slope?": lambda dout, value, slope, x: ((dout @ value.T) / slope).T @ x,
    },
)

DX = Exercise(
    reference=lambda dout, value, slope, key: ((dout @ value.T) * slope) @ key,
    sample=random("to", "no", "tn", "nd"),
    mistakes={
        "is slope missing? The gradient passes through f": lambda dout, value, slope, key: (
            dout @ value.T @ key
        ),
        "is key transposed? n is summed over": lambda dout, value, slope, key: (
            ((dout @ value.T) * slope) @ key.T
        ),
        "is value not transposed?": lambda dout, value, slope, key: ((dout @ value) * slope) @ key,
        "is it transposed? It has the shape of x, (t, d)": lambda dout, value, slope, key: (
            (((dout @ value.T) * slope) @ key).T
        ),
        "are these the slopes alone? dout and value are missing": lambda dout, value, slope, key: slope @ key,
        "is slope added? It is a factor": lambda dout, value, slope, key: (dout @ value.T + slope) @ key,
        "are these dscores? The way through key is missing": lambda dout, value, slope, key: (
            (dout @ value.T) * slope
        ),
    },
)

EXERCISES = {
    "outer": OUTER,
    "center": CENTER,
    "unit_rows": UNIT_ROWS,
    "pick": PICK,
    "mask": MASK,
    "split_heads": SPLIT_HEADS,
    "merge_heads": MERGE_HEADS,
    "head_scores": HEAD_SCORES,
    "norm_backward": NORM_BACKWARD,
    "dvalue": DVALUE,
    "dkey": DKEY,
    "dx": DX,
}
