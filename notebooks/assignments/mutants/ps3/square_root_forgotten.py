"""Scales the new keys by m/n, though lengths grow with its square root.

loses: ps3-q1-exact
"""


# %% ps3-q1
def grow_tokens(key, value, n_new, seed):
    extra = n_new - len(key)
    triangle = np.linalg.qr(key, mode="r")
    turn, _ = np.linalg.qr(
        np.random.default_rng(seed).standard_normal((extra, len(triangle)))
    )
    new_key = extra / len(key) * turn @ triangle
    return np.concatenate([key, new_key]), np.pad(value, ((0, extra), (0, 0)))
