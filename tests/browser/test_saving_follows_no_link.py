"""Jupyter's own contents manager saves a notebook and its checkpoint; no link that code made leads it outside."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_server.services.contents.filemanager import FileContentsManager

from tests.support.sandbox import run_inside, run_outside

CODE = """
import os
os.remove({name!r})
try:
    os.symlink({file!r}, {name!r})
except PermissionError:
    pass
"""


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["a.ipynb", ".ipynb_checkpoints/a-checkpoint.ipynb"])
def test_saving_and_checkpoints(name: str, inside: bool, workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "bashrc"
    file.write_text("# the user's")
    manager = FileContentsManager(root_dir=str(workspace))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_raw_cell("$(touch owned)")])
    model = {"type": "notebook", "format": "json", "content": notebook}
    manager.save(dict(model), "a.ipynb")
    manager.create_checkpoint("a.ipynb")
    (run_inside if inside else run_outside)(CODE.format(file=str(file), name=name), workspace=workspace).check()
    manager.save(dict(model), "a.ipynb")
    manager.create_checkpoint("a.ipynb")
    assert ("owned" in file.read_text()) is not inside
    assert os.path.exists(workspace / "a.ipynb")
