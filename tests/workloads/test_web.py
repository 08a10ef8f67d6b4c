"""Clients of an allowed host, by name, over HTTP and HTTPS; and servers of the notebook's own."""

from __future__ import annotations

import pytest

from tests.support.workloads import Both

pytestmark = pytest.mark.container

CLIENTS = {
    "urllib": "urllib.request.urlopen(url).read().decode()",
    "urllib3": "urllib3.PoolManager().request('GET', url).data.decode()",
    "requests": "requests.get(url, timeout=20).text",
    "requests session": "requests.Session().get(url, timeout=20).text",
    "httpx": "httpx.get(url).text",
}


@pytest.mark.parametrize("call", CLIENTS.values(), ids=CLIENTS.keys())
def test_an_allowed_host(both: Both, call: str) -> None:
    told = both.say(f"""
import urllib.request, urllib3, requests, httpx
for url in (HTTP + "/hello", HTTPS + "/hello"):
    print({call}, end="")
""")
    assert told.splitlines() == ["hello from the site"] * 2


def test_httpx_in_asyncio(both: Both) -> None:
    assert (
        both.say("""
import asyncio, httpx
async with httpx.AsyncClient() as client:
    answers = await asyncio.gather(*(client.get(HTTPS + "/hello") for _ in range(20)))
print(len(answers), {answer.text for answer in answers})
""")
        == "20 {'hello from the site\\n'}"
    )


def test_pandas_reads_from_there(both: Both) -> None:
    assert both.say("import pandas; print(pandas.read_csv(HTTPS + '/data.csv')['count'].sum())") == "7"


def test_curl(both: Both) -> None:
    assert both.say("!curl -sS {HTTP}/hello") == "hello from the site"


def test_http_server_of_its_own(both: Both) -> None:
    assert (
        both.say("""
import http.server, threading, pathlib, requests, functools
pathlib.Path("index.html").write_text("own page")
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
with http.server.ThreadingHTTPServer(("", 0), Quiet) as server:
    threading.Thread(target=server.serve_forever).start()
    answer = requests.get(f"http://localhost:{server.server_port}/index.html", timeout=20)
    server.shutdown()
print(answer.status_code, answer.text)
""")
        == "200 own page"
    )


def test_flask(both: Both) -> None:
    """As a process of its own, found by asking until it answers, on a port that was free a moment ago."""
    both.run("""
%%writefile app.py
import sys
from flask import Flask, request
app = Flask(__name__)
@app.post("/double")
def double():
    return {"twice": request.json["n"] * 2}
app.run(port=int(sys.argv[1]))
""")
    assert (
        both.say("""
import requests, socket, subprocess, sys, time
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen([sys.executable, "app.py", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
deadline = time.monotonic() + 20
while True:
    try:
        answer = requests.post(f"http://127.0.0.1:{port}/double", json={"n": 21}, timeout=20)
        break
    except requests.ConnectionError:
        if time.monotonic() > deadline or server.poll() is not None:
            raise
        time.sleep(0.05)
server.terminate(), server.wait()
print(answer.json())
""")
        == "{'twice': 42}"
    )
