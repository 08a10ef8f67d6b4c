"""One Jupyter server and one Chromium for all tests of this folder; each test opens its own notebook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab, running_lab

# Name of a sandboxed kernel -> its policy. Beside these there is "python3", the plain one.
POLICIES = {"sandboxed": "", "allowing": '[outputs]\nactive_content = "allow"\n'}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab"), POLICIES) as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go, for a person to look at: --basetemp names the folder above it."""
    return tmp_path
