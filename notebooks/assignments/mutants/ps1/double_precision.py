"""np.sqrt(n) is a float64: what goes in as float32 comes out as float64.

loses: ps1-q2-edges
"""


# %% ps1-q2
def centered_theta(scores, tau=None):
    centered = scores - scores.mean(axis=-1, keepdims=True)
    widest = np.abs(centered).max(axis=-1, keepdims=True)
    varies = widest > 8 * np.finfo(scores.dtype).eps * np.abs(scores).max(
        axis=-1, keepdims=True
    )
    unit = np.where(varies, centered / np.where(varies, widest, 1), 0)
    length = np.sqrt((unit * unit).sum(axis=-1, keepdims=True))
    tau = np.sqrt(scores.shape[-1]) if tau is None else tau
    return minitf.gelu_forward(tau * (unit / np.where(varies, length, 1)))[0]
