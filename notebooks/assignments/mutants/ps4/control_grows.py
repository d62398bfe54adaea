"""Grows every arm, so that there is no control.

loses: ps4-q4-control
"""


# %% ps4-q4
def run_arm(params, config, arm, steps, seed):
    part = "ffn" if arm == "control" else arm
    return minitf.evaluate(
        *train(*grow_part(params, config, part, ROWS, seed), steps, seed), heldout_ids
    )
