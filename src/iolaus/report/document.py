"""What a report is made of before it is written as HTML and Markdown: sections of blocks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from iolaus.show.drawing import Entry, Picture, Style


@dataclass(frozen=True)
class Cell:
    text: str
    order: float | str | None = None  # sorts the column; None for the text
    strong: bool = False
    heat: float | None = None  # from 0, bad, to 1, good
    style: Style | None = None  # of this row's line in the pictures
    link: str | None = None  # a path relative to the report
    whole: str = ""  # the full text, if `text` is shortened


@dataclass(frozen=True)
class Column:
    name: str
    cells: Sequence[Cell | str]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    columns: Sequence[Column]
    best: int | None = None  # the row to highlight
    heads: int = 0  # the number of first columns that name the row
    sortable: bool = False

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        cells = ([cell if isinstance(cell, Cell) else Cell(cell) for cell in column.cells] for column in self.columns)
        return list(zip(*cells, strict=True))


@dataclass(frozen=True)
class Text:
    text: str
    role: str = "plain"  # plain, lead, note, warning or command


@dataclass(frozen=True)
class Facts:
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Gallery:
    pictures: Sequence[Picture]
    legend: Sequence[Entry] = ()


@dataclass(frozen=True)
class Photo:
    """A picture that a file of a run holds."""

    title: str
    path: str  # relative to the report
    source: str  # a data: URI


Block = Text | Facts | Table | Gallery | Photo


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    folded: bool = False
    level: int = 2  # of the heading
    within: str = ""  # the title of the section around it

    @property
    def anchor(self) -> str:
        return anchor_of(f"{self.within} {self.title}".strip())


def anchor_of(title: str) -> str:
    """The name of a heading in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@dataclass(frozen=True)
class Document:
    title: str
    head: Sequence[Block]  # before the first section
    sections: Sequence[Section]
    foot: str

    @property
    def pictures(self) -> list[Picture]:
        galleries = [block for section in self.sections for block in section.blocks if isinstance(block, Gallery)]
        return [picture for gallery in galleries for picture in gallery.pictures]
