"""Every public module of Jupyter's packages can be imported first, and last, in a kernel as it is after its start.

Some modules come late in a sandboxed kernel (inside/imports.py): whichever name asks for them first must get the real
ones. A process is forked off for each attempt: it is the kernel in which nothing has been imported yet. A module that
cannot be imported in a plain kernel (another system's, one of a library that is not there) need not be possible inside.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import pkgutil
from collections.abc import Iterable, Iterator

import pytest

from tests.support import kernels
from tests.support.effort import PROFILE, few
from tests.support.kernels import PLAIN, Kernel
from tests.support.workloads import sandboxed, text_of

PACKAGES = (
    "IPython", "comm", "debugpy", "ipykernel", "ipywidgets", "jupyter_client", "jupyter_core", "matplotlib_inline",
    "nbclient", "nbconvert", "nbformat", "papermill", "traitlets", "zmq",
)  # fmt: skip
# What these come upon late, by the names that people write.
LATE = ["jupyter_client.manager", "ipykernel.debugger", "pdb", "nbclient", "debugpy", "ipykernel.inprocess.manager"]
AT_ONCE = 4  # modules in one cell

# Nothing is imported in the kernel itself: each attempt is a process forked off it.
CELL = """
import os, signal, sys

def import_all(names):
    for name in names:
        __import__(name)
        module = sys.modules[name]
        parent, _, own = name.rpartition(".")
        # As an import leaves it, but for a package that has something else of this name.
        assert not parent or getattr(sys.modules[parent], own) is module or own in vars(sys.modules[parent]), name

def in_a_thread(names):
    import threading
    raised = []
    def work():
        try: import_all(names)
        except BaseException as error: raised.append(error)
    thread = threading.Thread(target=work)
    thread.start(), thread.join()
    if raised: raise raised[0]

def forked(attempt):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(25)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in 0, 1, 2: os.dup2(nowhere, stream)
            sys.argv, sys.stdout, sys.stderr = ["kernel"], open(os.devnull, "w"), open(os.devnull, "w")
            os.write(theirs, attempt() or b"")
        except BaseException as error:
            os.write(theirs, f"{type(error).__name__}: {error}".encode()[:300])
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as said:
        text = said.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    return text or (f"ended with {status}" if status else "")

def first(name):
    in_a_thread([name])
    import_all(LATE)

def afterwards():
    import_all(LATE)
    said = {name: forked(lambda: import_all([name])) for name in NAMES}
    return repr({f"{name} last": text for name, text in said.items() if text}).encode()

failed = {f"{name} first": text for name in NAMES if (text := forked(lambda: first(name)))}
print([failed, forked(afterwards)])
"""


def modules(package: str) -> Iterator[str]:
    """The public ones, without running anything of the package."""
    spec = importlib.util.find_spec(package)
    if spec is not None:
        yield package
        yield from _below(spec.submodule_search_locations or [], package)


def _below(folders: Iterable[str], package: str) -> Iterator[str]:
    for folder in folders:
        for found in pkgutil.iter_modules([folder]):
            if found.name.startswith("_") or found.name in ("tests", "testing", "conftest"):
                continue
            yield f"{package}.{found.name}"
            if found.ispkg:
                yield from _below([os.path.join(folder, found.name)], f"{package}.{found.name}")


ALL = [name for package in PACKAGES for name in modules(package)]
# Those of the packages that come late, whole; of the others some, and all with HYPOTHESIS_PROFILE=explore.
OWN = {"debugpy", "ipykernel", "jupyter_client", "nbclient"}
SOME = 1 if PROFILE == "explore" else 8
OTHERS = [name for name in ALL if name.partition(".")[0] not in OWN]
FEWER = [name for name in ALL if name not in OTHERS] + OTHERS[::SOME]
CHOSEN = FEWER[:: len(FEWER) // few(len(FEWER))]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Kernel]]:
    """A plain kernel and a sandboxed one, in which no other test has imported anything."""
    plain, inside = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("inside")
    with kernels.running(PLAIN, plain) as one, sandboxed(inside, "") as other:
        yield one, other


@pytest.mark.parametrize("start", range(0, len(CHOSEN), AT_ONCE))
def test_every_module_can_be_imported_first_and_last(fresh: tuple[Kernel, Kernel], start: int) -> None:
    """First: from a thread, what comes late in the main one then. Last: the other way."""
    plain, inside = fresh
    if failed := attempts(inside, CHOSEN[start : start + AT_ONCE]):
        as_outside = attempts(plain, sorted({attempt.partition(" ")[0] for attempt in failed}))
        assert {attempt: said for attempt, said in failed.items() if attempt not in as_outside} == {}


def attempts(kernel: Kernel, names: list[str]) -> dict[str, str]:
    """What failed -> with what."""
    cell = CELL.replace("NAMES", repr(names)).replace("LATE", repr(LATE))
    failed, last = ast.literal_eval(text_of(kernel.run(cell)))
    return {**failed, **ast.literal_eval(last)}


def test_an_import_that_fails_is_seen(fresh: tuple[Kernel, Kernel]) -> None:
    for kernel in fresh:
        said = attempts(kernel, ["IPython.nowhere", "os"])
        assert said.keys() == {"IPython.nowhere first", "IPython.nowhere last"}
        assert all(text.startswith("ModuleNotFoundError") for text in said.values())


def test_the_late_ones_are_late(fresh: tuple[Kernel, Kernel]) -> None:
    """Else the above tries nothing: the forks of a sandboxed kernel begin without them."""
    code = f"import sys\nprint([name for name in {LATE} if type(sys.modules.get(name)).__name__ == 'module'])"
    assert text_of(fresh[1].run(code)).strip() == "[]"
