"""The growth of lesson 06, which is exact only while tau is held.

loses: ps3-q1-exact
"""


# %% ps3-q1
def grow_tokens(key, value, n_new, seed):
    extra = n_new - len(key)
    new_value = np.random.default_rng(seed).standard_normal((extra, value.shape[1]))
    return np.concatenate([key, np.zeros((extra, key.shape[1]))]), np.concatenate(
        [value, new_value]
    )
