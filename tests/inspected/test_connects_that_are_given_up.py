"""Connects to checked names that are begun and given up, as many as a program likes, take nothing from other calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inspected.test_names_are_checked import SHARED, TOOLS, allow, line
from tests.support import living
from tests.support.dns_server import DnsServer
from tests.support.living import Living, open_descriptors
from tests.support.sandbox import launcher_command
from tests.support.secure import Authority
from tests.support.servers import wait_until
from tests.support.silent import silent_listener
from tests.support.tenants import Tenants

LIMITED = ["/bin/sh", "-c", 'ulimit -n 1024; exec "$@"', "sh"]
MANY = 2400  # more than may be under way at once

BEGINS = f"""
{TOOLS}
import signal
early = socket.socket()
children = []
for _ in range(6):
    child = os.fork()
    if not child:
        mine = []
        for _ in range({MANY // 6}):
            try:
                mine.append(socket.socket())
                mine[-1].setblocking(False)
                mine[-1].connect_ex(("{SHARED}", SLOW))
            except OSError as error:
                assert error.errno == errno.EMFILE
        print("begun", flush=True)
        signal.pause()
    children.append(child)
"""

GIVES_UP = f"""
{BEGINS}
while not os.path.exists("go"):
    time.sleep(0.01)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(json.dumps([get(FAST, "good.test") for _ in range(3)]), flush=True)
"""

IS_REFUSED = f"""
{BEGINS}
while not os.path.exists("go"):
    time.sleep(0.01)
print(name(early.connect_ex(("192.0.2.1", 99))), flush=True)
time.sleep(1000)
"""

FLOODS = f"""
{TOOLS}
get(FAST, "good.test")  # the guard runs
one, other = socket.socketpair()
for _ in range(100):
    try:
        socket.send_fds(one, [b"x"], [1] * 250)
    except OSError as error:
        assert error.errno == errno.ETOOMANYREFS
        break
else:
    sys.exit("there is no limit to what is under way")
found = []
asks = threading.Thread(target=lambda: found.append(get(FAST, "good.test")))
asks.start()
asks.join(1)
before = list(found)
other.close()
asks.join(30)
print(json.dumps([before, found]))
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("given-up"), "good.test")


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[Path]:
    with DnsServer({"good.test": [SHARED]}) as server:
        yield Path(server.write_resolver_config(tmp_path))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.mark.parametrize("tls", ["unchecked", "checked"])
def test_they_make_room_for_others(workspace: Path, resolver: Path, authority: Authority, tls: str) -> None:
    with Tenants(authority, SHARED) as fast, silent_listener(SHARED) as (_, slow):
        code = GIVES_UP.replace("FAST", str(fast.port)).replace("SLOW", str(slow))
        policy = allow(line(fast.port, tls), line(slow, tls))
        with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
            assert [program.line() for _ in range(6)] == ["begun"] * 6
            (workspace / "go").touch()
            assert program.line() == '["tenant good.test", "tenant good.test", "tenant good.test"]'


@pytest.mark.parametrize("tls", ["unchecked", "checked"])
def test_they_leave_the_broker_descriptors(
    workspace: Path, resolver: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    """Without any it could not tell of refusals."""
    monkeypatch.setattr(living, "launcher_command", lambda *given: [*LIMITED, *launcher_command(*given)])
    with silent_listener(SHARED) as (_, slow):
        code, policy = IS_REFUSED.replace("SLOW", str(slow)), allow(line(slow, tls))
        with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
            assert [program.line() for _ in range(6)] == ["begun"] * 6
            assert open_descriptors(program.broker) < 1000
            (workspace / "go").touch()
            assert program.line() == "EACCES"
            wait_until(lambda: [event for event in program.events() if event.verdict == "refused"], "the notice")


@pytest.mark.parametrize("tls", ["unchecked", "checked"])
def test_descriptors_under_way_delay_a_connection_and_do_not_end_it(
    workspace: Path, resolver: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    """unix(7), ETOOMANYREFS: Linux counts for each user what is under way, and the guard gets its sockets that way."""
    monkeypatch.setattr(living, "launcher_command", lambda *given: [*LIMITED, *launcher_command(*given)])
    with Tenants(authority, SHARED) as fast:
        code = FLOODS.replace("FAST", str(fast.port))
        policy = allow(line(fast.port, tls))
        with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
            before, after = json.loads(program.line())
            assert before == (["tenant good.test"] if tls == "unchecked" else [])
            assert after == ["tenant good.test"]
