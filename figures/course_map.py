"""Where in a TokenFormer each lesson is at home. A drawing, not a measurement: it has no JSON.

`python figures/course_map.py` redraws the PNG and the SVG.
"""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from minitf import plot

ALT = (
    "A TokenFormer from left to right: characters, embedding, then a block with layer norm, three Pattentions for "
    "query, key and value, causal attention, an output Pattention, a second norm and a feed-forward Pattention, each "
    "half added to its input, and at the end norm, logits and loss. Lesson 01 is at attention, 02 and 03 at the "
    "Pattentions, 04 at the gradients that flow back from the loss, 05 at the whole, 00 where characters go in, 10 "
    "where images do instead; 06 grows the Pattentions, 09 looks inside them, 07 counts all costs, 08 moves it to "
    "GPUs, 11 asks what else tokens are good for."
)
PLAIN, TOKENS, ATTENTION = "#e8e8e8", plot.PALETTE[6], plot.PALETTE[5]
BOXES = (  # x, label, color; all on one line
    (-0.2, "characters", PLAIN),
    (1.1, "embed", PLAIN),
    (2.95, "norm", PLAIN),
    (4.3, "query\nkey\nvalue", TOKENS),
    (5.75, "causal\nattention", ATTENTION),
    (7.2, "output", TOKENS),
    (8.85, "norm", PLAIN),
    (10.2, "feed-\nforward", TOKENS),
    (12.1, "norm,\nlogits", PLAIN),
    (13.4, "loss", PLAIN),
)
WIDTH, MIDDLE = 1.05, 1.5


def badge(ax, x, y, lesson, words):
    ax.text(
        x, y, lesson, ha="center", va="center", fontsize=10, weight="bold", color="white",
        bbox={"boxstyle": "circle,pad=0.25", "facecolor": plot.PALETTE[1], "edgecolor": "none"},
    )  # fmt: skip
    ax.text(x + 0.32, y, words, ha="left", va="center", fontsize=9.5)


def arrow(ax, start, end, curve=0.0, **options):
    style = f"arc3,rad={curve}"
    options = {"color": "#444444", "linewidth": 1.1, **options}
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, connectionstyle=style, **options)
    )


def draw():
    plot.style()
    fig, ax = plt.subplots(figsize=(12, 3.6))
    ax.set(xlim=(-0.3, 14.6), ylim=(-1.2, 3.7))
    ax.axis("off")
    ax.add_patch(
        FancyBboxPatch(
            (2.4, 0.42), 9.5, 2.1, boxstyle="round,pad=0.06", facecolor="none", edgecolor="#999999"
        )
    )
    ax.text(11.9, 2.68, "one block, repeated", ha="right", va="bottom", fontsize=9, color="#555555")
    for x, label, color in BOXES:
        ax.add_patch(
            FancyBboxPatch(
                (x, MIDDLE - 0.42), WIDTH, 0.84, boxstyle="round,pad=0.04", facecolor=color, edgecolor="none"
            )
        )
        ax.text(x + WIDTH / 2, MIDDLE, label, ha="center", va="center", fontsize=9)
    for (left, *_), (right, *_) in itertools.pairwise(BOXES):
        arrow(ax, (left + WIDTH + 0.04, MIDDLE), (right - 0.04, MIDDLE))
    for start, end in ((2.66, 8.52), (8.62, 11.72)):  # the residual stream goes around each half
        ax.plot([start, start, end], [MIDDLE, 2.25, 2.25], "--", color="#444444", linewidth=1.1, marker="")
        arrow(ax, (end, 2.25), (end, MIDDLE + 0.02))
    arrow(ax, (13.9, 0.95), (1.6, 0.95), curve=-0.1, color=plot.PALETTE[2], linewidth=1.6)
    badge(ax, 0.15, 2.5, "00", "finish a line, grow")
    badge(ax, 0.15, 3.3, "05", "build and train the whole")
    badge(ax, 4.2, 3.3, "01", "attention, by hand")
    badge(ax, 7.2, 3.3, "02", "parameters as tokens (blue)")
    badge(ax, 11.2, 3.3, "03", "their normalizer")
    badge(ax, 6.6, -0.15, "04", "every gradient, by hand")
    badge(ax, 0.15, 0.4, "10", "or images")
    badge(ax, 0.15, -0.85, "06", "grow the blue parts")
    badge(ax, 4.2, -0.85, "09", "look inside them")
    badge(ax, 7.2, -0.85, "07", "count what it all costs")
    badge(ax, 11.2, -0.85, "08", "move it to the GPU")
    badge(ax, 11.2, -0.15, "11", "ask what else")
    plot.save(fig, Path(__file__).with_suffix(""), ALT)


if __name__ == "__main__":
    draw()
