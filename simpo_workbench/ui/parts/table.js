// One page of a table. The kernel sorts, filters and cuts pages; here are only the cells, as text, and what was clicked.
function button(text, title, disabled, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "swb-page-button";
  made.textContent = text;
  made.title = title;
  made.disabled = disabled;
  made.addEventListener("click", press);
  return made;
}

function render({ model, el }) {
  el.classList.add("swb-datatable");
  const tell = (message) => model.send(message);

  function header() {
    const row = document.createElement("tr");
    for (const column of model.get("columns")) {
      const cell = document.createElement("th");
      cell.scope = "col";
      if (column.numeric) cell.classList.add("swb-number");
      if (column.help) cell.title = column.help;
      const sorted = model.get("sort_by") === column.key;
      cell.setAttribute("aria-sort", sorted ? (model.get("descending") ? "descending" : "ascending") : "none");
      const sort = button(column.title + (sorted ? (model.get("descending") ? " ▾" : " ▴") : ""), `Sort by ${column.title}`, false, () => tell({ sort: column.key }));
      sort.className = "swb-sort";
      sort.dataset.key = column.key;
      cell.append(sort);
      row.append(cell);
    }
    return row;
  }

  function body() {
    const made = document.createElement("tbody");
    const columns = model.get("columns");
    const selected = new Set(model.get("selected"));
    for (const { id, cells, tones } of model.get("rows")) {
      const row = document.createElement("tr");
      row.tabIndex = -1; // one row is a stop of the Tab key; arrow keys go to the others
      row.dataset.id = id;
      row.setAttribute("aria-selected", String(selected.has(id)));
      if (selected.has(id)) row.classList.add("swb-selected");
      cells.forEach((text, index) => {
        const cell = document.createElement("td");
        if (columns[index].numeric) cell.classList.add("swb-number");
        if (columns[index].wide) cell.classList.add("swb-wide");
        if (tones && tones[index]) cell.classList.add(`swb-tone-${tones[index]}`);
        cell.textContent = text;
        if (text.length > 40) cell.title = text;
        row.append(cell);
      });
      const choose = (event) => tell({ choose: id, more: event.ctrlKey || event.metaKey || event.shiftKey });
      row.addEventListener("click", choose);
      row.addEventListener("focus", () => makeStop(row));
      row.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") choose(event);
        else if (event.key === "ArrowDown") row.nextElementSibling?.focus();
        else if (event.key === "ArrowUp") row.previousElementSibling?.focus();
        else return;
        event.preventDefault();
        event.stopPropagation();
      });
      made.append(row);
    }
    const stop = made.querySelector(".swb-selected") ?? made.firstElementChild;
    if (stop) stop.tabIndex = 0;
    return made;
  }

  function makeStop(row) {
    for (const other of row.parentElement.children) other.tabIndex = other === row ? 0 : -1;
  }

  function footer() {
    const made = document.createElement("div");
    made.className = "swb-pages";
    const page = model.get("page");
    const pages = model.get("pages");
    if (pages > 1) {
      made.append(button("‹", "Previous page", page <= 1, () => tell({ page: page - 1 })));
      const where = document.createElement("span");
      where.textContent = `page ${page} of ${pages}`;
      made.append(where, button("›", "Next page", page >= pages, () => tell({ page: page + 1 })));
    }
    const count = document.createElement("span");
    count.textContent = model.get("count_text");
    count.setAttribute("role", "status");
    made.append(count);
    return made;
  }

  function draw() {
    const active = document.activeElement;
    const kept = el.contains(active) ? active.dataset?.id ?? active.dataset?.key : null;
    const keptTitle = el.contains(active) ? active.title : null;
    const table = document.createElement("table");
    table.setAttribute("aria-label", model.get("label"));
    const head = document.createElement("thead");
    head.append(header());
    table.append(head, body());
    const frame = document.createElement("div");
    frame.className = "swb-table-frame";
    const scrolled = el.querySelector(".swb-table-frame")?.scrollTop ?? 0;
    frame.append(table);
    if (!model.get("rows").length) {
      const empty = document.createElement("p");
      empty.className = "swb-muted";
      empty.textContent = model.get("empty_text");
      frame.append(empty);
    }
    el.replaceChildren(frame, footer());
    frame.scrollTop = scrolled;
    const again = [...el.querySelectorAll("tr[data-id], button")].find((one) => (kept ? one.dataset.id === kept || one.dataset.key === kept : keptTitle && one.title === keptTitle));
    again?.focus({ preventScroll: true });
  }

  model.on("change:version", draw);
  draw();
}

export default { render };
