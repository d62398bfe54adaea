"""Counts the forward pass and forgets the backward, which is twice as much again.

loses: ps4-q2-within, ps4-q2-spent
"""


# %% ps4-q2
def plan(budget, share, base, grown, batch_size):
    base_step, grown_step = (
        batch_size * minitf.forward_flops(c, c.context) for c in (base, grown)
    )
    base_steps = int(share * budget // base_step)
    rest = budget - base_steps * base_step
    return {
        "base": base_steps,
        "control": int(rest // base_step),
        "grown": int(rest // grown_step),
    }
