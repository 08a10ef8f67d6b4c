"""Pure: a policy, what this host can do and where everything lies -> everything that is done to the process.

The same policy means the same rules on every host. What a host cannot enforce is a reason not to start, unless the
policy names it in ``best_effort``; then it is in ``Plan.missing`` and shown to the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from posixpath import isabs, join
from resource import RLIMIT_CORE, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NOFILE

from sandboxed_kernel.confinement.filesystem import (
    READ,
    READ_EXECUTE,
    WRITE,
    Fs,
    Net,
    PathRule,
    Scope,
    handled_fs,
    handled_net,
    scoped,
)
from sandboxed_kernel.errors import Bug, HostError, PolicyError
from sandboxed_kernel.policy.baseline import (
    CERTIFICATE_VARIABLES,
    HOME_FOLDERS,
    SYSTEM_PATHS,
    Conflict,
    Protected,
    accelerator_rules,
    dot_folder_conflict,
    environment,
    file_rules,
    home_links,
    protected_conflict,
    protected_paths,
)
from sandboxed_kernel.policy.guarded import Closed, Guard
from sandboxed_kernel.policy.lasting import CACHE, FOLDERS, LASTING, PACKAGES
from sandboxed_kernel.policy.model import Limits, PathGrant, Policy
from sandboxed_kernel.policy.paths import is_beneath, is_within
from sandboxed_kernel.records import Record, replace


class HostFeatures(Record):
    """What this Linux can enforce, found by trying (``host.py``)."""

    landlock_abi: int  # 0: no Landlock
    seccomp_notify: bool  # a filter with a listener can be loaded; False under another listener, for example
    addfd: bool  # SECCOMP_IOCTL_NOTIF_ADDFD with SECCOMP_ADDFD_FLAG_SEND, Linux 5.14
    machine: str  # as from platform.machine()
    kernel_release: str  # as from uname -r, for messages only


class Surroundings(Record):
    """Where everything lies. All paths are absolute and real (no symbolic links), except the keys of ``real_paths``."""

    workspace: str  # what is the notebook's: its folder, or the project that it lies in
    home: str  # the user's own
    private: str  # an empty folder made for this kernel; short, because paths of unix sockets are
    prefixes: tuple[str, ...]  # sys.prefix, sys.base_prefix, sys.exec_prefix, without repetitions
    import_paths: tuple[str, ...]  # folders of sys.path outside of the prefixes, and this package's
    jupyter: tuple[str, ...]  # the user's Jupyter runtime, data and configuration folders
    policy_files: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]  # (path, what it is): the audit log, the connection file
    further: tuple[Protected, ...]  # what else must stay closed here, links on the way to all of these among it
    real_paths: Mapping[str, str]  # of every grant, certificate variable and PATH entry; missing: not there
    environment: Mapping[str, str]  # the launcher's
    umask: int  # the launcher's: files in the workspace are the user's
    argv: tuple[str, ...]  # what to run
    cwd: str = ""  # the notebook's folder; empty: ``workspace``
    variables: tuple[tuple[str, str], ...] = ()  # what files give them, by the policy
    lasting: str = ""  # the folder of what lasts of the private home; empty: nothing does
    home_as_named: str = ""  # the user's home as $HOME spells it, links not followed


class Plan(Record):
    """Everything ``apply.py`` does, in values. ``path_rules`` are masked by ``rights_for`` when they are added."""

    path_rules: tuple[PathRule, ...]
    handled_fs: Fs
    handled_net: Net
    scoped: Scope
    machine: str  # whose filter program to load
    abi: int
    folders: tuple[str, ...]  # to make first, mode 0700, and to remove afterwards
    home: str  # the private one, among ``folders``
    home_links: tuple[tuple[str, str], ...]  # to make in it: (path in it, what the link says)
    cache: str  # its cache, where that lasts; else empty
    cache_links: tuple[tuple[str, str], ...]  # to make in that
    environment: Mapping[str, str]
    rlimits: tuple[tuple[int, int, int], ...]  # (resource.RLIMIT_*, soft, hard)
    limits: Limits  # what no rlimit can do is watched by the broker: memory, processes
    missing: tuple[str, ...]  # names out of BEST_EFFORT_NAMES
    absent: tuple[PathGrant, ...]  # what the policy grants and this host has not: no rule stands for it
    argv: tuple[str, ...]
    cwd: str
    umask: int
    guard: Guard | None  # of the notebook's folder, where not all of it is open


class _Feature(Record):
    """A name of BEST_EFFORT_NAMES: what is lost without it, and since when it exists."""

    name: str
    lost: str
    abi: int
    linux: str


_FEATURES: tuple[_Feature, ...] = (
    _Feature("truncate", "files outside the writable folders cannot be kept from being emptied", 3, "6.2"),
    _Feature("tcp", "TCP cannot be fenced off a second time, behind the broker,", 4, "6.7"),
    _Feature("ioctl", "device files cannot be kept from taking commands", 5, "6.10"),
    _Feature("abstract", "abstract unix sockets cannot be fenced off a second time, behind the broker,", 6, "6.12"),
    _Feature("signals", "signals cannot be kept inside", 6, "6.12"),
)


WITH_LESS = "sandboxed-kernel install --best-effort"


def missing_features(abi: int) -> tuple[str, ...]:
    """Which of BEST_EFFORT_NAMES a Linux with this Landlock ABI lacks."""
    return tuple(feature.name for feature in _FEATURES if abi < feature.abi)


def describe_missing(name: str, abi: int) -> str:
    """One sentence for people about a missing feature."""
    feature = next(feature for feature in _FEATURES if feature.name == name)
    return f"this host has Landlock ABI {abi}; {feature.lost} before ABI {feature.abi} (Linux {feature.linux})."


# What holds without Landlock, by the broker and the filter, and what newer versions of it refuse a second time:
# (ABI, what). No policy needs to do without it.
_SECOND_FENCES = ((7, "the audit log of nested sandboxes"), (9, "unix sockets by path"), (10, "UDP"))


def second_fences(abi: int) -> str:
    """For people: which of them this Linux has, and which a newer one would add."""
    there = ", ".join(what for since, what in _SECOND_FENCES if abi >= since) or "none"
    later = ", ".join(f"{what} (ABI {since})" for since, what in _SECOND_FENCES if abi < since)
    return f"{there}; a newer Linux adds {later}" if later else there


def require(features: HostFeatures, best_effort: frozenset[str]) -> tuple[str, ...]:
    """The missing features that the policy does without. Raises HostError for any other."""
    host = f"this host (Linux {features.kernel_release})"
    if features.landlock_abi < 1:
        raise HostError(
            f"{host} has no Landlock, so files cannot be protected. It needs Linux 5.13 or newer with Landlock switched"
            ' on (the boot parameter "lsm=landlock,..."), and a container profile that permits its system calls.'
        )
    if not features.seccomp_notify:
        raise HostError(
            f"{host} offers no seccomp user notification, so connections cannot be checked. It needs Linux 5.14, a"
            " container profile that permits seccomp(2), and no other sandbox around this one that listens already."
        )
    if not features.addfd:
        raise HostError(
            f"{host} cannot hand sockets into the sandbox (SECCOMP_IOCTL_NOTIF_ADDFD with SECCOMP_ADDFD_FLAG_SEND)."
            " It needs Linux 5.14 or newer."
        )
    missing = missing_features(features.landlock_abi)
    if refused := [name for name in missing if name not in best_effort]:
        sentences = " ".join(describe_missing(name, features.landlock_abi) for name in refused)
        wanted = ", ".join(f'"{name}"' for name in missing)
        raise HostError(
            f"{sentences} To go on with less, in a terminal: {WITH_LESS}. Or write in the policy:"
            f" best_effort = [{wanted}]."
        )
    return missing


def effective_grants(policy: Policy, workspace: str) -> tuple[PathGrant, ...]:
    """The policy's grants and the implied one: the notebook's folder, or its project, can be read always,
    and written unless the policy names what can be.
    """
    writable = not any(grant.writable for grant in policy.grants)
    place = "the project of the notebook" if policy.project else "the notebook's folder"
    return (PathGrant(policy.folder_of(workspace), writable, ".", place), *policy.grants)


def protected_here(surroundings: Surroundings) -> tuple[Protected, ...]:
    """Every path that must stay closed on this host."""
    return protected_paths(
        home=surroundings.home,
        interpreters=(*surroundings.prefixes, *surroundings.import_paths),
        jupyter=surroundings.jupyter,
        policies=surroundings.policy_files,
        kept=surroundings.kept,
        further=surroundings.further,
    )


def closed_in_workspace(surroundings: Surroundings, *, writable: bool) -> list[Closed]:
    """What of it lies in the notebook's folder, which is then guarded. ``writable``: whether the folder is.

    Raises PolicyError where the folder itself can be no workspace: it lies in such a path, or is one.
    """
    workspace = surroundings.workspace
    protected = protected_here(surroundings)
    conflict = _conflict(workspace, writable, surroundings, _that_stop(protected, surroundings))
    if conflict is not None:
        raise PolicyError("the notebook's folder", conflict.found, conflict.write)
    rows = [row for row in protected if is_beneath(row.path, workspace) and row.above != "none"]
    found = {row.path: Closed(row.path, "none" if row.above == "any" else "read", row.what) for row in reversed(rows)}
    found |= {row.path: Closed(row.path, "none", row.what) for row in rows if row.above == "any"}
    return list(found.values())


PolicyPlaces = tuple[tuple[str, ...], tuple[Protected, ...]]  # files, and the links that lead there


def check_place(
    policy: Policy, features: HostFeatures, launched: Surroundings, guard: Guard | None, places: PolicyPlaces
) -> None:
    """Whether the files of a policy that is read while its sandbox runs lie where nothing inside can change them.

    ``policy``: of the launch. ``places``: of the files that are read now, and the links to them. Raises PolicyError.
    """
    files, links = places
    around = replace(launched, policy_files=(*launched.policy_files, *files), further=(*launched.further, *links))
    make_plan(policy, features, around, guard)
    closed = [] if guard is None else [each.path for each in guard.closed]
    known = {*launched.policy_files, *(row.path for row in launched.further)}
    for path in sorted({*files, *(row.path for row in links)} - known):
        beside = is_beneath(path, launched.workspace) and not any(is_within(path, each) for each in closed)
        if beside or is_within(path, launched.private):
            found = f"{path} lies where the code inside may write"
            raise PolicyError("the policy", found, "Put it elsewhere, or restart the kernel, which then closes it")


def _that_stop(protected: tuple[Protected, ...], surroundings: Surroundings) -> tuple[Protected, ...]:
    """Those that no guard can keep closed in the workspace: they are the workspace or hold it, or are the system's."""
    workspace, home = surroundings.workspace, surroundings.home
    return tuple(
        row for row in protected if row in SYSTEM_PATHS or (not is_beneath(row.path, workspace) and row.path != home)
    )


