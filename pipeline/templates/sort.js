// A click on a column's heading sorts the rows of each tbody by it: numbers first from the largest, texts from A.
for (const table of document.querySelectorAll("table:not(.looks)")) {
  const headings = table.tHead ? [...table.tHead.rows].at(-1).cells : [];
  const shown = (row, column) => (row.cells[column].querySelector(".figure, .same") ?? row.cells[column]).textContent.trim();
  const number = (text) => parseFloat(text.replace("−", "-").replaceAll(",", ""));
  [...headings].forEach((heading, column) => {
    const sort = () => {
      const isNumber = [...table.tBodies[0].rows].every((row) => row.cells.length < headings.length || !shown(row, column) || !isNaN(number(shown(row, column))));
      const now = heading.getAttribute("aria-sort");
      const down = now === "none" ? isNumber : now === "ascending";
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => (isNumber ? number(shown(row, column)) : shown(row, column));
      const compare = (one, other) => (isNumber ? (isNaN(one) ? -Infinity : one) - (isNaN(other) ? -Infinity : other) || 0 : one.localeCompare(other));
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => row.cells.length === headings.length);
        rows.sort((one, other) => (down ? -1 : 1) * compare(value(one), value(other)));
        body.append(...rows); // a heading inside the body stays first
      }
    };
    heading.setAttribute("aria-sort", "none");
    heading.tabIndex = 0;
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
