"""Names are looked up in a process of its own; whatever becomes of it, every name gets an answer."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from sandboxed_kernel.hostnames import helper
from sandboxed_kernel.hostnames.pins import Resolution
from sandboxed_kernel.linux import processes
from tests.support.dns_server import DnsServer


def _look_up(names: list[str], resolv_conf: str) -> tuple[dict[str, Resolution], list[int]]:
    """What became of each name, and the processes that asked."""
    found = dict(helper.resolve(names, resolv_conf))
    pids = processes.children(os.getpid())
    for pid in pids:
        os.waitpid(pid, 0)
    return found, pids


def test_all_names_are_asked_for_by_one_process(tmp_path: Path) -> None:
    with DnsServer({"a.test": ["192.0.2.1"], "b.test": ["192.0.2.2", "2001:db8::2"]}) as server:
        found, pids = _look_up(["a.test", "b.test", "none.test"], str(server.write_resolver_config(tmp_path)))
    assert len(pids) == 1
    assert found["a.test"].addresses == (ip_address("192.0.2.1"),)
    assert set(found["b.test"].addresses) == {ip_address("192.0.2.2"), ip_address("2001:db8::2")}
    assert found["none.test"].no_such_name


def test_a_helper_that_dies_or_cannot_start_is_an_error_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_MODULE", "sandboxed_kernel.no_such_module")
    found, _ = _look_up(["a.test"], str(tmp_path / "resolv.conf"))
    assert found["a.test"].error == "the helper that looks up names ended early"
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    found, pids = _look_up(["a.test"], str(tmp_path / "resolv.conf"))
    assert found["a.test"].error is not None
    assert found["a.test"].error.startswith("no helper to look up names")
    assert pids == []
