"""Does: finds out what a name means, from /etc/hosts first, then from the name servers of /etc/resolv.conf.

Import this module and call it in a thread, after the Jupyter kernel was started, and only where a policy has names:
dnspython costs 50 ms and 11 MB to import, and a lookup blocks for seconds. Any thread may, several at once.

Not the C library's getaddrinfo: it tells no time to live, cannot be given up on, and loads the host's nss modules into
the broker. So names that only NIS, LDAP, mDNS or a container runtime's own nss module know do not resolve.
"""

from __future__ import annotations

from ipaddress import ip_address

import dns.exception
import dns.name
import dns.resolver

from sandboxed_kernel.hostnames.addresses import Address
from sandboxed_kernel.hostnames.pins import Resolution, normalise

RESOLVER_CONFIG = "/etc/resolv.conf"
HOSTS_FILE = "/etc/hosts"
_LATE_FAMILY = 2.0  # seconds: a name that has IPv4 addresses waits that long for a server that is silent on AAAA


def resolve(
    name: str,
    *,
    resolver_config: str = RESOLVER_CONFIG,
    hosts_file: str = HOSTS_FILE,
    lifetime: float = 5.0,
) -> Resolution:
    """Every address of ``name``, or the reason why there is none. Never raises.

    ``resolver_config`` is read anew each time, as resolv.conf(5), and may also say ``options port:5353``.
    ``lifetime`` is in seconds, and bounds the wait for a server that is dead. A name without a dot is tried with the
    search domains first; any other as it is first, and if it does not exist and has fewer than ``ndots`` dots, so too.
    """
    name = normalise(name)
    try:
        addresses = addresses_in_hosts_file(name, hosts_file)
        if addresses:
            return Resolution(addresses, from_hosts_file=True)
        return _ask_name_servers(name, resolver_config, lifetime)
    except Exception as error:  # noqa: BLE001 - a configuration or an answer that dnspython trips over is no reason to end
        return Resolution(error=f"{name} cannot be looked up: {type(error).__name__}: {error}")


def addresses_in_hosts_file(name: str, hosts_file: str = HOSTS_FILE) -> tuple[Address, ...]:
    """The addresses that hosts(5) gives ``name``, by canonical name or alias, in the file's order; no file, none."""
    try:
        with open(hosts_file, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return ()
    found: dict[Address, None] = {}
    for address, *names in filter(None, lines):
        if name in map(normalise, names):
            try:
                found[ip_address(address)] = None
            except ValueError:
                continue  # as the C library does with a line that it cannot read
    return tuple(found)


def _ask_name_servers(name: str, resolver_config: str, lifetime: float) -> Resolution:
    try:
        resolver = read_resolver_config(resolver_config)
    except (dns.exception.DNSException, ValueError, OSError) as error:
        return Resolution(error=f"{resolver_config} names no usable name server: {error}")
    servers = ", ".join(f"{server} port {resolver.port}" for server in resolver.nameservers)
    for candidate in _names_to_try(name, resolver):
        try:
            addresses, ttl = _ask_both_families(candidate, resolver, lifetime)
        except dns.resolver.NXDOMAIN:
            continue
        except dns.exception.Timeout:
            return Resolution(error=f"no answer for {name} within {lifetime:g} s from {servers}")
        except (dns.exception.DNSException, OSError) as error:
            return Resolution(error=f"no usable answer for {name} from {servers}: {error}")
        if addresses:
            return Resolution(addresses, ttl)
        return Resolution(error=f"{name} has no addresses, says {servers}")
    return Resolution(error=f"{name} does not exist, says {servers}", no_such_name=True)


def read_resolver_config(path: str) -> dns.resolver.Resolver:
    """A resolver as resolv.conf(5) at ``path`` says. Raises OSError, ValueError or dns.exception.DNSException."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.read_resolv_conf(path)
    with open(path, encoding="utf-8") as file:
        for line in file:
            keyword, *options = line.split() or [""]
            ports = [option.removeprefix("port:") for option in options if option.startswith("port:")]
            if keyword == "options" and ports:
                resolver.port = int(ports[-1])
    return resolver


def _names_to_try(name: str, resolver: dns.resolver.Resolver) -> list[dns.name.Name]:
    relative = dns.name.from_text(name, origin=None)
    as_it_is = relative.concatenate(dns.name.root)
    domains = resolver.search or ([resolver.domain] if resolver.domain != dns.name.root else [])
    longer = [relative.concatenate(domain) for domain in domains]
    dots = len(relative) - 1
    if dots == 0:
        return [*longer, as_it_is]
    # As it is first even where ndots says otherwise (Kubernetes: 5): a policy's name means what it says.
    return [as_it_is, *longer] if dots < (resolver.ndots or 1) else [as_it_is]


def _ask_both_families(
    name: dns.name.Name, resolver: dns.resolver.Resolver, lifetime: float
) -> tuple[tuple[Address, ...], int | None]:
    """The addresses of both families, CNAMEs followed, and the shortest time to live.

    Raises dns.exception.DNSException and OSError, and only if neither family brought an address.
    """
    addresses: list[Address] = []
    ttls: list[int] = []
    failure: Exception | None = None
    for rdtype in ("A", "AAAA"):
        patience = min(lifetime, _LATE_FAMILY) if addresses else lifetime
        try:
            answer = resolver.resolve(name, rdtype, lifetime=patience, raise_on_no_answer=False)
        except (dns.resolver.NXDOMAIN, dns.exception.Timeout):
            if not addresses:
                raise  # a name that does not exist does so in every family (RFC 8020), a dead server is dead for both
        except (dns.exception.DNSException, OSError) as error:
            failure = error
        else:
            addresses += [ip_address(record.address) for record in answer.rrset or ()]
            ttls += [answer.chaining_result.minimum_ttl] if answer.rrset else []
    if failure is not None and not addresses:
        raise failure
    return tuple(addresses), min(ttls, default=None)
