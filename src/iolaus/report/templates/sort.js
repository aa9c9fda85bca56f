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
