"""Does: ``sandboxed-kernel demo``. Runs a notebook in the sandboxed kernel and shows it in the terminal.

It needs no internet: two small servers on this machine play an allowed and a forbidden one. What it claims at the end
it has looked up at the servers, not in the notebook.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import textwrap
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

from sandboxed_kernel import kernelspec
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.notices.render import MIME
from sandboxed_kernel.records import Record, made

CELL_TIMEOUT = 120  # seconds; importing pandas and matplotlib for the first time can take a while
CONTENTS = "this line was never meant for a notebook"
PAGE = "day,morning,noon\n" + "\n".join(f"2026-05-{day:02},{8 + day % 5},{17 + day % 7}" for day in range(1, 31)) + "\n"
NEEDED = ("matplotlib", "nbclient", "nbformat", "pandas")

POLICY = """\
[network]
allow = ["localhost:{allowed}"]

[environment]
set = {{ DEMO_ALLOWED = "http://localhost:{allowed}", DEMO_FORBIDDEN = "http://localhost:{forbidden}", \
DEMO_SECRET = "{secret}" }}
"""

# In a wheel the notebook lies in the package; in a checkout (and an editable install) in notebooks/.
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_NOTEBOOKS = (os.path.join(_PACKAGE, "demo.ipynb"), os.path.join(os.path.dirname(_PACKAGE), "notebooks", "demo.ipynb"))

Output = dict[str, Any]  # one output of a notebook cell, nbformat 4


def main() -> int:
    """0 if everything was as it should be, else 1. Raises HostError where the demo cannot be run."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise HostError(f'the demo needs {", ".join(missing)}. Write: pip install "sandboxed-kernel[demo]"')
    with (
        tempfile.TemporaryDirectory(prefix="sandboxed-demo-") as folder,
        counting_server() as allowed,
        counting_server() as forbidden,
    ):
        secret = os.path.join(folder, "private-key.txt")
        workspace = os.path.join(folder, "notebook")
        os.mkdir(workspace)
        _write(secret, CONTENTS + "\n")
        policy_file = os.path.join(folder, "policy.toml")
        policy = POLICY.format(allowed=allowed.port, forbidden=forbidden.port, secret=secret)
        _write(policy_file, policy)
        print(heading("The policy"), policy, sep="\n")
        kernels = os.path.dirname(kernelspec.install(policy_file=policy_file, prefix=folder))
        cells = run_notebook(kernels, workspace)
        for cell in cells:
            print(cell_text(cell))
        return tell(checks(cells, allowed, forbidden))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# --- the servers ---------------------------------------------------------------------------------------------------


class Counter(Record, frozen=False):
    """What reached a server. ``connections`` also counts those that asked for nothing."""

    port: int
    connections: int = 0
    requests: list[str] = made(default_factory=list)


@contextmanager
def counting_server() -> Iterator[Counter]:
    """An HTTP server on 127.0.0.1 that gives every path the same table."""

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            counter.connections += 1
            super().setup()

        def do_GET(self) -> None:
            counter.requests.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Type", "text/csv")
            self.end_headers()
            self.wfile.write(PAGE.encode())

        do_POST = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - likewise
            """Quiet: the terminal is the notebook's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        counter = Counter(int(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield counter
        finally:
            server.shutdown()
            thread.join()


# --- the notebook --------------------------------------------------------------------------------------------------


def run_notebook(kernels: str, workspace: str) -> list[Any]:
    """The executed cells of demo.ipynb, by nbclient, with the kernel that ``kernels`` (a folder) holds."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    path = next(name for name in _NOTEBOOKS if os.path.exists(name))
    notebook = nbformat.read(path, as_version=4)
    # Only this folder: a kernel of the same name that somebody has installed is not the one to show.
    specs = KernelSpecManager(kernel_dirs=[kernels], ensure_native_kernel=False)
    manager = AsyncKernelManager(kernel_name=kernelspec.NAME, kernel_spec_manager=specs)
    resources = {"metadata": {"path": workspace}}
    client = NotebookClient(notebook, km=manager, timeout=CELL_TIMEOUT, resources=resources)
    client.execute(cleanup_kc=True)  # a manager that was given to it, it would leave running
    return list(notebook.cells)


def tags(cell: Any) -> list[str]:
    return list(cell["metadata"].get("tags", ()))


def outputs(cell: Any) -> list[Output]:
    return list(cell.get("outputs", ()))


def notices(cell: Any) -> list[Output]:
    return [output for output in outputs(cell) if MIME in output.get("data", {})]


def error_name(cell: Any) -> str:
    return next((str(output["ename"]) for output in outputs(cell) if output["output_type"] == "error"), "")


# --- what it shows ----------------------------------------------------------------------------------------------------


def coloured(text: str, code: str) -> str:
    """ECMA-48 colours, for terminals that are looked at; https://no-color.org for those who do not want them."""
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def heading(text: str) -> str:
    return coloured(f"--- {text} ".ljust(80, "-"), "1")


def cell_text(cell: Any) -> str:
    """One cell as text: what it says, then what came of it; notices stand out."""
    source = str(cell["source"])
    if cell["cell_type"] == "markdown":
        return "\n" + coloured(source, "1")
    prompt = f"In [{cell['execution_count']}]: "
    code = source.replace("\n", "\n" + "...: ".rjust(len(prompt)))
    return "\n".join([coloured(prompt + code, "36"), *map(output_text, outputs(cell))])


def output_text(output: Output) -> str:
    if output["output_type"] == "error":
        return coloured(f"    {output['ename']}: {output['evalue']}", "31")
    if output["output_type"] == "stream":
        return textwrap.indent(output["text"].rstrip(), "    ")
    data = output["data"]
    if MIME in data:
        return coloured(textwrap.indent(data["text/plain"], "  ! "), "1;33")
    if "image/png" in data:
        width, height = struct.unpack(">II", b64decode(data["image/png"])[16:24])  # IHDR, PNG 1.2 section 4.1.1
        return f"    [a picture of {width} x {height} points]"
    return textwrap.indent(data.get("text/plain", ""), "    ")


# --- what it claims ---------------------------------------------------------------------------------------------------

Check = tuple[bool, str]


def checks(cells: list[Any], allowed: Counter, forbidden: Counter) -> list[Check]:
    code = {str(cell["id"]): cell for cell in cells if cell["cell_type"] == "code"}
    works = [cell for cell in code.values() if "works" in tags(cell)]
    everything = "".join(str(output) for cell in cells for output in outputs(cell))
    picture = any("image/png" in output.get("data", {}) for output in outputs(code["plot"]))
    return [
        (not any(map(error_name, works)) and picture, "pandas and matplotlib work"),
        (allowed.requests == ["GET /temperatures.csv"], "the allowed server was asked, and answered"),
        (error_name(code["connect"]) != "", "the request to the other server failed"),
        (forbidden.connections == 0, f"connections that the other server has seen: {forbidden.connections}"),
        (len(notices(code["connect"])) == 1, "its cell says why, and what would allow it"),
        (len(notices(code["name"])) == 1, "so does the cell that asked for another name"),
        (error_name(code["file"]) == "PermissionError", "a file outside the notebook's folder could not be read"),
        (CONTENTS not in everything, "nothing that the notebook shows has its contents"),
    ]


def tell(results: list[Check]) -> int:
    print("", heading("What happened, as seen from outside"), sep="\n")
    for good, text in results:
        print(coloured("  as it should be  ", "32") if good else coloured("  NOT AS IT SHOULD ", "1;31"), text)
    return 0 if all(good for good, _ in results) else 1
