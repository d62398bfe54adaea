"""Every lesson is in step with its source, was run from top to bottom, and has the parts of a lesson.

nbval proves that the stored outputs still come out; it passes where there are none, and looks at no picture.
"""

import copy
import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
SOURCES = sorted((NOTEBOOKS / "src").glob("*.py"))
PUZZLES = sorted((NOTEBOOKS / "src" / "puzzles").glob("*.py"))
FIRST_LESSONS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11")
MAX_BYTES = 300_000


def load(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.parent.name + "_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = load(NOTEBOOKS / "build.py")
site = load(NOTEBOOKS / "site" / "build.py")


# --- the checkers: each returns a list of complaints ---


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def opening(notebook):
    """The text before the first code."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            break
        texts.append(cell.source)
    return "\n\n".join(texts)


def texts_of(output):
    """Everything a reader sees of an output as text."""
    if output.output_type == "stream":
        return [output.text]
    return [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]


def not_in_step(notebook, source):
    """The stored cells against those of the source notebook."""

    def what(cells):
        return [(cell.cell_type, cell.source, cell.metadata.get("tags", []), cell.id) for cell in cells]

    stored, wanted = what(notebook.cells), what(source.cells)
    if stored == wanted:
        return []
    first = next(
        (i for i, pair in enumerate(zip(stored, wanted, strict=False)) if pair[0] != pair[1]), "last"
    )
    return [f"differs from its source from cell {first} on: run python notebooks/build.py"]


def not_run(notebook):
    """Code cells have the execution counts 1, 2, 3, …"""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if not counts:
        return ["has no code cell"]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]


def unclean_outputs(notebook):
    """No error, nothing on stderr, no path of somebody's machine."""
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            where = f"cell {cell.execution_count}"
            if output.output_type == "error":
                found.append(f"{where} raised {output.ename}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"{where} wrote to stderr: {output.text[:80]!r}")
            for text in texts_of(output):
                paths = re.findall(r"(?<![\w.:/<~-])/[A-Za-z][\w.-]*/[\w./-]+|\b[A-Z]:\\\w+", text)
                found += [f"{where} shows the path {path}" for path in paths]
    return found


def missing_card(notebook, name):
    """Title with the verb of the file name; before the first code what it is for and how long it takes."""
    found = []
    verb = name.split("_")[1]
    title = re.match(r"# (.+)", notebook.cells[0].source if notebook.cells[0].cell_type == "markdown" else "")
    if title is None:
        found.append("the first cell does not start with a '# title'")
    elif verb.lower() not in re.findall(r"\w+", title[1].lower()):
        found.append(f"the title {title[1]!r} does not have the verb {verb!r} of the file name")
    for heading in ("You will be able to", "You need", "Minutes"):
        if not re.search(rf"\*\*{heading}:?\*\*", opening(notebook)):
            found.append(f"the card before the first code lacks **{heading}**")
    if not re.search(r"\*\*Minutes:?\*\*\D{0,9}\d", opening(notebook)):
        found.append("**Minutes** is not followed by a number")
    return found


def missing_parts(notebook, name):
    """The card, and what only a lesson has: box and quiz."""
    found = missing_card(notebook, name)
    if not re.search(r"(\*\*|^#+ )Paper, release, here", markdown(notebook), re.M):
        found.append("lacks the box **Paper, release, here**")
    quiz = re.split(r"^#+ Quiz\s*$|^\*\*Quiz\*\*\s*$", markdown(notebook), flags=re.M)
    if len(quiz) != 2:
        found.append(f"has {len(quiz) - 1} sections ## Quiz, not one")
    else:
        counts = [quiz[1].count(tag) for tag in ("<details", "</details>", "<summary", "</summary>")]
        if counts != [3, 3, 3, 3]:
            found.append(f"the quiz has {counts[0]} answers folded with <details><summary>, not three")
    return found


def untold_pictures(notebook):
    """Every picture says in words what it shows, and every plotted figure prints a digest of its data."""
    found = [f"{tag} has no alt text" for tag in re.findall(r"!\[\s*\]\([^)]*\)", markdown(notebook))]
    for tag in re.findall(r"<img[^>]*>", markdown(notebook)):
        if not re.search(r"alt=[\"'][^\"']+", tag):
            found.append(f"{tag} has no alt text")
    for cell in code_cells(notebook):
        pictures = [o for o in cell.outputs if {"image/png", "image/svg+xml"} & set(o.get("data", {}))]
        digests = sum(
            len(re.findall(r"^figure: \S", o.text, re.M)) for o in cell.outputs if o.output_type == "stream"
        )
        for picture in pictures:
            if not picture.metadata.get("image/png", {}).get("alt", "").strip():
                found.append(f"the figure of cell {cell.execution_count} has no alt text: use plot.show")
        if digests < len(pictures):
            found.append(
                f"cell {cell.execution_count} does not print 'figure: …' for each figure: use plot.show"
            )
    return found


# --- the lessons ---


def test_the_first_lessons_are_there():
    numbers = [path.stem[:2] for path in SOURCES]
    assert set(FIRST_LESSONS) <= set(numbers), f"notebooks/src holds the lessons {numbers or 'none'}"
    assert len(numbers) == len(set(numbers)), "two lessons share a number"


def test_every_notebook_has_a_source():
    built = {path.stem for folder in (NOTEBOOKS, NOTEBOOKS / "puzzles") for path in folder.glob("*.ipynb")}
    strays = built - {path.stem for path in SOURCES + PUZZLES}
    assert not strays, "these have no file in notebooks/src"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_lesson(source):
    assert re.fullmatch(r"\d\d_[a-z0-9]+(_[a-z0-9]+)+", source.stem), "name it NN_verb_object.py"
    require_good(source, NOTEBOOKS / f"{source.stem}.ipynb", missing_parts)


@pytest.mark.parametrize("source", PUZZLES, ids=lambda path: path.stem)
def test_puzzles(source):
    assert re.fullmatch(r"p\d_[a-z0-9]+(_[a-z0-9]+)+", source.stem), "name it pN_verb_object.py"
    require_good(source, NOTEBOOKS / "puzzles" / f"{source.stem}.ipynb", missing_card)


def require_good(source, stored, missing):
    """The stored notebook is in step with its source and clean; missing(notebook, name) finds no gap."""
    assert stored.exists(), "not built: run python notebooks/build.py"
    notebook = nbformat.read(stored, as_version=4)
    complaints = [
        *not_in_step(notebook, builder.read_source(source)),
        *not_run(notebook),
        *unclean_outputs(notebook),
        *missing(notebook, source.stem),
        *untold_pictures(notebook),
    ]
    assert not complaints, "\n".join([source.stem, *complaints])
    nbformat.validate(notebook)
    assert stored.stat().st_size < MAX_BYTES
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_readme_lists_the_lesson_with_its_minutes(source):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [row for row in readme.splitlines() if f"(notebooks/{source.stem}.ipynb)" in row]
    minutes = re.search(r"\*\*Minutes:?\*\*\D*(\d+)", opening(builder.read_source(source)))[1]
    assert len(rows) == 1 and rows[0].endswith(f"| {minutes} |"), f"needs one row that ends in | {minutes} |"


# --- the checkers notice what they are for ---

GOOD = """\
# %% [markdown]
# # Make a thing
# **You will be able to** make it. **You need** NumPy. **Minutes** 5
#
# ![a thing](thing.png)

# %%
print("figure: 1 thing")

# %% [markdown]
# > **Paper, release, here.** The same.
#
# ## Quiz
# 1. Why? <details><summary>Answer</summary>Because.</details>
# 2. Why? <details><summary>Answer</summary>Because.</details>
# 3. Why? <details><summary>Answer</summary>Because.</details>
"""


@pytest.fixture
def good(tmp_path):
    """A small lesson as if it had been run: one code cell that shows one figure."""
    path = tmp_path / "99_make_a_thing.py"
    path.write_text(GOOD, encoding="utf-8")
    notebook = builder.read_source(path)
    cell = notebook.cells[1]
    cell.execution_count = 1
    cell.outputs = [
        nbformat.v4.new_output(
            "display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": "a thing"}}
        ),
        nbformat.v4.new_output("stream", name="stdout", text="figure: 1 thing\n"),
    ]
    return notebook


