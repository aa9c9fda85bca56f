"""A report as Markdown."""

import re

from iolaus.report.document import Block, Cell, Command, Document, Facts, Gallery, Table, Text


def to_markdown(document: Document) -> str:
    lines = [f"# {escaped(document.title)}", ""]
    for block in document.head:
        lines += [*written(block), ""]
    for section in document.sections:
        lines += [f"## {escaped(section.title)}", ""]
        for block in section.blocks:
            lines += [*written(block), ""]
    return "\n".join([*lines, escaped(document.foot), ""])


def written(block: Block) -> list[str]:
    """The lines of a block."""
    if isinstance(block, Text):
        text = escaped(block.text)
        return [f"**{text}**" if block.kind in ("lead", "warning") else text]
    if isinstance(block, Command):
        fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", block.text)), default=0))
        return [f"{fence}sh", block.text, fence]
    if isinstance(block, Facts):
        return [f"- {escaped(name)}: {escaped(value)}" for name, value in block.pairs]
    if isinstance(block, Table):
        return table(block)
    assert isinstance(block, Gallery)
    return [f"![{escaped(picture.title)}](plots/{picture.name}.png)" for picture in block.pictures]


def table(content: Table) -> list[str]:
    head = "| " + " | ".join(escaped(column.name) for column in content.columns) + " |"
    rule = "|" + "|".join("--:" if column.numeric else ":--" for column in content.columns) + "|"
    rows = [
        "| " + " | ".join(cell_text(cell, strong=i == content.best) for cell in row) + " |"
        for i, row in enumerate(content.rows)
    ]
    return [head, rule, *rows]


def cell_text(cell: Cell, strong: bool) -> str:
    text = escaped(cell.text)
    text = f"[{text}]({cell.link})" if cell.link and text else text
    return f"**{text}**" if text and (strong or cell.strong) else text


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line; an underscore within a word is none of Markdown's."""
    text = re.sub(r"([\\`*\[\]|<>$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
