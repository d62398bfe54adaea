"""What a program can check of a text: links lead somewhere, words are spelled, lessons keep their measure and form."""

import dataclasses
import html
import inspect
import re
import statistics
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import minitf
from minitf.pattention import PattentionCache, ThetaCache

nbformat = pytest.importorskip("nbformat")
jupytext = pytest.importorskip("jupytext")

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks" / "src").glob("[0-9][0-9]_*.py"))
FOLDERS = ("figures", "minitf", "notebooks", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))])
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)

CELLS = range(25, 46)
WORDS = range(900, 1801)
LINES = 8  # of most code cells
STEPS = ("Predict", "Derive", "Code", "Check", "See", "Explain", "Break it")


def name(path):
    return path.relative_to(ROOT).as_posix()


def read(path):
    """A page as one text, a notebook or the source of one as its markdown cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown")


# --- the checkers: each returns a list of complaints ---


def without_code(text):
    text = re.sub(r"^( *)(`{3,}|~{3,}).*?^\1\2", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", "code", text)


def targets(text):
    """Where links and pictures of a text point to."""
    text = without_code(text)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    defined = re.findall(r"^\s{0,3}\[[^\]]+\]:\s+(\S+)", text, re.M)
    return inline + defined + re.findall(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']+)", text)


def anchors(text):
    """The anchors that headings get on GitHub, in JupyterLab (which keeps capitals) and in the site."""
    found = set(re.findall(r"\b(?:id|name)=[\"']([^\"']+)", text))
    for heading in re.findall(r"^#+ +(.+?) *$", without_code(text), re.M):
        words = re.sub(r"[^\w\s-]", "", heading)
        found |= {words.lower().replace(" ", "-"), heading.replace(" ", "-")}
    return found


def broken_links(path, text):
    """Links to files that are not there and to headings that are not in them; other servers are not asked."""
    # the first page of the site is laid out beside the folders that it names
    base = ROOT if path.parent == ROOT / "notebooks" / "site" else path.parent
    found = []
    for target in targets(text):
        if re.match(r"https://|mailto:", target):
            continue
        file, _, anchor = unquote(html.unescape(target)).partition("#")
        there = (base / file).resolve()
        if file and not (there.exists() and there.is_relative_to(ROOT)):
            found.append(f"{target}: no such file in this repository")
        elif anchor and anchor not in anchors(read(there) if file else text):
            found.append(f"{target}: no such heading")
    return found


def prose(text):
    """What is read from top to bottom: no formulas, no tables, nothing folded, no code."""
    text = re.sub(r"<details>.*?</details>", "", without_code(text), flags=re.S)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
    text = re.sub(r"\$[^$]+\$", "formula", text)
    text = re.sub(r"^(> ?)?\|.*$", "", text, flags=re.M)
    return re.sub(r"\]\([^)]*\)", "]", text)


def out_of_measure(notebook):
    """Too long or too short, in cells, in words or in lines of code."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = len(re.findall(r"[^\W\d_][\w'’-]*", prose(text)))
    lines = [
        sum(bool(line.strip()) for line in cell.source.splitlines())
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    found = []
    if len(notebook.cells) not in CELLS:
        found.append(f"has {len(notebook.cells)} cells, not {CELLS.start} to {CELLS.stop - 1}")
    if words not in WORDS:
        found.append(f"has {words} words of prose, not {WORDS.start} to {WORDS.stop - 1}")
    if statistics.median(lines) > LINES:
        found.append(f"half of its code cells have more than {LINES} lines")
    return found


def missing_steps(text):
    """Steps of a lesson that it never takes."""
    return [f"never says **{step}**" for step in STEPS if not re.search(rf"\*\*{step}\b", text, re.I)]


def vague_references(text):
    """References that do not say where in the work to look: a section, an equation, a file, an issue."""
    part = re.split(r"^## References\s*$", text, flags=re.M)
    if len(part) != 2:
        return ["needs one section ## References"]
    entries = re.findall(r"^- (.+(?:\n  .+)*)", part[1], re.M)
    where = r"(section|eq\.|equation|appendix|algorithm|table|figure|chapter|issue)s? ?#?[\dA-Z]|`[^`]+`"
    found = [f"no place given: {entry[:60]}" for entry in entries if not re.search(where, entry)]
    return found or ([] if entries else ["## References is empty"])


# --- the pages and lessons ---


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name)
def test_links_lead_somewhere(path):
    assert broken_links(path, read(path)) == []


def spelling(*paths):
    """What codespell says; pyproject.toml tells it to take American spelling."""
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml")]
    return subprocess.run([*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True).stdout


def test_words_are_spelled_right():
    pytest.importorskip("codespell_lib")
    code = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert spelling(*PAGES, *code, ROOT / "Makefile", ROOT / "pyproject.toml") == ""


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_keeps_its_measure_and_form(path):
    text = read(path)
    found = out_of_measure(jupytext.read(path)) + vague_references(text)
    if not path.stem.startswith("00"):  # it only looks around
        found += missing_steps(text)
    assert not found, "\n".join([path.stem, *found])


GLOSSARY = (ROOT / "notebooks" / "GLOSSARY.md").read_text(encoding="utf-8")


def rows(section):
    """The rows of the table in a section of the glossary, each a list of cells."""
    text = re.split(r"^## ", GLOSSARY, flags=re.M)
    text = next(part for part in text if part.startswith(section))
    table = re.findall(r"^\|(.*)\|$", text, re.M)[2:]  # below the heads and their line
    return [[cell.strip() for cell in row.split("|")] for row in table]


def test_the_glossary_uses_names_that_exist():
    known = {*dir(minitf), "n", "sqrt"}
    for function in (minitf.theta_forward, minitf.pattention_forward, minitf.grow, minitf.adamw_step):
        known |= set(inspect.signature(function).parameters)
    for cls in (minitf.TokenformerConfig, minitf.TransformerConfig):
        known |= {field.name for field in dataclasses.fields(cls)}
    for cache in (PattentionCache, ThetaCache):
        known |= set(cache._fields)
    code = [each for row in rows("Three names") for each in re.findall(r"`([^`]+)`", row[3])]
    assert len(code) > 20
    used = {name for each in code for name in re.findall(r"(?<![\"\w])[a-zA-Z]\w*(?![\"\w])", each)}
    assert used - known - {"None", "False"} == set()


def test_a_question_is_answered_where_the_glossary_says():
    assert len(rows("Questions")) >= 5
    for issue, _, _, places in rows("Questions"):
        number = re.match(r"\[#(\d+)\]", issue)[1]
        lessons = re.findall(r"\((\w+)\.ipynb\)", places)
        assert lessons, f"#{number} has no lesson"
        for lesson in lessons:
            text = read(ROOT / "notebooks" / "src" / f"{lesson}.py")
            assert re.search(rf"issues? [^.]*#{number}\b", text), f"{lesson} does not mention issue #{number}"


# --- the checkers notice what they are for ---

PAGE = """\
# A page, of links

[a file](README.md), [a heading](#a-page-of-links), [another](README.md#two-commands), ![x](figures/architecture.png)
<a href="LICENSE">html</a>, [elsewhere](https://example.org), `[code](nowhere.md)`

```
[more code](nowhere.md)
```

[named]: CONTRIBUTING.md
"""


def test_links_that_lead_somewhere_pass():
    assert len(targets(PAGE)) == 7
    assert broken_links(ROOT / "page.md", PAGE) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(README.md)", "(README.rst)"),
        ("#a-page-of-links", "#a-page"),
        ("#two-commands", "#three-commands"),
        ("architecture.png", "architecture.gif"),
        ('"LICENSE"', '"LICENSES"'),
        ("https:", "http:"),
        (": CONTRIBUTING.md", ": CONTRIBUTION.md"),
        ("(README.md)", "(../)"),
    ],
)
def test_a_broken_link_is_noticed(right, wrong):
    assert len(broken_links(ROOT / "page.md", PAGE.replace(right, wrong, 1))) == 1


