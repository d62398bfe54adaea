"""Asks whether an error is large, which nan never is.

loses: ps2-q4-finds
"""


# %% ps2-q4
def wrong_gradients(forward, backward, arrays):
    out, cache = forward(*arrays.values())
    dout = np.random.default_rng(0).standard_normal(out.shape)
    found = []
    for i, (got, (name, array)) in enumerate(
        zip(backward(dout, cache), arrays.items(), strict=True)
    ):

        def scalar(moved, i=i):
            return (
                forward(*(moved if j == i else a for j, a in enumerate(arrays.values())))[0]
                * dout
            ).sum()

        true = minitf.numerical_gradient(scalar, array)
        if (
            got.shape != true.shape
            or (np.abs(got - true) > 1e-5 * np.abs(true).max()).any()
        ):
            found.append(name)
    return found
