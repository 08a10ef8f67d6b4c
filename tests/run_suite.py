"""Does: `make test`. The same tests as three kinds of user, since a sandbox may hold for one and not for another.

    python tests/run_suite.py [--heavy | --peers | --browser | --gallery] [--only STAGE] [--list] [PYTEST ARGUMENTS]

``--heavy`` is `make test-workloads`: tests/workloads/heavy alone, in an environment that has their libraries.
``--peers`` is `make test-peers`: tests/peers alone, in an environment that has the peers' sdists.
``--browser`` is `make test-browser`: tests/browser alone, in an environment that has JupyterLab and Playwright.
``--gallery`` is `make test-gallery`: tests/gallery alone, in an environment that has the notebooks' libraries too.

Started as root it runs every stage; otherwise it runs what this user can, and says what it left out. A stage that
cannot be prepared (no runc, an unreadable interpreter) is a failure with a text, never a skip. The first failing
stage ends the run. The largest comes last, so that the last line of the output is its closing line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ORDINARY_UID = 1000  # needs no entry in /etc/passwd

# What the stages for root call, and the Debian package that has it.
PROGRAMS = {"setpriv": "util-linux", "unshare": "util-linux", "mount": "mount", "ip": "iproute2", "runc": "runc"}

# What `--heavy` and its kin give to pytest, in the stages that are `for_parts`. What a peer's suite prints is the
# result, after minutes: shown at once, and no stack dumped meanwhile. pytest-asyncio is there for the peers only.
PARTS = {
    "heavy": ["--heavy", "tests/workloads/heavy"],
    "peers": ["-s", "-p", "no:asyncio", "-o", "faulthandler_timeout=0", "tests/peers/peer_suites.py"],
    "browser": ["--stage", "browser", "tests/browser"],  # instead of the stage's own choice of tests
    "gallery": ["--stage", "gallery", "tests/gallery"],
}

# Only these come through: a test that needs more of somebody's environment would fail elsewhere.
INHERITED = ("PATH", "LANG", "LC_ALL", "TERM", "CI", "HYPOTHESIS_PROFILE")

SKIP_COPYING = shutil.ignore_patterns(
    ".git", ".venv", ".build", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis"
)


class CannotRun(Exception):
    """A stage that cannot be prepared; the text says what to do."""


@dataclass(frozen=True)
class Place:
    """A tree and the interpreter of a virtual environment in which that tree is installed."""

    tree: Path
    python: Path

    def pytest(self, stage: str, temporary: Path, extra: list[str]) -> list[str]:
        options = ["-p", "no:cacheprovider", "--stage", stage, "--basetemp", str(temporary / "p")]
        return [str(self.python), "-m", "pytest", *options, *extra]


@dataclass(frozen=True)
class Run:
    """What every stage gets: the developer's own place, one that anybody can read, a short temporary folder."""

    own: Place
    base: Path
    extra: list[str]

    def environment(self, stage: str, uid: int) -> tuple[dict[str, str], Path]:
        """A home and a temporary folder that belong to ``uid``, and the variables that say so."""
        folder = self.base / stage[0]
        for name in (folder, folder / "home", folder / "t"):
            name.mkdir(mode=0o755)
            os.chown(name, uid, uid) if os.geteuid() == 0 else None
        user = "root" if uid == 0 else f"user{uid}"
        mine = {
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "t"),
            "USER": user,
            "LOGNAME": user,
            "SANDBOXED_KERNEL_TESTS_STAGE": stage,
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "t" / "hypothesis"),
            "PYTHONDONTWRITEBYTECODE": "1",  # the tree may be somebody else's
        }
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {"HYPOTHESIS_PROFILE": "suite", **inherited, **mine}, folder  # all examples: tests/support/effort.py


# --- the stages ------------------------------------------------------------------------------------------------


def lint(run: Run) -> int:
    tools = run.own.python.parent
    commands = (
        [str(tools / "ruff"), "check", "--no-cache", "."],
        [str(tools / "ruff"), "format", "--no-cache", "--check", "--quiet", "."],
        [str(tools / "mypy")],
        [str(run.own.python), "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/test_architecture.py"],
    )
    for command in commands:
        if code := call(command, run.own.tree):
            return code
    return 0


def as_root(run: Run) -> int:
    env, folder = run.environment("root", 0)
    return call(run.own.pytest("root", folder, run.extra), run.own.tree, env)


def in_container(run: Run) -> int:
    place = readable_place(run)
    env, folder = run.environment("container", ORDINARY_UID)
    env["SANDBOXED_KERNEL_TESTS_IN_CONTAINER"] = "runc"
    bundle = run.base / "bundle"
    bundle.mkdir()
    name = f"sandboxed-kernel-tests-{os.getpid()}"
    starter = [str(bundle), name, str(ORDINARY_UID), str(place.tree), *(f"{key}={value}" for key, value in env.items())]
    command = ["unshare", "--mount", "--net", "--propagation", "private", str(run.own.python)]
    command += [str(run.own.tree / "tests/container/start.py"), *starter, "--"]
    return call([*command, *place.pytest("container", folder, run.extra)], run.own.tree)


