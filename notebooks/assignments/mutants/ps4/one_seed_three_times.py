"""Forgets to pass the seed on: three runs, one result.

loses: ps4-q5-table, ps4-q5-repeat
"""


# %% ps4-q5
def experiment(seeds):
    _, grown = grow_part(fresh(0), BASE, "ffn", ROWS, 0)
    steps = plan(BUDGET, SHARE, BASE, grown, BATCH)
    losses = {arm: [] for arm in ARMS}
    for _ in seeds:
        base, config = train(fresh(0), BASE, steps["base"], 0)
        for arm in ARMS:
            stage_steps = steps["control" if arm == "control" else "grown"]
            losses[arm].append(run_arm(base, config, arm, stage_steps, 1000))
    return {arm: np.array(runs) for arm, runs in losses.items()}
