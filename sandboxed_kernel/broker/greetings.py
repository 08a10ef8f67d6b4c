"""Pure: what the broker answers where the guard asks about a TLS greeting, and what the user is told."""

from __future__ import annotations

from sandboxed_kernel.guard.messages import MAY_PASS, Kind
from sandboxed_kernel.hostnames.pins import Checked
from sandboxed_kernel.records import Record

_ONLY_TLS = "where the name of the server is checked, only TLS passes"
_SAID: dict[Kind, str] = {
    "greeting": f"{{words}}, and {_ONLY_TLS}",
    "server-first": f"{{words}}, and {_ONLY_TLS}",
    "changed": "{words}",
    "server": "{words}",
    "encrypted": "its TLS greeting is encrypted (ECH), so nobody can see which server it is for;"
    " Chromium: --disable-features=EncryptedClientHello",
    "full": "as many connections whose names are checked are open as may be at once",
}
_UNCHECKED: frozenset[Kind] = frozenset({"none", "encrypted", "greeting", "server-first"})


class Refused(Record):
    """``host``: what is spoken of. ``line``: what would allow it: a line for "host" as it is, one that leaves it
    "unchecked", or nothing.
    """

    reason: str
    host: str | None
    line: str | None = None


def decide_greeting(
    kind: Kind, name: str | None, words: str, checked: Checked | None, *, allowed: bool, elsewhere: bool
) -> Refused | None:
    """None where it may pass. ``checked``: how the address and port are looked at by now; ``allowed``: whether a rule
    still lets it be reached. ``elsewhere``: whether a rule names ``name`` with the port, whatever it means.
    """
    if checked is None:  # it was checked when it began, and there are other lines by now
        if not allowed:
            return Refused("no line under [network] allow admits this address and port any more", name)
        if kind in MAY_PASS:
            return None
        checked = Checked((), False)
    own = checked.names[0] if checked.names else None
    if kind == "name" and name is not None:
        if name in checked.names:
            return None
        if elsewhere:
            return Refused(f"the TLS greeting asks for {name}, which means other addresses than this one", name)
        return Refused(f"the TLS greeting asks for {name}, which no line allows on this port", name, "host")
    if kind == "none":
        if checked.may_name_none:
            return None
        reason = "the program does not say which server it means, as Java and Node.js for some names; it could be any"
    else:
        reason = _SAID.get(kind, "{words}").replace("{words}", words)
    if kind not in _UNCHECKED or own is None:
        return Refused(reason, own)
    if len(checked.names) > 1:
        shared = ", ".join(checked.names[:5])
        return Refused(
            f"{reason}. Several names of the policy mean this address ({shared}): the strictest decides", own
        )
    return Refused(reason, own, "unchecked")
