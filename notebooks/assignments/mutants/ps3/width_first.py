"""Widens first: the random new columns raise the rank of the keys above the number of new tokens.

loses: ps3-q3-exact, ps3-q3-alive
"""


# %% ps3-q3
def grow(params, d_new, tokens, seed):
    wide = widen(params, d_new, seed)
    blocks = [
        dict(
            zip(
                ("key", "value"),
                grow_tokens(block["key"], block["value"], n_new, seed),
                strict=True,
            )
        )
        for block, n_new in zip(wide["blocks"], tokens, strict=True)
    ]
    return {**wide, "blocks": blocks}
