"""io_uring makes sockets, connects and sends from Linux's own threads, past every filter: it does not exist inside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.sandbox import IN_CONTAINER, compile_c, run_command_inside
from tests.support.servers import TcpListener

# argv: port, "socket" (IORING_OP_SOCKET, Linux 5.19) or "connect" (IORING_OP_CONNECT on a socket by socket(2)).
URING = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct io_uring_params params;
static int ring;
static char *queue;
static struct io_uring_sqe *entries;

static int submit(struct io_uring_sqe entry)
{
    unsigned *tail = (unsigned *)(queue + params.sq_off.tail), mask = *(unsigned *)(queue + params.sq_off.ring_mask);
    entries[*tail & mask] = entry;
    ((unsigned *)(queue + params.sq_off.array))[*tail & mask] = *tail & mask;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
        return -errno;
    unsigned *head = (unsigned *)(queue + params.cq_off.head);
    struct io_uring_cqe *done = (struct io_uring_cqe *)(queue + params.cq_off.cqes);
    int result = done[*head & *(unsigned *)(queue + params.cq_off.ring_mask)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ring = syscall(SYS_io_uring_setup, 4, &params);
    printf("setup %d\n", ring < 0 ? errno : 0);
    if (ring < 0)
        return 1;
    queue = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    entries = mmap(0, 4 * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    int fd;
    if (!strcmp(argv[2], "socket"))
        fd = submit((struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM});
    else
        fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return 2;
    return submit((struct io_uring_sqe){
        .opcode = IORING_OP_CONNECT, .fd = fd, .addr = (unsigned long)&to, .off = sizeof to}) ? 3 : 0;
}
"""
ENOSYS, EPERM = 38, 1


@pytest.mark.parametrize("way", ["socket", "connect"])
def test_io_uring_opens_no_connection(way: str, workspace: Path) -> None:
    attack = compile_c(URING, workspace)
    with TcpListener() as wanted, TcpListener() as other:
        outside = subprocess.run([attack, str(other.port), way], capture_output=True, text=True)
        refused_outside = outside.stdout in (f"setup {ENOSYS}\n", f"setup {EPERM}\n")
        worked = (outside.returncode, len(other.received())) == (0, 1)
        # Docker's profile refuses it, and so do machines with kernel.io_uring_disabled; then nothing can work inside.
        assert worked or (refused_outside and (IN_CONTAINER or _switched_off())), outside

        before = len(other.received())
        policy = f'[network]\nallow = ["{wanted.endpoint}"]'
        for server in (other, wanted):
            result = run_command_inside([attack, str(server.port), way], workspace=workspace, policy=policy)
            assert (result.returncode, result.stdout) == (1, f"setup {ENOSYS}\n")
        assert len(other.received()) == before
        assert not wanted.received()


def _switched_off() -> bool:
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    return switch.exists() and int(switch.read_text()) >= (1 if os.geteuid() else 2)
