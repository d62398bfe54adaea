"""The plots of the course: text for those who do not see them, and the same bytes each time."""

import re

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from minitf import plot  # noqa: E402


@pytest.fixture
def fig():
    with matplotlib.rc_context():
        plot.style()
        figure, ax = plt.subplots()
        for index in range(2):
            plot.band(
                ax, np.arange(5), np.arange(15).reshape(3, 5) + index, label=f"run {index}", index=index
            )
        ax.legend()
        yield figure
        plt.close(figure)


def test_band_draws_the_mean_and_the_range(fig):
    ax = fig.axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [5, 6, 7, 8, 9])
    low, high = ax.collections[0].get_datalim(ax.transData).intervaly
    assert (low, high) == (0, 14)


def test_lines_differ_in_more_than_color(fig):
    one, two = fig.axes[0].lines
    assert one.get_color() != two.get_color()
    assert one.get_marker() != two.get_marker()
    assert one.get_linestyle() != two.get_linestyle()


@pytest.mark.parametrize("runs", [np.zeros(5), np.zeros((3, 4))])
def test_band_refuses_shapes_that_do_not_fit(fig, runs):
    with pytest.raises(ValueError, match="one row per seed"):
        plot.band(fig.axes[0], np.arange(5), runs, "a", 0)


class Screen:
    """Stands in for IPython's display: keeps (data, metadata) of what is shown, in order."""

    def __init__(self, monkeypatch):
        self.outputs = []
        monkeypatch.setattr(pytest.importorskip("IPython.display"), "display", self.display)

    def display(self, data, metadata=None, raw=False, display_id=False):
        assert raw
        self.outputs.append((data, metadata))
        return self if display_id else None

    def update(self, data, metadata=None, raw=False):
        assert raw
        self.outputs.append((data, metadata))


def test_show_gives_the_alt_text_and_prints_the_digest(fig, monkeypatch, capsys):
    screen = Screen(monkeypatch)
    plot.show(fig, alt="two rising lines", digest="ends 9, 10")
    [(data, metadata)] = screen.outputs
    assert data["image/png"].startswith("iVBOR")
    assert metadata == {"image/png": {"alt": "two rising lines"}}
    assert capsys.readouterr().out == "figure: ends 9, 10\n"
    assert not plt.fignum_exists(fig.number)


@pytest.mark.parametrize(("alt", "digest"), [(" ", "1"), ("a line", ""), ("a line", "1\n2")])
def test_show_needs_both_texts(fig, alt, digest):
    pytest.importorskip("IPython")
    with pytest.raises(ValueError, match="is empty|one line"):
        plot.show(fig, alt, digest)


def line_up_to(n, tau):
    figure, ax = plt.subplots()
    ax.plot([0, n], [0, float(tau)])
    return figure


def test_where_nobody_watches_a_slider_is_the_figure_of_the_first_values(monkeypatch, capsys):
    screen = Screen(monkeypatch)
    monkeypatch.setenv("MINITF_PROGRESS", "0")
    plot.slider(line_up_to, alt="a line", digest="rises", n=[1, 2], tau=["4", "8"])
    [(data, metadata)] = screen.outputs
    assert "image/png" in data and metadata == {"image/png": {"alt": "a line"}}
    assert capsys.readouterr().out == "figure: n = 1, tau = 4: rises\n"
    assert not plt.get_fignums()


def test_moving_a_slider_redraws_the_figure_and_its_alt_text(monkeypatch, capsys):
    widgets = pytest.importorskip("ipywidgets")
    screen, controls = Screen(monkeypatch), []
    for kind in (widgets.SelectionSlider, widgets.ToggleButtons):
        monkeypatch.setattr(
            widgets,
            kind.__name__,
            lambda kind=kind, **options: controls.append(kind(**options)) or controls[-1],
        )
    monkeypatch.setattr(plot, "somebody_watches", lambda: True)
    plot.slider(line_up_to, alt="A line.", digest="rises", n=[1, 2], tau=["4", "8"])
    first, *views = (data for data, _ in screen.outputs)
    # a text beside a view would stop nbval
    assert [list(view) for view in views] == [["application/vnd.jupyter.widget-view+json"]] * 2
    slider, buttons = controls
    slider.value = 2
    buttons.value = "8"
    redrawn, metadata = screen.outputs[-1]
    assert redrawn["image/png"] != first["image/png"]
    assert metadata["image/png"]["alt"] == "A line. Redrawn for n = 2, tau = 8."
    assert capsys.readouterr().out == "figure: n = 1, tau = 4: rises\n"
    assert not plt.get_fignums()


def draw(folder):
    """Draw and save from scratch; returns the bytes of both files."""
    with matplotlib.rc_context():
        plot.style()
        figure, ax = plt.subplots()
        ax.plot([1, 2, 4])
        ax.fill_between([0, 1, 2], 0, [1, 2, 4], hatch="/")  # hatches and clips get ids, which hashsalt fixes
        plot.save(figure, folder / "line", alt="a rising line & its area")
    return (folder / "line.png").read_bytes(), (folder / "line.svg").read_bytes()


def test_save_writes_the_same_bytes_with_the_alt_text_inside(tmp_path):
    (tmp_path / "again").mkdir()
    png, svg = draw(tmp_path)
    assert (png, svg) == draw(tmp_path / "again")
    assert b"Description\x00a rising line & its area" in png
    assert re.search(rb"<title>a rising line &amp; its area</title>", svg)
    assert b"<dc:date>" not in svg


def test_save_refuses_a_large_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "MAX_PNG_BYTES", 100)
    with pytest.raises(ValueError, match="fewer points"):
        draw(tmp_path)
    assert list(tmp_path.iterdir()) == []
