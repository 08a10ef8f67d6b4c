"""Does: a hint under a traceback about a file that this sandbox refuses, and one where a file was put into the private
home. A convenience for the person at the notebook: it runs inside, so the code there can change what it says; therefore
it says "hint", and never looks like a notice of the supervisor.
"""

from __future__ import annotations

import errno
import os
import pwd
import re

MARK = "hint (made inside the sandbox):"
_SHOWN = 200  # characters of a path
# Pasted into a shell these mean themselves, so a path that somebody chose cannot make another command of the line.
_PLAIN = re.compile(rf"[A-Za-z0-9_.,:/@%+=~-]{{1,{_SHOWN}}}")
_CHAIN = 5  # exceptions of which one is the cause of the next
_EVERYBODYS = ("/tmp", "/var/tmp")
_SYSTEMS = ("/etc", "/proc", "/sys", "/dev", "/run", "/var", "/boot")
_MOST_NAMES = 10_000  # of the home that are looked at when a cell ends


def of_error(error: BaseException | None) -> str | None:
    """A hint for the first OSError in the chain of ``error`` that a closed path explains; None where there is none."""
    for _ in range(_CHAIN):
        if error is None:
            return None
        if isinstance(error, OSError) and error.filename2 is None and isinstance(error.filename, str | bytes):
            said = _of_path(error.errno, os.path.abspath(os.fsdecode(error.filename)))
            if said is not None:
                return f"{MARK} {said}"
        error = error.__cause__ or error.__context__
    return None


def _of_path(number: int | None, path: str) -> str | None:
    if number == errno.ENOENT:
        return _of_own_home(path)
    if number != errno.EACCES:
        return None
    real = os.path.realpath(path)  # Landlock, which refuses the open, lets links be read
    wanted = _refused(real)
    if wanted is None:
        return None
    if wanted == "write" and not os.path.lexists(real):
        real = os.path.dirname(real)  # a line can only name what exists
    return " ".join(
        (f"{_shown(real)} is closed to this notebook for {_DOING[wanted]}: {_why(real)}", _way(real, wanted))
    )


_DOING = {"read": "reading", "write": "writing"}


def _refused(path: str) -> str | None:
    """What the sandbox refuses there, "read" or "write"; None where the file's own mode refuses it, as outside.

    access(2) asks the mode only, and open(2) Landlock too.
    """
    if os.access(path, os.R_OK):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        except PermissionError:
            return "read"
        except OSError:
            return None
    there = os.path.lexists(path)
    return "write" if os.access(path if there else os.path.dirname(path), os.W_OK) else None


def _why(path: str) -> str:
    name = os.path.basename(path)
    if name == ".env" or name.startswith(".env."):
        return "it holds keys, and what the notebook can read it can send to every host that you allow."
    if any(_is_within(path, folder) for folder in _EVERYBODYS):
        return "files of every program lie there. tempfile.gettempdir() names a folder for temporary files of your own."
    return "the policy does not name it."


def _way(path: str, wanted: str) -> str:
    if wanted == "read" and os.path.basename(path).startswith(".env") and _PLAIN.fullmatch(path):
        return (
            f"In a terminal: sandboxed-kernel allow --env NAME --from {path}  (NAME: the variable; then restart the"
            f" kernel). Or all of it, for this code to read: sandboxed-kernel allow --read {path}"
        )
    project = _project_of(path)
    if project is not None:
        return (
            f"In a terminal: sandboxed-kernel allow --project {project}  (this notebook then works in all of that"
            f" project; restart the kernel). Or this alone: sandboxed-kernel allow --{wanted} {path}"
        )
    if wanted == "write" and any(_is_within(path, folder) for folder in _EVERYBODYS):
        return ""
    own = pwd.getpwuid(os.getuid()).pw_dir
    in_home = os.path.relpath(path, own) if _is_within(path, own) else ""
    special = in_home.startswith(".") or path == "/" or any(_is_within(path, folder) for folder in _SYSTEMS)
    words = "explain" if special else f"allow --{wanted}"
    command = f"sandboxed-kernel {words} {path}" if _PLAIN.fullmatch(path) else f"sandboxed-kernel {words.split()[0]}"
    also = "or --write; " if wanted == "read" else ""  # an open for both is refused the same
    return f"In a terminal: {command}" + ("" if special else f"  ({also}then restart the kernel)")


def _project_of(path: str) -> str | None:
    """The folder above the notebook's, and above ``path``, that is a project of the user's: it has a ``.git`` or a
    ``pyproject.toml``, and a command can name it. The nearest one; never the home folder.
    """
    home, user = os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir), os.getuid()
    here = os.getcwd()
    if _is_within(path, here):
        return None
    folder = os.path.dirname(here)
    while folder != home and os.stat(folder).st_uid == user:
        if any(os.path.lexists(f"{folder}/{name}") for name in _PROJECT):
            hidden = "/." in path.removeprefix(folder)  # may stay closed then
            return folder if not hidden and _is_within(path, folder) and _PLAIN.fullmatch(path) else None
        if folder == "/":
            break
        folder = os.path.dirname(folder)
    return None


_PROJECT = (".git", "pyproject.toml")


def _of_own_home(path: str) -> str | None:
    """For ``~/datasets/a.csv`` where the private home has no ``datasets``; a path without folder is a missing file."""
    home = os.environ.get("HOME", "")
    if not home or not _is_within(path, home) or path == home:
        return None
    first, _, rest = os.path.relpath(path, home).partition("/")
    if not rest or first.startswith(".") or os.path.lexists(os.path.join(home, first)):
        return None
    said = f"~ is private here, with what the policy names of your own; {_shown('~/' + first)} is not among it."
    if not _PLAIN.fullmatch(first):
        return said
    return f"{said} In a terminal: sandboxed-kernel allow --read ~/{first}  (or --write; then restart the kernel)"


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _shown(path: str) -> str:
    """The path without anything that acts in a terminal or a page."""
    return ascii(path if len(path) <= _SHOWN else path[:_SHOWN] + "...")


class HomeWatch:
    """Says once that a file or folder whose name does not begin with a dot was put into the private home."""

    def __init__(self) -> None:
        self._home = os.environ.get("HOME", "")
        self._known = self._visible()
        self._said = False

    def of_new(self) -> str | None:
        """The hint, when the cell that ends now put something there; only the first time."""
        if self._said:
            return None
        new = sorted(self._visible() - self._known)
        if not new:
            return None
        self._said = True
        return (
            f"{MARK} {_shown('~/' + new[0])} lies in ~, which is private here and removed at the end of the kernel."
            " To keep a file, write it to the notebook's folder or to a folder that the policy opens for writing."
        )

    def _visible(self) -> set[str]:
        names = set()
        try:
            with os.scandir(self._home) as entries:
                for _, entry in zip(range(_MOST_NAMES), entries, strict=False):
                    if not entry.name.startswith("."):
                        names.add(entry.name)
        except OSError:
            pass
        return names
