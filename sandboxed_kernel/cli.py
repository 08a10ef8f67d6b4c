"""Does: words for people. install, uninstall, check, explain, run, home ...; and the form that starts a Jupyter kernel.

No decisions here: policy/ says what is allowed, confinement/ what this host can do, launcher what happens. The form
that a kernelspec runs, ``--policy FILE -f CONNECTION_FILE``, is on the path to the first cell: it is read by hand, and
everything else is imported where a person waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sandboxed_kernel.errors import HostError, PolicyError, SandboxError
from sandboxed_kernel.policy.place import DEFAULT_KERNEL
from sandboxed_kernel.records import Record
from sandboxed_kernel.startup import pin_imports

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

PROGRAM = "sandboxed-kernel"
_FOR_PEOPLE = ("-h", "--help", "--version")
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code. Errors are one line, not a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    pin_imports()
    try:
        _see_that_this_is_linux()
        if words and words[0].startswith("-") and words[0] not in _FOR_PEOPLE:
            return _run_kernel(words)
        return _run_for_people(words)
    except SandboxError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED


def _see_that_this_is_linux() -> None:
    if sys.platform != "linux":
        where = "Use it in a virtual machine, on Windows in WSL2."
        raise HostError(f"this is {sys.platform}, and Landlock and seccomp are parts of Linux. {where}")


# --- the form that starts a Jupyter kernel -----------------------------------------------------------------------


class KernelArguments(Record):
    """What a kernelspec's argv says after ``python -I -m sandboxed_kernel``."""

    connection_file: str
    policy_file: str | None = None
    settings: tuple[str, ...] = ()  # of ipykernel, for the kernel inside: "--HistoryManager.hist_file=:memory:"
    kernel: str = DEFAULT_KERNEL  # the kernelspec's name, whose policy is read where no other is named


# jupyter_client keeps "-f FILE"; VS Code writes "--f=FILE" for what it takes to be ipykernel.
_KERNEL_OPTIONS = {"-f": "connection_file", "--f": "connection_file", "--policy": "policy_file", "--kernel": "kernel"}


def kernel_arguments(words: Sequence[str]) -> KernelArguments:
    """``-f FILE``, ``-f=FILE``, ``--f FILE`` or ``--f=FILE``, and the same of ``--policy`` and ``--kernel``.
    Raises PolicyError.

    ``--Class.trait=VALUE`` is ipykernel's and passed on to it: nbclient adds one to every kernel named python3. So are
    names that follow the connection file: `jupyter run` appends those of its scripts, of which ipykernel makes nothing.
    """
    found: dict[str, str] = {}
    settings = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if (equals and _is_trait(option)) or ("connection_file" in found and _is_script(word)):
            settings.append(word)
            continue
        name = _KERNEL_OPTIONS.get(option)
        if name is None:
            write = f'Write [--policy FILE] -f CONNECTION_FILE, or "{PROGRAM} --help" to see the commands'
            raise PolicyError("the command line", f"{word!r} is not understood", write)
        if name in found:
            raise PolicyError("the command line", f"{option} for the second time", "Write it once")
        found[name] = value if equals else next(rest, "")
        if not found[name]:
            what = "NAME" if name == "kernel" else "FILE"
            raise PolicyError("the command line", f"{option} without a {what.lower()}", f"Write {option} {what}")
    if "connection_file" not in found:
        raise PolicyError("the command line", "no connection file", "Write -f CONNECTION_FILE; Jupyter fills it in")
    return KernelArguments(**found, settings=tuple(settings))


def _is_trait(option: str) -> bool:
    """Whether it is written like ``--HistoryManager.hist_file``, as traitlets' command lines are."""
    class_name, _, trait = option.removeprefix("--").partition(".")
    return option.startswith("--") and class_name[:1].isupper() and class_name.isidentifier() and trait.isidentifier()


def _is_script(word: str) -> bool:
    """A policy without its option is not overlooked: nothing else here is as bad to lose."""
    return word[:1] not in ("", "-") and not word.endswith(".toml")


def _run_kernel(words: Sequence[str]) -> int:
    arguments = kernel_arguments(words)
    from sandboxed_kernel import launcher

    return launcher.run_kernel(arguments.policy_file, arguments.connection_file, arguments.settings, arguments.kernel)


# --- commands for people -----------------------------------------------------------------------------------------


