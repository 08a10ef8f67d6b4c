"""asyncio: the kernel's own loop, processes, servers, streams."""

from __future__ import annotations

import pytest

from tests.support.workloads import Both

pytestmark = pytest.mark.container


def test_await_and_tasks(both: Both) -> None:
    assert (
        both.say("""
import asyncio
async def later(n):
    await asyncio.sleep(0.01 * (3 - n))
    return n
loop = asyncio.get_running_loop()
woken = asyncio.Event()
await asyncio.to_thread(loop.call_soon_threadsafe, woken.set)
await asyncio.wait_for(woken.wait(), 10)
print(await asyncio.gather(*map(later, range(3))), "woken")
""")
        == "[0, 1, 2] woken"
    )


def test_subprocesses(both: Both) -> None:
    assert (
        both.say("""
import asyncio
from asyncio.subprocess import PIPE
process = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=PIPE, stdout=PIPE)
told, _ = await process.communicate(b"hello\\n")
shell = await asyncio.create_subprocess_shell("exit 7")
print(told, process.returncode, await shell.wait())
""")
        == "b'HELLO\\n' 0 7"
    )


def test_servers_and_streams_over_tcp_and_unix(both: Both) -> None:
    assert both.say("""
import asyncio, os, tempfile
async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()

async def ask(reader, writer, words):
    writer.write(b"".join(word + b"\\n" for word in words)), writer.write_eof()
    told = await reader.read()
    writer.close()
    return told.split()

path = os.path.join(tempfile.mkdtemp(), "s")
tcp, unix = await asyncio.start_server(answer, "localhost", 0), await asyncio.start_unix_server(answer, path)
port = tcp.sockets[0].getsockname()[1]
async with tcp, unix:
    print(await ask(*await asyncio.open_connection("127.0.0.1", port), [b"a", b"b"]))
    print(await ask(*await asyncio.open_unix_connection(path), [b"c"]))
    many = [ask(*await asyncio.open_connection("127.0.0.1", port), [b"%d" % n]) for n in range(50)]
    print(sum(int(told[0]) for told in await asyncio.gather(*many)))
""").splitlines() == ["[b'A', b'B']", "[b'C']", "1225"]


def test_tls_and_the_modules_that_are_imported_late(both: Both) -> None:
    """Inside, asyncio has ssl and its own sslproto only when they are used: nobody can tell."""
    assert both.say("""
import asyncio, socket, sys
print(asyncio.sslproto.SSLProtocol.__name__, asyncio.base_events.ssl.SSLContext.__name__)
import asyncio.sslproto, ssl
print(sys.modules["asyncio.sslproto"] is asyncio.sslproto, asyncio.sslproto.SSLProtocol.__module__, ssl.__name__)

import subprocess, tempfile, os
own = os.path.join(tempfile.mkdtemp(), "own.pem")
subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
    "-addext", "subjectAltName=DNS:localhost", "-keyout", own + ".key", "-out", own], check=True, capture_output=True)
there, here = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context(cafile=own)
there.load_cert_chain(own, own + ".key")

async def answer(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()

async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=there) as server:
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=here, server_hostname="localhost")
    writer.write(b"hello\\n")
    print(await reader.read(), isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject))
    writer.close()
""").splitlines() == ["SSLProtocol SSLContext", "True asyncio.sslproto ssl", "b'HELLO\\n' True"]
