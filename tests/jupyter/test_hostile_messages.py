"""Nothing that a kernel sends breaks a client, puts words into the user's mouth, or fills the launcher's memory.

Each attack is first shown to work with a plain kernel, by the same client.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from sandboxed_kernel.relay.zmtp import GREETING, ready
from tests.support import kernels
from tests.support.hostile import FORGE
from tests.support.kernels import PLAIN, REAL, Kernel, Message, running

# Sends bytes as they are, where ``say`` of FORGE writes JSON; the client's own header says what cell they belong to.
RAW = (
    FORGE
    + r"""
import os
def raw(msg_type, content, date="2024-01-01T00:00:00Z"):
    header = {"msg_id": os.urandom(8).hex(), "msg_type": msg_type, "username": "x", "session": "s", "date": date,
              "version": "5.3"}
    parts = [json.dumps(header).encode(), json.dumps(ours, default=str).encode(), b"{}", content]
    kernel.iopub_thread.send_multipart([b"<IDS|MSG>", kernel.session.sign(parts), *parts])
"""
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(PLAIN, tmp_path_factory.mktemp("k")) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(REAL, tmp_path_factory.mktemp("k")) as kernel:
        yield kernel


# --- what a client cannot read ---------------------------------------------------------------------------------------

MALFORMED = {
    "a date that there is not": """raw("stream", b'{"name":"stdout","text":"x"}', date="2024-99-99T99:99:99Z")""",
    "a lone surrogate": r"""raw("stream", b'{"name":"stdout","text":"\\ud800"}')""",
    "a stream without a text": """raw("stream", b'{"name":"stdout"}')""",
    "an error without a traceback": """raw("error", b'{}')""",
    "a display without metadata": """raw("display_data", b'{"data":{"text/plain":"x"}}')""",
    "a list for a count": """
raw("execute_result", b'{"execution_count":[],"data":{"text/plain":"x"},"metadata":{}}')""",
    "deep nesting": """
raw("display_data", b'{"data":{"application/json":' + b"[" * 700 + b"]" * 700 + b'},"metadata":{}}')""",
    "a state that is none": """raw("status", b'{}')""",
    "the same message twice": """
import random; os.urandom = lambda size: b"x" * size
for _ in range(2): raw("stream", b'{"name":"stdout","text":"x"}')""",
}


def execute_notebook(command: list[str], folder: Path, code: str) -> None:
    """By nbclient, as a service does. Raises whatever goes wrong."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    manager = AsyncKernelManager(kernel_name="under test")
    manager._kernel_spec = kernels.spec(command)
    workspace = folder / "notebook"
    workspace.mkdir(parents=True)
    client = NotebookClient(notebook, km=manager, timeout=60, resources={"metadata": {"path": str(workspace)}})
    client.execute(cleanup_kc=True)
    nbformat.write(notebook, folder / "out.ipynb")


def executed(command: list[str], folder: Path, code: str) -> str | None:
    """The executed notebook's text; None where there is none. In a process of its own, which leaves no tasks behind."""
    arguments = [sys.executable, __file__, json.dumps(command), str(folder), code]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, timeout=90)
    return (folder / "out.ipynb").read_text() if done.returncode == 0 else None


def test_a_plain_kernel_and_this_client_understand_each_other(short_path: Path) -> None:
    assert executed(PLAIN, short_path, f"{RAW}print('the end')") is not None


@pytest.mark.parametrize("what", MALFORMED)
def test_no_message_costs_a_client_its_run(short_path: Path, what: str) -> None:
    code = f"{RAW}{MALFORMED[what]}\nprint('the end')"
    assert executed(PLAIN, short_path / "plain", code) is None
    refused = "import socket\ntry: socket.getaddrinfo('collector.example.com', 80)\nexcept OSError: pass\n"
    text = executed(REAL, short_path / "sandboxed", refused + code)
    assert text is not None
    assert "the end" in text
    assert "collector.example.com was not resolved" in text


# --- states ----------------------------------------------------------------------------------------------------------

FORGED_STATES = {
    **{
        state: f"say('status', {{'execution_state': '{state}'}})"
        for state in ("restarting", "dead", "terminating", "odd")
    },
    "shutdown": "say('shutdown_reply', {'status': 'ok', 'restart': False})",
    "idle of another": "say('status', {'execution_state': 'idle'}, parent={'msg_id': 'of another'})",
    "idle at once": "say('status', {'execution_state': 'idle'})",
    "busy again": "say('status', {'execution_state': 'busy'})",
}


