"""Wrong answers to the exercises of lesson 09, each with a word that must be in what the check says."""

import numpy as np


def rate_of_strong_weights(weights, threshold=1.0):
    return (np.abs(weights) > threshold).reshape(-1, weights.shape[-1]).mean(axis=0)


def rate_by_a_loop_over_a_table(weights, threshold=1.0):
    return np.array([(weights[:, i] > threshold).mean() for i in range(weights.shape[1])])


def rate_of_each_text_token(weights, threshold=1.0):
    return (weights > threshold).mean(axis=-1)


def rate_in_place(weights, threshold=1.0):
    weights[weights <= threshold] = 0
    return (weights > 0).reshape(-1, weights.shape[-1]).mean(axis=0)


def rate_against_the_mean(weights, threshold=1.0):
    return (weights > weights.mean()).reshape(-1, weights.shape[-1]).mean(axis=0)


def rate_as_list(weights, threshold=1.0):
    return (weights > threshold).reshape(-1, weights.shape[-1]).mean(axis=0).tolist()


def along(weights, value, dout):
    return (weights * (dout @ value.T)).reshape(-1, len(value))


def importance_by_einsum_of_a_table(weights, value, dout):
    return -np.einsum("ti,id,td->i", weights, value, dout)


def importance_of_the_output(weights, value, dout):
    out = weights @ value
    return -(out * dout).sum(axis=-1)


def importance_of_layer(weights, value, dout):
    return -along(weights, value, dout).sum()


def importance_in_place(weights, value, dout):
    weights *= dout @ value.T
    return -weights.reshape(-1, len(value)).sum(axis=0)


def importance_as_length_of_gradient(weights, value, dout):
    dvalue = weights.reshape(-1, len(value)).T @ dout.reshape(-1, dout.shape[-1])
    return np.linalg.norm(dvalue, axis=1)


def importance_as_gradient(weights, value, dout):
    return -(weights.reshape(-1, len(value)).T @ dout.reshape(-1, dout.shape[-1]))


def importance_in_float64(weights, value, dout):
    total = np.zeros(len(value))
    total -= along(weights, value, dout).sum(axis=0)
    return total


WRONG = {
    "firing_rate": [
        (lambda w, threshold=1.0: (w > threshold).mean(axis=0), "first axis"),
        (lambda w, threshold=1.0: (w > threshold).reshape(-1, w.shape[-1]).sum(axis=0), "count"),
        (lambda w, threshold=1.0: (w > threshold).mean(), "one number"),
        (lambda w, threshold=1.0: (w > 1.0).reshape(-1, w.shape[-1]).mean(axis=0), "fixed"),
        (lambda w, threshold=1.0: (w >= threshold).reshape(-1, w.shape[-1]).mean(axis=0), "Above"),
        (lambda w, threshold=1.0: w.reshape(-1, w.shape[-1]).mean(axis=0), "mean weight"),
        (rate_of_strong_weights, "upwards"),
        (rate_by_a_loop_over_a_table, "shape"),
        (rate_of_each_text_token, "each text token"),
        (rate_in_place, "in place"),
        (rate_against_the_mean, "wrong values"),
        (rate_as_list, "list"),
    ],
    "token_importance": [
        (lambda w, v, g: along(w, v, g).sum(axis=0), "sign"),
        (lambda w, v, g: -along(w, v, g).mean(axis=0), "mean"),
        (lambda w, v, g: -np.abs(along(w, v, g)).sum(axis=0), "wrong values"),
        (lambda w, v, g: np.abs(along(w, v, g)).sum(axis=0), "absolute"),
        (lambda w, v, g: -(w * (g @ v.T)).sum(axis=0), "first axis"),
        (lambda w, v, g: -(w * (g @ v.T)), "sum over the text tokens missing"),
        (lambda w, v, g: -(g @ v.T).reshape(-1, len(v)).sum(axis=0), "weights missing"),
        (lambda w, v, g: -(w * (g @ v.T)).sum(axis=-1), "parameter tokens"),
        (lambda w, v, g: -(w * (g @ v)).reshape(-1, len(v)).sum(axis=0), "ValueError"),
        (importance_by_einsum_of_a_table, "ValueError"),
        (importance_of_the_output, "parameter tokens"),
        (importance_of_layer, "float"),
        (importance_in_place, "in place"),
        (importance_as_length_of_gradient, "wrong values"),
        (importance_as_gradient, "shape"),
        (importance_in_float64, "float64"),
    ],
}

RIGHT_ANYWAY = set()
