"""Lets tau follow √n at once, as the release does: the output jumps.

loses: ps4-q3-exact
"""


# %% ps4-q3
def grow_part(params, config, part, rows, seed):
    if part == "ffn":
        tokens = {"ffn_tokens": config.ffn_tokens + rows // config.ffn_blocks}
    else:
        tokens = {"attention_tokens": config.attention_tokens + rows // 4}
        if config.proj_tokens:
            tokens["proj_tokens"] = config.proj_tokens + rows // 4
    return minitf.grow(params, config, tau="rescale", seed=seed, **tokens)
