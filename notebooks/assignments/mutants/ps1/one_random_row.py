"""Looks at one long row, which always has a positive score.

loses: ps1-q4-rejects
"""


# %% ps1-q4
def keeps_function(theta):
    scores = np.abs(np.random.default_rng(0).standard_normal(16))
    grown = theta(np.concatenate([scores, np.zeros(16)]), 2.0)
    return np.allclose(grown[:16], theta(scores, 2.0)) and np.allclose(grown[16:], 0)
