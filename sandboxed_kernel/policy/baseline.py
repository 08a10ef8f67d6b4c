"""Pure: what every sandboxed Python gets without being asked, and what no policy can give; a reason per row.

Three tables: files that are readable (a few writable) on every host, environment variables that enter or are set, and
paths that a grant may not contain. Nothing here looks at the host: real paths are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from posixpath import isabs, join
from typing import Literal

from sandboxed_kernel.confinement.filesystem import DEVICE, READ, READ_EXECUTE, SHARED_MEMORY, WRITE, Fs, PathRule
from sandboxed_kernel.policy.paths import is_within
from sandboxed_kernel.records import Record

# --- files ---------------------------------------------------------------------------------------------------------


class FileRow(Record):
    """``paths`` are separated by blanks; a missing one is skipped. ``{prefix}`` and the like stand for real paths."""

    access: Fs
    reason: str
    paths: str


FILES: tuple[FileRow, ...] = (
    # What runs. An interpreter may lie in a home folder (pyenv, uv, conda): its prefix is readable all the same.
    FileRow(READ_EXECUTE, "the Python that runs, its packages and their programs", "{prefix}"),
    FileRow(READ_EXECUTE, "packages of this Python that lie elsewhere: user installs, editable installs", "{imports}"),
    FileRow(READ_EXECUTE, "programs and libraries of the system, with its fonts, locales and time zones", """
        /usr /bin /sbin /lib /lib32 /lib64 /libx32"""),
    FileRow(READ_EXECUTE, "the same on NixOS and Guix, whose stores are world-readable by design", """
        /nix/store /gnu/store /run/current-system/sw"""),
    # What may be written.
    FileRow(WRITE, "a home of its own, removed afterwards", "{home}"),
    FileRow(WRITE, "what lasts of that home, removed when the user says so", "{lasting}"),
    FileRow(WRITE, "a folder for temporary files of its own, removed afterwards", "{tmp}"),
    FileRow(WRITE, "a folder for its own sockets, removed afterwards", "{run}"),
    # /etc, by name: /etc/shadow, keys of ssh and private certificates lie beside these.
    FileRow(READ, "the dynamic loader", "/etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/ld.so.preload"),
    FileRow(READ, "name resolution: libc reads these before it asks a server", """
        /etc/nsswitch.conf /etc/host.conf /etc/hosts /etc/resolv.conf /etc/gai.conf /etc/hostname /etc/services
        /etc/protocols /etc/networks /etc/rpc"""),
    FileRow(READ, "names of users and groups; passwords are in /etc/shadow", "/etc/passwd /etc/group"),
    FileRow(READ, "time zone and language", """
        /etc/localtime /etc/timezone /etc/locale.alias /etc/locale.conf /etc/default/locale"""),
    FileRow(READ, "public certificates and TLS settings; never /etc/ssl/private and /etc/pki/tls/private", """
        /etc/ssl/certs /etc/ssl/openssl.cnf /etc/ssl/cert.pem /etc/ssl/ca-bundle.pem /etc/pki/ca-trust
        /etc/pki/tls/certs /etc/pki/tls/cert.pem /etc/pki/tls/openssl.cnf /etc/ca-certificates
        /etc/ca-certificates.conf /etc/crypto-policies /etc/gnutls /var/lib/ca-certificates"""),
    FileRow(READ, "Debian's Python keeps sitecustomize.py there",
            "/etc/python3 " + " ".join(f"/etc/python3.{minor}" for minor in range(11, 19))),
    FileRow(READ, "Debian's Java keeps its settings and security policy there",
            "/etc/java " + " ".join(f"/etc/java-{version}-openjdk" for version in (8, 11, 17, 21, 25, 29))),
    FileRow(READ, "settings of IPython for all users", "/etc/ipython"),
    FileRow(READ, "fonts and their index", "/etc/fonts /var/cache/fontconfig"),
    FileRow(READ, "what is installed, as dpkg and rpm list it; where from may hold passwords (/etc/apt)", """
        /etc/dpkg /var/lib/dpkg /etc/rpm /var/lib/rpm /etc/alternatives"""),
    FileRow(READ, "catalogues and settings of programs for text, documents and networks; no secrets", """
        /etc/xml /etc/sgml /etc/papersize /etc/ghostscript /etc/libreoffice /etc/groff /etc/vim /etc/nanorc
        /etc/bash_completion /etc/bash_completion.d /etc/iproute2 /etc/ethertypes"""),
    FileRow(READ, "kinds of files by name and content", "/etc/mime.types /etc/magic /etc/magic.mime /etc/mailcap"),
    FileRow(READ, "shells and terminals", """
        /etc/bash.bashrc /etc/bashrc /etc/profile /etc/profile.d /etc/inputrc /etc/terminfo /etc/shells
        /etc/DIR_COLORS"""),
    FileRow(READ, "git does not start without it where it exists", "/etc/gitconfig"),
    FileRow(READ, "settings of programs that notebooks call; some do not start without theirs", """
        /etc/wgetrc /etc/chromium /etc/chromium.d /etc/ImageMagick-6 /etc/ImageMagick-7 /etc/manpath.config
        /etc/man_db.conf"""),
    FileRow(READ, "settings of languages that notebooks call", "/etc/perl /etc/R /etc/julia /etc/octave.conf"),
    FileRow(READ, "which system this is", """
        /etc/os-release /etc/lsb-release /etc/debian_version /etc/redhat-release /etc/alpine-release"""),
    FileRow(READ, "drivers of graphics cards, databases and Kerberos realms; no secrets", """
        /etc/OpenCL /etc/vulkan /etc/glvnd /etc/odbcinst.ini /etc/krb5.conf /etc/krb5.conf.d"""),
    FileRow(READ, "TeX for matplotlib", "/etc/texmf /var/lib/texmf"),
    # Never for writing: /proc/*/mem, oom_score_adj, sysrq. Landlock keeps the memory and environment of others closed.
    FileRow(READ, "what processes, memory and processors look like; psutil and libc read it", "/proc"),
    FileRow(READ, "processors, memory nodes and limits, as thread pools count them", """
        /sys/devices/system /sys/fs/cgroup /sys/kernel/mm/transparent_hugepage /sys/kernel/mm/hugepages"""),
    FileRow(READ, "psutil lists interfaces and batteries by them; they hold names, what these mean lies elsewhere",
            "/sys/class/net /sys/class/power_supply"),
    FileRow(READ, "which PCI devices there are: links, whose names are numbers of places", "/sys/bus/pci/devices"),
    # Not /dev/pts: with it the input of another terminal was read. Own terminals come from ioctl(TIOCGPTPEER).
    FileRow(DEVICE, "empty, zero and random data", "/dev/null /dev/zero /dev/full /dev/random /dev/urandom"),
    FileRow(DEVICE, "its own terminal, and new ones (pexpect, pty.spawn)", "/dev/tty /dev/ptmx"),
    FileRow(SHARED_MEMORY, "multiprocessing's semaphores and shared memory, by exact name", "/dev/shm"),
)  # fmt: skip


# What ``[accelerators] allow`` opens, by the maker's name. A card's memory is shared: its driver is what separates
# programs there, and a driver is a large piece of code that the sandboxed program may then call.
_NVIDIA, _AMD = "[accelerators] nvidia", "[accelerators] amd"
_CARD = DEVICE | Fs.READ_DIR
ACCELERATORS: Mapping[str, tuple[FileRow, ...]] = {
    "nvidia": (
        FileRow(_CARD, f"{_NVIDIA}: the cards and their driver's control devices", " ".join([
            *(f"/dev/nvidia{number}" for number in range(16)),
            "/dev/nvidiactl /dev/nvidia-uvm /dev/nvidia-uvm-tools /dev/nvidia-modeset /dev/nvidia-caps"])),
        FileRow(READ, f"{_NVIDIA}: where the cards are, their driver, the processors near them", """
            /sys/bus/pci /sys/devices /sys/module/nvidia /sys/module/nvidia_uvm /sys/class/drm"""),
        FileRow(READ, f"{_NVIDIA}: settings of the driver's libraries", "/etc/nvidia /etc/OpenCL /etc/vulkan"),
    ),
    "amd": (
        FileRow(_CARD, f"{_AMD}: compute and the cards", "/dev/kfd /dev/dri"),
        FileRow(READ, f"{_AMD}: where the cards are, their topology, their driver", """
            /sys/bus/pci /sys/devices /sys/class/kfd /sys/class/drm /sys/module/amdgpu"""),
        FileRow(READ_EXECUTE, f"{_AMD}: ROCm's libraries and programs", "/opt/rocm"),
    ),
}  # fmt: skip


def accelerator_rules(names: Iterable[str]) -> list[PathRule]:
    """The rules of ``names`` ("nvidia", "amd", "all"). What this host lacks is skipped."""
    makers = sorted(ACCELERATORS if "all" in names else names)
    rows = [row for maker in makers for row in ACCELERATORS[maker]]
    return [PathRule(path, row.access, row.reason, optional=True) for row in rows for path in row.paths.split()]


def card_nodes(maker: str) -> list[str]:
    """The device nodes that its word in ``[accelerators] allow`` opens."""
    return [path for row in ACCELERATORS[maker] for path in row.paths.split() if row.access == _CARD]


def maker_of(path: str) -> str | None:
    """Whose card ``path`` is a node of: the word for ``[accelerators] allow``."""
    nodes = ((maker, node) for maker in ACCELERATORS for node in card_nodes(maker))
    return next((maker for maker, node in nodes if is_within(path, node)), None)


_OPTIONAL_ROOTS = ("{imports}",)  # sys.path may name folders that nobody made


def file_rules(roots: Mapping[str, Sequence[str]]) -> list[PathRule]:
    """The table as rules. ``roots`` says what ``{prefix}``, ``{imports}``, ``{home}``, ``{lasting}``, ``{tmp}`` and
    ``{run}`` are.

    The interpreter and the private folders must be there; everything else differs from host to host.
    """
    return [
        PathRule(path, row.access, row.reason, optional=word in _OPTIONAL_ROOTS or not word.startswith("{"))
        for row in FILES
        for word in row.paths.split()
        for path in (roots[word[1:-1]] if word.startswith("{") else (word,))
    ]


# --- environment ---------------------------------------------------------------------------------------------------


class VariableRow(Record):
    """``names`` are separated by blanks; one that ends in ``*`` means every name that begins so and is no secret's."""

    reason: str
    names: str