def make_plan(policy: Policy, features: HostFeatures, surroundings: Surroundings, guard: Guard | None = None) -> Plan:
    """``guard``: of the notebook's folder. Raises HostError (the host cannot) and PolicyError: a grant would open what
    must stay closed, or what the policy requires is not there.
    """
    missing = require(features, policy.best_effort)
    _check_required(policy, surroundings)
    grants = effective_grants(policy, surroundings.workspace)
    absent = tuple(grant for grant in grants if _real_path(grant, surroundings) is None)
    protected = protected_here(surroundings)
    _check_interpreters(surroundings, protected)
    _check_shared_memory(protected)
    roots = {name: join(surroundings.private, short) for name, short in _FOLDERS}
    lasting = {name: join(surroundings.lasting, name) for name in FOLDERS} if surroundings.lasting else {}
    baseline = file_rules(
        {
            "prefix": surroundings.prefixes,
            "imports": surroundings.import_paths,
            "lasting": tuple(lasting.values()),
            **{name: (path,) for name, path in roots.items()},
        }
    )
    path_rules = (
        *baseline,
        *accelerator_rules(policy.accelerators),
        *_certificates(surroundings, protected),
        *_workspace_rules(grants[0], surroundings, protected, guard),
        *(
            _rule(grant, surroundings, protected)
            for grant in grants[1:]
            if grant not in absent and not _is_guarded(grant, guard)
        ),
    )
    links = _home_links(grants, surroundings, () if guard is None else guard.visible)
    in_home = [(path, real) for path, real in links if not (lasting and is_beneath(path, ".cache"))]
    in_cache = tuple((path.removeprefix(".cache/"), real) for path, real in links if (path, real) not in in_home)
    cache = lasting.get(CACHE, "")
    own_folders = [name for name in HOME_FOLDERS if not (cache and name == ".cache")]
    abi = features.landlock_abi
    return Plan(
        path_rules=path_rules,
        handled_fs=handled_fs(abi),
        handled_net=handled_net(abi),
        scoped=scoped(abi),
        machine=features.machine,
        abi=abi,
        folders=(*roots.values(), *(join(roots["home"], name) for name in own_folders)),
        home=roots["home"],
        home_links=(*in_home, *((row.place, join(surroundings.lasting, row.lasts)) for row in LASTING if lasting)),
        cache=cache,
        cache_links=in_cache,
        environment=environment(
            _reachable_programs(surroundings, path_rules),
            passed=policy.environment_pass,
            settings=(*_proxy_variables(policy), *policy.environment_set, *surroundings.variables),
            roots={
                **roots,
                "cache": cache or join(roots["home"], ".cache"),
                "packages": lasting.get(PACKAGES) or join(roots["home"], ".packages"),
            },
        ),
        rlimits=_rlimits(policy.limits),
        limits=policy.limits,
        missing=missing,
        absent=absent,
        argv=surroundings.argv,
        cwd=surroundings.cwd or surroundings.workspace,
        umask=surroundings.umask,
        guard=_with_private(guard, {roots["home"]: in_home, cache: in_cache}, surroundings.lasting),
    )


