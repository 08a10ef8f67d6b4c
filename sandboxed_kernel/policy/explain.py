"""Pure: would a policy allow this endpoint or path, by which line, and which line would allow it otherwise.

The broker's notices take their line from here too, so importing this loads no TOML. Nothing is resolved or followed:
a name is judged as a name, a path as it is spelled; callers pass real paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.hostnames.addresses import Address, Kind, classify, find_range, is_localhost
from sandboxed_kernel.hostnames.pins import Pins
from sandboxed_kernel.policy.destination import NEVER, normal_name, parse_address, parse_destination
from sandboxed_kernel.policy.guarded import Closed
from sandboxed_kernel.policy.model import Destination, PathGrant, Policy, Transport
from sandboxed_kernel.policy.paths import is_within
from sandboxed_kernel.policy.words import shown
from sandboxed_kernel.records import Record

Access = Literal["read", "write"]


class Explanation(Record):
    """The answer: ``rule`` is the line that allows it (``policy.toml: network.allow[2] = "pypi.org:443"``).

    ``line`` is the one that would, to paste under ``key`` ("[network] allow"); None where none can or none has to.
    """

    allowed: bool
    reason: str  # one sentence, for people
    rule: str | None = None
    line: str | None = None
    key: str | None = None


def allow_line(
    host: str, port: int, transport: Transport = "tcp", *, private: bool = False, unchecked: bool = False
) -> str | None:
    """The entry of ``[network] allow`` for exactly this endpoint, quotes included; None where no line can allow it.

    ``host`` is a name or an address; ``private`` says that the name resolves to a loopback or private address, and
    ``unchecked`` that its TLS greeting is not looked at.
    What sandboxed code asked for may be any text, also one made so that the pasted line would allow something else;
    so a line is given only if it reads back as this endpoint and nothing more.
    """
    address = parse_address(host)
    name = None if address is not None else normal_name(host)
    if address is None and name is None:
        return None
    target = name or (f"[{address}]" if address is not None and address.version == 6 else str(address))
    text = f"{target}:{port}" if transport == "tcp" else f"{transport}://{target}:{port}"
    try:
        rule = parse_destination(text, "")
    except PolicyError:
        return None
    if rule.name != name or rule.wildcard or not rule.has_port(port) or rule.transport != transport:
        return None
    private = private and not rule.private
    if name is None or not (private or unchecked):
        return f'"{text}"'
    said = [f'host = "{name}", port = {port}']
    said += [f'protocol = "{transport}"'] if transport != "tcp" else []
    said += ["private = true"] if private else []
    said += ['tls = "unchecked"'] if unchecked else []
    return f"{{ {', '.join(said)} }}"


def allow_name_line(name: str) -> str | None:
    """The entry for a name of which no port is known yet, http's and https's; None where no line can allow it."""
    known = normal_name(name)
    return f'"{known}:80,443"' if known is not None and allow_line(name, 443) is not None else None


def explain_endpoint(policy: Policy, host: str, port: int, transport: Transport = "tcp") -> Explanation:
    """What becomes of a connection (or datagram) to ``host``, a name or an address written in full, and ``port``.

    Raises PolicyError where ``host`` is neither.
    """
    if port == 53:
        return Explanation(False, "the sandbox itself answers what is asked on port 53; no name server is reached")
    address = parse_address(host)
    if address is not None:
        return _explain_address(policy, address, port, transport)
    name = normal_name(host)
    if name is None:
        raise PolicyError("the host", f"{shown(host)} is neither a name nor an address", 'Write "pypi.org:443"')
    pins = Pins(policy.allow)
    rule = pins.rule_for_name(name, port, transport)
    if rule is not None:
        condition = "" if rule.private else ", unless it resolves only to private, loopback or link-local addresses"
        reason = (
            f"{name} may be reached on {_port(port, transport)}{condition}{_looked_at(pins, name, port, transport)}"
        )
        return Explanation(True, reason, _rule(rule))
    if is_localhost(name):
        reason = f"{name} is this machine; only the ports on which the sandbox itself listens may be reached"
    elif any(rule.matches_name(name) for rule in policy.allow):
        reason = f"{name} is on the allowlist, but not on {_port(port, transport)}"
    else:
        reason = f"{name} is not on the allowlist; the name is not even resolved"
    return _refused(policy, reason, allow_line(name, port, transport))


def _looked_at(pins: Pins, name: str, port: int, transport: Transport) -> str:
    """What is made sure of beyond the address."""
    if transport == "udp":
        return "; the name in a QUIC greeting is not checked"
    if is_localhost(name):
        return ""
    if pins.is_checked(name, port):
        return "; the name in the TLS greeting is checked, so it has to be TLS"
    return "; the name in a TLS greeting is not checked there"


def _explain_address(policy: Policy, address: Address, port: int, transport: Transport) -> Explanation:
    rule = Pins(policy.allow).rule_for(address, port, transport)
    if rule is not None:
        return Explanation(True, f"{address} may be reached on {_port(port, transport)}", _rule(rule))
    kind = classify(address)
    if kind in NEVER:
        reason = f"{address} is never reachable: {find_range(address).reason}"
    elif kind is Kind.LOOPBACK:
        reason = f"{address} is this machine; only the ports on which the sandbox itself listens may be reached"
    else:
        reason = f"no rule holds {address} on {_port(port, transport)}; a name that resolves to it may still open it"
    return _refused(policy, reason, allow_line(str(address), port, transport))


def _refused(policy: Policy, reason: str, line: str | None) -> Explanation:
    if policy.proxy is not None:
        return Explanation(False, f"the proxy is the only reachable endpoint: {_rule(policy.allow[0])}")
    return Explanation(False, reason, line=line, key=None if line is None else "[network] allow")


def _rule(rule: Destination | PathGrant) -> str:
    return f"{rule.place} = {rule.text}" if rule.text.startswith("{") else f'{rule.place} = "{rule.text}"'


def _port(port: int, transport: Transport) -> str:
    return f"port {port}" if transport == "tcp" else f"{transport.upper()} port {port}"


def explain_path(
    policy: Policy,
    path: str,
    access: Access,
    *,
    baseline: Iterable[PathGrant] = (),
    absent: Iterable[PathGrant] = (),
    closed: Closed | None = None,
) -> Explanation:
    """Whether ``path`` (absolute, normalised, links followed) may be read or written.

    ``baseline`` is what holds without a line of the policy (``implied_grants``); the policy's lines are named first.
    ``absent`` are lines of the policy, not among its grants, for what does not exist. ``closed``: what of the
    notebook's folder is closed on the way to ``path``, unless a line names it.
    """
    baseline = tuple(baseline)
    shut = closed is not None and (access == "write" or closed.access == "none")
    for grant in (*policy.grants, *baseline):
        if shut and closed is not None and not is_within(grant.path, closed.path):
            continue
        if (access == "read" or grant.writable) and is_within(path, grant.path):
            return Explanation(True, f"{path} may be {_DONE[access]}", _rule(grant))
    for grant in absent:
        if (access == "read" or grant.writable) and is_within(path, grant.path):
            reason = f"{_rule(grant)} names what does not exist; once it does, the next start of the kernel opens it"
            return Explanation(False, reason)
    if shut and closed is not None:
        return Explanation(False, f"{closed.path} is closed in the notebook's folder: {closed.what}")
    reason = f"no line lets {path} be {_DONE[access]}"
    if path.startswith("/dev/") and (maker := _maker_of(path)) is not None:
        return Explanation(False, reason, line=f'"{maker}"', key="[accelerators] allow")
    if access == "write" and any(is_within(path, grant.path) for grant in (*policy.grants, *baseline)):
        reason = f"{path} may be read only"
    return Explanation(False, reason, line=path_line(path), key=f"[filesystem] {access}")


def _maker_of(path: str) -> str | None:
    from sandboxed_kernel.policy.baseline import maker_of  # as in implied_grants

    return maker_of(path)


def implied_grants(policy: Policy, workspace: str, prefixes: Iterable[str]) -> tuple[PathGrant, ...]:
    """What may be read and written without a line of the policy: the notebook's folder, Python, parts of the system.

    ``prefixes`` are the folders of the interpreter. The sandbox's private folders, new for each kernel, are not in it.
    """
    # Not at the top: the notices import this module, and need none of it.
    from sandboxed_kernel.confinement.filesystem import Fs
    from sandboxed_kernel.confinement.plan import effective_grants
    from sandboxed_kernel.policy.baseline import accelerator_rules, file_rules

    roots = {"prefix": tuple(prefixes), "imports": (), "home": (), "lasting": (), "tmp": (), "run": ()}
    implied = [grant for grant in effective_grants(policy, workspace) if grant not in policy.grants]
    for rule in (*file_rules(roots), *accelerator_rules(policy.accelerators)):
        asked = rule.reason.startswith("[accelerators]")
        place = rule.reason if asked else f"every sandbox ({rule.reason})"
        implied.append(PathGrant(rule.path, bool(rule.access & Fs.WRITE_FILE), rule.path, place))
    return tuple(implied)


_DONE: dict[Access, str] = {"read": "read", "write": "written"}


def path_line(path: str) -> str | None:
    """The entry of ``[filesystem] read`` or ``write`` for ``path``, quotes included; None if it has odd characters."""
    if not path.isprintable() or not path.startswith("/") or any(character in path for character in '"\\*'):
        return None
    return f'"{path}"'


# Sockets of services that answer questions. Others run commands for whoever connects (container daemons, agents with
# keys, the session's bus), so nothing suggests to name them.
_ANSWERS = re.compile(
    r"(\.s\.PGSQL\.\d{1,5}|(mysql|mysqld|mysqlx|mariadb)\.sock|redis(-server)?\.sock|valkey(-server)?\.sock"
    r"|mongodb-\d{1,5}\.sock|memcached\.sock)"
)


def unix_line(path: str) -> str | None:
    """``unix = [...]`` of ``[network]`` for the socket of a database at ``path``; None for every other."""
    line = path_line(path)
    return f"unix = [{line}]" if line is not None and _ANSWERS.fullmatch(path.rpartition("/")[2]) else None


_ENDPOINT = re.compile(r"(?:(tcp|udp)://)?(\[[^\[\]]+\]|[^:\[\]]+):([0-9]{1,5})", re.IGNORECASE)


def endpoint(text: str, place: str) -> tuple[str, int, Transport]:
    """Host, port and transport of ``text``: an entry that names one of each, allowed or not. Raises PolicyError."""
    match = _ENDPOINT.fullmatch(text)
    if match is not None and 1 <= int(match[3]) <= 65535:
        transport: Transport = "udp" if (match[1] or "").lower() == "udp" else "tcp"
        address = parse_address(match[2].strip("[]"))
        host = normal_name(match[2]) if address is None else str(address)
        if host is not None:
            return host, int(match[3]), transport
    parse_destination(text, place)  # says what is wrong with it, if it is no destination at all
    raise PolicyError(place, f"{shown(text)} is more than one endpoint", 'Write one host and one port, "pypi.org:443"')