# What is not named does not enter: JPY_API_TOKEN, JUPYTERHUB_*, AWS_*, SSH_AUTH_SOCK, KUBERNETES_*, DISPLAY,
# DBUS_SESSION_BUS_ADDRESS, HTTP_PROXY (its value may hold a password) ... A policy can pass what its code needs.
VARIABLES: tuple[VariableRow, ...] = (
    VariableRow("where programs and libraries are found", "PATH LD_LIBRARY_PATH PYTHONPATH JAVA_HOME R_HOME"),
    VariableRow("language, time zone", "LANG LANGUAGE LC_* TZ TZDIR"),
    VariableRow("the terminal", "TERM COLORTERM COLUMNS LINES NO_COLOR FORCE_COLOR CLICOLOR CLICOLOR_FORCE"),
    VariableRow("who and in which shell; /etc/passwd says the same", "USER LOGNAME SHELL"),
    VariableRow("how Python runs", """
        PYTHONHASHSEED PYTHONUTF8 PYTHONIOENCODING PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONWARNINGS
        PYTHONDEVMODE PYTHONMALLOC PYTHONFAULTHANDLER PYTHONNOUSERSITE PYTHONOPTIMIZE"""),
    VariableRow("which environment is active", "VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV"),
    VariableRow("certificate bundles; the files they name become readable", """
        SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO"""),
    VariableRow("numbers of threads and their placement", """
        OMP_* KMP_* GOMP_* MKL_* OPENBLAS_* BLIS_* GOTO_* NUMEXPR_* NUMBA_* VECLIB_* LOKY_MAX_CPU_COUNT
        RAYON_NUM_THREADS POLARS_MAX_THREADS GOMAXPROCS JULIA_NUM_THREADS MALLOC_ARENA_MAX"""),
    VariableRow("which graphics cards are used, and how loud", """
        CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES TF_CPP_MIN_LOG_LEVEL"""),
    VariableRow("how figures are drawn", "MPLBACKEND"),
    VariableRow("the debugger's switches", "PYDEVD_*"),
)  # fmt: skip

