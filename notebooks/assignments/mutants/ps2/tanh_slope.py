"""Takes the slope of softplus from tanh, which has no digits left at -60.

loses: ps2-q2-edges
"""


# %% ps2-q2
def softplus_theta_backward(dweights, cache):
    scores, positive, norm, power, tau = cache
    inverse = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0)
    unit = positive * inverse
    along = (dweights * unit).sum(axis=-1, keepdims=True)
    dpositive = tau * inverse * (dweights - unit ** (power - 1) * along)
    return dpositive * (0.5 * (1 + np.tanh(scores / 2)))