def _with_private(guard: Guard | None, links: Mapping[str, Iterable[tuple[str, str]]], lasting: str) -> Guard | None:
    """What of the private folders the broker has to know. ``links``: by their folder; those that lead into the guarded
    folder are followed by the broker itself. What lasts may lie beneath it, and is none of it."""
    if guard is None:
        return None
    found = [(join(folder, path), real) for folder, each in links.items() for path, real in each]
    aliases = tuple((path, real) for path, real in found if is_within(real, guard.root))
    return replace(guard, aliases=aliases, elsewhere=(lasting,) if is_beneath(lasting, guard.root) else ())


def _is_guarded(grant: PathGrant, guard: Guard | None) -> bool:
    """A line of the policy that says "." or names the notebook's folder."""
    return guard is not None and grant.path in (guard.root, guard.named)


def _workspace_rules(
    grant: PathGrant, surroundings: Surroundings, protected: tuple[Protected, ...], guard: Guard | None
) -> list[PathRule]:
    """What Landlock opens of the notebook's folder."""
    if guard is None:
        return [_rule(grant, surroundings, protected)]
    access = WRITE if guard.writable else READ_EXECUTE
    return [
        *(PathRule(path, access, grant.place, follow=False) for path in (*guard.native, *guard.pooled)),
        *(PathRule(path, READ_EXECUTE, grant.place, follow=False) for path in guard.readable),
    ]


