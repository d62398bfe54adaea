"""Write browsable HTML of executed lessons.

    python notebooks/site/build.py FOLDER_WITH_IPYNB FOLDER_FOR_HTML

The pages work without a network where npm is there to fetch MathJax once; nothing is executed.
"""

import html
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build"
PAGES = ("GLOSSARY.md", "RELEASED_WEIGHTS.md")  # listed in index.md, beside the lessons
MATHJAX = "mathjax@3.2.2"  # the last version with a file that holds everything, fonts too


def lesson_facts(path):
    """Name, title, minutes and first promise of a lesson, from the cells before its first code."""
    text = ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            break
        text += cell.source + "\n\n"
    title = re.search(r"^# (.+)$", text, re.M)
    minutes = re.search(r"\*\*Minutes:?\*\*\D*(\d+)", text)
    promise = re.search(r"\*\*You will be able to:?\*\*[:\s>*-]*(.+)", text)
    if not (title and minutes and promise):
        raise SystemExit(
            f"{path.name} has no title, no minutes or no promise: see CONTRIBUTING.md"
        )
    return path.stem, title[1].strip(), int(minutes[1]), promise[1].strip()


def card(name, title, minutes, promise):
    """One lesson as a link on the first page."""
    title = re.sub(r"^(Lesson )?\d+\W+", "", title)
    plain = html.escape(re.sub(r"[*`$\\]", "", promise))
    return (
        f'<a class="card" href="notebooks/{name}.html"><span class="number">Lesson {name[:2]} · {minutes} minutes</span>'
        f'<span class="title">{html.escape(title)}</span><span class="does">{plain}</span></a>'
    )


def tell_alt(notebook):
    """Move the alt text of figures to where myst-nb looks for it: in the metadata of the cell."""
    for cell in notebook.cells:
        metadata = [
            output.get("metadata", {}).get("image/png", {})
            for output in cell.get("outputs", [])
        ]
        alts = [each["alt"] for each in metadata if "alt" in each]
        if alts:
            cell.metadata["mystnb"] = {"image": {"alt": " / ".join(alts)}}


def fetch_mathjax():
    """MathJax as one file from npm, kept in build/; None (and one line saying so) where npm cannot bring it."""
    kept = BUILD / "mathjax.js"
    if kept.exists():
        return kept
    BUILD.mkdir(exist_ok=True)
    npm = shutil.which("npm")
    if npm:
        command = [
            npm,
            "pack",
            "--silent",
            "--fetch-retries=0",
            "--fetch-timeout=30000",
            MATHJAX,
        ]
        packed = subprocess.run(command, cwd=BUILD, capture_output=True, text=True)
        if packed.returncode == 0:
            archive = BUILD / packed.stdout.split()[-1]
            with tarfile.open(archive) as tar:
                kept.write_bytes(tar.extractfile("package/es5/tex-svg-full.js").read())
            archive.unlink()
            return kept
    print(
        "MathJax could not be fetched with npm: the pages will load it from a CDN when they are read"
    )
    return None


def lay_out(notebooks, source):
    """Collect in `source` what Sphinx reads, so that links between lessons, figures and code keep working."""
    shutil.rmtree(source, ignore_errors=True)
    static = source / "_static"
    static.mkdir(parents=True)
    shutil.copy(HERE / "conf.py", source)
    shutil.copy(HERE / "course.css", static)
    mathjax = fetch_mathjax()
    if mathjax:
        shutil.copy(mathjax, static)
    for folder in ("figures", "minitf"):
        shutil.copytree(
            ROOT / folder,
            source / folder,
            ignore=shutil.ignore_patterns("__pycache__", "*.md"),
        )
    for page in (ROOT / "figures").glob(
        "*.md"
    ):  # a lesson links to them, no list of pages does
        text = page.read_text(encoding="utf-8")
        (source / "figures" / page.name).write_text(
            f"---\norphan: true\n---\n\n{text}", encoding="utf-8"
        )
    (source / "notebooks").mkdir()
    lessons = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not lessons:
        raise SystemExit(
            f"no executed lesson in {notebooks}: run python notebooks/build.py"
        )
    (source / "notebooks" / "puzzles").mkdir()
    for page in [*lessons, *sorted(notebooks.glob("puzzles/*.ipynb"))]:
        notebook = nbformat.read(page, as_version=4)
        tell_alt(notebook)
        nbformat.write(notebook, source / "notebooks" / page.relative_to(notebooks))
    for page in PAGES:
        shutil.copy(HERE.parent / page, source / "notebooks")
    cards = "\n".join(card(*lesson_facts(lesson)) for lesson in lessons)
    index = (HERE / "index.md").read_text(encoding="utf-8")
    index = index.replace(
        "<!-- lesson cards -->", f'<div class="lesson-cards">\n{cards}\n</div>'
    )
    (source / "index.md").write_text(index, encoding="utf-8")


def main(notebooks, target):
    source = BUILD / "site-source"
    lay_out(Path(notebooks), source)
    shutil.rmtree(target, ignore_errors=True)
    # warnings are errors: a broken link or a broken formula stops the build
    sphinx = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-b",
        "html",
    ]
    subprocess.run(
        [*sphinx, "-d", str(BUILD / "doctrees"), str(source), target], check=True
    )
    print(f"wrote {os.path.join(target, 'index.html')}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
