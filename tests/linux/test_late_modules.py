"""What is imported late is what it would have been, and nobody sees a stand-in who did not import it meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULES = {
    "heavy.py": "import sys\nprint('loaded')\nVALUE = 1\nNAME = __name__\n",
    "user.py": "import heavy\nfrom heavy import KNOWN\ndef value(): return heavy.VALUE\n",
    "asks_more.py": "from heavy import VALUE\n",
    "broken.py": "raise RuntimeError('as it is')\nVALUE = 1\n",
}
# What a kernel's start leaves out, each for the time or the memory that it takes.
LEFT_OUT = (
    "_hashlib", "base64", "bz2", "ctypes", "curses", "dateutil", "debugpy", "hashlib", "hmac", "html", "ipaddress",
    "ipykernel.debugger", "lzma", "ntpath", "packaging", "pdb", "platformdirs", "psutil", "sqlite3", "ssl",
    "typing_extensions",
)  # fmt: skip
START = Path(__file__).parents[2] / "sandboxed_kernel/inside/start.py"
HEAD = "import sys\nfrom sandboxed_kernel.late import Real, import_with, late, standing_in, when_imported\n"


def say(folder: Path, code: str) -> list[str]:
    for name, text in MODULES.items():
        (folder / name).write_text(text)
    return lines_of(HEAD + code, cwd=folder)


def lines_of(code: str, *options: str, cwd: Path | None = None) -> list[str]:
    done = subprocess.run([sys.executable, *options, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_late_module_becomes_the_real_one_at_its_first_use(tmp_path: Path) -> None:
    code = "late('heavy', {'KNOWN': 2})\nimport user, heavy\nprint(heavy.KNOWN)\nprint(user.value(), heavy.NAME)\n"
    code += "print(user.heavy is heavy is sys.modules['heavy'])"
    assert say(tmp_path, code) == ["2", "loaded", "1 heavy", "True"]


def test_asking_for_what_it_cannot_have_does_not_load_it(tmp_path: Path) -> None:
    assert say(tmp_path, "late('heavy', {})\nimport heavy\nprint(hasattr(heavy, 'nowhere'))\n") == ["False"]


def test_a_late_module_that_fails_says_so_each_time(tmp_path: Path) -> None:
    attempt = "try: broken.VALUE\nexcept RuntimeError as error: print(error)\n"
    assert say(tmp_path, f"late('broken', {{}})\nimport broken\n{attempt}{attempt}") == ["as it is", "as it is"]


def test_threads_that_ask_a_late_module_at_once_all_get_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.3)\nVALUE = 1\n")
    code = "import threading\nlate('slow', {})\nimport slow\ngot = []\n"
    code += "threads = [threading.Thread(target=lambda: got.append(slow.VALUE)) for _ in range(8)]\n"
    code += "[thread.start() for thread in threads], [thread.join() for thread in threads]\nprint(got)"
    assert say(tmp_path, code) == ["[1, 1, 1, 1, 1, 1, 1, 1]"]


def test_something_is_done_when_a_module_is_imported(tmp_path: Path) -> None:
    code = "when_imported('heavy', before=lambda m: print('before', hasattr(m, 'VALUE')), then=lambda: print('then'))\n"
    code += "hook = sys.meta_path[0]\nprint(hook in sys.meta_path)\n"
    code += "print(importlib.util.find_spec('heavy').loader.get_source('heavy')[:10])\n"
    code += "import heavy\nimport inspect\nprint(heavy.VALUE, type(heavy.__loader__).__name__, hook in sys.meta_path)\n"
    code += "print(inspect.getsource(heavy)[:10], heavy.__loader__ is heavy.__spec__.loader)\nimport importlib"
    said = say(tmp_path, f"import importlib.util\n{code}\nimportlib.reload(heavy)")
    assert said == [
        "True",
        "import sys",
        "before False",
        "loaded",
        "then",
        "1 SourceFileLoader False",
        "import sys True",
        "loaded",
    ]


def test_an_import_that_fails_is_awaited_again(tmp_path: Path) -> None:
    code = "when_imported('broken', then=lambda: print('then'))\nfor _ in 'ab':\n  try: import broken\n"
    code += "  except RuntimeError as error: print(error)\nopen('broken.py', 'w').write('VALUE = 22222222')\n"
    assert say(tmp_path, code + "import broken") == ["as it is", "as it is", "then"]


def test_a_late_module_is_an_attribute_of_its_package(tmp_path: Path) -> None:
    code = "import email\nlate('email.message', {})\nimport email.message\nprint(email.message.Message.__name__)"
    assert say(tmp_path, code) == ["Message"]


def test_a_stand_in_is_gone_afterwards(tmp_path: Path) -> None:
    code = "import_with('user', {'heavy': {'KNOWN': 3}})\nprint('heavy' in sys.modules)\nimport user\n"
    code += "print(user.KNOWN, hasattr(user.heavy, 'VALUE'))\nimport heavy\nprint(heavy.VALUE)"
    assert say(tmp_path, code) == ["False", "3 False", "loaded", "1"]


def test_a_module_that_asks_a_stand_in_for_more_is_imported_with_the_real_one(tmp_path: Path) -> None:
    code = "import_with('asks_more', {'heavy': {'KNOWN': 3}})\nprint('asks_more' in sys.modules)\n"
    assert say(tmp_path, f"{code}import asks_more\nprint(asks_more.VALUE)") == ["False", "loaded", "1"]


def test_what_is_imported_already_is_not_replaced(tmp_path: Path) -> None:
    code = "import heavy\nwith standing_in(Real('heavy')):\n    import heavy as again\n"
    code += "print(again is heavy is sys.modules['heavy'])"
    assert say(tmp_path, code) == ["loaded", "True"]


def test_a_real_stand_in_has_what_the_module_has(tmp_path: Path) -> None:
    code = "with standing_in(Real('heavy')):\n    import heavy as mine\n"
    code += "print('heavy' in sys.modules)\nprint(mine.VALUE)\nimport heavy\nprint(heavy.VALUE, mine is heavy)"
    assert say(tmp_path, code) == ["False", "loaded", "1", "1 False"]


def test_a_stand_in_that_is_used_meanwhile_gives_way(tmp_path: Path) -> None:
    code = "with standing_in(Real('heavy')):\n    import heavy as first\n    from heavy import VALUE\n"
    code += "    import heavy as second\nprint(VALUE, first is second, second is sys.modules['heavy'])"
    assert say(tmp_path, code) == ["loaded", "1 False True"]


def test_a_stand_in_for_a_package_has_its_modules(tmp_path: Path) -> None:
    code = "with standing_in(Real('email')):\n    import email, email.message\n    from email.charset import *\n"
    assert say(tmp_path, code + "print(email.message.Message.__name__, Charset.__name__)") == ["Message Charset"]


@pytest.mark.parametrize(
    "first",
    [
        "import pdb; pdb.Pdb", "from pdb import set_trace", "import IPython.core.debugger as d; d.Pdb",
        "from IPython.core.debugger import Pdb", "import doctest", "import bdb, cmd",
    ],
)  # fmt: skip
def test_the_debugger_that_can_be_interrupted_is_in_place_whatever_is_imported_first(first: str) -> None:
    code = f"import runpy, sys\nmade = runpy.run_path({str(START)!r})\nmade['SandboxedKernelApp']().init_pdb()\n"
    code += f"print('bdb' in sys.modules)\n{first}\nimport pdb\nimport IPython.core.debugger as own\n"
    code += "print(pdb.Pdb.__name__, pdb.Pdb is own.InterruptiblePdb is own.Pdb, pdb.set_trace is own.set_trace)"
    assert lines_of(code, "-I") == ["False", "InterruptiblePdb True True"]


# Asks for every public module of these packages that this Python can import, from the last to the first or back, and
# says what raised. What is not a module for import by itself, or needs what is not installed, raises in plain as well.
IMPORT_ALL = """
import importlib, pkgutil, io, contextlib
def names(package):
    spec = importlib.util.find_spec(package)
    for found in pkgutil.iter_modules(spec.submodule_search_locations, package + "."):
        own = found.name.rpartition(".")[2]
        if not own.startswith("_") and own not in ("tests", "testing", "conftest"):
            yield found.name
            if found.ispkg:
                yield from names(found.name)
