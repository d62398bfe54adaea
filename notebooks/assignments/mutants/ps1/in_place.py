"""Writes the ReLU into the scores of the caller.

loses: ps1-q1-edges
"""


# %% ps1-q1
def power_l1(scores, power=2.0, tau=None):
    scores[scores < 0] = 0
    largest = scores.max(axis=-1, keepdims=True)
    powered = (scores / np.where(largest > 0, largest, 1)) ** power
    total = powered.sum(axis=-1, keepdims=True)
    tau = math.sqrt(scores.shape[-1]) if tau is None else tau
    return tau**2 * (powered / np.where(total > 0, total, 1))
