"""A host with several addresses is reached while one of them answers, by the ways in which programs try them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.sandbox import run_inside
from tests.support.servers import TcpListener
from tests.support.silent import silent_listener

PAGE = b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nthe page"
CLIENTS = """
import asyncio, concurrent.futures, json, socket, threading, urllib.request

as_answered = socket.getaddrinfo  # in no order; here the dead one comes first
socket.getaddrinfo = lambda *args, **words: sorted(as_answered(*args, **words), key=lambda found: found[4])

def resolved():
    return [where[0] for *_, where in socket.getaddrinfo("several.test", PORT, type=socket.SOCK_STREAM)]

def one_after_another():
    with socket.create_connection(("several.test", PORT), 1) as s:  # a second for each address
        return s.getpeername()[0]

def by_urllib():
    return urllib.request.urlopen("http://several.test:PORT/", timeout=1).read().decode()

def happy_eyeballs():
    async def main():
        connecting = asyncio.open_connection("several.test", PORT, happy_eyeballs_delay=0.1)
        reader, writer = await asyncio.wait_for(connecting, 20)
        peer = writer.get_extra_info("peername")[0]
        writer.close()
        return peer
    return asyncio.run(main())

def sixteen_at_once():
    barrier = threading.Barrier(16)
    def connect(_):
        barrier.wait(20)
        return one_after_another()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return sorted(set(pool.map(connect, range(16))))

print(json.dumps([way() for way in (resolved, one_after_another, by_urllib, happy_eyeballs, sixteen_at_once)]))
"""


@pytest.mark.parametrize("dead", ["closed", "silent"])
def test_one_dead_address_of_a_name_leaves_the_others(dead: str, workspace: Path, tmp_path: Path) -> None:
    alive, dead_address = "127.0.0.3", "127.0.0.2"
    with (
        TcpListener(alive, reply=PAGE) as server,
        silent_listener(dead_address, server.port if dead == "silent" else 0),
        DnsServer({"several.test": [dead_address, alive]}) as dns,
    ):
        policy = f'[network]\nallow = [{{ host = "several.test", port = {server.port}, private = true }}]'
        resolv_conf = Path(dns.write_resolver_config(tmp_path))
        code = CLIENTS.replace("PORT", str(server.port))
        result = run_inside(code, workspace=workspace, policy=policy, resolv_conf=resolv_conf)
        assert result.json() == [[dead_address, alive], alive, "the page", alive, [alive]]
        assert not result.refused()
        tried = {event.address for event in result.events if event.verdict == "allowed"}
        assert tried == {dead_address, alive}, "the dead address was tried, too"