CERTIFICATE_VARIABLES = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)  # fmt: skip

_SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH")
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


class SetRow(Record):
    """A variable that the sandbox sets; ``{home}``, ``{tmp}``, ``{run}`` are its private folders; ``{cache}`` and
    ``{packages}`` lie in the home, or where they last."""

    name: str
    value: str
    reason: str


_PRIVATE = "the user's own lies outside; it would be refused, or persist"
SET: tuple[SetRow, ...] = (
    SetRow("HOME", "{home}", _PRIVATE),
    SetRow("TMPDIR", "{tmp}", "/tmp is everybody's; a unix socket's path holds 107 bytes, so this one is short"),
    SetRow("IPYTHONDIR", "{home}/.ipython", "ipykernel does not start without a writable one; profiles are code"),
    SetRow("JUPYTER_CONFIG_DIR", "{home}/.jupyter", _PRIVATE),
    SetRow("JUPYTER_DATA_DIR", "{home}/.local/share/jupyter", "kernelspecs are commands that run outside"),
    SetRow("JUPYTER_RUNTIME_DIR", "{run}", "other kernels' connection files with their keys lie in the user's"),
    SetRow("XDG_CONFIG_HOME", "{home}/.config", _PRIVATE),
    SetRow("XDG_CACHE_HOME", "{cache}", _PRIVATE),
    SetRow("XDG_DATA_HOME", "{home}/.local/share", _PRIVATE),
    SetRow("XDG_STATE_HOME", "{home}/.local/state", _PRIVATE),
    SetRow("XDG_RUNTIME_DIR", "{run}", "the sockets of the user's session lie in the user's"),
    SetRow("TMUX_TMPDIR", "{run}", "tmux keeps its sockets in /tmp, whatever TMPDIR says"),
    SetRow("MPLCONFIGDIR", "{home}/.config/matplotlib", "matplotlib warns where it cannot write its font index"),
    SetRow("JOBLIB_TEMP_FOLDER", "{tmp}", "it would use /dev/shm, where others could read its pickles by name"),
    SetRow("JAVA_TOOL_OPTIONS", "-Djava.io.tmpdir={tmp}", "Java does not read TMPDIR; Spark does not start without it"),
    SetRow("GRPC_DNS_RESOLVER", "native", "c-ares wants source addresses, which our datagram sockets have not"),
    SetRow("UCX_TLS", "^sysv", "MPI (UCX) ends the program where there is no System V shared memory"),
    SetRow("UCX_MODULES", "^ib", "MPI (UCX) would look for InfiniBand: a refusal that the user did not cause"),
    SetRow("MPIR_CVAR_CH4_CMA_ENABLE", "0", "MPI (MPICH) would read another process's memory; it copies instead"),
    SetRow("SANDBOXED_KERNEL_PACKAGES", "{packages}", "where %pip installs; the kernel's own start makes it"),
    SetRow("PIP_DISABLE_PIP_VERSION_CHECK", "1", "it asks pypi.org unbidden: a refusal that the user did not cause"),
)


