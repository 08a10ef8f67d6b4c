"""``python -I -m sandboxed_kernel``: what the kernelspec runs, and the command line without its script."""

from __future__ import annotations

import sys

from sandboxed_kernel.cli import main

if __name__ == "__main__":
    sys.exit(main())
