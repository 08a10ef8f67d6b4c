"""Does: looks where the user's, Jupyter's and this Python's folders lie on this machine."""

from __future__ import annotations

import os
import pwd
import re
import site
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

from sandboxed_kernel.confinement.plan import Surroundings
from sandboxed_kernel.policy.baseline import CERTIFICATE_VARIABLES
from sandboxed_kernel.policy.model import Policy

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def home_folder() -> str:
    """The user's home folder as an absolute path: $HOME, else the password database's."""
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        with suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    return home if os.path.isabs(home) else "/"


def _real(path: str) -> str:
    return os.path.realpath(path)


def look_around(
    policy: Policy, *, workspace: str, private: str, argv: tuple[str, ...], kept: Iterable[tuple[str, str]]
) -> Surroundings:
    """Every path that the plan needs, with symbolic links resolved."""
    prefixes = _distinct(map(_real, (sys.prefix, sys.base_prefix, sys.exec_prefix)))
    paths = [grant.path for grant in policy.grants]
    paths += [os.environ[name] for name in CERTIFICATE_VARIABLES if name in os.environ]
    paths += os.environ.get("PATH", "").split(os.pathsep)
    return Surroundings(
        workspace=_real(workspace),
        home=_real(home_folder()),
        private=_real(private),
        prefixes=prefixes,
        import_paths=_import_paths(prefixes),
        jupyter=_distinct(map(_real, _jupyter_folders())),
        policy_files=tuple(_real(source) for source in policy.sources if os.path.exists(source)),
        kept=tuple((_real(path), what) for path, what in kept),
        real_paths={path: _real(path) for path in paths if os.path.exists(path)},
        environment=dict(os.environ),
        argv=argv,
        umask=_own_umask(),
    )


def _own_umask() -> int:
    """umask(2) can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _distinct(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))


def _import_paths(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Folders that Python imports from outside of its prefixes: user and editable installs, and this package."""
    found = [path for path in sys.path if path and os.path.isdir(path)]
    if sys.prefix == sys.base_prefix:  # a virtual environment sees no user installs
        found.append(site.getusersitepackages())
    found.append(_PACKAGE)
    real = (_real(path) for path in found if os.path.isdir(path))
    return _distinct(path for path in real if not any(path.startswith(prefix + "/") for prefix in prefixes))


def _jupyter_folders() -> list[str]:
    """Where Jupyter keeps this user's keys, commands and settings: jupyter_core.paths, whose import takes 30 ms."""
    home = home_folder()
    data = os.environ.get("JUPYTER_DATA_DIR") or os.path.join(
        os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share"), "jupyter"
    )
    config = os.environ.get("JUPYTER_CONFIG_DIR") or os.path.join(home, ".jupyter")
    runtime = os.environ.get("JUPYTER_RUNTIME_DIR") or os.path.join(data, "runtime")
    platform = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")  # JUPYTER_PLATFORM_DIRS=1
    return [data, config, runtime, os.path.join(platform, "jupyter")]


_PORT = re.compile(r"://[^/\s]*:(\d{1,5})\b")


def ports_of_jupyter(environment: Mapping[str, str]) -> frozenset[int]:
    """The ports in the variables by which the Jupyter server and the Hub tell their addresses (JUPYTERHUB_API_URL)."""
    jupyter = [value for name, value in environment.items() if name.startswith(("JUPYTER", "JPY_"))]
    named = [value for name, value in environment.items() if name == "JUPYTER_PORT" and value.isdecimal()]
    return frozenset(int(port) for value in jupyter for port in _PORT.findall(value)) | frozenset(map(int, named))


def default_audit_file() -> str:
    """``$XDG_STATE_HOME/sandboxed-kernel/audit.jsonl``; its folder is made where it is missing."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(home_folder(), ".local", "state")
    return os.path.join(state, "sandboxed-kernel", "audit.jsonl")


def search_domains(resolv_conf: str) -> tuple[str, ...]:
    """The ``search`` list of resolv.conf(5), empty where there is none."""
    found: tuple[str, ...] = ()
    with suppress(OSError, UnicodeDecodeError), open(resolv_conf, encoding="utf-8") as file:
        for line in file:
            keyword, *words = line.split() or [""]
            if keyword in ("search", "domain"):
                found = tuple(word.rstrip(".").lower() for word in words)
    return found
