"""A refused file is explained under its traceback; a file that will be lost is said once. Both are only hints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxed_kernel.events import MIME
from sandboxed_kernel.inside.hints import MARK
from tests.support import kernels
from tests.support.kernels import Kernel, Outcome, running


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's that no line names."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("a.csv", "x;touch y", ".env", "closed"):
        (folder / name).write_text("1")
    (folder / "closed").chmod(0)
    return folder


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(kernels.REAL, tmp_path_factory.mktemp("k")) as running_kernel:
        yield running_kernel


def hint(outcome: Outcome) -> str:
    """The last line of the traceback where it is a hint; ename and evalue are the exception's own."""
    (error,) = outcome.of("error")
    content = error["content"]
    assert outcome.reply["content"]["traceback"] == content["traceback"]
    assert MARK not in content["evalue"]
    assert not [m for m in outcome.iopub if MIME in m["content"].get("data", {})]  # no notice
    last: str = content["traceback"][-1]
    assert "[sandbox]" not in last
    return last if last.startswith(MARK) else ""


@pytest.mark.parametrize(
    "way", ["open({})", "__import__('pathlib').Path({}).read_text()", "__import__('os').open({}, 0)"]
)
def test_a_file_that_no_line_names_is_explained(way: str, kernel: Kernel, elsewhere: Path) -> None:
    path = str(elsewhere / "a.csv")
    said = hint(kernel.run(way.format(repr(path))))
    assert repr(path) in said
    assert f"sandboxed-kernel allow --read {path}" in said


def test_a_file_that_cannot_be_made_names_its_folder(kernel: Kernel, elsewhere: Path) -> None:
    said = hint(kernel.run(f"open({str(elsewhere / 'new')!r}, 'w')"))
    assert f"{str(elsewhere)!r} is closed to this notebook for writing" in said


def test_the_path_cannot_become_another_command(kernel: Kernel, elsewhere: Path) -> None:
    said = hint(kernel.run(f"open({str(elsewhere / 'x;touch y')!r})"))
    assert "In a terminal: sandboxed-kernel allow  (" in said
    assert "touch y" not in said.partition("In a terminal")[2]
    name = "e\x1b]0;x\x07"
    (elsewhere / name).write_text("1")
    assert "\x1b" not in hint(kernel.run(f"open({str(elsewhere / name)!r})"))


def test_keys_and_temporary_files_have_their_own_words(kernel: Kernel, elsewhere: Path) -> None:
    assert "tempfile.gettempdir()" in hint(kernel.run("open('/tmp/x', 'w')"))
    said = hint(kernel.run(f"open({str(elsewhere / '.env')!r})"))
    assert "it holds keys" in said
    assert f"sandboxed-kernel allow --env NAME --from {elsewhere / '.env'}" in said


def test_what_a_line_may_not_open_is_left_to_explain(kernel: Kernel) -> None:
    said = hint(kernel.run("__import__('os').listdir('/etc')"))
    assert said.endswith("the policy does not name it. In a terminal: sandboxed-kernel explain /etc")


def test_a_home_that_lacks_what_the_users_own_may_have(kernel: Kernel) -> None:
    said = hint(kernel.run("open(__import__('os').path.expanduser('~/datasets/a.csv'))"))
    assert "sandboxed-kernel allow --read ~/datasets" in said


@pytest.mark.parametrize(
    "code",
    ["open('none.csv')", "open('none/a.csv')", "1/0", "open('.')", "raise PermissionError(13, 'x')",
     "open(__import__('os').path.expanduser('~/none.csv'))", "open('/usr/none')"],
)  # fmt: skip
def test_other_errors_are_as_ever(code: str, kernel: Kernel) -> None:
    assert hint(kernel.run(code)) == ""


def test_what_the_files_mode_refuses_is_not_the_sandboxs(kernel: Kernel, elsewhere: Path) -> None:
    said = hint(kernel.run(f"open({str(elsewhere / 'closed')!r})"))
    assert (said == "") == (os.geteuid() != 0)


def test_a_file_in_the_private_home_is_said_once(own_kernel: Kernel) -> None:
    save = "import pathlib\npathlib.Path('~/{}').expanduser().write_text('x')"
    assert MARK not in own_kernel.run(save.format(".hidden")).text
    assert MARK not in own_kernel.run("open('beside the notebook', 'w').close()").text
    first = own_kernel.run(save.format("model.pkl")).text
    assert first.count(MARK) == 1
    assert "'~/model.pkl' lies in ~, which is private here" in first
    assert MARK not in own_kernel.run(save.format("other")).text
