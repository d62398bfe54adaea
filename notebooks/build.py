"""Make the executed lessons from their sources: notebooks/src/NN_name.py -> notebooks/NN_name.ipynb.

    python notebooks/build.py                 every lesson and the puzzles
    python notebooks/build.py 02_turn p1      those whose names start so
    python notebooks/build.py --check [...]   the same, but written to build/course-notebooks/

A source is a Python file in jupytext's percent format. Building it twice gives the same file.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
CHECKED = HERE.parent / "build" / "course-notebooks"
SECONDS_PER_CELL = 300


def read_source(path):
    """The lesson in a percent-format file as an unexecuted notebook.

    A cell's id is a hash of what stands in it, so that inserting a cell changes no other cell.
    """
    notebook = jupytext.read(path, fmt="py:percent")
    seen = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[
            :12
        ]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return _tidy(notebook)


def execute(notebook, cwd=HERE):
    """Run all cells in order in a fresh kernel of this Python; raises what nbclient raises."""
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_PER_CELL,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=[
            "--IPKernelApp.log_level=ERROR"
        ],  # not a warning about TCP for each lesson
        resources={"metadata": {"path": str(cwd)}},
    )
    client.execute()
    return _tidy(notebook)


def build(source, folder):
    """Convert, execute and write one source; returns seconds. Nothing is written when a cell fails."""
    start = time.perf_counter()
    notebook = read_source(source)
    try:
        execute(notebook)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        report = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # without the colors of IPython
        raise SystemExit(f"\n{source.stem}, {_failed_cell(notebook)}: {report}") from None
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{source.stem}.ipynb")
    return time.perf_counter() - start


def _tidy(notebook):
    """Keep only metadata that is the same on every machine."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _failed_cell(notebook):
    """Which cell stopped the run: the first that has an error or, after a time-out, the last that began."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    began = [cell for cell in code if cell.execution_count or cell.outputs] or code[:1]
    failed = [
        cell
        for cell in began
        if any(output.output_type == "error" for output in cell.outputs)
    ]
    cell = (failed or began[-1:])[0]
    return f"code cell {code.index(cell) + 1} of {len(code)}"


def _chosen(names):
    sources = sorted(SOURCES.glob("[0-9][0-9]_*.py"))
    if not sources:
        raise SystemExit("no lesson found: notebooks/src holds no NN_name.py")
    sources += sorted(SOURCES.glob("puzzles/p[0-9]_*.py"))
    for name in names:
        if not any(source.stem.startswith(name) for source in sources):
            raise SystemExit(
                f"no name starts with {name!r}: there are {', '.join(s.stem for s in sources)}"
            )
    return [
        source for source in sources if not names or source.stem.startswith(tuple(names))
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="lessons or puzzles, by the start of their names; none means all",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write to build/course-notebooks, not to notebooks",
    )
    arguments = parser.parse_args()
    os.environ["MINITF_PROGRESS"] = (
        "0"  # the kernels inherit it: a stored output holds no progress bar
    )
    sources = _chosen(arguments.names)
    for number, source in enumerate(sources, 1):
        print(f"[{number}/{len(sources)}] {source.stem} ", end="", flush=True)
        folder = CHECKED if arguments.check else HERE
        seconds = build(source, folder / source.parent.relative_to(SOURCES))
        print(f"{seconds:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
