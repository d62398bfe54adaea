# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Read what the marks say about the questions
#
# A question is good if it is neither trivial nor hopeless, and if those who know more do better on it. A mistake that many make is a lesson to
# give next week.
#
# `make grade` runs this notebook into `grades/`. To run it yourself, set `MINITF_CLASS` to the folder of your course and `MINITF_PS` to the
# assignment.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
from classroom import course, items

from minitf.plot import show, style

style()
gradebook = Path(os.environ["MINITF_CLASS"]).resolve() / "gradebook.db"
assignment = os.environ["MINITF_PS"]
marks = items.read_scores(f"sqlite:///{gradebook}", assignment)
rows = items.statistics(marks, course.read_mutants(assignment))
print(items.table(rows))

# %% [markdown]
# **Difficulty** is the mean share of the points: 1 is easy. **Discrimination** is the correlation of a cell's marks with the marks in all
# other cells. Below 0.2 look at the question: is it ambiguous, or is everybody right? **Commonest mutant** names the known wrong
# answer that loses the same cells of the question as most of those who lost this one.

# %%
difficulty = [row.difficulty for row in rows]
discrimination = [row.discrimination for row in rows]
figure, axes = plt.subplots(figsize=(7, 1 + 0.3 * len(rows)))
axes.plot(difficulty, range(len(rows)), "o", label="difficulty")
axes.plot(discrimination, range(len(rows)), "s", label="discrimination")
axes.axvline(0.2, linestyle="--", linewidth=1, color="gray")
axes.set_yticks(range(len(rows)), [row.name for row in rows])
axes.set(
    xlim=(min(0, *discrimination) - 0.02, 1.02), xlabel="1 is easy; below 0.2 tells little"
)
axes.invert_yaxis()
axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
low = sum(each < 0.2 for each in discrimination)
show(
    figure,
    alt="A row for each graded cell: a disk for its difficulty, which is the mean share of the points, "
    "and a square for its discrimination. A dashed line is at 0.2.",
    digest=f"{len(marks.students)} students, {len(rows)} cells, difficulty {min(difficulty):.2f} to "
    f"{max(difficulty):.2f}, {low} cells below 0.2",
)
