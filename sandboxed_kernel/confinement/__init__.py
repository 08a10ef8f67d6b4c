"""What the sandboxed process can never undo: Landlock rules, the system call filter, limits."""