def _run_for_people(words: list[str]) -> int:
    parser = _parser()
    # What follows "--" is somebody else's command line: argparse must not see it.
    own, command = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, None)
    options, unknown = parser.parse_known_args(own)
    if unknown and options.run is _run and command is None:
        parser.error(f'the command stands behind "--": {PROGRAM} run -- {" ".join(unknown)}')
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if command is not None and options.run is not _run:
        parser.error('"--" belongs to the command run')
    if options.run is _run:
        options.command = command
    run: Callable[[Namespace], int] = options.run
    return run(options)


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser

    from sandboxed_kernel import __version__, home_commands, policy_commands

    parser = ArgumentParser(PROGRAM, description="A Jupyter kernel that is safe to hand to code you did not write.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, run: Callable[[Namespace], int], text: str, **more: Any) -> ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False, **more)
        command.set_defaults(run=run)
        return command

    _add_install_options(add("install", _install, "install the kernel so that Jupyter and VS Code list it"))
    uninstall = add("uninstall", _uninstall, "remove a kernel that install wrote")
    which = uninstall.add_mutually_exclusive_group()
    which.add_argument("--name", help="the kernel's name (default: sandboxed-python3)", default=None)
    text = "all kernels that install wrote, and your policies, the log and the private homes that last"
    which.add_argument("--all", action="store_true", help=text)
    uninstall.add_argument("--yes", action="store_true", help="do not ask (with --all)")
    add("check", _check, "try what this host can enforce, and say what holds")
    explain = add(
        "explain", policy_commands.explain, "say whether HOST:PORT or PATH would be allowed, and by which line"
    )
    explain.add_argument("target", metavar="HOST:PORT|PATH", help='"pypi.org:443", "udp://10.0.0.5:8125", "~/data"')
    policy_commands.add_policy_options(explain)
    text = "let the policy allow HOST:PORT, a path or a preset; without arguments: choose from the last refusals"
    policy_commands.add_change_options(add("allow", policy_commands.allow, text))
    policy_commands.add_change_options(add("forget", policy_commands.forget, "take such lines out of the policy"))
    show = add("policy", policy_commands.show, "print the policy of a kernel")
    show.add_argument("--origin", action="store_true", help="each entry with its file, line and section")
    policy_commands.add_policy_options(show)
    text = "list what was made or changed in a folder that programs outside the sandbox run or obey"
    changes = add("changes", policy_commands.changes, text)
    changes.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="the notebook's (default: this one)")
    policy_commands.add_since(changes)
    run = add("run", _run, "run any command in the same sandbox", usage=f"{PROGRAM} run [OPTIONS] -- COMMAND ...")
    policy_commands.add_policy_options(run)
    run.add_argument("--audit", metavar="FILE", help="append one JSON line per refusal and new destination to FILE")
    run.add_argument("--resolv-conf", metavar="FILE", help="name servers to ask (default: /etc/resolv.conf)")
    text = "what lasts of the private homes: list, size, clean, or let this folder have a former one"
    home_commands.add_home_options(add("home", home_commands.home, text))
    add("demo", _demo, "run a notebook that shows what is allowed, refused and explained")
    return parser


def _add_install_options(parser: ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for you, in all your Jupyters (default)")
    where.add_argument("--sys-prefix", action="store_true", help="in this Python's environment")
    where.add_argument("--prefix", help="under PREFIX/share/jupyter/kernels")
    parser.add_argument("--no-try", action="store_true", help="start no kernel to see that it works")
    less = "go on with what this Linux can enforce: says so in the policy (best_effort)"
    parser.add_argument("--best-effort", action="store_true", help=less)
    parser.add_argument("--name", help="the kernel's name (default: sandboxed-python3)", default=None)
    parser.add_argument("--display-name", help='what people see (default: "Python 3 (sandboxed)")', default=None)
    which = parser.add_mutually_exclusive_group()
    text = (
        "the policy of every notebook that uses this kernel (default: that of the last install, else each user's own)"
    )
    which.add_argument("--policy", metavar="FILE", help=text)
    which.add_argument("--no-policy", action="store_true", help="name no policy: each user's own file is read")


def _install(options: Namespace) -> int:
    from sandboxed_kernel import kernelspec, policy_commands

    name = options.name or kernelspec.NAME
    prefix = sys.prefix if options.sys_prefix else options.prefix
    policy = options.policy
    if policy is not None:
        policy_commands.read_named(policy, os.getcwd())  # an error now, not at the first start
    elif not options.no_policy:
        policy = kernelspec.kept_policy(name, prefix)
    folder = kernelspec.install(
        name=name,
        display_name=options.display_name or kernelspec.DISPLAY_NAME,
        policy_file=policy,
        prefix=prefix,
    )
    print(f"Installed {folder}")
    if options.best_effort:
        policy_commands.do_with_less(policy, name)
    policy_commands.tell_installed(options, name, policy)
    return 0 if options.no_try else _try(kernelspec.try_kernel(folder))


def _try(error: str) -> int:
    if not error:
        print("Tried:     a kernel started in the sandbox and ran a cell.")
        return 0
    sys.stdout.flush()
    print(f"{PROGRAM}: it is installed, but the kernel does not work here: {error}", file=sys.stderr)
    return HostError.exit_code


def _uninstall(options: Namespace) -> int:
    from sandboxed_kernel import kernelspec

    if options.all:
        from sandboxed_kernel import home_commands

        return home_commands.remove_all(options)
    for folder in kernelspec.uninstall(options.name or kernelspec.NAME):
        print(f"Removed {folder}")
    return 0


def _check(_: Namespace) -> int:
    from sandboxed_kernel.check import check

    results = check()
    width = max((len(result.name) for result in results), default=0)
    for result in results:
        print(f"{'holds  ' if result.holds else 'MISSING'}  {result.name:<{width}}  {result.detail}")
    missing = [result for result in results if not result.holds]
    if not missing:
        print("This host enforces all of it.")
        return 0
    print(f"{len(missing)} of {len(results)} do not hold on this host.")
    for remedy in dict.fromkeys(result.remedy for result in missing if result.remedy):
        print(remedy)
    return HostError.exit_code


def _run(options: Namespace) -> int:
    if not options.command:
        raise PolicyError("the command line", "no command", f"Write {PROGRAM} run [--policy FILE] -- COMMAND ...")
    import shutil

    from sandboxed_kernel import launcher, policy_commands

    workspace = policy_commands.workspace_of(options)
    program = options.command[0]
    searched = os.environ.get("PATH", os.defpath)
    if "/" not in program and shutil.which(program, path=f"{searched}:{os.path.join(sys.prefix, 'bin')}") is None:
        raise PolicyError(
            "the command line", f"{program!r} is not found on PATH ({searched})", "Write a program's name"
        )
    return launcher.run_command(
        options.command,
        policy_file=policy_commands.named_policy(options),
        kernel=policy_commands.kernel_of(options),
        workspace=workspace,
        audit_file=options.audit,
        resolv_conf=options.resolv_conf,
    )


def _demo(_: Namespace) -> int:
    from sandboxed_kernel import demo

    return demo.main()
