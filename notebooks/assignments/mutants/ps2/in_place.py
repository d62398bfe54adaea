"""Subtracts from the gradient that it was handed.

loses: ps2-q2-edges
"""


# %% ps2-q2
def softplus_theta_backward(dweights, cache):
    scores, positive, norm, power, tau = cache
    inverse = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0)
    unit = positive * inverse
    dweights -= unit ** (power - 1) * (dweights * unit).sum(axis=-1, keepdims=True)
    return tau * inverse * dweights * np.exp(-np.logaddexp(-scores, 0))