def check_grants(grants: Iterable[PathGrant], surroundings: Surroundings) -> None:
    """Raises PolicyError for one with which no kernel would start here: it does not exist, or would open too much."""
    protected = protected_here(surroundings)
    for grant in grants:
        _check_exists(grant, surroundings)
        _rule(grant, surroundings, protected)


_SHARED_MEMORY = "/dev/shm"

# Names in baseline.py -> folders beneath the private one, of one letter because paths of unix sockets are short.
_FOLDERS = (("home", "h"), ("tmp", "t"), ("run", "r"))


def _real_path(grant: PathGrant, surroundings: Surroundings) -> str | None:
    """Where ``grant`` leads; None where nothing is there.

    Landlock's rules are for files that exist. For one that does not, a rule further up would be the only way, and open
    more than was named; so there is none, and what is made there later is as closed as its surroundings.
    """
    return surroundings.workspace if grant.path == surroundings.workspace else surroundings.real_paths.get(grant.path)


def _check_required(policy: Policy, surroundings: Surroundings) -> None:
    for grant in policy.required:
        _check_exists(grant, surroundings)


def _check_exists(grant: PathGrant, surroundings: Surroundings) -> None:
    """Raises PolicyError."""
    if _real_path(grant, surroundings) is None:
        found = f'"{grant.text}" does not exist ({grant.path})'
        raise PolicyError(grant.place, found, "Create it or remove the line.")


def _rule(grant: PathGrant, surroundings: Surroundings, protected: tuple[Protected, ...]) -> PathRule:
    real = _real_path(grant, surroundings)
    if real is None:
        raise Bug(f"a rule for what is not there: {grant.place}")
    conflict = _conflict(real, grant.writable, surroundings, protected)
    if conflict is not None:
        raise PolicyError(grant.place, conflict.found, conflict.write)
    access = WRITE if grant.writable else READ_EXECUTE
    if real.startswith("/dev/"):
        access |= Fs.IOCTL_DEV  # of no use otherwise; which devices may be named is in the table of protected paths
    return PathRule(real, access, grant.place, optional=False)


