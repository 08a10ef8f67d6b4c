"""Does: what is set beyond the policy, by traitlets, in ``sandboxed_kernel_config.py`` or ``.json``; and which file is
the policy.

The file is looked for on Jupyter's configuration path; one in a user's folder wins over the system's. Where there is
none, which is the rule, traitlets is not even imported: it would cost a fifth of the launch.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.linux.folders import links_on_the_way
from sandboxed_kernel.policy.paths import is_within
from sandboxed_kernel.policy.place import says_nothing
from sandboxed_kernel.records import Record
from sandboxed_kernel.surroundings import (
    SETTINGS_ADVICE,
    default_audit_file,
    policy_file_of,
    settings_folders,
)

if TYPE_CHECKING:
    from traitlets.config import Config

_NAMES = ("sandboxed_kernel_config.json", "sandboxed_kernel_config.py")  # as Jupyter: .json wins over .py


class Settings(Record):
    audit_file: str  # JSON lines are appended here
    resolv_conf: str = "/etc/resolv.conf"  # whose name servers the names of a policy are looked up at
    policy_file: str | None = None  # for kernels whose kernelspec names no policy


class PolicyFile(Record):
    """The file in which a kernel's policy stands, or would stand."""

    path: str
    exists: bool
    says_nothing: bool = False  # only comments: it need not be parsed


_LARGEST_BLANK = 1 << 16  # bytes that are looked through for anything but comments


def choose_policy(given: str | None, kernel: str) -> PolicyFile:
    """``given`` (by the command line, else by the settings), else the file of the kernel named ``kernel``.

    One that does not exist is the default policy. Not so where a link leads nowhere: somebody meant a file, which may
    allow less than the default. Raises PolicyError.
    """
    if given is not None:
        return PolicyFile(given, exists=True)
    path = policy_file_of(kernel)
    for link in links_on_the_way(path):
        if not os.path.exists(link):
            found = f"{link} is a link to {os.path.realpath(link)}, which does not exist"
            raise PolicyError(path, found, "Make that file or folder, or remove the link")
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return PolicyFile(path, exists=False)
    except OSError as error:
        raise PolicyError(path, f"cannot be read ({error.strerror})", "Make it a file that you may read") from None
    return PolicyFile(path, exists=True, says_nothing=regular and _is_blank(path))


def _is_blank(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST_BLANK + 1)
    except OSError:
        return False  # whoever reads it will say why it cannot be read
    return len(text) <= _LARGEST_BLANK and says_nothing(text)


def load_settings(workspace: str) -> Settings:
    """Raises PolicyError with the file's name for a setting that does not exist or has a wrong type.

    And for a file in ``workspace``, the notebook's folder: code inside may write there.
    """
    candidates = (f"{folder}/{name}" for folder in settings_folders() for name in reversed(_NAMES))
    files = [path for path in candidates if os.path.isfile(path)]
    for file in files:
        _check_place(file, os.path.realpath(workspace))
    return _from_files(files) if files else Settings(default_audit_file())


def _check_place(file: str, workspace: str) -> None:
    """Before it is read: a .py file runs here."""
    for path in (os.path.realpath(file), *links_on_the_way(file)):
        for folder in (workspace, "/dev/shm"):
            if is_within(path, folder):
                raise PolicyError(file, f"it lies in {folder}, where the code inside may write", SETTINGS_ADVICE)


def _from_files(files: list[str]) -> Settings:
    from traitlets import TraitError, Unicode
    from traitlets.config import Config, Configurable

    class SandboxedKernel(Configurable):
        """The section's name in the file: ``c.SandboxedKernel.audit_file = ...``."""

        audit_file = Unicode(default_audit_file()).tag(config=True)
        resolv_conf = Unicode("/etc/resolv.conf").tag(config=True)
        policy_file = Unicode("").tag(config=True)

    known = sorted(SandboxedKernel.class_trait_names(config=True))
    merged = Config()
    for file in files:
        config = _read(file)
        for section in config:
            if section != "SandboxedKernel":
                raise PolicyError(file, f'"{section}" is no section of it', 'Write "c.SandboxedKernel."')
        for name in config.SandboxedKernel:
            if name not in known:
                raise PolicyError(file, f'"{name}" is no setting', f"Write one of: {', '.join(known)}")
        merged.merge(config)
    try:
        found = SandboxedKernel(config=merged)
    except TraitError as error:
        raise PolicyError(files[-1], str(error), "Write a text between quotes") from None
    return Settings(found.audit_file, found.resolv_conf, found.policy_file or None)


def _read(file: str) -> Config:
    """A .py file is code of whoever may write to Jupyter's configuration, and runs here, outside the sandbox."""
    from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

    loader = JSONFileConfigLoader if file.endswith(".json") else PyFileConfigLoader
    try:
        config: Config = loader(os.path.basename(file), path=os.path.dirname(file)).load_config()
    except Exception as error:  # noqa: BLE001  # whatever the user's file raises is the user's to mend
        raise PolicyError(file, f"{type(error).__name__}: {error}", "Mend or remove the file") from None
    return config
