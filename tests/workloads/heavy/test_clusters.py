"""Frameworks that start servers and processes of their own and talk to them over loopback."""

from __future__ import annotations

import pytest

from tests.support.workloads import Both, text_of

pytestmark = [pytest.mark.heavy, pytest.mark.container]


def test_dask_with_processes(both: Both) -> None:
    told = both.say("""
import dask.array, logging
from distributed import Client, LocalCluster
with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                  silence_logs=logging.ERROR) as cluster, Client(cluster) as client:
    array = dask.array.ones((1000, 1000), chunks=250)
    print(int((array + array.T).sum().compute()), len(client.scheduler_info()["workers"]),
          client.submit(lambda n: n + 1, 41).result())
""")
    assert told == "2000000 2 42"


def test_spark(both: Both) -> None:
    """Java's own output stands in the cell too, with times in it: each kernel speaks for itself."""
    code = """
from pyspark.sql import SparkSession, functions
spark = (SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
         .config("spark.ui.showConsoleProgress", "false").getOrCreate())
frame = spark.range(1000).withColumn("part", functions.col("id") % 3)
frame.write.mode("overwrite").parquet("spark.parquet")
rows = spark.read.parquet("spark.parquet").groupBy("part").sum("id").orderBy("part").collect()
squares = spark.sparkContext.parallelize(range(10)).map(lambda n: n * n).sum()
spark.stop()
"""
    for kernel in (both.plain, both.inside):
        text_of(kernel.run(code))
        told = text_of(kernel.run("print([row[1] for row in rows], squares)"))
        assert told.endswith("[166833, 166167, 166500] 285\n")


@pytest.mark.torch
def test_torch_loads_data_with_workers(both: Both) -> None:
    both.run("""
%%writefile squares.py
import torch
class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, n):
        return torch.tensor(float(n * n))
""")
    told = both.say("""
import torch, squares
_ = torch.manual_seed(1)
for method in ("fork", "spawn"):
    loader = torch.utils.data.DataLoader(squares.Squares(), batch_size=8, num_workers=2, multiprocessing_context=method)
    print(sum(batch.sum().item() for batch in loader))
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    loss = model(torch.ones(8, 4)).pow(2).mean()
    loss.backward(), optimizer.step()
print(loss.item() < 0.1)
""")
    assert told.splitlines() == ["85344.0", "85344.0", "True"]


@pytest.mark.torch
def test_torch_distributed_over_gloo(both: Both) -> None:
    both.run("""
%%writefile reduce.py
import os, sys, torch, torch.distributed as dist
def run(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    tensor = torch.full((4,), float(rank + 1))
    dist.all_reduce(tensor)
    results.put(tensor.sum().item())
    dist.barrier()
    dist.destroy_process_group()
""")
    told = both.say("""
import socket, torch.multiprocessing as mp, reduce
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
results = mp.get_context("spawn").SimpleQueue()
mp.spawn(reduce.run, (port, results), nprocs=2)
print(results.get(), results.get())
""")
    assert told == "12.0 12.0"


def test_ray(both: Both) -> None:
    """Only where it is told not to use /tmp, and not to look into /dev/shm: docs/compatibility.md. Whether it runs in a
    cloud it asks in any case.
    """
    told = both.say(
        """
import logging, os, tempfile
os.environ.update(RAY_USAGE_STATS_ENABLED="0", GRPC_VERBOSITY="NONE")
import ray
folder = tempfile.gettempdir()
_ = ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
             object_store_memory=80_000_000, _temp_dir=folder, _plasma_directory=folder)
try:
    @ray.remote
    def square(n):
        return n * n

    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0
        def add(self):
            self.n += 1
            return self.n

    counter = Counter.remote()
    print(ray.get([square.remote(n) for n in range(5)]), ray.get([counter.add.remote() for _ in range(3)])[-1])
finally:
    ray.shutdown()
""",
        refused=["169.254.169.254", "metadata.google.internal"],
    )
    assert told == "[0, 1, 4, 9, 16] 3"