def _home_links(
    grants: tuple[PathGrant, ...], surroundings: Surroundings, visible: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """``~/datasets`` means the same inside as in the policy, where the policy opens it. Landlock judges where a link
    leads, so a link opens nothing. ``visible``: in a notebook in the home folder, what it shows of it.
    """
    found = [(path[len(surroundings.home) :].strip("/"), path) for path in visible]
    for grant in grants:
        real = _real_path(grant, surroundings)
        for home in (surroundings.home_as_named, surroundings.home):
            if real is not None and home not in ("", "/") and is_beneath(grant.path, home):
                found.append((grant.path[len(home) :].strip("/"), real))
                break
    return home_links(found)


def _conflict(
    path: str, writable: bool, surroundings: Surroundings, protected: tuple[Protected, ...]
) -> Conflict | None:
    return protected_conflict(path, writable=writable, protected=protected) or dot_folder_conflict(
        path, writable=writable, home=surroundings.home
    )


def _check_interpreters(surroundings: Surroundings, protected: tuple[Protected, ...]) -> None:
    """A prefix such as ~/.local would make other kernels' keys readable, and Landlock cannot subtract them."""
    for path in (*surroundings.prefixes, *surroundings.import_paths):
        conflict = protected_conflict(path, writable=False, protected=protected)
        if conflict is not None:
            raise HostError(
                f"the Python that runs this kernel cannot be made readable: {conflict.found}."
                " Install the kernel into an environment with a folder of its own."
            )


def _check_shared_memory(protected: tuple[Protected, ...]) -> None:
    """What lies there can be written by its exact name, whatever the policy says: the policy, a link on the way to it,
    the Python itself. Raises PolicyError.
    """
    for row in protected:
        if is_within(row.path, _SHARED_MEMORY) and row not in SYSTEM_PATHS:
            raise PolicyError(
                row.path,
                f"it is {row.what}, and lies in {_SHARED_MEMORY}, where the code inside may write",
                "Move it to a folder of your own.",
            )


def _certificates(surroundings: Surroundings, protected: tuple[Protected, ...]) -> list[PathRule]:
    """The bundles that certificate variables name: readable, unless that would open more than certificates."""
    rules = []
    for name in CERTIFICATE_VARIABLES:
        path = surroundings.real_paths.get(surroundings.environment.get(name, ""))
        if path and isabs(path) and _conflict(path, False, surroundings, protected) is None:
            rules.append(PathRule(path, READ, f"certificates: {name}"))
    return rules


def _reachable_programs(surroundings: Surroundings, rules: tuple[PathRule, ...]) -> dict[str, str]:
    """The environment with only those folders in PATH whose programs can be run.

    bash ends with "Permission denied" at the first program of the right name, also where a later folder has one that
    runs: ~/.pyenv/shims/python3 hid /usr/bin/python3.
    """
    outside = dict(surroundings.environment)
    folders = [rule.path for rule in rules if rule.access & Fs.EXECUTE]
    entries = [
        entry
        for entry in outside.pop("PATH", "").split(":")
        if any(is_within(surroundings.real_paths.get(entry, entry), folder) for folder in folders)
    ]
    return {**outside, "PATH": ":".join(entries)} if entries else outside


def put_first(path: str, folder: str) -> str:
    """A PATH that begins with ``folder``: with an environment's own, `!python` is its Python, activated or not."""
    return ":".join([folder, *(entry for entry in path.split(":") if entry != folder)])


def _proxy_variables(policy: Policy) -> list[tuple[str, str]]:
    if policy.proxy is None:
        return []
    host, port = policy.proxy
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    values = {"http_proxy": url, "https_proxy": url, "all_proxy": url, "no_proxy": "localhost,127.0.0.1,::1"}
    return [(spelled, value) for name, value in values.items() for spelled in (name, name.upper())]


def _rlimits(limits: Limits) -> tuple[tuple[int, int, int], ...]:
    """RLIMIT_AS counts reserved address space and RLIMIT_NPROC the user's other processes, so neither is used."""
    wanted = (
        # Linux writes a core file past Landlock, or hands it to a program outside that runs as root; 1 is its word for
        # neither (fs/coredump.c), 0 only for no file. The filter keeps it so.
        (RLIMIT_CORE, 1, 0),
        (RLIMIT_NOFILE, limits.open_files, 0),
        # A second between SIGXCPU, which says why, and SIGKILL for who ignores that: with none, only SIGKILL comes.
        (RLIMIT_CPU, limits.cpu_seconds, 1),
        (RLIMIT_FSIZE, limits.file_size, 0),
    )
    return tuple((which, value, value + longer) for which, value, longer in wanted if value is not None)
