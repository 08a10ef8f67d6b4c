"""Figure: connections whose TLS greeting is checked, beside the same ones where it is not. Ours alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commands import run_program
from benchmarks.model import Contender, Sample, Scale
from tests.support.dns_server import DnsServer
from tests.support.secure import Authority

_NAMES = {"free.test": ["127.0.0.5"], "checked.test": ["127.0.0.6"]}


@contextmanager
def _peer(certificate: Path) -> Iterator[list[int]]:
    """The ports of a process of its own that answers TLS on both addresses: ``programs/secure_peer.py``."""
    addresses = [address for (address,) in _NAMES.values()]
    command = [sys.executable, "-m", "benchmarks.programs.secure_peer", str(certificate), *addresses]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield list(map(int, process.stdout.readline().split()))
        finally:
            process.terminate()


def measure(contender: Contender, scale: Scale) -> Sample:
    with (
        tempfile.TemporaryDirectory(prefix="sbk-bench-") as folder,
        DnsServer(_NAMES) as names,
        _peer(Authority.create(Path(folder), *_NAMES).server) as (free, checked),
    ):
        options = {
            "free": ["127.0.0.5", free, "free.test"],
            "checked": ["127.0.0.6", checked, "checked.test"],
            "connects": scale.times(500),
            "requests": scale.times(200),
            "megabytes": scale.times(200),
        }
        rules = (
            f'{{ host = "free.test", port = {free}, private = true, tls = "unchecked" }}',
            f'{{ host = "checked.test", port = {checked}, private = true, tls = "checked" }}',
        )
        return run_program(contender, "checked", options, rules, names.write_resolver_config(Path(folder)))
