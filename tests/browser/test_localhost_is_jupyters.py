"""``http://localhost:PORT`` in the browser is Jupyter's page, also where Jupyter has only one address of ``localhost``.

Chromium asks ::1 before 127.0.0.1, and this Jupyter listens on 127.0.0.1 alone. A page that a kernel serves at
``[::1]:PORT`` has Jupyter's origin: with its cookies it can open a terminal, which runs outside of every sandbox.
"""

from __future__ import annotations

from urllib.parse import urlparse

import pytest

from tests.support.interfaces import has_ipv6
from tests.support.lab import Lab

SERVE = """
import socket, threading
server = socket.socket(socket.AF_INET6)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
def serve():
    while True:
        client, _ = server.accept()
        client.recv(10000)
        client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Type: text/html\\r\\n\\r\\nfrom the kernel")
        client.close()
try:
    server.bind(("::1", PORT))
    server.listen()
    threading.Thread(target=serve, daemon=True).start()
    print("it listens")
except OSError as error:
    print(error.strerror)
"""


def shown_at_localhost(lab: Lab, kernel: str) -> tuple[str, str]:
    """What the cell says that tries to listen, and what the browser then shows at Jupyter's port of localhost."""
    port = urlparse(lab.url).port
    with lab.notebook(kernel) as notebook:
        cell = notebook.run(SERVE.replace("PORT", str(port)))
        context = lab.browser.new_context()
        try:
            page = context.new_page()
            page.goto(f"http://localhost:{port}/api")
            return cell.text, page.content()
        finally:
            context.close()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback on this machine")
def test_localhost_is_jupyters(lab: Lab) -> None:
    said, shown = shown_at_localhost(lab, "python3")
    assert "it listens" in said
    assert "from the kernel" in shown

    said, shown = shown_at_localhost(lab, "sandboxed")
    assert "Address already in use" in said
    assert "from the kernel" not in shown
    assert '"version"' in shown
