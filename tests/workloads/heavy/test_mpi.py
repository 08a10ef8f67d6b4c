"""MPI: processes that look for shared memory of System V, and for each other's memory, and go on without.

Not in the container: what its profile refuses the processes of a plain kernel fail for, too.
"""

from __future__ import annotations

import pytest

from tests.support.workloads import Both

pytestmark = pytest.mark.heavy


def test_the_import_starts_mpi(both: Both) -> None:
    assert both.say("from mpi4py import MPI\nprint(MPI.COMM_WORLD.Get_size())") == "1"


def test_two_processes_exchange_a_large_array(both: Both) -> None:
    """Large: it goes by another way than a short message. Each writes a file of its own, since two share the output."""
    both.run("""
%%writefile ranks.py
import numpy as np
from mpi4py import MPI
world = MPI.COMM_WORLD
other = 1 - world.Get_rank()
sent, got = np.full(300_000, float(world.Get_rank())), np.empty(300_000)
world.Sendrecv(sent, other, 0, got, other, 0)
open(f"got{world.Get_rank()}", "w").write(str(got.sum()))
""")
    told = both.say("""
import subprocess, sys
two = [f"{sys.prefix}/bin/mpiexec", "-n", "2", sys.executable, "ranks.py"]
done = subprocess.run(two, capture_output=True, timeout=25)
print(done.returncode, [open(f"got{rank}").read() for rank in range(2)])
""")
    assert told == "0 ['300000.0', '0.0']"