# Folders of the private home that variables above name: programs warn, or go without, where one is missing.
HOME_FOLDERS = (".config", ".cache", ".local", ".local/share", ".local/state")


# What else variables above name there: programs write in these, so nothing of the user's is put in or over them.
_OF_PROGRAMS = (
    *(
        row.value.removeprefix("{home}/")
        for row in SET
        if row.value.startswith("{home}/") and row.value.removeprefix("{home}/") not in HOME_FOLDERS
    ),
    ".packages",
)


def home_links(grants: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What of the user's home stands in the private one, at the same place: (path in the home, where it leads).

    ``grants`` are such pairs of everything that is granted there. What lies beneath another one is reached through it.
    """
    found: dict[str, str] = {}
    for path, target in sorted(grants):
        in_the_way = any(is_within(own, path) for own in (*HOME_FOLDERS, *_OF_PROGRAMS))
        taken = any(is_within(path, own) for own in (*_OF_PROGRAMS, *found))
        if path and not in_the_way and not taken:
            found[path] = target
    return tuple(found.items())


def _looks_secret(name: str) -> bool:
    return any(word in name.upper() for word in _SECRET_WORDS)


def enters(name: str) -> bool:
    """Whether the variable ``name`` is taken over without the policy saying so."""
    for row in VARIABLES:
        for pattern in row.names.split():
            if name == pattern:
                return True
            if pattern.endswith("*") and name.startswith(pattern[:-1]) and not _looks_secret(name):
                return True
    return False


def environment(
    outside: Mapping[str, str], *, passed: Iterable[str], settings: Iterable[tuple[str, str]], roots: Mapping[str, str]
) -> dict[str, str]:
    """The sandbox's environment: what enters, what the policy passes, what the sandbox sets, what the policy sets."""
    inside = {"PATH": _DEFAULT_PATH} | {name: value for name, value in outside.items() if enters(name)}
    inside |= {name: outside[name] for name in passed if name in outside}
    inside |= {row.name: row.value.format_map(roots) for row in SET}
    return inside | dict(settings)


# --- protected paths -----------------------------------------------------------------------------------------------

Access = Literal["write", "any", "none"]


class Protected(Record):
    """A real path that a grant must not open, because Landlock cannot take a part of a grant back.

    ``above``: which grants are refused that equal or contain it; ``inside``: which that lie beneath it.
    """

    path: str
    what: str  # completes "... is" or "... contains"
    above: Access
    inside: Access
    write: str = ""  # what to do instead; empty: name a narrower folder


class Conflict(Record):
    """Why a grant is refused, as the ``found`` and ``write`` of a PolicyError."""

    found: str
    write: str


_NARROWER = "Name a narrower folder."
_OWN_FOLDER = (
    'Move the notebook into a folder of its own (in JupyterLab: "New Folder", drag the notebook into it, open it there)'
)
ENVIRONMENT = (
    "Code that is written there would later run outside the sandbox. Keep the environment outside of the folder, or let"
    ' only a part of the folder be written: [filesystem] write = ["./output"].'
)
SECRETS = "Copy what the code needs into the notebook's folder."
POLICY_ADVICE = (
    "The code could write its own policy for the next start. Keep the policy outside of the folder, or let only a part"
    ' of the folder be written: [filesystem] write = ["./output"].'
)

SYSTEM_PATHS: tuple[Protected, ...] = (
    Protected("/", "the whole file system", "any", "none"),
    Protected("/etc", "the system's settings", "any", "write"),
    Protected("/proc", "every process of the machine", "any", "write"),
    Protected("/sys", "the machine's devices and settings", "write", "write"),
    Protected("/dev", "the machine's devices and terminals", "any", "any"),
    Protected("/run", "sockets and secrets of the system's services", "any", "write"),
    Protected("/var/run", "sockets and secrets of the system's services", "any", "write"),
    Protected("/var", "data of the system's services", "any", "none"),
    Protected("/home", "the home folders of all users", "any", "none"),
    Protected("/tmp", "temporary files of every program, other kernels' keys among them", "any", "none"),
    Protected("/var/tmp", "temporary files of every program", "any", "none"),
    *(
        Protected(path, "programs of the system", "write", "write")
        for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/boot", "/nix", "/gnu")
    ),
)

# A graphics card is of use only with its device; whoever names one in a policy means it.
_ACCELERATORS = ("/dev/nvidia", "/dev/dri", "/dev/kfd", "/dev/accel", "/dev/shm/")

# Beneath the home folder. Reading inside other dot folders (~/.cache/huggingface) can be granted.
SECRET_FOLDERS = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".config/git", ".netrc",
    ".git-credentials", ".pypirc", ".password-store", ".mozilla", ".config/google-chrome", ".config/chromium",
    ".local/share/keyrings", ".local/share/jupyter", ".jupyter", ".ipython",
)  # fmt: skip


