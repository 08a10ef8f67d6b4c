"""Does: makes symbolic links for the sandbox, none of which leads a program outside to a place that it may write.

Programs outside follow links when they write: Jupyter's server saves a notebook through one that the code has put in
the notebook's place, and so over any file of the user's. Landlock does not look at where a link leads. So each link
leads to where the sandbox may write itself, or to where its user may not write. Moved, it does so still: it says an
absolute path, or one without "..", which stays in the folder that the link lies in.

In the private home stand links to what the policy opens of the user's, and code inside may move them to where another
link leads. So none leads into those folders from elsewhere; in them a link says ``../l/NAME``, and leads nowhere once
it is moved out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sandboxed_kernel.broker import decisions, process
from sandboxed_kernel.broker.calls import Call, as_int
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.guarded_folder import Writable
from sandboxed_kernel.broker.outcomes import Refusal, Refused
from sandboxed_kernel.broker.process import AT_FDCWD
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.folders import OPEN_FOLDER, link_beneath
from sandboxed_kernel.policy.paths import way_to

# Which arguments are the target, the folder that the path starts from (none: the working directory), and the path.
CALLS: dict[str, tuple[int, int | None, int]] = {"symlink": (0, None, 1), "symlinkat": (0, 1, 2)}


class Links:
    def __init__(self, writable: Writable, hidden: tuple[str, ...]) -> None:
        """``hidden``: real folders of the sandbox's own, with links in them to files of the user's."""
        self._writable = writable
        self._hidden = tuple(os.fsencode(path) for path in hidden)

    def carry_out(self, name: str, call: Call, check_waiting: Callable[[Call], None]) -> None:
        """Make the link. Raises OSError or Malformed with the errno for the caller, Refused.

        ``check_waiting`` raises Malformed where the caller is gone.
        """
        target_at, folder_at, path_at = CALLS[name]
        target = process.read_string(call.tid, call.args[target_at])
        path = process.read_string(call.tid, call.args[path_at])
        check_waiting(call)
        if not target or not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        start = AT_FDCWD if folder_at is None or path.startswith(b"/") else as_int(call.args[folder_at])
        above, _, leaf = path.rpartition(b"/")
        with self._open(call.tid, start, above + b"/" if path.startswith(b"/") else above or b".") as folder:
            place = os.readlink(os.fsencode(folder.path))
            if not self._writable.may_hold_link(os.path.join(place, leaf)):  # as Landlock would answer
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            if leaf in (b"", b".", b".."):  # "folder/" and its kin are there already
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            os.symlink(self._judged(name, target, place), leaf, dir_fd=folder.fileno())

    @staticmethod
    def _open(tid: int, start: int, above: bytes) -> Descriptor:
        with process.open_directory(tid, start) as directory:
            return processes.open_beneath(directory, above, os.O_PATH | os.O_DIRECTORY)

    def _judged(self, name: str, target: bytes, place: bytes) -> bytes:
        """What the link may say. Raises Refused."""
        leads_to = os.path.normpath(os.path.join(place, target))
        if not leads_to.startswith(b"/proc/"):  # where our own "self" would be followed
            leads_to = os.path.realpath(os.path.join(place, target))
        verdict = decisions.decide_link(
            target, leads_to, inside=self._writable.may_lead_to(leads_to), writable_outside=_may_write(leads_to)
        )
        if isinstance(verdict, Refuse):
            raise Refused(Refusal(verdict, "link", leads_to.decode(errors="replace"), protocol=name))
        if not self._hidden or not verdict.startswith(b"/"):
            return verdict
        to, at = self._hidden_above(leads_to), self._hidden_above(place)
        if to is None:
            return leads_to  # what it says could lead by way of a hidden one
        if at is None:
            refuse = Refuse(errno.EPERM, _WAY_IN)
            raise Refused(Refusal(refuse, "link", leads_to.decode(errors="replace"), protocol=name))
        way = way_to(leads_to)
        with Descriptor(os.open(at, OPEN_FOLDER)) as folder:
            if not link_beneath(folder.fileno(), way, os.fsdecode(leads_to)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return b"../" * (place.count(b"/") - at.count(b"/")) + way.encode()

    def _hidden_above(self, path: bytes) -> bytes | None:
        return next((each for each in self._hidden if path == each or path.startswith(each + b"/")), None)


_WAY_IN = (
    "it leads to a private folder of this sandbox, where links to files of yours stand: a program outside that writes"
    " to it (Jupyter, when it saves) could write there"
)


def _may_write(path: bytes) -> bool:
    """Whether this user may write the file, or make it where it does not exist."""
    if path.startswith(b"/proc/"):
        return True
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if os.access(path, os.W_OK):
        return path != b"/dev/null"
    try:
        return os.lstat(path).st_uid == os.geteuid()  # then its mode can be changed
    except OSError:
        return True
