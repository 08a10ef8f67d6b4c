"""Does: the life of one sandboxed process, from the command line to the last descendant. Only it knows all parts.

    read the policy -> plan -> fork the broker, which starts the confined process -> relay -> end

The broker is forked before anything heavy is imported: both start small, and the confined process starts at once.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxed_kernel.broker.birth import live
from sandboxed_kernel.broker.orders import Log, Orders
from sandboxed_kernel.confinement.apply import restrict_thread
from sandboxed_kernel.confinement.filesystem import READ, Fs, PathRule
from sandboxed_kernel.confinement.filters import load_program
from sandboxed_kernel.confinement.host import find_features
from sandboxed_kernel.confinement.numbers import NUMBERS
from sandboxed_kernel.confinement.plan import (
    HostFeatures,
    Plan,
    Surroundings,
    check_place,
    describe_missing,
    effective_grants,
    make_plan,
    put_first,
    require,
)
from sandboxed_kernel.confinement.spawn import spawn
from sandboxed_kernel.confinement.warden import Wires
from sandboxed_kernel.errors import HostError, SandboxError
from sandboxed_kernel.lasting_home import LastingHome, NothingLasts, open_lasting
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.folders import OPEN_FOLDER, link_beneath
from sandboxed_kernel.live import LivePolicy
from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.policy.describe import describe, describe_absent, describe_exposed
from sandboxed_kernel.policy.guarded import POOL_PREFIX, sentence
from sandboxed_kernel.policy.lasting import Owner, opens_more
from sandboxed_kernel.policy.model import Limits, Policy, in_force
from sandboxed_kernel.policy.paths import is_beneath, is_within, way_to
from sandboxed_kernel.policy.place import DEFAULT_KERNEL
from sandboxed_kernel.private_folder import PrivateFolder, remove_left_pools
from sandboxed_kernel.records import Record, replace
from sandboxed_kernel.relay.lifeline import Lifeline
from sandboxed_kernel.settings import PolicyFile, Settings, choose_policy, load_settings
from sandboxed_kernel.surroundings import (
    check_writers,
    home_folder,
    homes_folder,
    look_around,
    policy_places,
    ports_of_jupyter,
    search_domains,
)
from sandboxed_kernel.survey import exposed, look_for_closed

if TYPE_CHECKING:
    from sandboxed_kernel.hostnames.pins import Resolution
    from sandboxed_kernel.linux.cgroups import Group

_START = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside", "start.py")
_LAST_WORDS = 0.5  # seconds for the broker to end by itself, once the relay does not wait for it any more
_PATIENCE = 1.0  # seconds for the warden to end everything, and again for what lives on


class _Launch(Record):
    """What a launch is about, beside the policy's text."""

    workspace: str
    settings: Settings
    named_policy: str | None
    kernel: str
    connection_file: str | None = None

    def absolute(self) -> _Launch:
        return self if self.named_policy is None else replace(self, named_policy=os.path.abspath(self.named_policy))

    def choose(self) -> PolicyFile:
        """Raises PolicyError."""
        return choose_policy(self.named_policy, self.kernel)


class _Ready(Record):
    """What a start needs, and what a policy that changes later is judged by."""

    file: PolicyFile
    policy: Policy
    plan: Plan
    features: HostFeatures
    around: Surroundings
    home: LastingHome | NothingLasts
    further: tuple[str, ...]  # sentences about variables that there are none of, and folders that open too much


def run_kernel(
    policy_file: str | None, connection_file: str, settings_inside: Sequence[str] = (), kernel: str = DEFAULT_KERNEL
) -> int:
    """Run one Jupyter kernel until it ends; its exit code. The notebook's folder is the working directory.

    ``kernel`` is its name, whose policy is read where neither ``policy_file`` nor the settings name one.

    ``settings_inside`` are further arguments for ipykernel ("--Class.trait=value").

    Raises PolicyError for an unusable connection file. Whatever else is wrong is said in the notebook, where nothing
    untrusted then runs.
    """
    from sandboxed_kernel.notices.refusals import POLICY_FILE, Refusals, ShownFile
    from sandboxed_kernel.relay.connection import create_back, read_front

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a shutdown begins with it; before the relay takes it, it is nobody's
    front = read_front(connection_file)
    private = PrivateFolder()
    try:
        settings = load_settings(os.getcwd())
        launch = _Launch(os.getcwd(), settings, policy_file or settings.policy_file, kernel, front.file)
        back = create_back(private.path)
        ready = _prepare(launch, private, (sys.executable, _START, "-f", back.file, *settings_inside))
        place = _place(ready.file, policy_file, kernel)
        refusals, shown = Refusals(private.path, place), ShownFile(private.path, POLICY_FILE)
        ready = replace(ready, plan=_for_kernel(ready.plan, ready.policy, back.file, refusals.path, shown.path))
        launched, plan, home = ready.policy, ready.plan, ready.home.describe()
        grants = effective_grants(launched, plan.cwd)

        def show(policy: Policy) -> None:
            running = replace(launched, allow=policy.allow, sources=policy.sources)
            file = ready.file.path
            shown.write(describe(running, grants, plan.missing, plan.absent, plan.guard, home=home, file=file))

        show(launched)
        inherited = tuple(back.listeners.values())
        with _Launched(ready, launch, private, inherited=inherited, own_output=False, show=show) as (broker, lifeline):
            from sandboxed_kernel.relay.imports import late_imports

            with late_imports():
                from sandboxed_kernel.relay.loop import Relay, RelayOptions
            options = RelayOptions(
                active_content=launched.active_content,
                on_event=refusals.add,
                not_enforced=_not_enforced(plan),
                remarks=_remarks(ready),
                policy_place=place,
            )
            gc.enable()
            return Relay(front, back, broker, lifeline, options=options).run()
    except SandboxError as error:
        from sandboxed_kernel.relay.refusal import serve_refusal

        sys.stderr.write(f"sandboxed-kernel: {error}\n")
        return serve_refusal(front, error)
    finally:
        private.end()


