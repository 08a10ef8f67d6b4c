"""Does: what is set beyond the policy, by traitlets, in ``sandboxed_kernel_config.py`` or ``.json``.

The file is looked for on Jupyter's configuration path; one in a user's folder wins over the system's. Where there is
none, which is the rule, traitlets is not even imported: it would cost a fifth of the launch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.baseline import is_within
from sandboxed_kernel.records import Record
from sandboxed_kernel.surroundings import SETTINGS_ADVICE, default_audit_file, links_on_the_way, settings_folders

if TYPE_CHECKING:
    from traitlets.config import Config

_NAMES = ("sandboxed_kernel_config.json", "sandboxed_kernel_config.py")  # as Jupyter: .json wins over .py


class Settings(Record):
    audit_file: str  # JSON lines are appended here
    resolv_conf: str = "/etc/resolv.conf"  # whose name servers the names of a policy are looked up at
    policy_file: str | None = None  # for kernels whose kernelspec names no policy


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
