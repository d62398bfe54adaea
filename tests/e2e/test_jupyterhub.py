"""An assignment on a real JupyterHub: two students and an instructor, each with an account of this machine.

The students fetch, answer, submit and read their feedback in JupyterLab, in headless Chromium; the instructor
releases, collects, grades, marks a proof and releases feedback in formgrader. nbgrader's exchange relies on owners
and permissions of files, so the accounts are real ones, made for this test and removed after it; that takes root.
`make test-hub` runs it and leaves what the browser showed in build/hub/screens. Settings are INSTRUCTOR.md's.
"""

import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

if not os.environ.get("MINITF_HUB"):
    pytest.skip("takes minutes and makes accounts: make test-hub", allow_module_level=True)
if os.geteuid() != 0:
    pytest.skip("only root can make accounts, and start servers for them", allow_module_level=True)

import nbformat
from playwright.sync_api import expect, sync_playwright
from servers import CHROMIUM, PATIENCE, answers, free_ports, wait_until

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks" / "assignments"))
from classroom import course  # noqa: E402

PROXY = ROOT / "build/hub/node_modules/configurable-http-proxy/bin/configurable-http-proxy"
SCREENS = ROOT / "build/hub/screens"
PS = "ps3"  # has code and proofs
MISTAKE, LOST = "d_for_n", "ps3-q1-exact"  # a mutant of its first question, and what it loses

HUB_CONFIG = """\
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{ports[0]}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{ports[1]}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{ports[2]}"
c.ConfigurableHTTPProxy.command = ["node", "{proxy}"]
c.JupyterHub.authenticator_class = "pam"
c.Authenticator.allowed_users = {users}
c.Spawner.environment = {environment}
c.Spawner.start_timeout = c.Spawner.http_timeout = 300
"""
# what INSTRUCTOR.md puts into /etc/jupyter and turns off for everybody; here in a folder of the test
NBGRADER_CONFIG = """\
c = get_config()
c.Exchange.root = "{exchange}"
c.CourseDirectory.course_id = "minitf"
"""
NO_FORMGRADER = {"ServerApp": {"jpserver_extensions": {"nbgrader.server_extensions.formgrader": False}}}
NO_MENU = {
    "disabledExtensions": {
        f"@jupyter/nbgrader:{name}": True for name in ("formgrader", "course-list", "create-assignment")
    }
}
# the instructor's own
COURSE_CONFIG = """\
load_subconfig("{root}/notebooks/assignments/nbgrader_config.py")
c = get_config()
c.CourseDirectory.root = "{home}/class"
"""
FORMGRADER = """\
c = get_config()
c.ServerApp.jpserver_extensions = {"nbgrader.server_extensions.formgrader": True}
"""


