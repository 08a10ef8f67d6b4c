"""Does: ``%sandbox``, a convenience for the person at the notebook. It runs inside, so the code there can change
what it says.
"""

from __future__ import annotations

import os
import re

# Beside the connection file (notices/refusals.py); nobody inside can write them.
POLICY_FILE, REFUSALS_FILE = "policy.txt", "refusals.txt"


# Pasted into a shell these mean themselves.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@%+=~ -]{1,200}")


def sandbox(line: str, folder: str) -> None:
    """Prints the policy, and what was refused; with ``%sandbox policy`` or ``%sandbox refusals`` only one of them; with
    ``%sandbox allow HOST:PORT`` what to write in a terminal.
    """
    if line.split()[:1] in (["allow"], ["forget"]):
        words = line if _PLAIN.fullmatch(line) else line.split()[0]
        print("Code in the notebook cannot change its own policy.")  # noqa: T201
        print(f"In a terminal: sandboxed-kernel {words.strip()}")  # noqa: T201
        return
    if line.strip() not in ("", "policy", "refusals"):
        print("Write %sandbox, %sandbox policy, %sandbox refusals or %sandbox allow HOST:PORT.")  # noqa: T201
        return
    if line.strip() != "refusals":
        print("What this sandbox allows:\n")  # noqa: T201
        print(_read(os.path.join(folder, POLICY_FILE)) or "(the policy's text cannot be read)")  # noqa: T201
    if line.strip() != "policy":
        print("\nThe last refusals:\n")  # noqa: T201
        print(_read(os.path.join(folder, REFUSALS_FILE)) or "none")  # noqa: T201
    print("\nTo allow something, write in a terminal: sandboxed-kernel allow HOST:PORT. Then run the cell again.")  # noqa: T201


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""
