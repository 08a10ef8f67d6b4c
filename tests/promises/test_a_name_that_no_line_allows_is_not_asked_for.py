"""Names outside the policy do not exist inside, and nothing that the sandbox writes into a question leaves the machine.

Three name servers look on: the one that the broker itself asks (``--resolv-conf``), and one on loopback and one on
another address of this machine that the sandboxed code asks directly.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.attempts import TOOLS, make_all
from tests.support.dns_server import DnsServer
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import run_inside

ASKING = """
patience = 5
def question(name, kind=1):
    labels = b"".join(bytes([len(l)]) + l for l in name.split(b"."))
    return struct.pack(">6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack(">HH", kind, 1)

def answer(reply):
    number, flags, _, answers, _, _ = struct.unpack_from(">6H", reply)
    assert number == 4711
    addresses, at = [], reply.index(b"\\0", 12) + 5
    for _ in range(answers):
        size = struct.unpack_from(">H", reply, at + 10)[0]
        addresses.append(socket.inet_ntop({4: 2, 16: 10}[size], reply[at + 12 : at + 12 + size]))
        at += 12 + size
    return [flags & 15, addresses]

def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET

def over_tcp(host, port, name):
    with socket.create_connection((host, port), 5) as s:
        s.sendall(struct.pack(">H", len(question(name))) + question(name))
        size = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
        return answer(s.recv(size, socket.MSG_WAITALL))

def over_udp(host, port, name, send):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.settimeout(patience)
    send(s, question(name), (host, port))
    return answer(s.recv(4096))

def connected(s, data, where):
    s.connect(where)
    s.send(data)
"""

# To a server on a port of its own, which only the machine's own services use: the query itself is the evidence.
DIRECT = {
    "tcp.secret": "over_tcp(host, port, payload)",
    "sendto.secret": "over_udp(host, port, payload, lambda s, d, w: s.sendto(d, w))",
    "send.secret": "over_udp(host, port, payload, connected)",
    "sendmsg.secret": "over_udp(host, port, payload, lambda s, d, w: s.sendmsg([d], [], 0, w))",
}


def test_no_name_server_is_reached_on_a_port_of_its_own(workspace: Path, own_address: str) -> None:
    for address in ("127.0.0.1", own_address):
        with DnsServer({name: ["192.0.2.1"] for name in DIRECT}, address=address) as server:
            made = make_all(
                DIRECT,
                arrived=lambda server=server: [query.name for query in server.queries],  # type: ignore[misc]
                workspace=workspace,
                setting=f"host, port = {address!r}, {server.port}\n{ASKING}\npatience = 1",
                policy='[network]\nallow = ["tcp.allowed:53000"]',
                resolv_conf=Path("/dev/null"),
            )
            assert all("[0," not in became for became in made.inside.values()), made.inside


# On port 53 the broker answers, wherever the server is said to be, so that resolvers work; this is what it says.
TO_53 = """
import itertools
def all_ways(name):
    ways = {
        "tcp": lambda: over_tcp(host, 53, name),
        "sendto": lambda: over_udp(host, 53, name, lambda s, d, w: s.sendto(d, w)),
        "send": lambda: over_udp(host, 53, name, connected),
    }
    made = {}
    for host in hosts:
        globals()["host"] = host
        for way, ask in ways.items():
            made[f"{way} {host}"] = outcome(lambda _: ask(), b"")
    return made
print(json.dumps([all_ways(n.encode()) for n in names]))
"""


def test_port_53_of_any_server_answers_from_the_policy(workspace: Path, tmp_path: Path, own_address: str) -> None:
    hosts = ["127.0.0.1", "127.0.0.53", own_address, "192.0.2.53", "8.8.8.8", "169.254.169.254"]
    hosts += ["::1", "2001:db8::53"] if has_ipv6() else []
    names = ["allowed.example.org", "payload-of-somebody.evil.example", "allowed.example.org.evil.example"]
    with DnsServer({"allowed.example.org": ["192.0.2.10"]}) as upstream:
        resolv_conf = Path(upstream.write_resolver_config(tmp_path))
        result = run_inside(
            f"{TOOLS}\n{ASKING}\nhosts, names = {hosts!r}, {names!r}\n{TO_53}",
            workspace=workspace,
            policy='[network]\nallow = ["allowed.example.org:443"]',
            resolv_conf=resolv_conf,
        )
        allowed, *refused = result.json()
        assert set(allowed.values()) == {"[0, ['192.0.2.10']]"}, allowed
        for became in refused:
            assert set(became.values()) == {"[3, []]"}, became  # NXDOMAIN
        # What the broker itself asked: the names of the policy and no other, in whatever order and however often.
        assert {query.name for query in upstream.queries} == {"allowed.example.org"}
    assert {event.host for event in result.refused(kind="name")} == set(names[1:])


TRICKS = """
def lookups():
    for name in names:
        yield name, outcome(lambda _: sorted({i[4][0] for i in socket.getaddrinfo(name, 443)}), b"")
print(json.dumps(dict(lookups())))
"""


def test_nothing_of_a_refused_name_goes_upstream_however_it_is_written(workspace: Path, tmp_path: Path) -> None:
    names = [
        "secret.evil.example",
        "secret.allowed.example.org",  # beneath an allowed name, which is no wildcard
        "allowed.example.org.",
        "ALLOWED.example.ORG",
        "example.org",
        "org",
        "xallowed.example.org",
        "allowed\\.example.org",
        "allowed.example.org\n.evil.example",
        "a" * 63 + ".evil.example",
        "x" * 250 + ".evil.example",
        "..evil.example",
        "s\N{LATIN SMALL LETTER E WITH ACUTE}cret.evil.example",
    ]
    with DnsServer({"allowed.example.org": ["192.0.2.10"]}) as upstream:
        resolv_conf = Path(upstream.write_resolver_config(tmp_path, "search corp.example"))
        result = run_inside(
            f"{TOOLS}\nnames = {names!r}\n{TRICKS}",
            workspace=workspace,
            policy='[network]\nallow = ["allowed.example.org:443"]',
            resolv_conf=resolv_conf,
        )
        found = result.json()
        working = {name for name, became in found.items() if became == "['192.0.2.10']"}
        assert working == {"allowed.example.org.", "ALLOWED.example.ORG"}, found
        assert {query.name for query in upstream.queries} == {"allowed.example.org"}


RAW_QUESTIONS = """
# Questions that carry more than a name: records behind it, other types and classes, several questions, junk.
import random
base = question(b"allowed.example.org")
secret = b"\\x06secret\\x04evil\\x07example\\0"
odd = [
    struct.pack(">6H", 1, 0x0100, 2, 0, 0, 0) + base[12:] + secret + struct.pack(">HH", 1, 1),
    base[:10] + b"\\0\\1" + base[12:] + secret + struct.pack(">HHIH", 16, 1, 0, 6) + b"secret",
    *(question(b"allowed.example.org", kind) for kind in (12, 15, 16, 33, 65, 251, 252, 255)),
    base[:-2] + b"\\0\\3", base[:2] + b"\\x28\\0" + base[4:], base[:2] + b"\\x80\\0" + base[4:],
    b"", b"x", base[:11], base[:-3], base + secret * 20,
]
random.seed(7)
for _ in range(300):
    mutated = bytearray(base + secret)
    for _ in range(random.randrange(1, 6)):
        mutated[random.randrange(len(mutated))] = random.randrange(256)
    odd.append(bytes(mutated))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("192.0.2.53", 53))
for data in odd:
    s.send(data)
    t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t.sendto(data, ("192.0.2.53", 53))
s2 = socket.create_connection(("192.0.2.53", 53), 5)
for data in odd[:-300]:
    s2.sendall(struct.pack(">H", len(data)) + data)
print(json.dumps(over_udp("192.0.2.53", 53, b"allowed.example.org", connected)))
"""


def test_an_odd_question_leaves_nothing_upstream_and_the_next_one_is_answered(workspace: Path, tmp_path: Path) -> None:
    with DnsServer({"allowed.example.org": ["192.0.2.10"]}) as upstream:
        result = run_inside(
            f"{TOOLS}\n{ASKING}\n{RAW_QUESTIONS}",
            workspace=workspace,
            policy='[network]\nallow = ["allowed.example.org:443"]',
            resolv_conf=Path(upstream.write_resolver_config(tmp_path)),
        )
        assert result.json() == [0, ["192.0.2.10"]]
        assert {query.name for query in upstream.queries} == {"allowed.example.org"}
        assert {query.type for query in upstream.queries} <= {"A", "AAAA"}
