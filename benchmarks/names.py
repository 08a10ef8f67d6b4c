"""Figure: getaddrinfo() of an allowed name, which the broker answers from its pins. Ours alone: plain would measure
somebody's name server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.commands import run_program
from benchmarks.model import Contender, Sample, Scale
from tests.support.dns_server import DnsServer

_NAME = "allowed.test"
_RULE = f'{{ host = "{_NAME}", port = 443, private = true }}'  # the answer is an address of this machine


def measure(contender: Contender, scale: Scale) -> Sample:
    with tempfile.TemporaryDirectory(prefix="sbk-bench-") as folder, DnsServer({_NAME: ["127.0.0.5"]}) as server:
        resolv_conf = server.write_resolver_config(Path(folder))
        options = {"name": _NAME, "times": scale.times(500)}
        return run_program(contender, "names", options, (_RULE,), resolv_conf)
