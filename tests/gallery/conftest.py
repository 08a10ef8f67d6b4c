"""Executed notebooks, kept for the tests that come after; JupyterLab with one page for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gallery import corpus, runs
from tests.gallery.corpus import Notebook
from tests.gallery.pictures import Gallery, gallery
from tests.gallery.runs import Run
from tests.support.lab import Lab, running_lab

Both = Callable[[Notebook], list[Run]]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gallery")
    group.addoption(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="only each Nth notebook of a subject, and what covers every library",
    )
    group.addoption(
        "--no-sandbox", action="store_true", help="plain against plain: what two runs differ in by themselves"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "notebook" in metafunc.fixturenames:
        chosen = corpus.choose(corpus.read_all(), metafunc.config.getoption("--every"))
        metafunc.parametrize("notebook", chosen, ids=[notebook.name for notebook in chosen])


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Both]:
    """A notebook -> its run in the plain kernel and in the sandboxed one; each is run once."""
    folder = tmp_path_factory.mktemp("g")
    second = runs.PLAIN if pytestconfig.getoption("--no-sandbox") else runs.SANDBOXED
    done: dict[str, list[Run]] = {}

    def run(notebook: Notebook) -> list[Run]:
        if notebook.name not in done:
            done[notebook.name] = runs.run_both(notebook, folder, (runs.PLAIN, second))
        return done[notebook.name]

    with runs.kernels(folder / "k"):
        yield run


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab"), {}) as running:
        yield running


@pytest.fixture(scope="session")
def wall(lab: Lab) -> Iterator[Gallery]:
    with gallery(lab) as page:
        yield page


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pairs of pictures go, for a person to look at: --basetemp names the folder above it."""
    return tmp_path_factory.mktemp("pairs")
