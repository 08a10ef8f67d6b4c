"""The three kinds of error, by whose move it is: the user's, the machine's, ours.

Every message names the place, what was found there, and what to write or do instead.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of everything this package raises on purpose; ``str()`` is fit for a person."""

    exit_code = 1


class PolicyError(SandboxError):
    """The user's move: a policy, an argument or a connection file says something unusable."""

    exit_code = 78  # EX_CONFIG, sysexits.h

    def __init__(
        self,
        place: str,
        found: str,
        write: str,
        *,
        excerpt: str = "",
        further: tuple[PolicyError, ...] = (),
        untold: int = 0,
    ) -> None:
        """``place`` (file: key[index]), what was ``found`` there, and what to ``write`` instead; ``excerpt``: the line,
        and a caret below. ``further`` are the other mistakes of the same policy, without those ``untold``.
        """
        self.place, self.found, self.write, self.excerpt, self.further = place, found, write, excerpt, further
        said = [f"{place}: {found}. {write}", excerpt, *map(str, further)]
        said += [f"{untold} more mistakes are not shown."] if untold else []
        super().__init__("\n".join(filter(None, said)))


class HostError(SandboxError):
    """The machine's: this host cannot enforce what the policy asks for."""

    exit_code = 69  # EX_UNAVAILABLE, sysexits.h


class Bug(SandboxError):
    """Ours. A user's mistake must never end here; a test says so."""

    exit_code = 70  # EX_SOFTWARE, sysexits.h

    def __init__(self, what: str) -> None:
        super().__init__(f"BUG in sandboxed_kernel: {what}. Please report it.")
