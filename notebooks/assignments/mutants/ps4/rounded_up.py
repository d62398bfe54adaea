"""Rounds steps to the nearest whole number, which may be one too many.

loses: ps4-q2-within, ps4-q2-spent
"""


# %% ps4-q2
def plan(budget, share, base, grown, batch_size):
    base_step, grown_step = (
        batch_size * minitf.training_flops(c, c.context) for c in (base, grown)
    )
    base_steps = math.ceil(share * budget / base_step)
    rest = budget - base_steps * base_step
    return {
        "base": base_steps,
        "control": math.ceil(rest / base_step),
        "grown": math.ceil(rest / grown_step),
    }
