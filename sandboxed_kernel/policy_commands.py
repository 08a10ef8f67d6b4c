"""Does: words for people about policies: which file is whose, what it allows, what would allow more."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sandboxed_kernel import kernelspec
from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.change import Change, entry_for, entry_of, entry_text, still_allowed
from sandboxed_kernel.policy.file import absolute
from sandboxed_kernel.policy.model import Policy, in_force
from sandboxed_kernel.policy.place import DEFAULT_KERNEL, FOLDER, file_name
from sandboxed_kernel.settings import PolicyFile, choose_policy, load_settings
from sandboxed_kernel.surroundings import home_folder, policy_file_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from sandboxed_kernel.notices.events import Event
    from sandboxed_kernel.policy.change import Entry
    from sandboxed_kernel.policy.explain import Explanation
    from sandboxed_kernel.policy.file import Source
    from sandboxed_kernel.policy.guarded import Mode
    from sandboxed_kernel.policy.model import PathGrant


def add_policy_options(parser: ArgumentParser, *, workspace: bool = True) -> None:
    """Which policy a command is about."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--policy", metavar="FILE", help="this policy (default: that of the kernel)")
    which.add_argument("--kernel", metavar="NAME", help=f"the policy of this kernel (default: {DEFAULT_KERNEL})")
    if workspace:
        text = "the notebook's folder (default: this folder)"
        parser.add_argument("--workspace", metavar="DIR", default=".", help=text)


def workspace_of(options: Namespace) -> str:
    """Raises PolicyError."""
    folder: str = os.path.realpath(options.workspace)  # as a kernel knows it
    if not os.path.isdir(folder):
        raise PolicyError("--workspace", f'"{options.workspace}" is not a folder', "Name an existing folder")
    return folder


def kernel_of(options: Namespace) -> str:
    """The name of the kernel that a command is about."""
    return options.kernel or DEFAULT_KERNEL


def named_policy(options: Namespace) -> str | None:
    """The policy that --policy names, or else the kernelspec of the kernel. Raises PolicyError."""
    if options.policy is not None:
        return str(options.policy)
    found = kernelspec.find(kernel_of(options))
    if found is None and options.kernel is not None:
        write = 'Write a name that "jupyter kernelspec list" shows'
        raise PolicyError("--kernel", f"no kernel {options.kernel!r} is installed", write)
    return found.policy_file if found else None


def policy_file(options: Namespace, workspace: str) -> PolicyFile:
    """What the kernel would read in that folder: launcher.run_kernel's order. Raises PolicyError."""
    given = named_policy(options) or load_settings(workspace).policy_file
    return choose_policy(given, kernel_of(options))


def read_policy(file: PolicyFile, workspace: str) -> Policy:
    """Raises PolicyError."""
    return in_force(read_named(file.path, workspace), time.time()) if file.exists else Policy()


def read_named(path: str, workspace: str) -> Policy:
    """Raises PolicyError."""
    from sandboxed_kernel.policy.read import load

    return load(path, workspace=workspace, home=home_folder())


def named(file: PolicyFile) -> str:
    """For people: the file, and what it means that it is not there."""
    return file.path if file.exists else f"{file.path} (does not exist: the default policy)"


def do_with_less(policy: str | None, name: str) -> None:
    """``install --best-effort``: the policy says what this Linux cannot enforce. Raises PolicyError."""
    from sandboxed_kernel.confinement.host import find_features
    from sandboxed_kernel.confinement.plan import missing_features
    from sandboxed_kernel.editing import edit

    missing = missing_features(find_features().landlock_abi)
    if missing:
        edited = edit(policy or policy_file_of(name), Change(best_effort=missing), name)
        print(f"Not enforced on this host, as {edited.path} says now: {', '.join(missing)}")


