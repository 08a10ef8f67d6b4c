"""Does: writes and removes the kernelspec, by which Jupyter and VS Code find the sandboxed kernel.

The launcher is the kernelspec's own command line, not a kernel provisioner: a front end that knows no provisioners
would run the kernel without the sandbox.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandboxed_kernel.errors import HostError, PolicyError

NAME = "sandboxed-python3"
DISPLAY_NAME = "Python 3 (sandboxed)"
_MODULE = "sandboxed_kernel"
_TEMPLATE = "kernel.json"

# A wheel carries the folder inside the package; in a checkout (and an editable install) it lies beside the package.
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FOLDERS = (os.path.join(_PACKAGE, "kernelspec_template"), os.path.join(os.path.dirname(_PACKAGE), "kernelspec"))


def install(*, name: str = NAME, display_name: str = DISPLAY_NAME, policy_file: str | None, prefix: str | None) -> str:
    """Write the kernelspec for this interpreter and return its folder.

    It goes under ``prefix/share/jupyter/kernels``, or with ``prefix`` None where the user's own kernels lie. Raises
    PolicyError for an unusable name or place, HostError if the kernel could not start.
    """
    _see_that_it_starts()
    # Not at the top: jupyter_client takes a tenth of a second to import.
    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory() as temporary, _readable_by_all():
        folder = os.path.join(temporary, "spec")  # its mode is copied too: the temporary folder is for its maker alone
        os.mkdir(folder)
        _copy_template(folder)
        with open(os.path.join(folder, _TEMPLATE), "w", encoding="utf-8") as file:
            json.dump(_spec(display_name, policy_file), file, indent=1)
        try:
            manager = KernelSpecManager()
            return manager.install_kernel_spec(folder, name, user=prefix is None, prefix=prefix)
        except ValueError:
            write = "Write ASCII letters, digits, and the separators - . _"
            raise PolicyError("--name", f"{name!r} is no name for a kernel", write) from None
        except OSError as error:
            write = "Choose another place: --user, --sys-prefix or --prefix PREFIX"
            raise PolicyError("install", f"{error.filename} cannot be written ({error.strerror})", write) from None


@contextmanager
def _readable_by_all() -> Iterator[None]:
    """What an administrator installs for everybody is read by everybody, whatever the umask(2)."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def uninstall(name: str = NAME) -> str:
    """Remove the kernelspec ``name`` and return the folder it was in. Raises PolicyError; touches no other kernel's."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        raise PolicyError(
            "uninstall", f"no kernel {name!r}", 'Write a name that "jupyter kernelspec list" shows'
        ) from None
    if _MODULE not in spec.argv:
        raise PolicyError("uninstall", f"the kernel {name!r} is not sandboxed", f"Use jupyter kernelspec remove {name}")
    try:
        shutil.rmtree(spec.resource_dir)
    except OSError as error:
        raise PolicyError("uninstall", f"{error.filename} stays ({error.strerror})", "Remove it as its owner") from None
    return str(spec.resource_dir)


def _spec(display_name: str, policy_file: str | None) -> dict[str, Any]:
    """The template with this interpreter, and the policy by its absolute path: kernels start beside notebooks."""
    with open(os.path.join(_template_folder(), _TEMPLATE), encoding="utf-8") as file:
        spec: dict[str, Any] = json.load(file)
    policy = [] if policy_file is None else ["--policy", os.path.abspath(policy_file)]
    # -I: without it a folder sandboxed_kernel/ beside the notebook would run in the launcher's place.
    spec["argv"] = [sys.executable, "-I", "-m", _MODULE, *policy, "-f", "{connection_file}"]
    spec["display_name"] = display_name
    return spec


def _template_folder() -> str:
    for folder in _FOLDERS:
        if os.path.isfile(os.path.join(folder, _TEMPLATE)):
            return folder
    raise HostError(f"the kernelspec's template is missing ({_FOLDERS[0]}); install sandboxed-kernel again")


def _copy_template(folder: str) -> None:
    template = _template_folder()
    for name in os.listdir(template):
        if name.startswith("logo-"):
            shutil.copyfile(os.path.join(template, name), os.path.join(folder, name))


def _see_that_it_starts() -> None:
    """An isolated interpreter sees neither PYTHONPATH nor the user's site folder (``pip install --user``)."""
    command = [sys.executable, "-I", "-c", f"import {_MODULE}"]
    if subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True).returncode != 0:
        raise HostError(
            f"{sys.executable} -I does not find the package {_MODULE}: an isolated interpreter does not look into "
            "PYTHONPATH or ~/.local. Install sandboxed-kernel into a virtual environment and run install from there."
        )
