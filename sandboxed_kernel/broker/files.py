"""Does: opens, makes, renames, links and removes files in a guarded folder, for what Landlock has no rule for.

What lies elsewhere, or beneath an entry that Landlock has a rule for, goes on to Landlock (``ToLandlock``). That is
sound because Landlock judges what is really opened: whoever exchanges the path or the folder after the look here gains
what Landlock allows anyway, and no more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Call, Malformed, as_int
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.guarded_folder import GuardedFolder, Native, Place
from sandboxed_kernel.broker.outcomes import Line, Refusal, Refused, ToLandlock
from sandboxed_kernel.broker.process import AT_FDCWD
from sandboxed_kernel.linux import acl
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.processes import open_entry, rename_entry
from sandboxed_kernel.linux.seccomp import Listener
from sandboxed_kernel.policy.explain import path_line
from sandboxed_kernel.policy.guarded import No, Wish, decide_entry, marks_repository, may_be_granted

O_TMPFILE = 0o20000000 | os.O_DIRECTORY  # asm-generic/fcntl.h
_KEPT = os.O_ACCMODE | os.O_APPEND | os.O_DIRECTORY | os.O_SYNC | os.O_DSYNC | os.O_DIRECT
_OPENING = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW  # a FIFO in the file's place holds nobody up
_CREATING = _OPENING | os.O_CREAT | os.O_EXCL
_AT_REMOVEDIR, _AT_SYMLINK_FOLLOW, _AT_EMPTY_PATH = 0x200, 0x400, 0x1000
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_MOST_COPIED = 256 << 20  # bytes of a program
_SET_ID = stat.S_ISUID | stat.S_ISGID
_NATIVE = ToLandlock()


class _Opening(NamedTuple):
    """Where open(2) and its kin have their arguments. ``flags`` None: creat(2)."""

    folder: int | None
    path: int
    flags: int | None
    mode: int


OPENING = {"open": _Opening(None, 0, 1, 2), "openat": _Opening(0, 1, 2, 3), "creat": _Opening(None, 0, None, 1)}

At = tuple[int | None, int]  # the arguments with the folder (none: the working directory) and the path


class Opened(NamedTuple):
    """What the call gets. ``made``: by this very call, at ``place``; ``program``: to be run once nobody writes it."""

    file: Descriptor
    close_on_exec: bool
    made: bool
    program: bool
    place: Place


class Files:
    def __init__(self, folder: GuardedFolder, listener: Listener, file_size: int | None) -> None:
        """``file_size``: the policy's limit, in bytes."""
        self._folder, self._listener, self._file_size = folder, listener, file_size
        self._spare = list(folder.guard.pooled_folders)
        self._spare_files = list(folder.guard.pooled_files)
        self._spare_lock = threading.Lock()  # of the lists alone
        self.by_name: dict[str, Callable[[Call], ToLandlock | None]] = {
            "mkdir": lambda call: self._make_folder(call, (None, 0), call.args[1]),
            "mkdirat": lambda call: self._make_folder(call, (0, 1), call.args[2]),
            "unlink": lambda call: self._remove(call, (None, 0), is_folder=False),
            "rmdir": lambda call: self._remove(call, (None, 0), is_folder=True),
            "unlinkat": lambda call: self._remove(call, (0, 1), is_folder=bool(call.args[2] & _AT_REMOVEDIR)),
            "rename": lambda call: self._rename(call, (None, 0), (None, 1), 0),
            "renameat": lambda call: self._rename(call, (0, 1), (2, 3), 0),
            "renameat2": lambda call: self._rename(call, (0, 1), (2, 3), as_int(call.args[4])),
            "link": lambda call: self._link(call, (None, 0), (None, 1), 0),
            "linkat": lambda call: self._link(call, (0, 1), (2, 3), as_int(call.args[4])),
            "truncate": lambda call: self._truncate(call, (None, 0), call.args[1]),
        }

    # --- look --------------------------------------------------------------------------------------------------------

    def _find(
        self, call: Call, at: At, *, follow: bool, whole: bool = False, making: bool = False, naming: bool = False
    ) -> Place | Native | None:
        """``making``: a file, which no path with a slash at its end can name. ``naming``: the entry itself is meant."""
        path = process.read_string(call.tid, call.args[at[1]])
        base = b""
        if not path.startswith(b"/"):
            if not path:
                return None
            base = _folder_of(call, at)
            if not base:
                return None
        number = _descriptor_in(path) if follow else None
        if number is not None:
            found = self._find_open(call.tid, number, whole=whole)
        else:
            found = self._folder.find(base, path, follow=follow, whole=whole)
        if isinstance(found, Place) and path.endswith((b"/", b"/.")):
            if found.leaf != b"." and naming and path.endswith(b"."):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if making:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if found.status is not None and not found.is_folder():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if isinstance(found, Place) and not self._listener.is_valid(call.id):
            raise Malformed(errno.EINTR, "the caller is gone")
        return found

    def _find_open(self, tid: int, number: int, *, whole: bool) -> Place | Native | None:
        """What the caller's descriptor names now. Linux would open the file itself anew, and Landlock has no rule for
        it: it is judged by its name instead, as if it were opened by that.
        """
        link = f"/proc/{tid}/fd/{number}"
        try:
            path, status = os.readlink(os.fsencode(link)), os.stat(link)
        except OSError:
            return None
        return self._folder.find_open(path, status, whole=whole) if stat.S_ISREG(status.st_mode) else None

    def _check(
        self, place: Place | Native, wish: Wish, call_name: str, *, exists: bool = True, goes: bool = False
    ) -> None:
        """``goes``: nothing comes in its place. Raises Refused, and OSError where no notice is wanted."""
        access, kind, path = place.access, place.kind, place.path
        if not self._folder.guard.writable and access == "open":
            whole = self._folder.guard.whole
            access, kind = "read", f"all of the notebook's folder is {whole}" if whole else ""
        word = "read" if wish == "read" else "write"

        def line() -> str | None:
            known = path_line(path) if exists and may_be_granted(kind, wish) else None
            return None if known is None else f"{word} = [{known}]"

        no = decide_entry(access, kind, wish)
        if no is None and wish == "remove":
            no = self._of_holders(place)
        if no is None and goes and isinstance(place, Place) and marks_repository(place.mode, os.fsdecode(place.leaf)):
            no = No("without it the folder would be taken for no repository")
        self._heed(no, path, call_name, line)

    @staticmethod
    def _heed(no: No | None, path: str, call_name: str, line: Line = lambda: None) -> None:
        """Raises Refused, and OSError where no notice is wanted."""
        if no is None:
            return
        if no.reason is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        raise Refused(Refusal(Refuse(errno.EACCES, no.reason), "file", path, protocol=call_name, allow_line=line))

    def _on_the_way(self, place: Place | Native) -> No | None:
        """Where something closed would lie beneath it, there may be a folder and nothing else: a link would lead to
        where it is open.
        """
        held = self._folder.holds_closed(place.path)
        return None if held is None else No(f"it is on the way to {held}, which must stay where it is")

    def _of_holders(self, place: Place | Native) -> No | None:
        no = self._on_the_way(place)
        if no is not None:
            return no
        if isinstance(place, Native) or place.status is None or not place.is_folder():
            return None
        if self._folder.is_holder(place.path) or (
            not self._folder.is_native(place.status) and self._folder.holds_names(place)
        ):
            return No("it holds something that is closed, or too much to be looked through, and must stay where it is")
        return None

    # --- open --------------------------------------------------------------------------------------------------------

    def open(self, call: Call, name: str) -> Opened | ToLandlock:
        """Raises OSError or Malformed with the errno for the caller, Refused."""
        at = OPENING[name]
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC if at.flags is None else as_int(call.args[at.flags])
        if flags & os.O_PATH:
            return _NATIVE  # it gives no right to the file; Landlock judges what is opened by way of it
        creating = bool(flags & os.O_CREAT)
        exclusive = creating and bool(flags & os.O_EXCL)
        follow = not exclusive and not flags & os.O_NOFOLLOW
        place = self._find(call, (at.folder, at.path), follow=follow, making=creating)
        if place is None:
            return _NATIVE
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if isinstance(place, Native):
            if writing:
                self._check(place, "write", name)
            return _NATIVE
        if flags & O_TMPFILE == O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if place.status is None and not creating:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        exists = place.status is not None
        self._check(place, "make" if not exists else "write" if writing else "read", name, exists=exists)
        if not exists:
            self._heed(self._on_the_way(place), place.path, name)
        wanted = flags & _KEPT
        file = None if exists else self._create(call, place, wanted, call.args[at.mode])
        made = file is not None
        if file is None:
            if exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            file = self._open_existing(place, wanted, truncate=bool(flags & os.O_TRUNC))
        if not flags & os.O_NONBLOCK:
            fcntl.fcntl(file.fileno(), fcntl.F_SETFL, fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & ~os.O_NONBLOCK)
        program = writing and bool(os.fstat(file.fileno()).st_mode & 0o111)
        return Opened(file, bool(flags & os.O_CLOEXEC), made, program, place)

    def _create(self, call: Call, place: Place, wanted: int, mode: int) -> Descriptor | None:
        """None where somebody else has made it just now."""
        mode = _mode_in(place.folder, mode & 0o777, process.umask(call.tid))
        if mode & 0o111 and place.mode in ("plain", "home"):
            program = self._take_program(place, wanted, mode)
            if program is not None:
                return program
        try:
            file = open_entry(place.folder, place.leaf, wanted | _CREATING, mode)
        except FileExistsError:
            return None
        _set_mode(file, mode)
        return file

    def _take_program(self, place: Place, wanted: int, mode: int) -> Descriptor | None:
        """Move an empty file there that Landlock lets be run. None: there is none, or something is there by now."""
        pool = self._folder.pool
        inherited = _default_acl(place.folder)
        if pool is None or inherited not in (None, _default_acl(pool)):
            return None
        spare = self._next_program()
        if spare is None:
            return None
        try:
            with open_entry(pool, spare, os.O_WRONLY | _OPENING) as file:
                group = _group_in(place.folder)
                _give(file, os.getegid() if group is None else group, _acl(file) if inherited else None)
                os.fchmod(file.fileno(), mode | 0o200)
                rename_entry(pool, spare, place.folder, place.leaf, _RENAME_NOREPLACE)
                opened = open_entry(place.folder, place.leaf, wanted | _OPENING)
                os.fchmod(file.fileno(), mode)
                return opened
        except OSError:
            return None  # another file system, a full disk: then it is made as any other

    def _next_program(self) -> bytes | None:
        with self._spare_lock:
            return os.fsencode(os.path.basename(self._spare_files.pop())) if self._spare_files else None

    def become_program(self, path: bytes, file: Descriptor) -> Descriptor | None:
        """``file``, at the real ``path``, is to be one that may be run: a copy of it that Landlock has a rule for is in
        its place then. None where it needs none, or none is to be had.
        """
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or self._folder.is_native(status) or status.st_size > _MOST_COPIED:
            return None
        place = self._folder.find(b"/", path, follow=False)
        if not isinstance(place, Place) or place.mode not in ("plain", "home") or place.status is None:
            return None
        pool, spare = self._folder.pool, self._next_program()
        if pool is None or spare is None or not os.path.samestat(place.status, status):
            return None
        with (
            open_entry(pool, spare, os.O_WRONLY | _OPENING) as copy,
            open_entry(place.folder, place.leaf, os.O_RDONLY | _OPENING) as original,
        ):
            if not os.path.samestat(os.fstat(original.fileno()), status):
                return None
            left = status.st_size  # no more, if it grows meanwhile
            while left > 0 and (copied := os.sendfile(copy.fileno(), original.fileno(), None, min(left, 1 << 24))):
                left -= copied
            _give(copy, status.st_gid, _acl(original))
            os.fchmod(copy.fileno(), status.st_mode & 0o777)
            rename_entry(pool, spare, place.folder, place.leaf)
            return Descriptor(os.open(copy.path, os.O_PATH | os.O_CLOEXEC))

    def _open_existing(self, place: Place, wanted: int, *, truncate: bool) -> Descriptor:
        file = open_entry(place.folder, place.leaf, wanted | _OPENING)
        status = os.fstat(file.fileno())
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        closed = self._folder.closed_file(status)
        if closed is not None and place.access == "open":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))  # exchanged since it was looked at
        if truncate and stat.S_ISREG(status.st_mode):
            if wanted & os.O_ACCMODE == os.O_RDONLY:
                with open_entry(place.folder, place.leaf, os.O_WRONLY | _OPENING) as writable:
                    if os.path.samestat(os.fstat(writable.fileno()), status):
                        os.ftruncate(writable.fileno(), 0)
            else:
                os.ftruncate(file.fileno(), 0)
        return file

    def undo(self, opened: Opened) -> None:
        """Nobody waits for what was made: the call's repeat is to find nothing there."""
        if opened.made:
            with suppress(OSError):
                os.unlink(opened.place.leaf, dir_fd=opened.place.folder.fileno())

    # --- make, remove ------------------------------------------------------------------------------------------------

    def _make_folder(self, call: Call, at: At, mode: int) -> ToLandlock | None:
        place = self._find(call, at, follow=False)
        if not isinstance(place, Place):
            return _NATIVE
        if place.status is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._check(place, "make", "mkdir", exists=False)
        wanted = _mode_in(place.folder, mode & 0o1777, process.umask(call.tid))
        pool = self._folder.pool
        if (
            pool is not None
            and place.mode in ("plain", "home")
            and self._folder.holds_closed(place.path) is None
            and _inherits_the_same(place.folder, pool)
            and self._take_from_pool(pool, place, wanted)
        ):
            return None
        os.mkdir(place.leaf, wanted, dir_fd=place.folder.fileno())
        with open_entry(place.folder, place.leaf, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW) as made:
            _set_mode(made, wanted | os.fstat(made.fileno()).st_mode & _SET_ID)
        return None

    def _take_from_pool(self, pool: Descriptor, place: Place, mode: int) -> bool:
        """Move an empty folder there that Landlock has a rule for: then all beneath is native.

        False: there is none, or it cannot be moved. Raises FileExistsError.
        """
        while True:
            with self._spare_lock:
                if not self._spare:
                    return False
                spare = self._spare.pop()
            name = os.fsencode(os.path.basename(spare))
            try:
                with open_entry(pool, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as folder:
                    if not _is_empty(folder):
                        continue  # the sandbox has found it, and put something there
                    os.fchmod(folder.fileno(), mode | os.fstat(folder.fileno()).st_mode & _SET_ID)
                rename_entry(pool, name, place.folder, place.leaf, _RENAME_NOREPLACE)
            except FileExistsError:
                with self._spare_lock:
                    self._spare.append(spare)
                raise
            except OSError:
                continue  # another file system, perhaps
            return True

    def _remove(self, call: Call, at: At, *, is_folder: bool) -> ToLandlock | None:
        place = self._find(call, at, follow=False, naming=True)
        if place is None or (isinstance(place, Native) and not place.at_entry):
            return _NATIVE
        if isinstance(place, Native):
            place = self._again(call, at)
        if place.status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._check(place, "remove", "rmdir" if is_folder else "unlink", goes=True)
        if place.leaf == b".":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if not is_folder:
            os.unlink(place.leaf, dir_fd=place.folder.fileno())
        elif not self._give_to_pool(place):
            os.rmdir(place.leaf, dir_fd=place.folder.fileno())
        return None

    def _give_to_pool(self, place: Place) -> bool:
        """An empty folder with a Landlock rule is kept for the next mkdir(2). False: not one, or there is no place."""
        pool = self._folder.pool
        if pool is None or place.status is None or not place.is_folder() or not self._folder.is_native(place.status):
            return False
        with self._spare_lock:
            taken = set(self._spare)
            free = next((path for path in self._folder.guard.pooled_folders if path not in taken), None)
        if free is None:
            return False
        name = os.fsencode(os.path.basename(free))
        try:
            with open_entry(place.folder, place.leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as folder:
                rename_entry(place.folder, place.leaf, pool, name, _RENAME_NOREPLACE)
                empty = _is_empty(folder)
            if not empty:
                rename_entry(pool, name, place.folder, place.leaf, _RENAME_NOREPLACE)
        except OSError:
            return False  # on another file system, or somebody was quicker
        if not empty:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        with self._spare_lock:
            self._spare.append(free)
        return True

    # --- rename, link, truncate --------------------------------------------------------------------------------------

    def _again(self, call: Call, at: At, *, follow: bool = False) -> Place:
        """The same path, beneath what is native too. Raises OSError where it does not lie in the folder any more."""
        place = self._find(call, at, follow=follow, whole=True)
        if not isinstance(place, Place):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return place

    def _both(self, call: Call, old: At, new: At, *, follow: bool = False) -> tuple[Place, Place] | None:
        """The two ends of a rename or link; None where Landlock decides about both. Raises OSError(EXDEV)."""
        source = self._find(call, old, follow=follow, naming=True)
        target = self._find(call, new, follow=False, naming=True)
        if _is_landlocks(source) and _is_landlocks(target):
            return None
        if source is None or target is None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        first = self._again(call, old, follow=follow) if isinstance(source, Native) else source
        second = self._again(call, new) if isinstance(target, Native) else target
        if first.status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if b"." in (first.leaf, second.leaf):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if self._folder.is_pooled(second.path):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return first, second

    def _rename(self, call: Call, old: At, new: At, flags: int) -> ToLandlock | None:
        if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        both = self._both(call, old, new)
        if both is None:
            return _NATIVE
        source, target = both
        exchanging = bool(flags & _RENAME_EXCHANGE)
        same = os.path.samestat(os.fstat(source.folder.fileno()), os.fstat(target.folder.fileno()))
        # Elsewhere a link leads elsewhere. mv(1) makes it anew there, and then it is judged.
        if not same and any(place.is_link() for place in ((source, target) if exchanging else (source,))):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._check(source, "remove", "rename", goes=not exchanging)
        self._check(target, "make" if target.status is None else "remove", "rename", exists=target.status is not None)
        # What it holds, or where it leads, would be at that place.
        self._heed(self._of_holders(target) if source.is_folder() else self._on_the_way(target), target.path, "rename")
        if same:
            rename_entry(source.folder, source.leaf, target.folder, target.leaf, flags)
        elif source.is_folder() and (not exchanging or target.is_folder()):
            # With a slash Linux takes folders alone (do_renameat2), not a link that is there by now.
            end = b"/" if exchanging else b""
            rename_entry(source.folder, source.leaf + b"/", target.folder, target.leaf + end, flags)
        elif exchanging:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        else:
            self._move_file(source, target, flags)
        if not exchanging:
            self._keep_program(target)
        return None

    def _keep_program(self, target: Place) -> None:
        """Editors write a script anew beside it, with its mode, and move it there."""
        with suppress(OSError), open_entry(target.folder, target.leaf, os.O_PATH | os.O_NOFOLLOW) as file:
            if os.fstat(file.fileno()).st_mode & 0o111:
                copy = self.become_program(os.fsencode(target.path), file)
                if copy is not None:
                    copy.close()

    def _move_file(self, source: Place, target: Place, flags: int) -> None:
        """To another folder. What was looked at arrives there, not a link that was put in its place meanwhile: so it is
        a further name of the file that is held open, and then the old one goes.
        """
        with open_entry(source.folder, source.leaf, os.O_PATH | os.O_NOFOLLOW) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISLNK(status.st_mode) or self._folder.closed_file(status) is not None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            if target.status is not None and os.path.samestat(status, target.status):
                return  # rename(2) does nothing with two names of one file
            try:
                self._put(file, target, flags)
            except OSError as error:  # no further names on this file system, or none of another user's file
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV)) from None
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(source.leaf, dir_fd=source.folder.fileno(), follow_symlinks=False), status):
                os.unlink(source.leaf, dir_fd=source.folder.fileno())

    def _put(self, file: Descriptor, target: Place, flags: int) -> None:
        """A name for ``file`` at ``target``, in the place of what is there. Raises OSError."""
        try:
            os.link(file.path, target.leaf, dst_dir_fd=target.folder.fileno(), follow_symlinks=True)
        except FileExistsError:
            pool = self._folder.pool
            if flags & _RENAME_NOREPLACE:
                raise
            if pool is None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV)) from None
        else:
            return
        name = b"moved-" + os.urandom(8).hex().encode()
        os.link(file.path, name, dst_dir_fd=pool.fileno(), follow_symlinks=True)
        try:
            rename_entry(pool, name, target.folder, target.leaf)
        except BaseException:
            os.unlink(name, dir_fd=pool.fileno())
            raise

    def _link(self, call: Call, old: At, new: At, flags: int) -> ToLandlock | None:
        if flags & _AT_EMPTY_PATH:
            return _NATIVE
        both = self._both(call, old, new, follow=bool(flags & _AT_SYMLINK_FOLLOW))
        if both is None:
            return _NATIVE
        source, target = both
        self._check(source, "write", "link")
        self._check(target, "make", "link", exists=target.status is not None)
        self._heed(self._on_the_way(target), target.path, "link")
        with open_entry(source.folder, source.leaf, os.O_PATH | os.O_NOFOLLOW) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or self._folder.closed_file(status) is not None:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            os.link(file.path, target.leaf, dst_dir_fd=target.folder.fileno(), follow_symlinks=True)
        return None

    def _truncate(self, call: Call, at: At, length: int) -> ToLandlock | None:
        length -= (length >> 63) << 64  # a signed long
        if length < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        place = self._find(call, at, follow=True)
        if place is None:
            return _NATIVE
        if isinstance(place, Native):
            self._check(place, "write", "truncate")
            return _NATIVE
        if self._file_size is not None and length > self._file_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if place.status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._check(place, "write", "truncate")
        with self._open_existing(place, os.O_WRONLY, truncate=False) as file:
            os.ftruncate(file.fileno(), length)
        return None


