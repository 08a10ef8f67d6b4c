"""Does: the launcher's side for a command without Jupyter: prints notices, passes signals on, ends with the command."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.notices import channel, render
from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.relay.lifeline import LAST_WORDS, Lifeline

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class PlainRelay:
    def __init__(self, broker: socket.socket, lifeline: Lifeline, place: Place) -> None:
        self._place = place
        self._broker, self._lifeline = broker, lifeline
        self._told: dict[tuple[str, str, str | None, int | None], int] = {}

    def run(self) -> int:
        """Until the command has ended: its exit code, 128 + the signal's number as a shell has it. Raises HostError."""
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writable)  # first: a signal that is caught and not written down would be lost
        for number in _FORWARDED:
            signal.signal(number, lambda _number, _frame: None)
        poll = select.poll()
        poll.register(readable, select.POLLIN)
        poll.register(self._broker, select.POLLIN)
        poll.register(self._lifeline, select.POLLIN)
        give_up_at: float | None = None  # nothing inside is left; the broker has until then to say how it ended
        while give_up_at is None or time.monotonic() < give_up_at:
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic()) * 1000
            for descriptor, _events in poll.poll(left):
                if descriptor == readable:
                    for byte in os.read(readable, 256):
                        if byte in _FORWARDED:
                            self._lifeline.send(byte)
                elif descriptor == self._lifeline.fileno():
                    if self._lifeline.passed_on() is None:
                        poll.unregister(self._lifeline)
                        give_up_at = time.monotonic() + LAST_WORDS
                else:
                    data = self._broker.recv(channel.MAX_BYTES)
                    code = self._hear(channel.decode(data)) if data else _broker_gone()
                    if code is not None:
                        return code
        return _broker_gone() if self._lifeline.status is None else _exit_code(self._lifeline.status)

    def _hear(self, message: channel.FromBroker | channel.FromRelay) -> int | None:
        match message:
            case channel.Reported(event, number):
                if event.destination not in self._told:  # counts that grow are in the audit log
                    self._told[event.destination] = event.count
                    _say(render.text(event, place=self._place))
                if number is not None:
                    with suppress(OSError):
                        self._broker.send(channel.encode(channel.Published(number)))
            case channel.Remark(sentence):
                _say(f"[sandbox] {sentence}")
            case channel.Ended(status, cause):
                if cause:
                    _say(f"sandboxed-kernel: ended: {cause}")
                return _exit_code(status)
            case channel.Failed(text):
                raise HostError(text)
        return None


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _broker_gone() -> int:
    _say("sandboxed-kernel: the broker is gone; everything inside was ended")
    return 128 + signal.SIGKILL


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
