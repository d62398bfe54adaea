"""Takes √n for every p: the mean of w^p is then not 1.

loses: ps2-q1-values, ps2-q1-edges
"""


# %% ps2-q1
def softplus_theta_forward(scores, power=3.0, tau=None):
    positive = np.logaddexp(scores, 0)
    largest = positive.max(axis=-1, keepdims=True)
    relative = positive / np.where(largest > 0, largest, 1)
    norm = largest * (relative**power).sum(axis=-1, keepdims=True) ** (1 / power)
    tau = math.sqrt(scores.shape[-1]) if tau is None else tau
    weights = tau * (positive / np.where(norm > 0, norm, 1))
    return weights, ThetaCache(scores, positive, norm, power, tau)
