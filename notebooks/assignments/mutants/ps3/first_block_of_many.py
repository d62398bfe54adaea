"""Looks at embedding, unembedding and the first block.

loses: ps3-q4-channels
"""


# %% ps3-q4
def dead(params):
    first = params["blocks"][0]
    arrays = [params["embedding"], params["unembedding"], first["key"], first["value"]]
    tokens = [
        ~np.any(np.concatenate([b["key"], b["value"]], axis=1), axis=1)
        for b in params["blocks"]
    ]
    return {"channels": ~np.any(np.concatenate(arrays), axis=0), "tokens": tokens}
