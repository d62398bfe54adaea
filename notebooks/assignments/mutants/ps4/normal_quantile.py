"""Takes 1.96, which is for many runs.

loses: ps4-q6-interval
"""


# %% ps4-q6-interval-answer
def paired_interval(a, b):
    difference = a - b
    half_width = 1.96 * difference.std(ddof=1) / math.sqrt(len(a))
    return difference.mean() - half_width, difference.mean(), difference.mean() + half_width
