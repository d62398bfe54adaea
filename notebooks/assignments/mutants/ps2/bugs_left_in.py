"""Hands the three functions in as they were.

loses: ps2-q5-rms-values, ps2-q5-glu-values, ps2-q5-mean-values
"""

# %% ps2-q5-rms
mended_rms_backward = rms_backward

# %% ps2-q5-glu
mended_glu_backward = glu_backward

# %% ps2-q5-mean
mended_running_mean_backward = running_mean_backward
