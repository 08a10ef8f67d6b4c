"""Does: JupyterLab in Chromium: a Jupyter server of the test's own, a headless browser, and notebooks driven in it.

The notebook is run through JupyterLab's own commands (``jupyterapp``, which the server is told to expose), so that
what is looked at is what a person would get: the same execute requests, the same trust, the same renderers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import HttpServer, wait_until

DEADLINE = 90.0  # seconds for anything that the browser does; on a quiet machine two or three

# No sandbox of Chromium's: it needs user namespaces or setuid, which a container does not have. The pages are ours.
# The rest keeps it from talking to its maker, so that every request that is seen was caused by a notebook.
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]

# After how much the server drops what a kernel says, until a cell is over: 600 messages or 600 kB within a minute. By
# default it is 3,000 and 3 MB within three seconds, which a slow machine does not always meet.
LIMITS = [f"--ZMQChannelsWebsocketConnection.{name}" for name in (
    "rate_limit_window=60", "iopub_msg_rate_limit=10", "iopub_data_rate_limit=10000"
)]  # fmt: skip

# What is not part of the question: news, updates, completion hints, and cells that are taken off the page while they
# are out of sight.
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}

WRITE = """
async code => {
    const panel = jupyterapp.shell.currentWidget;
    const notebook = panel.content;
    notebook.activeCellIndex = notebook.widgets.length - 1;
    await jupyterapp.commands.execute('notebook:insert-cell-below');
    notebook.activeCell.model.sharedModel.setSource(code);
    return notebook.widgets.indexOf(notebook.activeCell);
}
"""
RUN = """
index => {
    const notebook = jupyterapp.shell.currentWidget.content;
    const cell = notebook.widgets[index];
    notebook.activeCellIndex = index;
    cell.node.dataset.ended = 'no';
    jupyterapp.commands.execute('notebook:run-cell').finally(() => { cell.node.dataset.ended = 'yes'; });
}
"""
OUTPUTS = "index => jupyterapp.shell.currentWidget.content.widgets[index].model.outputs.toJSON()"
READY = "window.jupyterapp?.shell.currentWidget?.context?.isReady"
# The page has painted what it was told and has nothing left to do: twice, since a paint may begin something.
SETTLED = """
async () => {
    for (let i = 0; i < 3; i++) {
        await new Promise(done => requestAnimationFrame(() => requestIdleCallback(done, {timeout: 1000})));
    }
}
"""


class Cell:
    """A cell of a notebook, by its place."""

    def __init__(self, page: Any, index: int) -> None:
        self.page, self.index = page, index
        self.element = page.locator(".jp-Notebook .jp-Cell").nth(index)
        self.output = self.element.locator(".jp-OutputArea").first

    def begin(self) -> None:
        self.page.evaluate(RUN, self.index)

    def wait(self) -> None:
        """Until the reply, and the idle that goes with it."""
        expect = "index => jupyterapp.shell.currentWidget.content.widgets[index].node.dataset.ended === 'yes'"
        self.page.wait_for_function(expect, arg=self.index)

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """As they would be saved."""
        found: list[dict[str, Any]] = self.page.evaluate(OUTPUTS, self.index)
        return found

    @property
    def text(self) -> str:
        """What a person reads below the cell."""
        return "\n".join(self.element.locator(".jp-OutputArea").all_inner_texts())

    def shows(self, text: str) -> None:
        """Waits until it does. AssertionError with what it shows instead."""
        wait_in_page(self.page, lambda: text in self.text, lambda: f"{text!r} in a cell that shows {self.text!r}")


@dataclass
class Notebook:
    """A notebook that is open in a page of its own."""

    page: Any
    kernel: str

    def write(self, code: str) -> Cell:
        """A new last cell, not run yet."""
        return Cell(self.page, self.page.evaluate(WRITE, code))

    def begin(self, code: str) -> Cell:
        cell = self.write(code)
        cell.begin()
        return cell

    def run(self, code: str) -> Cell:
        """Until the reply, and until what came with it is on the page."""
        cell = self.begin(code)
        cell.wait()
        self.settle()
        return cell

    def wait_until_idle(self) -> None:
        status = "jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status"
        self.page.wait_for_function(f"{status} === 'idle'")

    def settle(self) -> None:
        self.page.evaluate(SETTLED)

    def ask(self, server: HttpServer) -> None:
        """A request from the page to ``server``, after the page has come to rest: one that an earlier output caused
        has left the browser before it.
        """
        self.settle()
        path = f"/{secrets.token_hex(8)}"
        self.page.evaluate("url => fetch(url, {mode: 'no-cors'})", server.url(path))
        assert path in {request.path for request in server.received()}
        server.requests[:] = [request for request in server.requests if request.path != path]

    def reload(self) -> None:
        """Save, and load the page anew; the kernel goes on."""
        self.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        self.page.reload()
        self.page.wait_for_function(READY)

    def command(self, name: str) -> None:
        self.page.evaluate("name => { jupyterapp.commands.execute(name) }", name)


def wait_in_page(page: Any, condition: Callable[[], object], what: Callable[[], str]) -> None:
    """As ``wait_until``, but Playwright has to be asked to let time pass: its events are handled meanwhile."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE} s for {what()}"
        page.wait_for_timeout(20)


