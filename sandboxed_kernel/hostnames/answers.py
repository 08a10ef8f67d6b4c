"""Pure: the answer to a DNS question that sandboxed code asks.

Not a resolver: nothing is sent from here. Allowed names get their pinned addresses, every other name does not exist.
Messages are read and written by hand (RFC 1035 section 4; EDNS: RFC 6891): a question is one name and two numbers.
docs/decisions/dns-by-hand.md has the measurements; the tests compare with dnspython.

Who is told of a refused name, and how often. Resolver libraries also ask for names that nobody wrote: the name with
each search domain of resolv.conf appended, before (``ndots``) or after the name itself. The name itself, "as is", is
asked in every case (glibc res_nsearch, Go, Java), so a question that ends in a search domain is answered without a
notice, and the name as is gets the one notice. Two cases remain:

- the rest before the search domain is allowed: no notice, it is going to be answered;
- the rest lies under a search domain itself (``db.corp.example.corp.example``): then the code wrote the rest in full.
  Its question as is had no notice, for ending in a search domain, so this one has it, in the rest's name.

A and AAAA questions name the same name, which the events count as one. Only a name under a search domain that is asked
with a final dot, so without any search, is refused in silence; nothing of it leaves this machine either.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from sandboxed_kernel.hostnames.addresses import Address
from sandboxed_kernel.hostnames.pins import LOCALHOST, Failed, Known, NotAllowed, Pins, Unresolved, normalise
from sandboxed_kernel.records import Record

_HEADER = struct.Struct(">6H")  # id, flags, and the four section counts
_TYPE_AND_CLASS = struct.Struct(">HH")
_RECORD = struct.Struct(">HHHIH")  # pointer to the question's name, type, class, ttl, length of the data
_OPT = struct.Struct(">BHHIH")  # root name, type, size, extended rcode + version + flags, length of the options

# Header flags, RFC 1035 section 4.1.1 and RFC 4035 section 3.2.2.
_QR, _TC, _RD, _RA, _CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
_OPCODE = 0x7800
# Response codes, RFC 1035 section 4.1.1; BADVERS: RFC 6891 section 9.
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
_A, _PTR, _AAAA, _OPT_TYPE = 1, 12, 28, 41
_IN = 1
_TTL = 30  # seconds; short, so that a change in ttl mode is seen, and asking again costs microseconds
_UDP_SIZE = 512  # RFC 1035 section 4.2.1, where the question has no OPT record
_OWN_SIZE = 1232  # what our OPT record offers; questions are shorter
_NAME_AT_12 = 0xC00C  # a pointer to the question's name, which always follows the header
_LOOPBACK_OF_FAMILY = {_A: 4, _AAAA: 6}

# Asked for by libraries on their own; nobody wrote these names, and nobody is to read of them.
_SILENT = {
    "wpad": "proxy auto-discovery",
    "use-application-dns.net": "Firefox asks whether it may use DNS over HTTPS; no such name means no",
}


class Answer(Record):
    """``reply``: the message to send, None for silence. ``refused_name``: tell the user of this name.

    ``ask_upstream``: look this name up, record it, then call ``answer`` again with the same question; there is no reply
    yet. Several questions may wait for one name: the caller keeps them, and does not look the name up twice.
    """

    reply: bytes | None
    refused_name: str | None = None
    ask_upstream: str | None = None


class _Question(Record):
    number: int
    flags: int
    wire: bytes  # the whole question section as it came, so that the case of the name comes back (0x20)
    labels: tuple[bytes, ...]
    type: int
    class_: int
    edns_version: int | None  # None: no OPT record
    size: int  # of the largest datagram that the asker takes


class _Verdict(Record):
    rcode: int
    addresses: tuple[Address, ...] = ()
    pointer: str | None = None  # the name of a PTR answer
    refused_name: str | None = None
    ask_upstream: str | None = None


class _Malformed(Exception):
    pass


def answer(
    query: bytes,
    pins: Pins,
    *,
    own_hostname: str,
    search_domains: tuple[str, ...],
    now: float,
    over_tcp: bool = False,
) -> Answer:
    """The answer to ``query``, any bytes, without the length prefix of TCP. Never raises.

    Over TCP several questions come on one connection: glibc sends A and AAAA and wants both answered before its end.

    ``own_hostname`` is what gethostname(2) says inside, and means loopback unless the policy names it.
    ``search_domains`` are those of the resolv.conf that the sandboxed code reads.
    """
    if len(query) < _HEADER.size:
        return Answer(None)
    number, flags = struct.unpack_from(">HH", query)
    if flags & _QR:  # a reply; answering one could start an endless exchange
        return Answer(None)
    if flags & _OPCODE:
        return Answer(_HEADER.pack(number, _reply_flags(flags, NOTIMP), 0, 0, 0, 0))
    try:
        question = _parse(query)
    except _Malformed:
        return Answer(_HEADER.pack(number, _reply_flags(flags, FORMERR), 0, 0, 0, 0))
    verdict = _decide(question, pins, own_hostname, search_domains, now)
    if verdict.ask_upstream is not None:
        return Answer(None, ask_upstream=verdict.ask_upstream)
    return Answer(_build(question, verdict, 0xFFFF if over_tcp else question.size), verdict.refused_name)


# --- bytes to question -------------------------------------------------------------------------------------------


def _parse(query: bytes) -> _Question:
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(query)
    if questions != 1:  # RFC 9619: more than one has no meaning
        raise _Malformed
    labels, end = _read_name(query, _HEADER.size)
    if len(query) < end + _TYPE_AND_CLASS.size:
        raise _Malformed
    type_, class_ = _TYPE_AND_CLASS.unpack_from(query, end)
    end += _TYPE_AND_CLASS.size
    version, size = None, _UDP_SIZE
    # The OPT record of a query is its first and only further record; others (TSIG, say) mean nothing here.
    if additional and not answers and not authorities and len(query) >= end + _OPT.size:
        root, record_type, offered, extended, length = _OPT.unpack_from(query, end)
        if root == 0 and record_type == _OPT_TYPE:
            if len(query) < end + _OPT.size + length:
                raise _Malformed
            version, size = extended >> 16 & 0xFF, max(offered, _UDP_SIZE)
    return _Question(number, flags, query[_HEADER.size : end], labels, type_, class_, version, size)


def _read_name(query: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """The labels of the question's name and where it ends. RFC 1035 section 3.1: 63 bytes a label, 255 a name.

    A compression pointer is malformed: there is no name before this one that it could mean, so it could only loop.
    """
    start = at
    labels: list[bytes] = []
    while True:
        if at >= len(query) or query[at] > 63:
            raise _Malformed
        length = query[at]
        if at + 1 + length > len(query) or at + 1 + length - start > 255:
            raise _Malformed
        if length == 0:
            return tuple(labels), at + 1
        labels.append(query[at + 1 : at + 1 + length])
        at += 1 + length


def _text(labels: tuple[bytes, ...]) -> str:
    """The name as text, escaped as in RFC 1035 section 5.1.

    A dot or any other odd byte in a label comes out as a backslash, so it cannot pass for an allowed name in ``Pins``.
    """
    plain = b".".join(labels)
    if plain.count(b".") == len(labels) - 1 and plain.replace(b".", b"").replace(b"-", b"").isalnum():
        return plain.decode("ascii").lower()
    return ".".join("".join(map(_character, label)) for label in labels).lower()


def _character(byte: int) -> str:
    if byte in b"-_" or bytes([byte]).isalnum():
        return chr(byte)
    return f"\\{byte:03d}"


# --- question to verdict -----------------------------------------------------------------------------------------


def _decide(question: _Question, pins: Pins, own_hostname: str, domains: tuple[str, ...], now: float) -> _Verdict:
    if question.edns_version:
        return _Verdict(BADVERS)
    if question.class_ != _IN or not question.labels:  # CHAOS and its kin; the root, which no policy names
        return _Verdict(REFUSED)
    name = _text(question.labels)
    if name.endswith((".in-addr.arpa", ".ip6.arpa")):
        return _decide_reverse(question, name, pins)
    match pins.look_up(name, now):
        case Known(addresses):
            version = _LOOPBACK_OF_FAMILY.get(question.type)
            return _Verdict(NOERROR, tuple(address for address in addresses if address.version == version))
        case Unresolved() if question.type in _LOOPBACK_OF_FAMILY:
            return _Verdict(SERVFAIL, ask_upstream=name)
        case Failed(_, no_such_name) if question.type in _LOOPBACK_OF_FAMILY:
            # SERVFAIL where nobody answered: "try again" in getaddrinfo, not "no such name".
            return _Verdict(NXDOMAIN if no_such_name else SERVFAIL)
        case NotAllowed():
            if name == normalise(own_hostname):
                version = _LOOPBACK_OF_FAMILY.get(question.type)
                return _Verdict(NOERROR, tuple(address for address in LOCALHOST if address.version == version))
            return _Verdict(NXDOMAIN, refused_name=_name_to_tell(name, pins, domains, now))
        case _:  # HTTPS, MX, TXT ... of an allowed name: it exists and has no such record
            return _Verdict(NOERROR)


def _decide_reverse(question: _Question, name: str, pins: Pins) -> _Verdict:
    """Which name an address has: the one it is pinned for. Nobody wrote these questions, so there is no notice."""
    address = _reversed_address(name)
    names = () if address is None else pins.names_of(address)
    if not names:
        return _Verdict(NXDOMAIN)
    return _Verdict(NOERROR, pointer=names[0] if question.type == _PTR else None)


def _reversed_address(name: str) -> Address | None:
    """The address that a name under in-addr.arpa (RFC 1035 section 3.5) or ip6.arpa (RFC 3596 section 2.5) means."""
    labels = name.split(".")[::-1]
    try:
        if labels[1] == "in-addr" and len(labels) == 6:
            return IPv4Address(".".join(labels[2:]))
        if labels[1] == "ip6" and len(labels) == 34 and all(len(label) == 1 for label in labels[2:]):
            return IPv6Address(int("".join(labels[2:]), 16))
    except (ValueError, IndexError):
        pass
    return None


def _name_to_tell(name: str, pins: Pins, domains: tuple[str, ...], now: float) -> str | None:
    """The refused name that the user is to read of, None for no notice: see the top of this file."""
    if name in _SILENT:
        return None
    rest = _without_search_domain(name, domains)
    if rest is None:
        return name
    as_written = _without_search_domain(rest, domains) is not None
    return rest if as_written and isinstance(pins.look_up(rest, now), NotAllowed) else None


def _without_search_domain(name: str, domains: tuple[str, ...]) -> str | None:
    """What is before the longest search domain that ``name`` ends in; None where it ends in none."""
    rests = [name.removesuffix("." + normalise(domain)) for domain in domains if normalise(domain)]
    return min((rest for rest in rests if rest != name and rest), key=len, default=None)


# --- verdict to bytes --------------------------------------------------------------------------------------------


def _reply_flags(flags: int, rcode: int) -> int:
    return _QR | flags & (_OPCODE | _RD | _CD) | _RA | rcode & 0xF


def _build(question: _Question, verdict: _Verdict, size: int) -> bytes:
    flags = _reply_flags(question.flags, verdict.rcode)
    records = [_record(question.type, address.packed) for address in verdict.addresses]
    if verdict.pointer is not None:
        records.append(_record(_PTR, _write_name(verdict.pointer)))
    opt = b""
    if question.edns_version is not None:
        opt = _OPT.pack(0, _OPT_TYPE, _OWN_SIZE, (verdict.rcode >> 4) << 24, 0)
    if _HEADER.size + len(question.wire) + sum(map(len, records)) + len(opt) > size:
        flags, records = flags | _TC, []  # RFC 2181 section 9: ask again over TCP; a part would be taken for the whole
    header = _HEADER.pack(question.number, flags, 1, len(records), 0, 1 if opt else 0)
    return b"".join((header, question.wire, *records, opt))


def _record(type_: int, data: bytes) -> bytes:
    return _RECORD.pack(_NAME_AT_12, type_, _IN, _TTL, len(data)) + data


def _write_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"
