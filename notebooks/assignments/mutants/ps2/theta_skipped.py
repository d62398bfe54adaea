"""Hands the gradient of the weights on as that of the scores: value is right, key and x are not.

loses: ps2-q3-dx, ps2-q3-dkey, ps2-q3-batch
"""


# %% ps2-q3
def grouped_backward(dout, cache):
    groups, n, width = cache.value.shape
    dgroups = dout.reshape(-1, groups, width)
    x = cache.x.reshape(len(dgroups), groups, -1)
    dvalue = np.einsum("tgn,tge->gne", cache.weights.reshape(-1, groups, n), dgroups)
    dscores = np.einsum("tge,gne->tgn", dgroups, cache.value)
    dkey = np.einsum("tgn,tgc->nc", dscores, x)
    dx = (dscores @ cache.key).reshape(*dout.shape[:-1], -1)
    return dx, dkey, dvalue
