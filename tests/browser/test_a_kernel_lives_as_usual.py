"""Restart, interrupt, death, questions, and the everyday outputs, with the sandboxed kernel in JupyterLab."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError as PageTimeout

from tests.support.lab import Lab, Notebook

# Name -> a cell, and what of JupyterLab's page shows that it was drawn.
EVERYDAY = {
    "a table": ("import pandas\npandas.DataFrame({'a': [1, 2]})", "table.dataframe td"),
    "a styled table": (
        "import pandas\npandas.DataFrame({'a': [1, 2]}).style.background_gradient().set_caption('styled')",
        "table caption",
    ),
    "a picture": (
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 1]);",
        "img[src^='data:image/png']",
    ),
    "a drawing": (
        "%config InlineBackend.figure_formats = ['svg']\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 1]);",
        "img[src^='data:image/svg']",
    ),
    "a plot": (
        (
            "plot = {'data': [{'type': 'bar', 'y': [2, 1, 3]}], 'layout': {}}\n"
            "display({'application/vnd.plotly.v1+json': plot}, raw=True)"
        ),
        ".js-plotly-plot .bars path",
    ),
    "TeX": ("from IPython.display import Latex\nLatex(r'$\\frac{a}{b}$')", "mjx-container mjx-frac"),
    "Markdown": (
        "from IPython.display import Markdown\nMarkdown('**bold** and `code`\\n\\n| a |\\n|---|\\n| 1 |')",
        "table td",
    ),
    "progress": ("import tqdm.notebook\nlist(tqdm.notebook.tqdm(range(3)))", ".widget-hprogress"),
    "JSON": ("from IPython.display import JSON\nJSON({'a': [1, 2]})", ".jp-RenderedJSON"),
}


def test_everyday_outputs_are_drawn(lab: Lab, tmp_path: Path) -> None:
    with lab.notebook("sandboxed") as notebook:
        for name, (code, selector) in EVERYDAY.items():
            cell = notebook.run(code)
            cell.output.locator(selector).first.wait_for()
            assert "Removed by the sandbox" not in cell.text, name
            cell.element.screenshot(path=tmp_path / f"{name}.png")


def test_a_slider_and_the_kernel_agree(lab: Lab) -> None:
    with lab.notebook("sandboxed") as notebook:
        cell = notebook.run("import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider")
        handle = cell.output.locator(".noUi-handle")
        handle.press("ArrowRight")
        notebook.run("slider.value").shows("4")
        notebook.run("slider.value = 9")
        cell.output.locator(".widget-readout", has_text="9").wait_for()


def test_a_question_is_answered_and_the_policy_shown(lab: Lab) -> None:
    with lab.notebook("sandboxed") as notebook:
        cell = notebook.begin("print('hello', input('name? '))")
        field = cell.element.locator("input.jp-Stdin-input")
        field.fill("reader")
        field.press("Enter")
        cell.shows("hello reader")
        notebook.run("%sandbox").shows("What this sandbox allows")


def test_a_cell_is_interrupted(lab: Lab) -> None:
    with lab.notebook("sandboxed") as notebook:
        for code in ("import time; time.sleep(600)", "while True: pass", "!sleep 600"):
            cell = notebook.begin(f"print('begun')\n{code}")
            cell.shows("begun")
            notebook.command("notebook:interrupt-kernel")
            cell.wait()
            notebook.run("6 * 7").shows("42")


def test_a_kernel_that_dies_says_why_and_comes_back(lab: Lab) -> None:
    with lab.notebook("sandboxed") as notebook:
        cell = notebook.begin("import os; os._exit(3)")
        cell.shows("exit code 3")
        notebook.page.get_by_role("button", name="Ok").click()
        notebook.run("6 * 7").shows("42")


def test_a_kernel_is_restarted(lab: Lab) -> None:
    with lab.notebook("sandboxed") as notebook:
        notebook.run("left = 1")
        notebook.command("kernelmenu:restart")
        notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()
        notebook.page.wait_for_selector(".jp-Dialog", state="detached")
        notebook.wait_until_idle()
        notebook.run("'left' in dir()").shows("False")


@pytest.mark.parametrize("kernel", ["python3", "sandboxed"])
def test_a_breakpoint_is_hit(lab: Lab, kernel: str) -> None:
    with lab.notebook(kernel) as notebook:
        switch_debugger_on(notebook)
        cell = notebook.write("first = 1\nsecond = first + 41\nprint('reached', second)")
        gutter = cell.element.locator(".cm-breakpoint-gutter .cm-gutterElement")
        gutter.nth(2).hover()
        gutter.nth(2).click()  # the second line: element 0 is a spacer
        cell.element.locator(".cm-breakpoint-icon").first.wait_for(state="attached")
        cell.begin()
        notebook.page.locator(".jp-DebuggerCallstack-body li").first.wait_for()
        notebook.page.locator(".jp-DebuggerVariables-body", has_text="first").wait_for()
        assert "reached" not in cell.text
        notebook.command("debugger:continue")
        cell.shows("reached 42")


def switch_debugger_on(notebook: Notebook) -> None:
    for _ in range(5):  # JupyterLab ignores a click that comes before its debugger knows of the kernel
        notebook.page.locator(".jp-DebuggerBugButton").click()
        try:
            # it may be out of sight then: the debugger's panel makes the toolbar narrow
            pressed = ".jp-DebuggerBugButton[aria-pressed=true]"
            notebook.page.wait_for_selector(pressed, state="attached", timeout=10_000)
        except PageTimeout:
            continue
        return
    pytest.fail("the debugger did not switch on")
