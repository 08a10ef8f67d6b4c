"""Whoever waits for channels hears of every message, and sleeps when there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from sandboxed_kernel.relay.channels import LARGE, BackChannel, Channel, Waiting
from sandboxed_kernel.relay.messages import Frame
from sandboxed_kernel.relay.zmtp import GREETING, ready

DEADLINE = 10.0
MOMENT = 0.05  # seconds in which libzmq's own thread has certainly passed a message on


@contextmanager
def channels(count: int) -> Iterator[list[tuple[Channel, Channel]]]:
    """Pairs of channels that are connected, as the relay's with the kernel."""
    context = zmq.Context[zmq.Socket[bytes]]()
    pairs = []
    for _ in range(count):
        ours, theirs = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        ours.linger = theirs.linger = 0
        theirs.connect(f"tcp://127.0.0.1:{ours.bind_to_random_port('tcp://127.0.0.1')}")
        pairs.append((Channel(ours), Channel(theirs)))
    try:
        yield pairs
    finally:
        for pair in pairs:
            for channel in pair:
                channel.socket.close()
        context.term()


def emptied(channel: Channel) -> list[list[Frame]]:
    found = []
    while (frames := channel.receive()) is not None:
        found.append(frames)
    return found


def until_quiet(waiting: Waiting) -> None:
    """Connecting is something that happens to a socket, too: its descriptor tells of it until the socket is used."""
    while ready := waiting.ready(MOMENT):
        for channel in ready:
            assert isinstance(channel, Channel)
            assert channel.receive() is None


@pytest.mark.parametrize("use", ["send", "receive", "has_input"])
def test_what_comes_while_a_channel_is_used_is_heard(use: str) -> None:
    """libzmq then takes the descriptor's word, and says no more."""
    with channels(1) as [(ours, theirs)]:
        waiting = Waiting([ours])
        for number in range(10):
            until_quiet(waiting)
            theirs.send([b"%d" % number])
            time.sleep(0.01)
            if use == "receive":
                ours.receive()
                theirs.send([b"another"])
                time.sleep(0.01)
                ours.receive()  # with which libzmq may have taken note of the other
                theirs.send([b"%d" % number])
                time.sleep(0.01)
            elif use == "send":
                ours.send([b"x"])
            else:
                assert ours.has_input()
            assert waiting.ready(DEADLINE) == {ours}
            assert emptied(ours)[-1] == [b"%d" % number]
        waiting.close()


def test_a_message_left_lying_is_heard_of_again() -> None:
    with channels(3) as pairs:
        waiting = Waiting(ours for ours, _ in pairs)
        ours, theirs = pairs[1]
        theirs.send([b"first"])
        theirs.send([b"second"])
        time.sleep(MOMENT)
        assert ours in waiting.ready(DEADLINE)
        for other, _ in (pairs[0], pairs[2]):
            assert other.receive() is None
        assert ours.receive() == [b"first"]
        assert waiting.ready(DEADLINE) == {ours}
        assert waiting.ready(DEADLINE) == {ours}
        assert emptied(ours) == [[b"second"]]
        waiting.close()


def test_nobody_wakes_for_a_channel_that_is_left_out_and_it_is_heard_of_afterwards() -> None:
    with channels(2) as [(left_out, theirs), (other, _)]:
        waiting = Waiting([left_out, other])
        until_quiet(waiting)
        for number in range(3):
            theirs.send([b"%d" % number])
            time.sleep(MOMENT)
            waiting.ready(0, without=left_out)
        begin = time.monotonic()
        assert waiting.ready(MOMENT, without=left_out) == set()
        assert time.monotonic() - begin >= MOMENT
        assert waiting.ready(0) == {left_out}
        assert emptied(left_out) == [[b"0"], [b"1"], [b"2"]]
        waiting.close()


def test_it_sleeps_when_nothing_comes() -> None:
    with channels(4) as pairs:
        waiting = Waiting(ours for ours, _ in pairs)
        until_quiet(waiting)
        begin = time.monotonic()
        assert waiting.ready(MOMENT) == set()
        assert time.monotonic() - begin >= MOMENT
        waiting.close()


def test_descriptors_are_heard_beside_channels() -> None:
    reading, writing = os.pipe()
    with channels(1) as [(ours, theirs)]:
        waiting = Waiting([ours, reading])
        until_quiet(waiting)
        os.write(writing, b"x")
        assert waiting.ready(DEADLINE) == {reading}
        theirs.send([b"y"])
        time.sleep(MOMENT)
        assert waiting.ready(DEADLINE) == {ours, reading}
        waiting.close()
    os.close(reading)
    os.close(writing)


