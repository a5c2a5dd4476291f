// The table of cells (sort, search, filter) and the details of one cell with the command that reproduces it.
const FIELDS = [
  { key: "curve", name: "solver", of: (i) => DATA.curves[DATA.rowCurve[i]].name },
  { key: "status", name: "status" },
  { key: "model", name: "model", optional: true },
  { key: "regime", name: "regime", optional: true },
  { key: "nfe_budget", name: "NFE budget", number: true },
  { key: "nfe", name: "NFE", number: true },
  { key: "fid", name: "FID", number: true, show: aligned },
  { key: "trajectory_rms", name: "distance to the exact path", number: true, show: aligned, optional: true },
  { key: "is_mean", name: "IS", number: true, show: aligned },
  { key: "images_per_second", name: "images/s", number: true, show: (v) => number(v, 3) },
  { key: "samples", name: "samples", number: true, optional: true },
  { key: "seed", name: "seed", number: true, optional: true },
  { key: "reason", name: "reason", optional: true },
  { key: "warning", name: "warning", optional: true },
];
const SENTENCES = ["reason", "warning"];
const FILTERS = ["study", "status", "model", "regime", "solver", "nfe_budget"];
const FILTER_NAMES = { nfe_budget: "NFE budget" };
const table = { sort: null, direction: 1, lines: [], fields: [] };
const fieldOf = (field, i) => (field.of ? field.of(i) : value(field.key, i));

function makeLine(i) {
  const line = make("tr");
  for (const field of table.fields) {
    const content = fieldOf(field, i);
    const cell = make("td", field.number ? { class: "number" } : SENTENCES.includes(field.key) ? { class: "reason" } : {});
    if (field.key === "curve") {
      const button = make("button", { type: "button", class: "link", "data-cell": i, "aria-haspopup": "dialog" }, content);
      cell.append(button);
    } else if (field.key === "status") {
      cell.append(make("span", { class: `status ${["done", "skipped", "failed"].includes(content) ? content : ""}` }, String(content)));
    } else if (SENTENCES.includes(field.key) && content === null) {
      cell.append("");
    } else {
      cell.append(field.number ? (field.show ?? number)(content) : content === null ? "–" : String(content));
    }
    line.append(cell);
  }
  const searched = [DATA.curves[DATA.rowCurve[i]].name, ...["status", "model", "regime", "solver_params", "reason", "warning", "run_key", "command"].map((n) => value(n, i) ?? "")];
  return { i, line, text: searched.join("\n").toLowerCase() };
}

function chosen() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = FILTERS.map((name) => [name, byId(`filter-${name}`)?.value ?? ""]).filter(([, v]) => v);
  return table.lines.filter(({ i, text }) =>
    words.every((word) => text.includes(word)) && wanted.every(([name, v]) => String(value(name, i)) === v));
}

function compare(a, b) {
  const [p, q] = [fieldOf(table.sort, a.i), fieldOf(table.sort, b.i)];
  if (p === q) return a.i - b.i;
  if (p === null || p === undefined) return 1; // missing values stay below in either direction
  if (q === null || q === undefined) return -1;
  const [u, v] = typeof p === "number" && typeof q === "number" ? [p, q] : [String(p), String(q)];
  return u === v ? a.i - b.i : table.direction * (u < v ? -1 : 1);
}

function refill() {
  const found = chosen();
  if (table.sort) found.sort(compare);
  byId("cells-table").tBodies[0].replaceChildren(...found.map(({ line }) => line));
  byId("cells-count").textContent = `${found.length} of ${ROWS} cells`;
}

/** The filters hold for the plot too. */
function refilter() {
  refill();
  relayout();
}

function sortBy(field, header) {
  table.direction = table.sort === field ? -table.direction : 1;
  table.sort = field;
  for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", table.direction > 0 ? "ascending" : "descending");
  refill();
}

