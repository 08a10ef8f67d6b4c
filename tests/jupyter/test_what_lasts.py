"""A restart keeps packages, caches, %store and history; a kernel killed at any moment leaves all of it in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import kernels
from tests.support.kernels import Kernel, Outcome
from tests.support.wheels import wheel

FIND = "--quiet --no-index --find-links ."


@pytest.fixture(autouse=True)
def data(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(short_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(short_path / "config"))
    (short_path / "notebook").mkdir(mode=0o755)
    for name, version in (("greeter", "1.0"), ("greeter", "2.0"), ("traitlets", "9999.0"), ("farewell", "1.0")):
        file = short_path / "notebook" / f"{name}-{version}-py3-none-any.whl"
        file.write_bytes(wheel(name, version, *(["absent"] if name == "farewell" else [])))
    return short_path / "data" / "sandboxed-kernel" / "homes"


@contextmanager
def started(short_path: Path, policy: str = "") -> Iterator[Kernel]:
    (short_path / "config" / "sandboxed-kernel").mkdir(parents=True, exist_ok=True)
    (short_path / "config" / "sandboxed-kernel" / "policy.toml").write_text(policy)
    with kernels.running(kernels.REAL, short_path) as kernel:
        yield kernel


def said(outcome: Outcome) -> str:
    assert outcome.status == "ok", outcome.error
    return outcome.text


def last(outcome: Outcome) -> str:
    return said(outcome).strip().splitlines()[-1]


def test_a_restart_keeps_what_was_made(short_path: Path) -> None:
    with started(short_path) as kernel:
        first = said(kernel.run(f"%pip install {FIND} greeter==1.0"))
        assert "it is there after a restart" in first
        assert "[sandbox]" not in first
        kernel.run("answer = 42\n%store answer")
        code = (
            "import os, greeter\nopen(os.path.expanduser('~/.cache/model'), 'w').write('made')\nprint(greeter.version)"
        )
        assert last(kernel.run(code)) == "1.0"
        kernel.run("'the last'")
        kernel.manager.shutdown_kernel()  # as JupyterLab's restart: IPython writes what is left
    with started(short_path) as kernel:
        assert "written by 2 runs" in said(kernel.run("import greeter"))
        assert last(kernel.run("print(greeter.version)")) == "1.0"
        assert last(kernel.run("!greeter")) == "greeter 1.0"
        assert last(kernel.run("!{__import__('sys').executable} -c 'import greeter; greeter.main()'")) == "greeter 1.0"
        assert last(kernel.run("%store -r\nprint(answer)")) == "42"
        assert last(kernel.run("import os; print(open(os.path.expanduser('~/.cache/model')).read())")) == "made"
        history = said(kernel.run("%history -g"))
        assert "1/1: %pip install" in history
        assert "'the last'" in history
        kernel.run(f"%pip install {FIND} --upgrade greeter")
    with started(short_path) as kernel:
        assert last(kernel.run("!greeter")) == "greeter 2.0"
        assert "uninstall" in said(kernel.run("%pip uninstall --yes greeter")).lower()
    with started(short_path) as kernel:
        assert "No module named 'greeter'" in kernel.run("import greeter").error


def test_nothing_lasts_where_the_policy_says_so(short_path: Path, data: Path) -> None:
    policy = "[home]\nkeep = false"
    for _ in range(2):
        with started(short_path, policy) as kernel:
            assert "No module named 'greeter'" in kernel.run("import greeter").error
            note = said(kernel.run(f"%pip install {FIND} greeter==1.0"))
            assert "gone after a restart" in note
            assert last(kernel.run("import greeter; print(greeter.version)")) == "1.0"
            assert "removed at the end of the kernel" in said(kernel.run("%sandbox policy"))
    assert not data.exists()


def test_a_package_that_lasts_takes_no_other_ones_place(short_path: Path) -> None:
    """An earlier notebook's would be run with what the policy has opened since."""
    import traitlets

    ask = "import traitlets; print(traitlets.__version__)"
    with started(short_path) as kernel:
        note = said(kernel.run(f"%pip install {FIND} traitlets==9999.0"))
        assert "This kernel's own version comes first of: traitlets." in note
        assert last(kernel.run(f'!{sys.executable} -c "{ask}"')) == traitlets.__version__
    with started(short_path) as kernel:
        assert last(kernel.run(ask)) == traitlets.__version__
        assert last(kernel.run(f'!{sys.executable} -c "{ask}"')) == traitlets.__version__


