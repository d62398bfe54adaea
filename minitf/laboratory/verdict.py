"""Claims written before the runs, as inequalities on measured quantities, and the verdicts that the runs give.

The page beside a figure, NAME.md, has a section for the predictions and one for the verdict; both are generated.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Claim:
    """An inequality on a measured quantity; at_least: the threshold is a lower bound, otherwise an upper one."""

    text: str
    quantity: str  # in words, with its unit
    measure: Callable  # results -> {seed: value}
    threshold: float
    at_least: bool = True
    expected: bool = True  # our prediction: it holds
    applies: Callable = lambda results: True  # False where a plan has none of the arms
    headline: bool = False  # goes into README's table of directions

    def bound(self):
        return f"{'≥' if self.at_least else '≤'} {self.threshold:g}"

    def verdict(self, values):
        """ "holds" or "fails" where all seeds agree; values: {seed: value}."""
        answers = {v >= self.threshold if self.at_least else v <= self.threshold for v in values.values()}
        return "within noise" if len(answers) == 2 else "holds" if answers == {True} else "fails"


class Results:
    """What an experiment's JSON says, for its claims: {seed: a field of the run} by arm.

    measured: {"arms": {name: {"keys": {seed: key}}}, "runs": {key: record}, ...}; `tuning.tune_and_repeat` makes arms.
    """

    def __init__(self, measured):
        self.measured = measured

    def __call__(self, arm, field="heldout"):
        runs = self.measured["runs"]
        return {seed: runs[key][field] for seed, key in self.measured["arms"][arm]["keys"].items()}


def plan_of(measured, kind):
    """The plan, a dataclass of this kind, that an experiment's JSON was measured by."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in measured["plan"].items()})


def minus(a, b):
    """{seed: a - b} for the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def ratio(a, b):
    """{seed: a / b} for the seeds that both have."""
    return {seed: a[seed] / b[seed] for seed in a if seed in b}


def judge(claims, results):
    """Rows (claim, values by seed, verdict) of the claims that apply."""
    rows = []
    for claim in claims:
        if claim.applies(results):
            values = claim.measure(results)
            rows.append((claim, values, claim.verdict(values)))
    return rows


def number(value):
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def mean(values):
    return number(float(np.mean(list(values.values()))))


def predictions_table(claims):
    lines = ["| claim | quantity | threshold | we expect |", "|---|---|---|---|"]
    for claim in claims:
        expected = "holds" if claim.expected else "fails"
        lines.append(f"| {claim.text} | {claim.quantity} | {claim.bound()} | {expected} |")
    return "\n".join(lines)


def verdict_table(claims, results):
    lines = ["| claim | measured: mean (lowest to highest seed) | threshold | verdict |", "|---|---|---|---|"]
    for claim, values, verdict in judge(claims, results):
        spread = f"{mean(values)} ({number(min(values.values()))} to {number(max(values.values()))})"
        lines.append(f"| {claim.text} | {claim.quantity}: {spread} | {claim.bound()} | **{verdict}** |")
    return "\n".join(lines)


def readme_table(claims, results):
    lines = ["| claim | measured, mean of the seeds | verdict |", "|---|---|---|"]
    for claim, values, verdict in judge(claims, results):
        lines.append(f"| {claim.text} | {claim.quantity}: {mean(values)} | {verdict} |")
    return "\n".join(lines)


def headline_rows(claims, results):
    """[claim, "quantity: mean", verdict] of each headline: what an experiment's JSON keeps for README."""
    rows = judge([claim for claim in claims if claim.headline], results)
    return [[claim.text, f"{claim.quantity}: {mean(values)}", verdict] for claim, values, verdict in rows]


def directions_table(figures):
    """README's table of directions: the headlines of every JSON in the folder."""
    lines = ["| experiment | claim | measured, mean of the seeds | verdict |", "|---|---|---|---|"]
    for path in sorted(figures.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")).get("headlines", ()):
            link = f"[{path.stem.replace('_', ' ')}](figures/{path.stem}.md)"
            lines.append(f"| {link} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def write_section(page, name, text):
    """Replace what stands between <!-- name --> and <!-- /name --> in a Markdown page."""
    before, start, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not (start and end):
        raise ValueError(
            f"{page} has no section {name}: it stands between <!-- {name} --> and <!-- /{name} -->"
        )
    page.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")
