"""What IPython adds to Python, and the programs that cells call."""

from __future__ import annotations

import re
import sys

import pytest

from tests.support.kernels import DEADLINE
from tests.support.workloads import Both, text_of

pytestmark = pytest.mark.container


def test_shell_lines(both: Both) -> None:
    assert both.say("""
!echo hello | tr a-z A-Z && echo "$((6 * 7))"
lines = !printf 'b\\na\\n' | sort
print(lines, _exit_code)
""").splitlines() == ["HELLO", "42", "['a', 'b'] 0"]


def test_bash_cell(both: Both) -> None:
    assert both.say("""
%%bash
set -e
for i in 1 2 3; do echo $i; done | paste -sd+ | awk -F+ '{ print $1 + $2 + $3 }'
mkdir -p made && touch made/x && rm -r made && [ ! -e made ] && echo gone
""").splitlines() == ["6", "gone"]


def test_writefile_and_run(both: Both) -> None:
    both.run("%%writefile script.py\nimport sys\nanswer = 42\nprint(__name__, sys.argv[1:])")
    assert both.say("%run script.py a b\nprint(answer)") == "__main__ ['a', 'b']\n42"


def test_timeit(both: Both) -> None:
    """The times differ, so each kernel speaks for itself."""
    for kernel in (both.plain, both.inside):
        assert re.search(r"per loop", text_of(kernel.run("%timeit -n 10 -r 2 sum(range(100))")))
        assert "Wall time" in text_of(kernel.run("%%time\nsum(range(100_000))"))


def test_input(both: Both) -> None:
    for kernel in (both.plain, both.inside):
        asking = kernel.begin("print('hello', input('your name? '))", allow_stdin=True)
        question = kernel.client.get_stdin_msg(timeout=DEADLINE)
        assert question["content"]["prompt"] == "your name? "
        kernel.client.input("Ann")
        assert text_of(kernel.finish(asking)) == "hello Ann\n"


def test_git(both: Both) -> None:
    assert both.say("""
%%bash
set -e
rm -rf project clone && mkdir project && cd project
git init -q -b main && git config user.name Ann && git config user.email ann@files.test
printf 'one\\n' > a.txt && git add a.txt && git commit -q -m first
chmod +x a.txt && git add a.txt && git commit -q -m 'an executable' && git switch -q -c topic
printf 'two\\n' >> a.txt && git commit -q -a -m second && git switch -q main && git merge -q topic
cd .. && git clone -q project clone && git -C clone log --format=%s && git -C clone status --short && git -C clone gc -q
git -C clone ls-files --stage | cut -c1-6
""").splitlines() == ["second", "an executable", "first", "100755"]


def test_a_virtual_environment_in_the_folder(both: Both) -> None:
    assert (
        both.say("""
%%bash
python3 -m venv --without-pip own && own/bin/python -c 'import sys; print(sys.prefix.endswith("/own"))'
""")
        == "True"
    )


def test_an_archive_keeps_modes_and_times(both: Both) -> None:
    assert both.say("""
%%bash
set -e
mkdir -p in out && echo x > in/a && chmod 640 in/a && touch -d '2001-02-03 04:05:06 UTC' in/a
tar -cf a.tar in && tar -xf a.tar -C out && TZ=UTC stat -c '%a %y' out/in/a | cut -c1-23
cp -p in/a in/b && stat -c %a in/b
""").splitlines() == ["640 2001-02-03 04:05:06", "640"]


def test_magics(both: Both) -> None:
    told = both.say("""
%load_ext autoreload
%autoreload 2
%env COLOUR=blue
%cd -q .
%prun -q -D profile.out sum(range(10))
kept = 42
%store kept
del kept
%store -r kept
files = %system ls profile.out
print(kept, files, get_ipython().run_line_magic("pwd", "").endswith("notebook"))
""")
    assert told.splitlines()[-1] == "42 ['profile.out'] True"


def test_how_to_connect_is_said_in_words_that_are_true_outside(both: Both) -> None:
    told = text_of(both.inside.run("%connect_info"))
    assert "console --existing" in told
    assert "sbk-" not in told
    assert '"key"' not in told


def test_programs_of_the_kernels_environment_come_first(both: Both) -> None:
    code = "!python -c 'import sys; print(sys.prefix)'"
    assert text_of(both.inside.run(code)).strip() == sys.prefix


def test_dpkg_says_what_is_installed(both: Both) -> None:
    code = "import shutil, subprocess\n"
    code += "print(shutil.which('dpkg') and subprocess.getstatusoutput(['dpkg -l libc-bin | tail -1']))"
    assert both.say(code)