def _mode_in(folder: Descriptor, mode: int, umask: int) -> int:
    """What a new entry of ``folder`` gets: the umask, or in its stead what the folder's default ACL says (acl(5))."""
    inherited = _default_acl(folder)
    if inherited is None:
        return mode & ~umask
    allowed = dict(acl.entries(inherited))
    group = allowed.get(acl.MASK, allowed.get(acl.GROUP_OBJ, 0))
    bits = allowed.get(acl.USER_OBJ, 0) << 6 | group << 3 | allowed.get(acl.OTHER, 0)
    return mode & (0o1000 | bits)


def _default_acl(folder: Descriptor) -> bytes | None:
    return acl.read(folder.path, acl.DEFAULT)


def _acl(file: Descriptor) -> bytes | None:
    return acl.read(file.path, acl.ACCESS)


def _give(file: Descriptor, group: int, wanted: bytes | None) -> None:
    """Raises OSError; PermissionError where this user is not in the group."""
    if os.fstat(file.fileno()).st_gid != group:
        os.fchown(file.fileno(), -1, group)
    if wanted != _acl(file):
        os.removexattr(file.path, acl.ACCESS) if wanted is None else os.setxattr(file.path, acl.ACCESS, wanted)


def _group_in(folder: Descriptor) -> int | None:
    """The group that new entries get from ``folder``, if they do."""
    status = os.fstat(folder.fileno())
    return status.st_gid if status.st_mode & stat.S_ISGID else None