def protected_paths(
    *,
    home: str,
    interpreters: Iterable[str],
    jupyter: Iterable[str],
    policies: Iterable[str],
    kept: Iterable[tuple[str, str]],
    further: Iterable[Protected] = (),
) -> tuple[Protected, ...]:
    """Every protected path of this host; all arguments are real paths.

    ``interpreters``: prefixes and import folders of the Python that runs launcher and kernel. ``jupyter``: the user's
    runtime, data and configuration folders. ``policies``: the files of the policy. ``kept``: (path, what it is) of
    further files that nothing inside may read or write: the audit log, the connection file. ``further``: what else was
    found on this host, links on the way to any of these among them (surroundings.py).
    """
    return (
        *(Protected(path, "Jupyter's folder with keys and commands", "any", "any", SECRETS) for path in jupyter),
        *(Protected(join(home, name), "credentials or settings", "any", "any", SECRETS) for name in SECRET_FOLDERS),
        Protected(home, "your home folder, with your keys and settings in it", "any", "none",
                  f"{_OWN_FOLDER}, for example {join(home, 'sandbox')}."),
        *(Protected(path, what, "any", "any") for path, what in kept),
        *(Protected(path, "the policy of this kernel", "write", "write", POLICY_ADVICE) for path in policies),
        *SYSTEM_PATHS,
        *(Protected(path, "the Python that runs this kernel", "write", "write", ENVIRONMENT)
          for path in interpreters),
        *further,
    )  # fmt: skip


