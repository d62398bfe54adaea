"""Keeps the old weights, and lets new tokens speak with random values.

loses: ps3-q1-exact
"""


# %% ps3-q1
def grow_tokens(key, value, n_new, seed):
    extra = n_new - len(key)
    triangle = np.linalg.qr(key, mode="r")
    turn, _ = np.linalg.qr(
        np.random.default_rng(seed).standard_normal((extra, len(triangle)))
    )
    new_key = math.sqrt(extra / len(key)) * turn @ triangle
    return np.concatenate([key, new_key]), np.concatenate(
        [value, np.random.default_rng(seed).standard_normal((extra, value.shape[1]))]
    )
