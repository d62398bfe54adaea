"""One style for every picture of the course: colors that color-blind readers can tell apart, and shapes too.

The only module that imports matplotlib; `import minitf` works without it.
"""

import base64
import io
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

from .train import somebody_watches

# Okabe and Ito (2008), "Color Universal Design", darkest first, without their yellow: too light for a line
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MAX_PNG_BYTES = 200_000


def style():
    """Set matplotlib's rcParams for the course; the n-th line has its own color, marker and dashes."""
    matplotlib.rcParams.update({k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"})
    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(marker=MARKERS) + cycler(linestyle=LINES),
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.figsize": (6.4, 3.8),
            "font.size": 10,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.markersize": 4,
            "savefig.dpi": 110,
            "svg.hashsalt": "minitf",
        }
    )


def band(ax, x, runs, label, index):
    """Draw the mean of several runs as a line, and the range from the lowest to the highest run as a band.

    x is (points,), runs (seeds, points); index picks color, marker and dashes, the same in every figure.
    Raises ValueError when the shapes differ.
    """
    x, runs = np.asarray(x), np.asarray(runs)
    if runs.ndim != 2 or x.shape != runs.shape[1:]:
        raise ValueError(
            f"runs has shape {runs.shape} and x {x.shape}: runs needs one row per seed, as long as x"
        )
    index %= len(PALETTE)
    look = {"color": PALETTE[index], "marker": MARKERS[index], "linestyle": LINES[index]}
    ax.fill_between(x, runs.min(axis=0), runs.max(axis=0), color=PALETTE[index], alpha=0.2, linewidth=0)
    return ax.plot(x, runs.mean(axis=0), label=label, markevery=max(1, len(x) // 10), **look)[0]


def show(fig, alt, digest):
    """Show a figure in a notebook with a text for those who cannot see it, and print `figure: <digest>`.

    digest says in one line which numbers were drawn: nbval compares it, since it does not compare pixels.
    The figure is closed. Raises ValueError when alt is empty, or digest is not one line.
    """
    _show(fig, alt, digest)


def slider(draw, alt, digest, **choices):
    """Show a figure as `show` does; in a live notebook, with sliders under it that draw it again.

    draw(**values) returns a figure. choices: name=[values] gives a slider, or buttons if the values are words. Each
    starts at its first value: a stored notebook shows the figure of these, which alt and digest are about.
    Needs ipywidgets where it is live.
    """
    start = {name: values[0] for name, values in choices.items()}
    handle = _show(draw(**start), alt, f"{_settings(start)}: {digest}")
    if not somebody_watches():
        return
    from IPython.display import display

    controls = {name: _control(name, values) for name, values in choices.items()}

    def redraw(_):
        values = {name: control.value for name, control in controls.items()}
        data, metadata = _bundle(draw(**values), f"{alt} Redrawn for {_settings(values)}.")
        handle.update(data, metadata=metadata, raw=True)

    for control in controls.values():
        control.observe(redraw, "value")
        # no text beside the view: nbval skips views, whose ids are random, and would compare a text
        view = {"model_id": control.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": view}, raw=True)


def save(fig, path_stem, alt):
    """Write path_stem.png and path_stem.svg, the same bytes each time, alt text inside; closes the figure.

    Raises ValueError when alt is empty or the PNG would be larger than MAX_PNG_BYTES.
    """
    _require_alt(alt)
    svg = io.BytesIO()
    fig.savefig(svg, format="svg", metadata={"Date": None, "Title": alt, "Description": alt})
    png = _png(fig, alt)
    if len(png) > MAX_PNG_BYTES:
        raise ValueError(f"the PNG has {len(png):,} bytes, more than {MAX_PNG_BYTES:,}: draw fewer points")
    Path(f"{path_stem}.png").write_bytes(png)
    Path(f"{path_stem}.svg").write_bytes(svg.getvalue())


def _show(fig, alt, digest):
    """Display and print; returns the handle by which the picture can be replaced."""
    from IPython.display import display

    _require_alt(alt)
    if not digest.strip() or "\n" in digest:
        raise ValueError(f"digest is {digest!r}: give one line with the numbers that the figure shows")
    data, metadata = _bundle(fig, alt)
    handle = display(data, metadata=metadata, raw=True, display_id=True)
    print(f"figure: {digest}")
    return handle


def _control(name, values):
    import ipywidgets

    if isinstance(values[0], str):
        return ipywidgets.ToggleButtons(options=values, description=name, style={"button_width": "auto"})
    return ipywidgets.SelectionSlider(options=values, description=name)


def _settings(values):
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _bundle(fig, alt):
    """The figure as Jupyter shows it: data and metadata."""
    png = base64.b64encode(_png(fig, alt)).decode()
    return {"image/png": png, "text/plain": f"[{alt}]"}, {"image/png": {"alt": alt}}


def _png(fig, alt):
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", metadata={"Software": None, "Description": alt})
    plt.close(fig)
    return buffer.getvalue()


def _require_alt(alt):
    if not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the figure shows")
