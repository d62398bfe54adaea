"""Starts every arm from a fresh model and leaves the base out.

loses: ps4-q5-repeat
"""


# %% ps4-q5
def experiment(seeds):
    _, grown = grow_part(fresh(0), BASE, "ffn", ROWS, 0)
    steps = plan(BUDGET, SHARE, BASE, grown, BATCH)
    losses = {arm: [] for arm in ARMS}
    for seed in seeds:
        for arm in ARMS:
            stage_steps = steps["control" if arm == "control" else "grown"]
            losses[arm].append(run_arm(fresh(seed), BASE, arm, stage_steps, 1000 + seed))
    return {arm: np.array(runs) for arm, runs in losses.items()}
