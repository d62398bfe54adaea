"""Forgets that the output layer of attention may have a size of its own.

loses: ps4-q3-equal
"""


# %% ps4-q3
def grow_part(params, config, part, rows, seed):
    if part == "ffn":
        return minitf.grow(
            params,
            config,
            ffn_tokens=config.ffn_tokens + rows // config.ffn_blocks,
            seed=seed,
        )
    return minitf.grow(
        params, config, attention_tokens=config.attention_tokens + rows // 4, seed=seed
    )
