"""A layer norm with its eps: rows that are quiet fade, and a constant row is noise.

loses: ps1-q2-values, ps1-q2-edges
"""


# %% ps1-q2
def centered_theta(scores, tau=None):
    normed = minitf.layer_norm_forward(scores)[0]
    factor = 1 if tau is None else tau / math.sqrt(scores.shape[-1])
    return minitf.gelu_forward(factor * normed)[0]
