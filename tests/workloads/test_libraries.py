"""The libraries that most notebooks begin with."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.support.sandbox import run_inside, run_outside
from tests.support.workloads import Both, text_of

pytestmark = pytest.mark.container


def test_numpy(both: Both) -> None:
    told = both.say("""
import numpy as np
rng = np.random.default_rng(7)
a = rng.normal(size=(200, 200))
print(np.round(np.linalg.eigvalsh(a @ a.T)[:3], 6), np.fft.fft(a[0])[:2].round(6))
np.save("a.npy", a)
np.array_equal(np.load("a.npy", mmap_mode="r"), a)
""")
    assert told.endswith("True")


def test_pandas(both: Both) -> None:
    code = """
import pandas as pd
frame = pd.DataFrame({"city": ["Oslo", "Rome", "Oslo"], "sold": [3, 4, 5]})
frame.to_csv("sales.csv", index=False)
pd.read_csv("sales.csv", parse_dates=False).groupby("city").sold.sum().to_frame()
"""
    both.run(code)
    tables = [kernel.run(code).displays[0]["content"]["data"]["text/html"] for kernel in (both.plain, both.inside)]
    assert all("<th>Oslo</th>" in table and "<td>8</td>" in table for table in tables)


def test_matplotlib_draws_the_same_picture(both: Both) -> None:
    code = """
%matplotlib inline
import matplotlib.pyplot as plt
plt.plot([1, 4, 9]); plt.title("Größe $x^2$")
plt.savefig("figure.pdf")
plt.show()
"""
    pictures = [kernel.run(code).displays[-1]["content"]["data"]["image/png"] for kernel in (both.plain, both.inside)]
    assert pictures[0] == pictures[1]
    assert len(pictures[1]) > 4000


def test_sqlite(both: Both) -> None:
    assert (
        both.say("""
import sqlite3
with sqlite3.connect("numbers.db") as db:
    mode = db.execute("pragma journal_mode = wal").fetchone()[0]
    db.execute("create table if not exists n (i integer)"), db.execute("delete from n")
    db.executemany("insert into n values (?)", [(i,) for i in range(100)])
print(mode, sqlite3.connect("numbers.db").execute("select sum(i) from n").fetchall())
""")
        == "wal [(4950,)]"
    )


READ = """
import json, sqlite3
told = []
for how in ("mode=ro", "mode=ro&immutable=1"):
    try:
        told += [sqlite3.connect(f"file:{PLACE}/a.db?{how}", uri=True).execute("select sum(i) from n").fetchone()[0]]
    except sqlite3.OperationalError as error:
        told += [str(error)]
print(json.dumps(told))
"""


def test_sqlite_s_write_ahead_log_in_a_folder_that_is_read_only(tmp_path: Path) -> None:
    """As docs/compatibility.md says it: SQLite wants to write beside the database, and how to read it all the same."""
    data, workspace = tmp_path / "data", tmp_path / "book"
    data.mkdir()
    workspace.mkdir()
    database = sqlite3.connect(data / "a.db")
    database.execute("pragma journal_mode=wal")
    database.execute("create table n(i)")
    database.executemany("insert into n values (?)", [(1,), (2,)])
    database.commit()
    database.close()
    code = READ.replace("{PLACE}", str(data))
    inside = run_inside(code, workspace=workspace, policy=f'[filesystem]\nread = ["{data}"]').json()
    assert inside == ["attempt to write a readonly database", 3]
    assert run_outside(code, workspace=workspace).json() == [3, 3]


def test_tqdm(both: Both) -> None:
    """In text: the widget is the next test."""
    assert "10/10" in both.say("""
from tqdm import tqdm
import re, io
shown = io.StringIO()
total = sum(tqdm(range(10), file=shown, mininterval=0))
print(total, re.findall(r"10/10", shown.getvalue()))
""")


def test_tqdm_as_a_widget(both: Both) -> None:
    for kernel in (both.plain, both.inside):
        shown = kernel.run("from tqdm.notebook import tqdm\nfor _ in tqdm(range(5), mininterval=0): pass")
        assert text_of(shown) == ""
        assert "application/vnd.jupyter.widget-view+json" in shown.displays[0]["content"]["data"]
        states = [message["content"]["data"].get("state", {}) for message in shown.of("comm_open", "comm_msg")]
        assert 5.0 in [state.get("value") for state in states]
        assert {"bar_style": "success"} in states


def test_a_widget_takes_a_value_from_the_frontend_and_answers(both: Both) -> None:
    for kernel in (both.plain, both.inside):
        opened = kernel.run(
            "import ipywidgets; slider = ipywidgets.IntSlider(5, 0, 9); doubled = []\n"
            "slider.observe(lambda change: doubled.append(change.new * 2), 'value'); slider"
        )
        view = opened.displays[-1]["content"]["data"]["application/vnd.jupyter.widget-view+json"]
        update = {"comm_id": view["model_id"], "data": {"method": "update", "state": {"value": 8}, "buffer_paths": []}}
        kernel.client.shell_channel.send(kernel.client.session.msg("comm_msg", update))
        assert text_of(kernel.run("print(slider.value, doubled)")) == "8 [16]\n"
        changed = kernel.run("slider.value = 3").of("comm_msg")
        assert [message["content"]["data"]["state"] for message in changed] == [{"value": 3}]


def test_threads(both: Both) -> None:
    assert both.say("""
from concurrent.futures import ThreadPoolExecutor
import hashlib, zlib, lzma, bz2
data = b"sandbox" * 50_000
with ThreadPoolExecutor(4) as pool:
    sizes = list(pool.map(lambda f: len(f(data)), (zlib.compress, lzma.compress, bz2.compress)))
print(sizes, hashlib.sha256(data).hexdigest()[:8])
""").startswith("[")


def test_psutil(both: Both) -> None:
    """Whatever it is asked about the machine and about itself, it answers as outside, if not with the same numbers."""
    told = both.say('''
import psutil
machine = """
    virtual_memory swap_memory cpu_freq cpu_stats disk_partitions disk_io_counters net_io_counters net_if_addrs
    sensors_temperatures sensors_battery users boot_time pids"""
for name in machine.split():
    print(name, type(getattr(psutil, name)()).__name__)
own = "open_files io_counters memory_full_info memory_maps cpu_affinity environ exe cwd nice ionice threads children"
for name in own.split():
    print(name, type(getattr(psutil.Process(), name)()).__name__)
''')
    assert len(told.splitlines()) == 25


def test_pickle_looks_into_every_module(both: Both) -> None:
    """As it does for a function that does not say where it is from; what is imported late inside stays as it is."""
    look = "import pickle, sys; print(pickle.whichmodule(type('X', (), {'__module__': None})(), 'nowhere'))"
    assert both.say(look) == "__main__"
    late = "[name in sys.modules for name in ('debugpy', 'jupyter_client.manager')]"
    assert text_of(both.inside.run(late)) == "[False, False]"
    assert both.say("import jupyter_client; jupyter_client.KernelManager.__module__, jupyter_client.utils.__name__")
