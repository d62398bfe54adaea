"""Compares the old weights and forgets what the new tokens say.

loses: ps1-q4-rejects
"""


# %% ps1-q4
def keeps_function(theta):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 8, 20):
        scores = rng.standard_normal((20, n))
        grown_scores = np.concatenate([scores, np.zeros((20, 2 * n))], axis=1)
        if not np.allclose(
            theta(grown_scores, 2.0)[:, :n], theta(scores, 2.0), rtol=0, atol=1e-9
        ):
            return False
    return True
