"""Looks at the mean and not at the interval.

loses: ps4-q6-verdict
"""


# %% ps4-q6-verdict-answer
def verdict(prediction, interval):
    return "confirmed" if prediction.low <= interval[1] <= prediction.high else "refuted"
