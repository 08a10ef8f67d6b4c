"""However many descriptors, processes and names the sandbox has, the calls of others are answered meanwhile."""

from __future__ import annotations

from pathlib import Path

from tests.support.attempts import TOOLS
from tests.support.sandbox import run_inside, run_outside

# Another process makes sockets all the time, and says how long the longest call took.
OTHER = f"""
{TOOLS}
import resource, signal, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
hard = min(hard, 20_000)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
reading, writing = os.pipe()
other = os.fork()
if other == 0:
    longest, end = 0.0, time.monotonic() + 50
    os.close(reading)
    while not os.path.exists("done") and time.monotonic() < end:
        begin = time.monotonic()
        socket.socket().close()
        longest = max(longest, time.monotonic() - begin)
        time.sleep(0.002)
    os.write(writing, json.dumps(longest).encode())
    os._exit(0)
os.close(writing)
def longest():
    open("done", "w").close()
    value = json.loads(os.read(reading, 100))
    os.unlink("done")
    return value
"""

DESCRIPTORS = f"""
{OTHER}
null = os.open("/dev/null", os.O_RDONLY)
for _ in range(hard - 50):
    os.dup(null)
children = []
for _ in range(39):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    children.append(child)
listener = socket.create_server(("127.0.0.1", 0))
def bind(_):
    with socket.socket() as s:
        s.bind(listener.getsockname())
came = {{outcome(bind, b"") for _ in range(5)}}
took = longest()
for child in children:
    os.kill(child, signal.SIGKILL)
print(json.dumps([sorted(came), took]))
"""

NAMES = f"""
{OTHER}
def bind(index):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.bind(f"\\0sandboxed-kernel-{{os.getpid()}}-{{index}}")
        s.listen()
    except OSError:
        s.close()
        raise
    return s
made, came = [], []
for index in range(6000):
    try:
        made.append(bind(index))
    except OSError as error:
        came.append(errno.errorcode[error.errno])
took, number = longest(), len(made)
for s in made:
    s.close()
time.sleep(1.1)
print(json.dumps([number, sorted(set(came)), outcome(lambda _: bind(0).close(), b""), took]))
"""

LONGEST = 3.0  # seconds, on a busy machine; it took 6 to 40 where each descriptor or name was looked at


def test_the_number_of_descriptors(workspace: Path) -> None:
    assert run_outside(DESCRIPTORS, workspace=workspace).json()[0] == ["EADDRINUSE"]
    came, longest = run_inside(DESCRIPTORS, workspace=workspace).json()
    assert came == ["EADDRINUSE"]
    assert longest < LONGEST


def test_the_number_of_names(workspace: Path) -> None:
    """A quota: 4,096 names of living sockets."""
    assert run_outside(NAMES, workspace=workspace).json()[:3] == [6000, [], "None"]
    number, came, again, longest = run_inside(NAMES, workspace=workspace).json()
    assert (number, came, again) == (4096, ["ENOBUFS"], "None")
    assert longest < LONGEST
