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

SILENCERS = {
    "an early idle": FORGE + "say('status', {'execution_state': 'idle'})\n",
    "another session": "kernel = get_ipython().kernel\nkernel.session.session = 'another'\n",
    "another key": "kernel = get_ipython().kernel\nkernel.session.key = b'another'\n",
    "iopub stopped": "get_ipython().kernel.iopub_thread.stop()\n",
    "nothing sent": "type(get_ipython().kernel.session).send = lambda *a, **k: None\n",
    "closed descriptors": "import os\nos.close(2)\n",
}
