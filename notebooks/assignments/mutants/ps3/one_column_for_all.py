"""Repeats one random column in every new channel: all new channels are twins.

loses: ps3-q2-alive
"""


# %% ps3-q2
def widen(params, d_new, seed):
    rng = np.random.default_rng(seed)
    d = params["embedding"].shape[1]

    def silent(array):
        return np.pad(array, ((0, 0), (0, d_new - d)))

    def listening(array):
        return np.concatenate(
            [array, np.repeat(rng.standard_normal((len(array), 1)), d_new - d, axis=1)],
            axis=1,
        )

    return {
        "embedding": silent(params["embedding"]),
        "blocks": [
            {"key": listening(b["key"]), "value": silent(b["value"])}
            for b in params["blocks"]
        ],
        "unembedding": listening(params["unembedding"] * math.sqrt(d / d_new)),
    }