def test_a_package_that_lasts_comes_behind_those_of_several_folders_too(short_path: Path) -> None:
    """Python prefers one with an __init__.py, wherever it lies, to folders without (matplotlib has such)."""
    for name in ("spread/own.py", "later/late.py"):
        file = short_path / "notebook" / name
        file.parent.mkdir()
        file.write_text("name = 'own'")
    plant = """
import os, sys
packages, = [path for path in sys.path if "/packages/" in path]
for name in ("spread/__init__.py", "spread/own.py", "late.py", "shared/more.py", "new/__init__.py", "new/inner.py"):
    os.makedirs(os.path.dirname(f"{packages}/{name}"), exist_ok=True)
    open(f"{packages}/{name}", "w").write("name = 'planted'")
os.mkdir("shared")
open("shared/own.py", "w").write("name = 'own'")
"""
    code = "import sys; sys.path.append('later'); import spread.own, late, shared.own, shared.more, new.inner"
    code += "; print(spread.own.name, late.name, shared.own.name, shared.more.name, new.inner.name, spread.__file__)"
    with started(short_path) as kernel:
        said(kernel.run(plant))
    with started(short_path) as kernel:
        assert last(kernel.run(code)) == "own own own planted planted None"
        assert last(kernel.run(f'!{sys.executable} -c "{code}"')) == "own own own planted planted None"


def test_start_up_code_among_the_packages_does_not_run(short_path: Path) -> None:
    plant = """
import os, sys
packages, = [path for path in sys.path if "/packages/" in path]
for name in ("sitecustomize", "usercustomize", "startup_by_path"):
    open(f"{packages}/{name}.py", "w").write("import os; open(os.environ['TMPDIR'] + '/ran', 'a').write(__name__)")
open(packages + "/x.pth", "w").write("import startup_by_path\\n")
open(packages + "/y.pth", "w").write("/tmp\\n")
open(packages + "/z.pth", "w").write("inner\\n")
os.makedirs(packages + "/inner")
open(packages + "/inner/reached.py", "w").close()
start = os.path.expanduser("~/.ipython/profile_default/startup")
open(start + "/00.py", "w").write("import os; open(os.environ['TMPDIR'] + '/ran', 'a').write('startup')")
"""
    python = (
        f"!{sys.executable} -c 'import reached, sys; print([path for path in sys.path if path == chr(47) + \"tmp\"])'"
    )
    pip = "!$PIP_PYTHON -c 'print(1)'; $UV_PYTHON -c 'print(2)'"
    ran = "import os; print(os.path.exists(os.environ['TMPDIR'] + '/ran'))"
    with started(short_path) as kernel:
        said(kernel.run(plant))
        said(kernel.run("!$UV_PYTHON -c 'print(2)'"))
        assert last(kernel.run(ran)) == "True"  # it is an attack: an installer's Python runs it
    with started(short_path) as kernel:
        assert last(kernel.run("import reached, sys; print('/tmp' in sys.path)")) == "False"
        assert last(kernel.run(python)) == "[]"
        assert last(kernel.run(pip)) == "2"
        assert last(kernel.run(ran)) == "False"


RAN = "import os; open(os.environ['TMPDIR'] + '/ran', 'a').write({!r} + ' ')\n"
PLANT = f"""
import os, pickle, sys
def put(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write(text)
    os.chmod(path, mode)
class Pickled:
    def __reduce__(self):
        return exec, ({RAN.format("jedi")!r},)
def completed():
    list(get_ipython().Completer._jedi_matches(9, 0, "json.dump"))
environment = os.environ["PIP_PYTHON"].partition("/interpreter")[0]
version = f"python{{sys.version_info.major}}.{{sys.version_info.minor}}"
library = f"lib/{{version}}/site-packages"
put(f"{{environment}}/{{library}}/storemagic.py", {RAN.format("storemagic")!r})
put(f"{{environment}}/bin/ls", "#!/bin/sh\\nprintf 'ls ' >> $TMPDIR/ran\\n", 0o755)
put(f"{{environment}}/pip.conf", "[global]\\nindex-url = http://planted.example/\\n")
put(f"{{environment}}/interpreter/pyvenv.cfg", open(f"{{environment}}/pyvenv.cfg").read())
put(f"{{environment}}/interpreter/{{library}}/sitecustomize.py", {RAN.format("interpreter")!r})
jedi = os.path.join(os.environ["XDG_CACHE_HOME"], "jedi")
"""
TRY = """
import json, os
from IPython.core.completer import provisionalcompleter
with provisionalcompleter():
    list(get_ipython().Completer.completions("import json; json.dum", 21))
!ls > /dev/null
!$UV_PYTHON -m pip config list
!$UV_PYTHON -c "import sys; print(sys.prefix)"
"""


