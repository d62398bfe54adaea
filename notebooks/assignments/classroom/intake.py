"""Take in a submission: a clean notebook, whatever the file holds.

The notebook is built anew in the order of the release. Of the submission come the answers, and the student's own
cells where they stood, with the pictures in them; its metadata, its outputs and its copies of locked cells do not.
"""

import json
from typing import NamedTuple

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

LARGEST = 8 << 20  # bytes of a submitted notebook, pictures included
MOST_CELLS = 1000
PICTURES = ("image/png", "image/jpeg", "image/gif")


class Cell(NamedTuple):
    kind: str
    source: str
    grade_id: str | None
    attachments: dict  # pictures in a markdown cell


class Unreadable(Exception):
    """Says why a submission has no marks."""


def take_in(path, release):
    """(notebook, what was wrong or None) of the file at `path`; where it cannot be read, the release as it was."""
    try:
        return _merge(_cells(path), release), None
    except Unreadable as problem:
        unread = nbformat.from_dict(release)
        note = f"**This submission could not be read, so it has no marks: {problem}.**"
        unread.cells.insert(0, new_markdown_cell(note))
        return unread, str(problem)


def read(path):
    """The bytes of a submitted file; raises Unreadable."""
    if path != path.resolve() or not path.is_file():  # a link could lead to the source
        raise Unreadable(f"there is no file {path.name}")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Unreadable(f"{path.name} is larger than {LARGEST >> 20} MiB")
    return content


def _cells(path):
    """A Cell for each one in a file that anyone may have written."""
    try:
        cells = [_cell(cell) for cell in json.loads(read(path))["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{path.name} is no notebook ({type(error).__name__})") from None
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"{path.name} has more than {MOST_CELLS} cells")
    return cells


def _cell(cell):
    source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    grade_id = cell.get("metadata", {}).get("nbgrader", {}).get("grade_id")
    writable = source.encode(errors="replace").decode()  # without halves of surrogate pairs
    grade_id = grade_id if isinstance(grade_id, str) else None
    pictures = {} if cell["cell_type"] == "code" else _pictures(cell.get("attachments", {}))
    return Cell(str(cell["cell_type"]), writable, grade_id, pictures)


def _pictures(attachments):
    found = {}
    for name, formats in attachments.items():
        kept = {
            kind: data for kind in PICTURES if isinstance(data := formats.get(kind), str) and data.isascii()
        }
        found |= {name: kept} if kept and name.isprintable() else {}
    return found


def _merge(cells, release):
    """The release with the answers of the submission, and the student's own cells before the one they preceded."""
    merged = nbformat.from_dict(release)
    marked = {cell.metadata.nbgrader.grade_id: cell for cell in merged.cells if "nbgrader" in cell.metadata}
    given = {cell.source for cell in merged.cells if "nbgrader" not in cell.metadata}
    last = {cell.grade_id: i for i, cell in enumerate(cells)}  # of copies the last one counts
    before, waiting = {}, []
    for i, cell in enumerate(cells):
        if cell.grade_id in marked and last[cell.grade_id] == i:
            before[cell.grade_id], waiting = waiting, []
            if marked[cell.grade_id].metadata.nbgrader.solution:
                _fill(marked[cell.grade_id], cell)
        elif cell.source not in given:
            waiting.append(_fill(new_code_cell() if cell.kind == "code" else new_markdown_cell(), cell))
    ordered = []
    for cell in merged.cells:
        ordered += before.get(cell.metadata.get("nbgrader", {}).get("grade_id"), [])
        ordered.append(cell)
    merged.cells = ordered + waiting
    return merged


def _fill(target, cell):
    target.source = cell.source
    if cell.attachments and target.cell_type == "markdown":
        target.attachments = nbformat.from_dict(cell.attachments)
    return target
