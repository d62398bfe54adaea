"""Calls a channel dead if nobody writes it. A reader wakes it.

loses: ps3-q4-channels
"""


# %% ps3-q4
def dead(params):
    writers = [params["embedding"], *(block["value"] for block in params["blocks"])]
    tokens = [
        ~np.any(np.concatenate([b["key"], b["value"]], axis=1), axis=1)
        for b in params["blocks"]
    ]
    return {"channels": ~np.any(np.concatenate(writers), axis=0), "tokens": tokens}
