"""Pure: one entry of ``[network] allow``, text or table, becomes a Destination, or an error that says what to write.

Nothing is resolved here. A name is brought to the one form in which it is compared later (lower case, no trailing dot,
IDNA), and what two programs could read differently ("0x7f.1", "127.1", "straße.de") is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.hostnames.addresses import (
    RANGES,
    Address,
    Kind,
    Network,
    Range,
    canonical,
    classify,
    is_localhost,
    plain,
)
from sandboxed_kernel.policy.model import Destination, Ports, Tls, Transport
from sandboxed_kernel.policy.words import instead, shown, type_name
from sandboxed_kernel.records import replace

ALL_PORTS = Ports(1, 65535)
_EXAMPLE = 'Write "host:port", for example "pypi.org:443"'
_TABLE_EXAMPLE = 'Write { host = "db.corp", port = 5432, private = true }'
_TABLE_KEYS = ("host", "port", "ports", "protocol", "private", "tls", "until")
_TRANSPORTS: tuple[Transport, ...] = ("tcp", "udp")
_TLS: tuple[Tls, ...] = ("checked", "unchecked")

# Ports of URL schemes, to say what to write instead of a URL (IANA, "Service Name and Transport Protocol Port Number").
_SCHEME_PORTS = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "ftp": 21,
    "ssh": 22,
    "git": 9418,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "redis": 6379,
    "mongodb": 27017,
    "amqp": 5672,
    "ldap": 389,
    "smtp": 25,
}

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1035 2.3.4, and "_" as in RFC 2782
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")  # WHATWG URL, "ends in a number"
_URL = re.compile(r"(?:([a-z][a-z0-9+.-]*)://)?(?:[^@/]*@)?([^:/?#@\[\]]+|\[[^\]]+\])(?::([0-9]+))?(?:[/?#].*)?", re.I)
# IDNA 2003 (the stdlib codec) and IDNA 2008 (browsers, the idna package) mean different domains by these (UTS 46, 7.2).
_IDNA_DEVIATIONS = frozenset("ß\N{LATIN CAPITAL LETTER SHARP S}ς\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")

# Never reachable, whatever a policy says: what they answer is meant for the machine, not for a program on it.
NEVER = frozenset({Kind.METADATA, Kind.LINK_LOCAL, Kind.UNSPECIFIED, Kind.MULTICAST, Kind.RESERVED})
_GLOBAL_IPV6 = IPv6Network("2000::/3")  # RFC 4291 section 2.4


class _Unusable(Exception):
    """What is wrong with an entry; the caller knows its place and its text.

    ``write`` says what to write; or ``host`` is what to write as the host; or neither, and it is read off the text.
    """

    def __init__(self, found: str, write: str = "", *, host: str = "") -> None:
        super().__init__(found)
        self.found, self.write, self.host = found, write, host


def parse_destination(entry: object, place: str) -> Destination:
    """The Destination that ``entry`` (what tomllib made of it) means. Raises PolicyError."""
    try:
        if isinstance(entry, str):
            return _from_text(entry, place)
        if isinstance(entry, dict):
            return _from_table(entry, place)
        raise _Unusable(f"{type_name(entry)}, not a destination")
    except _Unusable as problem:
        write = _read_off(entry) or problem.write
        write = write or (_with_host(problem.host, entry) if problem.host else _what_to_write(entry))
        raise PolicyError(place, f"{shown(entry)}: {problem.found}", write) from None


def normal_name(text: str) -> str | None:
    """The form in which host names are compared (lower case, no trailing dot, IDNA), or None if it is no host name.

    Numbers that some programs read as addresses are no names. For names that come from outside a policy, too.
    """
    try:
        return _name(text)
    except _Unusable:
        return None


def parse_address(text: str) -> Address | None:
    """The address that ``text`` writes in full, the IPv4-mapped form as IPv4, or None. No scope ids, no short forms."""
    try:
        return None if "%" in text else plain(ip_address(text))
    except ValueError:
        return None


def _from_text(text: str, place: str) -> Destination:
    if text != text.strip():
        raise _Unusable("white space around it")
    transport: Transport = "tcp"
    rest = text
    for candidate in _TRANSPORTS:
        if text.lower().startswith(candidate + "://"):
            transport, rest = candidate, text[len(candidate) + 3 :]
    if "://" in rest:
        raise _Unusable("a URL; rules name a host and a port")
    host, ports = _split(rest)
    return _destination(host, _ports(ports), transport, private=False, text=text, place=place)


def _split(rest: str) -> tuple[str, str]:
    """Host (brackets kept) and ports of ``host:ports``."""
    if not rest:
        raise _Unusable("empty", _EXAMPLE)
    if "@" in rest:
        raise _Unusable("a user name; rules name a host and a port")
    host, bracket, ports = rest.partition("]") if rest.startswith("[") else ("", "", "")
    if bracket:
        if ports.startswith("/"):
            raise _Unusable("the prefix length stands outside the brackets", host=f"{host}{ports.split(':')[0]}]")
        if not ports.startswith(":"):
            raise _Unusable("no port")
        return host + "]", ports[1:]
    if rest.count(":") > 1:
        for address in (rest.rpartition(":")[0], rest):
            if parse_address(address) is not None:
                raise _Unusable("an IPv6 address without brackets", host=f"[{address}]")
        raise _Unusable("more than one colon; IPv6 addresses stand in brackets", 'Write "[2001:db8::1]:443"')
    host, colon, ports = rest.partition(":")
    if not colon or not ports:
        raise _Unusable("no port")
    if not host:
        raise _Unusable("no host", _EXAMPLE)
    if "/" in ports:
        raise _Unusable("a path; rules name a host and a port, paths are not seen")
    return host, ports


def _from_table(table: Mapping[str, Any], place: str) -> Destination:
    for key in table:
        if key not in _TABLE_KEYS:
            raise _Unusable(f"unknown key {shown(key)}", instead(key, _TABLE_KEYS))
    host, transport, private = table.get("host"), table.get("protocol", "tcp"), table.get("private", False)
    if not isinstance(host, str) or not host:
        raise _Unusable("no host", _TABLE_EXAMPLE)
    if transport not in _TRANSPORTS:
        raise _Unusable(f"protocol is {shown(transport)}", 'Write protocol = "tcp" or protocol = "udp"')
    if not isinstance(private, bool):
        raise _Unusable(f"private is {type_name(private)}", "Write private = true or private = false")
    until = table.get("until")
    if until is not None and not (isinstance(until, datetime) and until.tzinfo is not None):
        raise _Unusable(f"until is {type_name(until)} without a time zone", "Write until = 2030-12-31T18:00:00Z")
    if ("port" in table) == ("ports" in table):
        raise _Unusable("no port" if "port" not in table else "both port and ports", _TABLE_EXAMPLE)
    value = table["port"] if "port" in table else table["ports"]
    items = value if isinstance(value, list) else [value]
    ports = tuple(ports for item in items for ports in _ports_of_item(item))
    if not ports:
        raise _Unusable("an empty list of ports", "Write ports = [80, 443]")
    if ":" in host and not host.startswith("["):
        if parse_address(host.partition("/")[0]) is None:
            raise _Unusable("the host holds a port or a URL", _TABLE_EXAMPLE)
        host = f"[{host}]"
    text = "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in table.items()) + " }"
    rule = _destination(host, ports, transport, private=private, text=text, place=place)
    if "tls" in table:
        rule = _with_tls(rule, table["tls"])
    return rule if until is None else replace(rule, until=until.timestamp())


def _with_tls(rule: Destination, tls: object) -> Destination:
    if tls not in _TLS:
        raise _Unusable(f"tls is {shown(tls)}", 'Write tls = "checked" or tls = "unchecked"')
    if rule.name is None:
        raise _Unusable("tls beside an address: there is no name to be checked", "Write the host's name, or remove tls")
    if rule.transport != "tcp":
        raise _Unusable("tls beside udp: what QUIC says is not looked at", 'Write protocol = "tcp", or remove tls')
    if is_localhost(rule.name):
        raise _Unusable("tls beside localhost, whose name nobody else has", "Remove tls")
    return replace(rule, tls=tls)


def _toml(value: object) -> str:
    """A checked value of a table, in full."""
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, datetime):
        return value.isoformat()
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _destination(
    host: str, ports: tuple[Ports, ...], transport: Transport, *, private: bool, text: str, place: str
) -> Destination:
    if Ports(53, 53) in ports:
        # The broker answers every question on port 53 itself; a rule for it would look as if it did something.
        raise _Unusable("port 53: names are answered from the policy, no name server is reached", "Remove the entry")
    network = _network(host)
    if network is not None:
        return Destination(None, False, network, ports, transport, private, text, place)
    wildcard = host.startswith("*.")
    name = _name(host[2:] if wildcard else host)
    if wildcard and "." not in name:
        raise _Unusable("a whole top-level domain", f'Write the domain too, for example "*.example.{name}:443"')
    # RFC 6761 6.3: localhost is this machine, and who writes it means this machine.
    return Destination(name, wildcard, None, ports, transport, private or name == "localhost", text, place)


# --- ports ---------------------------------------------------------------------------------------------------------


def _ports(text: str) -> tuple[Ports, ...]:
    """``443``, ``80,443``, ``8000-8010``, ``80,8000-8010`` or ``*``."""
    if text == "*":
        return (ALL_PORTS,)
    return tuple(_port_range(item) for item in text.split(","))


def _ports_of_item(item: object) -> tuple[Ports, ...]:
    if isinstance(item, str):
        return _ports(item)
    if isinstance(item, int) and not isinstance(item, bool):
        return (_port_range(str(item) if 0 <= item <= 65536 else shown(item)),)
    raise _Unusable(f"a port is {type_name(item)}", "Write port = 443 or ports = [80, 443]")


def _port_range(text: str) -> Ports:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= 65535 or not 1 <= last <= 65535:
        raise _Unusable(f"{shown(text)} is not a port", "Write a number from 1 to 65535, a range 8000-8010, or *")
    if first > last:
        raise _Unusable("a range of ports that ends before it begins", f"Write the ports as {last}-{first}")
    return Ports(first, last)


# --- hosts ---------------------------------------------------------------------------------------------------------


def _network(host: str) -> Network | None:
    """The network that ``host`` writes, or None if it has to be a name."""
    bracketed = host.startswith("[")
    text = host[1:-1] if bracketed else host
    if "%" in text:
        raise _Unusable("a scope id; link-local addresses are never allowed", "Remove the entry")
    if not bracketed and "/" not in text and not re.fullmatch(r"[0-9.]+", text):
        return None
    try:
        network = ip_network(text)
    except ValueError as error:
        raise _not_a_network(text, error) from None
    if bracketed != isinstance(network, IPv6Network):
        right = f"[{text}]" if isinstance(network, IPv6Network) else text
        raise _Unusable("brackets are for IPv6 addresses, and only for them", host=right)
    if network.prefixlen == network.max_prefixlen:
        network = ip_network(plain(network.network_address))
    elif isinstance(network, IPv6Network) and canonical(network.network_address).version == 4:
        raise _Unusable("a network of IPv4 addresses inside IPv6", "Write the IPv4 network itself")
    _check_kind(network)
    return network


def _not_a_network(text: str, error: ValueError) -> _Unusable:
    if "host bits" in str(error):
        return _Unusable("bits are set behind the prefix", host=_bracketed(ip_network(text, strict=False)))
    meant = _inet_aton(text)
    if meant is not None:
        return _Unusable(f"not written in full; programs read {meant}", host=str(meant))
    return _Unusable("neither a host name nor an IP address or network", _EXAMPLE)


def _bracketed(network: Network) -> str:
    return f"[{network}]" if isinstance(network, IPv6Network) else str(network)


def _check_kind(network: Network) -> None:
    """Refuse a network in which nothing could ever be reached.

    A network that is wider than a special range is fine: the pins do not let it speak for that range, so
    ``0.0.0.0/0`` means the internet and not this machine, and ``100.64.0.0/10`` not the metadata service inside.
    """
    single = network.prefixlen == network.max_prefixlen
    kind = classify(network.network_address) if single else _range_around(network).kind
    if kind in NEVER and not _holds(network, _GLOBAL_IPV6):
        what = kind.name.lower().replace("_", "-")
        raise _Unusable(f"{what} addresses are never allowed", "Remove the entry, or name the service's own host")


def _range_around(network: Network) -> Range:
    """The narrowest row of the table that holds all of ``network``; the last row of each version holds everything."""
    return next(row for row in RANGES if _holds(row.network, network))


def _holds(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def _name(text: str) -> str:
    name = text[:-1] if text.endswith(".") else text
    if not name.isascii():
        name = _idna(name)
    name = name.lower()
    if name == "*":
        raise _Unusable("every host there is", 'Write each host, or a domain such as "*.example.org:443"')
    if "*" in name:
        raise _Unusable('"*" stands only for a whole first label', 'Write "*.example.org:443"')
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _Unusable("not a host name", _what_to_write_name(labels))
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        meant = _inet_aton(name)
        if meant is None:
            raise _Unusable("a number that is no IPv4 address", 'Write four numbers, for example "192.0.2.1:443"')
        raise _Unusable(f"not written in full; programs read {meant}", host=str(meant))
    return name


def _what_to_write_name(labels: list[str]) -> str:
    return "Write letters, digits and hyphens between dots" if all(labels) else "Write each dot between two labels"


def _idna(name: str) -> str:
    if not _IDNA_DEVIATIONS.isdisjoint(name):
        raise _Unusable("a letter that programs translate differently", 'Write the name in its "xn--" form')
    try:
        if name.isprintable():  # the codec passes unassigned characters
            return name.encode("idna").decode("ascii")
    except UnicodeError:
        pass
    raise _Unusable("not a host name (IDNA)", 'Write the name in its "xn--" form')


def _inet_aton(text: str) -> IPv4Address | None:
    """What inet_aton(3) makes of one to four decimal, octal or hexadecimal numbers; the last fills the rest."""
    parts = text.lower().split(".")
    if len(parts) > 4 or not all(re.fullmatch(r"0x[0-9a-f]{1,16}|[0-9]{1,16}", part) for part in parts):
        return None
    try:
        numbers = [int(part, 16 if "x" in part else 8 if part.startswith("0") else 10) for part in parts]
    except ValueError:
        return None  # an 8 or 9 in an octal number
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(parts)):
        return None
    return IPv4Address(sum(number << (24 - 8 * i) for i, number in enumerate(numbers[:-1])) + numbers[-1])


def _with_host(host: str, entry: object) -> str:
    """The entry with ``host`` in the place of its own."""
    if isinstance(entry, dict):
        return f'Write host = "{host}"'
    match = re.search(r":([0-9*][0-9,*-]*)$", entry) if isinstance(entry, str) else None
    ports = match[1] if match and not host[1:-1].endswith(match[0]) else "443"
    try:
        _from_text(f"{host}:{ports}", "")
    except _Unusable as problem:  # link-local, for example: no spelling of it is allowed
        return problem.write or _EXAMPLE
    return f'Write "{host}:{ports}"'


def _read_off(entry: object) -> str:
    """What to write where a text has all that it needs, and only the marks between are others; else empty."""
    if not isinstance(entry, str):
        return ""
    several = re.split(r"[,;]?\s+|[,;](?=[^0-9*])", entry.strip())
    if len(several) > 1 and all(map(_is_usable, several)):
        return f"Write an entry for each: {', '.join(map(shown, several))}"
    one = _MARKS.fullmatch(entry.strip())
    line = "" if one is None else f"{one[1]}:{one[2]}"
    return f'Write "{line}"' if _is_usable(line) else ""


_MARKS = re.compile(
    r"[\u201c\u2018\"'<]?(?://)?([^\s:;/@\uff1a]+)(?:[\s;]+|\s*[:\uff1a]\s*)([0-9]{1,5})[\s,;.\u201d\u2019\"'>]*(?:#.*)?"
)


def _what_to_write(entry: object) -> str:
    """The line that the writer of an unusable ``entry`` probably meant, if it can be read off the text."""
    text = entry.strip() if isinstance(entry, str) else ""
    if text.lower() in ("*", "0.0.0.0", "::", "any", "all", "internet"):
        return 'Write each host, or a domain such as "*.example.org:443"'
    if text.lower() in ("none", "nothing", "-"):
        return "Remove it: what no entry allows is refused"
    if text.lower() in ("localhost", "127.0.0.1"):
        return f'Write the port too, for example "{text.lower()}:8000"'
    network = re.fullmatch(r"[0-9.]+/[0-9]+|\[[0-9a-fA-F:.]+/[0-9]+\]", text)
    match = _URL.fullmatch(text)
    if network is not None and _is_usable(f"{text}:443"):
        return f'Write "{text}:443"'
    if match is None:
        return _EXAMPLE
    scheme, host, port = (match[1] or "").lower(), match[2], match[3]
    prefix = "udp://" if scheme == "udp" else ""
    line = f"{prefix}{host}:{port or _SCHEME_PORTS.get(scheme, 443)}"
    return f'Write "{line}"' if _is_usable(line) else _EXAMPLE


def _is_usable(line: str) -> bool:
    try:
        _from_text(line, "")
    except _Unusable:
        return False
    return True
