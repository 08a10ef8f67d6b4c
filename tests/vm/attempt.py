"""Does: what platforms.py wants to see of a command in the sandbox: one connection that the policy allows, one that it
does not, and a file outside.

    attempt.py POLICY COMMAND ...      COMMAND runs a program in the sandbox; lines are added to POLICY
"""

from __future__ import annotations

import socket
import subprocess
import sys

CODE = """
import socket, sys
allowed, refused = map(int, sys.argv[1:])
def step(name, work):
    try:
        work()
        print(name, "reached", sep=": ", flush=True)
    except OSError:
        print(name, "refused", sep=": ", flush=True)
step("allowed", lambda: socket.create_connection(("127.0.0.1", allowed)))
step("refused", lambda: socket.create_connection(("127.0.0.1", refused)))
step("file", lambda: open("/tmp/check/own", "a"))
"""


def main(policy: str, *command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [server.getsockname()[1] for server in (one, two)]
        with open(policy, "a") as file:
            file.write(f'\n[network]\nallow = ["127.0.0.1:{ports[0]}"]\n')
        done = subprocess.run([*command, sys.executable, "-c", CODE, *map(str, ports)], check=False)
    print("ended with", done.returncode, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
