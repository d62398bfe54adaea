"""Takes a row as constant only where every difference is exactly zero, so rounding errors speak at full volume.

loses: ps1-q2-edges
"""


# %% ps1-q2
def centered_theta(scores, tau=None):
    centered = scores - scores.mean(axis=-1, keepdims=True)
    widest = np.abs(centered).max(axis=-1, keepdims=True)
    unit = centered / np.where(widest > 0, widest, 1)
    length = np.sqrt((unit * unit).sum(axis=-1, keepdims=True))
    tau = math.sqrt(scores.shape[-1]) if tau is None else tau
    return minitf.gelu_forward(tau * unit / np.where(length > 0, length, 1))[0]
