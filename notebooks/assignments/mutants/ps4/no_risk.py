"""Predicts a range that cannot be wrong, in three words.

loses: ps4-q1-complete
"""

# %% ps4-q1
prediction = Prediction(low=-10.0, high=10.0, because="we shall see")
