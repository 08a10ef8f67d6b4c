"""Does: runs a command in a container made by ``runc``, with this machine's own files as its root filesystem.

    unshare --mount --net --propagation private PYTHON start.py BUNDLE NAME UID CWD NAME=VALUE ... -- COMMAND ...

It is called with mount and network namespaces of its own: what it mounts and configures is gone when it ends. Docker
would bring an image; here the image is this machine, so that the tree and its virtual environment are what is tested.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]  # called by path: the tree is not on the path yet

from tests.container import oci  # noqa: E402 - see the line above
from tests.support.interfaces import ADDED, add_own_address  # noqa: E402


def main(arguments: list[str]) -> int:
    bundle, name, uid, cwd, *rest = arguments
    split = rest.index("--")
    env = dict(pair.split("=", 1) for pair in rest[:split])
    rootfs = Path(bundle, "rootfs")
    rootfs.mkdir()
    # Recursive, since the machine's own /sys and volumes belong to it; private, since pivot_root(2) refuses a shared
    # root, and since nothing mounted inside may appear outside.
    run = ("mount", "--rbind", "/", str(rootfs)), ("mount", "--make-rprivate", str(rootfs))
    for command in (*run, ("ip", "link", "set", "lo", "up")):
        subprocess.run(command, check=True)
    # Hidden beneath the container's own ones they would still be listed, with roots outside of its control group
    # namespace; no image has that, and Java stops at the first of them.
    groups = rootfs / "sys/fs/cgroup"
    if groups.is_mount():
        subprocess.run(("umount", "--recursive", "--lazy", groups), check=True)
    add_own_address()
    hosts = Path(bundle, "hosts")
    hosts.write_text(f"{Path('/etc/hosts').read_text()}\n{ADDED} {oci.HOSTNAME}\n")
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    assert version is not None, platform.release()
    profile = json.loads((HERE / "docker-default-seccomp.json").read_text())
    filter_ = oci.seccomp(profile, machine=platform.machine(), linux=(int(version[1]), int(version[2])))
    config = oci.config(
        rest[split + 1 :],
        cwd=cwd,
        env=env,
        uid=int(uid),
        rootfs=str(rootfs),
        hosts=str(hosts),
        cgroup=f"/{name}",
        filter_=filter_,
    )
    Path(bundle, "config.json").write_text(json.dumps(config, indent=1))
    os.execvp("runc", ["runc", "--root", f"{bundle}/state", "run", "--bundle", bundle, name])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