def run_command(
    argv: Sequence[str],
    *,
    policy_file: str | None,
    workspace: str,
    kernel: str = DEFAULT_KERNEL,
    audit_file: str | None = None,
    resolv_conf: str | None = None,
) -> int:
    """Run any command in the same sandbox; its exit code as a shell has it. Raises PolicyError and HostError."""
    from sandboxed_kernel.relay.plain import PlainRelay

    private = PrivateFolder()
    try:
        found = load_settings(workspace)
        settings = Settings(audit_file or found.audit_file, resolv_conf or found.resolv_conf, found.policy_file)
        launch = _Launch(workspace, settings, policy_file or found.policy_file, kernel)
        ready = _prepare(launch, private, tuple(argv))
        for remark in _remarks(ready):
            sys.stderr.write(f"[sandbox] {remark}\n")
        with _Launched(ready, launch, private, inherited=(), own_output=True) as (broker, lifeline):
            gc.enable()
            return PlainRelay(broker, lifeline, _place(ready.file, policy_file, kernel)).run()
    finally:
        private.end()


def _prepare(launch: _Launch, private: PrivateFolder, argv: tuple[str, ...]) -> _Ready:
    """Everything that can be wrong is found here, before anything is started. Raises PolicyError and HostError."""
    file = launch.choose()
    policy = in_force(_read_policy(file, launch.workspace), time.time())
    homes = os.path.realpath(homes_folder())
    kept = [(launch.settings.audit_file, "the audit log"), (homes, "where the private homes of all notebooks last")]
    if launch.connection_file is not None:
        kept.append((launch.connection_file, "the connection file, with the key of this kernel"))
    around = look_around(policy, workspace=launch.workspace, private=private.path, argv=argv, kept=kept)
    features = find_features()
    require(features, policy.best_effort)  # before anything is looked for: nothing would be started
    remove_left_pools(around.workspace, POOL_PREFIX)
    guard = look_for_closed(policy, around, policy.folder_of(launch.workspace))
    home: LastingHome | NothingLasts = NothingLasts("[home] keep = false")
    if policy.keep_home:
        more = opens_more(policy, around.workspace, around.real_paths)
        home = open_lasting(homes, Owner(around.workspace, launch.kernel.lower(), more))
    if isinstance(home, LastingHome):
        private.hold(home.descriptor, home.end)
    check_writers(policy, around.workspace)
    variables, unset = _variables(policy)
    written = [grant for grant in policy.grants if not is_within(grant.path, around.workspace)]
    remarks = (*unset, *filter(None, [describe_exposed(exposed(written))]))
    around = replace(around, lasting=home.path, variables=variables)
    return _Ready(file, policy, make_plan(policy, features, around, guard), features, around, home, remarks)


