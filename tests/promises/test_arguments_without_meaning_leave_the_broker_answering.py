"""Calls with random arguments, from several threads: the broker lives on and answers, and no connection was made."""

from __future__ import annotations

from pathlib import Path

from tests.support.living import Living
from tests.support.servers import TcpListener

CALLS = 20_000

# What the broker is asked about, as x86_64 and aarch64 number it. No call that makes or signals processes.
FUZZ = """
import ctypes, os, platform, random, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
x86 = {"socket": 41, "connect": 42, "sendto": 44, "bind": 49, "listen": 50, "chmod": 90, "fchmod": 91, "fchown": 93,
       "setxattr": 188, "fsetxattr": 190, "fchmodat": 268, "utimensat": 280, "prlimit64": 302, "sched_setattr": 314}
arm = {"socket": 198, "connect": 203, "sendto": 206, "bind": 200, "listen": 201, "fchmod": 52, "fchown": 55,
       "setxattr": 5, "fsetxattr": 7, "fchmodat": 53, "utimensat": 88, "prlimit64": 261, "sched_setattr": 274}
numbers = list((x86 if platform.machine() == "x86_64" else arm).values())
page = ctypes.create_string_buffer(4096)
where = ctypes.addressof(page)
def work(seed):
    r = random.Random(seed)
    held = [socket.socket() for _ in range(4)] + [socket.socket(socket.AF_UNIX), socket.socket(2, socket.SOCK_DGRAM)]
    for s in held: s.setblocking(False)
    odd = [0, 1, 2, 10, 16, 28, 110, 128, 4095, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, where]
    for _ in range(CALLS // 4):
        page[:64] = r.randbytes(64)
        if r.random() < 0.5: page[:2] = r.choice((b"\\\\x02\\\\0", b"\\\\x0a\\\\0", b"\\\\x01\\\\0", b"\\\\0\\\\0"))
        args = [r.choice((r.choice(odd), r.getrandbits(64), where + r.randrange(64))) for _ in range(6)]
        if r.random() < 0.7: args[0] = r.choice(held).fileno()
        number = r.choice(numbers)
        made = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, args))
        if number == numbers[0] and made > 2: os.close(made)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for t in threads: t.start()
for t in threads: t.join()
with socket.create_connection(ALLOWED, 5) as s: print(s.recv(5).decode(), flush=True)
print(socket.socket().connect_ex(REFUSED), flush=True)
"""


def test_arguments_without_meaning_leave_the_broker_answering(workspace: Path) -> None:
    with TcpListener() as allowed, TcpListener() as refused:
        code = FUZZ.replace("CALLS", str(CALLS)).replace("\\\\x", "\\x").replace("\\\\0", "\\0")
        code = code.replace("ALLOWED", repr((allowed.address, allowed.port))).replace(
            "REFUSED", repr((refused.address, refused.port))
        )
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{allowed.endpoint}"]') as program:
            assert program.line(60) == "hello"
            assert program.line() == "13"  # EACCES
            assert program.wait() == 0
            assert "BUG" not in program.errors()
        assert refused.received() == []
