"""Pure: the notebooks of the gallery, each a Markdown file with a title and one fenced block per cell."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("notebooks")
IMPORT = re.compile(r"(?:^|;)\s*(?:from (\w+)|import ([^;\n]+))", re.MULTILINE)
# A fence is as long as it has to be: three backticks, or four where the cell itself has three.
BLOCK = re.compile(r"^(?P<fence>`{3,})python\n(?P<cell>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Notebook:
    """``name`` is the path below ``notebooks`` without its suffix: the folder is the subject."""

    name: str
    title: str
    cells: tuple[str, ...]

    @property
    def subject(self) -> str:
        return self.name.partition("/")[0]

    @property
    def libraries(self) -> set[str]:
        """What its cells import that is not Python's own."""
        found = [part for cell in self.cells for one in IMPORT.findall(cell) for part in (one[0] or one[1]).split(",")]
        return {part.split()[0].partition(".")[0] for part in found} - sys.stdlib_module_names


def parse(name: str, text: str) -> Notebook:
    """ValueError, with the place, for a file without a title or without a cell."""
    title = re.match(r"# (.+)\n", text)
    cells = tuple(found["cell"].rstrip("\n") for found in BLOCK.finditer(text))
    if title is None or not cells:
        raise ValueError(f'{name}.md: a notebook begins with "# Its title" and has cells in blocks of ```python')
    return Notebook(name, title[1], cells)


def read_all(folder: Path = FOLDER) -> list[Notebook]:
    """Every notebook, in the order of their names."""
    return [
        parse(str(path.relative_to(folder).with_suffix("")), path.read_text()) for path in sorted(folder.rglob("*.md"))
    ]


def choose(notebooks: list[Notebook], every: int) -> list[Notebook]:
    """Each ``every``-th notebook of each subject, beginning with its first, and those with a library of their own."""
    subjects: dict[str, list[Notebook]] = {}
    for notebook in notebooks:
        subjects.setdefault(notebook.subject, []).append(notebook)
    chosen = {notebook for those in subjects.values() for notebook in those[::every]}
    covered = {name for notebook in chosen for name in notebook.libraries}
    for notebook in notebooks:
        if not notebook.libraries <= covered:
            chosen.add(notebook)
            covered |= notebook.libraries
    return [notebook for notebook in notebooks if notebook in chosen]