def _variables(policy: Policy) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Those that the policy takes from files; and a sentence for each that there is none of."""
    if not policy.environment_from:
        return (), ()
    from sandboxed_kernel.policy.read import variables

    found, said = variables(policy.environment_from)
    return tuple(found), tuple(said)


def _live_policy(ready: _Ready, launch: _Launch, show: Callable[[Policy], None]) -> LivePolicy:
    """Whatever a changed policy says, its files must lie where nothing that this sandbox may write leads to them."""
    there = launch.absolute()
    launched = replace(ready.policy, required=())

    def accept(policy: Policy) -> None:
        check_place(launched, ready.features, ready.around, ready.plan.guard, policy_places(policy.sources))
        check_writers(policy, ready.around.workspace)

    return LivePolicy(
        ready.policy,
        os.path.abspath(ready.file.path),  # the broker works elsewhere
        read=lambda: _read_policy(there.choose(), launch.workspace),
        accept=accept,
        show=show,
    )


def _place(file: PolicyFile, named: str | None, kernel: str) -> Place:
    """Where the notices say that the policy stands. ``named``: by the kernelspec or the command line."""
    path = os.path.abspath(file.path)
    if named is not None:
        options: tuple[str, ...] = ("--policy", path)
    else:
        options = () if kernel.lower() == DEFAULT_KERNEL else ("--kernel", kernel)
    return Place(path, options, not file.exists or os.access(path, os.W_OK))


def _read_policy(file: PolicyFile, workspace: str) -> Policy:
    """Raises PolicyError. Where it says nothing, 20 ms of imports are saved."""
    if not file.exists:
        return Policy()
    if file.says_nothing:
        return Policy(sources=(file.path,))
    from sandboxed_kernel.policy.read import load

    return load(file.path, workspace=workspace, home=home_folder())


def _for_kernel(plan: Plan, policy: Policy, connection_file: str, *shown: str) -> Plan:
    """What ipykernel needs beyond a command's plan: its connection file, and the texts that ``%sandbox`` shows."""
    own_files = (
        PathRule(connection_file, READ, "the kernel's own connection file", optional=False),
        *(PathRule(path, READ, "a text for %sandbox", optional=False) for path in shown),
    )
    environment = dict(plan.environment)
    if plan.cache:
        environment["SANDBOXED_KERNEL_HOME_LASTS"] = "1"
    if sys.prefix != "/usr" and "PATH" not in dict(policy.environment_set):
        environment["PATH"] = put_first(environment["PATH"], os.path.join(sys.prefix, "bin"))
    return replace(plan, path_rules=(*plan.path_rules, *own_files), environment=environment)


def _not_enforced(plan: Plan) -> tuple[str, ...]:
    """A sentence per feature that this host lacks and the policy does without."""
    return tuple(describe_missing(name, plan.abi) for name in plan.missing)


def _remarks(ready: _Ready) -> tuple[str, ...]:
    """What else the user should know of this start: sentences."""
    guard, about_home = ready.plan.guard, ready.home.remarks(ready.policy.home_limit)
    closed = "" if guard is None else sentence(guard)
    return tuple(filter(None, (describe_absent(ready.plan.absent), closed, *ready.further, *about_home)))