def tell_installed(options: Namespace, name: str, policy: str | None) -> None:
    """What ``install`` says of the policy, and makes for it. Raises PolicyError."""
    what = options.display_name or kernelspec.DISPLAY_NAME
    if policy is not None:
        kept = "" if options.policy is not None else " (kept from the last install; --no-policy takes it out)"
        print(f"Policy:    {os.path.abspath(policy)}{kept}")
    elif options.prefix is not None:  # for others, who have homes of their own
        print(f"Policy:    each user's own, ~/.config/{FOLDER}/{file_name(name)}; without it the default")
    else:
        file = policy_file_of(name)
        from sandboxed_kernel.editing import write_first

        made = write_first(file, name)
        print(f"Policy:    {file}{' (new; all of it comments, which means the default)' if made else ''}")
    print(f'Next:      choose "{what}" (kernel {name}) in Jupyter or VS Code. A kernel that runs already: shut it down')
    print("           and start it again. The policy's hosts hold at once when they change.")


# --- allow and forget --------------------------------------------------------------------------------------------


def add_change_options(parser: ArgumentParser) -> None:
    """Of ``allow`` and ``forget``."""
    parser.add_argument("targets", metavar="HOST:PORT", nargs="*", help='"pypi.org:443", "*.example.org:80,443"')
    parser.add_argument("--read", metavar="PATH", action="append", default=[], help="a file or folder, for reading")
    parser.add_argument("--write", metavar="PATH", action="append", default=[], help="likewise, also for writing")
    text = "the unix socket of a service on this machine, a database for example"
    parser.add_argument("--unix", metavar="PATH", action="append", default=[], help=text)
    parser.add_argument("--preset", metavar="NAME", action="append", default=[], help="all that a preset allows")
    text = "a variable of Jupyter's environment, or with --from of that file"
    parser.add_argument("--env", metavar="NAME", action="append", default=[], help=text)
    text = "a file with lines NAME=VALUE (.env), which itself stays closed"
    parser.add_argument("--from", dest="file", metavar="FILE", help=text)
    text = "notebooks beneath this folder work in all of it (what is closed in a notebook's folder is closed there)"
    parser.add_argument("--project", metavar="FOLDER", help=text)
    parser.add_argument("--private", action="store_true", help="the names may mean addresses of a private network")
    parser.add_argument("--unchecked", action="store_true", help="what TLS clients there ask for is not looked at")
    text = "allow it for this long only: 30m, 2h, 1d"
    parser.add_argument("--for", dest="time", metavar="TIME", type=_seconds, help=text)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--in", dest="folder", metavar="FOLDER", help="only for notebooks in this folder or beneath it")
    where.add_argument("--everywhere", action="store_true", help="for all notebooks of the kernel (default)")
    add_policy_options(parser, workspace=False)


def _seconds(text: str) -> int:
    """Raises ValueError, which argparse puts into words."""
    seconds = int(text[:-1]) * {"m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    if not 0 < seconds <= 366 * 86400:
        raise ValueError
    return seconds


def add_since(parser: ArgumentParser) -> None:
    """Of ``changes``."""
    text = "how far back: 30m, 2h, 7d (default: 1d)"
    parser.add_argument("--since", metavar="TIME", type=_seconds, default=86400, help=text)


def changes(options: Namespace) -> int:
    """Exit code 0 if nothing was found, 1 otherwise, as of a program that compares."""
    from sandboxed_kernel.changes import changes as look
    from sandboxed_kernel.notices.render import shown

    try:
        found, is_all = look(options.folder, time.time() - options.since)
    except OSError as error:
        raise PolicyError("changes", f"{options.folder} cannot be listed ({error.strerror})", "Name a folder") from None
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.when))
        print(f"{when}  {shown(each.path)}    read by: {each.reader}")
    if not is_all:
        print("There are too many files: not all were looked at. Name a folder beneath.")
    if not found:
        print("Nothing that a program outside is known to run or obey was changed in that time.")
    else:
        print("Whoever changed them: Linux keeps no record. Look into each before you run the program that reads it.")
    return 1 if found or not is_all else 0


def _folder(options: Namespace) -> str | None:
    """Where its links lead: that is how a kernel knows its own folder. Raises PolicyError."""
    if options.project is not None and (options.folder is not None or options.everywhere):
        found = "--project is about that folder itself"
        raise PolicyError("the command line", found, "Leave out --in and --everywhere")
    named, option = (options.project, "--project") if options.project is not None else (options.folder, "--in")
    if named is None:
        return None
    folder: str = os.path.realpath(os.path.expanduser(named))
    if not os.path.isdir(folder):
        raise PolicyError(option, f'"{named}" is not a folder', "Name an existing folder")
    return folder


