"""The formula as it stands: the fourth power of 1e-20 is 0 in float32, and zeros give nan.

loses: ps1-q5-edges
"""


# %% ps1-q5
def participation(weights):
    return (weights**2).sum(axis=-1) ** 2 / (weights**4).sum(axis=-1)
