"""Pure: what the relay answers in the kernel's stead.

``kernel_info`` names a class that a Jupyter server imports when it exports a notebook (``nbconvert_exporter``) and
links for the Help menu: the sandbox must have no say in it. It is also wanted before the kernel is up.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandboxed_kernel.records import Record
from sandboxed_kernel.relay.messages import PROTOCOL_VERSION, Json


class Versions(Record):
    """Of the interpreter that runs inside: ``python`` as in platform.python_version(), ``python_full`` as in
    sys.version.
    """

    python: str
    python_full: str
    ipython: str


def kernel_info(versions: Versions, not_enforced: Sequence[str] = ()) -> Json:
    """The same as ipykernel 7 says (``IPythonKernel.language_info``), less the help links.

    What this host does not enforce (``not_enforced``, sentences) is said in the banner.
    """
    major = int(versions.python.split(".")[0])
    return {
        "status": "ok",
        "protocol_version": PROTOCOL_VERSION,
        "implementation": "ipython",
        "implementation_version": versions.ipython,
        "language_info": {
            "name": "python",
            "version": versions.python,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": major},
            "pygments_lexer": f"ipython{major}",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "banner": f"Python {versions.python_full}\n"
        "Type 'copyright', 'credits' or 'license' for more information\n"
        f"IPython {versions.ipython} -- An enhanced Interactive Python. Type '?' for help.\n"
        "This kernel is sandboxed: type %sandbox to see what it may reach.\n"
        + "".join(f"NOT ENFORCED, as the policy's best_effort says: {sentence}\n" for sentence in not_enforced),
        "help_links": [],
        "debugger": True,
        "supported_features": ["kernel subshells", "debugger"],
    }


def connect(ports: dict[str, int]) -> Json:
    """The ports a client can really connect to; the kernel's own sockets are nobody's business."""
    return {"status": "ok", **{f"{channel}_port": port for channel, port in ports.items()}}
