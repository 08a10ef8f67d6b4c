"""Pure: how a kernel ended, in words for the cell that ran, and the exit code to pass on."""

from __future__ import annotations

import signal

from sandboxed_kernel.errors import Bug
from sandboxed_kernel.records import Record
from sandboxed_kernel.relay.messages import Json


class Ending(Record):
    """``exit_code`` is 128 + number for a signal, as shells say it (bash(1), "Exit status")."""

    text: str
    exit_code: int


BROKER_GONE = Ending(
    "The kernel was ended, because the process that supervises it is gone. Nothing can be reached without it. "
    "Restart the kernel; if this happens again, please report it.",
    Bug.exit_code,
)

# What a person can do about it, by signal; every other signal is named.
_BY_SIGNAL: dict[int, str] = {
    signal.SIGSYS: "it made a system call of a foreign architecture (i386 or x32), which ends the process",
    signal.SIGKILL: "it was killed (SIGKILL): by somebody, or by Linux because memory ran out",
    signal.SIGXCPU: "it used up its processor time ([limits] cpu_seconds)",
    signal.SIGXFSZ: "it wrote a larger file than allowed ([limits] file_size)",
    signal.SIGSEGV: "native code in it crashed (SIGSEGV)",
}


def of(code: int, cause: str) -> Ending:
    """``code`` as from os.waitstatus_to_exitcode; ``cause`` is the broker's own knowledge, or empty."""
    if code < 0:
        why = _BY_SIGNAL.get(-code)
        how = cause or why or f"signal {-code} ended it"
        return Ending(f"The kernel died: {how}. Its variables are lost.", 128 - code)
    how = cause or f"its process ended with exit code {code}"
    return Ending(f"The kernel ended: {how}. Its variables are lost.", code)


def error(ending: Ending) -> Json:
    """An output in the stead of a kernel that cannot say so any more: an error, so that no program takes the cell for
    one that worked.
    """
    return {"ename": "KernelEnded", "evalue": ending.text, "traceback": [f"[sandbox] {ending.text}"]}


def reply(ending: Ending) -> Json:
    """The content of the execute_reply that goes with it."""
    return {"status": "error", **error(ending)}