def told(kernel: Kernel, code: str) -> list[str]:
    """The states and ends that a client hears of until the cell's reply and its idle have come, and a moment later."""
    msg_id = kernel.begin(code)
    said = []
    for wanted in ("after", "ended"):
        if wanted == "ended":
            kernel.begin("print('ended')")
        said += kernel.until_iopub(lambda m, wanted=wanted: wanted in m["content"].get("text", ""))  # type: ignore[misc]
        if wanted == "after":
            kernel.client.get_shell_msg(timeout=kernels.DEADLINE)
    kernel.client.get_shell_msg(timeout=kernels.DEADLINE)
    kernel.until_iopub(
        lambda m: m["content"].get("execution_state") == "idle" and m["parent_header"]["msg_id"] != msg_id
    )
    return [
        str(m["content"].get("execution_state", m["msg_type"])) if m["msg_type"] == "status" else m["msg_type"]
        for m in said
        if m["msg_type"] in ("shutdown_reply", "stream")
        or (m["msg_type"] == "status" and m["parent_header"].get("msg_id") in (msg_id, "of another"))
    ]


@pytest.mark.parametrize("what", FORGED_STATES)
def test_only_busy_and_idle_are_said_and_each_in_its_time(plain: Kernel, sandboxed: Kernel, what: str) -> None:
    code = f"{FORGE}{FORGED_STATES[what]}\nimport time; time.sleep(0.1)\nprint('after', flush=True)"
    honest = ["busy", "stream", "idle", "stream"]
    assert told(plain, code) != honest
    assert told(sandboxed, code) == honest
    assert told(sandboxed, "print('after', flush=True)") == honest


# --- replies ---------------------------------------------------------------------------------------------------------

SECOND_REPLY = f"""{FORGE}
run_cell = kernel.shell_handlers["execute_request"]
async def twice(stream, ident, parent):
    await run_cell(stream, ident, parent)
    for kind in ("execute_reply", "complete_reply"):
        kernel.session.send(stream, kind, {{"status": "ok", "forged": 1}}, parent, ident=ident)
    kernel.shell_handlers["execute_request"] = run_cell
kernel.shell_handlers["execute_request"] = twice
"""


def replies_to_one(kernel: Kernel) -> list[str]:
    kernel.run(SECOND_REPLY)
    first, last = kernel.begin("1"), kernel.begin("2")
    found: list[Message] = []
    while not found or found[-1]["parent_header"]["msg_id"] != last:
        found.append(kernel.client.get_shell_msg(timeout=kernels.DEADLINE))
    return [message["msg_type"] for message in found if message["parent_header"]["msg_id"] == first]


def test_a_request_is_answered_once_and_by_its_reply(plain: Kernel, sandboxed: Kernel) -> None:
    assert replies_to_one(plain) == ["execute_reply", "execute_reply", "complete_reply"]
    assert replies_to_one(sandboxed) == ["execute_reply"]


# --- tracebacks ------------------------------------------------------------------------------------------------------

LINK = "<a href='#'><img src=x onerror=alert(1)></a>"


def test_html_in_a_traceback_is_text(plain: Kernel, sandboxed: Kernel) -> None:
    code = f"e = type({LINK!r}, (Exception,), {{}})\nraise e({LINK!r})"
    for kernel, arrives in ((plain, True), (sandboxed, False)):
        outcome = kernel.run(code)
        (error,) = outcome.of("error")
        for content in (error["content"], outcome.reply["content"]):
            assert (LINK in json.dumps([content["ename"], content["evalue"], content["traceback"]])) == arrives
            assert LINK in content["evalue"].replace("\u200b", "")
            assert "\x1b[" in "".join(content["traceback"])


def test_an_honest_traceback_is_the_plain_one(plain: Kernel, sandboxed: Kernel) -> None:
    code = "from types import SimpleNamespace\ndef f(x): return 1 < x\nf(SimpleNamespace(a='<b>'))"
    texts = [kernel.run(code).of("error")[0]["content"] for kernel in (plain, sandboxed)]
    assert texts[0]["evalue"] == texts[1]["evalue"]
    number = [line for line in texts[0]["traceback"] if "In[" not in line and "Cell" not in line]
    assert number == [line for line in texts[1]["traceback"] if "In[" not in line and "Cell" not in line]


# --- the user's own words --------------------------------------------------------------------------------------------

ASK = """
kernel = get_ipython().kernel
kernel.session.send(kernel.stdin_socket, "input_request", {"prompt": "Password: ", "password": True},
                    kernel.get_parent(), ident=kernel._get_shell_context_var(kernel._shell_parent_ident))
"""


def is_asked(kernel: Kernel, *, allow_stdin: bool) -> bool:
    kernel.run(ASK, allow_stdin=allow_stdin)
    asked = bool(kernel.client.stdin_channel.msg_ready())
    while kernel.client.stdin_channel.msg_ready():
        kernel.client.get_stdin_msg(timeout=1)
    return asked


def test_a_cell_asks_for_input_only_where_its_client_allows_it(plain: Kernel, sandboxed: Kernel) -> None:
    assert is_asked(plain, allow_stdin=False)
    assert is_asked(sandboxed, allow_stdin=True)
    assert not is_asked(sandboxed, allow_stdin=False)


REPLACE = "get_ipython().set_next_input('import os; os.system(\"x\")', replace=True)"


