"""Does: gives `%pip install` and `uv pip install` a place: a private environment over this Python's (read-only)."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from glob import escape as glob_escape
from glob import glob

from sandboxed_kernel.inside.behind import add_behind
from sandboxed_kernel.inside.transaction import settle_left

# Written into the private environment, and named to every pip by PIP_PYTHON (`pip --python`). $1 is the calling pip:
# that of an environment which the notebook made for itself installs there.
_PIP_PYTHON = """\
#!/bin/sh
unset PYTHONPATH
case $1 in {outer}) exec {run} "$@";; esac
own="${{1%/lib/python*}}/bin/python"
[ -x "$own" ] && exec "$own" "$@"
exec {run} "$@"
"""


# The environment's interpreter, $0. Not a link to the real one: where the user may write that, the sandbox makes none.
# Python takes itself for what it was called (argv[0]), and finds the environment from there: PEP 405.
_INTERPRETER = """\
#!/bin/sh
exec {base} -IS -c 'import os, sys; os.execv(sys.argv[1], sys.argv[2:])' {base} "$0" "$@"
"""


# Found by every Python that cells start (PYTHONPATH): that is searched before the packages of the environment, and what
# lasts must come behind them. It lies in the private home, new at each start, and begins with the text of behind.py.
_SITE = """
sys.path[:] = [path for path in sys.path if path != {here!r}]
_own = sys.modules.pop(__name__)
try:
    import sitecustomize
except ImportError:
    sys.modules[__name__] = _own
sys.modules.setdefault("usercustomize", type(sys)("usercustomize"))
add_behind({paths!r})
"""


class Packages:
    """The environment for ``%pip`` in ``folder``: it sees every package of this Python.

    Not by PIP_TARGET, which installs dependencies once more; not by a user installation, which virtual environments do
    not see; not by running the kernel in it, since sys.prefix would be another than outside.

    What ``lasts`` may be what another notebook left: it comes behind this Python's own packages, and nothing of it runs
    by itself. What goes with the kernel comes before them, so that a newer version wins.
    """

    def __init__(self, folder: str, *, lasts: bool) -> None:
        """Raises OSError."""
        self._folder, self.lasts = folder, lasts
        self._lasting: list[str] = []
        machine = getattr(sys.implementation, "_multiarch", os.uname().machine)
        self.environment = f"{folder}/{sys.implementation.cache_tag}-{machine}"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._packages = f"{self.environment}/lib/{version}/site-packages"
        self._outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        if lasts:
            settle_left(self.environment)
        self._new = not os.path.isdir(self._packages)
        self._make()
        if lasts:
            self._remove_start_up_code()

    def _make(self) -> None:
        here = self.environment
        os.makedirs(self._packages, exist_ok=True)
        os.makedirs(f"{here}/interpreter", exist_ok=True)  # not bin: that is on PATH, and `python` means what it means
        base = getattr(sys, "_base_executable", sys.executable)
        _write(f"{here}/interpreter/python", _INTERPRETER.format(base=shlex.quote(base)), 0o755)
        # Makes it one: PEP 405.
        _write(f"{here}/pyvenv.cfg", f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n")
        outer = "".join(f"import site; site.addsitedir({path!r})\n" for path in self._outer)
        _write(f"{self._packages}/{_OUTER}", outer)
        patterns = "|".join(f"{shlex.quote(path)}/*" for path in self._outer) or "-"
        run = f"{' '.join(map(shlex.quote, self.transaction()))} {shlex.quote(here)}/interpreter/python"
        _write(f"{here}/interpreter/pip-python", _PIP_PYTHON.format(outer=patterns, run=run), 0o755)

    def transaction(self) -> list[str]:
        """What a command that installs begins with, empty where nothing lasts."""
        if not self.lasts:
            return []
        return [sys.executable, "-IS", os.path.join(os.path.dirname(__file__), "transaction.py"), self.environment]

    def _remove_start_up_code(self) -> None:
        """What an installer's Python, or the installer, would run or obey by itself."""
        _put_away(self.environment, lambda name: name == "pip.conf")
        # A pyvenv.cfg there comes before the one above: then other packages than those that are looked through count.
        _put_away(f"{self.environment}/interpreter", lambda name: _OWN.fullmatch(name) is None)
        version = os.path.relpath(self._packages, f"{self.environment}/lib")
        for library in dict.fromkeys(("lib", sys.platlibdir)):  # lib64 on Fedora and openSUSE
            _remove_start_up_code(f"{self.environment}/{library}/{version}")

    def lay_over(self) -> None:
        """Before the first import looks, so that what is installed later is seen. What lasts comes later, and last."""
        os.environ["PIP_PYTHON"] = f"{self.environment}/interpreter/pip-python"
        os.environ.setdefault("UV_PYTHON", f"{self.environment}/interpreter/python")
        programs = f"{self.environment}/bin"
        if not self.lasts:
            _put_first("PATH", programs)
            sys.path.insert(sys.path.index(self._outer[0]) if self._outer else len(sys.path), self._packages)
            _put_first("PYTHONPATH", self._packages)  # for programs that cells start
            return
        os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), programs)))
        self._lasting = [self._packages, *_paths_inside(self._packages)]
        here = os.path.join(os.environ["HOME"], ".python")
        os.mkdir(here)
        with open(os.path.join(os.path.dirname(__file__), "behind.py"), encoding="utf-8") as file:
            behind = file.read()
        _write(f"{here}/sitecustomize.py", behind + _SITE.format(here=here, paths=self._lasting))
        _put_first("PYTHONPATH", here)

    def add_lasting(self) -> None:
        """When the kernel has started: a start imports what may be missing (IPython: storemagic), and an earlier
        notebook's would be run.
        """
        if self._lasting:
            add_behind(self._lasting)

    def shadowed(self) -> list[str]:
        """What is installed here, and this Python has one that comes before it."""
        if not self.lasts:
            return []
        outer = {name for path in self._outer for name in _installed(path)}
        return sorted(outer & _installed(self._packages).keys())

    def left_behind(self) -> str:
        """What was asked for with another Python, in a line to paste; empty where there is nothing, or no news."""
        if not self._new or not self.lasts:
            return ""
        found = set()
        for packages in glob(f"{glob_escape(self._folder)}/*/lib/python*/site-packages"):
            found |= {name for name, path in _installed(packages).items() if os.path.lexists(f"{path}/REQUESTED")}
        names = sorted(found)[:_MOST_NAMED]
        if not names:
            return ""
        return f"these packages were installed here for another Python: %pip install {' '.join(names)}"


