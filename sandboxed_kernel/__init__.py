"""A Jupyter kernel that is safe to hand to code you did not write.

A launcher wraps each IPython kernel process in Landlock and a seccomp-notify broker, and relays its messages so that
every refused connection is explained in the cell that caused it. Where things are:

    cli            words for people: install, check, explain, run, demo
    launcher       the life of one sandboxed kernel, read top to bottom
    policy/        what is allowed (pure)
    hostnames/     which addresses a name may mean
    confinement/   what the kernel process can never undo
    broker/        what is asked before each call; trusted, a process of its own
    notices/       what the user is told
    relay/         what Jupyter may say to the kernel and back; trusted
    inside/        runs in the sandbox; untrusted
    linux/         raw Linux, knows no policy
"""

__version__ = "0.1.0"
