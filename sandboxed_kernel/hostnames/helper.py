"""Does: asks upstream in a short-lived process of its own, so that the broker stays small.

dnspython costs 11 MB for as long as a process lives and 50 ms to import; and what strangers' name servers send is then
parsed where nothing else is. ``python -I -m sandboxed_kernel.hostnames.helper RESOLV_CONF NAME ...`` prints one JSON
object per name as soon as it is known.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any

from sandboxed_kernel.hostnames.pins import Resolution

_MAX_THREADS = 16
_MODULE = "sandboxed_kernel.hostnames.helper"


def resolve(names: Sequence[str], resolv_conf: str) -> Iterator[tuple[str, Resolution]]:
    """Each name with what became of it, in the order of the answers; blocks meanwhile, so call it in a thread.

    Never raises: whatever goes wrong is the ``error`` of the names concerned. The helper's end is for whoever reaps the
    calling process's children.
    """
    missing = dict.fromkeys(names)
    try:
        readable = _start(names, resolv_conf)
    except OSError as error:
        yield from ((name, Resolution(error=f"no helper to look up names: {error}")) for name in missing)
        return
    with open(readable, encoding="utf-8") as lines:
        for line in lines:
            try:
                name, resolution = _decode(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue  # its names stay missing
            if name in missing:
                del missing[name]
                yield name, resolution
    yield from ((name, Resolution(error="the helper that looks up names ended early")) for name in missing)


def _start(names: Sequence[str], resolv_conf: str) -> int:
    readable, writable = os.pipe2(os.O_CLOEXEC)
    command = [sys.executable, "-I", "-m", _MODULE, resolv_conf, *names]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writable, 1)]
        os.posix_spawn(sys.executable, command, {"LANG": "C.UTF-8"}, file_actions=actions)
    except OSError:
        os.close(readable)
        raise
    finally:
        os.close(writable)
    return readable


def _encode(name: str, resolution: Resolution) -> dict[str, Any]:
    return {
        "name": name,
        "addresses": [str(address) for address in resolution.addresses],
        "ttl": resolution.ttl,
        "from_hosts_file": resolution.from_hosts_file,
        "error": resolution.error,
        "no_such_name": resolution.no_such_name,
    }


def _decode(data: dict[str, Any]) -> tuple[str, Resolution]:
    name = data.pop("name")
    addresses = tuple(ip_address(text) for text in data.pop("addresses"))
    return name, Resolution(addresses, **data)


def main(resolv_conf: str, names: Sequence[str]) -> None:
    """In the helper: look all names up at once and print each answer when it comes."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from sandboxed_kernel.hostnames import upstream

    with ThreadPoolExecutor(min(_MAX_THREADS, len(names) or 1)) as threads:
        asked = {threads.submit(upstream.resolve, name, resolver_config=resolv_conf): name for name in names}
        for done in as_completed(asked):
            sys.stdout.write(json.dumps(_encode(asked[done], done.result())) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
