"""What every test may ask for, and which tests belong to which stage of the suite (tests/run_suite.py)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import effort, interfaces

ROOT = Path(__file__).parent

# The same examples at every run, and none refused for taking long on a busy machine; no database, because the tree may
# be somebody else's. See tests/support/effort.py.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("everyday", settings.get_profile("suite"), max_examples=effort.EXAMPLES)
settings.register_profile("explore", settings.get_profile("suite"), derandomize=False, max_examples=2000)
settings.load_profile(effort.PROFILE)


# nohup(1) and a shell's `&` start programs that ignore these, and so does whatever a program starts: tests that send
# one would wait for an end that does not come.
for _number, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def _is_promise(item: pytest.Item) -> bool:
    return (ROOT / "promises") in item.path.parents


# Folders that have a stage and a place of their own: JupyterLab with Playwright, many libraries, a virtual machine.
APART = ("browser", "gallery", "vm")


def _is_in(folder: str, path: Path) -> bool:
    return (ROOT / folder) in path.parents


def _has(item: pytest.Item, marker: str) -> bool:
    return item.get_closest_marker(marker) is not None


# Which tests a stage runs. "here" is a developer's own call: everything that this user can run.
STAGES: dict[str, Callable[[pytest.Item], bool]] = {
    "here": lambda item: os.geteuid() == 0 or not _has(item, "root"),
    "ordinary": lambda item: not _has(item, "root"),
    "root": lambda item: _has(item, "root") or _is_promise(item),
    "browser": lambda item: _is_in("browser", item.path),
    "gallery": lambda item: _is_in("gallery", item.path),
    "vm": lambda item: _is_in("vm", item.path) and (os.geteuid() == 0 or not _has(item, "root")),
    "container": lambda item: (_is_promise(item) or _has(item, "container")) and not _has(item, "root"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stage", choices=sorted(STAGES), default="here", help="which tests: see tests/conftest.py")
    parser.addoption("--figures", action="store_true", help="also the tests that assert a speed or a size")
    parser.addoption("--heavy", action="store_true", help="also the tests that need requirements-workloads.lock")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    belongs = STAGES[config.getoption("--stage")]
    left_out = [marker for marker in ("figures", "heavy") if not config.getoption(f"--{marker}")]
    kept = [item for item in items if belongs(item) and not any(_has(item, marker) for marker in left_out)]
    dropped = [item for item in items if item not in set(kept)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """JupyterLab and Playwright are only in the environments of two stages, for example."""
    others = [folder for folder in APART if folder != config.getoption("--stage")]
    return True if any(_is_in(folder, collection_path / "x") for folder in others) else None


@pytest.fixture(scope="session", autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the homes of the tests' notebooks last, instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty folder for ``run_inside``; what lies beside it is outside."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def own_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the launchers of this test make their private folders, and nobody else. Its path is short."""
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not a loopback one."""
    return interfaces.own_interface_address()


@pytest.fixture
def open_descriptors() -> Iterator[None]:
    """Fails a test that leaves descriptors open: ``@pytest.mark.usefixtures("open_descriptors")``."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = set(os.listdir("/proc/self/fd")) - before
    names = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in left if os.path.lexists(f"/proc/self/fd/{fd}")}
    assert not names, f"left open: {names}"