def all_complaints(notebook):
    return [
        *not_run(notebook),
        *unclean_outputs(notebook),
        *missing_parts(notebook, "99_make_a_thing"),
        *untold_pictures(notebook),
    ]


def test_the_good_lesson_passes(good):
    assert all_complaints(good) == []
    assert not_in_step(good, copy.deepcopy(good)) == []


@pytest.mark.parametrize(
    ("gone", "complaint"),
    [
        ("# Make a thing", "title"),
        ("Make", "verb 'make'"),
        ("**You will be able to**", "You will be able to"),
        ("**You need**", "You need"),
        ("**Minutes**", "Minutes"),
        (" 5", "number"),
        ("a thing](", "alt text"),
        ("**Paper, release, here.**", "Paper, release, here"),
        ("## Quiz", "0 sections"),
        ("<details>", "not three"),
        ("<summary>Answer</summary>Because.", "not three"),
    ],
)
def test_a_missing_part_is_noticed(good, gone, complaint):
    for cell in good.cells:
        cell.source = cell.source.replace(gone, "](" if gone.endswith("](") else "", 1)
    assert complaint in "\n".join(all_complaints(good))


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[]), "raised ValueError"),
        (nbformat.v4.new_output("stream", name="stderr", text="careful"), "stderr"),
        (nbformat.v4.new_output("stream", text="saved /home/ann/model\n"), "path /home/ann/model"),
        (nbformat.v4.new_output("stream", text="saved C:\\Users\\ann"), "path C:"),
        (nbformat.v4.new_output("display_data", {"image/png": "AAAA"}), "no alt text"),
        (
            nbformat.v4.new_output(
                "display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": "x"}}
            ),
            "figure: …",
        ),
    ],
)
def test_an_unclean_output_is_noticed(good, output, complaint):
    good.cells[1].outputs.append(output)
    assert complaint in "\n".join(all_complaints(good))


