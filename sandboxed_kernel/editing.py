"""Does: writes and edits the policy file of a user, outside of every sandbox, at the user's command."""

from __future__ import annotations

import os

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.place import TEMPLATE


def write_first(path: str, kernel: str) -> bool:
    """A policy that says nothing yet, all of it comments, at ``path``; False if something is there already.

    Only its owner may read it. Raises PolicyError where it cannot be written. A link that leads nowhere is not followed
    (O_EXCL, open(2)): whoever made it said where the policy is.
    """
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        found = f"{error.filename} cannot be written ({error.strerror})"
        raise PolicyError(
            path, found, "Make its folder one that you may write, or name a policy with --policy"
        ) from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(TEMPLATE.format(kernel=kernel))
    return True
