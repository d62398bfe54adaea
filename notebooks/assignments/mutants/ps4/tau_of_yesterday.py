"""Evaluates trained parameters with the config from before the training, in which tau is still held.

loses: ps4-q4-grown
"""


# %% ps4-q4
def run_arm(params, config, arm, steps, seed):
    if arm != "control":
        params, config = grow_part(params, config, arm, ROWS, seed)
    trained, _ = train(params, config, steps, seed)
    return minitf.evaluate(trained, config, heldout_ids)
