"""Settings beyond the policy come from Jupyter's configuration path, and a mistake names its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.settings import PolicyFile, Settings, choose_policy, load_settings
from sandboxed_kernel.surroundings import policy_file_of


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def test_without_a_file_everything_has_a_default(config: Path) -> None:
    assert load_settings("/nowhere") == Settings("/state/sandboxed-kernel/audit.jsonl", "/etc/resolv.conf", None)


def test_a_python_and_a_json_file_are_read_and_json_wins(config: Path) -> None:
    (config / "sandboxed_kernel_config.py").write_text(
        'c.SandboxedKernel.audit_file = "/a.jsonl"\nc.SandboxedKernel.resolv_conf = "/r"\n'
    )
    text = '{"SandboxedKernel": {"resolv_conf": "/other", "policy_file": "/p"}}'
    (config / "sandboxed_kernel_config.json").write_text(text)
    assert load_settings("/nowhere") == Settings("/a.jsonl", "/other", "/p")


def test_a_folder_of_the_path_wins_over_the_users_own(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config / "sandboxed_kernel_config.py").write_text('c.SandboxedKernel.policy_file = "/own"\n')
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sandboxed_kernel_config.py").write_text('c.SandboxedKernel.policy_file = "/path"\n')
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path / "path"))
    assert load_settings("/nowhere").policy_file == "/path"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("c.SandboxedKernel.audit = 'x'", '"audit" is no setting. Write one of: audit_file, policy_file, resolv_conf'),
        ("c.Sandbox.audit_file = 'x'", '"Sandbox" is no section of it. Write "c.SandboxedKernel."'),
        ("c.SandboxedKernel.audit_file = 3", "Write a text between quotes"),
        ("1 / 0", "ZeroDivisionError: division by zero. Mend or remove the file"),
    ],
)
def test_a_mistake_names_the_file_and_what_to_write(config: Path, text: str, says: str) -> None:
    file = config / "sandboxed_kernel_config.py"
    file.write_text(text + "\n")
    with pytest.raises(PolicyError) as raised:
        load_settings("/nowhere")
    assert str(raised.value).startswith(f"{file}: ")
    assert str(raised.value).endswith(says)


# --- which file is the policy ------------------------------------------------------------------------------------


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    folder = tmp_path / "xdg" / "sandboxed-kernel"
    folder.mkdir(parents=True)
    return folder


def test_a_kernel_of_another_name_has_a_file_of_its_own(policies: Path) -> None:
    """Without falling back to the default kernel's: that one may allow what the other must not."""
    (policies / "policy.toml").write_text('extends = ["pypi"]')
    assert choose_policy(None, "sandboxed-python3") == PolicyFile(str(policies / "policy.toml"), exists=True)
    assert choose_policy(None, "Sandboxed-Python3").path == str(policies / "policy.toml")
    assert choose_policy(None, "Exam") == PolicyFile(str(policies / "exam.policy.toml"), exists=False)
    assert choose_policy("given.toml", "exam") == PolicyFile("given.toml", exists=True)
    for name in ("", "../x", "a/b", "a b", "é"):
        with pytest.raises(PolicyError, match="is no name for a kernel"):
            choose_policy(None, name)


def test_without_the_variable_it_lies_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    for relative in ("", "config"):  # "must be absolute; if not, consider it invalid": XDG Base Directory Specification
        monkeypatch.setenv("XDG_CONFIG_HOME", relative)
        assert policy_file_of("x") == "/home/ana/.config/sandboxed-kernel/x.policy.toml"


@pytest.mark.parametrize(
    ("text", "says_nothing"),
    [
        (b"", True),
        (b"# a\n\n  # b\r\n\t\n", True),
        (b"# a\n[network]\n", False),
        (b"# a\r[network]\n", False),
        (b"\xef\xbb\xbf# a\n", False),  # parsed, and then found to say nothing
        (b"#" * 70_000, False),  # not looked through
    ],
)
def test_a_policy_of_comments_is_not_parsed(text: bytes, says_nothing: bool, policies: Path) -> None:
    (policies / "policy.toml").write_bytes(text)
    assert choose_policy(None, "sandboxed-python3").says_nothing is says_nothing


@pytest.mark.parametrize("link", ["policy.toml", ""])
def test_a_link_that_leads_nowhere_is_not_the_default(link: str, policies: Path) -> None:
    """What it led to may have allowed less."""
    place = policies / link if link else policies
    if not link:
        policies.rmdir()
    place.symlink_to("nowhere")
    with pytest.raises(PolicyError, match=f"{place} is a link to .*nowhere, which does not exist"):
        choose_policy(None, "sandboxed-python3")
