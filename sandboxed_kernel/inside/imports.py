"""Does: imports what ipykernel needs, and puts off what a first cell can do without (``late.py`` has the ways).

Of a plain kernel's imports this leaves half the time and two thirds of the memory. Which they are was measured; what
is here has to be seen again when ipykernel's next major version comes, and fails into "imported at once".
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import ModuleType
from typing import Any

from sandboxed_kernel.late import Real, import_with, late, later, standing_in, when_imported
from sandboxed_kernel.signing import Keyed, compare_digest

# Imported by the modules named, and not used by them in a kernel's start. Where the second name does not exist, this
# Python was built without it, and the module that imports it has to notice.
_UNUSED_AT_START = {
    "base64": "base64",  # psutil
    "bz2": "_bz2",  # shutil
    "ctypes": "_ctypes",  # ipykernel.parentpoller, for Windows
    "curses": "_curses",  # tornado.log
    "html": "html",  # tornado.escape
    "ipaddress": "ipaddress",  # urllib.parse
    "lzma": "_lzma",  # shutil
    "ntpath": "ntpath",  # pathlib
    "platformdirs": "platformdirs",  # jupyter_core.paths, where JUPYTER_PLATFORM_DIRS is set
    "psutil": "psutil",  # ipykernel.kernelbase, for usage_request
}


_sha256 = later("hashlib", "sha256")  # a session names it, and has it called by ``SessionHmac``


@contextmanager
def late_imports() -> Iterator[None]:
    """What is imported within is ipykernel with its own; afterwards `import` means what it means anywhere."""
    _import_asyncio()
    unused = [Real(name) for name, needed in _UNUSED_AT_START.items() if importlib.util.find_spec(needed) is not None]
    with standing_in(*unused, _jupyter_client()):
        _import_parts_of_jupyter_client()
        # It asks at start only whether there is a debugger.
        late("ipykernel.debugger", {"_is_debugpy_available": importlib.util.find_spec("debugpy") is not None})
        # It compares versions of macOS.
        version = {"Version": later("packaging.version", "Version")}
        import_with("ipykernel.eventloops", {"packaging": {"__path__": []}, "packaging.version": version})
        yield


def _import_asyncio() -> None:
    """It imports ssl (6 ms, 1 MB) to recognise its sockets.

    `import ssl` and `import asyncio.sslproto` in a cell are as ever; asyncio.sslproto as an attribute without an import
    is the stand-in.
    """
    sslproto = Real("asyncio.sslproto")
    with standing_in(Real("ssl"), sslproto):
        import asyncio
    if not hasattr(asyncio, "sslproto"):
        asyncio.sslproto = sslproto  # type: ignore[attr-defined] # typeshed has it under this name as a module only


def _jupyter_client() -> ModuleType:
    """ipykernel needs session, connect and jsonutil of it, but importing any of them runs its ``__init__``, which
    imports every manager and client. ipykernel.connect takes one function from there by name, not to call it at start.

    What a cell imports first, ``jupyter_client.manager`` say, begins with the real ``__init__``, as in any Python.
    """
    spec = importlib.util.find_spec("jupyter_client")
    folders = list((spec and spec.submodule_search_locations) or [])
    write = later("jupyter_client.connect", "write_connection_file")
    when_imported("jupyter_client", before=_with_what_is_there)
    return Real("jupyter_client", {"__path__": folders, "write_connection_file": write})


def _with_what_is_there(package: ModuleType) -> None:
    """What is imported of ``package`` already becomes an attribute of it, as if Python had just imported it."""
    prefix = package.__name__ + "."
    for name, module in list(sys.modules.items()):
        if name.startswith(prefix) and "." not in name[len(prefix) :]:
            setattr(package, name[len(prefix) :], module)


def _import_parts_of_jupyter_client() -> None:
    # It reads the dates of messages, ISO 8601 and nothing else (ISO8601_PAT), with dateutil, which takes 20 ms.
    iso = {"parse": datetime.fromisoformat, "isoparse": datetime.fromisoformat}
    dateutil: dict[str, dict[str, Any]] = {
        "dateutil": {"__path__": []},
        "dateutil.parser": iso,
        "dateutil.tz": {"tzlocal": later("dateutil.tz", "tzlocal")},
    }
    import_with("jupyter_client.jsonutil", dateutil)
    hashlib = Real("hashlib", {"sha256": _sha256})
    hmac = ModuleType("hmac")
    hmac.__dict__.update(HMAC=SessionHmac, compare_digest=compare_digest)
    with standing_in(hashlib, hmac):
        import jupyter_client.session  # noqa: F401
    # It describes a connection file with one of typing_extensions, which takes 3 ms and half a megabyte.
    import_with("jupyter_client.connect", {**dateutil, "typing_extensions": {"TypedDict": _KindOfDict}})


class _KindOfDict(dict[str, Any]):
    """Base for a class that describes a dictionary (PEP 589), as far as it matters when nobody checks types."""

    def __init_subclass__(cls, **_options: Any) -> None:
        super().__init_subclass__()


class SessionHmac:
    """As much of ``hmac.HMAC`` as ``jupyter_client.session`` uses, without OpenSSL (``signing.py``)."""

    def __init__(self, key: bytes, digestmod: Any) -> None:
        self._keyed = Keyed(key, "sha256" if digestmod is _sha256 else digestmod().name)
        self._parts: list[bytes | memoryview] = []

    def copy(self) -> SessionHmac:
        twin = SessionHmac.__new__(SessionHmac)
        twin._keyed, twin._parts = self._keyed, self._parts.copy()
        return twin

    def update(self, part: bytes | memoryview) -> None:
        self._parts.append(part)

    def hexdigest(self) -> str:
        return self._keyed.hexdigest(self._parts)
