"""Loading a seccomp filter, and the user notification interface: receive, answer, add descriptor.

Source: seccomp(2), seccomp_unotify(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from sandboxed_kernel.linux import libc
from sandboxed_kernel.linux.descriptor import is_ready

_SET_MODE_FILTER = 1
_GET_NOTIF_SIZES = 3
_FILTER_FLAG_NEW_LISTENER = 1 << 3

_NOTIF = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif: id, pid, flags, nr, arch, instruction pointer, args
_RESP = struct.Struct("=QqiI")  # struct seccomp_notif_resp: id, val, error, flags
_ADDFD = struct.Struct("=QIIII")  # struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags
_ID = struct.Struct("=Q")

# Made by the macros _IOWR and _IOW of asm-generic/ioctl.h: direction, size, the type "!", number.
_RECV = 3 << 30 | _NOTIF.size << 16 | ord("!") << 8 | 0
_SEND = 3 << 30 | _RESP.size << 16 | ord("!") << 8 | 1
_ID_VALID = 1 << 30 | 8 << 16 | ord("!") << 8 | 2
_ADD = 1 << 30 | _ADDFD.size << 16 | ord("!") << 8 | 3
_SET_FLAGS = 1 << 30 | 8 << 16 | ord("!") << 8 | 4

_ADDFD_FLAG_SETFD = 1  # Linux 5.9: at this number, in the place of what is there
_ADDFD_FLAG_SEND = 2  # Linux 5.14: add the descriptor and answer with its number, in one step
_FLAG_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5
_FD_SYNC_WAKE_UP = 1  # Linux 6.6: hand the processor straight to the caller; halves the round trip


def install(program: bytes, *, listener: bool = True) -> int:
    """Load ``program`` (struct sock_filter[]) into the calling thread, for good; the listener's descriptor or 0.

    Needs no_new_privs. Raises OSError: EINVAL for a program that Linux does not accept, EBUSY where another filter of
    this process has a listener already.
    """
    code = libc.buffer_from(program)
    header = libc.buffer_from(struct.pack("=HxxxxxxQ", len(program) // 8, libc.address_of(code)))  # struct sock_fprog
    flags = _FILTER_FLAG_NEW_LISTENER if listener else 0
    return libc.syscall(libc.number("seccomp"), _SET_MODE_FILTER, flags, header)


def supported() -> bool:
    """Whether this Linux has user notification with the structures known here."""
    sizes = libc.buffer_from(bytes(6))
    try:
        libc.syscall(libc.number("seccomp"), _GET_NOTIF_SIZES, 0, sizes)
    except OSError:
        return False
    notif, resp, data = struct.unpack("=HHH", sizes.raw[:6])
    return (notif, resp, data) == (_NOTIF.size, _RESP.size, 64)


Arguments = tuple[int, int, int, int, int, int]


# One call that waits for an answer: its id, the calling thread, the call's number, the six raw 64-bit registers.
Notification = tuple[int, int, int, Arguments]


class Gone(Exception):
    """The calling thread was killed or interrupted meanwhile: nobody waits for this answer any more."""


class Listener:
    """The trusted end of a filter's notifications. Owns its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        try:
            fcntl.ioctl(descriptor, _SET_FLAGS, _FD_SYNC_WAKE_UP)
        except OSError:
            pass  # before Linux 6.6: slower, not less safe

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __repr__(self) -> str:
        return f"<Listener {'closed' if self._fd < 0 else self._fd}>"

    def receive(self) -> Notification | None:
        """Wait for the next notification. None: it was withdrawn, or nobody is left (``is_over``). One thread only."""
        buffer = bytearray(_NOTIF.size)  # Linux refuses one that is not zeroed
        try:
            fcntl.ioctl(self._fd, _RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        fields = _NOTIF.unpack(buffer)
        return fields[0], fields[1], fields[3], fields[6:]

    def is_over(self) -> bool:
        """Whether no process with this filter is left: seccomp_unotify(2), POLLHUP."""
        return is_ready(self._fd)

    def is_valid(self, ident: int) -> bool:
        """Whether the caller still waits: then what was read from its memory before was its own (no reused pid)."""
        try:
            fcntl.ioctl(self._fd, _ID_VALID, _ID.pack(ident))
        except OSError:
            return False
        return True

    def answer(self, ident: int, value: int, error: int = 0) -> None:
        """Let the call return ``value``, or fail with errno ``error``. Raises Gone."""
        self._ioctl(_SEND, _RESP.pack(ident, 0 if error else value, -error, 0))

    def go_on(self, ident: int) -> None:
        """Let Linux carry the call out, with whatever its arguments point to by then: only for calls that something
        else judges once more, with the arguments that are really used. Raises Gone.
        """
        self._ioctl(_SEND, _RESP.pack(ident, 0, 0, _FLAG_CONTINUE))

    def add_descriptor(self, ident: int, descriptor: int, *, close_on_exec: bool) -> int:
        """Give the caller a copy of ``descriptor`` and let its call return the new number, in one step. That number.

        The calling thread holds every signal back: one that came now (an orphan ended, say) would make Linux drop the
        descriptor and answer the call all the same, with 0; the caller would take its standard input for the new
        socket. Source: kernel/seccomp.c, seccomp_notify_addfd.

        Raises Gone, and OSError(EMFILE) where the caller's own table is full: then the call still waits.
        """
        return self._add(ident, descriptor, _ADDFD_FLAG_SEND, close_on_exec=close_on_exec)

    def place_descriptor(self, ident: int, descriptor: int, *, close_on_exec: bool) -> int:
        """Give the caller a copy of ``descriptor`` while its call still waits; the number there, to be answered.

        Where the caller is interrupted before the answer it keeps a descriptor that it does not know of.
        Raises Gone, OSError.
        """
        return self._add(ident, descriptor, 0, close_on_exec=close_on_exec)

    def replace_descriptor(self, ident: int, descriptor: int, number: int, *, close_on_exec: bool) -> None:
        """Put a copy of ``descriptor`` in the place of the caller's ``number``, while its call still waits. What has
        that number by now is the caller's own loss. Raises Gone, OSError.
        """
        self._add(ident, descriptor, _ADDFD_FLAG_SETFD, number, close_on_exec=close_on_exec)

    def _add(self, ident: int, descriptor: int, flags: int, number: int = 0, *, close_on_exec: bool) -> int:
        new_flags = os.O_CLOEXEC if close_on_exec else 0
        return self._ioctl(_ADD, _ADDFD.pack(ident, flags, descriptor, number, new_flags))

    def knows_add_descriptor(self) -> bool:
        """Whether this Linux can add a descriptor and answer in one step: asked with an id that nobody has (ENOENT)."""
        try:
            self.add_descriptor(0, self._fd, close_on_exec=True)
        except Gone:
            return True
        except OSError:
            pass
        return False

    def _ioctl(self, request: int, data: bytes) -> int:
        while True:
            try:
                result: int = fcntl.ioctl(self._fd, request, bytearray(data))  # of bytes it would return the bytes
                return result
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINPROGRESS):  # EINPROGRESS: the call was answered already
                    raise Gone from None
                if error.errno == errno.EINTR:
                    continue
                raise