def replaced(kernel: Kernel, code: str) -> list[Any]:
    return [(item["text"], item.get("replace")) for item in kernel.run(code).reply["content"]["payload"]]


def test_a_cell_is_replaced_only_where_it_asks_for_it(plain: Kernel, sandboxed: Kernel, tmp_path: Path) -> None:
    text = 'import os; os.system("x")'
    assert replaced(plain, REPLACE) == [(text, True)]
    assert replaced(sandboxed, REPLACE) == [(text, None)]  # a cell of its own
    sandboxed.run("open('loaded.py', 'w').write('x = 1')")
    assert replaced(sandboxed, "%load loaded.py") == [("# %load loaded.py\nx = 1", True)]


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(pid: int) -> int:
    """The most that a process ever had resident, in MB (VmHWM, proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


# Fewer messages than the kernel's own socket holds (its sndhwm): of more it drops some itself, its last word too.
FLOODS = {
    "many small objects": """
raw("display_data", b'{"data":{"application/json":[' + b"{}," * 13_000_000 + b'{}]},"metadata":{},"transient":{}}')""",
    "long ids": """
for number in range(250):
    content = {"comm_id": str(number) + "x" * 1_000_000, "target_name": "jupyter.widget", "data": {"state": {
        "_model_module": "@jupyter-widgets/controls", "_model_name": "LabelModel"}}}
    raw("comm_open", json.dumps(content).encode())""",
    "long names": """
for number in range(250):
    content = {"comm_id": str(number), "target_name": "jupyter.widget", "data": {"state": {
        "_model_module": "@jupyter-widgets/controls", "_model_name": str(number) + "x" * 1_000_000}}}
    raw("comm_open", json.dumps(content).encode())""",
    "parents of another request": """
for number in range(1_500):
    say("stream", {"name": "stdout", "text": "x"}, parent={"msg_id": str(number), "x": "y" * 300_000})""",
}


@pytest.mark.parametrize("what", FLOODS)
def test_no_output_fills_the_launchers_memory(own_kernel: Kernel, what: str) -> None:
    before = memory(own_kernel.pid)
    own_kernel.run(RAW + FLOODS[what])
    assert memory(own_kernel.pid) < before + 250  # 40 MB of {} were 1,068 MB
    assert own_kernel.run("6 * 7").displays[-1]["content"]["data"]["text/plain"] == "42"


def test_what_many_small_objects_cost_a_program_that_parses_them() -> None:
    """The control: the same text in a process of its own."""
    code = "import json, resource\njson.loads('[' + '{},' * 13_000_000 + '{}]')\n"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 700


def test_honest_outputs_of_twenty_megabytes_arrive(sandboxed: Kernel) -> None:
    figure = "display({'application/json': {'x': [i / 7 for i in range(1_200_000)]}}, raw=True)"
    table = "display({'text/plain': 'a,b\\n' * 5_000_000}, raw=True)"
    for code in (figure, table):
        (shown,) = sandboxed.run(code).of("display_data")
        assert len(json.dumps(shown["content"]["data"])) > 20_000_000


# One message that never ends: frame after frame, each of which says that another comes.
ENDLESS = """
import os, socket
sockets = [socket.socket(fileno=os.dup(int(each))) for each in os.listdir("/proc/self/fd")
           if os.path.exists(f"/proc/self/fd/{each}") and "socket:" in os.readlink(f"/proc/self/fd/{each}")]
for each in sockets:
    if each.family != socket.AF_UNIX or each.type != socket.SOCK_STREAM or "k-" not in str(each.getsockname()):
        continue
    if not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        each.settimeout(1)
        try:
            for _ in range(200): each.sendall(b"\\x01\\x01x" * 100_000)
        except OSError: pass
open("done", "w").close()
"""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + kernels.DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_message_without_an_end_takes_no_memory(short_path: Path) -> None:
    receiver = "import sys, zmq\ns = zmq.Context().socket(zmq.SUB); s.subscribe(b''); s.connect(sys.argv[1]); s.recv()"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short_path}/s")
        listener.listen()
        child = subprocess.Popen([sys.executable, "-c", receiver, f"ipc://{short_path}/s"])
        peer, _ = listener.accept()
        peer.sendall(GREETING + ready("PUB"))
        said = b""
        while b"READY" not in said:  # what comes earlier would be taken for a command
            said += peer.recv(1000)
        for _ in range(200):
            peer.sendall(b"\x01\x01x" * 100_000)
        until(lambda: memory(child.pid) > 500)  # the control: libzmq keeps it all
        child.kill()
        child.wait()
        peer.close()
    with running(REAL, short_path) as kernel:
        before = memory(kernel.pid)
        kernel.begin(ENDLESS)
        until((short_path / "notebook" / "done").exists)
        assert memory(kernel.pid) < before + 100
        assert os.path.exists(f"/proc/{kernel.pid}")


if __name__ == "__main__":
    execute_notebook(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
