"""Does: plain ipykernel, after a line that says which test started it. The kernelspec's command in the first run:

    python start_plain.py STARTED.jsonl -f CONNECTION_FILE

From the exec on it is what ipykernel's own kernelspec starts, in the same process.
"""

from __future__ import annotations

import json
import os
import sys


def main(log: str, arguments: list[str]) -> None:
    with open(arguments[arguments.index("-f") + 1], encoding="utf-8") as file:
        key = json.load(file)["key"]
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]  # "tests/test_x.py::test_y (call)"
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps({"test": test, "key": key}) + "\n")
    os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
