"""Does: looks where the user's, Jupyter's and this Python's folders lie on this machine."""

from __future__ import annotations

import errno
import os
import pwd
import re
import signal
import site
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fcntl import F_RDLCK, F_SETLEASE, F_SETSIG, F_UNLCK, fcntl
from typing import TypeVar

from sandboxed_kernel.confinement.plan import Surroundings
from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.linux.folders import links_on_the_way
from sandboxed_kernel.policy.baseline import (
    CERTIFICATE_VARIABLES,
    ENVIRONMENT,
    POLICY_ADVICE,
    SECRET_FOLDERS,
    SECRETS,
    Protected,
    protected_link,
)
from sandboxed_kernel.policy.model import Policy
from sandboxed_kernel.policy.paths import is_beneath
from sandboxed_kernel.policy.place import DEFAULT_KERNEL, file_name, folder_in

T = TypeVar("T")

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
    policy: Policy, *, workspace: str, private: str, argv: tuple[str, ...], kept: Sequence[tuple[str, str]]
) -> Surroundings:
    """Every path that the plan needs, with symbolic links resolved."""
    prefixes = _distinct(map(_real, (sys.prefix, sys.base_prefix, sys.exec_prefix)))
    paths = [grant.path for grant in (*policy.grants, *policy.required)]
    paths += [os.environ[name] for name in CERTIFICATE_VARIABLES if name in os.environ]
    paths += os.environ.get("PATH", "").split(os.pathsep)
    standing = _standing_policies()
    return Surroundings(
        workspace=_real(policy.folder_of(workspace)),
        cwd=_real(workspace),
        home=_real(home_folder()),
        private=_real(private),
        prefixes=prefixes,
        import_paths=_import_paths(prefixes),
        jupyter=_distinct(map(_real, _jupyter_folders())),
        policy_files=_distinct(_policy_files(policy, standing)),
        kept=tuple((_real(path), what) for path, what in kept),
        further=_distinct(_further(policy, kept, standing)),
        real_paths={path: _real(path) for path in paths if os.path.exists(path)},
        environment=dict(os.environ),
        argv=argv,
        umask=_own_umask(),
        home_as_named=os.path.normpath(home_folder()),
    )


def _policy_files(policy: Policy, standing: Sequence[str]) -> Iterator[str]:
    """The policy in force with all that it extends; and what the next kernels of this user will read.

    The folder too: where nothing is there yet, the code could make it.
    """
    yield from (_real(source) for source in policy.sources if os.path.exists(source))
    yield from map(_real, standing)


def policy_places(sources: Iterable[str]) -> tuple[tuple[str, ...], tuple[Protected, ...]]:
    """Where the files of a policy lie, and the links that lead there. ``sources``: a Policy's, with absolute paths."""
    paths = [source for source in sources if os.path.isabs(source)]
    links = (link for path in paths for link in _links(path, "the policy of this kernel", POLICY_ADVICE))
    return _distinct(map(_real, paths)), _distinct(links)


def check_writers(policy: Policy, workspace: str) -> None:
    """Whether nobody can write the files of ``policy`` that lie in ``workspace`` but by their names, which are closed.

    Many programs save by a new file beside the old one that then takes its place (sed -i): while it had an open name,
    the code inside may have opened it, or given it a further name. Raises PolicyError.
    """
    for path in filter(os.path.isabs, policy.sources):
        real = _real(path)
        if is_beneath(real, workspace):
            _check_writers(path, real)


