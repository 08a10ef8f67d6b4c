"""Tables, numbers and models: native libraries with threads, processes and compilers of their own."""

from __future__ import annotations

import pytest

from tests.support.workloads import Both

pytestmark = [pytest.mark.heavy, pytest.mark.container]


def test_polars(both: Both) -> None:
    told = both.say("""
import polars as pl
frame = pl.DataFrame({"city": ["Oslo", "Rome", "Oslo"], "sold": [3, 4, 5]})
frame.write_parquet("sales.parquet")
print(pl.scan_parquet("sales.parquet").group_by("city").agg(pl.col("sold").sum()).sort("city").collect().rows())
""")
    assert told == "[('Oslo', 8), ('Rome', 4)]"


def test_pyarrow(both: Both) -> None:
    told = both.say("""
import pyarrow as pa, pyarrow.dataset as ds, pyarrow.compute as pc
table = pa.table({"n": list(range(10_000)), "part": [n % 3 for n in range(10_000)]})
ds.write_dataset(table, "parts", format="parquet", partitioning=["part"], existing_data_behavior="delete_matching")
print(pc.sum(ds.dataset("parts", partitioning=["part"]).to_table(filter=ds.field("part") == 1)["n"]))
with pa.OSFile("map.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table)
print(pa.ipc.open_file(pa.memory_map("map.arrow")).read_all().num_rows)
""")
    assert told.splitlines() == ["16661667", "10000"]


def test_scipy(both: Both) -> None:
    told = both.say("""
import numpy as np
from scipy import integrate, optimize, sparse
print(round(integrate.quad(np.exp, 0, 1)[0], 9), round(optimize.brentq(lambda x: x * x - 2, 0, 2), 9),
      sparse.linalg.spsolve(sparse.eye(3, format="csc") * 2, np.ones(3)))
""")
    assert told == "1.718281828 1.414213562 [0.5 0.5 0.5]"


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_scikit_learn_with_joblib(both: Both, backend: str) -> None:
    told = both.say(f"""
import joblib, warnings
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
features, labels = make_classification(2000, 20, random_state=3)
with joblib.parallel_backend({backend!r}, n_jobs=2), warnings.catch_warnings():
    scores = cross_val_score(RandomForestClassifier(10, random_state=3), features, labels, cv=3)
print(len(scores), scores.min() > 0.8, joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(n) for n in range(-3, 0)))
""")
    assert told == "3 True [3, 2, 1]"


def test_joblib_shares_large_arrays_and_caches(both: Both) -> None:
    told = both.say("""
import joblib, numpy as np
array = np.ones(2_000_000)
print([int(n) for n in joblib.Parallel(n_jobs=2)(joblib.delayed(np.sum)(array[n:]) for n in range(3))])
memory = joblib.Memory("cache", verbose=0)
def slow(n):
    return n + 1
print(memory.cache(slow)(41))
""")
    assert told.splitlines() == ["[2000000, 1999999, 1999998]", "42"]


def test_plotly(both: Both) -> None:
    both.run("import plotly.io, plotly.express; plotly.io.renderers.default = 'plotly_mimetype'")
    outcome = both.run("figure = plotly.express.line(x=[1, 2], y=[3, 4]); figure.write_html('f.html'); figure.show()")
    data = outcome.displays[-1]["content"]["data"]["application/vnd.plotly.v1+json"]
    assert data["data"][0]["type"] == "scatter"


def test_duckdb(both: Both) -> None:
    told = both.say("""
import duckdb, pandas
numbers = pandas.DataFrame({"n": range(1000)})
duckdb.sql("copy (select * from numbers) to 'n.parquet'")
with duckdb.connect("a.duckdb") as db:
    db.execute("create or replace table t as select * from 'n.parquet'")
    print(db.execute("select sum(n)::int, count(*) from t").fetchall())
""")
    assert told == "[(499500, 1000)]"


def test_numba(both: Both) -> None:
    """In parallel, and with a cache beside the module: both make files and locks."""
    both.run("""
%%writefile compiled.py
import numba
@numba.njit(parallel=True, cache=True)
def total(n):
    result = 0
    for i in numba.prange(n):
        result += i
    return result
""")
    assert both.say("import compiled; print(compiled.total(100_000))") == "4999950000"


def test_cffi_compiles_with_gcc(both: Both) -> None:
    told = both.say("""
import cffi
builder = cffi.FFI()
builder.cdef("int twice(int);")
builder.set_source("_twice", "static int twice(int n) { return 2 * n; }")
_ = builder.compile(verbose=False)
import _twice
print(_twice.lib.twice(21))
""")
    assert told == "42"
