"""Ignores the tau that it is given.

loses: ps2-q1-values
"""


# %% ps2-q1
def softplus_theta_forward(scores, power=3.0, tau=None):
    positive = np.logaddexp(scores, 0)
    largest = positive.max(axis=-1, keepdims=True)
    relative = positive / np.where(largest > 0, largest, 1)
    norm = largest * (relative**power).sum(axis=-1, keepdims=True) ** (1 / power)
    tau = scores.shape[-1] ** (1 / power)
    weights = tau * (positive / np.where(norm > 0, norm, 1))
    return weights, ThetaCache(scores, positive, norm, power, tau)
