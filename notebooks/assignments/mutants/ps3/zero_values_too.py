"""Zero keys and zero values: not exact while tau moves, and dead.

loses: ps3-q1-exact, ps3-q1-alive
"""


# %% ps3-q1
def grow_tokens(key, value, n_new, seed):
    extra = n_new - len(key)
    return np.pad(key, ((0, extra), (0, 0))), np.pad(value, ((0, extra), (0, 0)))
