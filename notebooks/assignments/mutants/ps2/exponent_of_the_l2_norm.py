"""Copies the projection of lesson 04, which is right for p = 2 only.

loses: ps2-q2-values, ps2-q2-edges
"""


# %% ps2-q2
def softplus_theta_backward(dweights, cache):
    scores, positive, norm, power, tau = cache
    inverse = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0)
    unit = positive * inverse
    along = (dweights * unit).sum(axis=-1, keepdims=True)
    return tau * inverse * (dweights - unit * along) * np.exp(-np.logaddexp(-scores, 0))
