"""What a hook, a script or a tool's settings may name, by its words."""

from __future__ import annotations

import pytest

from sandboxed_kernel.policy.script_words import (
    folders_on_path,
    interpreters_in,
    is_started,
    modules_in,
    starts_python,
    without_comments,
    without_selections,
    words_in,
)


@pytest.mark.parametrize(
    "text",
    [
        "scripts/run.sh -v", "exec scripts/run.sh", "a&&scripts/run.sh;b", "x=$(scripts/run.sh)", "'scripts/run.sh'",
        '"$(git rev-parse --show-toplevel)/scripts/run.sh"', '"$ROOT/scripts/run.sh"',
        "${workspaceFolder}/scripts/run.sh",
        "--config=scripts/run.sh", "entry: scripts/run.sh", '["sh", "scripts/run.sh"]', "@scripts/run.sh",
    ],
)  # fmt: skip
def test_a_file_is_among_the_words(text: str) -> None:
    assert "scripts/run.sh" in words_in(text)


def test_a_folder_that_only_the_script_knows_is_left_out() -> None:
    assert "../../run" in words_in('"$(dirname "$0")/../../run"')
    assert "." not in words_in(". ./run")


def test_comments_name_nothing() -> None:
    assert words_in(without_comments("  # see README.md\nrun # README\n")) == ["run", "#", "README"]


def test_files_that_a_hook_is_for_are_not_what_it_runs() -> None:
    text = """
- repo: local
  hooks:
    - id: x
      exclude: |
        (?x)^(
          data/a.csv
        )$

      entry: tools/x.sh
      files: ^data/
- repo: other
  exclude: data/b.csv
"""
    words = words_in(without_selections(text))
    assert "tools/x.sh" in words
    assert not {"data/a.csv", "data/b.csv", "^data/"}.intersection(words)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("python -m black", False), ("python3.11 -mblack", False), ('"$INSTALL_PYTHON" -mpre_commit "$@"', False),
        ('"/usr/bin/python3" -m nbstripout', False), ("python -u -W x; python -c 'import x'", False),
        ("python -um black", False), ("python -I -m black", True), ("python -Im black", True), ("python -P -c x", True),
        ("python scripts/run.py -m x", True), ("black -m x", True), ("python --version", True),
    ],
)  # fmt: skip
def test_which_python_imports_from_where_it_is_started(text: str, safe: bool) -> None:
    assert starts_python(text) is not safe


def test_modules_and_interpreters() -> None:
    text = 'INSTALL_PYTHON=/opt/x/bin/python3.11\nexec "/usr/bin/python3" -m strip.more; python -mother'
    assert list(modules_in(text)) == ["strip", "strip.py", "other", "other.py"]
    assert interpreters_in(text) == ["/opt/x/bin/python3.11", "/usr/bin/python3"]


def test_a_program_that_is_started_and_one_that_is_mentioned() -> None:
    assert is_started("python3 -u scripts/run.py", "scripts/run.py")
    assert is_started("entry: scripts/run.py", "scripts/run.py")
    assert not is_started("exclude: scripts/run.py", "scripts/run.py")
    assert not is_started("python3 scripts/run.sh", "scripts/run.sh")


@pytest.mark.parametrize(
    ("line", "folders"),
    [
        ("PATH_add bin", ["bin"]), ("path_add PYTHONPATH lib tools", ["lib", "tools"]),
        ("load_prefix ./local", ["./local"]),
        ('export PATH="$PWD/bin:$PATH"', ["$PWD/bin", "bin"]), ('_.path = ["bin"]', ["bin"]),
        ("PATH_add .", ["."]), ("export PATH=$PWD:$PATH", ["."]), ('PATH="$(pwd):$PATH"', ["."]),
        ('export PATH="/x:${PWD}"', [".", "/x", "x"]), ("export PYTHONPATH=$PWD", []), ("PATH_add ./bin", ["./bin"]),
        ("echo bin", []),
    ],
)  # fmt: skip
def test_folders_that_go_on_path(line: str, folders: list[str]) -> None:
    assert [word for word in folders_on_path(line) if word != "path_add"] == folders
