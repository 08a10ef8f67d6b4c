"""What runs inside. Copied into the workspace and run as ``python -m benchmarks.programs.NAME '{"json": "options"}'``.

Standard library only; each prints one line of JSON: metric -> number.
"""
