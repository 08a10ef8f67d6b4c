"""One plain and one sandboxed kernel for all workloads of a group; cells leave them as they found them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.workloads import Both, Site, serving, side_by_side

PAGES = {"/hello": b"hello from the site\n", "/data.csv": b"name,count\nann,3\nbob,4\n"}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("site"), PAGES) as running:
        yield running


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Both]:
    with side_by_side(tmp_path_factory.mktemp("w"), site, f"[network]\nallow = [{site.allow}]\n") as kernels:
        yield kernels
