"""Pads everything with zeros: exact, and dead, because nobody reads what nobody writes.

loses: ps3-q2-alive
"""


# %% ps3-q2
def widen(params, d_new, seed):
    d = params["embedding"].shape[1]

    def silent(array):
        return np.pad(array, ((0, 0), (0, d_new - d)))

    return {
        "embedding": silent(params["embedding"]),
        "blocks": [
            {name: silent(array) for name, array in block.items()}
            for block in params["blocks"]
        ],
        "unembedding": silent(params["unembedding"] * math.sqrt(d / d_new)),
    }
