"""Does: runs a notebook of the gallery in plain ipykernel and in the sandboxed kernel, by nbclient, at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.gallery.corpus import Notebook

CELL = 120  # seconds; on a quiet machine one or two
PLAIN, SANDBOXED = "python3", "sandboxed"
# What Jupyter's programs keep -> below which folder.
PLACES = {"HOME": "home", "IPYTHONDIR": "ipython", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
PLACES |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_PATH": "share/jupyter"}
# The same in both runs, whatever the machine: the order of sets, threads of BLAS, widths, the time zone.
SETTINGS = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "COLUMNS": "80", "TZ": "UTC"}
POLICY = f"[environment]\npass = {list(SETTINGS)}\n".replace("'", '"')


@dataclass(frozen=True)
class Run:
    """An executed notebook, and what its folders are called in both runs."""

    book: Any
    folders: Mapping[str, str]


@contextmanager
def kernels(folder: Path) -> Iterator[None]:
    """Both kernels can be started meanwhile; neither reads anything of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, place in PLACES.items():
            (folder / place).mkdir(parents=True)
            patch.setenv(name, str(folder / place))
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        # Without folders that this user cannot enter: Linux then says EACCES for a program that there is none of.
        usual = [place for place in os.environ["PATH"].split(":") if os.access(place, os.X_OK)]
        patch.setenv("PATH", ":".join([str(Path(sys.executable).parent), *usual]))
        policy = folder / "policy.toml"
        policy.write_text(POLICY)
        command = [sys.executable, "-m", "sandboxed_kernel", "install", "--name", SANDBOXED, "--prefix", str(folder)]
        subprocess.run([*command, "--policy", str(policy)], check=True, stdout=subprocess.DEVNULL)
        yield


def run_both(notebook: Notebook, folder: Path, names: tuple[str, str]) -> list[Run]:
    """In two kernels at once: their kernelspecs are ``names``. Each has a folder of its own below ``folder``."""
    places = [folder / side / notebook.name.replace("/", "_") for side in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name, place: _run(notebook, place, name), names, places))


def _run(notebook: Notebook, place: Path, kernel: str) -> Run:
    place.mkdir(parents=True)
    # ipykernel leaves out what its subprocesses write on descriptor 2 where it believes to be tested.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    words = {str(place): "FOLDER", os.environ["HOME"]: "HOME", os.environ["IPYTHONDIR"]: "IPYTHON"}
    for left in reversed(range(3)):
        cells = [nbformat.v4.new_code_cell(cell, id=f"cell-{number}") for number, cell in enumerate(notebook.cells, 1)]
        client = NotebookClient(
            nbformat.v4.new_notebook(cells=cells),
            timeout=CELL,
            kernel_name=kernel,
            allow_errors=True,
            coalesce_streams=True,
            resources={"metadata": {"path": str(place)}},
        )
        try:
            return Run(
                asyncio.run(client.async_execute(env=environment)), words
            )  # closes its loop, as ``execute`` does not
        except RuntimeError as problem:
            # Once more with other ports, where one was taken before the kernel could listen on it.
            if not left or "died before replying" not in str(problem):
                raise
    raise AssertionError("not reached: the last attempt returns or raises")
