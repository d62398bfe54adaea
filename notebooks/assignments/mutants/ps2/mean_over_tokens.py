"""Averages the gradient of the values over the tokens. Gradients add up.

loses: ps2-q3-dvalue, ps2-q3-batch
"""


# %% ps2-q3
def grouped_backward(dout, cache):
    groups, n, width = cache.value.shape
    dgroups = dout.reshape(-1, groups, width)
    x = cache.x.reshape(len(dgroups), groups, -1)
    dvalue = np.einsum("tgn,tge->gne", cache.weights.reshape(-1, groups, n), dgroups) / len(
        dgroups
    )
    dweights = np.einsum("tge,gne->tgn", dgroups, cache.value)
    dscores = softplus_theta_backward(dweights.reshape(cache.weights.shape), cache.theta)
    dkey = np.einsum("tgn,tgc->nc", dscores.reshape(-1, groups, n), x)
    dx = (dscores @ cache.key).reshape(*dout.shape[:-1], -1)
    return dx, dkey, dvalue
