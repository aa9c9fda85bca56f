"""A report as one HTML page, with its pictures in it, and as Markdown, from the files in templates/."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.report.document import Document, Facts, Gallery, Photo, Table, Text
from iolaus.show.drawing import CSS_COLOURS, DASHES

if TYPE_CHECKING:
    from jinja2 import Environment

LONG = 60  # letters; a longer text in a table is broken into lines


def to_html(document: Document) -> str:
    """One self-contained page: light and dark, on paper and on a phone, no network."""
    return templates().get_template("report.html.j2").render(document=document)


def to_markdown(document: Document) -> str:
    return templates().get_template("report.md.j2").render(document=document)


@cache
def templates() -> "Environment":
    """The files in templates/ and what they use besides the document. HTML is escaped, Markdown by the filter `md`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for block in (Text, Facts, Gallery, Photo, Table):
        environment.tests[block.__name__.lower()] = lambda value, block=block: isinstance(value, block)
    environment.filters |= {"md": escape_markdown, "fence": fence_of}
    environment.globals |= {"LONG": LONG, "DASHES": DASHES, "CSS_COLOURS": CSS_COLOURS}
    return environment


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line; an underscore within a word needs no escape."""
    text = re.sub(r"([\\`*\[\]|<>$&~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def fence_of(code: str) -> str:
    """The backticks around a block of code: more than it has in a row."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
