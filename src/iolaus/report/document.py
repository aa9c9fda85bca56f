"""What a report is made of before it becomes Markdown or HTML: sections of texts, commands, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from iolaus.report.drawing import Entry, Picture, Style


@dataclass(frozen=True)
class Cell:
    text: str
    order: float | str | None = None  # by which its column is sorted, if not by the text
    strong: bool = False
    heat: float | None = None  # from 0, bad, to 1, good
    style: Style | None = None  # of the line in the pictures that belongs to this row
    link: str | None = None  # a path relative to the report
    whole: str = ""  # the text, where that one is shortened


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    best: int | None = None  # a row that stands out
    heads: int = 0  # how many first columns name the row
    sortable: bool = False


@dataclass(frozen=True)
class Text:
    text: str
    kind: str = "plain"  # plain, lead, note or warning


@dataclass(frozen=True)
class Command:
    text: str


@dataclass(frozen=True)
class Facts:
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Gallery:
    pictures: Sequence[Picture]
    legend: Sequence[Entry] = ()


Block = Text | Command | Facts | Table | Gallery


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Document:
    title: str
    head: Sequence[Block]  # before the first section
    sections: Sequence[Section] = field(default_factory=list)
    foot: str = ""

    @property
    def pictures(self) -> list[Picture]:
        galleries = [block for section in self.sections for block in section.blocks if isinstance(block, Gallery)]
        return [picture for gallery in galleries for picture in gallery.pictures]