def allow(options: Namespace) -> int:
    """Exit code 0 if the policy now allows it."""
    if _is_inside():
        return _not_here(options, "allow")
    change = _change(options, remove=False)
    if change.is_empty:
        return _allow_refused(options)
    return _edit(options, change)


def forget(options: Namespace) -> int:
    """Exit code 0 if something was taken out, 1 if nothing was there."""
    if _is_inside():
        return _not_here(options, "forget")
    change = _change(options, remove=True)
    if change.is_empty:
        write = "Write HOST:PORT, --read, --write, --unix, --preset, --env or --project"
        raise PolicyError("the command line", "nothing to forget", write)
    return _edit(options, change)


def _is_inside() -> bool:
    """Every sandbox sets it (policy/baseline.py)."""
    return "SANDBOXED_KERNEL_PACKAGES" in os.environ


def _not_here(options: Namespace, command: str) -> int:
    import shlex

    from sandboxed_kernel.notices.render import shown

    repeated = [
        (name, value) for name in ("read", "write", "unix", "preset", "env") for value in getattr(options, name)
    ]
    single = [(name, value) for name, value in (("from", options.file), ("project", options.project)) if value]
    words = [f"--{name} {shlex.quote(value)}" for name, value in (*repeated, *single)]
    line = " ".join(["sandboxed-kernel", command, *map(shlex.quote, options.targets), *words])
    print(f"Run this in a terminal, not in the notebook: {shown(line)}", file=sys.stderr)
    return 2


def _change(options: Namespace, *, remove: bool) -> Change:
    """Raises PolicyError. Paths are written absolute: the policy holds for notebooks in every folder."""

    def paths(texts: list[str]) -> tuple[str, ...]:
        return tuple(absolute(text, os.getcwd(), home_folder(), "the command line") for text in texts)

    now = time.time()
    until = None if options.time is None else datetime.fromtimestamp(int(now) + options.time, UTC)
    if until is not None and (remove or not options.targets):
        raise PolicyError("--for", "it is about HOST:PORT that is allowed", "Write: allow HOST:PORT --for 2h")
    if options.file is not None and not options.env:
        raise PolicyError("--from", "no variable is named", "Write: --env NAME --from FILE")
    by_file = remove or options.file is not None
    file = "" if options.file is None else paths([options.file])[0]
    kind = {"private": options.private, "unchecked": options.unchecked}
    return Change(
        allow=tuple(entry_for(text, **kind, until=until) for text in options.targets),
        read=paths(options.read),
        write=paths(options.write),
        unix=paths(options.unix),
        presets=tuple(options.preset),
        variables=tuple(options.env) if options.file is None else (),
        variables_from=tuple((name, file) for name in options.env) if by_file else (),
        project=options.project is not None,
        folder=_folder(options),
        remove=remove,
        now=now,
    )


def _when(change: Change) -> str:
    """What the user does for a change to hold."""
    what = ["folders"] if change.read or change.write or change.project else []
    what += ["sockets"] if change.unix else []
    what += ["variables"] if change.variables or change.variables_from else []
    if change.allow and not (what or change.presets):
        if change.remove:
            return "Running kernels make no new connection there; those that stand stay until the kernel ends."
        return "Running kernels go by it at once: run the cell again."
    if change.presets:
        return "Running kernels go by its hosts at once. For its folders and variables: restart the kernel."
    return f"Restart the kernel for the {' and '.join(what)}" + ("; the hosts hold at once." if change.allow else ".")


