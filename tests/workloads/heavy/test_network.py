"""Clients and servers with event loops and threads of their own, and databases outside the sandbox."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.workloads import Both, Site

pytestmark = pytest.mark.heavy


def test_aiohttp_asks_200_times_at_once(both: Both) -> None:
    told = both.say("""
import aiohttp, asyncio
async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
    async def ask(url):
        async with session.get(url) as answer:
            return await answer.text()
    answers = await asyncio.gather(*(ask(HTTP + "/hello") for _ in range(200)))
print(len(answers), set(answers))
""")
    assert told == "200 {'hello from the site\\n'}"


def test_requests_from_50_threads(both: Both) -> None:
    told = both.say("""
import requests
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(50) as pool:
    answers = list(pool.map(lambda _: requests.get(HTTPS + "/hello", timeout=60).text, range(200)))
print(len(answers), set(answers))
""")
    assert told == "200 {'hello from the site\\n'}"


@pytest.mark.parametrize("scheme", ["HTTP", "HTTPS"])
def test_a_download_of_50_mb(both: Both, site: Site, scheme: str) -> None:
    told = both.say(f"""
import hashlib, requests
digest, size = hashlib.sha256(), 0
with requests.get({scheme} + "/large", stream=True, timeout=60) as answer, open("large", "wb") as file:
    for chunk in answer.iter_content(1 << 16):
        digest.update(chunk), file.write(chunk)
print(digest.hexdigest())
""")
    assert told == hashlib.sha256(site.pages["/large"]).hexdigest()


def test_websockets(both: Both) -> None:
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


def test_grpc_of_an_allowed_host_one_message_and_a_stream(both: Both) -> None:
    told = both.say("""
import os
os.environ["GRPC_VERBOSITY"] = "NONE"
import grpc
with grpc.insecure_channel(GRPC) as channel:
    print(channel.unary_unary("/test/Twice")(b"ab", timeout=60),
          list(channel.stream_stream("/test/Upper")(iter([b"a", b"b", b"c"]), timeout=60)))
async with grpc.aio.insecure_channel(GRPC) as channel:
    print(await channel.unary_unary("/test/Twice")(b"c", timeout=60))
""")
    assert told.splitlines() == ["b'abab' [b'A', b'B', b'C']", "b'cc'"]


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
