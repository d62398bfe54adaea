"""Knows one axis of tokens and no more.

loses: ps2-q3-batch
"""


# %% ps2-q3
def grouped_backward(dout, cache):
    groups, n, width = cache.value.shape
    dgroups = dout.reshape(len(dout), groups, width)
    dvalue = np.einsum("tgn,tge->gne", cache.weights, dgroups)
    dweights = np.einsum("tge,gne->tgn", dgroups, cache.value)
    dscores = softplus_theta_backward(dweights, cache.theta)
    dkey = np.einsum("tgn,tgc->nc", dscores, cache.x)
    dx = (dscores @ cache.key).reshape(len(dout), -1)
    return dx, dkey, dvalue