def _edit(options: Namespace, change: Change) -> int:
    from difflib import unified_diff

    from sandboxed_kernel.editing import edit
    from sandboxed_kernel.notices.render import shown

    file = policy_file(options, _NOWHERE)
    edited = edit(file.path, change, kernel_of(options))
    if edited.before == edited.after:
        print(f"Nothing to {'forget: no such line is' if change.remove else 'change: the lines are'} in {edited.path}")
    else:
        lines = (edited.before.splitlines(), edited.after.splitlines())
        for line in unified_diff(*lines, edited.path, edited.path, n=1, lineterm=""):
            print(shown(line))
        print(_when(change))
    if change.write and not change.remove:
        from sandboxed_kernel.policy.describe import describe_exposed
        from sandboxed_kernel.survey import exposed

        if opened := exposed(grant for grant in edited.policy.grants if grant.path in change.write):
            print(f"note: {describe_exposed(opened)}")
    if change.variables_from and not change.remove:
        from sandboxed_kernel.policy.read import variables

        named = {name for name, _path in change.variables_from}
        for sentence in variables(each for each in edited.policy.environment_from if each.name in named)[1]:
            print(f"note: {shown(sentence)}")
    for entry in change.allow if change.remove else ():
        place = still_allowed(edited.policy, entry)
        if place is not None:
            print(f"Still allowed by {place}")
    return 1 if change.remove and edited.before == edited.after else 0


_NOWHERE = "/dev/shm"  # in the place of a notebook's folder: settings may not lie there in any case
_LOOKED_AT = 1 << 20  # bytes at the end of the audit log
_LISTED = 20


def _allow_refused(options: Namespace) -> int:
    """Without arguments: what was refused last, for choosing. Nothing that the sandbox wrote goes through a shell."""
    from sandboxed_kernel.notices.render import shown, where

    log = load_settings(_NOWHERE).audit_file
    found = _last_refusals(log)
    if not found:
        print(f"No refusal that a line could allow is in {log}.")
        print("Write: sandboxed-kernel allow HOST:PORT ..., --read PATH, --write PATH or --preset NAME")
        return 1
    print(f"The last refusals, of all notebooks (from {log}):")
    for number, (event, entry) in enumerate(found, 1):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(event.when))
        print(f"  {number:2}  {when}  {shown(where(event))}  ({shown(event.process)}): {entry_text(entry)}")
    try:
        answer = input("Which of them do you allow? Numbers, or nothing: ")
    except EOFError:
        answer = ""
    chosen = [word for word in answer.replace(",", " ").split() if word]
    wrong = [word for word in chosen if not word.isascii() or not word.isdigit() or not 1 <= int(word) <= len(found)]
    if wrong:
        raise PolicyError("the answer", f"{wrong[0]!r} is none of the numbers", f"Write numbers from 1 to {len(found)}")
    if not chosen:
        print("Nothing was changed.")
        return 1
    entries = tuple(found[int(word) - 1][1] for word in chosen)
    return _edit(options, Change(allow=entries, folder=_folder(options)))


def _last_refusals(log: str) -> list[tuple[Event, Entry]]:
    """The youngest first, each destination once, with the entry that would allow it."""
    import json

    from sandboxed_kernel.notices.events import Event

    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOOKED_AT))
            lines = file.read().splitlines()
    except OSError:
        return []
    found: dict[str, tuple[Event, Entry]] = {}
    for line in reversed(lines):
        try:
            event = Event.from_json(json.loads(line))
            entry = entry_of(event.host, event.address, event.port, event.protocol, event.allow_line)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # the first line may be half of one
        if event.verdict == "refused" and entry is not None and entry_text(entry) not in found:
            found[entry_text(entry)] = (event, entry)
            if len(found) == _LISTED:
                break
    return list(found.values())


# --- policy ------------------------------------------------------------------------------------------------------


def show(options: Namespace) -> int:
    """The policy in force for a notebook in a folder. Raises PolicyError for one that cannot be read."""
    from sandboxed_kernel.confinement.plan import effective_grants
    from sandboxed_kernel.notices.render import shown
    from sandboxed_kernel.policy.describe import describe
    from sandboxed_kernel.policy.origins import origins
    from sandboxed_kernel.policy.read import load

    workspace = workspace_of(options)
    file = policy_file(options, workspace)
    seen: list[Source] = []
    policy = load(file.path, workspace=workspace, home=home_folder(), seen=seen) if file.exists else Policy()
    if not options.origin:
        print(describe(policy, effective_grants(policy, workspace), file=file.path))
        return 0
    print(f"Policy: {named(file)}")
    rows = origins(seen)
    width = max((len(row.place) for row in rows), default=0)
    for row in rows:
        print(shown(f"{row.place:<{width}}  {row.section} = {row.value}{'  (overridden below)' * row.overridden}"))
    access = "read" if any(grant.writable for grant in policy.grants) else "write"
    print(f"{'always':<{width}}  [filesystem] {access} = the notebook's folder, {policy.folder_of(workspace)}")
    return 0


