"""Squares, whatever power is asked for.

loses: ps1-q1-values
"""


# %% ps1-q1
def power_l1(scores, power=2.0, tau=None):
    positive = np.maximum(scores, 0)
    largest = positive.max(axis=-1, keepdims=True)
    powered = (positive / np.where(largest > 0, largest, 1)) ** 2
    total = powered.sum(axis=-1, keepdims=True)
    tau = math.sqrt(scores.shape[-1]) if tau is None else tau
    return tau**2 * (powered / np.where(total > 0, total, 1))
