"""What a report is made of before it is written as HTML or, here, as Markdown: sections of blocks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
    cells: Sequence[Cell | str]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    columns: Sequence[Column]
    best: int | None = None  # a row that stands out
    heads: int = 0  # how many first columns name the row
    sortable: bool = False

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        cells = ([cell if isinstance(cell, Cell) else Cell(cell) for cell in column.cells] for column in self.columns)
        return list(zip(*cells, strict=True))


@dataclass(frozen=True)
class Text:
    text: str
    kind: str = "plain"  # plain, lead, note, warning or command


@dataclass(frozen=True)
class Facts:
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Gallery:
    pictures: Sequence[Picture]
    legend: Sequence[Entry] = ()


Block = Text | Facts | Table | Gallery


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    folded: bool = False


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


def to_markdown(document: Document) -> str:
    parts = [f"# {escaped(document.title)}", *map(markdown, document.head)]
    for section in document.sections:
        parts += [f"## {escaped(section.title)}", *map(markdown, section.blocks)]
    return "\n\n".join([*parts, escaped(document.foot)]) + "\n"


def markdown(block: Block) -> str:
    match block:
        case Text(text, "command"):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return f"{fence}sh\n{text}\n{fence}"
        case Text(text, kind):
            return f"**{escaped(text)}**" if kind in ("lead", "warning") else escaped(text)
        case Facts(pairs):
            return "\n".join(f"- {escaped(name)}: {escaped(value)}" for name, value in pairs)
        case Gallery(pictures):
            return "\n".join(f"![{escaped(picture.title)}](plots/{picture.name}.png)" for picture in pictures)
        case Table(columns):
            rule = "|".join("--:" if column.numeric else ":--" for column in columns)
            rows = [line([in_cell(cell, i == block.best) for cell in row]) for i, row in enumerate(block.rows)]
            return "\n".join([line([escaped(column.name) for column in columns]), f"|{rule}|", *rows])


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def in_cell(cell: Cell, strong: bool) -> str:
    text = escaped(cell.text)
    text = f"[{text}]({cell.link})" if cell.link and text else text
    return f"**{text}**" if text and (strong or cell.strong) else text


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line; an underscore within a word is none of Markdown's."""
    text = re.sub(r"([\\`*\[\]|<>$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
