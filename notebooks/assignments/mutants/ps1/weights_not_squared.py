"""Counts with the weights where their squares are asked for.

loses: ps1-q5-values, ps1-q5-edges
"""


# %% ps1-q5
def participation(weights):
    size = np.abs(weights)
    total = (size * size).sum(axis=-1)
    return size.sum(axis=-1) ** 2 / np.where(total > 0, total, 1)