wanted = [name for package in PACKAGES for name in names(package)]
failed = []
for name in sorted(wanted, reverse=BACKWARDS):
    try:
        module = importlib.import_module(name)
        parent, _, own = name.rpartition(".")
        # As plain does, but for a package that has something else of this name.
        assert getattr(sys.modules[parent], own) is module or own in vars(sys.modules[parent]), name
        assert sys.modules[name] is module, name
    except Exception as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
print(len(wanted) > 100)
print(failed)
"""


@pytest.mark.parametrize("backwards", [False, True])
def test_every_module_of_jupyter_is_imported_in_either_order(backwards: bool) -> None:
    code = "import importlib.util\nPACKAGES = ['ipykernel', 'jupyter_client', 'IPython', 'nbclient']\n"
    code += f"BACKWARDS = {backwards}\n{IMPORT_ALL}"
    plain = lines_of(f"import sys\nimport ipykernel.kernelapp, pdb, IPython.core.debugger\n{code}", "-I")
    inside = f"import runpy, sys\nmade = runpy.run_path({str(START)!r})\nmade['SandboxedKernelApp']().init_pdb()\n"
    assert lines_of(inside + code, "-I")[-2:] == plain[-2:]  # some print, and not the same each time
    assert plain[-2] == "True"


@pytest.mark.parametrize(
    "first",
    [
        "import jupyter_client.manager", "from jupyter_client.manager import KernelManager", "import nbclient",
        "from ipykernel.inprocess.manager import InProcessKernelManager", "import jupyter_client.blocking.client",
        "import ipykernel.connect as c; c.jupyter_client.KernelManager",
        "import jupyter_client; jupyter_client.launcher",
    ],
)  # fmt: skip
def test_the_client_half_is_imported_by_any_name_first_and_from_any_thread(first: str) -> None:
    code = f"import runpy, sys, threading\nrunpy.run_path({str(START)!r})\nprint('jupyter_client' in sys.modules)\n"
    code += f"failed = []\ndef run():\n  try: exec({first!r}, {{}})\n"
    code += "  except BaseException as error: failed.append(error)\n"
    code += "threads = [threading.Thread(target=run) for _ in range(4)]\n"
    code += "[thread.start() for thread in threads], [thread.join() for thread in threads]\n"
    code += "import jupyter_client, ipykernel.kernelapp\nprint(failed, jupyter_client.KernelManager.__name__)\n"
    code += "print(jupyter_client.session.Session is ipykernel.kernelapp.Session)"
    assert lines_of(code, "-I") == ["False", "[] KernelManager", "True"]


def test_a_kernel_s_imports_leave_out_what_takes_long() -> None:
    """And leave no stand-in: a name is absent, or late."""
    code = f"import runpy, sys\nrunpy.run_path({str(START)!r})\n"
    code += f"print(*(name for name in {LEFT_OUT} if type(sys.modules.get(name)).__name__ == 'module'))"
    assert lines_of(code, "-I") == [""]


def test_the_relay_s_imports_leave_out_what_few_kernels_need() -> None:
    code = "import sys\nimport sandboxed_kernel.launcher\nfrom sandboxed_kernel.relay.imports import late_imports\n"
    code += "with late_imports():\n    from sandboxed_kernel.relay import loop\n"
    left_out = ("_hashlib", "asyncio", "dataclasses", "html", "nh3", "pickle", "platform", "random", "ssl")
    code += f"print(*(name for name in {left_out} if name in sys.modules))\nfrom sandboxed_kernel.relay import markup\n"
    code += "print(type(markup).__name__, markup.clean_html('<b onclick=x>b</b>'), type(markup).__name__)"
    assert lines_of(code, "-I") == ["", "_LateModule <b>b</b> module"]
