// The address says what is shown: score, cost, panel, filters, hidden curves, zoom, and the open cell. Then everything starts.
const CONTROLS = [["score", "plot-y"], ["cost", "plot-x"], ["panel", "plot-panel"], ["log-cost", "log-x"], ["log-score", "log-y"], ["published", "published"], ...FILTERS.map((name) => [name, `filter-${name}`])];
const held = (control) => (control.type === "checkbox" ? (control.checked ? "yes" : "no") : control.value);
const usual = new Map(); // what each control holds at first, by id
let cellShown = null; // run_key of the cell whose details are open

/** What differs from how the page opens, as the fragment of its address. */
function stateText() {
  const told = new URLSearchParams();
  for (const [name, id] of CONTROLS) if (byId(id) && held(byId(id)) !== usual.get(id)) told.set(name, held(byId(id)));
  for (const curve of plot.hidden) told.append("hide", DATA.curves[curve].name);
  for (const [slug, zoom] of plot.zoom) told.append("zoom", [...zoom, slug].join(":"));
  if (cellShown) told.set("cell", cellShown);
  return told.toString();
}

function saveState() {
  const told = stateText();
  try { history.replaceState(null, "", told ? `#${told}` : location.pathname + location.search); } catch { /* some browsers forbid it for files */ }
}

/** Show what an address says; what it does not say, or says wrongly, is as when the page opens. */
function loadState() {
  if (!location.hash.includes("=")) return; // the name of a section, or nothing
  const told = new URLSearchParams(location.hash.slice(1));
  for (const [name, id] of CONTROLS) {
    const control = byId(id);
    if (!control) continue;
    const wanted = told.get(name) ?? usual.get(id);
    if (control.type === "checkbox") control.checked = wanted === "yes";
    else control.value = [...control.options].some((option) => option.value === wanted) ? wanted : usual.get(id);
  }
  for (const name of ["x", "y", "panel"]) plot[name] = byId(`plot-${name}`).value || plot[name];
  plot.zoom.clear();
  for (const [a, b, c, d, ...slug] of told.getAll("zoom").map((text) => text.split(":"))) {
    const zoom = [a, b, c, d].map(Number);
    if (zoom.every(Number.isFinite) && zoom[0] < zoom[1] && zoom[2] < zoom[3]) plot.zoom.set(slug.join(":"), zoom);
  }
  const hidden = new Set(told.getAll("hide"));
  const shown = [...plot.buttons.keys()].filter((i) => !hidden.has(DATA.curves[i].name));
  const cell = told.get("cell");
  refilter();
  showOnly(shown);
  for (let i = 0; i < ROWS; i++) if (cell !== null && value("run_key", i) === cell) { openCell(i); return; }
  if (byId("detail").open) byId("detail").close();
}

document.addEventListener("change", saveState);
addEventListener("hashchange", loadState);
startTable();
startPlot();
startPairs();
startDownloads();
for (const [, id] of CONTROLS) if (byId(id)) usual.set(id, held(byId(id)));
loadState();
