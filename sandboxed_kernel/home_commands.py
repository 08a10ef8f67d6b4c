"""Does: words for people about what lasts of the private homes: which there are, how large, whose; and their end, and
that of all else that this package has left.

Only names that this program gave are printed, and folders in ASCII: nothing that lies in a home is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxed_kernel import kernelspec
from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.lasting_home import Homes, InUseError, new_meta
from sandboxed_kernel.linux.folders import OPEN_FOLDER, remove_tree
from sandboxed_kernel.policy.lasting import Meta, Owner, former_homes, opens_more, size_about
from sandboxed_kernel.policy_commands import (
    add_policy_options,
    kernel_of,
    policy_file,
    read_policy,
    workspace_of,
)
from sandboxed_kernel.surroundings import default_audit_file, homes_folder, policy_folder

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from sandboxed_kernel.policy.model import Policy

_LONGEST = 300.0  # seconds of counting for one home
_FAILED = 1


def add_home_options(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=sorted(_COMMANDS), help="clean: that of this folder, if no other is named")
    parser.add_argument("names", metavar="NAME", nargs="*", help="a home, as list names it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gone", action="store_true", help="clean: those whose folders are gone")
    which.add_argument("--all", action="store_true", help="clean: all")
    parser.add_argument("--cache", action="store_true", help="clean: only what programs would fetch or work out again")
    add_policy_options(parser)


def home(options: Namespace) -> int:
    """Raises PolicyError."""
    path = os.path.realpath(homes_folder())
    if not os.path.isdir(path):
        print(f"Nothing has lasted yet: {path} does not exist.")
        return 0
    try:
        with Homes(path) as homes:
            run: Callable[[Homes, Namespace], int] = _COMMANDS[options.what]
            return run(homes, options)
    except OSError as error:
        raise PolicyError(path, str(error.strerror), "Let the user whose home folder it is do this") from None


def _list(homes: Homes, _options: Namespace) -> int:
    metas = homes.metas()
    for name in homes.names():
        print(f"{name:<33} {_of(metas.get(name))}{'; in use' if _is_used(homes, name) else ''}")
    return 0


def _of(meta: Meta | None) -> str:
    if meta is None:
        return "not readable any more"
    gone = "" if os.path.isdir(meta.folder) else " (gone)"
    used = time.strftime("%Y-%m-%d", time.localtime(meta.used))
    more = "; the policy opens more" if meta.more else ""
    return f"{ascii(meta.folder)[1:-1]}{gone}, {ascii(meta.kernel)[1:-1]}, last used {used}, {meta.runs} runs{more}"


def _is_used(homes: Homes, name: str) -> bool:
    try:
        with homes.opened(name, alone=True):
            return False
    except InUseError:
        return True


def _size(homes: Homes, options: Namespace) -> int:
    total = 0
    names = [_known(homes, name) for name in options.names] or homes.names()
    for name, size, whole in homes.sizes(names, _LONGEST):
        total += size
        print(f"{name:<33} {'' if whole else 'more than '}{size_about(size)}")
    print(f"{'together':<33} {size_about(total)}")
    return 0


def _clean(homes: Homes, options: Namespace) -> int:
    homes.remove_left()
    failed = 0
    for name in _chosen(homes, options):
        try:
            if options.cache:
                homes.empty_cache(name)
            else:
                homes.remove(name)
            print(f"{name} {'has empty caches' if options.cache else 'removed'}")
        except OSError as error:
            failed = _FAILED
            print(f"{name} stays: {error.strerror}")
    return failed


def _chosen(homes: Homes, options: Namespace) -> list[str]:
    """Raises PolicyError."""
    if options.names:
        return [_known(homes, name) for name in options.names]
    if options.all:
        return homes.names()
    metas = homes.metas()
    if options.gone:
        return [name for name, meta in metas.items() if not os.path.isdir(meta.folder)]
    folder, kernel = _folder(options)[0], kernel_of(options).lower()
    found = [name for name, meta in metas.items() if (meta.folder, meta.kernel) == (folder, kernel)]
    if not found:
        print(f"Nothing lasts for {folder} and the kernel {kernel}.")
    return found


def _folder(options: Namespace) -> tuple[str, Policy]:
    """The notebook's, or its project, with the policy there. Raises PolicyError."""
    folder = workspace_of(options)
    policy = read_policy(policy_file(options, folder), folder)
    return policy.folder_of(folder), policy


