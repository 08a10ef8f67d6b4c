"""Does: starts ipykernel inside the sandbox. A script run by its path: ``PYTHON .../inside/start.py -f
BACK_CONNECTION_FILE``.

To user code it looks like plain ipykernel. What differs, and why:

- the four sockets are inherited, already listening (``relay/connection.py``), and the heartbeat is the relay's;
- the debuggers, the client half of jupyter_client and what else takes long are imported when first used
  (``imports.py``), and the database of inputs is made when somebody asks for it (``history.py``): together more than
  half of ipykernel's start;
- the pipe for output of forked children is a unix socket: ipykernel's own is a TCP port, and without it their output
  is lost;
- pip installs into a private environment laid over this Python's, which is read-only here.

Nothing trusted depends on this file: from the first cell on it can be rewritten in memory.
"""

from __future__ import annotations

import gc
import os
import sys

# Python puts the script's folder first on the path; ipykernel's own first entry is the working directory, ''.
# Neither may be searched while we import: a zmq.py beside the notebook would run before anything is set up, and
# `magics` here is no top-level name. IPython's init_path puts '' where plain ipykernel has it.
if sys.path[0] in ("", os.getcwd(), os.path.dirname(os.path.abspath(__file__))):
    del sys.path[0]

import importlib.util
import json
import shlex
from contextlib import suppress
from typing import Any

from sandboxed_kernel.inside.imports import late_imports
from sandboxed_kernel.inside.packages import Packages, note
from sandboxed_kernel.late import when_imported

# Until the kernel serves: nothing of what is imported becomes garbage, and looking for some takes a tenth of the start.
gc.disable()

with late_imports():
    import asyncio

    import zmq
    from ipykernel import iostream, kernelapp
    from ipykernel.ipkernel import IPythonKernel
    from IPython.core import interactiveshell
    from traitlets import Integer, Type, default
    from traitlets.config import Config
    from zmq.eventloop.zmqstream import ZMQStream

    from sandboxed_kernel.inside.history import LateHistory

_LISTENERS_KEY = "sandboxed_kernel_listeners"  # as in relay/connection.py, which code inside does not import
_INPROC_SHELL = "inproc://sandboxed-kernel-shell"


class LateDebugger:
    """Stands for ``ipykernel.debugger.Debugger`` until a client makes its first debug request (control thread only)."""

    def __init__(self, *args: Any) -> None:
        self._args = args
        self._real: Any = None
        self._made = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        if self._real is None:
            from ipykernel.debugger import Debugger

            self._real = Debugger(*self._args)
            self._made.set()
        return getattr(self._real, name)

    async def handle_stopped_event(self) -> None:
        """ipykernel waits here from its start on; a debugger that does not exist does not stop."""
        await self._made.wait()
        await self._real.handle_stopped_event()


