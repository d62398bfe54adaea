"""Copies old keys in turn with zero values: exact for whole numbers n'/n only, and copies of one key are twins.

loses: ps3-q1-exact, ps3-q1-alive
"""


# %% ps3-q1
def grow_tokens(key, value, n_new, seed):
    extra = n_new - len(key)
    return key[np.arange(n_new) % len(key)], np.pad(value, ((0, extra), (0, 0)))
