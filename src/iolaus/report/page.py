"""What makes a report's HTML a page: its style, for light, dark and paper, and the sorting of its tables."""

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
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  -webkit-text-size-adjust: 100%;
}
h1 { margin: 0 0 1rem; font-size: clamp(1.35rem, 1rem + 1.8vw, 2rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .75rem; font-size: 1.2rem; line-height: 1.3; }
section { margin-top: 2.75rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { font-size: 1.15rem; }
.note, footer { color: var(--muted); font-size: .875rem; }
.warning {
  padding: .6rem .9rem; border-left: 3px solid var(--warning); color: var(--warning); background: var(--card);
}
a { color: var(--accent); text-underline-offset: .15em; }
summary { cursor: pointer; }
summary h2 { display: inline; }
details[open] summary { margin-bottom: .75rem; }
pre {
  margin: .75rem 0; padding: .7rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
dl { margin: 1.25rem 0 0; font-size: .9rem; columns: 30rem 2; column-gap: 2rem; }
dl div {
  display: grid; grid-template-columns: 12rem 1fr; gap: 0 1rem; padding: .28rem 0; break-inside: avoid;
  border-top: 1px solid var(--line);
}
dt { color: var(--muted); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll {
  overflow-x: auto; width: fit-content; max-width: 100%; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px;
}
table { border-collapse: collapse; width: 100%; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .5rem; text-align: right; white-space: nowrap; vertical-align: top; font-weight: 400; }
thead th {
  color: var(--muted); font-weight: 600; vertical-align: bottom; white-space: normal;
  border-bottom: 1px solid var(--line);
}
tbody tr + tr > * { border-top: 1px solid var(--line); }
th.word, td.word { text-align: left; }
.long { min-width: 20rem; max-width: 34rem; white-space: normal; overflow-wrap: break-word; }
[style*="--heat"] { background: rgb(var(--tint) / calc(.03 + var(--heat) * .36)); }
.strong, .best > * { font-weight: 650; }
.best > * { background: rgb(var(--tint) / .1); }
.best > :first-child { box-shadow: inset 3px 0 var(--accent); }
.sortable thead th { cursor: pointer; }
.sortable thead th:hover, .sortable thead th[aria-sort] { color: var(--ink); }
.sortable thead th[aria-sort="ascending"]::after { content: " ↑"; }
.sortable thead th[aria-sort="descending"]::after { content: " ↓"; }
.key { width: 1.5rem; height: .5rem; margin-right: .5rem; fill: none; stroke-width: 2; vertical-align: middle; }
@media (max-width: 40rem) {
  th, td { padding: .36rem .45rem; }
  table { font-size: .8125rem; }
  dl div { grid-template-columns: 7rem 1fr; }
}
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; margin: 0 0 .9rem; padding: 0; list-style: none;
  font-size: .875rem;
}
.gallery {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1rem; margin-top: 1rem;
}
figure { margin: 0; padding: .5rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
figure.wide { grid-column: 1 / -1; overflow-x: auto; }
figure.wide svg { min-width: 46rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { body { max-width: none; padding: 0; } section, figure, tr { break-inside: avoid; } }
"""

SCRIPT = """\
// A click on a column's head sorts by it; another one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, i) => row.cells[i].dataset.order ?? row.cells[i].textContent;
  heads.forEach((head, i) => {
    const sort = () => {
      const way = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      const compare = (a, b) => key(a, i).localeCompare(key(b, i), undefined, { numeric: true });
      const numeric = [...body.rows].every((row) => !Number.isNaN(Number(key(row, i).replace("–", ""))));
      const order = (a, b) => (numeric ? Number(key(a, i)) - Number(key(b, i)) : compare(a, b));
      body.append(...[...body.rows].sort((a, b) => (way === "ascending" ? order(a, b) : order(b, a))));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
"""