_OUTER = "outer.pth"
_MOST_NAMED = 20
_DISTRIBUTION = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]{0,60})-[^-/]+\.dist-info")


def _installed(packages: str) -> dict[str, str]:
    """Name -> folder of what pip would list there; only names that mean nothing to a shell."""
    found: dict[str, str] = {}
    try:
        names = os.listdir(packages)
    except OSError:
        return found
    for name in names:
        if match := _DISTRIBUTION.fullmatch(name):
            found[match[1].lower().replace("_", "-").replace(".", "-")] = f"{packages}/{name}"
    return found


_LARGEST_PTH, _MOST_LINES = 1 << 16, 100
_NOT_RUN = ".not-run"
_OWN = re.compile(r"(python|pip-python)(\.[0-9a-f]{8})?")


def _folders_of(path: str, packages: str) -> list[str] | None:
    """What the .pth file names, where that is folders in ``packages`` and nothing else; else None."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), errors="replace") as file:
            text = file.read(_LARGEST_PTH)
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if len(text) == _LARGEST_PTH or len(lines) > _MOST_LINES:
            return None
        found = [os.path.realpath(os.path.join(packages, line)) for line in lines]
    except (OSError, ValueError):  # a NUL in a name
        return None
    inside = all(folder.startswith(f"{os.path.realpath(packages)}/") and os.path.isdir(folder) for folder in found)
    return found if inside else None


def _remove_start_up_code(packages: str) -> None:
    """What Python would run at its start where it is told that packages lie here, as an installer's is."""

    def runs(name: str) -> bool:
        if name.endswith(".pth"):
            return name != _OUTER and _folders_of(f"{packages}/{name}", packages) is None
        return name.startswith(("sitecustomize", "usercustomize")) and not name.endswith(_NOT_RUN)

    if os.path.isdir(packages):
        _put_away(packages, runs)


def _put_away(folder: str, runs: Callable[[str], bool]) -> None:
    for name in os.listdir(folder):
        if not name.endswith(_NOT_RUN) and runs(name):
            os.rename(f"{folder}/{name}", f"{folder}/{name}.{os.urandom(4).hex()}{_NOT_RUN}")


def _paths_inside(packages: str) -> list[str]:
    """What the .pth files there put on sys.path: folders in there, and no others."""
    names = sorted(name for name in os.listdir(packages) if name.endswith(".pth") and name != _OUTER)
    return [folder for name in names for folder in _folders_of(f"{packages}/{name}", packages) or []]


def _write(path: str, text: str, mode: int = 0o644) -> None:
    """In the place of whatever is there: another kernel may read it now, and a notebook before may have left a pipe."""
    passing = f"{path}.{os.urandom(4).hex()}"
    with open(passing, "x", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    os.replace(passing, path)


def _put_first(variable: str, path: str) -> None:
    os.environ[variable] = os.pathsep.join(filter(None, (path, os.environ.get(variable))))


_OUTSIDE = "Note: you may need to restart the kernel to use updated packages."  # IPython's words, for all but these
_IMPORTED = " What this notebook has imported already stays as it was: install before the first import."
_INSTALLED = (
    "Note: installed for this kernel only; gone after a restart. To keep it, run pip install in a terminal outside the"
    " sandbox." + _IMPORTED
)
_LASTS = (
    "Note: installed in ~/.packages, for all notebooks of this folder with this kernel; it is there after a restart,"
    " until `sandboxed-kernel home clean` in a terminal." + _IMPORTED
)
_SHADOWED = (
    " This kernel's own version comes first of: {}. For another one, run pip install in a terminal outside the sandbox,"
    " or write in the policy: [home] keep = false."
)
_EDITABLE = (
    "Note: this kernel does not see an editable install, since Python reads the file that it leaves only at its start."
    " Write %pip install without -e, or put the project's folder on sys.path. A folder that is not open here needs a"
    " line in the policy first: [filesystem] read."
)


def note(line: str, exit_code: int, packages: Packages | None = None) -> str:
    """What `%pip` and `%uv pip` say at their end, in place of IPython's advice to restart, with which the package would
    be lost or is not needed. ``line`` is what follows `%pip`, ``exit_code`` the installer's, ``packages`` where it put
    them. Empty where there is nothing to say.
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
    if exit_code != 0:
        return ""
    if packages is None or not packages.lasts:
        return _INSTALLED
    shadowed = packages.shadowed()
    return _LASTS + (_SHADOWED.format(", ".join(shadowed[:_MOST_NAMED])) if shadowed else "")
