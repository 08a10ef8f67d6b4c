"""These start clusters: patience for a busy machine, and variables that the frameworks want."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import kernels


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "DEADLINE", 110.0)
        yield
