"""``python -I -m sandboxed_kernel``: what the kernelspec runs, and the command line without its script."""

from __future__ import annotations

import sys

# Without -I or -P Python searches the working directory first, which is the notebook's folder: a tomllib.py there would
# run in the launcher. (A sandboxed_kernel.py there runs instead of this file; only -I and -P help against that.)
if not sys.flags.safe_path:
    del sys.path[0]

from sandboxed_kernel.cli import main

if __name__ == "__main__":
    sys.exit(main())
