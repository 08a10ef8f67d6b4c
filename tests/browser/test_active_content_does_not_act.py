"""Nothing that the sandbox displays runs in the page, reaches the Jupyter server or fetches anything.

Three steps, as for every promise: each output acts when the plain kernel shows it, and when the policy allows active
content; from the sandbox it does not, *as seen by the server that would have been asked*.
"""

from __future__ import annotations

import html
from collections.abc import Iterator

import pytest

from sandboxed_kernel.relay.markup import ALLOW_LINE
from tests.browser.outputs import FETCHES, LEAVE, PLOT, PREAMBLE, SCRIPTS
from tests.support.lab import DEADLINE, Cell, Lab, Notebook
from tests.support.servers import HttpServer, wait_until

OUTPUTS = {**SCRIPTS, **FETCHES}
NUMBERS = {name: number for number, name in enumerate(OUTPUTS)}

# Makes a terminal and a kernel without a sandbox, as anything in the page can: the cookie is the page's own.
TAKE_OVER = """
from IPython.display import Javascript, display
display(Javascript('''
const headers = {'X-XSRFToken': document.cookie.match(/_xsrf=([^;]*)/)[1]};
Promise.all([
    fetch('/api/terminals', {method: 'POST', headers}),
    fetch('/api/kernels', {method: 'POST', headers, body: JSON.stringify({name: 'python3'})}),
]).then(() => fetch('URL'));
'''))
"""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer({}) as running:
        yield running


def begin(notebook: Notebook, server: HttpServer, name: str) -> Cell:
    url = server.url(f"/{NUMBERS[name]}/")
    server.pages[f"/{NUMBERS[name]}/"] = b""
    return notebook.begin(OUTPUTS[name].replace("SCRIPT", f"fetch(`{url}`)").replace("URL", url))


def show(notebook: Notebook, server: HttpServer, name: str) -> Cell:
    cell = begin(notebook, server, name)
    cell.wait()
    notebook.settle()
    return cell


def acted(server: HttpServer, name: str) -> bool:
    return any(request.path.startswith(f"/{NUMBERS[name]}/") for request in server.requests)


def is_told(cell: Cell) -> bool:
    """Whether the cell says how to allow what was taken out; an isolated output says it in a frame of its own."""
    return ALLOW_LINE in cell.text + html.unescape(str(cell.outputs))


@pytest.mark.parametrize("kernel", ["python3", "allowing"])
def test_every_output_acts_where_it_may(lab: Lab, server: HttpServer, kernel: str) -> None:
    with lab.notebook(kernel) as notebook:
        notebook.run(PREAMBLE + PLOT)
        for name in OUTPUTS:
            begin(notebook, server, name)
            wait_until(lambda: acted(server, name), name, DEADLINE)  # noqa: B023 - called at once


def test_no_output_of_the_sandbox_acts(lab: Lab, server: HttpServer) -> None:
    with lab.notebook("sandboxed") as notebook:
        notebook.run(PREAMBLE + PLOT)
        cells = {name: show(notebook, server, name) for name in OUTPUTS}
        notebook.ask(server)  # a request of the page's own, after which none of the earlier ones is still to come
        assert [name for name in OUTPUTS if acted(server, name)] == []
        assert [name for name, cell in cells.items() if not is_told(cell)] == []


def test_the_page_does_not_move_on(lab: Lab, server: HttpServer) -> None:
    url = server.url("/elsewhere")
    with lab.notebook("allowing") as notebook:
        notebook.page.route(url, lambda route: route.abort())  # asked for is enough: the page stays, and can be closed
        with notebook.page.expect_request(url):
            notebook.begin(PREAMBLE + LEAVE.replace("URL", url))
    with lab.notebook("sandboxed") as notebook:
        notebook.run(PREAMBLE + LEAVE.replace("URL", url))
        notebook.ask(server)
    assert server.received() == []


def test_a_page_that_is_loaded_again_shows_widgets_as_clean_as_before(lab: Lab, server: HttpServer) -> None:
    """JupyterLab then asks the kernel for the states of all widgets, over a comm of its own."""
    code = "import ipywidgets\nwidget = ipywidgets.HTML('<b>left</b><img src=x onerror=\"fetch(`URL`)\">')\nwidget"
    for kernel in ("python3", "sandboxed"):
        path = f"/{kernel}"
        with lab.notebook(kernel) as notebook:
            notebook.run(code.replace("URL", server.url(path)))
            notebook.reload()
            notebook.page.wait_for_selector(".jp-OutputArea .widget-html b")
            if kernel == "python3":
                wait_until(lambda: len(server.received()) > 1, "the script to run again", DEADLINE)
            notebook.ask(server)
    assert "/sandboxed" not in {request.path for request in server.received()}


def test_no_terminal_and_no_kernel_is_started(lab: Lab, server: HttpServer) -> None:
    code = TAKE_OVER.replace("URL", server.url("/done"))
    with lab.notebook("sandboxed") as notebook:
        assert is_told(notebook.run(code))
        notebook.ask(server)
        assert lab.api("terminals") == []
        assert [kernel["name"] for kernel in lab.api("kernels")] == ["sandboxed"]
    with lab.notebook("allowing") as notebook:
        notebook.run(code)
        wait_until(server.received, "both to be started", DEADLINE)
        assert len(lab.api("terminals")) == 1
        assert sorted(kernel["name"] for kernel in lab.api("kernels")) == ["allowing", "python3"]
    lab.end_everything()
