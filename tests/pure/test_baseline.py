"""What every sandbox gets, what never enters, and what no grant may contain."""

from __future__ import annotations

from itertools import product

import pytest

from sandboxed_kernel.confinement.filesystem import DEVICE, READ, READ_EXECUTE, Fs
from sandboxed_kernel.policy.baseline import (
    FILES,
    SET,
    SYSTEM_PATHS,
    VARIABLES,
    Protected,
    dot_folder_conflict,
    enters,
    environment,
    file_rules,
    home_links,
    protected_conflict,
    protected_paths,
)
from sandboxed_kernel.policy.paths import is_within

HOME = "/home/ana"
VENV = "/home/ana/project/.venv"
RUNTIME = "/home/ana/.local/share/jupyter/runtime"
PROTECTED = protected_paths(
    home=HOME,
    interpreters=("/usr", VENV, "/home/ana/.pyenv/versions/3.11.7", "/opt/sandboxed/src"),
    jupyter=(RUNTIME, "/home/ana/.local/share/jupyter", "/home/ana/.jupyter", "/srv/jupyter-runtime"),
    policies=("/home/ana/policies/policy.toml",),
    kept=(("/home/ana/logs/audit.jsonl", "the audit log"), ("/srv/k/kernel-1.json", "the connection file")),
)
ROOTS = {
    "prefix": ("/opt/py", "/usr"),
    "imports": (),
    "home": ("/p/h",),
    "tmp": ("/p/t",),
    "run": ("/p/r",),
    "lasting": ("/p/l/cache",),
}
VARIABLE_ROOTS = {"home": "/h", "tmp": "/t", "run": "/r", "cache": "/h/.cache", "packages": "/h/.packages"}
CHANGES = Fs(0xFFFF) & ~(READ_EXECUTE | Fs.IOCTL_DEV)


def words(text: str) -> list[str]:
    return text.split()


# --- files -----------------------------------------------------------------------------------------------------------


def test_every_row_has_a_reason_and_every_root_is_replaced() -> None:
    for row in (*FILES, *SET, *VARIABLES, *SYSTEM_PATHS):
        assert getattr(row, "reason", "") or getattr(row, "what", "")
    rules = file_rules(ROOTS)
    assert all(rule.path.startswith("/") for rule in rules)
    assert [rule.path for rule in rules if not rule.optional] == [
        "/opt/py",
        "/usr",
        "/p/h",
        "/p/l/cache",
        "/p/t",
        "/p/r",
    ]


def test_what_is_writable_without_a_grant() -> None:
    writable = {rule.path for rule in file_rules(ROOTS) if rule.access & CHANGES}
    assert writable == {"/p/h", "/p/l/cache", "/p/t", "/p/r", "/dev/shm", *words(
        "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx"
    )}  # fmt: skip


@pytest.mark.parametrize("path", words("""
    / /etc /etc/shadow /etc/gshadow /etc/ssh /etc/ssh/ssh_host_ed25519_key /etc/ssl/private /etc/ssl/private/x.key
    /etc/pki/tls/private /etc/sudoers /etc/jupyter /etc/pip.conf /etc/environment /etc/machine-id /etc/apt
    /home /home/ana /root
    /run /run/secrets /run/user/1000 /run/docker.sock /var/run/secrets/kubernetes.io/serviceaccount/token /var /var/lib
    /tmp /var/tmp /dev /dev/pts /dev/pts/0 /dev/mem /dev/sda /dev/kvm /dev/input /sys /sys/kernel/security
    /sys/firmware /boot /mnt /srv /opt"""))  # fmt: skip
def test_what_nobody_gets_without_a_grant(path: str) -> None:
    assert not [rule for rule in file_rules(ROOTS) if is_within(path, rule.path)]


@pytest.mark.parametrize("path", words("""
    /usr/bin/python3 /usr/share/zoneinfo/UTC /etc/ld.so.cache /etc/nsswitch.conf /etc/hosts /etc/resolv.conf /etc/passwd
    /etc/localtime /etc/ssl/certs/ca-certificates.crt /etc/mime.types /etc/fonts/fonts.conf
    /etc/python3.11/sitecustomize.py /etc/java-17-openjdk/security/java.security /proc/cpuinfo
    /sys/fs/cgroup/memory.max /sys/devices/system/cpu/online /opt/py/lib/python3.11/os.py"""))  # fmt: skip
def test_what_libraries_read(path: str) -> None:
    assert any(is_within(path, rule.path) and rule.access & READ == READ for rule in file_rules(ROOTS))


def test_proc_and_sys_are_never_writable_and_devices_are_not_run() -> None:
    for rule in file_rules(ROOTS):
        if rule.path.startswith(("/proc", "/sys", "/etc")):
            assert rule.access == READ
        if rule.path.startswith("/dev/") and rule.path != "/dev/shm":
            assert rule.access == DEVICE


