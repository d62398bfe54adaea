"""Forgets that the last RMS norm sees the longer row too.

loses: ps3-q2-exact
"""


# %% ps3-q2
def widen(params, d_new, seed):
    rng = np.random.default_rng(seed)
    extra = d_new - params["embedding"].shape[1]

    def silent(array):
        return np.pad(array, ((0, 0), (0, extra)))

    def listening(array):
        return np.concatenate([array, rng.standard_normal((len(array), extra))], axis=1)

    return {
        "embedding": silent(params["embedding"]),
        "blocks": [
            {"key": listening(b["key"]), "value": silent(b["value"])}
            for b in params["blocks"]
        ],
        "unembedding": listening(params["unembedding"]),
    }