def protected_link(path: str, what: str, write: str) -> Protected:
    """A symbolic link on the way to something that is run, read or trusted outside: whoever may exchange the link says
    what that is.
    """
    return Protected(path, f"a symbolic link to {what}", "write", "write", write)


def _asks(writable: bool, refused: Access) -> bool:
    return refused == "any" or (refused == "write" and writable)


def protected_conflict(path: str, *, writable: bool, protected: Iterable[Protected]) -> Conflict | None:
    """Why reading (and with ``writable`` writing) everything beneath the real ``path`` cannot be granted, or None."""
    if path.startswith(_ACCELERATORS):
        return None
    if not isabs(path):
        return Conflict(f'"{path}" is not an absolute path', "Write the whole path.")
    for row in sorted(protected, key=lambda row: row.path != path):  # "is" explains more than "contains"
        if row.path == path and _asks(writable, row.above):
            return Conflict(f"{path} is {row.what}", row.write or _NARROWER)
        if is_within(row.path, path) and _asks(writable, row.above):
            return Conflict(f"{path} contains {row.path}, {row.what}", row.write or _NARROWER)
        if is_within(path, row.path) and path != row.path and _asks(writable, row.inside):
            return Conflict(f"{path} lies in {row.path}, {row.what}", row.write or SECRETS)
    return None


def dot_folder_conflict(path: str, *, writable: bool, home: str) -> Conflict | None:
    """Why a grant in one of the home folder's dot folders is refused: programs outside read their settings there.

    Reading inside one (~/.cache/huggingface) is the user's to give, writing only beneath ~/.cache.
    """
    if path == home or not is_within(path, home):
        return None
    first, _, rest = path[len(home.rstrip("/")) + 1 :].partition("/")
    if not first.startswith(".") or (rest and (not writable or first == ".cache")):
        return None
    return Conflict(
        f"{path} holds settings that programs outside the sandbox trust",
        "Name a folder inside it for reading, or work in a folder whose name does not begin with a dot.",
    )
