"""The command line: the kernel's form in every spelling, the commands, exit codes and words."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sandboxed_kernel
from sandboxed_kernel import check, kernelspec
from sandboxed_kernel.cli import KernelArguments, kernel_arguments, main
from sandboxed_kernel.confinement import host
from sandboxed_kernel.errors import Bug, HostError, PolicyError
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.read import presets
from sandboxed_kernel.settings import PolicyFile, choose_policy

Calls = list[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user of whom nothing is known yet."""
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "sandboxed-kernel"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the launcher was asked to do; it answers 7, and 128 + 15 for a command."""
    calls: Calls = []

    def run_kernel(policy_file: str | None, connection_file: str, settings: tuple[str, ...], kernel: str) -> int:
        calls.append(("kernel", policy_file, connection_file, settings, kernel))
        return 7

    def run_command(argv: list[str], **options: Any) -> int:
        calls.append(("command", argv, options))
        return 143

    fake = SimpleNamespace(run_kernel=run_kernel, run_command=run_command)
    monkeypatch.setattr(sandboxed_kernel, "launcher", fake, raising=False)
    return calls


# --- the form that Jupyter runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        (["-f", "c.json"], None),
        (["-f=c.json"], None),
        (["--f", "c.json"], None),
        (["--f=c.json"], None),
        (["--policy", "p.toml", "-f", "c.json"], "p.toml"),
        (["--policy=p.toml", "--f=c.json"], "p.toml"),
        (["-f", "c.json", "--policy", "p=q.toml"], "p=q.toml"),
        (["-f", "c.json", "--policy=-x"], "-x"),
    ],
)
def test_the_kernels_form_in_every_spelling(words: list[str], policy: str | None, launched: Calls) -> None:
    assert kernel_arguments(words) == KernelArguments("c.json", policy)
    assert main(words) == 7
    assert launched == [("kernel", policy, "c.json", (), "sandboxed-python3")]


def test_settings_of_ipykernel_are_passed_on_to_it() -> None:
    words = ["-f", "c.json", "--HistoryManager.hist_file=:memory:", "--IPKernelApp.log_level=10"]
    assert kernel_arguments(words) == KernelArguments("c.json", None, tuple(words[2:]))
    with pytest.raises(PolicyError, match="is not understood"):
        kernel_arguments(["-f", "c.json", "--debug=1"])


def test_the_scripts_of_jupyter_run_are_passed_on() -> None:
    words = ["-f", "c.json", "--A.b=1", "script.py", "/x/notebook.ipynb"]
    assert kernel_arguments(words) == KernelArguments("c.json", None, tuple(words[2:]))
    for forgotten in (["-f", "c.json", "policy.toml"], ["policy", "-f", "c.json"], ["-f", "c.json", ""]):
        with pytest.raises(PolicyError, match="is not understood"):
            kernel_arguments(forgotten)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "p"], "no connection file. Write -f CONNECTION_FILE; Jupyter fills it in"),
        (["-f"], "-f without a file. Write -f FILE"),
        (["-f="], "-f without a file. Write -f FILE"),
        (["--policy"], "--policy without a file. Write --policy FILE"),
        (["--kernel", "-f"], "no connection file. Write -f CONNECTION_FILE; Jupyter fills it in"),
        (["--kernel="], "--kernel without a name. Write --kernel NAME"),
        (["-f", "a", "--f=b"], "--f for the second time. Write it once"),
        (
            ["-f", "a", "p.toml"],
            (
                "'p.toml' is not understood. "
                'Write [--policy FILE] -f CONNECTION_FILE, or "sandboxed-kernel --help" to see the commands'
            ),
        ),
        (
            ["--polcy=x", "-f", "a"],
            (
                "'--polcy=x' is not understood. "
                'Write [--policy FILE] -f CONNECTION_FILE, or "sandboxed-kernel --help" to see the commands'
            ),
        ),
    ],
)
def test_a_kernel_that_is_not_told_what_to_do_does_not_start(
    words: list[str], message: str, launched: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == PolicyError.exit_code == 78
    assert capsys.readouterr() == ("", f"sandboxed-kernel: the command line: {message}\n")
    assert launched == []


# --- commands ----------------------------------------------------------------------------------------------------


def test_run_hands_over_what_follows_the_dashes(launched: Calls, tmp_path: Path) -> None:
    words = ["run", "--policy", "p.toml", "--workspace", str(tmp_path), "--audit", "a", "--resolv-conf", "r"]
    assert main([*words, "--", "sh", "-c", "exit 3", "--", "--help"]) == 143
    options = {"policy_file": "p.toml", "kernel": kernelspec.NAME, "workspace": str(tmp_path)}
    options |= {"audit_file": "a", "resolv_conf": "r"}
    assert launched == [("command", ["sh", "-c", "exit 3", "--", "--help"], options)]


def test_run_works_in_this_folder_and_with_the_default_policy(launched: Calls) -> None:
    assert main(["run", "--", "true"]) == 143
    options: dict[str, Any] = {"policy_file": None, "kernel": kernelspec.NAME, "workspace": os.getcwd()}
    options |= {"audit_file": None, "resolv_conf": None}
    assert launched == [("command", ["true"], options)]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run"], 78, "no command. Write sandboxed-kernel run [--policy FILE] -- COMMAND ..."),
        (["run", "--"], 78, "no command. Write sandboxed-kernel run [--policy FILE] -- COMMAND ..."),
        (["run", "--workspace", "/dev/null", "--", "x"], 78, '"/dev/null" is not a folder. Name an existing folder'),
        (["explain", "a:1", "--workspace", "/dev/null"], 78, '"/dev/null" is not a folder. Name an existing folder'),
        (["explain", "pypi.org"], 78, "Write pypi.org:443 for a host, or ./pypi.org for a path"),
        (["explain", "a:1", "--policy", "/dev/null"], 78, "/dev/null: not a regular file. Name a policy file"),
        (["install", "--policy", "/dev/null"], 78, "/dev/null: not a regular file. Name a policy file"),
        (["run", "--", "no-such-program"], 78, "'no-such-program' is not found on PATH ("),
        (["explain", "no-such-file"], 78, "Write no-such-file:443 for a host, or ./no-such-file for a path"),
        (["explain", "a.csv"], 78, "Write a.csv:443 for a host, or ./a.csv for a path"),
        (["uninstall", "--name", "no-such-kernel-here"], 78, "no kernel 'no-such-kernel-here'."),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    words: list[str], code: int, message: str, launched: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith("sandboxed-kernel: ")
    assert message in error
    assert launched == []


@pytest.mark.parametrize(
    "words",
    [[], ["frobnicate"], ["run", "ls"], ["check", "--", "x"], ["install", "--user", "--prefix", "x"], ["explain"]],
)
def test_a_command_that_does_not_exist_is_the_usual_usage_error(
    words: list[str], launched: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: sandboxed-kernel" in capsys.readouterr().err
    assert launched == []


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["run", "--help"]])
def test_help_is_not_taken_for_a_kernel(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyError("policy.toml: x", "unknown key", 'Write "y"'), 78),
        (HostError("this host has no Landlock"), 69),
        (Bug("a thing"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_of_the_launcher_becomes_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_kernel(policy_file: str | None, connection_file: str, settings: tuple[str, ...], kernel: str) -> int:
        raise error

    monkeypatch.setattr(sandboxed_kernel, "launcher", SimpleNamespace(run_kernel=run_kernel), raising=False)
    assert main(["-f", "c.json"]) == code
    said = capsys.readouterr().err
    assert said == ("" if code == 130 else f"sandboxed-kernel: {error}\n")


@pytest.mark.parametrize(
    ("results", "code", "lines"),
    [
        ([("connect", True, "refused")], 0, ["holds    connect  refused", "This host enforces all of it."]),
        (
            [("connect", True, "refused"), ("signals", False, "Landlock ABI 4")],
            69,
            ["holds    connect  refused", "MISSING  signals  Landlock ABI 4", "1 of 2 do not hold", "Ask somebody."],
        ),
    ],
)
def test_check_says_what_holds(
    results: list[tuple[str, bool, str]],
    code: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [check.CheckResult(name, holds, detail, remedy="Ask somebody.") for name, holds, detail in results]
    monkeypatch.setattr(check, "check", lambda: found)
    assert main(["check"]) == code
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(lines)
    assert all(one.startswith(line) for one, line in zip(said, lines, strict=True))


# --- explain -----------------------------------------------------------------------------------------------------


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "book").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    file = tmp_path / "policy.toml"
    file.write_text('network.allow = ["pypi.org:443"]\nfilesystem.read = ["../link"]')
    return str(file)


def explain(policy: str, target: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    workspace = os.path.join(os.path.dirname(policy), "book")
    code = main(["explain", target, "--policy", policy, "--workspace", workspace])
    return code, capsys.readouterr().out.replace(os.path.dirname(policy), "DIR")


def test_explain_an_endpoint(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = explain(policy, "pypi.org:443", capsys)
    assert code == 0
    assert said.splitlines()[1] == '  by DIR/policy.toml: network.allow[0] = "pypi.org:443"'
    assert explain(policy, "udp://evil.example:9", capsys) == (
        1,
        (
            "refused: evil.example is not on the allowlist; the name is not even resolved.\n"
            "  to allow it, add this under [network] allow:\n"
            '    "udp://evil.example:9"\n'
            "policy: DIR/policy.toml\n"
        ),
    )


def test_explain_a_path_by_where_its_links_lead(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = explain(policy, "../data/x", capsys)
    assert code == 0
    assert said.splitlines() == [
        "allowed: DIR/data/x may be read.",
        '  by DIR/policy.toml: filesystem.read[0] = "../link"',
        "refused: DIR/data/x may be read only.",
        "  to allow it, add this under [filesystem] write:",
        '    "DIR/data/x"',
        "policy: DIR/policy.toml",
    ]
    assert explain(policy, "./x", capsys)[0] == 0
    assert explain(policy, "/nowhere", capsys)[0] == 1


def test_without_a_policy_the_one_of_the_kernel_is_meant(
    tmp_path: Path, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", "pypi.org:443", "--workspace", str(tmp_path)]
    assert main(words) == 1
    missing = f"policy: {configuration}/policy.toml (does not exist: the default policy)"
    assert capsys.readouterr().out.splitlines()[-1] == missing
    configuration.mkdir(parents=True)
    (configuration / "policy.toml").write_text('extends = ["pypi"]')
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"policy: {configuration}/policy.toml"


@pytest.mark.usefixtures("starts")
def test_the_kernel_says_which_policy(
    tmp_path: Path,
    configuration: Path,
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another kernel's is never that of the default name, and the kernelspec's ``--policy`` goes before both."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    configuration.mkdir(parents=True)
    (configuration / "policy.toml").write_text('extends = ["pypi"]')
    words = ["explain", "pypi.org:443", "--kernel", "exam", "--workspace", str(tmp_path / "book")]
    assert main(words) == 78
    assert "no kernel 'exam' is installed" in capsys.readouterr().err
    assert main(["install", "--prefix", str(tmp_path), "--name", "Exam"]) == 0
    assert "each user's own, ~/.config/sandboxed-kernel/exam.policy.toml" in capsys.readouterr().out
    assert main(words) == 1
    assert f"policy: {configuration}/exam.policy.toml (does not exist" in capsys.readouterr().out
    assert main(["install", "--prefix", str(tmp_path), "--name", "exam", "--policy", policy]) == 0
    assert main(words) == 0
    assert f"policy: {policy}\n" in capsys.readouterr().out


def test_run_takes_the_policy_of_the_kernel_too(
    tmp_path: Path, policy: str, launched: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernelspec, "_see_that_it_starts", lambda: None)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    kernelspec.install(name="exam", policy_file=policy, prefix=str(tmp_path))
    assert main(["run", "--kernel", "exam", "--", "true"]) == 143
    ((_, _, options),) = launched
    assert (options["policy_file"], options["kernel"]) == (policy, "exam")


def test_policy_says_what_holds_and_where_it_stands(
    tmp_path: Path, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["policy", "--workspace", str(tmp_path)]
    assert main(words) == 0
    assert f"Policy: the default ({configuration}/policy.toml does not exist)" in capsys.readouterr().out
    assert main([*words, "--origin"]) == 0
    assert f"[filesystem] write = the notebook's folder, {tmp_path}" in capsys.readouterr().out
    configuration.mkdir(parents=True)
    (configuration / "policy.toml").write_text('extends = ["pypi"]\n\n[network]\nallow = ["a.example:443"]\n')
    assert main(words) == 0
    assert "preset pypi: network.allow[0]" in capsys.readouterr().out
    assert main([*words, "--origin"]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f'{configuration}/policy.toml:4 [network] allow = "a.example:443"' in said
    assert 'preset pypi:6 [network] allow = "pypi.org:443"' in said


# --- the kernelspec ----------------------------------------------------------------------------------------------


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests also run from a checkout that is not installed, where ``-I`` would not find the package."""
    monkeypatch.setattr(kernelspec, "_see_that_it_starts", lambda: None)
    monkeypatch.setattr(kernelspec, "try_kernel", lambda _folder: "")
    monkeypatch.setattr(kernelspec, "_ENVIRONMENT", str(tmp_path / "environment"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # what the package brought here is not looked at first


@pytest.mark.usefixtures("starts")
def test_install_and_uninstall(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    monkeypatch.chdir(tmp_path)
    words = ["install", "--prefix", str(tmp_path), "--name", "strict", "--display-name", "Strict"]
    assert main([*words, "--policy", "policy.toml"]) == 0
    folder = tmp_path / "share" / "jupyter" / "kernels" / "strict"
    assert capsys.readouterr().out.startswith(f"Installed {folder}\nPolicy:    {policy}\nNext:      ")
    assert sorted(os.listdir(folder)) == ["kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]
    module = [sys.executable, "-I", "-m", "sandboxed_kernel"]
    assert json.loads((folder / "kernel.json").read_text()) == {
        "argv": [*module, "--kernel", "strict", "--policy", policy, "-f", "{connection_file}"],
        "display_name": "Strict",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"debugger": True, "supported_encryption": ["curve"]},
    }
    assert main(["uninstall", "--name", "strict"]) == 0
    assert capsys.readouterr().out == f"Removed {folder}\n"
    assert not folder.exists()


@pytest.mark.usefixtures("starts")
def test_what_install_writes_is_what_the_command_line_reads(tmp_path: Path, launched: Calls) -> None:
    folder = kernelspec.install(policy_file=None, prefix=str(tmp_path))
    argv = json.loads(Path(folder, "kernel.json").read_text())["argv"]
    assert main([word.replace("{connection_file}", "c.json") for word in argv[4:]]) == 7
    assert launched == [("kernel", None, "c.json", (), "sandboxed-python3")]
    folder = kernelspec.install(name="Exam", policy_file=None, prefix=str(tmp_path))
    argv = json.loads(Path(folder, "kernel.json").read_text())["argv"]
    assert main([word.replace("{connection_file}", "c.json") for word in argv[4:]]) == 7
    assert launched[1] == ("kernel", None, "c.json", (), "exam")


@pytest.mark.usefixtures("starts")
def test_install_makes_a_policy_that_says_nothing(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--user"]) == 0
    file = configuration / "policy.toml"
    said = capsys.readouterr().out
    assert f"Policy:    {file} (new; all of it comments" in said
    assert 'choose "Python 3 (sandboxed)" (kernel sandboxed-python3)' in said
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert tomllib.loads(file.read_text()) == {}
    assert choose_policy(None, kernelspec.NAME) == PolicyFile(str(file), exists=True, says_nothing=True)
    # Its examples are right, too.
    examples = [
        line.removeprefix("# ") for line in file.read_text().splitlines() if re.match(r"# [\[a-z]+.*[=\]]", line)
    ]
    parse("\n".join(examples), place="p", workspace="/w", home="/h", presets=presets())
    file.write_text('extends = ["pypi"]')
    assert main(["install", "--user"]) == 0
    assert file.read_text() == 'extends = ["pypi"]'
    assert f"Policy:    {file}\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["check"], ["install"], ["-f", "c.json"], ["run", "--", "true"]])
def test_another_system_is_named_at_once(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert main(words) == HostError.exit_code
    assert capsys.readouterr().err.startswith("sandboxed-kernel: this is darwin, ")


@pytest.mark.usefixtures("starts")
def test_install_goes_on_with_less(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "find_features", lambda: SimpleNamespace(landlock_abi=4))
    for _ in range(2):
        assert main(["install", "--best-effort"]) == 0
        assert f"as {configuration / 'policy.toml'} says now: ioctl, abstract, signals" in capsys.readouterr().out
    written = tomllib.loads((configuration / "policy.toml").read_text())
    assert written == {"best_effort": ["ioctl", "abstract", "signals"]}


@pytest.mark.usefixtures("starts")
def test_install_says_why_the_kernel_does_not_work(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernelspec, "try_kernel", lambda _folder: "this host has no Landlock")
    assert main(["install"]) == HostError.exit_code
    assert "the kernel does not work here: this host has no Landlock" in capsys.readouterr().err
    assert main(["install", "--no-try"]) == 0
    assert (configuration / "policy.toml").exists()


@pytest.mark.usefixtures("starts")
def test_install_does_not_follow_a_link_that_leads_nowhere(tmp_path: Path, configuration: Path) -> None:
    configuration.mkdir(parents=True)
    (configuration / "policy.toml").symlink_to(tmp_path / "nowhere.toml")
    assert main(["install", "--user"]) == 0
    assert not (tmp_path / "nowhere.toml").exists()
    with pytest.raises(PolicyError, match=r"a link to .*nowhere.toml, which does not exist"):
        choose_policy(None, kernelspec.NAME)


@pytest.mark.usefixtures("starts")
def test_install_keeps_the_policy_of_the_last_one(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--policy", policy]) == 0
    assert main(["install", "--display-name", "New"]) == 0
    assert f"Policy:    {policy} (kept from the last install; --no-policy takes it out)" in capsys.readouterr().out
    installed = kernelspec.find(kernelspec.NAME)
    assert installed is not None
    assert installed.policy_file == policy
    assert main(["install", "--no-policy"]) == 0
    installed = kernelspec.find(kernelspec.NAME)
    assert installed is not None
    assert installed.policy_file is None


@pytest.mark.usefixtures("starts")
def test_the_kernel_that_the_package_brought_has_the_policy_of_the_last_install(tmp_path: Path, policy: str) -> None:
    """Jupyter in the same environment takes it first."""
    brought = tmp_path / "environment" / "share" / "jupyter" / "kernels" / kernelspec.NAME
    brought.mkdir(parents=True)
    (brought / "kernel.json").write_text(f'{{"argv": ["python", "-I", "-m", "{sandboxed_kernel.__name__}"]}}')
    assert main(["install", "--policy", policy]) == 0
    found = kernelspec.find(kernelspec.NAME, [str(brought.parent)])
    assert found is not None
    assert found.policy_file == policy


@pytest.mark.usefixtures("starts")
def test_another_kernel_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kernels" / "plain"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["python", "-m", "ipykernel"], "display_name": "p", "language": "p"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert main(["uninstall", "--name", "plain"]) == 78
    assert "the kernel 'plain' is not sandboxed" in capsys.readouterr().err
    assert folder.exists()


@pytest.mark.usefixtures("starts")
def test_an_unusable_name_or_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--prefix", str(tmp_path), "--name", "../x"]) == 78
    assert "--name: '../x' is no name for a kernel" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["install", "--prefix", str(tmp_path / "file")]) == 78
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_a_command_without_its_dashes_is_shown_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "ls", "-la"])
    assert ended.value.code == 2
    assert 'the command stands behind "--": sandboxed-kernel run -- ls -la' in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["/", "/tmp", "/etc/passwd-of-nobody/..", "~", "~/.ssh"])
def test_explain_shows_no_line_with_which_no_kernel_starts(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / "data").mkdir()
    (tmp_path / "book").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "book")
    main(["explain", closed])
    said = capsys.readouterr().out
    write = said[said.index(" written") :]
    assert "and no line can: " in write
    assert "add this under [filesystem] write" not in said
    assert main(["explain", "~/data"]) == 1
    assert f'add this under [filesystem] write:\n    "{tmp_path}/home/data"' in capsys.readouterr().out