class Lab:
    """A running Jupyter server and a browser that has entered its token."""

    def __init__(self, browser: Any, folder: Path, url: str, token: str) -> None:
        self.browser, self.folder, self.url, self.token = browser, folder, url, token

    def api(self, path: str, method: str = "GET") -> Any:
        """What the server's REST interface answers, asked from outside of the browser; None: nothing, as to DELETE."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}api/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.loads(answer.read() or b"null")

    @contextmanager
    def notebook(self, kernel: str, *, dark: bool = False) -> Iterator[Notebook]:
        """A new notebook with this kernel in a browser profile of its own; the kernel is ended on leaving."""
        name = f"{kernel}-{secrets.token_hex(3)}.ipynb"
        spec = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        (self.folder / name).write_text(json.dumps({"cells": [], "metadata": spec, "nbformat": 4, "nbformat_minor": 5}))
        context = self.browser.new_context(viewport={"width": 1000, "height": 900})
        context.set_default_timeout(DEADLINE * 1000)
        page = context.new_page()
        try:
            page.goto(f"{self.url}lab/tree/{name}?token={self.token}&reset")
            page.wait_for_function(READY)
            if dark:
                page.evaluate("{ jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'}) }")
                page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
            notebook = Notebook(page, kernel)
            notebook.wait_until_idle()
            yield notebook
        finally:
            page.close()
            context.close()
            self._end_session(name)

    def is_idle(self, notebook: Notebook) -> bool:
        """As the server knows it, whatever the page has heard."""
        found = notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.id")
        return bool(self.api(f"kernels/{found}")["execution_state"] == "idle")

    def _end_session(self, name: str) -> None:
        for session in self.api("sessions"):
            if session["path"] == name:
                self.api(f"sessions/{session['id']}", "DELETE")

    def end_everything(self) -> None:
        """Also kernels and terminals that belong to no notebook."""
        for kernel in self.api("kernels"):
            self.api(f"kernels/{kernel['id']}", "DELETE")
        for terminal in self.api("terminals"):
            self.api(f"terminals/{terminal['name']}", "DELETE")


@contextmanager
def running_server(folder: Path, kernels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A Jupyter server on loopback: (URL, token). ``kernels``: name of a sandboxed kernel -> its policy's text.

    Notebooks lie in ``folder/notebooks``; beside it what a server keeps, which no sandbox may see.
    """
    (folder / "notebooks").mkdir()
    env = environment(folder)
    install_kernels(folder, kernels, env)
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    command += ["--ServerApp.port=8888"]  # or one of the next: where a user has it, not where Linux hands ports out
    command += [f"--ServerApp.root_dir={folder / 'notebooks'}", "--ServerApp.allow_root=True"]
    command += LIMITS
    command += ["--LabApp.expose_app_in_browser=True", f"--IdentityProvider.token={token}"]
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder / "notebooks")
        try:
            yield _wait_for(server, folder), token
        finally:
            server.terminate()
            server.wait(DEADLINE)


def install_kernels(folder: Path, kernels: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Name -> its policy's text. With the product's own command, below ``folder/prefix``."""
    for name, policy in kernels.items():
        file = folder / f"{name}.toml"
        file.write_text(policy)
        command = [sys.executable, "-m", "sandboxed_kernel", "install", "--prefix", str(folder / "prefix")]
        command += ["--name", name, "--policy", str(file)]
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def environment(folder: Path) -> dict[str, str]:
    """What Jupyter's programs need so that all of theirs lies in ``folder`` and nothing of the user is read."""
    settings = folder / "settings"
    for name, value in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    places = {"HOME": "home", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}
    places |= {"JUPYTER_RUNTIME_DIR": "runtime", "XDG_STATE_HOME": "state", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    for place in places.values():
        (folder / place).mkdir()
    mine = {name: str(folder / place) for name, place in places.items()}
    mine |= {"JUPYTER_PATH": str(folder / "prefix/share/jupyter"), "JUPYTERLAB_SETTINGS_DIR": str(settings)}
    return {**os.environ, **mine, "PYTHONWARNINGS": "ignore"}


def _wait_for(server: subprocess.Popen[bytes], folder: Path) -> str:
    """The server says its address in its runtime folder once it listens."""

    def address() -> str:
        assert server.poll() is None, (folder / "server.log").read_text()
        for file in (folder / "runtime").glob("jpserver-*.json"):
            try:
                return str(json.loads(file.read_text())["url"])
            except ValueError:
                pass  # it is being written
        return ""

    return wait_until(address, "the Jupyter server", DEADLINE)


@contextmanager
def running_lab(folder: Path, kernels: Mapping[str, str]) -> Iterator[Lab]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("no chromium on PATH: apt-get install chromium")
    with running_server(folder, kernels) as (url, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=CHROMIUM_ARGUMENTS)
        try:
            yield Lab(browser, folder / "notebooks", url, token)
        finally:
            browser.close()
