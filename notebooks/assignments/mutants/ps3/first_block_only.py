"""Grows the tokens of the first block and forgets the others.

loses: ps3-q3-exact, ps3-q3-alive
"""


# %% ps3-q3
def grow(params, d_new, tokens, seed):
    key, value = grow_tokens(*params["blocks"][0].values(), tokens[0], seed)
    return widen(
        {**params, "blocks": [{"key": key, "value": value}, *params["blocks"][1:]]},
        d_new,
        seed,
    )
