"""The formula as it stands: 0/0 in a row without a positive score, and 1e30 squared overflows float32.

loses: ps1-q1-edges
"""


# %% ps1-q1
def power_l1(scores, power=2.0, tau=None):
    powered = np.maximum(scores, 0) ** power
    tau = math.sqrt(scores.shape[-1]) if tau is None else tau
    return tau**2 * powered / powered.sum(axis=-1, keepdims=True)
