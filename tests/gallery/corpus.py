"""Pure: the notebooks of the gallery, each a Markdown file with a title and one fenced block per cell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("notebooks")
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
