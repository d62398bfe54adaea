"""Hands in a normalizer of minitf in the hope that it is the one asked for.

loses: ps1-q2-values, ps1-q2-edges
"""


# %% ps1-q2
def centered_theta(scores, tau=None):
    return minitf.theta_forward(scores, "l2_norm_gelu", tau)[0]