class _Launched:
    """A running broker and warden. Yields the relay's end of the channel to the one, and the lifeline to the other; on
    leaving, everything of the sandbox is gone, whatever state the broker is in.
    """

    def __init__(
        self,
        ready: _Ready,
        launch: _Launch,
        private: PrivateFolder,
        *,
        inherited: Sequence[int],
        own_output: bool,
        show: Callable[[Policy], None] = lambda _policy: None,
    ) -> None:
        plan = ready.plan
        for folder in plan.folders:
            os.mkdir(folder, 0o700)
        _put_links(plan)
        if plan.guard is not None and plan.guard.pool:
            with suppress(OSError):  # who may make nothing in the folder needs none
                private.add_pool(plan.guard.pool, plan.guard.pooled_folders, plan.guard.pooled_files)
        program = load_program(plan.machine, guarded=plan.guard is not None)
        self._limits = plan.limits
        self._group: Group | None = None
        self._orders = Orders(
            policy=ready.policy,
            running_policy=_live_policy(ready, launch, show),
            spawn=lambda: spawn(
                plan,
                program,
                self._wires,
                self._group,
                inherited=inherited,
                own_output=own_output,
                keep=private.descriptors,
                clean_up=private.remove,
            ),
            confine_thread=lambda: restrict_thread(plan, files_only=True),
            open_log=lambda: _open_log(launch.settings.audit_file),
            resolve=lambda names: _resolve(launch.settings.resolv_conf, names),
            writable=writable_paths(plan),
            hidden=_hidden(plan, private.path, ready.home),
            guard=plan.guard,
            start_guard=_start_guard,
            reserved_ports=ports_of_jupyter(os.environ),
            sockets_of_parent=processes.sockets_of(os.getppid()),
            own_hostname=os.uname().nodename,
            search_domains=search_domains(launch.settings.resolv_conf),
            numbers=NUMBERS[plan.machine],
            clean_up=private.remove,
        )

    def __enter__(self) -> tuple[socket.socket, Lifeline]:
        """Fork the broker. Both sides give up every capability, and orphans of either come to this process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        orders, done = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        self._wires = Wires(orders[0], done[1])
        processes.become_subreaper()
        processes.set_no_new_privs()
        processes.drop_capabilities()
        self._fenced = processes.fence_signals()
        self._group = _make_group(self._limits)
        gc.freeze()  # what both processes have is not looked through, and stays shared
        try:
            self._pid = os.fork()
        except OSError:
            self._remove_group()
            raise
        if self._pid == 0:
            os.close(orders[1])
            os.close(done[0])
            _be_broker(self._orders, ours, theirs, self._group)
        theirs.close()
        for descriptor in self._wires:
            os.close(descriptor)
        self._relay_end, self._lifeline = ours, Lifeline(orders[1], done[0])
        return ours, self._lifeline

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._relay_end.close()  # the broker takes this for our end, and ends everything
        self._lifeline.end()  # and so does the warden, whatever the broker is waiting for
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0 and select.select([self._lifeline], [], [], left)[0]:
            if self._lifeline.passed_on() is None:
                break
        deadline = time.monotonic() + _LAST_WORDS
        while time.monotonic() < deadline:
            pid, _status = _wait(self._pid)
            if pid:
                break
            time.sleep(0.002)
        processes.kill_descendants(time.monotonic() + _PATIENCE, fenced=self._fenced)
        self._lifeline.close()
        self._remove_group()

    def _remove_group(self) -> None:
        if self._group is not None:
            self._group.remove(time.monotonic() + _PATIENCE)


def _put_links(plan: Plan) -> None:
    """Before anything untrusted runs here. The home is new; in a cache that lasts a notebook before, or one that runs
    now, may have put anything in the way, which gets another name.

    Code inside may move each of these links: over the notebook, through which Jupyter would then save. So it says
    ``../l/NAME``, and only ``l``, where nothing inside may write, knows where that is: moved, it leads nowhere.
    """
    for folder, links, up in ((plan.home, plan.home_links, "../"), (plan.cache, plan.cache_links, "../../")):
        if not links:
            continue
        top = os.path.normpath(os.path.join(folder, up))
        with Descriptor(os.open(folder, OPEN_FOLDER)) as opened, Descriptor(os.open(top, OPEN_FOLDER)) as above:
            for path, target in links:
                way = way_to(os.fsencode(target))
                if link_beneath(above.fileno(), way, target):
                    says = up + "../" * path.count("/") + way
                    link_beneath(opened.fileno(), path, says, set_aside=None if folder == plan.home else [])


def _hidden(plan: Plan, private: str, home: LastingHome | NothingLasts) -> tuple[str, ...]:
    """Where links to files stand that nothing inside may write, or may later: a home that lasts has them for the next
    kernel.
    """
    writable = [path.rstrip("/") for path in writable_paths(plan)]
    leads = [target for _path, target in (*plan.home_links, *plan.cache_links)]
    stand = any(not any(is_within(target, path) for path in writable) for target in leads)
    if isinstance(home, LastingHome) and (stand or home.meta.more):
        return (private, os.path.dirname(home.path))
    return (private,) if stand else ()


def _be_broker(orders: Orders, relay_end: socket.socket, broker_end: socket.socket, group: Group | None) -> None:
    """In the forked broker: never returns."""
    code = HostError.exit_code
    try:
        relay_end.close()
        live(orders, broker_end, group)
        code = 0
    except BaseException:  # noqa: BLE001  # a forked process must not run on into its parent's code
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(pid: int) -> tuple[int, int]:
    try:
        return os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return pid, 0


def writable_paths(plan: Plan) -> tuple[str, ...]:
    """Beneath which the sandbox may change what files are called, hold and say of themselves; no devices. In a guarded
    folder the broker looks for itself.

    A folder that it may not list (/dev/shm) ends with a slash: what lies beneath is its own, not the folder itself.
    """
    guard = plan.guard
    return tuple(
        rule.path if rule.access & Fs.READ_DIR else f"{rule.path}/"
        for rule in plan.path_rules
        if rule.access & Fs.WRITE_FILE
        and not rule.access & Fs.IOCTL_DEV
        and (
            guard is None
            or not is_beneath(rule.path, guard.root)
            or any(is_beneath(rule.path, each) for each in guard.elsewhere)
        )
    )


def _make_group(limits: Limits) -> Group | None:
    if limits.memory is None and limits.processes is None:
        return None
    from sandboxed_kernel.confinement.group import make_group

    return make_group(limits)


def _start_guard() -> tuple[int, int]:
    from sandboxed_kernel.guard.start import start_guard  # only where a name is checked

    pid, channel = start_guard()
    return pid, channel.detach()


def _resolve(resolv_conf: str, names: list[str]) -> Iterable[tuple[str, Resolution]]:
    from sandboxed_kernel.hostnames import helper  # only where a policy has names

    return helper.resolve(names, resolv_conf)


def _open_log(path: str) -> Log:
    from sandboxed_kernel.notices.audit import AuditLog

    log = AuditLog(path)
    log.open()
    return log
