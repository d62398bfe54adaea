"""Hands in the backward of minitf, whose cache is another.

loses: ps2-q2-values, ps2-q2-edges
"""


# %% ps2-q2
def softplus_theta_backward(dweights, cache):
    return minitf.theta_backward(
        dweights, minitf.theta_forward(cache.scores, tau=cache.tau)[1]
    )
