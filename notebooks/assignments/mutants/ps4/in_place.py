"""Writes what it trained into the base that the next arm starts from.

loses: ps4-q4-control
"""


# %% ps4-q4
def run_arm(params, config, arm, steps, seed):
    start = (
        (params, config) if arm == "control" else grow_part(params, config, arm, ROWS, seed)
    )
    trained, trained_config = train(*start, steps, seed)
    if arm == "control":
        params.update(trained)
    return minitf.evaluate(trained, trained_config, heldout_ids)
