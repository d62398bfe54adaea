"""Starts the new channels of the embedding at random, as a fresh model would.

loses: ps3-q2-exact
"""


# %% ps3-q2
def widen(params, d_new, seed):
    rng = np.random.default_rng(seed)
    d = params["embedding"].shape[1]

    def silent(array):
        return np.pad(array, ((0, 0), (0, d_new - d)))

    def random(array):
        return np.concatenate([array, rng.standard_normal((len(array), d_new - d))], axis=1)

    return {
        "embedding": random(params["embedding"]),
        "blocks": [
            {"key": random(b["key"]), "value": silent(b["value"])} for b in params["blocks"]
        ],
        "unembedding": random(params["unembedding"] * math.sqrt(d / d_new)),
    }
