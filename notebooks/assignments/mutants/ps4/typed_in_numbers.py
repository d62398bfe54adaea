"""Types in a table instead of running anything.

loses: ps4-q5-repeat
"""


# %% ps4-q5
def experiment(seeds):
    losses = {
        "control": [2.4480, 2.4661, 2.4946],
        "ffn": [2.4728, 2.4762, 2.4994],
        "attention": [2.4452, 2.4479, 2.4686],
    }
    return {arm: np.array(runs[: len(seeds)]) for arm, runs in losses.items()}
