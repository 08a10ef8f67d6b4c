"""The figures, in the order in which they are printed. docs/performance.md says what each means and why it is so."""

from __future__ import annotations

from benchmarks import (
    checked,
    connect,
    crowd,
    established,
    files,
    hanging,
    idle,
    launch,
    memory,
    names,
    outputs,
    round_trip,
    start_up,
    threads,
)
from benchmarks.model import Compare, Figure, Metric

_KERNELS = ("plain", "ours", "bwrap")
_COMMANDS = ("plain", "ours", "bwrap", "sandlock")
_ADDED, _NONE = Compare.ADDED, Compare.NONE


def _p50_p99(name: str, unit: str, compare: Compare = Compare.RATIO, goal: str = "") -> tuple[Metric, Metric]:
    return Metric(f"{name}_p50", unit, compare, goal), Metric(f"{name}_p99", unit, compare)


FIGURES = (
    Figure(
        "start",
        "start_kernel() to the first replies",
        start_up.measure,
        (Metric("kernel_info", "ms"), Metric("execute", "ms", goal="<= 0.80x")),
        15,
        _KERNELS,
    ),
    Figure(
        "memory",
        "PSS after the first cell",
        memory.measure,
        (
            Metric("all", "MB", goal="<= 1.05x, then 1.00x"),
            Metric("launcher", "MB", _NONE),
            Metric("broker", "MB", _NONE),
            Metric("kernel", "MB"),
        ),
        5,
        _KERNELS,
    ),
    Figure(
        "round-trip",
        "execute_request of `pass` to its reply",
        round_trip.measure,
        (Metric("p50", "us", goal="<= 1.10x"), Metric("p99", "us")),
        7,
        _KERNELS,
    ),
    Figure(
        "outputs",
        "100,000 printed lines; 5,000 display(); 100 MB of text; a 100 MB binary buffer of a comm",
        outputs.measure,
        (Metric("print", "ms"), Metric("displays", "ms"), Metric("text", "ms"), Metric("buffer", "ms")),
        3,
        _KERNELS,
    ),
    Figure(
        "connect",
        "connect() to an allowed, a refused and an own port; socket() + close()",
        connect.measure,
        (
            *_p50_p99("allowed", "us", _ADDED, "<= +25 us"),
            *_p50_p99("refused", "us", _ADDED, "<= +100 us"),
            *_p50_p99("own", "us", _ADDED),
            *_p50_p99("socket", "us", _ADDED),
        ),
        9,
        _COMMANDS,
    ),
    Figure(
        "threads",
        "16 threads that connect",
        threads.measure,
        (Metric("rate", "/s", goal=">= 0.8x"),),
        9,
        _COMMANDS,
    ),
    Figure(
        "names",
        "getaddrinfo() of an allowed name",
        names.measure,
        _p50_p99("lookup", "us", _NONE),
        5,
        ("ours",),
    ),
    Figure(
        "checked",
        "TLS to a server whose name is checked in the greeting, and to one whose name is not",
        checked.measure,
        (
            *_p50_p99("connect_free", "us", _NONE),
            *_p50_p99("connect_checked", "us", _NONE),
            *_p50_p99("request_free", "us", _NONE),
            *_p50_p99("request_checked", "us", _NONE),
            Metric("download_free", "MB/s", _NONE),
            Metric("download_checked", "MB/s", _NONE),
        ),
        5,
        ("ours",),
    ),
    Figure(
        "established",
        "a connection that stands: 64 KiB blocks; one byte there and back",
        established.measure,
        (Metric("throughput", "MB/s", goal="1.00x"), *_p50_p99("ping_pong", "us", goal="1.00x")),
        9,
        _COMMANDS,
    ),
    Figure(
        "files",
        "open + close, stat, open + read, chmod; fork + exec of /bin/true",
        files.measure,
        (
            *_p50_p99("open", "us", goal="<= 1.3x"),
            *_p50_p99("stat", "us", goal="<= 1.3x"),
            *_p50_p99("read", "us"),
            *_p50_p99("chmod", "us", _ADDED),
            *_p50_p99("fork_exec", "us"),
        ),
        7,
        _COMMANDS,
    ),
    Figure(
        "launch",
        "python -c pass as a command",
        launch.measure,
        (Metric("python", "ms", _ADDED),),
        15,
        _COMMANDS,
    ),
    Figure(
        "idle",
        "15 seconds in which nothing happens",
        idle.measure,
        (
            Metric("launcher_wake_ups", "", _NONE, "0"),
            Metric("launcher_cpu", "ms", _NONE, "0"),
            Metric("broker_wake_ups", "", _NONE, "0"),
            Metric("broker_cpu", "ms", _NONE, "0"),
            Metric("kernel_wake_ups", ""),
            Metric("kernel_cpu", "ms"),
        ),
        2,
        _KERNELS,
    ),
    Figure(
        "crowd",
        "20 kernels at once, until the last has run a cell",
        crowd.measure,
        (Metric("ready", "ms", goal="<= 0.8x"),),
        3,
        _KERNELS,
    ),
    Figure(
        "hanging",
        "1,000 connects that hang: the broker's memory, and another connect meanwhile",
        hanging.measure,
        (
            *_p50_p99("meanwhile", "us", _ADDED, "< +10,000 us"),
            Metric("pss_alone", "MB", _NONE),
            Metric("pss_hanging", "MB", _NONE),
            Metric("rss_alone", "MB", _NONE),
            Metric("rss_hanging", "MB", _NONE),
        ),
        3,
        ("plain", "ours"),
    ),
)