def _adopt(homes: Homes, options: Namespace) -> int:
    folder, policy = _folder(options)
    real_paths = {grant.path: os.path.realpath(grant.path) for grant in policy.grants}
    owner = Owner(folder, kernel_of(options).lower(), opens_more(policy, folder, real_paths))
    names = [_known(homes, name) for name in options.names] or _former(homes, owner)
    if len(names) != 1:
        found = "several names" if names else f"{folder} has no former home"
        raise PolicyError("home adopt", found, 'Write one that "home list" shows')
    homes.adopt(names[0], owner)
    print(f"{folder} has the home that was {names[0]}, from the next start of the kernel on.")
    return 0


def _former(homes: Homes, owner: Owner) -> list[str]:
    metas = homes.metas()
    current = homes.current(owner)
    return former_homes({name: meta for name, meta in metas.items() if name != current}, new_meta(owner))[:1]


def _known(homes: Homes, name: str) -> str:
    """Raises PolicyError."""
    if name not in homes.names():
        raise PolicyError("home", f"{name!a} is the name of none", 'Write one that "home list" shows')
    return name


def remove_all(options: Namespace) -> int:
    """``uninstall --all``. Exit code 1 where the user does not want it, or something stays. Raises PolicyError."""
    names = kernelspec.installed()
    there = [
        path for path in (policy_folder(), os.path.dirname(default_audit_file()), _own_data()) if os.path.isdir(path)
    ]
    if not names and not there:
        print("Nothing of sandboxed-kernel is here but the package.")
        return 0
    print("This removes:", *(f"  the kernel {name}" for name in names), *(f"  {path}" for path in there), sep="\n")
    if not options.yes and not _agreed():
        print("Nothing was removed.")
        return _FAILED
    for name in names:
        for folder in kernelspec.uninstall(name):
            print(f"Removed {folder}")
    failed = 0
    for path in there:
        if path == _own_data() and not _homes_removed():
            failed = _FAILED
            continue
        with suppress(OSError):  # a link, which somebody made on purpose
            descriptor = os.open(path, OPEN_FOLDER)
            try:
                remove_tree(path, descriptor)  # code inside has filled the homes
            finally:
                os.close(descriptor)
        stays = os.path.lexists(path)
        print(f"{path} stays: remove it by hand, as its owner" if stays else f"Removed {path}")
        failed = _FAILED if stays else failed
    if not failed:
        print("The package itself: pip uninstall sandboxed-kernel")
    return failed


def _agreed() -> bool:
    try:
        return input("Type yes to remove all of this: ").strip().lower() == "yes"
    except EOFError:
        return False


def _own_data() -> str:
    return os.path.dirname(homes_folder())


def _homes_removed() -> bool:
    """What no kernel uses. Raises PolicyError."""
    if not os.path.isdir(homes_folder()):
        return True
    used = []
    try:
        with Homes(os.path.realpath(homes_folder())) as homes:
            for name in homes.names():
                try:
                    homes.remove(name)
                except OSError:
                    used.append(name)
    except OSError as error:
        raise PolicyError(homes_folder(), str(error.strerror), "Let the user whose it is do this, later") from None
    for name in used:
        print(f"{homes_folder()}/{name} stays: a kernel uses it. Shut it down, and try again")
    return not used


_COMMANDS: dict[str, Callable[[Homes, Namespace], int]] = {
    "list": _list, "size": _size, "clean": _clean, "adopt": _adopt,
}  # fmt: skip
