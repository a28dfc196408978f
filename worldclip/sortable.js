"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const value = row => {
      const cell = row.cells[column];
      return cell.hasAttribute("data-v") ? (cell.dataset.v === "" ? -Infinity : Number(cell.dataset.v)) : cell.textContent.trim();
    };
    const sort = () => {
      const words = typeof value(table.tBodies[0].rows[0]) === "string";
      const next = head.ariaSort === (words ? "ascending" : "descending") ? -1 : 1;
      const order = (words ? 1 : -1) * next;
      const rows = [...table.tBodies[0].rows].map(row => [value(row), row]);
      rows.sort(([a], [b]) => order * (words ? a.localeCompare(b) : a === b ? 0 : a < b ? -1 : 1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
}