def test_nothing_that_an_earlier_notebook_left_runs_by_itself(short_path: Path, data: Path) -> None:
    """At a kernel's start, at Tab, in the place of a program, in the installer's Python."""
    ran = "print(open(os.environ['TMPDIR'] + '/ran').read() if os.path.exists(os.environ['TMPDIR'] + '/ran') else '')"
    with started(short_path) as kernel:
        said(kernel.run(PLANT))
        said(kernel.run(TRY))
        spoil = """
for folder, _folders, files in (*os.walk(os.environ["HOME"]), *os.walk(jedi)):
    for name in files:
        if name.endswith(".pkl"):
            os.makedirs(f"{jedi}/{os.path.basename(folder)}", exist_ok=True)
            open(f"{jedi}/{os.path.basename(folder)}/{name}", "wb").write(pickle.dumps(Pickled()))
            print("spoilt")
"""
        assert "spoilt" in said(kernel.run(spoil))
    assert list(data.glob("*/h/cache/jedi/*/*.pkl"))
    with started(short_path) as kernel:
        assert "planted" not in said(kernel.run(TRY))
        assert last(kernel.run(ran + "; print('.')")) == "."
        assert said(kernel.run(ran)).strip() == ""


LEFT = {
    "a name with a NUL": "open(packages + '/x.pth', 'w').write('a\\0b')",
    "too deep": """
os.mkdir(environment + '.before')
os.mkdir(environment + '.failed')
os.chdir(environment + '.failed')
for _ in range(1500):
    os.mkdir('d')
    os.chdir('d')""",
    "a history that never ends": """
import sqlite3
with sqlite3.connect(get_ipython().history_manager.hist_file) as database:
    database.execute("PRAGMA journal_mode = WAL")
    forever = "SELECT count(*) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c)"
    for table in ("sessions", "history"):
        database.execute(f"CREATE TRIGGER {table}_t AFTER INSERT ON {table} BEGIN {forever}; END")
os.kill(os.getpid(), 9)""",
}


@pytest.mark.parametrize("what", LEFT)
def test_what_an_earlier_notebook_left_holds_up_no_start(what: str, short_path: Path, data: Path) -> None:
    with started(short_path) as kernel:
        said(kernel.run("import os; environment = os.environ['PIP_PYTHON'].partition('/interpreter')[0]"))
        said(kernel.run("import sys; packages, = [path for path in sys.path if '/packages/' in path]"))
        said(kernel.run("%history -g -l 1"))
        kernel.begin(LEFT[what])
        time.sleep(1)
    with started(short_path) as kernel:
        assert last(kernel.run("print('ran')")) == "ran"
        time.sleep(0.5)
        assert last(kernel.run("print('still')")) == "still"
    subprocess.run(["rm", "-rf", data], check=True)  # too deep for pytest too


LOCK = """
import sqlite3
database = sqlite3.connect(get_ipython().history_manager.hist_file, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
"""


def test_a_kernel_that_keeps_the_history_locked_holds_up_no_other(short_path: Path) -> None:
    with started(short_path) as one, kernels.running(kernels.REAL, short_path) as two:
        said(one.run("%history -g -l 1"))
        said(one.run(LOCK))
        said(two.run("1"))
        time.sleep(0.3)  # when it opens the database
        begun = time.monotonic()
        assert last(two.run("print('ran')")) == "ran"
        assert time.monotonic() - begun < 3
        assert "ran" in said(two.run("%history"))


def test_an_installation_that_fails_leaves_what_was_there(short_path: Path) -> None:
    with started(short_path) as kernel:
        said(kernel.run(f"%pip install {FIND} greeter==1.0"))
        outcome = kernel.run(f"%pip install {FIND} greeter==2.0 farewell")  # needs what no index has
        assert "installed" not in said(outcome).splitlines()[-1]
        assert last(kernel.run("!greeter")) == "greeter 1.0"


SLOW = """
import os, subprocess, sys, time
packages = os.environ["PIP_PYTHON"].partition("/interpreter")[0]
script = os.path.dirname(__import__("sandboxed_kernel").__file__) + "/inside/transaction.py"
work = f"import os, time; os.unlink('{packages}/bin/greeter'); open('{packages}/half', 'w')"
work += "; print('begun', flush=True); time.sleep(60)"
one = subprocess.Popen([sys.executable, "-IS", script, packages, sys.executable, "-c", work, "install"], stdout=-1)
print(one.stdout.readline().decode().strip())
"""


@pytest.mark.parametrize("who", ["launcher", "installer"])
def test_a_kernel_killed_in_the_middle_of_an_installation(who: str, short_path: Path, data: Path) -> None:
    with started(short_path) as kernel:
        said(kernel.run(f"%pip install {FIND} greeter==1.0"))
        assert last(kernel.run(SLOW)) == "begun"
        (half,) = data.glob("*/h/packages/*/half")
        if who == "launcher":
            os.kill(kernel.pid, signal.SIGKILL)
        else:
            said(kernel.run("one.kill()"))
            assert half.exists()
    with started(short_path) as kernel:
        assert last(kernel.run("!greeter")) == "greeter 1.0"
        assert not half.exists()
        said(kernel.run(f"%pip install {FIND} greeter==2.0"))
        assert last(kernel.run("!greeter")) == "greeter 2.0"
    assert [path.suffix for path in half.parents[1].iterdir() if path.is_dir()] == [""]


