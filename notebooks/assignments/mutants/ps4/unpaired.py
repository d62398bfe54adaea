"""Adds the variances of the arms, as if their seeds had nothing to do with each other.

loses: ps4-q6-interval
"""


# %% ps4-q6-interval-answer
def paired_interval(a, b):
    half_width = T95[len(a)] * math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
    mean = a.mean() - b.mean()
    return mean - half_width, mean, mean + half_width
