"""Files are moved and linked from folder to folder of the workspace: mv, os.replace, git and pip do it all the time."""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import run_inside, run_outside

CODE = """
import json, os, shutil, subprocess, tempfile
for name in ("a", "b", "a/inner"):
    os.mkdir(name)
    open(f"{name}/file", "w").close()
os.replace("a/file", "b/other")
os.link("b/other", "a/linked")
os.rename("a/inner", "b/inner")
done = subprocess.run(["mv", "b/inner", "."], timeout=20)
with tempfile.NamedTemporaryFile("w", dir="b", delete=False) as file:
    file.write("new")
os.replace(file.name, "a/replaced")
print(json.dumps([done.returncode, sorted(os.path.join(at, f) for at, _, names in os.walk(".") for f in names)]))
"""


def test_files_move_between_folders(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "outside"
    other.mkdir()
    outside = run_outside(CODE, workspace=other).json()
    assert outside == [0, ["./a/linked", "./a/replaced", "./b/file", "./b/other", "./inner/file"]]
    assert run_inside(CODE, workspace=workspace).json() == outside
