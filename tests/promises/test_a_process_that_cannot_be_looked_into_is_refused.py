"""A process that the broker cannot look into has its calls refused: nothing of it is let through, and nothing hangs.

Such a process runs a program that its user may execute but not read: execve(2), PR_SET_DUMPABLE(2const).
"""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import compile_c, run_command_inside, run_inside
from tests.support.servers import TcpListener

PROGRAM = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static int result(long value) { return value < 0 ? errno : 0; }

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_aton("127.0.0.1", &to.sin_addr);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "bound"};
    int tcp = socket(AF_INET, SOCK_STREAM, 0), local = socket(AF_UNIX, SOCK_STREAM, 0);
    int connected = result(connect(tcp, (void *)&to, sizeof to));
    int bound = result(bind(local, (void *)&name, sizeof name));
    int changed = result(chmod("file", 0666));
    printf("{\"dumpable\": %d, \"connect\": %d, \"bind\": %d, \"chmod\": %d}\n",
           prctl(PR_GET_DUMPABLE), connected, bound, changed);
    return 0;
}
"""


def test_a_process_that_cannot_be_looked_into_is_refused(workspace: Path) -> None:
    with TcpListener() as server:
        program = compile_c(PROGRAM, workspace, name="program")
        (workspace / "file").touch(0o600)
        policy = f'[network]\nallow = ["{server.endpoint}"]'
        command = [str(program), str(server.port)]
        # The neighbour: the same program, readable, connects, binds and changes a mode.
        told = run_command_inside(command, workspace=workspace, policy=policy, timeout=30).json()
        assert told == {"dumpable": 1, "connect": 0, "bind": 0, "chmod": 0}
        assert len(server.received()) == 1

        (workspace / "bound").unlink()
        (workspace / "file").chmod(0o600)
        program.chmod(0o111)
        result = run_command_inside(command, workspace=workspace, policy=policy, timeout=30)
        told = result.json()
        assert told.pop("dumpable") != 1, "this program can be looked into, so it shows nothing"
        assert all(told.values()), told
        assert result.refused(kind="process"), "nobody was told"
        assert "may be run but not read" in result.stderr
        assert len(server.received()) == 1
        assert not (workspace / "bound").exists()
        assert (workspace / "file").stat().st_mode & 0o777 == 0o600


def test_a_process_cannot_make_itself_so(workspace: Path) -> None:
    """PR_SET_DUMPABLE answers 0 without effect: ssh-agent and gpg go on."""
    code = """
import ctypes, json, os
libc = ctypes.CDLL(None)
answered = libc.prctl(4, 0, 0, 0, 0)
open("file", "w").close()
os.chmod("file", 0o640)
print(json.dumps([answered, libc.prctl(3, 0, 0, 0, 0), os.stat("file").st_mode & 0o777]))
"""
    assert run_inside(code, workspace=workspace).json() == [0, 1, 0o640]
