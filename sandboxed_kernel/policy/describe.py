"""Pure: an effective policy in words, for ``%sandbox`` and for people who ask what their kernel may do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sandboxed_kernel.policy.guarded import Guard
from sandboxed_kernel.policy.model import CHECKED_PORT, Destination, Limits, PathGrant, Policy, asks_for_check
from sandboxed_kernel.policy.words import shown, size_text


def describe(
    policy: Policy,
    grants: Iterable[PathGrant],
    missing: Iterable[str] = (),
    absent: Iterable[PathGrant] = (),
    guard: Guard | None = None,
    *,
    home: str = "",
    file: str,
) -> str:
    """Some lines of text: what may be reached, read, written, and by which line of which file.

    ``grants`` are those in force (``confinement.plan.effective_grants``), ``missing`` what this host cannot enforce and
    the policy does without, ``absent`` those of the grants that have nothing to open, ``guard``: of the notebook's
    folder, where not all of it is open. ``home``: how long the private one lasts. ``file`` is where the
    policy stands, or would stand.
    """
    grants, gone = tuple(grants), set(absent)
    sections = (
        ("Network", [_destination(rule) for rule in policy.allow] or ["nothing"]),
        ("Unix sockets of services", [f"{grant.path:<40} {grant.place}" for grant in policy.unix]),
        ("Folders", [_folder(grant) for grant in grants if grant not in gone]),
        ("Folders that do not exist, left out", [_folder(grant) for grant in grants if grant in gone]),
        (
            "Closed in the notebook's folder, or read only",
            [] if guard is None else [shown(path) for path in guard.found],
        ),
        ("Not looked through in time, so slower", [] if guard is None else [shown(path) for path in guard.not_seen]),
        ("Private home, ~", [home] if home else []),
        ("Accelerators", sorted(policy.accelerators)),
        ("Environment", [f"passed: {name}" for name in policy.environment_pass]),
        ("Environment, set", [f"{name}={value}" for name, value in policy.environment_set]),
        ("Environment, from files", [f"{each.name}  {each.path:<33} {each.place}" for each in policy.environment_from]),
        ("Limits", _limits(policy.limits)),
        ("Active content of outputs", ["stripped" if policy.active_content == "strip" else "allowed"]),
        ("NOT ENFORCED on this host (best_effort)", list(missing)),
    )
    written = [f"{title}:\n" + "\n".join(f"    {line}" for line in lines) for title, lines in sections if lines]
    head = f"Policy: {', '.join(policy.sources)}" if policy.sources else f"Policy: the default ({file} does not exist)"
    return "\n".join([head, *written])


def _destination(rule: Destination) -> str:
    checked = rule.name is not None and (rule.tls == "checked" or asks_for_check((rule,), CHECKED_PORT))
    return f"{rule.text:<40} {rule.place}{' (name checked in TLS)' if checked else ''}"


def _folder(grant: PathGrant) -> str:
    return f"{'write' if grant.writable else 'read '}  {grant.path:<33} {grant.place}"


def describe_absent(grants: Iterable[PathGrant]) -> str:
    """One sentence about what the policy grants and is not there; empty where there is no such grant."""
    named = list(dict.fromkeys(f"{shown(grant.text)} ({grant.place})" for grant in grants))
    if not named:
        return ""
    them, it = ("does", "it is") if len(named) == 1 else ("do", "they are")
    return (
        f"{', '.join(named)} {them} not exist, so {it} left out; what is made there now is opened by the next start of"
        " the kernel."
    )


_NAMED = 3  # paths


def describe_exposed(paths: Sequence[str]) -> str:
    """One sentence about what programs outside run and lines of the policy open; empty where there is nothing."""
    if not paths:
        return ""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return (
        f"{', '.join(map(shown, paths[:_NAMED]))}{more} can be written by lines of the policy, and programs outside run"
        " what is written there. Narrower lines keep that closed; so does, for notebooks in such a folder:"
        " sandboxed-kernel allow --project FOLDER."
    )


def _limits(limits: Limits) -> list[str]:
    named = (
        ("memory", limits.memory and f'"{size_text(limits.memory)}"'),
        ("processes", limits.processes),
        ("open_files", limits.open_files),
        ("cpu_seconds", limits.cpu_seconds),
        ("file_size", limits.file_size and f'"{size_text(limits.file_size)}"'),
    )
    return [f"{name} = {value}" for name, value in named if value is not None]
