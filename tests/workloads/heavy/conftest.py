"""Kernels with the policy that clusters and services want, and patience for a busy machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support import kernels
from tests.support.workloads import NAME, Both, Site, side_by_side, text_of
from tests.workloads.heavy import machine
from tests.workloads.heavy.services import Services, running

_LARGE = 50 * 1024 * 1024


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    if problem := machine.lacks():
        pytest.exit(problem, returncode=1)  # once, and not as many times as there are tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "DEADLINE", 110.0)
        yield


@pytest.fixture(scope="session")
def services(site: Site) -> Iterator[Services]:
    with running(site.certificate) as found:
        yield found


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, site: Site, services: Services) -> Iterator[Both]:
    site.pages["/large"] = os.urandom(_LARGE)
    allow = f'{site.allow}, "localhost:{services.postgres}", "localhost:{services.redis}"'
    allow += f', {{ host = "{NAME}", ports = {list(services.named.values())}, private = true }}'
    policy = f"""
[network]
allow = [{allow}]
[filesystem]
read = ["/sys/bus/pci/devices", "/sys/devices"]  # torch.distributed looks for its network card there
"""
    with side_by_side(tmp_path_factory.mktemp("h"), site, policy) as kernels_:
        kernels_.run(f"POSTGRES, REDIS = {services.postgres}, {services.redis}")
        for kernel, host in ((kernels_.plain, "127.0.0.1"), (kernels_.inside, NAME)):
            for name, port in services.named.items():
                text_of(kernel.run(f"{name.upper()} = '{host}:{port}'"))
        yield kernels_
