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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sandboxed_kernel.errors import HostError, PolicyError
from sandboxed_kernel.policy.place import DEFAULT_KERNEL, file_name
from sandboxed_kernel.records import Record

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpecManager

NAME = DEFAULT_KERNEL
DISPLAY_NAME = "Python 3 (sandboxed)"
_MODULE = "sandboxed_kernel"
_TEMPLATE = "kernel.json"
_ENVIRONMENT = sys.prefix
_BROUGHT = "python"  # argv[0] of the one that the wheel brings, which Jupyter takes for its own Python
_PATIENCE = 60.0  # seconds for a kernel that is tried

# A wheel carries the folder inside the package; in a checkout (and an editable install) it lies beside the package.
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FOLDERS = (os.path.join(_PACKAGE, "kernelspec_template"), os.path.join(os.path.dirname(_PACKAGE), "kernelspec"))


def install(*, name: str = NAME, display_name: str = DISPLAY_NAME, policy_file: str | None, prefix: str | None) -> str:
    """Write the kernelspec for this interpreter and return its folder.

    It goes under ``prefix/share/jupyter/kernels``, or with ``prefix`` None where the user's own kernels lie. Raises
    PolicyError for an unusable name or place, HostError if the kernel could not start. With ``policy_file`` None the
    kernel reads the file of its name (policy/place.py).
    """
    file_name(name, "--name")
    _see_that_it_starts()
    # Not at the top: jupyter_client takes a tenth of a second to import.
    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory() as temporary, _readable_by_all():
        folder = os.path.join(temporary, "spec")  # its mode is copied too: the temporary folder is for its maker alone
        os.mkdir(folder)
        _copy_template(folder)
        with open(os.path.join(folder, _TEMPLATE), "w", encoding="utf-8") as file:
            json.dump(_spec(name, display_name, policy_file), file, indent=1)
        try:
            manager = KernelSpecManager()
            installed = manager.install_kernel_spec(folder, name, user=prefix is None, prefix=prefix)
            own = os.path.join(_ENVIRONMENT, "share", "jupyter", "kernels", name.lower())
            if prefix is None and own != installed and _MODULE in (_read_spec(own) or ()):
                _put_before(manager, folder, name, own, installed)
            return installed
        except OSError as error:
            write = "Choose another place: --user, --sys-prefix or --prefix PREFIX"
            raise PolicyError("install", f"{error.filename} cannot be written ({error.strerror})", write) from None


def _put_before(manager: KernelSpecManager, folder: str, name: str, own: str, installed: str) -> None:
    """Write the kernelspec in ``folder`` at ``own`` too, where Jupyter in this environment looks before ``installed``:
    it would not see the policy or the display name that were given. Raises PolicyError.
    """
    try:
        manager.install_kernel_spec(folder, name, prefix=_ENVIRONMENT)
    except PermissionError:  # an environment that all users of this machine have
        means = [(spec["argv"][1:], spec["display_name"]) for spec in map(_json, (own, installed))]
        if means[0] != means[1]:
            found = f"{own} comes before {installed} in this environment, and cannot be changed"
            raise PolicyError("install", found, "Install it by another name: --name NAME") from None


def _json(path: str) -> dict[str, Any]:
    with open(os.path.join(path, _TEMPLATE), encoding="utf-8") as file:
        spec: dict[str, Any] = json.load(file)
    return spec


def try_kernel(folder: str) -> str:
    """Start the kernel whose kernelspec lies in ``folder``, and run a cell: empty, or why it did not work.

    As Jupyter does it, in an empty folder. It takes a second or two.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    specs = KernelSpecManager(kernel_dirs=[os.path.dirname(folder)], ensure_native_kernel=False)
    manager = KernelManager(kernel_name=os.path.basename(folder), kernel_spec_manager=specs)
    with tempfile.TemporaryDirectory(prefix="sbk-try-") as workspace:
        manager.start_kernel(cwd=workspace, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=_PATIENCE)
            content = client.execute_interactive("1", timeout=_PATIENCE, output_hook=lambda _message: None)["content"]
        except (RuntimeError, TimeoutError) as error:
            return str(error)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    return "" if content["status"] == "ok" else str(content.get("evalue") or "it answered with an error")


@contextmanager
def _readable_by_all() -> Iterator[None]:
    """What an administrator installs for everybody is read by everybody, whatever the umask(2)."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def installed() -> list[str]:
    """The names of all kernels that ``install`` wrote, wherever Jupyter looks."""
    from jupyter_core.paths import jupyter_path

    names = set()
    for folder in jupyter_path("kernels"):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            argv = _read_spec(os.path.join(folder, name))
            if argv is not None and _MODULE in argv and argv[0] != _BROUGHT:
                names.add(name)
    return sorted(names)


