"""``python -I -m sandboxed_kernel``: what the kernelspec runs, and the command line without its script."""

from __future__ import annotations

import gc
import sys

# Without -I or -P Python searches the working directory first, which is the notebook's folder: a tomllib.py there would
# run in the launcher. (A sandboxed_kernel.py there runs instead of this file; only -I and -P help against that.)
if not sys.flags.safe_path:
    del sys.path[0]

# Nothing of what a start imports becomes garbage, and looking for some takes a tenth of the start. The launcher and the
# broker look again from when they serve.
gc.disable()

from sandboxed_kernel.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
