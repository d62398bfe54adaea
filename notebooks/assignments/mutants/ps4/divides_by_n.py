"""Divides by n in the standard deviation, which makes three runs look surer than they are.

loses: ps4-q6-interval
"""


# %% ps4-q6-interval-answer
def paired_interval(a, b):
    difference = a - b
    half_width = T95[len(a)] * difference.std() / math.sqrt(len(a))
    return difference.mean() - half_width, difference.mean(), difference.mean() + half_width
