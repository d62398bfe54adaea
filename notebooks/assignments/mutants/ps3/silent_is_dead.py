"""Calls a token dead if its key is zero, as if it could not learn.

loses: ps3-q4-tokens
"""


# %% ps3-q4
def dead(params):
    arrays = [params["embedding"], params["unembedding"]]
    arrays += [block[name] for block in params["blocks"] for name in ("key", "value")]
    tokens = [~block["key"].any(axis=1) for block in params["blocks"]]
    return {"channels": ~np.any(np.concatenate(arrays), axis=0), "tokens": tokens}
