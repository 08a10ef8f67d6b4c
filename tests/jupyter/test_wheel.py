"""`pip install` of the wheel is enough for Jupyter to find the kernel, and `pip uninstall` leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import sandboxed_kernel
from tests.support.kernels import running

PROJECT = Path(sandboxed_kernel.__file__).parents[1]
NAME = "sandboxed-python3"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_install_and_uninstall(tmp_path: Path, short_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"))
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    environment = short_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # What it depends on, from here. The package itself is found in its own site-packages, which come first.
    (packages / "dependencies.pth").write_text(f"{Path(json.__file__).parent}\n{site_packages()}\n")
    before = files(environment)

    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    variables = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    jupyter = [str(python), "-m", "jupyter_client.kernelspecapp", "list", "--json"]
    found = subprocess.run(jupyter, env=variables, capture_output=True, text=True, check=True)
    spec = json.loads(found.stdout)["kernelspecs"][NAME]
    assert Path(spec["resource_dir"]) == environment / "share" / "jupyter" / "kernels" / NAME
    assert (Path(spec["resource_dir"]) / "logo-svg.svg").exists()
    command = [str(python), *spec["spec"]["argv"][1:]]  # as jupyter_client reads "python": the environment's own
    with running(command, short_path) as kernel:
        assert kernel.run("import sandboxed_kernel; print(sandboxed_kernel.__file__)").text.startswith(str(packages))
        assert kernel.run("open('/etc/shadow')").reply["content"]["ename"] in ("PermissionError", "FileNotFoundError")
    taken = subprocess.run([environment / "bin" / "sandboxed-kernel", "uninstall"], capture_output=True, text=True)
    assert taken.returncode != 0
    assert "pip uninstall sandboxed-kernel" in taken.stderr

    pip("--python", python, "uninstall", "--yes", "sandboxed-kernel")
    left = files(environment) - before
    assert {path for path in left if not path.startswith("share") or "jupyter/kernels/" in path} == set()


def site_packages() -> str:
    import ipykernel

    return str(Path(ipykernel.__file__).parents[1])
