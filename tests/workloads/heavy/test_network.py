"""Clients and servers with event loops and threads of their own, and databases outside the sandbox."""

from __future__ import annotations

import hashlib
import threading

import pytest

from tests.support.workloads import Both, Site

pytestmark = [pytest.mark.heavy, pytest.mark.container]


# 200 answers into ``answers``; the servers give none of them before all have been asked for.
AT_ONCE = {
    "aiohttp": """
import aiohttp, asyncio
async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
    async def ask(_):
        async with session.get(url) as answer:
            return await answer.text()
    answers = await asyncio.gather(*map(ask, range(200)))
""",
    "httpx": """
import asyncio, httpx
async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60) as client:
    answers = [answer.text for answer in await asyncio.gather(*(client.get(url) for _ in range(200)))]
""",
    "requests": """
import requests
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(200) as pool:
    answers = list(pool.map(lambda _: requests.get(url, timeout=60).text, range(200)))
""",
    "urllib3": """
import urllib3
from concurrent.futures import ThreadPoolExecutor
with urllib3.PoolManager(maxsize=200) as manager, ThreadPoolExecutor(200) as pool:
    answers = list(pool.map(lambda _: manager.request("GET", url, timeout=60).data.decode(), range(200)))
""",
}


@pytest.mark.parametrize("scheme", ["HTTP", "HTTPS"])
@pytest.mark.parametrize("code", AT_ONCE.values(), ids=AT_ONCE.keys())
def test_200_requests_at_once(both: Both, site: Site, code: str, scheme: str) -> None:
    site.pages["/together"] = b"all are here"
    for server in (site.http, site.https):
        server.together["/together"] = threading.Barrier(200, timeout=60)
    told = both.say(f"url = {scheme} + '/together'\n{code}\nprint(len(answers), set(answers))")
    assert told == "200 {'all are here'}"


# 50 MB to ``take`` in pieces.
DOWNLOADS = {
    "aiohttp": """
async with aiohttp.ClientSession() as session, session.get(url) as answer:
    async for piece in answer.content.iter_chunked(1 << 16):
        take(piece)
""",
    "curl": """
with subprocess.Popen(["curl", "-sSf", url], stdout=subprocess.PIPE) as curl:
    while piece := curl.stdout.read(1 << 16):
        take(piece)
""",
    "httpx": """
with httpx.stream("GET", url, timeout=60) as answer:
    for piece in answer.iter_bytes():
        take(piece)
""",
    "requests": """
with requests.get(url, stream=True, timeout=60) as answer:
    for piece in answer.iter_content(1 << 16):
        take(piece)
""",
    "urllib3": """
with urllib3.PoolManager() as manager:
    for piece in manager.request("GET", url, preload_content=False).stream(1 << 16):
        take(piece)
""",
}


@pytest.mark.parametrize("scheme", ["HTTP", "HTTPS"])
@pytest.mark.parametrize("code", DOWNLOADS.values(), ids=DOWNLOADS.keys())
def test_a_download_of_50_mb(both: Both, site: Site, code: str, scheme: str) -> None:
    told = both.say(f"""
import aiohttp, hashlib, httpx, requests, subprocess, urllib3
url, digest, file = {scheme} + "/large", hashlib.sha256(), open("large", "wb")
def take(piece):
    digest.update(piece), file.write(piece)
{code}
file.close()
print(digest.hexdigest())
""")
    assert told == hashlib.sha256(site.pages["/large"]).hexdigest()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_websockets_of_an_allowed_host(both: Both, scheme: str) -> None:
    told = both.say(f"""
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_and_wait
async with connect("{scheme}://" + {scheme.upper()}) as socket:
    for message in ("abc", "x" * 100_000):
        await socket.send(message)
        print((await socket.recv())[:3])
with connect_and_wait("{scheme}://" + {scheme.upper()}) as socket:
    socket.send("def")
    print(socket.recv())
""")
    assert told.splitlines() == ["ABC", "XXX", "DEF"]


def test_a_websocket_server_of_its_own(both: Both) -> None:
    told = both.say("""
import asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
async def echo(socket):
    async for message in socket:
        await socket.send(message[::-1])
async with serve(echo, "localhost", 0) as server:
    port = server.sockets[0].getsockname()[1]
    async with connect(f"ws://localhost:{port}") as socket:
        for message in ("abc", "x" * 100_000):
            await socket.send(message)
            print(len(await socket.recv()))
""")
    assert told.splitlines() == ["3", "100000"]


# Where the server is, and how a channel to it begins.
CHANNELS = {"plain": "insecure_channel(GRPC)", "TLS": "secure_channel(GRPCS, credentials)"}


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS.keys())
def test_grpc_of_an_allowed_host_one_message_and_a_stream(both: Both, channel: str) -> None:
    told = both.say(f"""
import os, pathlib
os.environ["GRPC_VERBOSITY"] = "NONE"
import grpc
credentials = grpc.ssl_channel_credentials(pathlib.Path(os.environ["SSL_CERT_FILE"]).read_bytes())
with grpc.{channel} as channel:
    print(channel.unary_unary("/test/Twice")(b"ab", timeout=60),
          list(channel.stream_stream("/test/Upper")(iter([b"a", b"b", b"c"]), timeout=60)))
async with grpc.aio.{channel} as channel:
    print(await channel.unary_unary("/test/Twice")(b"c", timeout=60),
          [word async for word in channel.stream_stream("/test/Upper")(iter([b"d", b"e"]), timeout=60)])
""")
    assert told.splitlines() == ["b'abab' [b'A', b'B', b'C']", "b'cc' [b'D', b'E']"]


def test_a_grpc_server_of_its_own(both: Both) -> None:
    told = both.say("""
import os
os.environ["GRPC_VERBOSITY"] = "NONE"
import grpc
from concurrent.futures import ThreadPoolExecutor
class Service(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request * 2)
server = grpc.server(ThreadPoolExecutor(4), handlers=[Service()])
port = server.add_insecure_port("[::]:0")
server.start()
with grpc.insecure_channel(f"localhost:{port}") as channel:
    print(channel.unary_unary("/test/Twice")(b"ab", timeout=60))
_ = server.stop(0).wait()
""")
    assert told == "b'abab'"


def test_psycopg(both: Both) -> None:
    told = both.say("""
import psycopg
with psycopg.connect(f"host=localhost port={POSTGRES} user=ann dbname=postgres") as db:
    db.execute("create temporary table t (n int)")
    with db.cursor().copy("copy t from stdin") as copy:
        for n in range(1000):
            copy.write_row((n,))
    print(db.execute("select sum(n) from t").fetchone())
async with await psycopg.AsyncConnection.connect(f"host=localhost port={POSTGRES} user=ann dbname=postgres") as db:
    print(await (await db.execute("select 42")).fetchone())
""")
    assert told.splitlines() == ["(499500,)", "(42,)"]


def test_redis(both: Both) -> None:
    told = both.say("""
import redis
db = redis.Redis(port=REDIS)
with db.pipeline() as pipe:
    pipe.delete("n"), pipe.incrby("n", 41), pipe.incr("n")
    print(pipe.execute()[-1])
heard = db.pubsub(ignore_subscribe_messages=True)
heard.subscribe("news"), heard.get_message(timeout=10)
db.publish("news", "hello")
print(heard.get_message(timeout=10)["data"])
""")
    assert told.splitlines() == ["42", "b'hello'"]
