"""What docs/threat-model.md advises about exports, tried literally: without the line a template of the folder runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "threat-model.md"
TEMPLATE = "{{ cycler.__init__.__globals__.os.mkdir('ran') }}"


@pytest.mark.parametrize("advised", [False, True])
def test_a_template_in_the_folder_runs_only_without_the_advised_line(tmp_path: Path, advised: bool) -> None:
    found = re.search(r"put `(c\.[^`]+)` into `jupyter_server_config.py` and `(\w+\.py)`", DOCS.read_text())
    assert found is not None
    line, name = found.groups()
    folder, configuration = tmp_path / "folder", tmp_path / "configuration"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "conf.json").write_text('{"mimetypes": {"text/html": true}}')
    (folder / "lab" / "index.html.j2").write_text(TEMPLATE)
    nbformat.write(nbformat.v4.new_notebook(), folder / "a.ipynb")
    configuration.mkdir()
    if advised:
        (configuration / name).write_text(line + "\n")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "a.ipynb"]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(configuration)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    assert (folder / "a.html").exists()
    assert (folder / "ran").exists() is not advised
