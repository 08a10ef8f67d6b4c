"""Does: runs one command in sandlock. ``python in_sandlock.py FOLDER HOST:PORT,... -- COMMAND ...``"""

from __future__ import annotations

import sys

from sandlock import Sandbox


def main() -> int:
    folder, endpoints, _separator, *command = sys.argv[1:]
    allowed = [endpoint for endpoint in endpoints.split(",") if endpoint]
    sandbox = Sandbox(fs_readable=["/"], fs_writable=[folder, "/dev/null"], net_allow=allowed, net_allow_bind=["*"])
    return int(sandbox.run_interactive(command))


if __name__ == "__main__":
    sys.exit(main())