function startTable() {
  const varies = (field) => { const first = fieldOf(field, 0); for (let i = 1; i < ROWS; i++) if (fieldOf(field, i) !== first) return true; return false; };
  table.fields = FIELDS.filter((field) => !field.optional || varies(field) || (SENTENCES.includes(field.key) && value(field.key, 0) !== null));
  const head = make("tr");
  for (const field of table.fields) {
    const button = make("button", { type: "button" }, field.name);
    const header = make("th", { scope: "col", "aria-sort": "none", ...(field.number ? { class: "number" } : {}) }, button);
    button.addEventListener("click", () => sortBy(field, header));
    head.append(header);
  }
  byId("cells-table").tHead.append(head);
  table.lines = Array.from({ length: ROWS }, (_, i) => makeLine(i));
  for (const name of FILTERS) {
    if (!COLUMNS.has(name)) continue;
    const found = [...new Set(table.lines.map(({ i }) => value(name, i)))];
    const values = found.sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : 1)).map(String);
    if (values.length < 2) continue;
    const select = make("select", { id: `filter-${name}` }, make("option", { value: "" }, "all"), ...values.map((v) => make("option", { value: v }, v)));
    select.addEventListener("change", refilter);
    byId("filters").append(make("label", {}, `${FILTER_NAMES[name] ?? name[0].toUpperCase() + name.slice(1)} `, select));
  }
  byId("search").value = "";
  byId("search").addEventListener("input", refill);
  byId("clear").addEventListener("click", () => {
    for (const control of byId("filters").querySelectorAll("select")) control.value = "";
    byId("search").value = "";
    refilter();
    saveState();
  });
  refill();
}

// --- one cell ---

async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* not every browser lets a file write to the clipboard: select the text, the old way */
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }
}

function commandOf(i) {
  const command = value("command", i);
  if (!command) return [make("p", { class: "note" }, "The row records no command.")];
  const code = make("code", {}, String(command));
  const button = make("button", { type: "button", id: "copy" }, "Copy");
  const told = make("span", { class: "note", role: "status" });
  button.addEventListener("click", async () => {
    told.textContent = (await copy(String(command), code)) ? "copied" : "selected: press Ctrl+C";
  });
  const versions = ["seedsbench", "torch"].map((name) => [name, value(`version_${name}`, i) ?? value(`versions_${name}`, i)]).filter(([, v]) => v);
  const under = versions.length ? `Computed with ${versions.map(([name, v]) => `${name} ${v}`).join(", ")}.` : "";
  return [make("h3", {}, "Command that reproduces it"), make("div", { class: "command" }, make("pre", {}, code), button, told), make("p", { class: "note" }, under)];
}

function openCell(i) {
  const name = DATA.curves[DATA.rowCurve[i]].name, status = value("status", i);
  byId("detail-title").textContent = `${name}, NFE budget ${number(value("nfe_budget", i))}, seed ${number(value("seed", i))}`;
  const body = [make("p", {}, make("span", { class: `status ${status}` }, String(status)), ...SENTENCES.filter((name) => value(name, i)).map((name) => ` ${value(name, i)}`), ` · ${DATA.panels[DATA.rowPanel[i]].name}`)];
  body.push(...commandOf(i));
  const strip = Object.hasOwn(DATA.strips, value("run_key", i)) ? DATA.strips[value("run_key", i)] : null;
  if (strip) {
    const image = make("img", { src: strip, alt: `The first samples of ${name} at NFE ${number(value("nfe", i))}` });
    body.push(make("h3", {}, "First samples"), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "First samples" }, image));
  }
  const lines = DATA.columns.map(([field]) => make("tr", {}, make("th", { scope: "row" }, field), make("td", {}, value(field, i) === null ? "–" : String(value(field, i)))));
  body.push(make("h3", {}, "All fields of the row"), make("table", {}, make("tbody", {}, ...lines)));
  byId("detail-body").replaceChildren(...body);
  const dialog = byId("detail");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  cellShown = value("run_key", i);
  saveState();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-cell]");
  if (button) openCell(Number(button.dataset.cell));
  if (event.target === byId("detail")) byId("detail").close(); // the ground beside the dialog
});
byId("detail-close").addEventListener("click", () => byId("detail").close());
byId("detail").addEventListener("close", () => {
  cellShown = null;
  saveState();
});
