"""log(1 + exp(a)) as it stands: inf at 1000, and 0 at -60, where 1 + exp(a) is rounded to 1.

loses: ps2-q1-edges
"""


# %% ps2-q1
def softplus_theta_forward(scores, power=3.0, tau=None):
    positive = np.log(1 + np.exp(scores))
    norm = (positive**power).sum(axis=-1, keepdims=True) ** (1 / power)
    tau = scores.shape[-1] ** (1 / power) if tau is None else tau
    weights = tau * positive / np.where(norm > 0, norm, 1)
    return weights, ThetaCache(scores, positive, norm, power, tau)