# --- environment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", words("""
    JPY_API_TOKEN JPY_PARENT_PID JPY_SESSION_NAME JUPYTERHUB_API_TOKEN JUPYTERHUB_USER JUPYTER_TOKEN AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_PROFILE GOOGLE_APPLICATION_CREDENTIALS AZURE_CLIENT_SECRET OPENAI_API_KEY GITHUB_TOKEN
    GH_TOKEN HF_TOKEN SSH_AUTH_SOCK SSH_AGENT_PID GPG_AGENT_INFO KUBERNETES_SERVICE_HOST KUBECONFIG DOCKER_HOST
    DBUS_SESSION_BUS_ADDRESS DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_RUNTIME_DIR XDG_CONFIG_HOME HTTP_PROXY https_proxy
    PIP_INDEX_URL UV_INDEX_URL NPM_TOKEN DATABASE_URL PGPASSWORD MYSQL_PWD PYTHONSTARTUP PYTHONHOME LD_PRELOAD LD_AUDIT
    BASH_ENV HOME TMPDIR OMP_API_KEY MKL_SECRET NUMBA_TOKEN PYDEVD_PASSWORD LC_KEY LC_API_TOKEN"""))  # fmt: skip
def test_what_never_enters_by_itself(name: str) -> None:
    assert not enters(name)
    outside = environment({name: "outside"}, passed=(), settings=(), roots=VARIABLE_ROOTS)
    assert "outside" not in outside.values()


@pytest.mark.parametrize(
    "name",
    words("""
    PATH LANG LC_ALL LC_CTYPE TZ TERM COLUMNS SSL_CERT_FILE REQUESTS_CA_BUNDLE OMP_NUM_THREADS MKL_NUM_THREADS
    OPENBLAS_NUM_THREADS NUMEXPR_MAX_THREADS VIRTUAL_ENV CONDA_PREFIX PYTHONHASHSEED CUDA_VISIBLE_DEVICES
    MPLBACKEND"""),
)
def test_what_enters(name: str) -> None:
    assert enters(name)


def test_later_words_win_but_missing_variables_stay_missing() -> None:
    roots = VARIABLE_ROOTS
    outside = {"PATH": "/bin", "HOME": HOME, "MPLCONFIGDIR": "/x", "OPENAI_BASE_URL": "u", "A": "1"}
    inside = environment(outside, passed=("OPENAI_BASE_URL", "A", "ABSENT"), settings=(("A", "2"),), roots=roots)
    assert (inside["PATH"], inside["HOME"], inside["OPENAI_BASE_URL"], inside["A"]) == ("/bin", "/h", "u", "2")
    assert inside["MPLCONFIGDIR"] == "/h/.config/matplotlib"
    assert "ABSENT" not in inside
    assert "{" not in "".join(inside.values())
    assert environment({}, passed=(), settings=(), roots=roots)["PATH"]


# --- protected paths -------------------------------------------------------------------------------------------------


def refused(path: str, *, writable: bool) -> bool:
    conflict = protected_conflict(path, writable=writable, protected=PROTECTED) or dot_folder_conflict(
        path, writable=writable, home=HOME
    )
    if conflict is not None:
        assert path in conflict.found
        assert conflict.write.endswith(".")
    return conflict is not None


@pytest.mark.parametrize("path", words("""
    / /home /home/ana /etc /proc /dev /run /var /tmp /var/tmp /home/ana/.ssh /home/ana/.ssh/keys /home/ana/.aws
    /home/ana/.jupyter /home/ana/.ipython/profile_default /home/ana/.local /home/ana/.local/share
    /home/ana/.local/share/jupyter /home/ana/.local/share/jupyter/runtime /home/ana/.config /home/ana/.cache
    /home/ana/.config/gcloud /home/ana/.netrc /home/ana/logs /home/ana/logs/audit.jsonl /srv/jupyter-runtime /srv
    /srv/k /srv/k/kernel-1.json /dev/pts /dev/pts/3 /dev/mem /dev/sda /run/docker.sock/.. relative"""))  # fmt: skip
def test_refused_for_writing_whatever_it_is(path: str) -> None:
    assert refused(path, writable=True)


@pytest.mark.parametrize(
    "path",
    words("""
    / /home /home/ana /etc /proc /dev /run /var /tmp /var/tmp /home/ana/.ssh /home/ana/.ssh/id_ed25519 /home/ana/.local
    /home/ana/.local/share /home/ana/.local/share/jupyter/runtime /home/ana/.config /home/ana/.cache
    /home/ana/.git-credentials /home/ana/logs /srv/jupyter-runtime/kernel-2.json /srv/k /dev/pts /dev/input"""),
)
def test_refused_for_reading_too(path: str) -> None:
    assert refused(path, writable=False)


@pytest.mark.parametrize(
    "path",
    words("""
    /usr /usr/lib /usr/local/bin /etc/cron.d /sys /sys/fs/cgroup /proc/self /run/user/1000 /home/ana/project
    /home/ana/project/.venv /home/ana/project/.venv/lib/python3.11/site-packages /home/ana/.pyenv/versions/3.11.7/lib
    /opt/sandboxed /opt/sandboxed/src/pkg /home/ana/policies /home/ana/.config/app /home/ana/.local/bin"""),
)
def test_refused_for_writing_only(path: str) -> None:
    assert refused(path, writable=True)
    assert not refused(path, writable=False)


@pytest.mark.parametrize("path", words("""
    /home/ana/work /home/ana/work/.git /home/ana/projects /home/ana/project/output /home/ana/datasets /tmp/kernel-x
    /srv/data /mnt/share /data /scratch/ana /home/ana/.cache/huggingface /home/bob /home/anabel /homes /etcetera
    /dev/nvidia0 /dev/dri/card0 /var/tmp/job-7 /workspace /home/ana/logs2"""))  # fmt: skip
def test_granted(path: str) -> None:
    assert not refused(path, writable=True)
    assert not refused(path, writable=False)


def test_reading_inside_a_dot_folder_can_be_granted() -> None:
    assert not refused("/home/ana/.config/matplotlib", writable=False)
    assert not refused("/home/ana/.pyenv/versions", writable=False)


def test_the_home_folder_as_workspace_is_explained() -> None:
    conflict = protected_conflict(HOME, writable=True, protected=PROTECTED)
    assert conflict is not None
    assert conflict.found == "/home/ana is your home folder, with your keys and settings in it"
    assert "Move the notebook into a folder of its own" in conflict.write
    assert "/home/ana/sandbox" in conflict.write


def test_an_environment_inside_the_workspace_is_explained() -> None:
    conflict = protected_conflict("/home/ana/project", writable=True, protected=PROTECTED)
    assert conflict is not None
    assert conflict.found == f"/home/ana/project contains {VENV}, the Python that runs this kernel"
    assert 'write = ["./output"]' in conflict.write


def test_what_is_refused_for_reading_is_refused_for_writing() -> None:
    paths = {row.path for row in PROTECTED} | {f"{row.path.rstrip('/')}/x" for row in PROTECTED}
    for path in paths:
        assert not (refused(path, writable=False) and not refused(path, writable=True)), path


def test_every_protected_path_is_refused_with_all_that_contain_it() -> None:
    for row, writable in product(PROTECTED, (False, True)):
        if row.above == "any" or writable:
            path = row.path
            while path != "/":
                assert refused(path, writable=writable), (row.path, path)
                path = path.rsplit("/", 1)[0] or "/"
            assert refused("/", writable=writable)


@pytest.mark.parametrize("home", ["/", "/nonexistent", "/root", "/home/jovyan"])
def test_any_home_protects_its_dot_folders(home: str) -> None:
    protected = protected_paths(home=home, interpreters=(), jupyter=(), policies=(), kept=())
    for name in (".ssh", ".bashrc", ".config"):
        path = f"{home.rstrip('/')}/{name}"
        assert protected_conflict(path, writable=True, protected=protected) or dot_folder_conflict(
            path, writable=True, home=home
        )
    assert protected_conflict(home, writable=False, protected=protected)


def test_only_whole_components_count() -> None:
    rows = (Protected("/a/b", "x", "any", "any"),)
    assert protected_conflict("/a/bc", writable=True, protected=rows) is None
    assert protected_conflict("/a/b/c", writable=True, protected=rows)
    assert protected_conflict("/a", writable=True, protected=rows)


def test_what_is_granted_in_the_home_stands_at_its_place_in_the_private_one() -> None:
    granted = [("a/b/c", "/h/a/b/c"), ("data", "/mnt/data"), ("a/b", "/h/a/b"), ("a/x", "/h/a/x"), ("a b", "/h/a b")]
    assert dict(home_links(granted)) == {"data": "/mnt/data", "a/b": "/h/a/b", "a/x": "/h/a/x", "a b": "/h/a b"}
    assert dict(home_links([("data", "/h/data"), ("data2", "/h/data2")])) == {"data": "/h/data", "data2": "/h/data2"}


@pytest.mark.parametrize(
    "path",
    ["", ".cache", ".config", ".local", ".local/share", ".ipython", ".ipython/x", ".jupyter", ".packages/lib",
     ".config/matplotlib", ".local/share/jupyter/kernels"],
)  # fmt: skip
def test_nothing_is_put_in_the_place_of_the_private_homes_own_folders(path: str) -> None:
    assert home_links([(path, "/h/x")]) == ()


def test_a_folder_beside_the_private_homes_own_is_put() -> None:
    assert home_links([(".cache/huggingface", "/h/.cache/huggingface")]) == (
        (".cache/huggingface", "/h/.cache/huggingface"),
    )
