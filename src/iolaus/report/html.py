"""A report as one HTML file, with its pictures in it: light and dark, on paper and on a phone, no network."""

from html import escape

from iolaus.report.document import Block, Cell, Document, Facts, Gallery, Section, Table, Text
from iolaus.report.drawing import DASHES, VARIABLES, Entry

LONG = 60  # letters; a longer text in a table is broken into lines


def to_html(document: Document) -> str:
    title, head = escape(document.title), "\n".join(map(html, document.head))
    sections = "\n".join(map(in_section, document.sections))
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<header><h1>{title}</h1>
{head}
</header>
{sections}
<footer>{escape(document.foot)}</footer>
<script>
{SCRIPT}</script>
</body>
</html>
"""


def in_section(part: Section) -> str:
    blocks, title = "\n".join(map(html, part.blocks)), f"<h2>{escape(part.title)}</h2>"
    if part.folded:
        return f"<section>\n<details>\n<summary>{title}</summary>\n{blocks}\n</details>\n</section>"
    return f"<section>\n{title}\n{blocks}\n</section>"


def html(block: Block) -> str:
    match block:
        case Text(text, "command"):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Text(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>'
        case Facts(pairs):
            found = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
            return f"<dl>\n{found}\n</dl>"
        case Gallery(pictures, legend):
            keys = "".join(f"<li>{key(entry)}{escape(entry.label)}</li>" for entry in legend)
            wide = ' class="wide" tabindex="0"'
            figures = "\n".join(f"<figure{wide if p.wide else ''}>{p.svg}</figure>" for p in pictures)
            return f'{f"<ul class=legend>{keys}</ul>" if keys else ""}\n<div class="gallery">\n{figures}\n</div>'
        case Table():
            return table(block)


def table(block: Table) -> str:
    names = [(escape(c.name).replace(", %", ",&nbsp;%"), "" if c.numeric else " class=word") for c in block.columns]
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in names)
    lines = []
    for i, row in enumerate(block.rows):
        cells = [in_cell(cell, block.columns[j].numeric, head=j < block.heads) for j, cell in enumerate(row)]
        lines.append(f"<tr{' class=best' if i == block.best else ''}>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    sortable = ' class="sortable"' if block.sortable and len(lines) > 2 else ""
    return (f'<div class="scroll" tabindex="0"><table{sortable}>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table></div>")  # fmt: skip


def in_cell(cell: Cell, numeric: bool, head: bool) -> str:
    classes = {"word": not numeric, "long": len(cell.text) > LONG, "strong": cell.strong}
    attributes = {
        "class": " ".join(name for name, on in classes.items() if on) or None,
        "style": None if cell.heat is None else f"--heat:{cell.heat:.2f}",
        "title": cell.whole if cell.whole != cell.text else None,
        "data-order": cell.order,
    }
    text = escape(cell.text)
    if cell.link and text:
        text = f'<a href="{escape(cell.link)}">{text}</a>'
    if cell.style is not None:
        text = key(Entry("", cell.style)) + text
    start = "".join(f' {name}="{escape(str(value))}"' for name, value in attributes.items() if value not in (None, ""))
    return f'<th scope="row"{start}>{text}</th>' if head else f"<td{start}>{text}</td>"


def key(entry: Entry) -> str:
    """A piece of a line as it is in the pictures, or its mark."""
    if entry.marker == "x":
        shape = '<path d="M9 1l6 6m0-6l-6 6"/>'
    elif entry.marker:
        shape = '<circle cx="12" cy="4" r="3"/>'
    else:
        dashes = " ".join(f"{2 * length:g}" for length in DASHES[entry.style.dash])
        shape = f'<path d="M0 4h24" stroke-dasharray="{dashes}"/>' if dashes else '<path d="M0 4h24"/>'
    colour = VARIABLES[entry.style.colour.lower()]
    return f'<svg class="key" viewBox="0 0 24 8" aria-hidden="true" style="stroke:{colour}">{shape}</svg>'


STYLE = """\
:root {
  --page: #fbfbfa; --card: #ffffff; --ink: #1b1f24; --muted: #5c646d; --line: #e3e6ea; --accent: #0068a3;
  --tint: 0 114 178; --warning: #9a4a00;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121518; --card: #181c20; --ink: #e6e9ec; --muted: #9aa4ae; --line: #2d333a; --accent: #6cb8ee;
    --tint: 60 150 215; --warning: #f0a868;
    --c0: #3d9bdc; --c1: #ee7733; --c2: #1fbd8f; --c3: #e08fbd; --c4: #f0b43c; --c5: #8fd0f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem clamp(1rem, 2.5vw, 2.5rem) 4rem; max-width: 84rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; -webkit-text-size-adjust: 100%;
}
h1 { margin: 0 0 1rem; font-size: clamp(1.35rem, 1rem + 1.8vw, 2rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { display: inline-block; margin: 0 0 .75rem; font-size: 1.2rem; line-height: 1.3; }
section { margin-top: 2.75rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
.lead { font-size: 1.15rem; }
.note, footer { color: var(--muted); font-size: .875rem; }
.warning { padding: .6rem .9rem; border-left: 3px solid; color: var(--warning); background: var(--card); }
pre, .scroll, figure { background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
pre {
  margin: .75rem 0; padding: .7rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .85rem/1.5 ui-monospace, monospace;
}
dl { margin: 1.25rem 0 0; font-size: .9rem; columns: 30rem 2; column-gap: 2rem; overflow-wrap: anywhere; }
dl div { display: flex; gap: 1rem; padding: .28rem 0; break-inside: avoid; border-top: 1px solid var(--line); }
dt { flex: 0 0 min(12rem, 30%); color: var(--muted); }
dd { margin: 0; }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .5rem; text-align: right; white-space: nowrap; vertical-align: top; font-weight: 400; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; white-space: normal; }
tbody tr > * { border-top: 1px solid var(--line); }
th.word, td.word { text-align: left; }
.long { min-width: 20rem; max-width: 34rem; white-space: normal; overflow-wrap: break-word; }
[style*="--heat"] { background: rgb(var(--tint) / calc(.03 + var(--heat) * .36)); }
.strong, .best > * { font-weight: 650; }
.best > * { background: rgb(var(--tint) / .1); }
.best > :first-child { box-shadow: inset 3px 0 var(--accent); }
summary, .sortable thead th { cursor: pointer; }
.sortable thead th[aria-sort="ascending"]::after { content: " ↑"; }
.sortable thead th[aria-sort="descending"]::after { content: " ↓"; }
.key { width: 1.5rem; height: .5rem; margin-right: .5rem; fill: none; stroke-width: 2; vertical-align: middle; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; padding: 0; list-style: none; font-size: .875rem; }
.gallery {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1rem; margin: 1rem 0;
}
figure { margin: 0; padding: .5rem; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
figure.wide { grid-column: 1 / -1; overflow-x: auto; }
figure.wide svg { min-width: 46rem; }
@media (max-width: 40rem) { th, td { padding: .36rem .3rem; } table { font-size: .78rem; } }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); }
@media print { section, figure, tr { break-inside: avoid; } }
"""

SCRIPT = """\
// A click on a column's head sorts by it; another one the other way round.
for (const head of document.querySelectorAll(".sortable thead th")) {
  const body = head.closest("table").tBodies[0];
  const key = (row) => row.cells[head.cellIndex].dataset.order ?? row.cells[head.cellIndex].textContent;
  const value = (row) => (key(row) === "–" ? "-Infinity" : key(row));
  const order = (a, b) => value(a) - value(b) || value(a).localeCompare(value(b));
  head.tabIndex = 0;
  head.onkeydown = (event) => event.key === "Enter" && head.click();
  head.onclick = () => {
    const up = head.ariaSort === "descending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.ariaSort = up ? "ascending" : "descending";
    body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
  };
}
"""
