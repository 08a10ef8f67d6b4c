"""x32 and i386 system call numbers, which name the same calls by other numbers, end the program before they connect."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.sandbox import compile_c, run_command_inside
from tests.support.servers import TcpListener

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="only this machine has three sets of numbers")

# Each prints what it got before it uses it. Exit code 0: connected.
X32 = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>
#include <sys/syscall.h>

#define X32 0x40000000
int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    puts("begun");
    fflush(stdout);
    long fd = syscall(X32 + SYS_socket, AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return errno == ENOSYS ? 38 : 1;
    return syscall(X32 + SYS_connect, fd, &to, sizeof to) != 0;
}
"""

# socketcall(2) is i386's: one call for all of them, its arguments in memory below 4 GiB. 359 and 362 are the newer
# numbers of socket and connect.
I386 = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static long call(long number, long one, long two, long three)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(one), "c"(two), "d"(three)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

int main(int argc, char **argv)
{
    unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    struct sockaddr_in *to = (struct sockaddr_in *)(low + 8);
    to->sin_family = AF_INET;
    to->sin_port = htons(atoi(argv[1]));
    to->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    puts("begun");
    fflush(stdout);
    long fd;
    if (argv[2][0] == 'm') {
        low[0] = AF_INET, low[1] = SOCK_STREAM, low[2] = 0;
        fd = call(102, 1, (long)low, 0);
        if (fd < 0)
            return fd == -38 ? 38 : 1;
        low[0] = fd, low[1] = (unsigned)(long)to, low[2] = sizeof *to;
        return call(102, 3, (long)low, 0) != 0;
    }
    fd = call(359, AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return fd == -38 ? 38 : 1;
    return call(362, fd, (long)to, sizeof *to) != 0;
}
"""
LACKING = (38, -signal.SIGSEGV)  # ENOSYS; or no 32-bit entry at all (CONFIG_IA32_EMULATION)


@pytest.mark.parametrize(
    ("source", "form"),
    [(X32, "x32"), (I386, "multiplexed"), (I386, "separate")],
    ids=["x32", "i386-socketcall", "i386-socket"],
)
def test_old_system_call_numbers_end_the_program(source: str, form: str, workspace: Path) -> None:
    attack = compile_c(source, workspace)
    with TcpListener() as wanted, TcpListener() as other:
        outside = subprocess.run([attack, str(other.port), form], capture_output=True, text=True)
        assert outside.stdout == "begun\n"
        assert (outside.returncode, len(other.received())) == (0, 1) or outside.returncode in LACKING

        before = len(other.received())
        policy = f'[network]\nallow = ["{wanted.endpoint}"]'
        for server in (other, wanted):  # not even where it would be allowed: nobody judges these numbers
            result = run_command_inside([attack, str(server.port), form], workspace=workspace, policy=policy)
            assert result.stdout == "begun\n"
            # As a shell has it: 128 + the signal. A Linux without 32-bit entries faults before any filter.
            faulted = outside.returncode == -signal.SIGSEGV
            assert result.returncode == 128 + (signal.SIGSEGV if faulted else signal.SIGSYS), result.stderr
        assert len(other.received()) == before
        assert not wanted.received()
