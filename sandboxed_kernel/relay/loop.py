"""Does: receive, verify or check, re-sign, send. The trusted process between Jupyter clients and the confined kernel.

One thread, one ``channels.Waiting``. The story of a request is ``_handle_request``; that of a message from the kernel
``_pass_on``, with what goes out before and after it in the two tables of ``__init__``; that of a notice ``_report``;
that of the end ``_finish``. Nothing that the sandbox sends raises out of this module.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Literal

import zmq

from sandboxed_kernel.errors import Bug, HostError, PolicyError
from sandboxed_kernel.notices import channel as words
from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.notices.board import COMM_TARGET, IopubMessage, NoticeBoard
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.records import Record, made
from sandboxed_kernel.relay import answers, channels, endings, messages, rules, schema
from sandboxed_kernel.relay.captures import Captures
from sandboxed_kernel.relay.cells import Cell, Cells
from sandboxed_kernel.relay.channels import Source, Waiting
from sandboxed_kernel.relay.connection import BACK_CHANNELS, BackConnection, FrontConnection
from sandboxed_kernel.relay.content import Cleaner
from sandboxed_kernel.relay.front import Front, installed_versions
from sandboxed_kernel.relay.lifeline import LAST_WORDS, Lifeline
from sandboxed_kernel.relay.messages import Claimed, Json, Signer, Unusable, Verified
from sandboxed_kernel.relay.refusal import serve
from sandboxed_kernel.relay.requests import Request, Requests
from sandboxed_kernel.relay.schema import Checked
from sandboxed_kernel.relay.watch import Signals, Watch, parent_pid

BATCH = 64  # messages of one socket before the others have their turn
TURN = 0.02  # seconds after which they have it all the same: a message can be large, or made to take long
RETRY = 0.005  # seconds between attempts while a client has no room
DRAIN = 2.0  # seconds at most for what the kernel said before it ended
SIGNALLED = 0.1  # seconds at most for the warden to pass a signal on
SHUTDOWN = 4.0  # seconds between a shutdown_request and the end of a kernel that does not heed it
DROPS_SHOWN = 5  # outputs of one cell whose loss is shown in it

_ERROR_NAMES = {error.exit_code: error.__name__ for error in (PolicyError, HostError)}


class RelayOptions(Record):
    """``versions``: None when the interpreter inside is this one. ``parent_pid``: its end ends the kernel.
    ``on_event`` is called with every event before its notice is sent; it must not wait, nor raise.
    ``not_enforced``: a sentence for each thing that this host cannot enforce and the policy does without.
    ``remarks``: sentences about this start that the first cell says.
    """

    active_content: Literal["strip", "allow"] = "strip"
    versions: answers.Versions | None = None
    parent_pid: int | None = made(default_factory=parent_pid)
    on_event: Callable[[Event], None] = lambda _event: None
    not_enforced: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    policy_place: Place = made(default_factory=Place)


class Relay:
    """Binds the front and connects the back at once, so that clients can knock while the kernel starts.

    ``broker`` is the relay's end of a SOCK_SEQPACKET pair that speaks ``notices/channel.py``; the relay owns and
    closes it. ``lifeline`` stays its caller's. Raises HostError when a port is taken. Main thread only: it takes
    SIGINT, SIGTERM and SIGHUP.
    """

    def __init__(
        self,
        front: FrontConnection,
        back: BackConnection,
        broker: socket.socket,
        lifeline: Lifeline,
        *,
        options: RelayOptions | None = None,
    ) -> None:
        self._options = options or RelayOptions()
        self._context = zmq.Context[channels.Socket]()
        self._front = Front(self._context, front)
        self._kernel = channels.Back(back)
        self._back = self._kernel.channels
        self._back_signer = Signer(back.key, "sha256")
        self._broker, self._lifeline = broker, lifeline
        # It reads quickly, or is in a state where waiting longer does not help. Receiving never waits.
        self._broker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        self._cells = Cells()
        self._requests = Requests()
        self._drops: tuple[str, int] = ("", 0)  # of the cell that lost an output last: how many
        weaker = (f"NOT ENFORCED, as the policy's best_effort says: {what}" for what in self._options.not_enforced)
        self._unsaid = (*weaker, *self._options.remarks)
        self._board = NoticeBoard(lambda: os.urandom(16).hex(), self._options.policy_place)
        self._cleaner = Cleaner(self._options.active_content)
        self._captures = Captures()
        self._alive = False  # the kernel has said something
        self._ending: int | None = None  # the end was asked for; exit code for it, or -1: the kernel's own
        self._end_at: float | None = None
        self._give_up_at: float | None = None  # nothing inside is left; the broker has until then to say how it ended
        self._exit_code: int | None = None
        self._signals_on_the_way = 0
        self._failed: words.Failed | None = None
        self.messages_refused = 0  # for the log and the tests
        # Beside the message itself, by its type: before it, since clients that stop listening at the end of a cell must
        # have been told everything by then; and after it, when the cell's outputs are as a page has them.
        self._before: dict[str, Callable[[Checked], None]] = {"execute_reply": self._settle}
        self._after: dict[str, Callable[[Checked], None]] = {
            "execute_reply": self._cell_answered,
            "clear_output": self._cell_cleared,
            **dict.fromkeys(rules.LISTED, self._output_listed),
        }

    def run(self) -> int:
        """Until the confined kernel has ended. Gives the exit code to pass on."""
        with Signals() as signals, Watch(self._options.parent_pid) as parent:
            handlers = self._handlers(signals, parent)
            waiting = self._waiting = Waiting(handlers)
            while self._exit_code is None:
                blocked = self._front.blocked
                # While a client has no room the kernel's output waits where it is, see channels.Outlet.
                ready = waiting.ready(self._patience(blocked), without=self._back["iopub"] if blocked else None)
                self._turn(handlers, ready, blocked)
            waiting.close()
        if self._failed is not None:
            name = _ERROR_NAMES.get(self._failed.exit_code, "Bug")
            serve(self._front, name, self._failed.message, self._options.parent_pid, self._cells.pending())
        self._close()
        return self._exit_code

    def _handlers(self, signals: Signals, parent: Watch) -> dict[Source, Callable[[], object]]:
        """In this order: what the kernel answered first, so that an event meets the cell that runs now."""
        handlers: dict[Source, Callable[[], object]] = {}
        for name in BACK_CHANNELS:
            handlers[self._back[name]] = lambda name=name: self._from_kernel(name)  # type: ignore[misc]
        handlers[self._broker.fileno()] = self._from_broker
        handlers[self._lifeline.fileno()] = self._from_warden
        handlers[signals.fileno()] = lambda: self._take_signals(signals.read())
        if parent.fileno() is not None:
            handlers[parent.fileno()] = lambda: self._end(1)  # type: ignore[index]
        for name in ("control", "shell", "stdin"):
            handlers[self._front.channels[name]] = lambda name=name: self._from_front(name)  # type: ignore[misc]
        handlers[self._front.channels["hb"]] = self._front.echo_heartbeat
        handlers[self._front.channels["iopub"]] = self._front.welcome_subscribers
        return handlers

    def _turn(
        self,
        handlers: dict[Source, Callable[[], object]],
        ready: set[Source],
        blocked: bool,
    ) -> None:
        for source, handle in handlers.items():
            if source in ready and self._exit_code is None:
                handle()
        if blocked:
            self._front.flush()
        now = time.monotonic()
        self._say(self._board.update(now))
        if self._end_at is not None and now > self._end_at:
            self._end_at = None
            self._lifeline.end()
        if self._give_up_at is not None and now > self._give_up_at and self._exit_code is None:
            self._finish(self._ending_without_broker())

    def _patience(self, blocked: bool) -> float | None:
        """Seconds until something is due without a message; None: nothing is, so nothing wakes us."""
        now = time.monotonic()
        ends = (None if at is None else at - now for at in (self._end_at, self._give_up_at))
        waits = [self._board.due(now), RETRY if blocked else None, *ends]
        due = min((wait for wait in waits if wait is not None), default=None)
        return None if due is None else max(0.0, due) + 0.001

    # --- front to kernel ---------------------------------------------------------------------------------------------

    def _from_front(self, name: str) -> None:
        channel = self._front.channels[name]
        for _ in range(BATCH):
            frames = channel.receive()
            if frames is None or self._exit_code is not None:
                return
            try:
                message = self._front.verify(frames)
                self._handle_request(name, message)
            except Unusable:
                self.messages_refused += 1
            if not channel.has_input():
                return

    def _handle_request(self, channel: str, message: Verified) -> None:
        action = rules.FROM_FRONT[channel].get(message.msg_type)
        if action is None:
            raise Unusable("of a type that does not go over this channel")
        if action == "answer":
            self._answer(channel, message)
            return
        if action == "comm" and self._is_for_us(message):
            self._front.publish("status", {"execution_state": "busy"}, message.header)
            self._front.publish("status", {"execution_state": "idle"}, message.header)
            return
        if message.msg_type == "shutdown_request":
            self._ending, self._end_at = -1, time.monotonic() + SHUTDOWN
        if channel != "stdin":
            self._requests.forwarded(_request(channel, message))
        if action == "cell":
            self._begin(channel, message)
        self._to_kernel(channel, message)

    def _is_for_us(self, message: Verified) -> bool:
        """A front end announces itself by a comm on our target, and leaves by closing it. A client that has no handler
        for the target closes the comms that it gets. The kernel knows of none of them.
        """
        content = message.content()
        comm_id = content.get("comm_id")
        if message.msg_type == "comm_open" and content.get("target_name") == COMM_TARGET:
            if isinstance(comm_id, str):
                self._board.announced(comm_id)
            return True
        closed = message.msg_type == "comm_close" and isinstance(comm_id, str) and self._board.left(comm_id)
        return closed or rules.is_ours(comm_id)

    def _to_kernel(self, channel: str, message: Verified) -> None:
        frames = messages.frames(message.identities, message.parts, message.buffers, self._back_signer)
        self._back[channel].send(frames)

    def _answer(self, channel: str, request: Verified) -> None:
        if request.msg_type == "interrupt_request":
            self._interrupt()
            content: Json = {"status": "ok"}
        elif request.msg_type == "connect_request":
            content = answers.connect(self._front.connection.ports)
        else:
            content = answers.kernel_info(self._options.versions or installed_versions(), self._options.not_enforced)
        self._front.answer(channel, request, content)

    def _begin(self, channel: str, message: Verified) -> None:
        subshell = message.header.get("subshell_id")
        name = subshell if isinstance(subshell, str) else None
        running = self._cells.running_visible()
        # Requests on control run beside those on shell, so they are a queue of their own.
        queue = name if channel == "shell" else f"control {name}"
        silent = message.content().get("silent") is True
        self._cells.forwarded(Cell(message.msg_id, message.header, tuple(message.identities), queue, silent))
        if running is None:
            self._announce()

    def _announce(self) -> None:
        """A cell begins to run, as far as we know: the broker counts afresh, and what nobody was told is told."""
        cell = self._cells.running_visible()
        if cell is not None:
            self._tell_broker(words.CellBegan(cell.msg_id))
            self._say_what_is_unsaid(cell)
            self._say(self._board.cell_began(cell.header))

    def _say_what_is_unsaid(self, cell: Cell) -> None:
        """About the start, in the first cell: few people see a kernel's banner. About a changed policy."""
        for sentence in self._unsaid:
            self._say([IopubMessage("stream", {"name": "stderr", "text": f"[sandbox] {sentence}\n"}, cell.header)])
        self._unsaid = ()

    # --- kernel to front ---------------------------------------------------------------------------------------------

    def _from_kernel(self, name: str) -> None:
        channel = self._back[name]
        end = time.monotonic() + TURN
        for _ in range(BATCH):
            if name == "iopub" and self._front.blocked:
                return
            frames = channel.receive()
            if frames is None:
                return
            self._alive = True
            try:
                message = Claimed(frames)
            except Unusable:
                self.messages_refused += 1
            else:
                self._pass_on_or_drop(name, message)
            if not channel.has_input() or time.monotonic() > end:
                return

    def _pass_on_or_drop(self, channel: str, message: Claimed) -> None:
        try:
            self._pass_on(channel, message)
        except Unusable as error:
            self._drop(channel, message, str(error))
        except Exception:  # noqa: BLE001 - whatever the sandbox provoked: that message is dropped, and we live on
            self._drop(channel, message, "of a form that is not understood")

    def _pass_on(self, channel: str, message: Claimed) -> None:
        match rules.judge(channel, message):
            case "swallow":
                pass
            case "status":
                self._pass_state(schema.state(message.content()), message.parent_id)
            case "shutdown":
                self._pass_output(self._checked(message, self._requests.shutdown()))
            case "ask":
                self._ask(message)
            case "reply" | "clean reply" as action:
                request = self._requests.waiting(channel, message.msg_type, message.parent_id)
                checked = self._checked(message, request.header, clean=action == "clean reply")
                self._pass_reply(request, checked)
            case action:
                parent = self._requests.header(message.parent_id) or schema.check_parent(message.parent)
                checked = self._checked(message, parent, clean=action != "pass")
                if action == "comm":
                    self._publish(self._captures.take(checked.msg_type, checked.content, parent))
                self._pass_output(checked)

    def _checked(self, message: Claimed, parent: Json, *, clean: bool = False) -> Checked:
        """What of a message may reach a client. Raises Unusable."""
        content = message.content()
        if rules.is_forged(content):
            raise Unusable("speaks for the supervisor")
        checked = schema.check(message.msg_type, content, parent, message.metadata(), message.buffers)
        if clean:
            rules.drop_our_mime(checked.content, message.parts[3])
            self._cleaner.clean(checked.msg_type, checked.content)
        return checked

    def _say_why(self, message: Checked) -> None:
        """An error ends with what was refused in its cell: nbclient and the logs made of it show only the traceback."""
        if isinstance(message.content.get("traceback"), list):
            line = self._board.closing(str(message.parent.get("msg_id")))
            if line:
                message.content["traceback"].append(f"\x1b[0m{line}")

    def _pass_output(self, message: Checked) -> None:
        if message.msg_type == "error":
            self._say_why(message)
        self._front.pass_output(message)
        if message.msg_type in self._after:
            self._after[message.msg_type](message)

    def _pass_reply(self, request: Request, message: Checked) -> None:
        if message.msg_type in self._before:
            self._before[message.msg_type](message)
        if message.msg_type == "execute_reply":
            self._say_why(message)
        if not request.allows_replacing:
            for item in message.content.get("payload", ()):
                item.pop("replace", None)  # then what it writes is a cell of its own, below
        self._front.pass_reply(request.channel, message, request.identities)
        is_idle = self._requests.replied(request)
        if message.msg_type in self._after:
            self._after[message.msg_type](message)
        if is_idle:
            self._publish_idle(request.header)

    def _ask(self, message: Claimed) -> None:
        """The running cell asks the user who runs it for input."""
        request = self._requests.input_for(message.parent_id)
        if all(cell.msg_id != request.msg_id for cell in self._cells.running()):
            raise Unusable("asks for input before its turn")
        self._front.pass_reply("stdin", self._checked(message, request.header), request.identities)

    def _pass_state(self, state: str, msg_id: str) -> None:
        """Said by us, so that no client with little room misses it."""
        header = self._requests.header(msg_id)
        for each in self._requests.states(state, msg_id):
            if header is not None and each == "idle":
                self._publish_idle(header)
            elif header is not None:
                self._front.publish("status", {"execution_state": each}, header)

    def _publish_idle(self, parent: Json) -> None:
        msg_id = str(parent.get("msg_id"))
        self._say(self._board.settle(msg_id))
        self._front.publish("status", {"execution_state": "idle"}, parent)
        self._cells.idle(msg_id)

    def _drop(self, channel: str, message: Claimed, reason: str) -> None:
        """Nothing of a message can be passed on: who waits for it, or would see it, is told why."""
        self.messages_refused += 1
        if message.msg_type in rules.FROM_KERNEL[channel] and message.msg_type.endswith("_reply"):
            self._reply_instead(channel, message, reason)
        elif channel == "iopub" and message.msg_type in rules.LISTED:
            header = self._requests.header(message.parent_id)
            cell, dropped = self._drops
            self._drops = (message.parent_id, dropped + 1 if cell == message.parent_id else 1)
            if header is not None and self._drops[1] <= DROPS_SHOWN:
                text = f"[sandbox] An output of this cell is not shown: {reason}.\n"
                self._front.publish("stream", {"name": "stderr", "text": text}, header)

    def _reply_instead(self, channel: str, message: Claimed, reason: str) -> None:
        try:
            request = self._requests.waiting(channel, message.msg_type, message.parent_id)
        except Unusable:
            return
        content = schema.unreadable_reply(message.msg_type, reason)
        self._pass_reply(request, schema.check(message.msg_type, content, request.header, {}, []))

    def _settle(self, message: Checked) -> None:
        self._say(self._board.settle(str(message.parent.get("msg_id"))))

    def _cell_answered(self, message: Checked) -> None:
        before = self._cells.running_visible()
        self._cells.answered(str(message.parent.get("msg_id")))
        if self._cells.running_visible() is not before:
            self._announce()

    def _cell_cleared(self, message: Checked) -> None:
        msg_id = str(message.parent.get("msg_id"))
        if not self._captures.around([msg_id])[0]:  # else a widget is cleared, not the cell
            self._cells.cleared(msg_id)
        self._say(self._board.cleared(msg_id, time.monotonic()))

    def _output_listed(self, message: Checked) -> None:
        stream = message.content["name"] if message.msg_type == "stream" else None
        cell = self._cells.listed(str(message.parent.get("msg_id")), stream)
        self._say(self._board.keep_place(cell.header) if cell else ())

    # --- broker ------------------------------------------------------------------------------------------------------

    def _from_broker(self) -> None:
        for _ in range(BATCH):
            try:
                data = self._broker.recv(words.MAX_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._finish(endings.BROKER_GONE)
                return
            self._handle_word(words.decode(data))
            if self._exit_code is not None:
                return

    def _handle_word(self, word: words.FromBroker | words.FromRelay) -> None:
        match word:
            case words.Reported():
                self._report(word)
            case words.Remark():
                self._unsaid = (*self._unsaid, word.text)
                cell = self._cells.running_visible()
                if cell is not None:
                    self._say_what_is_unsaid(cell)
            case words.Ended():
                self._finish(endings.of(os.waitstatus_to_exitcode(word.status), word.cause))
            case words.Failed():
                self._failed, self._exit_code = word, word.exit_code
            case words.Started():
                pass
            case _:
                raise Bug(f"the broker said {type(word).__name__}")

    def _report(self, word: words.Reported) -> None:
        self._options.on_event(word.event)
        cell = self._cells.attributed()
        listening = cell is not None and self._cells.is_listened_to(cell)
        self._say(
            self._board.report(
                word.event, cell.header if cell else None, is_listened_to=listening, now=time.monotonic()
            )
        )
        if word.number is not None:
            self._tell_broker(words.Published(word.number))

    def _say(self, published: Iterable[IopubMessage]) -> None:
        """What must be seen: neither given to a widget nor dropped as one output too many."""
        wanted = list(published)
        if wanted:
            before, after = self._captures.around(message.parent.get("msg_id") for message in wanted)
            self._front.reset_rate_limit()
            self._publish([*before, *wanted, *after])

    def _publish(self, published: Iterable[IopubMessage]) -> None:
        for message in published:
            self._front.publish(message.msg_type, message.content, message.parent)

    def _tell_broker(self, word: words.FromRelay) -> None:
        try:
            self._broker.send(words.encode(word))
        except OSError:
            pass  # it is gone, which the next read tells; or stuck for a second, and then it counts less well

    # --- signals and the end -----------------------------------------------------------------------------------------

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGINT:
                self._interrupt()
            elif number in (signal.SIGTERM, signal.SIGHUP):
                self._end(128 + number)

    def _interrupt(self) -> None:
        # Before its first word the kernel has not yet set SIGINT aside and would die of it (kernelapp.py, init_signal).
        if not self._alive:
            return
        # Whatever is asked for after an interrupt must not be interrupted by it.
        self._signals_on_the_way += self._lifeline.send(signal.SIGINT)
        deadline = time.monotonic() + SIGNALLED
        while self._signals_on_the_way and self._exit_code is None and (left := deadline - time.monotonic()) > 0:
            if select.select([self._lifeline], [], [], left)[0]:
                self._from_warden()

    def _end(self, exit_code: int) -> None:
        if self._ending is None or self._ending < 0:
            self._ending = exit_code
            self._lifeline.end()

    def _from_warden(self) -> None:
        passed_on = self._lifeline.passed_on()
        if passed_on is not None:
            self._signals_on_the_way = max(0, self._signals_on_the_way - passed_on)
            return
        self._signals_on_the_way = 0
        self._waiting.forget(self._lifeline.fileno())
        self._give_up_at = time.monotonic() + LAST_WORDS

    def _ending_without_broker(self) -> endings.Ending:
        """The warden knows the status, and only the broker a cause beyond it."""
        status = self._lifeline.status
        return endings.BROKER_GONE if status is None else endings.of(os.waitstatus_to_exitcode(status), "")

    def _finish(self, ending: endings.Ending) -> None:
        """The kernel is gone: pass on what it still said, tell the cells that waited for it, and go."""
        self._drain()
        if self._ending is None:
            for cell in self._cells.running():
                self._say(self._board.settle(cell.msg_id))
            heads = {cell.msg_id for cell in self._cells.running()}
            for cell in self._cells.pending():
                self._explain(cell, ending, ran=cell.msg_id in heads)
        asked = self._ending is not None and self._ending >= 0
        self._exit_code = self._ending if asked else ending.exit_code

    def _explain(self, cell: Cell, ending: endings.Ending, *, ran: bool) -> None:
        if ran:
            self._say([IopubMessage("error", endings.error(ending), cell.header)])
        content = endings.reply(ending) if ran else {"status": "aborted"}
        self._front.reply(cell.channel, "execute_reply", content, cell.identities, cell.header)
        self._front.publish("status", {"execution_state": "idle"}, cell.header)

    def _drain(self) -> None:
        """Until every back socket has seen the kernel's end of file and is read empty, or ``DRAIN`` is over."""
        deadline = time.monotonic() + DRAIN
        last = False
        while not last and time.monotonic() < deadline:
            last = self._kernel.ended()  # asked first: then one more round gets all there is
            for name in BACK_CHANNELS:
                while self._back[name].has_input() and time.monotonic() < deadline:
                    self._from_kernel(name)
                    if self._front.blocked:
                        time.sleep(RETRY)
                        self._front.flush()
            if not last:
                time.sleep(RETRY)

    def _close(self) -> None:
        self._broker.close()
        self._kernel.close()
        self._front.close()
        self._context.term()


def _request(channel: str, message: Verified) -> Request:
    """Raises Unusable for a cell without code, which ipykernel drops."""
    request = Request(message.msg_id, message.msg_type, channel, message.header, tuple(message.identities))
    if message.msg_type == "execute_request":
        code = message.content().get("code")
        if not isinstance(code, str):
            raise Unusable("a cell without code")
        request.allows_input = message.content().get("allow_stdin") is True
        request.allows_replacing = schema.asks_to_replace(code)
    return request
