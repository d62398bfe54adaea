"""Ignores the tau that it is given and takes √n.

loses: ps1-q1-values, ps1-q1-tau, ps1-q2-values
"""


# %% ps1-q1
def power_l1(scores, power=2.0, tau=None):
    positive = np.maximum(scores, 0)
    largest = positive.max(axis=-1, keepdims=True)
    powered = (positive / np.where(largest > 0, largest, 1)) ** power
    total = powered.sum(axis=-1, keepdims=True)
    return scores.shape[-1] * (powered / np.where(total > 0, total, 1))


# %% ps1-q2
def centered_theta(scores, tau=None):
    centered = scores - scores.mean(axis=-1, keepdims=True)
    widest = np.abs(centered).max(axis=-1, keepdims=True)
    varies = widest > 8 * np.finfo(scores.dtype).eps * np.abs(scores).max(
        axis=-1, keepdims=True
    )
    unit = np.where(varies, centered / np.where(varies, widest, 1), 0)
    length = np.sqrt((unit * unit).sum(axis=-1, keepdims=True))
    return minitf.gelu_forward(
        math.sqrt(scores.shape[-1]) * (unit / np.where(varies, length, 1))
    )[0]
