"""Widens with zeros instead of its own function: exact, and the new channels are dead.

loses: ps3-q3-alive
"""


# %% ps3-q3
def grow(params, d_new, tokens, seed):
    blocks = []
    for block, n_new in zip(params["blocks"], tokens, strict=True):
        key, value = grow_tokens(block["key"], block["value"], n_new, seed)
        blocks.append({"key": key, "value": value})
    d = params["embedding"].shape[1]
    padding = ((0, 0), (0, d_new - d))
    return {
        "embedding": np.pad(params["embedding"], padding),
        "blocks": [
            {name: np.pad(array, padding) for name, array in block.items()}
            for block in blocks
        ],
        "unembedding": np.pad(params["unembedding"] * math.sqrt(d / d_new), padding),
    }
