"""Does: puts the broker's parts together. On its own because its imports wait until the confined process runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sandboxed_kernel.broker.connecting import Connecting
from sandboxed_kernel.broker.datagram_calls import DatagramCalls
from sandboxed_kernel.broker.datagrams import Datagrams
from sandboxed_kernel.broker.dispatch import Dispatcher
from sandboxed_kernel.broker.guarded_folder import GuardedFolder, Writable
from sandboxed_kernel.broker.handlers import Handlers, Parts
from sandboxed_kernel.broker.links import Links
from sandboxed_kernel.broker.loop import Loop
from sandboxed_kernel.broker.metadata import Metadata
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.notifier import Notifier
from sandboxed_kernel.broker.orders import Orders
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.ports import Ports
from sandboxed_kernel.broker.questions import Questions, QuestionStreams
from sandboxed_kernel.broker.repeats import Repeats
from sandboxed_kernel.broker.reporting import Reporter
from sandboxed_kernel.broker.rules import Rules
from sandboxed_kernel.broker.sockets import Processes, Sockets, device_of_sockets
from sandboxed_kernel.broker.tcp_calls import TcpCalls
from sandboxed_kernel.broker.unix_calls import UnixCalls
from sandboxed_kernel.broker.unix_sockets import UnixSockets
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.hostnames.pins import Pins
from sandboxed_kernel.linux.diag import SocketDiag
from sandboxed_kernel.linux.seccomp import Listener

if TYPE_CHECKING:
    from sandboxed_kernel.broker.guarded_connects import GuardedConnects


def assemble(
    orders: Orders,
    warden: int,
    listener: Listener,
    loop: Loop,
    reporter: Reporter,
    lost: Callable[[str], None],
) -> tuple[Workers, Rules, TcpCalls]:
    """Answer calls from now on. ``warden``: what descends from this process, and nothing else, is inside. ``lost`` is
    called with a sentence where a part is gone without which nothing may go on.
    """
    repeats = Repeats(once=frozenset(orders.numbers[name] for name in ("bind", "connect")))
    workers = Workers(loop.lock)
    may_wait = workers.may_wait
    device = device_of_sockets()
    sockets = Sockets(Processes(warden), device, may_wait, workers.post)
    diag = SocketDiag()
    ports = Ports(diag, orders.reserved_ports, orders.sockets_of_parent)
    pins = Pins(orders.policy.allow, orders.policy.pins)
    own_addresses = OwnAddresses(may_wait)
    rules = Rules(orders.running_policy, may_wait, workers.post, reporter.remark)
    notifier = Notifier(reporter, pins, own_addresses, workers, rules)
    names = Names(
        loop,
        pins,
        orders.resolve,
        notifier.names_rejected,
        renew=orders.policy.pins == "ttl",
    )
    rules.when_changed.append(names.replace)
    questions = Questions(names, orders.own_hostname, orders.search_domains, notifier.refuse_name)
    connecting = Connecting(loop, workers, sockets, diag)
    streams = QuestionStreams(loop, questions)
    datagrams = Datagrams(
        loop,
        questions,
        notifier.lost_datagram,
        notifier.unheard_resolver,
        notifier.cut_datagram,
        rules.refresh_soon,
    )
    named = tuple(grant.path for grant in orders.policy.unix)
    unix_sockets = UnixSockets(loop, workers, diag, orders.confine_thread, named=named)

    def guarded_connects() -> GuardedConnects:
        from sandboxed_kernel.broker.guarded_connects import GuardedConnects
        from sandboxed_kernel.broker.guarding import Guarding

        guarding = Guarding(loop, workers, orders.start_guard, names, rules, notifier, lost)
        return GuardedConnects(connecting, guarding)

    tcp = TcpCalls(
        may_wait, sockets, connecting, streams, names, diag, own_addresses, notifier, ports, rules, guarded_connects
    )
    guarded = files = None
    if orders.guard is not None:
        from sandboxed_kernel.broker.files import Files

        guarded = GuardedFolder(orders.guard)
        files = Files(guarded, listener, orders.policy.limits.file_size)
    parts = Parts(
        listener=listener,
        may_wait=may_wait,
        repeats=repeats,
        sockets=sockets,
        connecting=connecting,
        datagrams=datagrams,
        metadata=Metadata(Writable(orders.writable, guarded), None if files is None else files.become_program),
        # Where the sandbox may not list a folder it may make no links either.
        links=Links(
            Writable(tuple(path for path in orders.writable if not path.endswith("/")), guarded), orders.hidden
        ),
        files=files,
        tcp=tcp,
        unix=UnixCalls(may_wait, sockets, connecting, unix_sockets, diag, loop),
        datagram=DatagramCalls(datagrams, names, own_addresses, notifier, rules),
    )
    by_name = Handlers(parts, warden).by_name
    handlers = {orders.numbers[name]: handler for name, handler in by_name.items() if name in orders.numbers}
    dispatcher = Dispatcher(listener, workers, repeats, reporter, notifier, handlers)
    names.begin()
    workers.start(dispatcher.receive, dispatcher.handle)
    return workers, rules, tcp
