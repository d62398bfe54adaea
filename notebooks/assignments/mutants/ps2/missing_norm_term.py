"""Treats the norm as a constant, though it moves with every score.

loses: ps2-q2-values, ps2-q2-edges
"""


# %% ps2-q2
def softplus_theta_backward(dweights, cache):
    scores, positive, norm, power, tau = cache
    inverse = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0)
    return tau * inverse * dweights * np.exp(-np.logaddexp(-scores, 0))
