"use strict";

// Tables sort by a column and are filtered by words. Without this script they stand as they are.

// What a cell is sorted by: the first number in a column of numbers (the lower end of an interval), else its text; null
// where there is nothing, which stands last either way.
function keyOf(text, numeric) {
  if (!text || text === "–") return null;
  if (!numeric) return text;
  const number = text.replaceAll("−", "-").match(/-?\d+(\.\d+)?(e[-+]?\d+)?/i);
  return number && Number(number[0]);
}

function compareKeys(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  return direction * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
}

// Whether texts hold every word, in whatever case.
function holdsAll(texts, words) {
  const text = texts.join("\n").toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function makeLive(table) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  // Rows that begin with an empty cell belong to the row above them: they stay together.
  const blocks = [];
  for (const row of body.rows) {
    if (blocks.length && body.classList.contains("blocks") && !row.cells[0].textContent.trim()) blocks.at(-1).push(row);
    else blocks.push([row]);
  }
  if (blocks.length < 2) return;
  const textOf = (block, col) => block.map((row) => row.cells[col].textContent.trim());
  headings.forEach((heading, col) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[heading.getAttribute("aria-sort") ?? "none"];
      for (const other of headings) other.removeAttribute("aria-sort");
      if (order !== "none") heading.setAttribute("aria-sort", order);
      const numeric = heading.classList.contains("number"), direction = order === "descending" ? -1 : 1;
      const keys = new Map(blocks.map((block) => [block, keyOf(textOf(block, col)[0], numeric)]));
      const rows = [...blocks];
      if (order !== "none") rows.sort((a, b) => compareKeys(keys.get(a), keys.get(b), direction));
      body.append(...rows.flat());
    });
  });
  if (blocks.length < 4) return;
  const tools = document.getElementById("tools").content.firstElementChild.cloneNode(true);
  const [words, column, told] = ["input", "select", "output"].map((name) => tools.querySelector(name));
  headings.forEach((heading, col) => column.append(new Option(heading.textContent.trim() || "(no name)", col)));
  const filter = () => {
    const wanted = column.value === "" ? headings.map((_, col) => col) : [Number(column.value)];
    let shown = 0;
    for (const block of blocks) {
      const kept = holdsAll(wanted.flatMap((col) => textOf(block, col)), words.value.trim());
      for (const row of block) row.hidden = !kept;
      shown += kept;
    }
    told.textContent = words.value.trim() ? `${shown} of ${blocks.length}` : "";
  };
  words.addEventListener("input", filter);
  column.addEventListener("change", filter);
  table.closest(".scroll").before(tools);
}

if (typeof document !== "undefined") document.querySelectorAll(".scroll > table").forEach(makeLive);
if (typeof module !== "undefined") module.exports = { keyOf, compareKeys, holdsAll };
