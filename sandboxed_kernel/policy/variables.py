"""Pure: the environment variables that a policy may neither pass nor set, a reason per row; and how a name is spelled.

Everything else may be set, LD_PRELOAD and PYTHONSTARTUP included: they act inside the sandbox, where the code may run
anything anyway. What is *passed* is the user's to give; of that, only what opens the sandbox itself is refused here.
"""

from __future__ import annotations

import re

from sandboxed_kernel.records import Record

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # POSIX.1-2017, Base Definitions 8.1, lower case too


class Row(Record):
    """Variables that stay out; a ``pattern`` that ends in ``*`` means every name that begins so."""

    pattern: str
    reason: str

    def matches(self, name: str) -> bool:
        return name.startswith(self.pattern[:-1]) if self.pattern.endswith("*") else name == self.pattern


_SERVER = "with the Jupyter server's token the code could start a terminal or a kernel outside the sandbox"
_PRIVATE = "the sandbox sets it to a folder of its own, without which ipykernel does not start"

KEPT_OUT: tuple[Row, ...] = (
    Row(
        "JPY_PARENT_PID",
        "ipykernel watches this process; the sandbox sets it, or kernels would outlive their notebooks",
    ),
    Row("JPY_*", _SERVER),
    Row("JUPYTERHUB_*", _SERVER),
    Row("JUPYTER_TOKEN", _SERVER),
    Row("JUPYTER_RUNTIME_DIR", "other kernels' connection files with their keys lie there"),
    Row("JUPYTER_CONFIG_DIR", _PRIVATE),
    Row("JUPYTER_DATA_DIR", _PRIVATE),
    Row("IPYTHONDIR", _PRIVATE),
    Row("HOME", _PRIVATE),
    Row("TMPDIR", _PRIVATE),
    Row("TEMP", "Python reads it in place of TMPDIR, which the sandbox sets"),
    Row("TMP", "Python reads it in place of TMPDIR, which the sandbox sets"),
    Row("XDG_RUNTIME_DIR", "the sockets of the user's session lie there; the sandbox sets a folder of its own"),
    Row("SANDBOXED_KERNEL_*", "these carry what launcher and sandbox tell each other"),
)


def kept_out(name: str) -> str | None:
    """Why the variable ``name`` may not be passed or set, or None if it may."""
    return next((row.reason for row in KEPT_OUT if row.matches(name)), None)
