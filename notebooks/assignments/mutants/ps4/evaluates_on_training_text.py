"""Reports the loss on the text that the model was trained on.

loses: ps4-q4-grown, ps4-q4-control
"""


# %% ps4-q4
def run_arm(params, config, arm, steps, seed):
    if arm != "control":
        params, config = grow_part(params, config, arm, ROWS, seed)
    return minitf.evaluate(
        *train(params, config, steps, seed), train_ids[: len(heldout_ids)]
    )
