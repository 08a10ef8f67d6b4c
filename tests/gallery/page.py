"""Does: `make gallery-table`: writes the tables of docs/compatibility.md that the gallery says the words of.

From the notebooks' titles, the locks' versions, and the table of differences; `tests/pure/test_gallery_page.py` fails
while the page is not what this file would write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.gallery import corpus, differences
from tests.gallery.corpus import Notebook
from tests.gallery.differences import Row

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/compatibility.md"
LOCKS = ("requirements.lock", "requirements-gallery.lock")
BEGIN, END = "<!-- begin: {name}, written by `make gallery-table` -->", "<!-- end: {name} -->"

# Subject (a folder of notebooks) -> what the page calls it, and the packages whose versions it says.
SUBJECTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "python": ("Python itself", ()),
    "ipython": ("IPython", ("ipython", "ipykernel")),
    "display": ("IPython.display", ()),
    "numpy": ("numpy", ("numpy",)),
    "pandas": ("pandas, with Styler", ("pandas", "pyarrow", "openpyxl")),
    "polars": ("polars", ("polars",)),
    "xarray": ("xarray", ("xarray",)),
    "dask": ("dask", ("dask",)),
    "sklearn": ("scikit-learn", ("scikit-learn",)),
    "lightgbm": ("lightgbm", ("lightgbm",)),
    "statsmodels": ("statsmodels", ("statsmodels",)),
    "scipy": ("scipy", ("scipy",)),
    "sympy": ("sympy", ("sympy",)),
    "science": ("further sciences", ("astropy", "pint", "pydantic")),
    "matplotlib": ("matplotlib", ("matplotlib",)),
    "seaborn": ("seaborn", ("seaborn",)),
    "plotnine": ("plotnine", ("plotnine",)),
    "plotly": ("plotly", ("plotly",)),
    "altair": ("altair", ("altair",)),
    "bokeh": ("bokeh", ("bokeh",)),
    "networkx": ("networkx", ("networkx",)),
    "images": ("pictures", ("pillow", "scikit-image", "imageio")),
    "diagrams": ("diagrams", ("schemdraw", "qrcode", "wordcloud")),
    "maps": ("maps and shapes", ("folium", "shapely")),
    "great_tables": ("great_tables", ("great-tables",)),
    "tables": ("further tables", ("tabulate", "prettytable", "itables")),
    "rich": ("rich", ("rich",)),
    "tqdm": ("tqdm", ("tqdm",)),
    "ipywidgets": ("ipywidgets, anywidget", ("ipywidgets", "anywidget")),
    "databases": ("databases and files", ("duckdb", "sqlalchemy", "h5py")),
    "asyncio": ("asyncio", ()),
    "processes": ("processes", ("joblib",)),
    "shell": ("the shell", ()),
    "web": ("servers and clients of one's own", ("requests", "flask", "httpx", "beautifulsoup4")),
    "testing": ("tests in cells", ("pytest", "ipytest", "hypothesis")),
    "notebooks": ("notebooks in notebooks", ("nbformat", "nbconvert", "nbclient", "papermill")),
}


def versions(locks: Iterable[str]) -> dict[str, str]:
    """Package -> the first two numbers of its version."""
    pins = (line.split()[0].split("==") for text in locks for line in text.splitlines() if line[:1].isalnum())
    return {name: ".".join(version.split(".")[:2]) for name, version in pins}


def libraries(notebooks: Sequence[Notebook], rows: Sequence[Row], known: Mapping[str, str]) -> str:
    """A row per subject: its versions, what its notebooks show, and in how many cells something differs."""
    differing = {(place.notebook, place.cell) for row in rows for place in row.places}
    lines = ["| | with | notebooks | cells | of which differ |", "|---|---|---|---|---|"]
    for subject, (name, packages) in SUBJECTS.items():
        those = [notebook for notebook in notebooks if notebook.subject == subject]
        used = ", ".join(f"{package} {known[package]}" for package in packages)
        titles = "; ".join(notebook.title for notebook in those)
        cells = sum(len(notebook.cells) for notebook in those)
        differ = sum(notebook == one.name for notebook, _ in differing for one in those)
        lines.append(f"| {name} | {used} | {titles} | {cells} | {differ or ''} |")
    return "\n".join(lines)


def differing(rows: Sequence[Row]) -> str:
    """A row per reason: where, what differs, why, and what to do."""
    lines = ["| what is not as outside | because | instead | in |", "|---|---|---|---|"]
    for row in rows:
        where = sorted({f"{place.notebook}" for place in row.places})
        lines.append(f"| {row.what} | {row.why} | {row.instead} | {', '.join(where)} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with both tables anew. ValueError where it lacks a place for one, or a folder has no name here."""
    notebooks, rows = corpus.read_all(), differences.read(differences.FILE.read_text())
    if unnamed := {notebook.subject for notebook in notebooks} ^ SUBJECTS.keys():
        raise ValueError(f"tests/gallery/page.py: SUBJECTS and the folders of notebooks differ: {sorted(unnamed)}")
    known = versions((ROOT / lock).read_text() for lock in LOCKS)
    for name, table in (("libraries", libraries(notebooks, rows, known)), ("differences", differing(rows))):
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, found, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{PAGE.name} has no place for a table: write {begin} and {end}")
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
