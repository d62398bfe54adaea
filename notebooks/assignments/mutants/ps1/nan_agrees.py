"""Asks whether a difference is large, which nan never is.

loses: ps1-q4-rejects
"""


# %% ps1-q4
def keeps_function(theta):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 8, 20):
        for n_new in (1, 2, n, 5 * n):
            scores = rng.standard_normal((20, n)) + rng.uniform(-3, 3, (20, 1))
            grown_scores = np.concatenate([scores, np.zeros((20, n_new))], axis=1)
            weights, grown = theta(scores, 2.5), theta(grown_scores, 2.5)
            limit = 1e-9 * np.abs(weights).max()
            if (np.abs(grown[:, :n] - weights) > limit).any() or (
                np.abs(grown[:, n:]) > limit
            ).any():
                return False
    return True