@pytest.mark.parametrize("word", ["recieve", "colour"])  # codespell:ignore recieve,colour
def test_a_misspelled_word_is_noticed(tmp_path, word):
    pytest.importorskip("codespell_lib")
    page = tmp_path / "page.md"
    page.write_text(f"The {word} of a layer.\n", encoding="utf-8")
    assert word in spelling(page)


def lesson(cells=30, words=1000, lines=3):
    """A lesson of this measure, half of it code."""
    half = cells // 2
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("word " * (words // half)) for _ in range(half)]
    notebook.cells += [nbformat.v4.new_code_cell("x = 1\n" * lines) for _ in range(cells - half)]
    return notebook


def test_the_measure_of_a_lesson():
    assert out_of_measure(lesson()) == []
    assert "has 24 cells" in out_of_measure(lesson(cells=24))[0]
    assert "has 46 cells" in out_of_measure(lesson(cells=46))[0]
    assert "has 885 words" in out_of_measure(lesson(words=899))[0]
    assert "has 1815 words" in out_of_measure(lesson(words=1815))[0]
    assert "more than 8 lines" in out_of_measure(lesson(lines=9))[0]


def test_formulas_tables_code_and_folded_answers_are_no_prose():
    folded = "<details><summary>Answer</summary>\n\nbecause\n\n</details>"
    text = (
        f"Two words $x + y$ here.\n\n$$a b c$$\n\n| a | table |\n\n`some code`\n\n{folded}\n[link](to/there)"
    )
    assert prose(text).split() == ["Two", "words", "formula", "here.", "code", "[link]"]


@pytest.mark.parametrize("step", STEPS)
def test_a_missing_step_is_noticed(step):
    text = " ".join(f"**{each}**" for each in STEPS)
    assert missing_steps(text) == []
    assert missing_steps(text.replace(step, "Skip")) == [f"never says **{step}**"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("- A. Author, *Work*, 2020: section 3.\n", None),
        ("- A. Author, *Work*,\n  2020: appendix B.\n", None),
        ("- The release: `model.py`.\n", None),
        ("- A. Author, *Work*, 2020.\n", "no place given"),
        ("", "is empty"),
    ],
)
def test_a_reference_without_a_place_is_noticed(entry, complaint):
    found = vague_references(f"text\n\n## References\n\n{entry}\n**Next**: more.")
    assert (complaint in found[0]) if complaint else found == []
    assert vague_references("no references at all")
