"""Wrong answers to the exercises of lesson 07, each with a word that must be in what the check says."""

import statistics

import numpy as np


def flops(n_layers, d, n_attention, n_ffn, vocab, T):
    per_layer = 16 * n_attention * d + 4 * n_ffn * d
    return T * (n_layers * (per_layer + 4 * T * d) + 2 * vocab * d)


def flops_by_loop_with_three_pattentions(n_layers, d, n_attention, n_ffn, vocab, T):
    total = 2 * T * d * vocab
    for _ in range(n_layers):
        for n in (n_attention, n_attention, n_attention, n_ffn):
            total += 2 * T * d * n + 2 * T * n * d
        total += 2 * T * d * T + 2 * T * T * d
    return total


def flops_of_a_transformer(n_layers, d, n_attention, n_ffn, vocab, T):
    parameters = n_layers * (4 * d * d + 2 * d * n_ffn)
    return 2 * parameters * T + 4 * n_layers * d * T**2 + 2 * vocab * d * T


def flops_with_v1_table(n_layers, d, n_attention, n_ffn, vocab, T):
    return flops(n_layers, d, n_attention, n_ffn, vocab, T) - 8 * n_layers * d * n_attention * T


def flops_of_keys_only(n_layers, d, n_attention, n_ffn, vocab, T):
    parameters = n_layers * d * (4 * n_attention + n_ffn)
    return 2 * parameters * T + 4 * n_layers * d * T * T + 2 * vocab * d * T


def flops_with_vocabulary_once(n_layers, d, n_attention, n_ffn, vocab, T):
    """As the table in the paper has it, without T in the last row."""
    return flops(n_layers, d, n_attention, n_ffn, 0, T) + 2 * vocab * d


def flops_with_rows_squared(n_layers, d, n_attention, n_ffn, vocab, T):
    return flops(n_layers, d, n_attention, n_ffn, vocab, T) + 4 * n_layers * (d * d * T - d * T * T)


def flops_of_a_masked_square(n_layers, d, n_attention, n_ffn, vocab, T):
    pairs = T * (T + 1) // 2
    return flops(n_layers, d, n_attention, n_ffn, vocab, T) - 4 * n_layers * d * (T * T - pairs)


def savings_rounded(scratch, grown):
    return round(scratch[-1] / grown.sum(), 1), round(scratch.sum() / grown.sum(), 1)


def savings_cumulated(scratch, grown):
    return scratch[-1] / grown.sum(), (np.cumsum(scratch) / np.cumsum(grown)).mean()


def savings_of_each_size(scratch, grown):
    return scratch / np.cumsum(grown), np.cumsum(scratch) / np.cumsum(grown)


def savings_in_place(scratch, grown):
    scratch /= grown.sum()
    return scratch[-1], scratch.sum()


def without_base(scratch, grown):
    total = sum(grown[1:])
    return scratch[-1] / total, sum(scratch) / total


def verdict_by_mean_and_spread(values, threshold):
    mean, spread = np.mean(values), np.std(values)
    if mean - spread >= threshold:
        return "holds"
    return "fails" if mean + spread < threshold else "within noise"


def verdict_in_other_words(values, threshold):
    passed = sum(value >= threshold for value in values)
    return "noise" if 0 < passed < len(values) else ("holds" if passed else "fails")


def verdict_by_majority(values, threshold):
    return "holds" if sum(value >= threshold for value in values) > len(values) / 2 else "fails"


def verdict_by_first_seed(values, threshold):
    return "holds" if values[0] >= threshold else "fails"


def verdict_for_each_seed(values, threshold):
    return ["holds" if value >= threshold else "fails" for value in values]


def verdict_with_strict_inequality(values, threshold):
    passed = [value > threshold for value in values]
    return "holds" if all(passed) else "within noise" if any(passed) else "fails"


def verdict_with_tolerance(values, threshold):
    passed = [value >= threshold - 0.05 * abs(threshold) - 0.05 for value in values]
    return "holds" if all(passed) else "within noise" if any(passed) else "fails"


def verdict_turned_around(values, threshold):
    passed = [value <= threshold for value in values]
    return "holds" if all(passed) else "within noise" if any(passed) else "fails"


def verdict_in_place(values, threshold):
    values -= threshold
    return "holds" if min(values) >= 0 else "fails" if max(values) < 0 else "within noise"


WRONG = {
    "forward_flops": [
        (flops_by_loop_with_three_pattentions, "output projection"),
        (flops_of_a_transformer, "wrong values"),
        (flops_with_v1_table, "first version of table 3"),
        (flops_of_keys_only, "a key and a value"),
        (flops_with_vocabulary_once, "lack T"),
        (flops_with_rows_squared, "wrong values"),
        (flops_of_a_masked_square, "mask"),
        (lambda *sizes: 3 * flops(*sizes), "training"),
        (lambda *sizes: flops(*sizes) // sizes[-1], "one token"),
        (lambda *sizes: flops(*sizes) / 2, "A multiplication and an addition"),
        (lambda *sizes: -flops(*sizes), "wrong values"),
        (lambda *sizes: flops(*sizes) + 1, "wrong values"),
        (lambda *sizes: np.array([flops(*sizes)]), "shape"),
        (lambda *sizes: f"{flops(*sizes):,}", "a str"),
    ],
    "savings": [
        (lambda scratch, grown: (sum(scratch) / sum(grown), scratch[-1] / sum(grown)), "other order"),
        (lambda scratch, grown: (scratch.max() / grown.max(), scratch.sum() / grown.sum()), "wrong values"),
        (lambda scratch, grown: (scratch[-1] / grown[-1], scratch.sum() / grown.sum()), "stages before it"),
        (lambda scratch, grown: scratch.sum() / grown.sum(), "expected 2"),
        (lambda scratch, grown: scratch[-1] / grown.sum(), "expected 2"),
        (lambda scratch, grown: (scratch.sum() / grown.sum(),) * 2, "Only the last size"),
        (without_base, "base"),
        (lambda scratch, grown: (grown.sum() / scratch[-1], grown.sum() / scratch.sum()), "upside down"),
        (lambda scratch, grown: (1 - grown.sum() / scratch[-1], 1 - grown.sum() / scratch.sum()), "wrong"),
        (savings_rounded, "wrong values"),
        (savings_cumulated, "wrong values"),
        (savings_of_each_size, "each size"),
        (savings_in_place, "in place"),
    ],
    "verdict": [
        (lambda values, threshold: "holds" if statistics.fmean(values) >= threshold else "fails", "mean"),
        (verdict_by_mean_and_spread, "wrong values"),
        (verdict_in_other_words, "noise"),
        (verdict_by_majority, "wrong values"),
        (verdict_by_first_seed, "wrong values"),
        (verdict_for_each_seed, "each seed"),
        (verdict_with_strict_inequality, "equals the threshold"),
        (verdict_with_tolerance, "wrong values"),
        (verdict_turned_around, "turned around"),
        (lambda values, threshold: "holds" if max(values) >= threshold else "fails", "one good seed"),
        (lambda values, threshold: "holds" if min(values) >= threshold else "fails", "one bad seed"),
        (lambda values, threshold: all(value >= threshold for value in values), "three answers"),
        (verdict_in_place, "in place"),
    ],
}
