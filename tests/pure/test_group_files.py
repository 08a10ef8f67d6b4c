"""What is written into a control group for a policy's limits."""

from __future__ import annotations

from sandboxed_kernel.confinement.group_files import group_files, most_tasks
from sandboxed_kernel.policy.model import Limits


def test_no_limit_asks_for_no_group() -> None:
    assert group_files(Limits(open_files=64, cpu_seconds=1, file_size=1)) == ()


def test_memory_without_swap_and_as_one() -> None:
    files = group_files(Limits(memory=1 << 30))
    assert {file.controller for file in files} == {"memory"}
    values = {"memory.max": "1073741824", "memory.swap.max": "0", "memory.oom.group": "1"}
    assert {file.name: file.value for file in files} == values
    assert [file.name for file in files if file.optional] == ["memory.swap.max"]  # Linux without swap has no such file


def test_threads_have_room_beside_the_processes_that_the_policy_counts() -> None:
    (file,) = group_files(Limits(processes=100))
    assert (file.controller, file.name, file.value) == ("pids", "pids.max", "3200")
    assert [most_tasks(number) for number in (1, 32, 33, 200)] == [1024, 1024, 1056, 6400]
