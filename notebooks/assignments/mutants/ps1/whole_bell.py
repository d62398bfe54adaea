"""Integrates over both halves of the normal distribution, as if the ReLU kept every score.

loses: ps1-q3-values
"""


# %% ps1-q3
def predicted_rms(power):
    def mean_of_power(q):
        return 2 ** (q / 2) * math.gamma((q + 1) / 2) / math.sqrt(math.pi)

    return math.sqrt(mean_of_power(2 * power)) / mean_of_power(power)
