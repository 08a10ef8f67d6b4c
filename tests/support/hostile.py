"""Code for cells: what a kernel can do so that nobody hears what the supervisor says."""

from __future__ import annotations

# Speaks to iopub from inside as the supervisor does.
FORGE = """
import json
kernel = get_ipython().kernel
ours = kernel.get_parent()["header"]
def say(msg_type, content, raw=None, parent=None):
    header = kernel.session.msg_header(msg_type)
    texts = [json.dumps(header, default=str), json.dumps(parent or ours, default=str), "{}", raw or json.dumps(content)]
    parts = [text.encode() if isinstance(text, str) else text for text in texts]
    kernel.iopub_socket.send_multipart([b"<IDS|MSG>", kernel.session.sign(parts), *parts])
"""

# From the next cell on, each is over for every client before it runs.
EARLY_END = (
    FORGE
    + """
run_cell = kernel.shell_handlers["execute_request"]
async def early(stream, ident, parent):
    ended = {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
    kernel.session.send(stream, "execute_reply", ended, parent, ident=ident)
    say("status", {"execution_state": "idle"}, parent=parent["header"])
    await run_cell(stream, ident, parent)
kernel.shell_handlers["execute_request"] = early
"""
)

SILENCERS = {
    "an early idle": FORGE + "say('status', {'execution_state': 'idle'})\n",
    "another session": "kernel = get_ipython().kernel\nkernel.session.session = 'another'\n",
    "another key": "kernel = get_ipython().kernel\nkernel.session.key = b'another'\n",
    "iopub stopped": "get_ipython().kernel.iopub_thread.stop()\n",
    "nothing sent": "type(get_ipython().kernel.session).send = lambda *a, **k: None\n",
    "closed descriptors": "import os\nos.close(2)\n",
}

# Output widgets that take what a cell shows. ``attempt()`` is refused, and prints "taken".
CAPTURES_PREAMBLE = (
    FORGE
    + """
import socket
from ipywidgets import Output
from IPython.display import display
def attempt():
    try: socket.getaddrinfo("collector.example.com", 443)
    except OSError: pass
    print("taken", flush=True)
def this(): return kernel.get_parent()["header"]["msg_id"]
NAMES = {"_model_module": "@jupyter-widgets/output", "_model_module_version": "1.0.0", "_model_name": "OutputModel",
         "_view_module": "@jupyter-widgets/output", "_view_module_version": "1.0.0", "_view_name": "OutputView"}
def send(kind, comm, data, **more):
    kernel.session.send(kernel.iopub_socket, kind, {"comm_id": comm, "data": {"buffer_paths": [], **data}, **more},
                        parent=kernel.get_parent(), metadata={"version": "2.1.0"})
def make(comm): send("comm_open", comm, {"state": {**NAMES, "msg_id": "", "outputs": []}}, target_name="jupyter.widget")
def change(comm, **state): send("comm_msg", comm, {"method": "update", "state": state})
"""
)
CAPTURES = {
    "that is shown": "output = Output()\ndisplay(output)\nwith output: attempt()",
    "that is shown nowhere": "with Output(): attempt()",
    "in another one": "with Output():\n    with Output(): attempt()",
    "that is not told the end": "output = Output()\noutput.msg_id = this()\nattempt()",
    "made by hand": "make('made'); change('made', msg_id=this())\nattempt()",
    "that is made anew": "make('made'); change('made', msg_id=this()); make('made')\nattempt()",
}
# Those that plain JupyterLab, or plain nbclient, takes nothing for.
CAPTURES_OF_NBCLIENT = {
    "that is closed": "output = Output()\noutput.msg_id = this()\noutput.close()\nattempt()",
}
CAPTURES_OF_JUPYTERLAB = {
    "whose release fails": (
        "make('made'); change('made', msg_id=this()); change('made', msg_id='', layout='IPY_MODEL_none')\nattempt()"
    ),
}
# Our own safeguards as the way: a release that is dropped, since no JSON says infinity.
CAPTURES_OF_OURS = {
    "whose release is dropped": r"""
make('made'); change('made', msg_id=this())
text = '{"comm_id": "made", "data": {"method": "update", "state": {"msg_id": "", "n": 1e999}}}'
say('comm_msg', None, text, parent=kernel.get_parent()["header"])
attempt()""",
}
