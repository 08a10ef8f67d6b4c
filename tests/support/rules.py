"""Pure: a line of ``[network] allow`` as the policy's reader makes it."""

from __future__ import annotations

from ipaddress import ip_network

from sandboxed_kernel.policy.model import Destination, Ports, Transport


def rule(host: str, *ports: int, private: bool = False, transport: Transport = "tcp") -> Destination:
    """A rule as the policy's reader makes it; no port means every port."""
    spans = tuple(Ports(port, port) for port in ports) or (Ports(1, 65535),)
    wildcard, name = host.startswith("*."), host.removeprefix("*.")
    if "/" in host:
        return Destination(None, False, ip_network(host), spans, transport, private, host, "policy.toml")
    return Destination(name, wildcard, None, spans, transport, private, host, "policy.toml")
