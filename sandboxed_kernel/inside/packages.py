"""Does: gives `%pip install` and `uv pip install` a place: a private environment over this Python's (read-only)."""

from __future__ import annotations

import os
import shlex
import sys

# Written into the private environment, and named to every pip by PIP_PYTHON (`pip --python`). $1 is the calling pip:
# that of an environment which the notebook made for itself installs there.
_PIP_PYTHON = """\
#!/bin/sh
unset PYTHONPATH
case $1 in {outer}) exec {here}/interpreter/python "$@";; esac
own="${{1%/lib/python*}}/bin/python"
[ -x "$own" ] || own={here}/interpreter/python
exec "$own" "$@"
"""


# The environment's interpreter, $0. Not a link to the real one: where the user may write that, the sandbox makes none.
# Python takes itself for what it was called (argv[0]), and finds the environment from there: PEP 405.
_INTERPRETER = """\
#!/bin/sh
exec {base} -IS -c 'import os, sys; os.execv(sys.argv[1], sys.argv[2:])' {base} "$0" "$@"
"""


def lay_over(folder: str) -> None:
    """Make the environment for ``%pip`` at ``folder``: it sees every package of this Python, and comes before them.

    Not by PIP_TARGET, which installs dependencies once more; not by a user installation, which virtual environments do
    not see; not by running the kernel in it, since sys.prefix would be another than outside.
    """
    packages = f"{folder}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    os.makedirs(packages)
    os.mkdir(f"{folder}/interpreter")  # not bin: that is on PATH, and `python` means what it means outside
    base = getattr(sys, "_base_executable", sys.executable)
    _write_script(f"{folder}/interpreter/python", _INTERPRETER.format(base=shlex.quote(base)))
    with open(f"{folder}/pyvenv.cfg", "w", encoding="utf-8") as file:  # makes it one: PEP 405
        file.write(f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n")
    with open(f"{packages}/outer.pth", "w", encoding="utf-8") as file:
        file.writelines(f"import site; site.addsitedir({path!r})\n" for path in outer)
    patterns = "|".join(f"{shlex.quote(path)}/*" for path in outer) or "-"
    script = _PIP_PYTHON.format(outer=patterns, here=shlex.quote(folder))
    _write_script(f"{folder}/interpreter/pip-python", script)
    # Before the outer packages, so that a newer version wins; there before the first import looks, so that it is seen.
    sys.path.insert(sys.path.index(outer[0]) if outer else len(sys.path), packages)
    os.environ["PIP_PYTHON"] = f"{folder}/interpreter/pip-python"
    os.environ.setdefault("UV_PYTHON", f"{folder}/interpreter/python")
    _put_first("PATH", f"{folder}/bin")
    _put_first("PYTHONPATH", packages)  # for programs that cells start


def _write_script(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o755)


def _put_first(variable: str, path: str) -> None:
    os.environ[variable] = os.pathsep.join(filter(None, (path, os.environ.get(variable))))


_OUTSIDE = "Note: you may need to restart the kernel to use updated packages."  # IPython's words, for all but these
_INSTALLED = (
    "Note: installed for this kernel only; gone after a restart. To keep it, run pip install in a terminal outside the"
    " sandbox. What this notebook has imported already stays as it was: install before the first import."
)
_EDITABLE = (
    "Note: this kernel does not see an editable install, since Python reads the file that it leaves only at its start."
    " Write %pip install without -e, or put the project's folder on sys.path. A folder that is not open here needs a"
    " line in the policy first: [filesystem] read."
)


def note(line: str, exit_code: int) -> str:
    """What `%pip` and `%uv pip` say at their end, in place of IPython's advice to restart, with which the package would
    be lost. ``line`` is what follows `%pip`, ``exit_code`` the installer's. Empty where there is nothing to say.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    command = next((word for word in words if not word.startswith("-")), "")
    if command != "install":
        return _OUTSIDE
    if any(word in ("-e", "--editable") or word.startswith(("-e.", "-e/", "--editable=")) for word in words):
        return _EDITABLE
    return _INSTALLED if exit_code == 0 else ""
