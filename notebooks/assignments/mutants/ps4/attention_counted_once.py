"""Gives all rows to each of query, key, value and output: four times the parameters.

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
    tokens = {"attention_tokens": config.attention_tokens + rows}
    if config.proj_tokens:
        tokens["proj_tokens"] = config.proj_tokens + rows
    return minitf.grow(params, config, seed=seed, **tokens)
