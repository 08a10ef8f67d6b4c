"""Settings beyond the policy come from Jupyter's configuration path, and a mistake names its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.settings import Settings, load_settings


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
