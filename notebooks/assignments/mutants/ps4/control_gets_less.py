"""Gives the control the steps of the grown arms: equal steps, not equal FLOPs.

loses: ps4-q2-spent
"""


# %% ps4-q2
def plan(budget, share, base, grown, batch_size):
    base_step, grown_step = (
        batch_size * minitf.training_flops(c, c.context) for c in (base, grown)
    )
    base_steps = int(share * budget // base_step)
    grown_steps = int((budget - base_steps * base_step) // grown_step)
    return {"base": base_steps, "control": grown_steps, "grown": grown_steps}
