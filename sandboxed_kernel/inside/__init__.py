"""Runs in the sandbox: untrusted from the first cell on. Nothing may depend on it."""
