"""Appends random keys instead of calling grow_tokens: alive, but exact for no input.

loses: ps3-q3-exact
"""


# %% ps3-q3
def grow(params, d_new, tokens, seed):
    rng = np.random.default_rng(seed)
    blocks = []
    for block, n_new in zip(params["blocks"], tokens, strict=True):
        n, d = block["key"].shape
        key = np.concatenate([block["key"], rng.standard_normal((n_new - n, d))])
        blocks.append(
            {"key": key, "value": np.pad(block["value"], ((0, n_new - n), (0, 0)))}
        )
    return widen({**params, "blocks": blocks}, d_new, seed)
