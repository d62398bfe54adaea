"""Calls a prediction confirmed as soon as range and interval overlap.

loses: ps4-q6-verdict
"""


# %% ps4-q6-verdict-answer
def verdict(prediction, interval):
    low, _, high = interval
    return "refuted" if high < prediction.low or prediction.high < low else "confirmed"