def uninstall(name: str = NAME) -> list[str]:
    """Remove the kernelspecs ``name`` that ``install`` wrote, and return their folders. Raises PolicyError where there
    is none; touches no other kernel's.
    """
    removed, refused = list[str](), None
    for path in _folders_of(name):
        argv = _read_spec(path)
        if argv is None:
            continue
        if _MODULE not in argv:
            found, write = f"the kernel {name!r} is not sandboxed", f"Use jupyter kernelspec remove {name}"
            refused = refused or PolicyError("uninstall", found, write)
        elif argv[0] == _BROUGHT:
            found, write = f"the kernel {name!r} in {path} came with the package", "Run pip uninstall sandboxed-kernel"
            refused = refused or PolicyError("uninstall", found, write)
        else:
            try:
                shutil.rmtree(path)
            except OSError as error:
                found = f"{error.filename} stays ({error.strerror})"
                raise PolicyError("uninstall", found, "Remove it as its owner") from None
            removed.append(path)
    if not removed:
        write = 'Write a name that "jupyter kernelspec list" shows'
        raise refused or PolicyError("uninstall", f"no kernel {name!r}", write)
    return removed


def _folders_of(name: str, folders: Sequence[str] | None = None) -> list[str]:
    """Where a kernelspec of this name may lie, in the order in which Jupyter looks."""
    if folders is None:
        from jupyter_core.paths import jupyter_path  # 30 ms, and jupyter_client's own search three times that

        folders = jupyter_path("kernels")
    return [os.path.join(folder, name.lower()) for folder in folders]


def _read_spec(path: str) -> list[str] | None:
    """Its command line, or None where there is none. Raises PolicyError."""
    try:
        argv: list[str] = _json(path)["argv"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        name = os.path.basename(path)
        raise PolicyError(path, f"its {_TEMPLATE} cannot be read", f"Install the kernel {name!r} again") from None
    return argv


def kept_policy(name: str, prefix: str | None) -> str | None:
    """The policy that the kernelspec names which ``install`` would replace; None where it names none, or there is none.

    Raises PolicyError for an unusable name.
    """
    from jupyter_core.paths import jupyter_data_dir

    file_name(name, "--name")
    data = jupyter_data_dir() if prefix is None else os.path.join(prefix, "share", "jupyter")
    try:
        found = find(name, [os.path.join(data, "kernels")])
    except PolicyError:  # another program's, or broken: install replaces it
        return None
    return found.policy_file if found else None


class Installed(Record):
    """What a kernelspec of ours says: the policy that its command line names, if it names one."""

    folder: str
    policy_file: str | None


def find(name: str, folders: Sequence[str] | None = None) -> Installed | None:
    """The kernelspec ``name`` that Jupyter would take, the first one on its path, or None where there is none.

    ``folders`` are those that hold kernelspecs (default: Jupyter's path). Raises PolicyError for one that is not ours.
    """
    for path in _folders_of(name, folders):
        argv = _read_spec(path)
        if argv is None:
            continue
        if _MODULE not in argv:
            raise PolicyError("--kernel", f"the kernel {name!r} is not sandboxed", "Name a kernel that install wrote")
        return Installed(path, _value_of("--policy", argv))
    return None


def _value_of(option: str, argv: Sequence[str]) -> str | None:
    """As cli.kernel_arguments reads it."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _spec(name: str, display_name: str, policy_file: str | None) -> dict[str, Any]:
    """The template with this interpreter, and the policy by its absolute path: kernels start beside notebooks."""
    spec = _json(_template_folder())
    policy = [] if file_name(name) == file_name(DEFAULT_KERNEL) else ["--kernel", name.lower()]
    policy += [] if policy_file is None else ["--policy", os.path.abspath(policy_file)]
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
