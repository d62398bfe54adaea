"""The grader of the classroom: honest work gets its marks, dishonest work gets nothing, and nothing is lost.

The courses here are made of one tiny assignment (tiny_course.py); the real ones are graded in test_classes.py.
"""

import csv
import doctest
import getpass
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")
import hostile
import nbformat
import numpy as np
import tiny_course
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbgrader.api import Gradebook
from nbgrader.server_extensions.formgrader import handlers
from nbgrader.utils import notebook_hash
from traitlets.config import PyFileConfigLoader

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "assignments"))
from classroom import collect, confine, course, grading, intake, items  # noqa: E402
from classroom.student import Ended, Student  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # nbgrader and SQLAlchemy have their own
LIMITS = confine.Limits(seconds=1)
GRADER = Path(confine.__file__).parent

if not os.environ.get("CI") and confine.why_not():
    pytest.skip(f"submissions cannot be confined here: {confine.why_not()}", allow_module_level=True)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A course with the tiny assignment released."""
    folder = tmp_path_factory.mktemp("released")
    tiny_course.write_source(folder / "sources")
    made = course.make_course(folder / "course", folder / "sources")
    assert course.release(made, "tiny") is None
    return made


@pytest.fixture
def klass(released, tmp_path):
    """A copy of it, with a function that hands in answers."""
    copy = tmp_path / "course"
    subprocess.run(["cp", "-a", released, copy], check=True)
    release = nbformat.read(copy / "release/tiny/tiny.ipynb", as_version=4)
    right = course.solutions(nbformat.read(copy / "source/tiny/tiny.ipynb", as_version=4))

    class Klass:
        path = copy

        @staticmethod
        def hand_in(student, **answers):
            answers = right | {f"tiny-{name}": source for name, source in answers.items()}
            return course.hand_in(copy, "tiny", student, course.submission(release, answers))

        @staticmethod
        def grade(**options):
            return grading.grade(copy, "tiny", **{"jobs": 2, "limits": LIMITS} | options)

        @staticmethod
        def marks():
            with Gradebook(f"sqlite:///{copy / 'gradebook.db'}") as gradebook:
                return {s.student.id: s.score for s in gradebook.assignment_submissions("tiny")}

        @staticmethod
        def messages(student):
            notebook = nbformat.read(copy / f"autograded/{student}/tiny/tiny.ipynb", as_version=4)
            outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
            return [o.evalue for o in outputs if o.output_type == "error"]

    return Klass


# ------------------------------------------------------------------------------------------------ honest work


def test_right_wrong_partial_and_untouched_work_get_their_marks(klass):
    klass.hand_in("right")
    klass.hand_in("square", q1=hostile.WRONG)
    klass.hand_in(
        "half", q2="def apply_twice(f, x):\n    return f(f(x))\n\n\ndef quadruple(x):\n    return 3 * x\n"
    )
    klass.hand_in("in_place", q1="def double(x):\n    x *= 2\n    return x\n")
    klass.hand_in("raises", q1="def double(x):\n    return 1 / 0\n")
    course.hand_in(klass.path, "tiny", "untouched", (klass.path / "release/tiny/tiny.ipynb").read_text())
    assert klass.grade() == {}
    assert klass.marks() == {"right": 6, "square": 3, "half": 5, "in_place": 5, "raises": 3, "untouched": 0}
    assert any("a square?" in message for message in klass.messages("square"))
    assert any("in place" in message for message in klass.messages("in_place"))
    assert any("ZeroDivisionError" in message for message in klass.messages("raises"))


def test_a_question_is_graded_with_the_right_answer_to_the_one_before(klass):
    klass.hand_in("alice", q1=hostile.WRONG)  # quadruple calls double
    klass.hand_in("bob", q1="def double(x):\n    return undefined\n")
    klass.grade()
    assert klass.marks() == {"alice": 3, "bob": 3}


def test_feedback_has_the_messages_and_the_points_but_no_text_of_a_test(klass):
    klass.hand_in("square", q1=hostile.WRONG)
    klass.grade()
    assert grading.feedback(klass.path, "tiny") == {}
    page = (klass.path / "feedback/square/tiny/tiny.html").read_text()
    assert "a square?" in page and "x * x" in re.sub("<[^>]*>", "", page)
    assert "hidden_sample" not in page and "HIDDEN" not in page
    assert "because" not in page  # the mark scheme


SCRIPTS = """
**bold** <script>run()</script><img src="x" onerror="run()"><b onclick="run()">b</b> [good](https://example.org)
[link](javascript:run()) <a href="java&#10;script:run()">a</a> <iframe src="data:text/html,run()"></iframe>
![picture](attachment:a.png) ![picture](attachment:b.png) <svg onload="run()"></svg>
<form action="/run()"><input></form>

$a < b$ and $\\href{javascript:run()}{x}$

|a|b|
|-|-|
|1|2|
"""


def test_what_students_write_runs_nothing_in_the_browser_of_who_marks_it(klass):
    path = klass.hand_in("alice", essay=SCRIPTS)
    notebook = json.loads(path.read_text())
    attached = {"a.png": {"image/png": "QUJD"}, "b.png": {"image/png": 'QUJD" onerror="run()'}}
    notebook["cells"][-1]["attachments"] = attached
    path.write_text(json.dumps(notebook))
    klass.grade()
    assert grading.feedback(klass.path, "tiny") == {}
    config = PyFileConfigLoader("nbgrader_config.py", str(klass.path)).load_config()
    marking = HTMLExporter(
        config=config, template_name="formgrade", extra_template_basedirs=[handlers.template_path]
    )
    resources = {"index": 0, "total": 1, "mathjax_url": "", "base_url": ""}
    to_mark, _ = marking.from_filename(str(klass.path / "autograded/alice/tiny/tiny.ipynb"), resources)
    for page in (to_mark, (klass.path / "feedback/alice/tiny/tiny.html").read_text()):
        shown = (
            BeautifulSoup(page, "html.parser")
            .find("strong", string="bold")
            .find_parent(class_="rendered_html")
        )
        tags = {tag.name for tag in shown.find_all(True)}
        assert tags == {"p", "strong", "b", "a", "img", "table", "thead", "tbody", "tr", "th", "td"}
        attributes = [(name, value) for tag in shown.find_all(True) for name, value in tag.attrs.items()]
        assert {value for name, value in attributes if name == "href"} == {"https://example.org"}
        assert {value for name, value in attributes if name == "src"} == {"data:image/png;base64,QUJD"}
        assert {name for name, _ in attributes} <= {"href", "src", "alt", "class"}
        assert "$a < b$" in shown.text and "\\href" not in shown.text


def test_an_answer_that_cannot_be_shown_is_shown_as_it_was_typed(klass):
    klass.hand_in("alice", essay="![lost](attachment:lost.png)")
    klass.hand_in("bob", essay=">" * 5000 + "deep")
    klass.grade()
    assert grading.feedback(klass.path, "tiny") == {}
    assert "attachment:lost.png" in (klass.path / "feedback/alice/tiny/tiny.html").read_text()
    assert "deep" in (klass.path / "feedback/bob/tiny/tiny.html").read_text()


def test_the_release_holds_no_solution_no_hidden_test_and_no_mark_scheme(released):
    text = (released / "release/tiny/tiny.ipynb").read_text()
    assert "NotImplementedError" in text and "python3" in text
    for secret in ("x + x", "apply_twice(double", "hidden_", "because"):
        assert secret not in text and secret in (released / "source/tiny/tiny.ipynb").read_text()


# ---------------------------------------------------------------------------------------------- hostile work


@pytest.fixture
def port():
    """Of somebody who listens on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def attack(source, klass, port, root):
    for name, value in (("COURSE", klass.path), ("PORT", port), ("ROOT", root)):
        source = re.sub(rf"\b{name}\b", lambda _, v=value: repr(v if isinstance(v, int) else str(v)), source)
    return source


def test_every_attack_gets_what_it_is_worth_and_harms_nobody(klass, port):
    students = {}
    for number, (name, (source, points)) in enumerate(hostile.ATTACKS.items()):
        students[f"attacker{number}"] = (name, points)
        klass.hand_in(f"attacker{number}", q1=attack(source, klass, port, "/"))
    klass.hand_in("neighbor", q1=hostile.RIGHT + "# the answer of the neighbor\n")
    before = hashes(klass.path / "source", klass.path / "release", klass.path / "submitted", GRADER)
    assert klass.grade(jobs=4) == {}  # one of them sleeps
    assert hashes(klass.path / "source", klass.path / "release", klass.path / "submitted", GRADER) == before
    marks = klass.marks()
    assert marks.pop("neighbor") == 6
    assert {students[who][0]: mark for who, mark in marks.items()} == dict(students.values())
    stopped = [who for who, mark in marks.items() if mark == 0]
    assert all(klass.messages(who) for who in stopped)  # each with a reason
    grading.feedback(klass.path, "tiny")
    script = next(who for who, (name, _) in students.items() if name == "displays a script")
    assert "alert(1)</script>" not in (klass.path / f"feedback/{script}/tiny/tiny.html").read_text()


def test_the_attacks_that_look_for_something_would_find_it_unconfined(klass, port):
    klass.hand_in("neighbor", q1=hostile.RIGHT + "# the answer of the neighbor\n")
    names = (
        "looks for the tests",
        "looks for other submissions",
        "looks for the gradebook",
        "goes to the network",
    )
    for number, name in enumerate(names):
        klass.hand_in(f"attacker{number}", q1=attack(hostile.ATTACKS[name][0], klass, port, klass.path))
    klass.grade(trust=True)
    assert set(klass.marks().values()) == {6}


def hashes(*folders):
    """What the programs and notebooks in folders hold."""
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".ipynb")]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_notebook_with_changed_metadata_moved_cells_and_replaced_tests_gets_its_honest_mark(klass):
    path = klass.hand_in("cheat", q1=hostile.WRONG)
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        marks = cell["metadata"].get("nbgrader", {})
        if marks.get("grade"):
            marks |= {"points": 100, "grade": False, "solution": True, "locked": False, "checksum": "0"}
            cell["source"] = "pass"
    notebook["cells"] += [
        notebook["cells"][2],
        {"cell_type": "code", "metadata": {}, "source": "grade = None"},
    ]
    notebook["cells"].reverse()
    path.write_text(json.dumps(notebook))
    own_cell = klass.hand_in("own", q1="def double(x):\n    return helper * x\n")
    notebook = json.loads(own_cell.read_text())
    helper = {"cell_type": "code", "metadata": {}, "source": ["helper = ", "2"], "outputs": []}
    notebook["cells"].insert(2, helper)
    own_cell.write_text(json.dumps(notebook))
    klass.grade()
    assert klass.marks() == {"cheat": 3, "own": 6}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no notebook"),
        ("[" * 100_000, "no notebook (RecursionError)"),
        ("{}", "no notebook"),
        ('{"cells": [{"cell_type": "code", "source": 1}]}', "no notebook"),
        (
            '{"cells": ' + "[" + ",".join(['{"cell_type": "code", "source": ""}'] * 1001) + "]}",
            "more than 1000 cells",
        ),
        (" " * (intake.LARGEST + 1), "larger than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_notebook_is_taken_in_as_the_release_with_the_reason(tmp_path, released, content, reason):
    release = nbformat.read(released / "release/tiny/tiny.ipynb", as_version=4)
    path = tmp_path / "tiny.ipynb"
    path.write_text(content)
    notebook, problem = intake.take_in(path, release)
    assert reason in problem and reason in notebook.cells[0].source
    assert [cell.source for cell in notebook.cells[1:]] == [cell.source for cell in release.cells]


def test_a_file_that_cannot_be_read_and_a_link_to_the_source_get_zero(klass):
    course.hand_in(klass.path, "tiny", "garbage", "this is no notebook")
    link = klass.hand_in("link")
    link.unlink()
    link.symlink_to(klass.path / "source/tiny/tiny.ipynb")
    klass.hand_in("missing").rename(klass.path / "submitted/missing/tiny/tiny (1).ipynb")
    problems = klass.grade()
    assert set(problems) == {"garbage", "link", "missing"} and "no file tiny.ipynb" in problems["missing"]
    assert klass.marks() == {"garbage": 0, "link": 0, "missing": 0}


def test_grading_without_confinement_is_refused_unless_asked_for(klass, monkeypatch):
    klass.hand_in("alice")
    monkeypatch.setattr(confine, "why_not", lambda: "bubblewrap is not installed")
    with pytest.raises(RuntimeError, match="bubblewrap is not installed.*--trust"):
        klass.grade()
    assert klass.marks() == {}
    klass.grade(trust=True)
    assert klass.marks() == {"alice": 6}


def nbgrader(folder, *words, exchange=None):
    """Run nbgrader's own command in a course; what it says."""
    config = folder.parent / "jupyter" / "nbgrader_config.py"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f"c = get_config()\nc.Exchange.root = {str(exchange)!r}\n")
    run = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=folder,
        env=os.environ | {"JUPYTER_CONFIG_DIR": str(config.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stderr


def test_nbgraders_own_command_grades_confined_too(klass):
    klass.hand_in("alice", q1=f"import os\nfound = os.path.exists({str(klass.path)!r})\n" + hostile.IF_FOUND)
    nbgrader(klass.path, "autograde", "tiny")
    assert klass.marks() == {"alice": 3}


def test_nbgrader_without_our_settings_runs_no_submission(klass):
    klass.hand_in("alice", q1=f"open({str(klass.path / 'ran')!r}, 'w')\n" + hostile.RIGHT)
    (klass.path / "nbgrader_config.py").unlink()
    with pytest.raises(AssertionError, match=r"NoSuchKernel.*make-grade"):
        nbgrader(klass.path, "autograde", "tiny")
    assert klass.marks() == {"alice": 0} and not (klass.path / "ran").exists()


# ------------------------------------------------------------------------------------------------ the exchange


@pytest.fixture
def exchange(klass, tmp_path):
    """nbgrader's exchange with the tiny assignment in it; a function that writes into its inbound folder."""
    root = tmp_path / "exchange"
    root.mkdir(mode=0o777)
    nbgrader(klass.path, "release_assignment", "tiny", exchange=root)

    def submit(student, time, secret="a secret"):
        folder = root / "minitf" / "inbound" / f"{student}+tiny+{time}+random"
        folder.mkdir()
        (folder / "submission_secret.txt").write_text(secret)
        (folder / "timestamp.txt").write_text(time)
        return folder

    submit.root = root
    return submit


def test_from_the_exchange_to_feedback_and_back(klass, exchange):
    me = getpass.getuser()
    work = klass.hand_in(me).read_bytes()
    shutil.rmtree(klass.path / "submitted")
    for time_, secret in (("2030-01-01 10:00:00 UTC", "one"), ("2030-01-01 11:00:00 UTC", "two")):
        (exchange(me, time_, secret) / "tiny.ipynb").write_bytes(work)
        nbgrader(klass.path, "collect", "tiny", "--update", exchange=exchange.root)
        assert klass.grade() == {} and klass.marks() == {me: 6}
        assert grading.feedback(klass.path, "tiny") == {}
        nbgrader(klass.path, "release_feedback", "tiny", exchange=exchange.root)
        page = (
            exchange.root / "minitf" / "feedback" / f"{notebook_hash(secret=secret, notebook_id='tiny')}.html"
        )
        assert (
            "6.0" in page.read_text()
        )  # found by the secret of the newest submission, though the work is the same


def test_what_is_forged_in_the_exchange_is_left_there(klass, exchange):
    me = getpass.getuser()
    good = klass.hand_in(me, q1=hostile.WRONG).read_bytes()
    shutil.rmtree(klass.path / "submitted")
    (exchange("somebody_else", "2030-01-01 10:00:00 UTC") / "tiny.ipynb").write_bytes(good)
    exchange(me, "not a time")
    linked = exchange(me, "2030-01-01 09:00:00 UTC")
    (linked / "tiny.ipynb").symlink_to(klass.path / "source" / "tiny" / "tiny.ipynb")
    said = nbgrader(klass.path, "collect", "tiny", exchange=exchange.root)
    assert "its owner is somebody else" in said and "not a time" in said
    mine = klass.path / "submitted" / me / "tiny"
    assert [path.name for path in klass.path.glob("submitted/*")] == [me]
    assert sorted(path.name for path in mine.iterdir()) == ["submission_secret.txt", "timestamp.txt"]

    odd = exchange(me, "2030-01-01 11:00:00 UTC")
    (odd / "tiny.ipynb").write_bytes(good)
    (odd / "more.ipynb").write_text("")
    (odd / "submission_secret.txt").unlink()
    (odd / "timestamp.txt").unlink()
    os.mkfifo(odd / "timestamp.txt")
    nbgrader(klass.path, "collect", "tiny", "--update", exchange=exchange.root)
    assert (mine / "tiny.ipynb").read_bytes() == good
    assert (mine / "timestamp.txt").read_text() == "2030-01-01 11:00:00 UTC"
    assert not (mine / "more.ipynb").exists() and (mine / "submission_secret.txt").read_text()


# ------------------------------------------------------------------------------------ many, killed and resumed


def test_a_killed_run_goes_on_where_it_was_and_a_third_one_does_nothing(klass, capsys):
    for number in range(6):
        klass.hand_in(f"s{number}")
    command = [
        sys.executable,
        ROOT / "notebooks/assignments/grade.py",
        "grade",
        "tiny",
        "--course",
        klass.path,
    ]
    run = subprocess.Popen([*map(str, command), "--jobs", "1"], start_new_session=True)
    recorded = klass.path / ".grading/tiny/recorded"
    deadline = time.monotonic() + 60
    while not (recorded.exists() and len(list(recorded.glob("[!.]*"))) >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = {path.name: path.stat().st_mtime_ns for path in recorded.glob("[!.]*")}
    assert 2 <= len(done) < 6
    klass.grade()
    assert klass.marks() == {f"s{number}": 6 for number in range(6)}
    again = {path.name: path.stat().st_mtime_ns for path in recorded.glob("[!.]*")}
    assert {name: again[name] for name in done} == done
    klass.grade()
    assert {path.name: path.stat().st_mtime_ns for path in recorded.glob("[!.]*")} == again


def test_a_new_submission_is_graded_anew_and_others_are_not(klass):
    klass.hand_in("alice", q1=hostile.WRONG)
    klass.hand_in("bob")
    klass.grade()
    stamp = (klass.path / ".grading/tiny/executed/bob/tiny.ipynb").stat().st_mtime_ns
    klass.hand_in("alice")
    klass.grade()
    assert klass.marks() == {"alice": 6, "bob": 6}
    assert (klass.path / ".grading/tiny/executed/bob/tiny.ipynb").stat().st_mtime_ns == stamp


# ----------------------------------------------------------------------------------------- what passes between


def test_functions_pass_both_ways_and_arguments_come_back_as_they_were_left():
    with Student(LIMITS) as student:
        student.run(
            "import numpy as np, warnings\n"
            "def use(f, x, d):\n    x[0] = 7; d['new'] = 1; warnings.warn('careful')\n    return f(x), use\n"
        )
        use = student.look_up({"use"})["use"]
        x, d = np.zeros(3, np.float32), {"old": np.ones(1)}
        with pytest.warns(UserWarning, match="careful"):
            result, same = use(lambda a: a.sum(), x, d)
        assert result == 7 and type(result) is np.float32
        assert x.tolist() == [7, 0, 0] and d["new"] == 1
        with pytest.warns(UserWarning):
            assert same(len, x, d)[0] == 3


def test_an_error_keeps_its_kind_and_a_named_tuple_goes_back_as_it_was():
    with Student(LIMITS) as student:
        student.run("from typing import NamedTuple\nclass Cache(NamedTuple):\n    a: int\n")
        student.run(
            "def f():\n    return 1, Cache(2)\ndef b(cache):\n    return cache.a\ndef bad():\n    raise KeyError('k')\n"
        )
        f, b, bad = (student.look_up({name})[name] for name in ("f", "b", "bad"))
        out, cache = f()
        assert out == 1 and cache == (2,) and type(cache).__name__ == "Cache" and b(cache) == 2
        with pytest.raises(KeyError, match="k"):
            bad()


def test_a_process_that_is_gone_says_so():
    with Student(LIMITS) as student, pytest.raises(Ended, match="ended its own Python process"):
        student.run("import os; os._exit(3)")


# ------------------------------------------------------------------------------------------- tables and files


def test_the_tables_have_the_columns_that_canvas_and_moodle_ask_for(klass):
    with Gradebook(f"sqlite:///{klass.path / 'gradebook.db'}", "minitf") as gradebook:
        gradebook.add_student(
            "alice", first_name="Alice", last_name="O'Neil, Jr.", email="a@b.c", lms_user_id="4711"
        )
        gradebook.add_student("absent")
    klass.hand_in("alice")
    klass.grade()
    plain, canvas, moodle, notebook = grading.tables(klass.path, "tiny")
    rows = {row["student_id"]: row for row in csv.DictReader(plain.read_text(encoding="utf-8").splitlines())}
    assert (rows["alice"]["last_name"], rows["alice"]["tiny"], rows["absent"]["tiny"]) == (
        "O'Neil, Jr.",
        "6.0",
        "",
    )
    # gradebook_importer.rb of Canvas: "Student", "ID", then the two SIS columns together, and "Section" last
    header, possible, *students = csv.reader(canvas.read_text(encoding="utf-8").splitlines())
    assert header == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "tiny"]
    assert "Points Possible" in possible[0] and float(possible[-1]) == 8
    assert ["O'Neil, Jr., Alice", "4711", "", "alice", "", "6.0"] in students
    assert ["absent", "", "", "absent", "", ""] in students
    # Moodle's grade export, which its import takes back
    header, *students = csv.reader(moodle.read_text(encoding="utf-8").splitlines())
    assert header == ["First name", "Last name", "ID number", "Email address", "Assignment: tiny (Real)"]
    assert ["Alice", "O'Neil, Jr.", "alice", "a@b.c", "6.0"] in students
    assert "figure: 1 students, 3 cells, difficulty 1.00 to 1.00" in notebook.read_text()


def test_item_statistics_tell_hard_from_telling_and_name_the_commonest_mutant():
    marks = items.Scores(
        students=list("abcd"),
        cells=["ps-q1-a", "ps-q1-b", "ps-q2-a"],
        points=np.array([2.0, 1.0, 4.0]),
        scores=np.array([[2, 1, 4], [2, 0, 4], [2, 0, 0], [2, 0.5, 0]]),
    )
    mutants = [course.Mutant("x", frozenset({"ps-q1-b"}), {}), course.Mutant("y", frozenset({"ps-q1-a"}), {})]
    easy, hard, telling = items.statistics(marks, mutants)
    assert easy.difficulty == 1 and np.isnan(easy.discrimination) and easy.lost == 0
    assert hard.difficulty == 0.375 and (hard.lost, hard.mutant, hard.matched) == (3, "x", 3)
    assert hard.discrimination == pytest.approx(np.corrcoef([1, 0, 0, 0.5], [6, 6, 2, 2])[0, 1])
    assert (telling.difficulty, telling.mutant, telling.matched) == (0.5, "none", 0)
    assert len(items.table([easy, hard, telling]).splitlines()) == 4


def test_the_stored_item_statistics_come_from_their_source():
    stored = nbformat.read(course.ASSIGNMENTS / "item_statistics.ipynb", as_version=4)
    source = course.read_source(course.ASSIGNMENTS / "item_statistics.py")
    assert [cell.source for cell in stored.cells] == [cell.source for cell in source.cells]
    assert all(cell.outputs for cell in stored.cells if cell.cell_type == "code")


def test_downloads_are_sorted_by_student(tmp_path):
    names = {
        "ada_ps1.ipynb": "ada",
        "bob/ps1.ipynb": "bob",
        "lovelaceada_LATE_4711_98765_ps1-2.ipynb": "4711",
        "Zoë de la Cruz_123_assignsubmission_file_/ps1.ipynb": "zoe.de.la.cruz",
    }
    with zipfile.ZipFile(tmp_path / "downloads.zip", "w") as archive:
        for name in (*names, "ada_ps2.ipynb", "../../evil_ps1.ipynb", "Untitled.ipynb"):
            archive.writestr(name, name)
    assert doctest.testmod(collect).failed == 0
    students, odd = collect.collect(tmp_path / "course", "ps1", tmp_path / "downloads.zip")
    assert sorted(students) == sorted([*names.values(), "evil"])
    assert odd == ["ada_ps2.ipynb", "Untitled.ipynb"]
    for name, student in names.items():
        assert (tmp_path / f"course/submitted/{student}/ps1/ps1.ipynb").read_text() == name
    assert {path.name for path in tmp_path.iterdir()} == {"course", "downloads.zip"}


def test_a_folder_that_is_no_student_is_named(klass):
    klass.hand_in("*")
    with pytest.raises(ValueError, match=r"no student's id: \*"):
        klass.grade()
