"""Does: writes and edits the policy file of a user, outside of every sandbox, at the user's command.

What is written has been read back by the policy's own reader and passed what a start checks. Comments stay.
"""

from __future__ import annotations

import os
import stat
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import Any

from sandboxed_kernel.confinement.plan import Surroundings, check_grants, closed_in_workspace
from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.change import Change, apply
from sandboxed_kernel.policy.model import PathGrant, Policy
from sandboxed_kernel.policy.place import TEMPLATE
from sandboxed_kernel.policy.read import load
from sandboxed_kernel.records import Record, replace
from sandboxed_kernel.surroundings import home_folder, look_around

_PATIENCE = 30.0  # seconds for another command that edits the same file


def write_first(path: str, kernel: str) -> bool:
    """A policy that says nothing yet, all of it comments, at ``path``; False if something is there already.

    Only its owner may read it. Raises PolicyError where it cannot be written. A link that leads nowhere is not followed
    (O_EXCL, open(2)): whoever made it said where the policy is.
    """
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        found = f"{error.filename} cannot be written ({error.strerror})"
        raise PolicyError(
            path, found, "Make its folder one that you may write, or name a policy with --policy"
        ) from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(TEMPLATE.format(kernel=kernel))
    return True


class Edited(Record):
    """The text before and after, and what it means now."""

    path: str  # the real one
    before: str
    after: str
    policy: Policy


def edit(path: str, change: Change, kernel: str) -> Edited:
    """Make ``change`` in the policy at ``path``, or in the file that it is a link to; made where it is missing.

    Two that edit the same file wait for one another, and whoever reads it sees the old one or the new one. Raises
    PolicyError, with nothing changed.
    """
    if not os.path.lexists(path):
        write_first(path, kernel)
    real = os.path.realpath(path)
    try:
        with _locked(real):
            return _edit(real, path, change)
    except OSError as error:
        found = f"{error.filename or real} cannot be written ({error.strerror})"
        raise PolicyError(path, found, "Change it as its owner, or name another policy with --policy") from None


def _edit(real: str, path: str, change: Change) -> Edited:
    status = os.stat(real)
    if not stat.S_ISREG(status.st_mode):
        raise PolicyError(path, "not a regular file", "Name the policy file itself")
    if os.geteuid() not in (0, status.st_uid):
        found = f"{real} is another user's: your administrator's policy, perhaps"
        raise PolicyError(path, found, "Ask whoever owns it")
    home = home_folder()
    workspace = change.folder or "/"
    old = load(real, workspace=workspace, home=home)  # mistakes that were there before are said as such
    with open(real, encoding="utf-8", newline="") as file:
        before = file.read()
    after = _with(before, change, old, home) or _with(before, replace(change, first=True), old, home)
    if after is None:
        raise PolicyError(path, "its form is one that this command cannot edit", f"Change it by hand: {change.words()}")
    new = load(real, workspace=workspace, home=home, text=after)
    if not change.remove:
        added = [grant for grant in new.grants if grant.path in (*change.read, *change.write)]
        check_added(new, added)
        if change.project:  # as a start looks at it
            closed_in_workspace(_surroundings(new, workspace), writable=True)
    if after != before:
        _replace(real, after, status)
    return Edited(path=real, before=before, after=after, policy=new)


def check_added(policy: Policy, grants: Iterable[PathGrant]) -> None:
    """Whether a kernel would start with these grants of ``policy``, in whatever folder. Raises PolicyError."""
    check_grants(grants, _surroundings(policy, "/"))


def _surroundings(policy: Policy, workspace: str) -> Surroundings:
    return look_around(policy, workspace=workspace, private="/nonexistent", argv=(), kept=())


def _with(before: str, change: Change, old: Policy, home: str) -> str | None:
    """The text with the change, its comments and layout kept. None where that does not mean what it should, by another
    reader: tomlkit 0.15 puts an entry behind a comment at an array's end, where the comment swallows it.
    """
    import tomlkit  # only where something is edited
    from tomlkit.exceptions import TOMLKitError

    def new_table(document: Any, name: str) -> Any:
        if getattr(document, "body", None):
            document.add(tomlkit.nl())
        document.add(name, tomlkit.table())
        return document[name]

    def new_section(document: Any, folder: str) -> Any:
        if "folder" not in document:
            document.add("folder", tomlkit.aot())
        section = tomlkit.table()
        section.add("path", folder)
        document["folder"].append(section)
        return document["folder"][-1]

    mark = "\ufeff" if before.startswith("\ufeff") else ""
    text = before.removeprefix(mark)
    expected = tomllib.loads(text)
    apply(expected, change, old, home)
    try:
        document = tomlkit.parse(text)
        apply(
            document, change, old, home, new_table=new_table, new_section=new_section, new_inline=tomlkit.inline_table
        )
        after = tomlkit.dumps(document)
        return mark + after if tomllib.loads(after) == expected else None
    except (TOMLKitError, tomllib.TOMLDecodeError, ValueError, TypeError, LookupError, AttributeError):
        return None


@contextmanager
def _locked(real: str) -> Iterator[None]:
    """Alone with the file. The lock is a file of its own beside it, since the policy itself is replaced."""
    folder, name = os.path.split(real)
    lock = os.path.join(folder, f".{name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PolicyError(real, f"another command holds {lock}", "End it, and try again") from None
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _replace(real: str, text: str, status: os.stat_result) -> None:
    """Raises OSError. The new file has the owner and mode of the old one."""
    folder, name = os.path.split(real)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # of an earlier process with this number, that was killed
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                with suppress(PermissionError):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            os.fsync(file.fileno())
        os.rename(temporary, real)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
