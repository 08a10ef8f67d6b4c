"""Pure: which programs outside run or obey a file of a folder in which a notebook works (docs/threat-model.md)."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase

# Pattern of the path beneath the folder, or of the name alone; what reads it. The first that fits counts.
_READERS = (
    ("*.git/hooks/*", "git runs it"),
    ("*.git/config", "git, and prompts that call it, run programs that it names"),
    ("*.vscode/*", "VS Code: tasks, the path of the interpreter"),
    ("*.idea/*", "PyCharm: run configurations"),
    ("*/bin/activate*", "a shell, when you activate that environment"),
    ("*.code-workspace", "VS Code: tasks, the path of the interpreter"),
    ("*.pth", "Python, at its start, where the folder is a site folder"),
    ("*.j2", "nbconvert, as a template"),
    (".gitattributes", "git: filters"),
    (".gitmodules", "git: addresses of submodules"),
    (".envrc", "direnv"),
    (".pre-commit-config.yaml", "pre-commit"),
    ("conftest.py", "pytest"),
    ("pytest.ini", "pytest: plug-ins"),
    ("tox.ini", "tox, pytest, linters"),
    ("noxfile.py", "nox"),
    ("setup.py", "pip, when it installs the folder"),
    ("setup.cfg", "pip, linters"),
    ("pyproject.toml", "pip, pytest, linters: plug-ins"),
    ("sitecustomize.py", "Python, at its start"),
    ("usercustomize.py", "Python, at its start"),
    ("jupytext.py", "jupytext, in the Jupyter server"),
    (".jupytext*", "jupytext, in the Jupyter server"),
    ("[Mm]akefile", "make"),
    ("GNUmakefile", "make"),
    ("CMakeLists.txt", "cmake"),
    ("[Jj]ustfile", "just"),
    ("package.json", "npm: scripts"),
    (".npmrc", "npm"),
    (".yarnrc*", "yarn"),
    ("Dockerfile*", "docker"),
    ("*compose.y*ml", "docker compose"),
)


def reader_of(path: str, *, is_executable: bool) -> str | None:
    """Who runs or obeys the file at ``path``, relative to the folder; None where nobody is known to."""
    name = path.rpartition("/")[2]
    for pattern, reader in _READERS:
        if fnmatchcase(name, pattern) or ("/" in pattern and fnmatchcase(f"/{path}", pattern)):
            return reader
    module, dot, end = name.rpartition(".")
    if dot and end in ("py", "so") and module.partition(".")[0] in sys.stdlib_module_names:
        return "a Python that is started in its folder, in place of its own module"
    return "you, or a program that looks here for commands" if is_executable else None
