"""Kernels for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kernels


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for a unix socket's (107 bytes)."""
    return tmp_path_factory.mktemp("k")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kernels.Kernel]:
    """One for all tests of a module that leave it in order."""
    with kernels.running(kernels.command_under_test(), tmp_path_factory.mktemp("k")) as running:
        yield running


@pytest.fixture
def own_kernel(short_path: Path) -> Iterator[kernels.Kernel]:
    """One that the test may end or spoil."""
    with kernels.running(kernels.command_under_test(), short_path) as running:
        yield running


@pytest.fixture
def told_kernel(short_path: Path) -> Iterator[kernels.Kernel]:
    """The relay with a broker that says what the test makes it say; nothing is sandboxed."""
    with kernels.running(kernels.FAKE, short_path, with_broker=True) as running:
        yield running