# --- explain -----------------------------------------------------------------------------------------------------


def explain(options: Namespace) -> int:
    """Exit code 0 if allowed (a path: if it may be read), 1 if not."""
    workspace = workspace_of(options)
    file = policy_file(options, workspace)
    policy = read_policy(file, workspace)
    if ":" not in options.target and not _is_path(options.target):
        found = f"{entry_text(options.target)} is no host with a port, and no such file is here"
        name = options.target if options.target.isprintable() else "NAME"
        raise PolicyError("the command line", found, f"Write {name}:443 for a host, or ./{name} for a path")
    if _is_path(options.target):
        code = _explain_path(policy, options.target, workspace)
    else:
        from sandboxed_kernel.policy.explain import endpoint, explain_endpoint

        code = _tell(explain_endpoint(policy, *endpoint(options.target, "the command line")))
    print(f"policy: {named(file)}")
    return code


def _is_path(target: str) -> bool:
    return target.startswith(("/", "~", ".")) or (":" not in target and os.path.lexists(target)) or target.endswith("/")


def _explain_path(policy: Policy, target: str, workspace: str) -> int:
    from sandboxed_kernel.policy.describe import describe_absent
    from sandboxed_kernel.policy.explain import explain_path, implied_grants
    from sandboxed_kernel.policy.guarded import ENVIRONMENT_MARKERS, closed_on_the_way
    from sandboxed_kernel.policy.paths import is_beneath
    from sandboxed_kernel.records import replace

    # Landlock grants what a path leads to, so both sides are compared by where they lead.
    path = os.path.realpath(os.path.join(workspace, os.path.expanduser(target)))

    def real(grants: Iterable[PathGrant]) -> tuple[PathGrant, ...]:
        return tuple(replace(grant, path=os.path.realpath(grant.path)) for grant in grants)

    implied = real(implied_grants(policy, workspace, (sys.prefix, sys.base_prefix)))
    there = tuple(grant for grant in policy.grants if os.path.exists(grant.path))
    absent = tuple(grant for grant in policy.grants if grant not in there)
    gone = real(absent)
    policy = replace(policy, grants=real(there))
    root, closed = os.path.realpath(policy.folder_of(workspace)), None
    if is_beneath(path, root):
        mode: Mode = "home" if root == os.path.realpath(os.path.expanduser("~")) else "plain"
        closed = closed_on_the_way(
            path, root, mode, lambda folder: any(os.path.exists(f"{folder}/{name}") for name in ENVIRONMENT_MARKERS)
        )
    read = explain_path(policy, path, "read", baseline=implied, absent=gone, closed=closed)
    code = _tell(_if_accepted(read, policy, path, writable=False))
    write = explain_path(policy, path, "write", baseline=implied, absent=gone, closed=closed)
    _tell(_if_accepted(write, policy, path, writable=True))
    if absent:
        print(f"note: {describe_absent(absent)}")
    return code


def _if_accepted(explanation: Explanation, policy: Policy, path: str, *, writable: bool) -> Explanation:
    """``explanation`` without its line where no kernel would start with that."""
    from sandboxed_kernel.editing import check_added
    from sandboxed_kernel.policy.model import PathGrant
    from sandboxed_kernel.records import replace

    if explanation.line is None or not os.path.exists(path):
        return explanation
    grant = PathGrant(path, writable, path, "the command line")
    try:
        check_added(replace(policy, grants=(*policy.grants, grant)), [grant])
    except PolicyError as error:
        return replace(explanation, reason=f"{explanation.reason}, and no line can: {error.found}", line=None, key=None)
    return explanation


def _tell(explanation: Explanation) -> int:
    print(f"{'allowed' if explanation.allowed else 'refused'}: {explanation.reason}.")
    if explanation.rule is not None:
        print(f"  by {explanation.rule}")
    if explanation.line is not None:
        print(f"  to allow it, add this under {explanation.key}:\n    {explanation.line}")
    return 0 if explanation.allowed else 1