def as_ordinary_user(run: Run) -> int:
    if os.geteuid() != 0:
        env, folder = run.environment("unprepared", os.getuid())  # with whatever privileges this user has
        return call(run.own.pytest("ordinary", folder, run.extra), run.own.tree, env)
    place = readable_place(run)
    env, folder = run.environment("ordinary", ORDINARY_UID)
    return call(demoted(place.pytest("ordinary", folder, run.extra)), place.tree, env)


@dataclass(frozen=True)
class Stage:
    name: str
    what: str
    needs_root: bool
    run: Callable[[Run], int]
    for_parts: bool = False


STAGES = (
    Stage("lint", "ruff, mypy --strict, and the import table", False, lint),
    Stage("root", "the tests marked root, and every promise with all capabilities at hand", True, as_root),
    Stage("container", "in runc, as uid 1000, with no capability and Docker's profile", True, in_container, True),
    Stage("ordinary", "as an ordinary user without capabilities", False, as_ordinary_user, True),
)


# --- preparation -----------------------------------------------------------------------------------------------


def call(command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> int:
    """The exit code. Output goes where ours goes, unbuffered by us, so that a stage's last line is the last line."""
    sys.stdout.flush()
    return subprocess.run(command, cwd=cwd, env=None if env is None else dict(env), stdin=subprocess.DEVNULL).returncode


def demoted(command: list[str]) -> list[str]:
    """``command`` as a user without any way back: no capability in any set, no groups, no_new_privs."""
    user = [f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups"]
    return ["setpriv", *user, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--", *command]


def is_usable(place: Place) -> str:
    """Empty if the ordinary user can run the tests there, else what went wrong. By trying it."""
    probe = "import os, pytest, sandboxed_kernel; os.listdir('tests'); open('pyproject.toml').close()"
    # As root, into the folder: `cwd` is entered before the user changes, so the probe enters it once more.
    code = f"import os; os.chdir({str(place.tree)!r}); {probe}"
    done = subprocess.run(demoted([str(place.python), "-I", "-c", code]), cwd="/", capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def readable_place(run: Run) -> Place:
    """Where the ordinary user can run the tests: the checkout itself, or a copy of it and of its environment."""
    problem = is_usable(run.own)
    if not problem:
        return run.own
    place = Place(run.base / "tree", run.base / "venv/bin/python")
    if not place.tree.exists():
        print(f"uid {ORDINARY_UID} cannot use this checkout ({problem}); copying it to {run.base}")
        copy_place(run.own, place)
    if problem := is_usable(place):
        base = Path(sys.base_prefix)
        raise CannotRun(
            f"uid {ORDINARY_UID} cannot run a copy of the virtual environment either ({problem}). Its Python comes "
            f"from {base}; use one that everybody can read: make clean && make test PYTHON=/usr/bin/python3"
        )
    return place


def copy_place(old: Place, new: Place) -> None:
    """A virtual environment can be moved if its paths are: those in ``*.pth`` (editable install) and in scripts."""
    old_venv, new_venv = old.python.parents[1], new.python.parents[1]
    shutil.copytree(old.tree, new.tree, symlinks=True, ignore=SKIP_COPYING)
    shutil.copytree(old_venv, new_venv, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in new_venv.glob("lib/python*/site-packages/*.pth"):
        path.write_text(path.read_text().replace(str(old.tree), str(new.tree)))
    for script in new_venv.glob("bin/*"):
        if script.is_symlink():
            continue
        data = script.read_bytes()
        if data.startswith(b"#!"):
            script.write_bytes(data.replace(bytes(old_venv), bytes(new_venv)))
    subprocess.run(["chmod", "-R", "a+rX", new.tree, new_venv], check=True)


def check_programs() -> None:
    missing = {program: package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise CannotRun(
            f"not found: {', '.join(missing)}. As root the suite runs every stage and needs them: "
            f"apt-get install {' '.join(sorted(set(missing.values())))}"
        )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=[stage.name for stage in STAGES], help="this stage alone")
    parser.add_argument("--list", action="store_true", help="say which stages there are")
    part = parser.add_mutually_exclusive_group()
    for name, given in PARTS.items():
        part.add_argument(f"--{name}", action="store_const", dest="part", const=given, help=f"only {given[-1]}")
    options, extra = parser.parse_known_args(arguments)
    extra = [*(options.part or ()), *extra]
    if options.list:
        print("\n".join(f"{stage.name:10} {stage.what}" for stage in STAGES))
        return 0
    root = os.geteuid() == 0
    possible = [stage for stage in STAGES if stage.for_parts or options.part is None]
    wanted = [stage for stage in possible if options.only in (None, stage.name)]
    for stage in wanted:
        if stage.needs_root and not root:
            print(f"=== left out, since it needs root: {stage.name} ({stage.what})")
    # Not below TMPDIR: the paths of unix sockets hold 107 bytes, and other users have to get there.
    base = Path(tempfile.mkdtemp(prefix="sbk-", dir="/tmp"))
    base.chmod(0o755)
    run = Run(Place(Path(__file__).resolve().parents[1], Path(sys.prefix, "bin/python")), base, extra)
    try:
        if root:
            check_programs()
        for stage in wanted:
            if stage.needs_root and not root:
                continue
            print(f"=== {stage.name}: {stage.what}")
            if code := stage.run(run):
                return code
    except CannotRun as problem:
        print(f"{Path(__file__).name}: {problem}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
