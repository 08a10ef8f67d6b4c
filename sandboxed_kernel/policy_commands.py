"""Does: words for people about policies: which file is whose, what it allows, what would allow more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sandboxed_kernel import kernelspec
from sandboxed_kernel.editing import write_first
from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.model import Policy
from sandboxed_kernel.policy.place import DEFAULT_KERNEL, FOLDER, file_name
from sandboxed_kernel.settings import PolicyFile, choose_policy, load_settings
from sandboxed_kernel.surroundings import home_folder, policy_file_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from sandboxed_kernel.policy.explain import Explanation
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
    folder: str = os.path.abspath(options.workspace)
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
    return read_named(file.path, workspace) if file.exists else Policy()


def read_named(path: str, workspace: str) -> Policy:
    """Raises PolicyError."""
    from sandboxed_kernel.policy.read import load

    return load(path, workspace=workspace, home=home_folder())


def named(file: PolicyFile) -> str:
    """For people: the file, and what it means that it is not there."""
    return file.path if file.exists else f"{file.path} (does not exist: the default policy)"


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
        made = write_first(file, name)
        print(f"Policy:    {file}{' (new; all of it comments, which means the default)' if made else ''}")
    print(f'Next:      choose "{what}" (kernel {name}) in Jupyter or VS Code. A kernel that runs already: shut it down')
    print("           and start it again. After a change of the policy file a restart is enough.")


# --- explain -----------------------------------------------------------------------------------------------------


def explain(options: Namespace) -> int:
    """Exit code 0 if allowed (a path: if it may be read), 1 if not."""
    workspace = workspace_of(options)
    file = policy_file(options, workspace)
    policy = read_policy(file, workspace)
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
    from sandboxed_kernel.policy.explain import explain_path, implied_grants
    from sandboxed_kernel.records import replace

    # Landlock grants what a path leads to, so both sides are compared by where they lead.
    path = os.path.realpath(os.path.join(workspace, os.path.expanduser(target)))

    def real(grants: Iterable[PathGrant]) -> tuple[PathGrant, ...]:
        return tuple(replace(grant, path=os.path.realpath(grant.path)) for grant in grants)

    implied = real(implied_grants(policy, workspace, (sys.prefix, sys.base_prefix)))
    policy = replace(policy, grants=real(policy.grants))
    read = _tell(explain_path(policy, path, "read", baseline=implied))
    _tell(explain_path(policy, path, "write", baseline=implied))
    return read


def _tell(explanation: Explanation) -> int:
    print(f"{'allowed' if explanation.allowed else 'refused'}: {explanation.reason}.")
    if explanation.rule is not None:
        print(f"  by {explanation.rule}")
    if explanation.line is not None:
        print(f"  to allow it, add this under {explanation.key}:\n    {explanation.line}")
    return 0 if explanation.allowed else 1