class ForkedOutput(iostream.IOPubThread):
    """IOPub with a unix socket for the output of forked children, in the private TMPDIR."""

    def _setup_pipe_in(self) -> None:
        self._pipe_uuid = os.urandom(16)
        self._pipe_path = f"ipc://{os.environ.get('TMPDIR', '/tmp')}/iopub-{os.urandom(4).hex()}"
        pipe_in = self.socket.context.socket(zmq.PULL)
        pipe_in.linger = 0
        pipe_in.bind(self._pipe_path)
        self._pipe_in = ZMQStream(pipe_in, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def _setup_pipe_out(self) -> tuple[Any, Any]:
        context = zmq.Context()  # a forked child cannot use its parent's
        pipe_out = context.socket(zmq.PUSH)
        pipe_out.linger = 3000  # ms, as ipykernel's
        pipe_out.connect(self._pipe_path)
        return context, pipe_out


class SandboxedKernel(IPythonKernel):
    """ipykernel's, with the late debugger, ``%sandbox``, and a ``%connect_info`` of its own."""

    debugger_class = Type(LateDebugger, klass=object)
    packages: Packages | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shell.register_magic_function(_sandbox, "line", "sandbox")
        self.shell.register_magic_function(_connect_info, "line", "connect_info")
        self.shell.register_magic_function(_pip, "line", "pip")
        self.shell.register_magic_function(_uv, "line", "uv")
        _give_hints(self.shell)

    def start(self) -> None:
        """ipykernel makes the subshells' manager in the thread that first asks for it, and it must be this one; and it
        reads its control channel before it tells the manager what a new subshell has to do.

        Where a client's request waits already, which behind a relay it does, the control thread asks first.
        """
        if self.shell_channel_thread is not None:
            self.shell_channel_thread.manager.set_on_recv_callback(self.shell_main)
        super().start()


class SandboxedKernelApp(kernelapp.IPKernelApp):
    """ipykernel's application on inherited sockets."""

    # 1: there is a parent, and it need not be polled for: its end kills us (PR_SET_PDEATHSIG, prctl(2)).
    parent_handle = Integer(1).tag(config=True)
    kernel_class = Type(SandboxedKernel, klass="ipykernel.kernelbase.Kernel")
    blocking_class = Type(object, klass=object)

    @default("blocking_class")
    def _blocking_class(self) -> type:
        """Named by a string, as jupyter_client does, it would be imported at start, and every manager with it."""
        from jupyter_client.blocking.client import BlockingKernelClient

        return BlockingKernelClient

    def parse_command_line(self, argv: Any = None) -> None:
        """What the launcher writes where nobody adds to it needs no parser, which takes 5 ms to make."""
        given = sys.argv[1:] if argv is None else list(argv)
        if given[:1] == ["-f"] and len(given) == 2:
            self.argv = given
            self.update_config(Config({"IPKernelApp": {"connection_file": given[1]}}))
        else:
            super().parse_command_line(argv)

    def init_pdb(self) -> None:
        """Put IPython's debugger, which can be interrupted, in the place of pdb's: when somebody imports either."""
        put = super().init_pdb
        if "pdb" in sys.modules:
            put()
        else:
            # Who imports IPython's gets pdb's on the way, when the one that takes its place does not exist yet.
            own = "IPython.core.debugger"
            when_imported("pdb", then=lambda: None if own in sys.modules else put())
            when_imported(own, then=put)

    def init_sockets(self) -> None:
        with open(self.abs_connection_file, encoding="utf-8") as stream:
            self._listeners = json.load(stream)[_LISTENERS_KEY]
        super().init_sockets()

    def _try_bind_socket(self, s: Any, port: int) -> int:
        (channel,) = (name for name in self._listeners if getattr(self, f"{name}_port") == port)
        descriptor = self._listeners[channel]
        os.set_inheritable(descriptor, False)  # it had to survive our exec, and shall survive no other
        s.setsockopt(zmq.USE_FD, descriptor)
        if channel == "iopub":
            s.sndhwm = 2000  # messages; ipykernel's 1,000, and another 1,000 since the relay keeps none for us
        super()._try_bind_socket(s, port)
        if channel == "shell":
            # The debugger's own connection to the shell socket goes to the endpoint bound last; the path is gone.
            s.bind(_INPROC_SHELL)
        return port

    def start(self) -> None:
        """Until the kernel is told to end.

        The control thread was told so too, and still flushes the output; what follows ends the output's thread first.
        The one would wait for that for 10 s (OutStream.flush_timeout), and this thread for the one.
        """
        super().start()
        if self.control_thread is not None and self.control_thread.is_alive():
            self.control_thread.stop()
            self.control_thread.join(2.0)  # seconds; it takes milliseconds

    def init_heartbeat(self) -> None:
        """The relay answers it."""

    def write_connection_file(self, **kwargs: Any) -> None:
        """It was written for us, and is read-only here."""


def _sandbox(line: str) -> None:
    """Show what this sandbox may reach, what it refused lately, and how to allow something."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "magics.py")
    spec = importlib.util.spec_from_file_location("sandboxed_kernel_magics", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.sandbox(line, os.path.dirname(kernelapp.IPKernelApp.instance().abs_connection_file))


def _pip(line: str) -> None:
    """Run the pip package manager within the current kernel.

    Usage:
      %pip install [pkgs]
    """
    _install("pip", line, line)


def _uv(line: str) -> None:
    """Run the uv package manager within the current kernel.

    Usage:
      %uv pip install [pkgs]
    """
    _install("uv", line, line.strip().removeprefix("pip "))


def _install(module: str, line: str, command: str) -> None:
    """As IPython's magics (IPython.core.magics.packaging), with a note that is true here."""
    shell = kernelapp.IPKernelApp.instance().shell
    packages = SandboxedKernel.packages
    # pip takes its own way there, by PIP_PYTHON, from wherever it is called.
    before = packages.transaction() if packages is not None and module == "uv" else []
    shell.system(f"{shlex.join([*before, sys.executable])} -m {module} {line}")
    if said := note(command, shell.user_ns.get("_exit_code", 0), packages):
        print(said)  # noqa: T201


def _give_hints(shell: Any) -> None:
    """Under a traceback, why the sandbox refused a file; at the end of a cell, that a file will be lost (``hints.py``).

    Into the traceback, so that ``ename`` and ``evalue``, which nbval and doctest compare, are the exception's own.
    """
    from sandboxed_kernel.inside.hints import MARK, HomeWatch, of_error

    show = shell._showtraceback
    watch = HomeWatch()
    packages = SandboxedKernel.packages
    waiting = [packages.left_behind()] if packages is not None else []

    def show_with_hint(etype: Any, evalue: Any, stb: Any) -> None:
        hint = None
        with suppress(Exception):  # a hint is worth no second error
            hint = of_error(evalue) if isinstance(stb, list) else None
        show(etype, evalue, stb if hint is None else [*stb, hint])

    def look_at_home(*_result: Any) -> None:
        if waiting and (said := waiting.pop()):
            print(f"{MARK} {said}", file=sys.stderr)  # noqa: T201
        if (hint := watch.of_new()) is not None:
            print(hint, file=sys.stderr)  # noqa: T201

    shell._showtraceback = show_with_hint
    shell.events.register("post_run_cell", look_at_home)


def _connect_info(_line: str) -> None:
    """Say how another client reaches this kernel. ipykernel's own words would name a file and a key of the inside."""
    print(  # noqa: T201
        "This kernel runs in a sandbox, and clients talk to its launcher outside. Jupyter's own connection file leads\n"
        "there: in a terminal outside the sandbox, `jupyter console --existing` connects to the newest kernel, and\n"
        "`jupyter --runtime-dir` says in which folder the connection files lie."
    )


def _lay_over(folder: str) -> Packages:
    """Where packages go. An earlier notebook, or a full disk, may have spoilt those that last: then others do."""
    try:
        packages = Packages(folder, lasts=LateHistory.lasts)
    except (OSError, ValueError, RecursionError) as error:  # a folder that is too deep
        print(f"{folder} cannot be used: {error}", file=sys.stderr)  # noqa: T201
        packages = Packages(os.path.join(os.environ["TMPDIR"], "packages"), lasts=False)
    packages.lay_over()
    return packages


def _keep_no_pickles() -> None:
    """Jedi, which looks for completions, keeps pickles in the cache, and would load those of an earlier notebook."""
    sys.modules["jedi.settings"].cache_directory = os.path.join(os.environ["HOME"], ".jedi")  # type: ignore[attr-defined]


def main() -> None:
    LateHistory.lasts = os.environ.pop("SANDBOXED_KERNEL_HOME_LASTS", "") == "1"
    if folder := os.environ.pop("SANDBOXED_KERNEL_PACKAGES", None):
        SandboxedKernel.packages = _lay_over(folder)
    if LateHistory.lasts:
        when_imported("jedi.settings", then=_keep_no_pickles)
    # Names that are looked up when they are used.
    kernelapp.IOPubThread = ForkedOutput
    interactiveshell.HistoryManager = LateHistory
    app = SandboxedKernelApp.instance()
    app.initialize()
    if SandboxedKernel.packages is not None:
        SandboxedKernel.packages.add_lasting()
    gc.enable()
    app.start()


if __name__ == "__main__":
    main()
