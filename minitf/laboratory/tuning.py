"""Comparisons at the best learning rate of each contestant: one seed tunes, the others repeat."""


def tune_and_repeat(names, stage, lrs, seeds, sweep):
    """Run every name on the whole grid with the first seed, then its best learning rate with the other seeds.

    stage(name, lr, seed) -> Stage. Returns {name: {"lr", "grid": {lr: loss}, "keys": {seed: key of the run}}}.
    """
    first = seeds[0]
    grid = {(name, lr): stage(name, lr, first) for name in names for lr in lrs}
    losses = {at: record["heldout"] for at, record in zip(grid, sweep(grid.values()), strict=True)}
    best = {name: min(lrs, key=lambda lr: losses[name, lr]) for name in names}
    runs = {(name, seed): stage(name, best[name], seed) for seed in seeds for name in names}
    sweep(runs.values())
    return {
        name: {
            "lr": best[name],
            "grid": {str(lr): losses[name, lr] for lr in lrs},
            "keys": {str(seed): runs[name, seed].key() for seed in seeds},
        }
        for name in names
    }
