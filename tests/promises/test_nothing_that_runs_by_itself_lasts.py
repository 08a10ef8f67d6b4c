"""What code inside leaves in its home, and the next kernel's programs would run or obey by themselves, is not there any
more, while what it saved on purpose is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sandbox import run_inside

NAMES = (
    ".bashrc", ".profile", ".bash_profile", ".zshrc", ".inputrc", ".gitconfig", ".config/git/config", ".vimrc",
    ".config/fish/config.fish", ".pythonrc.py", ".pdbrc", ".Rprofile", ".npmrc", ".config/pip/pip.conf",
    ".pip/pip.conf", ".ipython/profile_default/startup/00.py", ".ipython/profile_default/ipython_config.py",
    ".ipython/profile_default/ipython_kernel_config.py", ".ipython/profile_default/db/rootmodules_cache",
    ".jupyter/jupyter_config.py", ".local/share/jupyter/kernels/x/kernel.json", ".config/matplotlib/matplotlibrc",
    ".local/lib/python3.{minor}/site-packages/usercustomize.py", ".local/lib/python3.{minor}/site-packages/x.pth",
    ".local/bin/python", ".python/sitecustomize.py",
)  # fmt: skip
LASTING = (".cache/model", ".ipython/profile_default/db/autorestore/x", "nltk_data/x", ".keras/models/x",
           ".packages/x", ".ipython/profile_default/history.sqlite")  # fmt: skip
CODE = """
import json, os, sys
there = []
for name in {names!r} + {lasting!r}:
    path = os.path.expanduser("~/" + name.replace("{{minor}}", str(sys.version_info.minor)))
    if os.path.exists(path):
        there.append(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write("planted")
print(json.dumps(there))
"""


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_that_runs_by_itself_lasts(keep: bool, workspace: Path) -> None:
    policy = "" if keep else "[home]\nkeep = false"
    workspace.chmod(0o755)
    code = CODE.format(names=NAMES, lasting=LASTING)
    first = run_inside(code, workspace=workspace, policy=policy).json()
    assert first == []
    assert run_inside(code, workspace=workspace, policy=policy).json() == (list(LASTING) if keep else [])
