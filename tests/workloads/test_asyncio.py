"""asyncio: the kernel's own loop, processes, servers, streams."""

from __future__ import annotations

import pytest

from tests.support.workloads import Both

pytestmark = pytest.mark.container


def test_await_and_tasks(both: Both) -> None:
    assert both.say("""
import asyncio
async def later(n):
    await asyncio.sleep(0.01 * (3 - n))
    return n
loop = asyncio.get_running_loop()
woken = asyncio.Event()
await asyncio.to_thread(loop.call_soon_threadsafe, woken.set)
await asyncio.wait_for(woken.wait(), 10)
print(await asyncio.gather(*map(later, range(3))), "woken")
""") == "[0, 1, 2] woken"


def test_subprocesses(both: Both) -> None:
    assert both.say("""
import asyncio
from asyncio.subprocess import PIPE
process = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=PIPE, stdout=PIPE)
told, _ = await process.communicate(b"hello\\n")
shell = await asyncio.create_subprocess_shell("exit 7")
print(told, process.returncode, await shell.wait())
""") == "b'HELLO\\n' 0 7"


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
