"""Lessons in the real JupyterLab, used as a person does: file browser, Run All, a slider, an exercise, save."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import CHROMIUM, PATIENCE, answers, free_ports, wait_until

ROOT = Path(__file__).parents[2]
if not CHROMIUM and not os.environ.get("MINITF_REQUIRE_CHROMIUM"):
    pytest.skip("needs Chromium (Debian: apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")

OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
ALL_CELLS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}
}  # off-screen cells too are in the page


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address and folder of a JupyterLab over a copy of the lessons."""
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    for name in ("notebooks", "figures"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("assignments", "src", "site")
        )
    settings = home / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(ALL_CELLS))
    (port,) = free_ports(1)
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        **{
            "HOME": str(home),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
        },
        **{"PYTHONPATH": str(ROOT), "MINITF_PROGRESS": "1", "OPENBLAS_NUM_THREADS": "1"},
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ip=127.0.0.1", "--IdentityProvider.token=t0k", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url="]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{address}/api?token=t0k"), "JupyterLab does not start")
        yield address, folder
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.set_default_timeout(PATIENCE)
    page.complaints = []
    page.on(
        "console", lambda message: page.complaints.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    page.close()


def open_lesson(page, lab, name):
    page.goto(f"{lab[0]}/lab?reset&token=t0k")
    items = page.locator(".jp-DirListing-item")
    items.filter(has_text=re.compile("^notebooks")).dblclick()
    items.filter(has_text=f"{name}.ipynb").dblclick()
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    wait_for_idle(page)


def wait_for_idle(page):
    """A click on Run before the kernel is idle would open a dialog, and run nothing."""
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
    wait_until(
        lambda: any("*" in text for text in prompts(page)), "nothing runs"
    )  # stored cells have numbers too
    wait_until(lambda: all(re.fullmatch(r"\[\d+\]:?", text) for text in prompts(page)), "cells do not finish")
    wait_for_idle(page)


def prompts(page):
    texts = page.eval_on_selector_all(
        ".jp-CodeCell .jp-InputPrompt", "all => all.map(one => one.textContent)"
    )
    return texts or ["nothing yet"]


def code_cell(page, text):
    return page.locator(".jp-CodeCell").filter(has=page.locator(".cm-content", has_text=text))


def answer(page, stub, solution, check):
    """Type a solution over a stub, run it and the check below it; returns what the check printed."""
    cell = code_cell(page, stub).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(solution)
    page.keyboard.press("Shift+Enter")
    checking = code_cell(page, check).first
    before = checking.locator(".jp-InputPrompt").text_content()
    checking.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")

    def is_done():
        now = checking.locator(".jp-InputPrompt").text_content()
        return now != before and re.fullmatch(r"\[\d+\]:?", now)

    wait_until(is_done, "the check does not finish")
    wait_for_idle(page)
    return checking.locator(".jp-OutputArea").inner_text()


def save(page, lab, name):
    path = lab[1] / "notebooks" / f"{name}.ipynb"
    before = path.stat().st_mtime_ns
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    wait_until(lambda: path.stat().st_mtime_ns != before, "the notebook is not saved")
    time.sleep(1)
    return json.loads(path.read_text(encoding="utf-8"))


def no_errors(page, notebook):
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert all(cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert not page.complaints


def move_slider(page):
    """Three steps to the right; returns the picture before and after."""
    handle = page.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    image = page.locator(".jp-OutputArea", has=handle).first.locator("img").first
    before = image.get_attribute("src")
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait_until(lambda: image.get_attribute("src") != before, "the picture does not change")


def test_lesson_00_runs(page, lab):
    open_lesson(page, lab, "00_start_here")
    run_all(page)
    widths = page.eval_on_selector_all(".jp-Notebook img", "all => all.map(one => one.naturalWidth)")
    assert widths and all(
        widths
    )  # every picture is there (JupyterLab shows no alt text of a picture that code made)
    no_errors(page, save(page, lab, "00_start_here"))


def test_lesson_02_is_answered_wrong_and_right_and_its_slider_moves(page, lab):
    name = "02_turn_a_weight_matrix_into_tokens"
    open_lesson(page, lab, name)
    run_all(page)
    move_slider(page)

    stub, check = "scores (..., n), tau a number", 'theta = check("theta", theta)'
    head = 'def theta(scores, tau):\n    """scores (..., n), tau a number -> weights (..., n)."""\n'
    head += "    length = np.sqrt((scores**2).sum(axis=-1, keepdims=True))\n"
    wrong = answer(page, stub, head + "    return gelu(scores / length)", check)
    assert "✗" in wrong and "tau" in wrong
    right = answer(page, stub, head + "    return gelu(tau * scores / length)", check)
    assert "✓" in right and "✗" not in right

    notebook = save(page, lab, name)
    no_errors(page, notebook)
    assert "return gelu(tau * scores / length)" in json.dumps(notebook)


def test_lesson_06_runs_and_its_slider_moves(page, lab):
    name = "06_grow_without_forgetting"
    open_lesson(page, lab, name)
    run_all(page)
    move_slider(page)
    no_errors(page, save(page, lab, name))