@pytest.mark.parametrize("count", [None, 2])
def test_a_cell_that_was_not_run_in_order_is_noticed(good, count):
    good.cells[1].execution_count = count
    assert not_run(good) == [f"execution counts are [{count}]"]


def test_rates_and_fractions_are_no_paths(good):
    good.cells[1].outputs.append(
        nbformat.v4.new_output("stream", text="3 tokens/s, 1/2/3, loss / token, a/b/c")
    )
    assert all_complaints(good) == []


def test_a_change_against_the_source_is_noticed(good):
    source = copy.deepcopy(good)
    source.cells[1].source += " # changed"
    assert not_in_step(good, source)
    assert not_in_step(good, nbformat.from_dict({**good, "cells": good.cells[:-1]}))


# --- the builder ---


def test_building_twice_gives_the_same_file(tmp_path):
    source = tmp_path / "99_make_a_thing.py"
    source.write_text(GOOD, encoding="utf-8")
    for folder in ("one", "two"):
        builder.build(source, tmp_path / folder)
    one, two = ((tmp_path / folder / "99_make_a_thing.ipynb").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert b"figure: 1 thing" in one and str(tmp_path).encode() not in one


def test_a_failing_cell_is_named_and_nothing_is_written(tmp_path):
    source = tmp_path / "99_make_a_thing.py"
    source.write_text(GOOD + '\n# %%\nprint("second")\nraise KeyError("lost")\n', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"99_make_a_thing, code cell 2 of 2:[\s\S]*KeyError: 'lost'"):
        builder.build(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_site_shows_the_facts_of_a_lesson(good, tmp_path):
    path = tmp_path / "99_make_a_thing.ipynb"
    nbformat.write(good, path)
    assert site.lesson_facts(path)[:3] == ("99_make_a_thing", "Make a thing", 5)
    good.cells[0].source = "# Make a thing"
    nbformat.write(good, path)
    with pytest.raises(SystemExit, match="no minutes"):
        site.lesson_facts(path)


def test_the_site_keeps_alt_texts(good):
    site.tell_alt(good)
    assert good.cells[1].metadata["mystnb"] == {"image": {"alt": "a thing"}}
    assert "mystnb" not in good.cells[0].metadata