class Account(NamedTuple):
    name: str
    password: str
    home: Path
    environment: dict

    def run(self, *words):
        """Run a command as this user; what it prints."""
        run = subprocess.run(
            [str(word) for word in words],
            user=self.name,
            group=self.name,
            extra_groups=[],
            umask=0o022,
            cwd=self.home,
            env=self.environment | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=PATIENCE / 1000,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def python(self, source):
        return self.run(sys.executable, "-c", source).strip()

    def write(self, path, text):
        """Write a file of this user, as if they had."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for each in (path, *path.parents):
            if each == self.home:
                break
            shutil.chown(each, self.name, self.name)


class Hub(NamedTuple):
    address: str
    folder: Path
    ada: Account
    bob: Account
    prof: Account

    @property
    def exchange(self):
        return self.folder / "exchange"


@pytest.fixture(scope="module")
def hub():
    missing = [name for name in ("node", "useradd", "chpasswd", "userdel", "bwrap") if not shutil.which(name)]
    assert CHROMIUM and PROXY.exists() and not missing, f"make test-hub sets this up; without {missing}"
    folder = Path(tempfile.mkdtemp(prefix="minitf-hub-"))
    folder.chmod(0o755)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "JUPYTER_CONFIG_PATH": str(folder / "etc"), "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    accounts = []
    process = None
    try:
        for person in ("ada", "bob", "prof"):
            accounts.append(make_account(person, folder, environment))
        hub = Hub(f"http://127.0.0.1:{free_ports(1)[0]}", folder, *accounts)
        configure(hub, environment)
        command = [sys.executable, "-m", "jupyterhub", "-f", str(folder / "hub" / "config.py")]
        with (folder / "hub" / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder / "hub", env=os.environ | {"PATH": path}, stdout=log, stderr=log
            )
        wait_until(lambda: answers(f"{hub.address}/hub/login"), "JupyterHub does not start")
        yield hub
    finally:
        if process:
            process.terminate()  # and it ends the servers of the users
            process.wait(60)
            SCREENS.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "hub" / "log", SCREENS / "hub.log")
        for account in accounts:
            end_processes(account)
            subprocess.run(["userdel", account.name], check=True)
        shutil.rmtree(folder)


def make_account(person, folder, environment):
    account = Account(
        f"{person}-{secrets.token_hex(2)}", secrets.token_hex(16), folder / "home" / person, environment
    )
    (folder / "home").mkdir(exist_ok=True)
    make = ["useradd", "--create-home", "--home-dir", account.home, "--shell", "/bin/bash", account.name]
    subprocess.run(make, check=True)
    account.home.chmod(0o700)
    subprocess.run(["chpasswd"], input=f"{account.name}:{account.password}", text=True, check=True)
    try:
        account.python("import minitf, nbgrader, jupyterhub.singleuser")
    except (AssertionError, OSError) as error:
        subprocess.run(["userdel", account.name], check=True)
        pytest.fail(f"others cannot use {sys.executable} or {ROOT}, which students must: {error}")
    return account


def end_processes(account):
    """End what still runs under a name that only this test used."""
    number = pwd.getpwnam(account.name).pw_uid
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == number:
                os.kill(int(process.name), 9)
        except (FileNotFoundError, ProcessLookupError):
            pass


def configure(hub, environment):
    (hub.folder / "hub").mkdir(mode=0o700)
    hub.exchange.mkdir()
    hub.exchange.chmod(0o777)
    shared = hub.folder / "etc"
    for name, text in {
        "nbgrader_config.py": NBGRADER_CONFIG.format(exchange=hub.exchange),
        "jupyter_server_config.d/nbgrader.server_extensions.formgrader.json": json.dumps(NO_FORMGRADER),
        "labconfig/page_config.json": json.dumps(NO_MENU),
    }.items():
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_text(text)
    settings = hub.prof.home / ".jupyter"
    hub.prof.write(settings / "nbgrader_config.py", COURSE_CONFIG.format(root=ROOT, home=hub.prof.home))
    hub.prof.write(settings / "jupyter_server_config.py", FORMGRADER)
    ports = [int(hub.address.rpartition(":")[2]), *free_ports(2)]
    users = {account.name for account in (hub.ada, hub.bob, hub.prof)}
    config = HUB_CONFIG.format(ports=ports, proxy=PROXY, users=users, environment=environment)
    (hub.folder / "hub" / "config.py").write_text(config)


# ------------------------------------------------------------------------------------------------ in the browser


class Person:
    """Somebody in a browser of their own."""

    def __init__(self, browser, hub, account):
        self.hub, self.account = hub, account
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def url(self, path, of=None):
        return f"{self.hub.address}/user/{(of or self.account).name}/{path}"

    def log_in(self):
        self.page.goto(f"{self.hub.address}/hub/login")
        self.page.fill("#username_input", self.account.name)
        self.page.fill("#password_input", self.account.password)
        self.page.click("#login_submit")
        self.page.wait_for_selector(".jp-Launcher")

    def see(self, name):
        """Keep what the page shows."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENS / f"{name}.png")

    def status(self, path, of=None):
        """The answer to a request of this person, who is logged in."""
        return self.context.request.get(self.url(path, of)).status

    # the students' side

    def open_assignments(self):
        self.page.goto(self.url(f"lab/workspaces/{secrets.token_hex(4)}"))  # with no tabs of before
        self.page.get_by_role("menuitem", name="Nbgrader", exact=True).click()
        self.page.get_by_role("menuitem", name="Assignment List", exact=True).click()
        self.rows("released").or_(self.rows("fetched")).or_(self.rows("submitted")).first.wait_for()

    def rows(self, state):
        return self.page.locator(f"#{state}_assignments_list > .list_item")

    def press(self, state, button):
        self.rows(state).filter(has_text=PS).get_by_role("button", name=button, exact=True).click()

    def notebook(self):
        return self.account.home / PS / f"{PS}.ipynb"

    # formgrader

    def open_formgrader(self, path="manage_assignments"):
        self.page.goto(self.url(f"formgrader/{path}"))

    def click_in_row(self, text, column):
        """Press an icon of formgrader's table and read its dialog."""
        row = self.page.locator("tbody tr").filter(has_text=text)
        row.locator(f".{column} a").click()
        dialog = self.page.locator(".modal.in")
        dialog.wait_for()
        said = dialog.inner_text()
        assert dialog.locator(".modal-title").inner_text() == "Success", said
        self.page.wait_for_timeout(500)  # it fades in
        dialog.locator(".modal-footer button").first.click()
        dialog.wait_for(state="detached")
        self.page.locator(".modal-backdrop").wait_for(state="detached")
        return said


@pytest.fixture(scope="module")
def people(hub):
    """Ada, Bob and the instructor, logged in."""
    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        everybody = [Person(browser, hub, account) for account in (hub.ada, hub.bob, hub.prof)]
        for person in everybody:
            person.log_in()
        yield everybody
        for person in everybody:
            person.see(f"9-{person.account.home.name}-at-the-end")
        browser.close()


def type_answer(page, stub, text):
    """Type over a cell, in the notebook that is open."""
    cell = page.locator(".jp-CodeCell:visible").filter(has=page.locator(".cm-content", has_text=stub)).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


# --------------------------------------------------------------------------------------------------- the tests


def test_an_assignment_from_release_to_feedback(hub, people):
    ada, bob, prof = people
    release(hub, prof)
    for student in (ada, bob):
        fetch(student)
    hand_in_the_solution(ada)
    hand_in_a_mistake(bob, hub.prof)
    collect_and_grade(hub, prof)
    mark_a_proof(hub, prof)
    release_feedback(prof)
    right, wrong = (read_feedback(student) for student in (ada, bob))
    assert "(Score: 20.0 / 30.0)" in right and "polarization" in right and "sees" not in right
    assert "(Score: 2.0 / 30.0)" in wrong and "sees False False" in wrong and "polarization" not in wrong
    assert "the output moves: the old weights are not what they were when tau was √n" in wrong
    # nbgrader's pages fetch MathJax from the internet, where a test does not go
    assert {error for person in people for error in person.errors} <= {"MathJax is not defined"}


def release(hub, prof):
    grade = [sys.executable, ROOT / "notebooks/assignments/grade.py"]
    hub.prof.run(*grade, "release", PS, "--course", hub.prof.home / "class")
    prof.open_formgrader()
    prof.click_in_row(PS, "release")
    expect(prof.page.locator("tbody tr").filter(has_text=PS).locator(".status")).to_have_text("released")
    prof.see("1-released")


def fetch(student):
    student.open_assignments()
    student.see(f"2-{student.account.home.name}-before")
    student.press("released", "Fetch")
    student.rows("fetched").filter(has_text=PS).wait_for()
    assert student.notebook().exists()


def hand_in_the_solution(ada):
    right = course.solutions(course.read_source(ROOT / f"notebooks/assignments/source/{PS}/{PS}.py"))
    fetched = nbformat.read(ada.notebook(), as_version=4)
    ada.account.write(ada.notebook(), nbformat.writes(course.submission(fetched, right)))
    submit(ada)


def hand_in_a_mistake(bob, prof):
    """Bob types a known wrong answer; it looks for the course as well, and a proof of his tries to run a script."""
    mutant = course.read_mutant(ROOT / f"notebooks/assignments/mutants/{PS}/{MISTAKE}.py")
    course_folder = prof.home / "class"
    look = f"import os, pathlib\nfound = os.path.exists({str(course_folder)!r})\n"
    look += "print('sees', found, pathlib.Path.home().parent.joinpath('prof').exists())\n"
    bob.rows("fetched").locator(".assignment-notebooks-link").click()
    bob.page.locator("#fetched_assignments_list .nested_list_item a", has_text=PS).click()
    bob.page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    bob.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    type_answer(bob.page, "def grow_tokens", look + mutant.answers["ps3-q1"])
    bob.page.keyboard.press("Control+s")
    wait_until(lambda: "sees" in bob.notebook().read_text(), "the notebook is not saved")
    bob.see("3-bob-answers")
    notebook = nbformat.read(bob.notebook(), as_version=4)
    script = "<img src='none' onerror='document.title = `run`'><script>document.title = `run`</script>"
    bob.account.write(
        bob.notebook(), nbformat.writes(course.submission(notebook, {"ps3-p1": f"By symmetry. {script}"}))
    )
    bob.open_assignments()
    submit(bob)


def submit(student):
    student.press("fetched", "Submit")
    student.rows("submitted").filter(has_text=PS).wait_for()
    student.see(f"4-{student.account.home.name}-submitted")


def collect_and_grade(hub, prof):
    prof.open_formgrader()
    prof.click_in_row(PS, "collect")
    row = prof.page.locator("tbody tr").filter(has_text=PS)
    expect(row.locator(".num-submissions")).to_have_text("2")
    prof.see("5-collected")
    prof.open_formgrader(f"manage_submissions/{PS}")
    for account, points in ((hub.ada, "18 / 30"), (hub.bob, "2 / 30")):
        prof.click_in_row(account.name, "autograde")
        row = prof.page.locator("tbody tr").filter(has_text=account.name)
        expect(row.locator(".score")).to_have_text(points)
        expect(row.locator(".status")).to_have_text("needs manual grading")
    prof.see("6-graded")


def mark_a_proof(hub, prof):
    """Two of three points for Ada's first proof, and a comment; Bob's page runs no script of his."""
    prof.open_formgrader(f"gradebook/{PS}/{PS}")
    links = prof.page.locator("tbody tr a.name-hidden")
    expect(links).to_have_count(2)
    addresses = [link.get_attribute("href") for link in links.all()]
    for address in addresses:
        prof.page.goto(f"{hub.address}{address}")
        prof.page.wait_for_selector(".score")
        prof.page.wait_for_timeout(1000)
        assert prof.page.title() != "run"
        shown = prof.page.locator("#notebook-container").first.inner_text()
        if "sees False False" in shown:
            assert "By symmetry" in shown
            prof.see("7-bob-in-formgrader")
            continue
        score = prof.page.locator("#ps3-p1")
        score.fill("2")
        score.press("Tab")
        prof.page.locator("#ps3-p1-comment").fill("What is polarization?")
        prof.page.locator("#ps3-p1-comment").press("Tab")
        score.scroll_into_view_if_needed()
        prof.page.wait_for_timeout(1000)
        prof.see("7-ada-in-formgrader")
    prof.open_formgrader(f"manage_submissions/{PS}")
    row = prof.page.locator("tbody tr").filter(has_text=hub.ada.name)
    expect(row.locator(".score")).to_have_text("20 / 30")


def release_feedback(prof):
    prof.open_formgrader()
    prof.click_in_row(PS, "generate-feedback")
    prof.click_in_row(PS, "release-feedback")


def read_feedback(student):
    """Fetch the feedback and open it; what it says."""
    student.open_assignments()
    student.press("submitted", "Fetch Feedback")
    student.page.get_by_text("(view feedback)").click()
    student.page.locator(".jp-DirListing-item", has_text=f"{PS}.html").dblclick()
    page = student.page.frame_locator(".jp-HTMLViewer iframe")
    page.locator("text=Score:").first.wait_for()
    student.see(f"8-{student.account.home.name}-feedback")
    return page.locator("body").inner_text()


def test_the_grader_of_the_command_line_agrees_and_keeps_what_was_marked_by_hand(hub):
    folder = hub.prof.home / "class"
    hub.prof.run(sys.executable, ROOT / "notebooks/assignments/grade.py", "grade", PS, "--course", folder)
    rows = (folder / "grades" / f"{PS}.csv").read_text().splitlines()
    assert {tuple(row.split(",")[:5:4]) for row in rows[1:]} == {
        (hub.ada.name, "20.0"),
        (hub.bob.name, "2.0"),
    }
    hub.prof.run("sh", "-c", f"cd {folder} && nbgrader release_feedback {PS}")


def test_each_student_sees_only_their_own(hub, people):
    ada, bob, prof = people
    ada.open_assignments()
    assert ada.rows("submitted").count() == 1
    assert ada.page.locator("#submitted_assignments_list .nested_list_item").count() == 1
    for other in (hub.bob, hub.prof):
        assert ada.status("lab", of=other) == 403
        assert ada.status(f"files/{PS}/{PS}.ipynb", of=other) == 403
    assert ada.status("formgrader/manage_assignments", of=hub.prof) == 403
    assert ada.status("formgrader/manage_assignments") == 404
    assert ada.status(f"files/{PS}/{PS}.ipynb") == 200
    # her account on the machine
    inbound, feedback = (hub.exchange / "minitf" / name for name in ("inbound", "feedback"))
    assert len(list(inbound.iterdir())) == 2 and list(feedback.iterdir())
    secret = [
        inbound,
        feedback,
        hub.bob.home,
        hub.prof.home / "class",
        hub.prof.home / "class" / "gradebook.db",
    ]
    for path in secret:
        assert ada.account.python(CAN_READ.format(str(path))) == "False", path
        assert hub.prof.python(CAN_READ.format(str(path))) == str(path != hub.bob.home)
    # what the two read as feedback
    for student, other in ((ada, bob), (bob, ada)):
        pages = list(student.account.home.glob(f"{PS}/feedback/*/*.html"))
        assert len(pages) == 1 and other.account.name not in re.sub("<[^>]*>", "", pages[0].read_text())


CAN_READ = """
import os, pathlib
path = pathlib.Path({!r})
try:
    print(bool(os.listdir(path) if path.is_dir() else path.read_bytes()))
except PermissionError:
    print(False)
"""