def _check_writers(path: str, real: str) -> None:
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # whoever reads it says why
    try:
        if os.fstat(descriptor).st_nlink > 1:
            found = "it has another name, by which the code inside may be able to write it"
            raise PolicyError(path, found, "Move a copy of it out of the notebook's folder, and name that")
        # Linux gives a lease where no descriptor and no mapping writes the file: F_SETLEASE, fcntl(2). Whoever opens it
        # in that moment waits for the next line, and we get a signal, which by default would end us.
        fcntl(descriptor, F_SETSIG, signal.SIGURG)
        fcntl(descriptor, F_SETLEASE, F_RDLCK)
        fcntl(descriptor, F_SETLEASE, F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            found = "another program has it open to write, perhaps the code inside"
            raise PolicyError(path, found, "Close it there, or move the policy out of the notebook's folder") from None
        # Another user's file, which nobody here may write; or a file system without leases.
    finally:
        os.close(descriptor)


def _standing_policies() -> list[str]:
    """The folder of the policies that are read where none is named, the default kernel's, and each that is there."""
    place = policy_folder()
    found = {file_name(DEFAULT_KERNEL)}
    with suppress(OSError):
        found |= {name for name in os.listdir(place) if name.endswith(".toml")}
    return [place, *(os.path.join(place, name) for name in sorted(found))]


def _further(policy: Policy, kept: Sequence[tuple[str, str]], standing: Sequence[str]) -> Iterator[Protected]:
    """What must stay closed beside the real places themselves. A name that does not exist yet can be made."""
    home = home_folder()
    python = "the Python that runs this kernel"
    for path in _python_paths():
        yield from _links(path, python, ENVIRONMENT)
    for path in sys.path:  # absolute since startup.pin_imports
        yield Protected(_real(path), "a folder from which that Python imports", "write", "write", ENVIRONMENT)
    for path in (*map(os.path.abspath, policy.sources), *standing):  # a preset's name is no path, and no link either
        yield from _links(path, "the policy of this kernel", POLICY_ADVICE)
    for each in (*policy.environment_from, *policy.environment_from_elsewhere):
        what = f"the file that {each.name} is read from"
        yield Protected(_real(each.path), what, "write", "write", VARIABLES_ADVICE)
        yield from _links(each.path, what, VARIABLES_ADVICE)
    for path in settings_folders():
        yield Protected(_real(path), "settings that are read outside the sandbox", "write", "write", SETTINGS_ADVICE)
        yield from _links(path, "settings that are read outside the sandbox", SETTINGS_ADVICE)
    for name, beneath in (("JUPYTER_PATH", _DATA_FOLDERS), ("IPYTHONDIR", ("",))):
        for folder in filter(os.path.isabs, os.environ.get(name, "").split(os.pathsep)):
            for path in (os.path.join(folder, each).rstrip("/") for each in beneath):
                yield Protected(_real(path), f"a folder that {name} names", "write", "write", _UNSET.format(name))
                yield from _links(path, f"a folder that {name} names", _UNSET.format(name))
    for path in (os.path.join(home, name) for name in SECRET_FOLDERS):
        if _real(path) != path:
            yield Protected(_real(path), f"where {path} leads", "any", "any", SECRETS)
            yield from _links(path, "credentials or settings", SECRETS)
    for path, what in (*((folder, "Jupyter's folder with keys and commands") for folder in _jupyter_folders()), *kept):
        yield from _links(os.path.abspath(path), what, SECRETS)


# Of a folder on JUPYTER_PATH, what Jupyter runs or shows: kernelspecs, extensions of its pages, nbconvert's templates.
_DATA_FOLDERS = ("kernels", "labextensions", "nbextensions", "nbconvert", "lab")
_UNSET = "Code that is written there would later run outside the sandbox. Let {} name a folder elsewhere, or unset it."
VARIABLES_ADVICE = "The code could choose what the variable gets from which file. Keep that file in another folder."
SETTINGS_ADVICE = (
    "The code could write settings that are obeyed outside at the next start. Let JUPYTER_CONFIG_PATH and"
    " JUPYTER_CONFIG_DIR name folders elsewhere, or unset them."
)


def _links(path: str, what: str, write: str) -> Iterator[Protected]:
    return (protected_link(link, what, write) for link in links_on_the_way(path))


def _python_paths() -> Iterator[str]:
    """Every name by which this Python and its modules are reached."""
    yield from (sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    yield from (os.path.abspath(path) for path in (*sys.path, _PACKAGE, *_named_program()))


def _named_program() -> Iterator[str]:
    """The program as it was called, where that is a path: a kernelspec's first word."""
    if sys.orig_argv and "/" in sys.orig_argv[0]:
        yield sys.orig_argv[0]


def settings_folders() -> list[str]:
    """Jupyter's configuration folders, the least important first: jupyter_core.paths.jupyter_config_path."""
    own = os.environ.get("JUPYTER_CONFIG_DIR") or os.path.join(home_folder(), ".jupyter")
    named = os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)
    system = ["/etc/jupyter", "/usr/local/etc/jupyter", os.path.join(sys.prefix, "etc", "jupyter")]
    return [*system, own, *(os.path.abspath(folder) for folder in reversed(named) if folder)]


def configuration_folder() -> str:
    """The user's XDG_CONFIG_HOME; a relative one counts as unset (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.normpath(named) if os.path.isabs(named) else os.path.join(home_folder(), ".config")


def policy_folder() -> str:
    """Where the policies lie that are read where none is named."""
    return folder_in(configuration_folder())


def policy_file_of(kernel: str) -> str:
    """The file that is the policy of the kernel named ``kernel``, there or not. Raises PolicyError for no name."""
    return os.path.join(policy_folder(), file_name(kernel))


def _own_umask() -> int:
    """umask(2) can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


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


def homes_folder() -> str:
    """Where the homes of notebooks last: beneath XDG_DATA_HOME, where nothing outside looks for anything to run."""
    named = os.environ.get("XDG_DATA_HOME", "")
    data = named if os.path.isabs(named) else os.path.join(home_folder(), ".local", "share")
    return os.path.join(data, "sandboxed-kernel", "homes")


def default_audit_file() -> str:
    """``$XDG_STATE_HOME/sandboxed-kernel/audit.jsonl``; whoever writes it makes its folder."""
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
