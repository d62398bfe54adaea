"""Keeps the key gradient of the last group, as if each had keys of its own.

loses: ps2-q3-dkey, ps2-q3-batch
"""


# %% ps2-q3
def grouped_backward(dout, cache):
    groups, n, width = cache.value.shape
    dgroups = dout.reshape(-1, groups, width)
    x = cache.x.reshape(len(dgroups), groups, -1)
    dvalue = np.einsum("tgn,tge->gne", cache.weights.reshape(-1, groups, n), dgroups)
    dweights = np.einsum("tge,gne->tgn", dgroups, cache.value)
    dscores = softplus_theta_backward(dweights.reshape(cache.weights.shape), cache.theta)
    dx = (dscores @ cache.key).reshape(*dout.shape[:-1], -1)
    for g in range(groups):
        dkey = dscores.reshape(-1, groups, n)[:, g].T @ x[:, g]
    return dx, dkey, dvalue