def test_frames_of_every_size_arrive() -> None:
    frames: list[Frame] = [b"", b"small", b"x" * (LARGE - 1), b"y" * LARGE, memoryview(b"z" * (LARGE + 1)), b"end"]
    with channels(1) as [(ours, theirs)]:
        assert theirs.send(frames)
        waiting = Waiting([ours])
        while (got := ours.receive()) is None:
            waiting.ready(DEADLINE)
        assert [bytes(frame) for frame in got] == [bytes(frame) for frame in frames]
        assert not ours.has_input()
        waiting.close()


def test_what_has_no_room_is_not_taken() -> None:
    context = zmq.Context[zmq.Socket[bytes]]()
    channel = Channel(context.socket(zmq.PUSH))  # with nobody to send to
    assert not channel.send([b"a", b"b"])
    channel.socket.close()
    context.term()


# --- connections to the kernel, whose libzmq is the judge ------------------------------------------------------------


@contextmanager
def back_channel(
    folder: Path, kind: int, socket_type: str, limit: int = 1 << 30
) -> Iterator[tuple[BackChannel, Channel]]:
    """The relay's end, and a listening socket of libzmq's as ipykernel has it."""
    context = zmq.Context[zmq.Socket[bytes]]()
    listening = context.socket(kind)
    listening.linger = 0
    listening.bind(f"ipc://{folder}/s")
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(f"{folder}/s")
    ours = BackChannel(connected, socket_type, b"relay", limit)
    try:
        yield ours, Channel(listening)
    finally:
        ours.close()
        listening.close()
        context.term()


def next_of(channel: Channel | BackChannel, waiting: Waiting) -> list[bytes]:
    end = time.monotonic() + DEADLINE
    while (frames := channel.receive()) is None:
        assert time.monotonic() < end
        for other in waiting.ready(0.01):
            if other is not channel and not isinstance(other, int):
                assert other.receive() is None  # the handshake
    return [bytes(frame) for frame in frames]


def test_libzmq_and_the_relay_understand_each_other(tmp_path: Path) -> None:
    sizes = [0, 1, 255, 256, 65535, 65536, 3_000_000]
    frames: list[Frame] = [b"x" * size for size in sizes]
    with back_channel(tmp_path, zmq.ROUTER, "DEALER") as (ours, theirs):
        waiting = Waiting([ours])
        for _ in range(3):
            ours.send(frames)  # the first time before there is any handshake
        for _ in range(3):
            assert next_of(theirs, waiting) == [b"relay", *frames]
        for _ in range(3):
            theirs.send([b"relay", *frames])
        for _ in range(3):
            assert next_of(ours, waiting) == frames
        waiting.close()


def test_the_relay_subscribes_to_all_output(tmp_path: Path) -> None:
    with back_channel(tmp_path, zmq.XPUB, "SUB") as (ours, theirs):
        waiting = Waiting([ours])
        assert next_of(theirs, waiting) == [b"\x01"]
        for number in range(5000):
            theirs.send([b"topic", b"%d" % number])
            if number % 500 == 499:  # within its high-water mark
                for each in range(number - 499, number + 1):
                    assert next_of(ours, waiting) == [b"topic", b"%d" % each]
        waiting.close()


def test_nobody_wakes_for_a_connection_that_is_left_out_or_ended(tmp_path: Path) -> None:
    with back_channel(tmp_path, zmq.XPUB, "SUB") as (ours, theirs):
        waiting = Waiting([ours])
        next_of(theirs, waiting)
        theirs.send([b"x"])
        time.sleep(MOMENT)
        waiting.ready(0, without=ours)
        assert waiting.ready(MOMENT, without=ours) == set()
        assert waiting.ready(DEADLINE) == {ours}
        assert next_of(ours, waiting) == [b"x"]
        theirs.socket.close()
        end = time.monotonic() + DEADLINE
        while not ours.ended and time.monotonic() < end:
            waiting.ready(0.01)
            ours.receive()
        assert waiting.ready(MOMENT) == set()
        waiting.close()


def test_a_kernel_that_reads_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """What is for it is kept, and sent when it reads."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/s")
    listener.listen()
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(f"{tmp_path}/s")
    ours = BackChannel(connected, "DEALER", b"", 1000)
    peer, _ = listener.accept()
    peer.send(GREETING + ready("ROUTER"))
    waiting = Waiting([ours])
    while ours._handshake is not None:
        waiting.ready(DEADLINE)
        ours.receive()
    for _ in range(100):
        ours.send([b"x" * 100_000])
    kept = ours.wants_to_send
    got = 0
    while got < 100 * 100_000:
        got += len(peer.recv(1 << 20))
        waiting.ready(0)
    assert (kept, ours.wants_to_send) == (True, False)
    for each in (ours, peer, listener, waiting):
        each.close()
