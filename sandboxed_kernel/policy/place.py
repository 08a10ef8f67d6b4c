"""Pure: which file is the policy of a kernel, by the kernel's name; and what stands in it at first."""

from __future__ import annotations

import re
from posixpath import join

from sandboxed_kernel.errors import PolicyError

DEFAULT_KERNEL = "sandboxed-python3"  # the name that ``install`` gives, where none is said
FOLDER = "sandboxed-kernel"  # beneath XDG_CONFIG_HOME
_NAME = r"[A-Za-z0-9._-]+"  # jupyter_client.kernelspec, _is_valid_kernel_name

TEMPLATE = """\
# What the notebooks of the kernel {kernel} may reach.
# As long as every line begins with "#", that is: the notebook's folder, Python, no network.
#
# To change it:   sandboxed-kernel allow HOST:PORT      (in a terminal; also --read PATH, --write PATH, --preset NAME)
# To see it:      sandboxed-kernel policy
# Or write here, for example:

# extends = ["pypi"]                     # presets: offline, pypi, data-science, llm-api, teaching

# [network]
# allow = ["data.example.org:443", "*.corp.example.org:443"]

# [filesystem]
# read = ["/home/me/datasets"]
"""


def file_name(kernel: str, option: str = "--kernel") -> str:
    """``policy.toml``, or ``NAME.policy.toml`` for a kernel of another name. To Jupyter "A" and "a" are one name.

    Raises PolicyError, about ``option``, for what is no kernel's name.
    """
    if not re.fullmatch(_NAME, kernel):
        write = "Write ASCII letters, digits, and the separators - . _"
        raise PolicyError(option, f"{kernel!r} is no name for a kernel", write)
    return "policy.toml" if kernel.lower() == DEFAULT_KERNEL else f"{kernel.lower()}.policy.toml"


def folder_in(configuration: str) -> str:
    """Where they lie; ``configuration`` is the user's XDG_CONFIG_HOME."""
    return join(configuration, FOLDER)


def says_nothing(text: bytes) -> bool:
    """Whether a policy's text is blank lines and comments only: the default policy, and no TOML has to be read."""
    return all(line[:1] in (b"", b"#") for line in map(bytes.strip, text.splitlines()))
