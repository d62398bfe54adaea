"""What you will build: a weight matrix, the same layer as parameter tokens, and the layer after growing.

A drawing, not a measurement: it has no JSON. `python figures/architecture.py` redraws the PNG and the SVG.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle

from minitf import plot

ALT = (
    "Three drawings. Left: a linear layer, a token of width 4 times one fixed weight matrix. Middle: Pattention, "
    "the token scores six parameter keys, theta turns the six scores into weights, and the weighted sum of six "
    "values is the output. Right: the same layer after growing, with three more rows of keys (zero) and values "
    "appended, and an output of the same width."
)
INK, KEY, VALUE, NEW, TOKEN = plot.PALETTE[0], plot.PALETTE[1], plot.PALETTE[2], plot.PALETTE[3], "#8c8c8c"
CELL = 0.42
MIDDLE = 2.75


def cells(ax, x, y, rows, columns, color, new_rows=0):
    """A matrix as squares, top left corner at (x, y); the last new_rows are drawn hatched."""
    for r in range(rows):
        is_new = r >= rows - new_rows
        for c in range(columns):
            ax.add_patch(
                Rectangle(
                    (x + c * CELL, y - (r + 1) * CELL),
                    CELL * 0.88,
                    CELL * 0.88,
                    facecolor=NEW if is_new else color,
                    alpha=0.55 if is_new else 0.8,
                    hatch="///" if is_new else None,
                    edgecolor="white",
                    linewidth=0.5,
                )
            )


def text(ax, x, y, words, **options):
    ax.text(x, y, words, **{"ha": "center", "va": "center", "fontsize": 9.5, "color": INK, **options})


def arrow(ax, start, end):
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=INK, linewidth=1))


def frame(ax, title, subtitle):
    ax.set_xlim(-0.1, 9.1)
    ax.set_ylim(-0.5, 5.6)
    ax.set_aspect("equal")
    ax.axis("off")
    text(ax, 4.5, 5.35, title, fontsize=12, weight="bold")
    text(ax, 4.5, 4.75, subtitle, fontsize=10)


def draw_linear(ax):
    frame(ax, "a linear layer", r"$x\,W^{\top}$")
    cells(ax, 0.6, MIDDLE + 0.2, 1, 4, TOKEN)
    text(ax, 1.4, MIDDLE - 0.5, "token $x$\nwidth $d$", va="top")
    arrow(ax, (2.4, MIDDLE), (3.4, MIDDLE))
    cells(ax, 3.6, MIDDLE + 2 * CELL, 4, 4, KEY)
    text(ax, 4.4, MIDDLE - 2 * CELL - 0.18, "weights $W$, fixed at $d \\times d$", va="top")
    arrow(ax, (5.4, MIDDLE), (6.4, MIDDLE))
    cells(ax, 6.6, MIDDLE + 0.2, 1, 4, TOKEN)
    text(ax, 7.4, MIDDLE - 0.5, "output\nwidth $d$", va="top")


def draw_pattention(ax, title, subtitle, n, new):
    frame(ax, title, subtitle)
    top = 4.0  # rows are appended below, the old ones stay where they were
    bottom = top - n * CELL - 0.18
    cells(ax, 0.0, MIDDLE + 0.2, 1, 4, TOKEN)
    text(ax, 0.8, MIDDLE - 0.5, "token $x$", va="top")
    arrow(ax, (1.75, MIDDLE), (2.2, MIDDLE))
    cells(ax, 2.3, top, n, 4, KEY, new)
    cells(ax, 4.3, top, n, 1, TOKEN, new)
    cells(ax, 5.05, top, n, 4, VALUE, new)
    text(ax, 3.1, bottom, "keys $K$", va="top")
    text(ax, 4.47, bottom, r"$\Theta$", va="top")
    text(ax, 5.85, bottom, "values $V$", va="top")
    arrow(ax, (6.8, MIDDLE), (7.25, MIDDLE))
    cells(ax, 7.35, MIDDLE + 0.2, 1, 4, TOKEN)
    text(ax, 8.15, MIDDLE - 0.5, "output", va="top")


def draw():
    plot.style()
    fig, axes = plt.subplots(1, 3, figsize=(12, 2.9))
    draw_linear(axes[0])
    draw_pattention(axes[1], "the same layer as tokens", r"$\Theta(x\,K^{\top})\,V$", n=6, new=0)
    draw_pattention(axes[2], "grown: tokens appended", "zero keys: the same output, more room", n=9, new=3)
    plot.save(fig, Path(__file__).with_suffix(""), ALT)


if __name__ == "__main__":
    draw()