def test_two_kernels_at_once_see_what_either_installs(short_path: Path) -> None:
    with started(short_path) as one, kernels.running(kernels.REAL, short_path) as two:
        said(one.run(f"%pip install {FIND} greeter==1.0"))
        assert last(two.run("import greeter; print(greeter.version)")) == "1.0"
        said(two.run(SLOW.replace("os.unlink", "os.path.exists").replace("sleep(60)", "sleep(1)")))
        said(one.run(f"%pip install {FIND} greeter==2.0"))  # after the other one's installation, not into it
        assert last(two.run("one.wait()\n!greeter")) == "greeter 2.0"


def test_after_an_upgrade_of_python_what_was_installed_is_named(short_path: Path, data: Path) -> None:
    with started(short_path) as kernel:
        said(kernel.run(f"%pip install {FIND} greeter==1.0"))
    (packages,) = data.glob("*/h/packages/cpython-*-gnu")
    packages.rename(packages.with_name("cpython-310-x86_64-linux-gnu"))
    with started(short_path) as kernel:
        first = said(kernel.run("print('ran')"))
        assert "for another Python: %pip install greeter" in first
        assert "No module named 'greeter'" in kernel.run("import greeter").error
    with started(short_path) as kernel:
        assert "another Python" not in said(kernel.run("print('ran')"))


SPOILT = {
    "a pipe": "rm -rf ./packages; mkfifo packages",
    "a file": "rm -rf ./packages/*; touch packages/{0}",
    "pipes within": "cd packages/{0} && rm pyvenv.cfg interpreter/python && mkfifo pyvenv.cfg lib/x.pth"
    " && mkdir interpreter/python",
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_packages_that_an_earlier_notebook_spoilt_keep_no_kernel_from_starting(
    spoil: str, short_path: Path, data: Path
) -> None:
    with started(short_path) as kernel:
        said(kernel.run(f"%pip install {FIND} greeter==1.0"))
    (environment,) = data.glob("*/h/packages/cpython-*-gnu")
    subprocess.run(SPOILT[spoil].format(environment.name), shell=True, cwd=environment.parents[1], check=True)
    with started(short_path) as kernel:
        assert last(kernel.run("print('ran')")) == "ran"


def test_a_notebook_in_the_home_folder_has_what_lasts_in_it(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lasting home lies beneath the notebook's folder, where all that begins with a dot is closed."""
    home = short_path / "notebook"
    (home / ".ssh").mkdir()
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(home))
    for number in (1, 2):
        with kernels.running(kernels.REAL, short_path) as kernel:
            assert "your home folder" in said(kernel.run("import os"))
            if number == 1:
                said(kernel.run(f"%pip install {FIND} greeter==1.0"))
            assert last(kernel.run("import greeter; print(greeter.version)")) == "1.0"
            code = "cache = os.environ['XDG_CACHE_HOME']; os.makedirs(cache + '/a/b', exist_ok=True)"
            code += "; open(cache + '/a/b/c', 'w').write('x'); os.rename(cache + '/a/b/c', cache + '/a/c')"
            code += "; print(open(os.path.expanduser('~/.cache/a/c')).read())"
            assert last(kernel.run(code)) == "x"
            assert "Permission" in kernel.run("open(cache + '/../../meta.json')").error
            assert "Permission" in kernel.run("os.listdir(os.path.dirname(cache) + '/../..')").error
    assert (home / ".local/share/sandboxed-kernel/homes").is_dir()


def test_a_project_has_one_home(short_path: Path) -> None:
    project = short_path / "project"
    for name in ("one", "two"):
        (project / name).mkdir(parents=True)
    policy = f"[[folder]]\npath = '{project}'\nproject = true\n"
    (short_path / "config" / "sandboxed-kernel").mkdir(parents=True, exist_ok=True)
    (short_path / "config" / "sandboxed-kernel" / "policy.toml").write_text(policy)
    with kernels.running(kernels.REAL, short_path, cwd=project / "one") as kernel:
        kernel.run("open(__import__('os').path.expanduser('~/.cache/model'), 'w').write('made')")
    with kernels.running(kernels.REAL, short_path, cwd=project / "two") as kernel:
        code = "print(open(__import__('os').path.expanduser('~/.cache/model')).read())"
        assert last(kernel.run(code)) == "made"
    command = [sys.executable, "-m", "sandboxed_kernel", "home", "clean", "--workspace", str(project / "one")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "removed" in done.stdout, done