def _inherits_the_same(folder: Descriptor, pool: Descriptor) -> bool:
    """Whether a folder that was made in ``pool`` has the group and the ACL that it would have in ``folder``, and keeps
    them: for who is not in the group, chmod(2) takes the set-group-id bit away.
    """
    group = _group_in(folder)
    if group is not None and group != os.getegid() and group not in os.getgroups():
        return False
    return group == _group_in(pool) and _default_acl(folder) == _default_acl(pool)


def _set_mode(file: Descriptor, mode: int) -> None:
    """This process's own umask may be another one, or change."""
    if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
        os.chmod(file.path, mode)


_DESCRIPTOR = re.compile(rb"/(?:proc/(?:thread-)?self|dev)/fd/(\d{1,9})|/dev/std(in|out|err)")
_STREAMS = {b"in": 0, b"out": 1, b"err": 2}


def _descriptor_in(path: bytes) -> int | None:
    """The number of the caller's descriptor that a path of /proc means."""
    found = _DESCRIPTOR.fullmatch(path)
    if found is None:
        return None
    return int(found[1]) if found[1] else _STREAMS[found[2]]


def _is_empty(folder: Descriptor) -> bool:
    """However many entries it has."""
    with os.scandir(folder.fileno()) as listing:
        return next(listing, None) is None


def _is_landlocks(found: Place | Native | None) -> bool:
    return found is None or (isinstance(found, Native) and not found.at_entry)


def _folder_of(call: Call, at: At) -> bytes:
    """The real path of the folder that a relative path starts from, or nothing where it has none."""
    descriptor = AT_FDCWD if at[0] is None else as_int(call.args[at[0]])
    place = "cwd" if descriptor == AT_FDCWD else f"fd/{descriptor}"
    try:
        return os.readlink(os.fsencode(f"/proc/{call.tid}/{place}"))
    except OSError:
        return b""
