"""A report as one HTML file, with its pictures in it: light and dark, on paper and on a phone, no network."""

from html import escape

from iolaus.report.document import Block, Cell, Command, Document, Facts, Gallery, Section, Table, Text
from iolaus.report.drawing import DASHES, VARIABLES, Entry
from iolaus.report.page import SCRIPT, STYLE

LONG = 60  # letters; a longer text in a table is broken into lines


def to_html(document: Document) -> str:
    body = [f"<header><h1>{escape(document.title)}</h1>", *(written(block) for block in document.head), "</header>"]
    body += [section(part) for part in document.sections]
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">', f"<title>{escape(document.title)}</title>",
        f"<style>\n{STYLE}</style>", "</head>", "<body>", *body,
        f"<footer>{escape(document.foot)}</footer>", f"<script>\n{SCRIPT}</script>", "</body>", "</html>", "",
    ])  # fmt: skip


def section(part: Section) -> str:
    blocks = "\n".join(written(block) for block in part.blocks)
    if not part.folded:
        return f"<section>\n<h2>{escape(part.title)}</h2>\n{blocks}\n</section>"
    return f"<section>\n<details>\n<summary><h2>{escape(part.title)}</h2></summary>\n{blocks}\n</details>\n</section>"


def written(block: Block) -> str:
    if isinstance(block, Text):
        return f'<p class="{block.kind}">{escape(block.text)}</p>'
    if isinstance(block, Command):
        return f"<pre><code>{escape(block.text)}</code></pre>"
    if isinstance(block, Facts):
        pairs = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in block.pairs)
        return f"<dl>\n{pairs}\n</dl>"
    if isinstance(block, Table):
        return table(block)
    assert isinstance(block, Gallery)
    return gallery(block)


def gallery(block: Gallery) -> str:
    keys = "".join(f"<li>{key(entry)}{escape(entry.label)}</li>" for entry in block.legend)
    figures = "\n".join(
        f'<figure class="wide" tabindex="0">{picture.svg}</figure>'
        if picture.wide
        else f"<figure>{picture.svg}</figure>"
        for picture in block.pictures
    )
    return f'{f"<ul class=legend>{keys}</ul>" if keys else ""}\n<div class="gallery">\n{figures}\n</div>'


def key(entry: Entry) -> str:
    """A piece of a line as it is in the pictures, or its mark."""
    colour = VARIABLES.get(entry.style.colour.lower(), entry.style.colour)
    if entry.marker == "x":
        shape = '<path d="M9 1l6 6m0-6l-6 6"/>'
    elif entry.marker:
        shape = '<circle cx="12" cy="4" r="3"/>'
    else:
        dashes = " ".join(f"{2 * length:g}" for length in DASHES[entry.style.dash])
        shape = f'<path d="M0 4h24" stroke-dasharray="{dashes}"/>' if dashes else '<path d="M0 4h24"/>'
    return f'<svg class="key" viewBox="0 0 24 8" aria-hidden="true" style="stroke:{colour}">{shape}</svg>'


def table(content: Table) -> str:
    names = [escape(column.name).replace(", %", ",&nbsp;%") for column in content.columns]
    head = "".join(
        f'<th scope="col"{"" if column.numeric else " class=word"}>{name}</th>'
        for name, column in zip(names, content.columns, strict=True)
    )
    rows = []
    for i, row in enumerate(content.rows):
        cells = [
            cell(column_cell, numeric=column.numeric, head=j < content.heads)
            for j, (column_cell, column) in enumerate(zip(row, content.columns, strict=True))
        ]
        rows.append(f"<tr{' class=best' if i == content.best else ''}>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if content.sortable else ""
    body = "\n".join(rows)
    return (f'<div class="scroll" tabindex="0"><table{kind}>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table></div>")  # fmt: skip


def cell(content: Cell, numeric: bool, head: bool) -> str:
    long = len(content.text) > LONG
    classes = " ".join(name for name, on in (("word", not numeric), ("long", long), ("strong", content.strong)) if on)
    attributes = f' class="{classes}"' if classes else ""
    if content.heat is not None:
        attributes += f' style="--heat:{content.heat:.2f}"'
    if content.whole and content.whole != content.text:
        attributes += f' title="{escape(content.whole)}"'
    if content.order is not None:
        attributes += f' data-order="{escape(str(content.order))}"'
    text = escape(content.text)
    if content.link and text:
        text = f'<a href="{escape(content.link)}">{text}</a>'
    if content.style is not None:
        text = key(Entry("", content.style)) + text
    return f'<th scope="row"{attributes}>{text}</th>' if head else f"<td{attributes}>{text}</td>"
