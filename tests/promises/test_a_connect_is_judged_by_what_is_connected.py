"""Threads that rewrite the address, its length and the descriptor while a connect is judged move it nowhere else.

The broker copies the address once, connects its own reference to its own copy, and never looks again. Two listeners:
one is allowed, the other is not; the same racing program reaches both outside, and only the allowed one inside.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.support.sandbox import compile_c, run_command_inside, run_outside
from tests.support.servers import TcpListener

# argv: allowed port, forbidden port, how many connects, what is flipped. Prints how many went to each port, as the
# connected sockets themselves say (getpeername), so that a connection which the listener never accepted counts too.
RACER = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile union { struct sockaddr_in in; unsigned char bytes[128]; } to;
static volatile int going = 1, slot = 500, spare, mine;
static unsigned short allowed, forbidden;
static unsigned elsewhere = 0x7f000002;

static void *flip_port(void *unused)
{
    while (going)
        to.in.sin_port = forbidden, to.in.sin_port = allowed;
    return 0;
}

static void *flip_address(void *unused)
{
    while (going)
        to.in.sin_addr.s_addr = htonl(elsewhere), to.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return 0;
}

static void *flip_family(void *unused)
{
    while (going)
        to.in.sin_family = AF_UNSPEC, to.in.sin_family = AF_INET;
    return 0;
}

/* The number means the caller's socket, then an allowed and connected one, a pipe, nothing, another fresh socket. */
static void *flip_descriptor(void *unused)
{
    int pipes[2];
    if (pipe(pipes)) return 0;
    while (going) {
        dup2(spare, slot);
        dup2(mine, slot);
        dup2(pipes[0], slot);
        dup2(mine, slot);
        close(slot);
        dup2(mine, slot);
    }
    return 0;
}

static void count(int fd, int counts[3])
{
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) || peer.sin_family != AF_INET) return;
    if (peer.sin_port == allowed && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK)) counts[0]++;
    else if (peer.sin_port == forbidden || peer.sin_addr.s_addr == htonl(elsewhere)) counts[1]++;
    else counts[2]++;
}

int main(int argc, char **argv)
{
    int counts[3] = {0}, connects = atoi(argv[3]), tries = 0, refused = 0;
    pthread_t threads[2];
    void *(*flips[])(void *) = {flip_port, flip_address, flip_family, flip_descriptor};
    int which = atoi(argv[4]);
    if (which == 2) refused = 1;  /* no family is refused with EACCES */
    allowed = htons(atoi(argv[1]));
    forbidden = htons(atoi(argv[2]));
    to.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = allowed};
    to.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    spare = socket(AF_INET, SOCK_STREAM, 0);
    if (which == 3 && connect(spare, (struct sockaddr *)&to, 16)) perror("spare");
    pthread_create(threads, 0, flips[which], 0);
    if (which == 3) pthread_create(threads + 1, 0, flip_port, 0);
    /* On a busy machine the flipping threads may rest for long in one place: then more tries, until both were met. */
    for (; tries < connects || ((counts[0] < 5 || !refused) && tries < 50 * connects); tries++) {
        struct linger at_once = {1, 0};  /* no TIME_WAIT: the machine has only so many ports */
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), old = mine;
        mine = fd;
        if (which == 3) close(old);
        if (connect(which == 3 ? slot : fd, (struct sockaddr *)&to, 16 + tries % 3) && errno == EACCES) refused++;
        count(fd, counts);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        if (which != 3) close(fd);
        if (argc > 5 && counts[0] && counts[1]) break;
    }
    going = 0;
    pthread_join(threads[0], 0);
    if (which == 3) pthread_join(threads[1], 0);
    printf("[%d, %d, %d]\n", counts[0], counts[1], counts[2]);
}
"""
CONNECTS = {"port": 4000, "address": 3000, "family": 1000, "descriptor": 2000}  # 10,000


class Counter:
    """Accepts and lets go: thousands of connections, of which only the number matters."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port, self.count = int(self.sock.getsockname()[1]), 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self.sock.accept()[0].close()
                self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.sock.close()


@pytest.fixture
def racer(workspace: Path) -> Path:
    return compile_c(RACER, workspace, "-pthread", name="racer")


@pytest.mark.parametrize("flipped", CONNECTS)
def test_a_connect_is_judged_by_what_is_connected(flipped: str, racer: Path, workspace: Path) -> None:
    with Counter() as wanted, TcpListener() as other, TcpListener("127.0.0.2", wanted.port) as namesake:
        arguments = [str(wanted.port), str(other.port)]
        which = str(list(CONNECTS).index(flipped))
        if flipped in ("port", "address"):
            # The same program reaches both listeners where nobody looks.
            code = f"import os; os.execv('./racer', ['racer', *{arguments!r}, '200000', {which!r}, 'until both'])"
            counts = run_outside(code, workspace=workspace).json()
            assert counts[0] > 0
            assert counts[1] > 0
            assert other.received() if flipped == "port" else namesake.received()

        before = len(other.received()), len(namesake.received()), wanted.count
        result = run_command_inside(
            ["./racer", *arguments, str(CONNECTS[flipped]), which],
            workspace=workspace,
            policy=f'[network]\nallow = ["127.0.0.1:{wanted.port}"]',
        )
        to_wanted, to_other, to_neither = result.json()
        assert (len(other.received()), len(namesake.received())) == before[:2], result.stdout
        assert (to_other, to_neither) == (0, 0)
        if flipped != "family":
            assert result.refused(kind="connect")  # so the race did hit the forbidden one
        assert to_wanted > 0
        assert wanted.count > before[2]
