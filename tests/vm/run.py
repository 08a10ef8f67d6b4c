"""Does: `make test-vm`. The limits by control group, and the newest rights of Landlock, in a virtual machine.

    python tests/vm/run.py --linux VMLINUZ [--qemu PROGRAM] [PYTEST ARGUMENTS]

The machine at hand may keep memory and pids in version 1, or delegate nothing, or have an older Linux. The virtual one
is emulated, so it needs no rights; its files are this machine's Python, this virtual environment without its largest
packages, and this tree.
Needs Debian's qemu-system-x86, and the vmlinuz of a Linux with Landlock (6.12 or newer; newest_linux.sh fetches one).
"""

from __future__ import annotations

import argparse
import lzma
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TREE)]  # called by path: the tree is not on the path yet

from tests.vm import init  # noqa: E402 - see the line above
from tests.vm.cpio import Archive  # noqa: E402

TIMEOUT = 1800  # seconds; emulated, everything takes ten times as long
CPU = "max,-cx16"  # the emulator of Debian 12 sets wrong flags with cmpxchg16b; Linux 6.12 does not live through that
MEMORY = "3072"  # MiB: the files live in it too

# Of the environment: what no test of the limits imports, which is most of its size.
LEFT_OUT = re.compile(
    r"^(numpy|pandas|matplotlib|fontTools|fonttools|PIL|pillow|contourpy|kiwisolver|mypy|ruff|sandlock|pip|setuptools"
    r"|\w+__mypyc)\b"
)
PROGRAMS = ("sh", "env", "cat", "true", "sleep", "bash", "ip")
MODULES = ("inet_diag", "tcp_diag", "unix_diag")  # in this order; the product asks them whose a socket is
SETTINGS = ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache", "localtime")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--linux", required=True, type=Path, help="a vmlinuz")
    parser.add_argument("--modules", type=Path, help="a folder with its modules, at any depth; else they are built in")
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="the emulator")
    options, extra = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sbk-vm-") as folder:
        image = Path(folder, "initramfs")
        with image.open("wb") as file:
            write_image(Archive(file), options.modules, extra)
        return boot(machine(options.qemu, options.linux, image))


def machine(qemu: str, linux: Path, image: Path) -> list[str]:
    """The command that starts it."""
    command = [qemu, "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", MEMORY, "-nographic"]
    command += ["-no-reboot", "-nic", "none", "-kernel", str(linux), "-initrd", str(image)]
    return [*command, "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]


def boot(command: list[str]) -> int:
    """The exit code of the tests, which the console says; 1 where it says none."""
    code = 1
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as vm:
        assert vm.stdout is not None
        for line in vm.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if line.startswith(init.ENDED):
                code = int(line.removeprefix(init.ENDED))
                vm.wait(60)
    return code


def write_image(archive: Archive, modules: Path | None, extra: list[str]) -> None:
    python = Path(sys.executable)
    binaries = [Path(os.path.realpath(python))]
    for path in (*tree_files(), *environment_files(), *library_files()):
        archive.add(path)
        if ".so" in path.suffixes:
            binaries.append(path)
    for name in PROGRAMS:
        program = Path("/usr/bin", name)
        archive.add(program)
        binaries.append(program.resolve())
    for path in (python, *binaries, *shared_libraries(binaries), *(Path("/etc", name) for name in SETTINGS)):
        add_with_links(archive, path)
    for folder in ("/bin", "/lib64", "/sbin", "/dev", "/proc", "/sys", "/tmp", "/var", "/run"):
        archive.folder(folder)
    if modules is not None:
        for index, name in enumerate(MODULES):
            packed = next(modules.rglob(f"{name}.ko*"))
            content = packed.read_bytes()
            archive.file(f"{init.MODULE}{index}", lzma.decompress(content) if packed.suffix == ".xz" else content)
    command = shlex.join([str(python), str(TREE / "tests/vm/init.py"), str(TREE), str(python), *extra])
    archive.file("/init", f"#!/bin/sh\nexec {command}\n".encode())
    archive.close()


def tree_files() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=TREE, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (TREE / name).exists():
            yield TREE / name


def environment_files() -> Iterator[Path]:
    prefix = Path(sys.prefix)
    yield prefix / "pyvenv.cfg"
    yield from (prefix / "bin").glob("python*")
    yield from files_beneath(Path(sys.prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages"))


def library_files() -> Iterator[Path]:
    """Python's own modules."""
    yield from files_beneath(Path(os.__file__).parent)


def files_beneath(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if not LEFT_OUT.search(name)]
            files = [name for name in files if not LEFT_OUT.search(name)]
        yield from (Path(folder, name) for name in (*folders, *files))


def shared_libraries(binaries: list[Path]) -> set[Path]:
    found: set[str] = set()
    for start in range(0, len(binaries), 100):
        listed = subprocess.run(["ldd", *binaries[start : start + 100]], capture_output=True, text=True, check=False)
        found.update(re.findall(r"(/\S+\.so\S*) \(0x", listed.stdout))
    return {Path(name) for name in found}


def add_with_links(archive: Archive, path: Path) -> None:
    """The path itself, and what it is a link to, step by step."""
    while True:
        archive.add(path)
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
