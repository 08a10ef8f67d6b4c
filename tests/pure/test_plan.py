"""A policy, a host and its surroundings make one plan, or a refusal in words."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from resource import RLIMIT_CORE, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NOFILE

import pytest

from sandboxed_kernel.confinement.filesystem import READ, READ_EXECUTE, WRITE, Fs, handled_fs, handled_net, scoped
from sandboxed_kernel.confinement.plan import (
    HostFeatures,
    Plan,
    Surroundings,
    describe_missing,
    effective_grants,
    make_plan,
    missing_features,
    put_first,
    second_fences,
)
from sandboxed_kernel.errors import HostError, PolicyError
from sandboxed_kernel.policy.model import BEST_EFFORT_NAMES, Limits, PathGrant, Policy

HOST = HostFeatures(landlock_abi=7, seccomp_notify=True, addfd=True, machine="x86_64", kernel_release="6.18.0")
HERE = Surroundings(
    workspace="/home/ana/work",
    home="/home/ana",
    private="/tmp/sbk-1",
    prefixes=("/home/ana/.venvs/py", "/usr"),
    import_paths=("/opt/kernel/src",),
    jupyter=("/home/ana/.local/share/jupyter", "/home/ana/.jupyter"),
    policy_files=("/etc/sandbox/policy.toml",),
    kept=(("/home/ana/.local/state/audit.jsonl", "the audit log"),),
    further=(),
    real_paths={"/home/ana/datasets": "/mnt/big/datasets", "/home/ana/out": "/home/ana/out"},
    environment={"PATH": "/bin", "LANG": "C", "JPY_API_TOKEN": "secret", "API_KEY": "k"},
    umask=0o027,
    argv=("/usr/bin/python3", "-m", "x"),
)
SUBSETS = [
    frozenset(names)
    for names in chain.from_iterable(
        combinations(BEST_EFFORT_NAMES, size) for size in range(len(BEST_EFFORT_NAMES) + 1)
    )
]
# What each ABI lacks, written out once more: landlock(7), VERSIONS.
LACKS = {
    1: {"truncate", "tcp", "ioctl", "abstract", "signals"},
    2: {"truncate", "tcp", "ioctl", "abstract", "signals"},
    3: {"tcp", "ioctl", "abstract", "signals"},
    4: {"ioctl", "abstract", "signals"},
    5: {"abstract", "signals"},
    6: set(),
    7: set(),
}


def grant(path: str, *, writable: bool) -> PathGrant:
    return PathGrant(path, writable, path, f"policy.toml: filesystem.{'write' if writable else 'read'}[0]")


def rights(plan: Plan, path: str) -> Fs:
    found = [rule.access for rule in plan.path_rules if rule.path == path]
    assert found, f"no rule for {path}"
    combined = Fs(0)
    for access in found:
        combined |= access
    return combined


# --- what the host can do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", range(8))
def test_every_host_with_every_best_effort(abi: int) -> None:
    features = replace(HOST, landlock_abi=abi)
    for best_effort in SUBSETS:
        policy = Policy(best_effort=best_effort)
        if abi == 0 or LACKS[abi] - best_effort:
            with pytest.raises(HostError):
                make_plan(policy, features, HERE)
            continue
        plan = make_plan(policy, features, HERE)
        assert set(plan.missing) == LACKS[abi]
        assert (plan.handled_fs, plan.handled_net, plan.scoped) == (handled_fs(abi), handled_net(abi), scoped(abi))
        assert (plan.abi, plan.machine) == (abi, "x86_64")


def test_missing_features_are_the_policys_words() -> None:
    assert set(missing_features(1)) == set(BEST_EFFORT_NAMES)
    for abi, lacking in LACKS.items():
        assert set(missing_features(abi)) == lacking


@pytest.mark.parametrize("abi", range(12))
def test_second_fences_are_named_once_each(abi: int) -> None:
    words = second_fences(abi)
    assert all(words.count(what) == 1 for what in ("audit log", "unix sockets by path", "UDP"))
    assert ("newer Linux" in words) == (abi < 10)


def test_the_refusal_names_the_word_that_would_allow_it() -> None:
    with pytest.raises(HostError) as refused:
        make_plan(Policy(best_effort=frozenset({"abstract"})), replace(HOST, landlock_abi=5), HERE)
    assert str(refused.value) == (
        "this host has Landlock ABI 5; signals cannot be kept inside before ABI 6 (Linux 6.12)."
        " To go on with less, in a terminal: sandboxed-kernel install --best-effort. Or write in the policy:"
        ' best_effort = ["abstract", "signals"].'
    )
    assert describe_missing("truncate", 2) == (
        "this host has Landlock ABI 2; files outside the writable folders cannot be kept from being emptied before"
        " ABI 3 (Linux 6.2)."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"landlock_abi": 0}, "no Landlock"),
        ({"landlock_abi": -1}, "no Landlock"),
        ({"seccomp_notify": False}, "no seccomp user notification"),
        ({"addfd": False}, "SECCOMP_ADDFD_FLAG_SEND"),
    ],
)
def test_what_no_best_effort_replaces(change: dict[str, int], words: str) -> None:
    with pytest.raises(HostError, match=words) as refused:
        make_plan(Policy(best_effort=frozenset(BEST_EFFORT_NAMES)), replace(HOST, **change), HERE)  # type: ignore[arg-type] # a mapping
    assert "6.18.0" in str(refused.value)


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_default_policy() -> None:
    plan = make_plan(Policy(), HOST, HERE)
    assert rights(plan, "/home/ana/work") == WRITE
    assert rights(plan, "/home/ana/.venvs/py") == READ_EXECUTE
    assert rights(plan, "/opt/kernel/src") == READ_EXECUTE
    assert plan.folders[:3] == ("/tmp/sbk-1/h", "/tmp/sbk-1/t", "/tmp/sbk-1/r")
    assert all(rights(plan, folder) == WRITE for folder in plan.folders[:3])
    named = {value for name, value in plan.environment.items() if name.startswith("XDG_")}
    assert named <= set(plan.folders)  # programs warn where a folder that a variable names is missing
    assert (plan.cwd, plan.argv, plan.umask) == ("/home/ana/work", HERE.argv, 0o027)
    paths = {rule.path for rule in plan.path_rules}
    assert not paths & {"/", "/home", "/home/ana", "/tmp", "/tmp/sbk-1", "/dev", "/dev/pts", "/etc", "/run"}


def test_grants_are_put_on_real_paths() -> None:
    policy = Policy(grants=(grant("/home/ana/datasets", writable=False),))
    plan = make_plan(policy, HOST, HERE)
    assert rights(plan, "/mnt/big/datasets") == READ_EXECUTE
    assert "/home/ana/datasets" not in {rule.path for rule in plan.path_rules}
    assert rights(plan, "/home/ana/work") == WRITE


def test_a_policy_that_names_what_is_writable_makes_the_rest_of_the_workspace_readable_only() -> None:
    plan = make_plan(Policy(grants=(grant("/home/ana/out", writable=True),)), HOST, HERE)
    assert rights(plan, "/home/ana/out") == WRITE
    assert rights(plan, "/home/ana/work") == READ_EXECUTE
    both = Policy(grants=(grant("/home/ana/out", writable=True), grant("/home/ana/work", writable=True)))
    assert rights(make_plan(both, HOST, HERE), "/home/ana/work") == WRITE
    assert [given.writable for given in effective_grants(both, "/home/ana/work")] == [False, True, True]


def test_a_graphics_card_gets_its_commands() -> None:
    here = replace(HERE, real_paths={"/dev/nvidia0": "/dev/nvidia0"})
    plan = make_plan(Policy(grants=(grant("/dev/nvidia0", writable=True),)), HOST, here)
    assert rights(plan, "/dev/nvidia0") & Fs.IOCTL_DEV


def refusal(policy: Policy, here: Surroundings = HERE) -> PolicyError:
    with pytest.raises(PolicyError) as refused:
        make_plan(policy, HOST, here)
    return refused.value


def test_the_home_folder_as_workspace_is_refused() -> None:
    error = refusal(Policy(), replace(HERE, workspace="/home/ana"))
    assert error.place == "the notebook's folder"
    assert "is your home folder" in error.found
    assert "Move the notebook into a folder of its own" in error.write


def test_the_home_folder_is_refused_for_reading_only_too() -> None:
    policy = Policy(grants=(grant("/home/ana/out", writable=True),))
    assert "is your home folder" in refusal(policy, replace(HERE, workspace="/home/ana")).found


@pytest.mark.parametrize(
    "workspace", ["/", "/home", "/tmp", "/etc", "/home/ana/.config/app", "/usr/share", "/opt/kernel"]
)
def test_other_workspaces_that_are_refused(workspace: str) -> None:
    assert workspace in refusal(Policy(), replace(HERE, workspace=workspace)).found


def test_an_environment_in_the_workspace_is_refused_unless_only_a_part_is_written() -> None:
    output = "/home/ana/work/output"
    here = replace(HERE, prefixes=("/home/ana/work/.venv", "/usr"), real_paths={output: output})
    error = refusal(Policy(), here)
    assert "contains /home/ana/work/.venv, the Python that runs this kernel" in error.found
    assert 'write = ["./output"]' in error.write
    plan = make_plan(Policy(grants=(grant(output, writable=True),)), HOST, here)
    assert rights(plan, "/home/ana/work") == READ_EXECUTE


def test_a_policy_in_the_workspace_is_refused() -> None:
    error = refusal(Policy(), replace(HERE, policy_files=("/home/ana/work/policy.toml",)))
    assert "the policy of this kernel" in error.found


def test_a_link_to_a_protected_folder_is_refused() -> None:
    here = replace(HERE, real_paths={"/home/ana/work/out": "/home/ana/.ssh"})
    error = refusal(Policy(grants=(grant("/home/ana/work/out", writable=True),)), here)
    assert error.place == "policy.toml: filesystem.write[0]"
    assert "/home/ana/.ssh" in error.found


@pytest.mark.parametrize("writable", [False, True])
def test_a_grant_of_nothing_opens_nothing_and_widens_nothing(writable: bool) -> None:
    gone, there = grant("/home/ana/typo", writable=writable), grant("/home/ana/datasets", writable=False)
    plan = make_plan(Policy(grants=(gone, there)), HOST, HERE)
    assert plan.absent == (gone,)
    without = make_plan(Policy(grants=(there,)), HOST, HERE)
    assert [rule for rule in plan.path_rules if rule.path != HERE.workspace] == [
        rule for rule in without.path_rules if rule.path != HERE.workspace
    ]
    # A line under "write" says that the notebook's folder is not writable, whether what it names is there or not.
    assert rights(plan, HERE.workspace) == (READ_EXECUTE if writable else WRITE)


def test_what_the_policy_requires_and_is_not_there_is_refused() -> None:
    required = PathGrant("/home/ana/typo", False, "~/typo", "policy.toml: filesystem.require[0]")
    error = refusal(Policy(required=(required,)))
    assert error.place == "policy.toml: filesystem.require[0]"
    assert '"~/typo" does not exist (/home/ana/typo)' in error.found
    there = PathGrant("/home/ana/datasets", False, "~/datasets", "policy.toml: filesystem.require[0]")
    plan = make_plan(Policy(required=(there,)), HOST, HERE)
    assert "/mnt/big/datasets" not in {rule.path for rule in plan.path_rules}  # it opens nothing


@pytest.mark.parametrize("prefix", ["/home/ana/.local", "/home/ana", "/", "/home"])
def test_an_interpreter_whose_prefix_contains_keys_is_refused(prefix: str) -> None:
    with pytest.raises(HostError, match="environment with a folder of its own"):
        make_plan(Policy(), HOST, replace(HERE, prefixes=(prefix, "/usr")))


@pytest.mark.parametrize(
    "prefix",
    ["/home/ana/.pyenv/versions/3.11.7", "/home/ana/.local/share/uv/python/x", "/home/ana/.venv", "/opt/conda"],
)
def test_an_interpreter_may_lie_in_a_home_folder(prefix: str) -> None:
    assert rights(make_plan(Policy(), HOST, replace(HERE, prefixes=(prefix, "/usr"))), prefix) == READ_EXECUTE


# --- environment, limits ---------------------------------------------------------------------------------------------


def test_the_environment() -> None:
    policy = Policy(environment_pass=("API_KEY",), environment_set=(("LANG", "de"),))
    inside = make_plan(policy, HOST, HERE).environment
    assert "JPY_API_TOKEN" not in inside
    assert (inside["API_KEY"], inside["LANG"], inside["HOME"]) == ("k", "de", "/tmp/sbk-1/h")
    assert "http_proxy" not in inside


@pytest.mark.parametrize(
    ("proxy", "url"), [(("127.0.0.1", 3128), "http://127.0.0.1:3128"), (("::1", 8080), "http://[::1]:8080")]
)
def test_a_proxy_is_announced(proxy: tuple[str, int], url: str) -> None:
    inside = make_plan(Policy(proxy=proxy), HOST, HERE).environment
    assert {inside[name] for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")} == {url}
    assert "localhost" in inside["no_proxy"]


def test_certificates_that_the_environment_names_are_readable() -> None:
    here = replace(
        HERE,
        environment={"SSL_CERT_FILE": "/home/ana/ca.pem", "SSL_CERT_DIR": "/home/ana", "PIP_CERT": "/gone.pem"},
        real_paths={"/home/ana/ca.pem": "/home/ana/certs/ca.pem", "/home/ana": "/home/ana"},
    )
    plan = make_plan(Policy(), HOST, here)
    assert rights(plan, "/home/ana/certs/ca.pem") == READ
    assert not {"/home/ana", "/gone.pem"} & {rule.path for rule in plan.path_rules}


def test_limits() -> None:
    assert make_plan(Policy(), HOST, HERE).rlimits == ((RLIMIT_CORE, 1, 1),)
    limits = Limits(memory=1 << 30, processes=5, open_files=64, cpu_seconds=7, file_size=1 << 20)
    plan = make_plan(Policy(limits=limits), HOST, HERE)
    rows = {(RLIMIT_CORE, 1, 1), (RLIMIT_NOFILE, 64, 64), (RLIMIT_CPU, 7, 8), (RLIMIT_FSIZE, 1 << 20, 1 << 20)}
    assert set(plan.rlimits) == rows
    assert plan.limits == limits


def test_only_folders_whose_programs_can_be_run_stay_in_path() -> None:
    search = "/home/ana/.pyenv/shims:/opt/tools:/home/ana/.venvs/py/bin:/usr/local/bin:/etc:.::/bin"
    real = {**HERE.real_paths, "/opt/tools": "/usr/share/tools"}
    here = replace(HERE, environment={"PATH": search}, real_paths=real)
    kept = make_plan(Policy(), HOST, here).environment["PATH"]
    assert kept == "/opt/tools:/home/ana/.venvs/py/bin:/usr/local/bin:/bin"


def test_the_environments_own_programs_come_first() -> None:
    assert put_first("/usr/bin:/bin", "/env/bin") == "/env/bin:/usr/bin:/bin"
    assert put_first("/usr/bin:/env/bin:/bin", "/env/bin") == "/env/bin:/usr/bin:/bin"


def test_a_path_of_which_nothing_is_left_is_the_systems() -> None:
    here = replace(HERE, environment={"PATH": "/home/ana/.pyenv/shims"})
    assert "/usr/bin" in make_plan(Policy(), HOST, here).environment["PATH"].split(":")


def test_accelerators_open_devices_and_nothing_for_writing_beside_them() -> None:
    def opened(*names: str) -> dict[str, Fs]:
        plan = make_plan(Policy(accelerators=frozenset(names)), HOST, HERE)
        return {rule.path: rule.access for rule in plan.path_rules if rule.reason.startswith("[accelerators]")}

    assert opened() == {}
    assert opened("all") == opened("nvidia") | opened("amd")
    assert "/dev/nvidia-uvm" in opened("nvidia")
    assert {"/dev/kfd", "/dev/dri"} < set(opened("amd"))
    for path, access in opened("all").items():
        device = path.startswith("/dev/")
        assert bool(access & Fs.WRITE_FILE) == bool(access & Fs.IOCTL_DEV) == device
