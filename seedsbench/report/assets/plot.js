// The interactive Pareto plot: panels of curves, log or linear axes, hover and arrow keys, a legend that hides curves.
// Fields of a point, in the order of html_data.POINT. FID: what its panel is judged by, whose name is panel.score.
const BUDGET = 0, NFE = 1, FID = 2, FID_SD = 3, N = 4, IS = 5, IS_SD = 6, SPEED = 7, SECONDS = 8, DONE = 9, SKIPPED = 10, FAILED = 11, FID_MIN = 12, WARNINGS = 13, DOUBTED = 14;
const COSTS = {
  nfe: { name: "NFE per sample, measured", of: (p) => p[NFE] },
  seconds: { name: "sampling seconds per image", of: (p) => p[SECONDS] },
};
const SCORES = {
  fid: { name: (panel) => panel.axis, of: (p) => p[FID], spread: (p) => p[FID_SD], better: -1 },
  is: { name: (panel) => `IS, ${panel.features}`, of: (p) => p[IS], spread: (p) => p[IS_SD], better: 1 },
};
const plot = { x: "nfe", y: "fid", panel: "all", hidden: new Set(), views: [] };

/** Whether a value passes the filter of its name, if there is one. */
function passes(name, v) {
  const wanted = byId(`filter-${name}`)?.value ?? "";
  return wanted === "" || wanted === String(v);
}

const isShown = (line, p) => p[DONE] > 0 && passes("solver", DATA.curves[line.curve].solver) && passes("nfe_budget", p[BUDGET]);

function shownPanels() {
  const chosen = plot.panel === "all" ? DATA.panels : [DATA.panels[Number(plot.panel)]];
  return chosen.filter((panel) => passes("model", panel.model) && passes("regime", panel.regime) && panel.lines.some((line) => line.points.some((p) => isShown(line, p))));
}

/** Round numbers for an axis: a ladder within decades where it is logarithmic, even steps where it is not. */
function ticks(low, high, log, most) {
  const inside = (list) => list.filter((t) => t >= low * (1 - 1e-9) && t <= high * (1 + 1e-9));
  if (log) {
    const ladders = [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]];
    const decades = [];
    for (let d = Math.floor(Math.log10(low)); d <= Math.ceil(Math.log10(high)); d++) decades.push(d);
    let found = [];
    for (const ladder of ladders) {
      found = inside(decades.flatMap((d) => ladder.map((step) => Number(`${step}e${d}`))));
      if (found.length <= most) break;
    }
    if (found.length >= 2) return found.filter((_, i) => i % Math.ceil(found.length / most) === 0);
  }
  const raw = (high - low) / most, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9) && found.length < 50; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** A scale from values to pixels with a margin; null where nothing can be shown. */
function scale(values, log, from, to) {
  const usable = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
  if (!usable.length) return null;
  const f = log ? Math.log : (v) => v;
  let low = f(Math.min(...usable)), high = f(Math.max(...usable));
  const pad = Math.max(0.06 * (high - low), log ? 0.12 : 0.05 * Math.abs(high) || 0.5);
  low -= pad; high += pad;
  if (!log && Math.min(...usable) >= 0) low = Math.max(low, 0);
  const back = log ? Math.exp : (v) => v;
  const place = (v) => from + ((f(v) - low) / (high - low)) * (to - from);
  return { place, low: back(low), high: back(high), log };
}

/** Points that no other shown point beats. */
function frontOf(points, better) {
  return points.filter((p) => !points.some((q) =>
    q.cost <= p.cost && better * q.score >= better * p.score && (q.cost < p.cost || better * q.score > better * p.score)));
}

function usable(panel, logX, logY) {
  const cost = COSTS[plot.x].of, score = SCORES[plot.y];
  const kept = [];
  let left = 0;
  for (const line of panel.lines) {
    if (plot.hidden.has(line.curve)) continue;
    for (const p of line.points) {
      if (!isShown(line, p)) continue;
      const c = cost(p), s = score.of(p);
      const fits = Number.isFinite(c) && c !== null && s !== null && (!logX || c > 0) && (!logY || s > 0);
      if (fits) kept.push({ p, curve: line.curve, cost: c, score: s, spread: score.spread(p) });
      else left += 1;
    }
  }
  return { kept, left };
}

function drawPanel(view) {
  const { panel, svg } = view;
  const logX = byId("log-x").checked, logY = byId("log-y").checked;
  const width = Math.max(260, view.box.clientWidth), height = plot.views.length === 1 ? Math.min(460, Math.max(320, width * 0.5)) : 300;
  const left = 52, right = 12, top = 24, bottom = 40;
  const { kept, left: unseen } = usable(panel, logX, logY);
  const floor = plot.y === "fid" ? panel.floor : null, around = panel.floorSpread || 0;
  const bars = kept.flatMap((k) => (k.spread > 0 ? [k.score - k.spread, k.score + k.spread] : []));
  const x = scale(kept.map((k) => k.cost), logX, left, width - right);
  const y = scale([...kept.map((k) => k.score), ...bars.filter((b) => b > 0), ...(floor && kept.length ? [floor] : [])], logY, height - bottom, top);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.append(draw("text", { x: 2, y: 12 }, SCORES[plot.y].name(panel)));
  view.unseen = unseen;
  view.marks = [];
  hideTip(view);
  if (!x || !y) {
    svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to show with these settings"));
    return;
  }
  drawAxes(svg, x, y, { width, height, left, right, top, bottom });
  if (floor && y.place(floor) <= height - bottom + 1) {
    const at = y.place(floor), above = height - bottom - at < 18;
    if (around) {
      const from = y.place(Math.min(floor + around, y.high)), to = y.place(Math.max(floor - around, y.low));
      svg.append(draw("rect", { class: "floor-band", x: left, y: from, width: width - right - left, height: to - from }));
    }
    svg.append(draw("line", { class: "floor", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(draw("text", { x: left + 5, y: above ? at - 5 : at + 14 }, `real vs real, ${number(floor, 2)}${around ? ` ± ${number(around, 1)}` : ""}`));
  }
  const front = frontOf(kept.filter((k) => !k.p[DOUBTED]), SCORES[plot.y].better).sort((a, b) => a.cost - b.cost);
  svg.append(draw("polyline", { class: "front", points: front.map((k) => `${x.place(k.cost)},${y.place(k.score)}`).join(" ") }));
  const best = new Set(front);
  for (const line of panel.lines) {
    const points = kept.filter((k) => k.curve === line.curve).sort((a, b) => a.cost - b.cost);
    if (points.length) svg.append(drawCurve(view, DATA.curves[line.curve], points, best, x, y, height - bottom));
  }
  view.ring = draw("circle", { class: "ring", r: 9, visibility: "hidden" });
  svg.append(view.ring);
}

function drawAxes(svg, x, y, { width, height, left, right, top, bottom }) {
  for (const t of ticks(x.low, x.high, x.log, width < 420 ? 5 : 8)) {
    const at = x.place(t);
    svg.append(draw("line", { class: "grid", x1: at, x2: at, y1: top, y2: height - bottom }));
    svg.append(draw("text", { x: at, y: height - bottom + 16, "text-anchor": "middle" }, number(t)));
  }
  for (const t of ticks(y.low, y.high, y.log, 7)) {
    const at = y.place(t);
    svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(draw("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, number(t)));
  }
  svg.append(draw("path", { class: "frame", d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  svg.append(draw("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, COSTS[plot.x].name));
}

function drawCurve(view, curve, points, best, x, y, base) {
  const group = tint(draw("g", { "data-curve": points[0].curve }), curve);
  const path = points.map((k) => `${x.place(k.cost).toFixed(1)},${y.place(k.score).toFixed(1)}`).join(" ");
  group.append(draw("polyline", { class: "line", points: path, "stroke-dasharray": curve.dash.join(" ") || "none" }));
  for (const k of points) {
    const at = [x.place(k.cost), y.place(k.score)];
    if (k.spread > 0) {
      const low = y.log && k.score - k.spread <= 0 ? base : Math.min(base, y.place(k.score - k.spread));
      group.append(draw("line", { class: "bar", x1: at[0], x2: at[0], y1: low, y2: y.place(k.score + k.spread) }));
    }
    const mark = draw("path", { class: best.has(k) ? "mark on" : "mark", d: DATA.markers[curve.marker] });
    mark.setAttribute("transform", `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)}) scale(8)`);
    group.append(mark);
    if (k.p[WARNINGS]) group.append(draw("text", { x: at[0], y: at[1] - 8, "text-anchor": "middle" }, "!"));
    view.marks.push({ ...k, at, front: best.has(k) });
  }
  return group;
}

// --- values of one point, by pointer or by arrow keys ---

function showTip(view, mark) {
  view.current = mark;
  const p = mark.p, curve = DATA.curves[mark.curve];
  view.ring.setAttribute("cx", mark.at[0]);
  view.ring.setAttribute("cy", mark.at[1]);
  view.ring.setAttribute("visibility", "visible");
  const lines = [
    `${view.panel.score} ${withSpread(p[FID], p[FID_SD])}`,
    `NFE ${number(p[NFE])} (budget ${number(p[BUDGET])})`,
    ...(p[N] > 1 ? [`lowest of ${p[N]}: ${number(p[FID_MIN])}`] : []),
    ...(p[IS] === null ? [] : [`IS ${withSpread(p[IS], p[IS_SD])}`]),
    ...(p[WARNINGS] ? ["! with a warning: see the cell"] : []),
    ...(p[SPEED] === null ? [] : [`${number(p[SPEED], 3)} images/s`]),
    `${p[DONE]} done${p[SKIPPED] ? `, ${p[SKIPPED]} skipped` : ""}${p[FAILED] ? `, ${p[FAILED]} failed` : ""}${mark.front ? ", on the front" : ""}`,
  ];
  view.tip.replaceChildren(make("b", {}, curve.name), ...lines.flatMap((line) => [line, make("br")]).slice(0, -1));
  view.tip.hidden = false;
  const room = view.box.clientWidth, drawn = view.svg.viewBox.baseVal.width;
  const top = view.svg.getBoundingClientRect().top - view.box.getBoundingClientRect().top;
  const px = mark.at[0] * room / drawn;
  const beside = px + 16 + view.tip.offsetWidth <= room ? px + 16 : px - 16 - view.tip.offsetWidth;
  view.tip.style.left = `${Math.max(0, Math.min(beside, room - view.tip.offsetWidth))}px`;
  view.tip.style.top = `${top + Math.max(0, mark.at[1] - view.tip.offsetHeight - 12)}px`;
}

function hideTip(view) {
  view.current = null;
  view.tip.hidden = true;
  if (view.ring) view.ring.setAttribute("visibility", "hidden");
}

function nearest(view, event) {
  const box = view.svg.getBoundingClientRect();
  const at = [event.clientX - box.left, event.clientY - box.top];
  let found = null, least = 30;
  for (const mark of view.marks) {
    const distance = Math.hypot(mark.at[0] - at[0], mark.at[1] - at[1]);
    if (distance < least) { least = distance; found = mark; }
  }
  return found;
}

function stepTo(view, key) {
  const marks = view.marks, now = view.current;
  if (!marks.length) return;
  if (!now) { showTip(view, marks[0]); return; }
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const own = marks.filter((m) => m.curve === now.curve);
    showTip(view, own[Math.max(0, Math.min(own.length - 1, own.indexOf(now) + (key === "ArrowRight" ? 1 : -1)))]);
  } else {
    const curves = [...new Set(marks.map((m) => m.curve))];
    const next = curves[(curves.indexOf(now.curve) + (key === "ArrowDown" ? 1 : curves.length - 1)) % curves.length];
    const own = marks.filter((m) => m.curve === next);
    showTip(view, own.reduce((a, b) => (Math.abs(b.at[0] - now.at[0]) < Math.abs(a.at[0] - now.at[0]) ? b : a)));
  }
}

function openPoint(view) {
  const mark = view.current, panel = DATA.panels.indexOf(view.panel);
  if (!mark) return;
  const rows = [];
  for (let i = 0; i < ROWS; i++) {
    if (DATA.rowPanel[i] === panel && DATA.rowCurve[i] === mark.curve && value("nfe_budget", i) === mark.p[BUDGET]) rows.push(i);
  }
  const row = rows.find((i) => value("status", i) === "done") ?? rows[0];
  if (row !== undefined) openCell(row);
}

function newView(panel) {
  const box = make("div", { class: "panel" });
  const svg = draw("svg", { tabindex: 0, role: "img", "aria-label": `${panel.name}. Arrow keys walk along the points, Enter opens the cell. All values are in the table of cells.` });
  const tip = make("div", { class: "tip", role: "status" });
  tip.hidden = true;
  if (panel.title) box.append(make("h3", {}, panel.title)); // a panel alone has the section's title
  box.append(svg, tip);
  const view = { panel, box, svg, tip, marks: [], current: null };
  svg.addEventListener("pointermove", (event) => {
    const mark = nearest(view, event);
    if (mark && mark !== view.current) showTip(view, mark);
    if (!mark) hideTip(view);
  });
  svg.addEventListener("pointerdown", () => { view.before = view.current; });
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hideTip(view); });
  svg.addEventListener("blur", () => hideTip(view));
  svg.addEventListener("click", (event) => {
    const mark = nearest(view, event);
    if (!mark) return;
    const again = view.before === mark; // a finger's first touch shows the values, as a mouse's hover does
    showTip(view, mark);
    if (again) openPoint(view);
  });
  svg.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) { event.preventDefault(); stepTo(view, event.key); }
    // Else the same key press would go on to the dialog's Close button.
    if (event.key === "Enter") { event.preventDefault(); openPoint(view); }
    if (event.key === "Escape") hideTip(view);
  });
  return view;
}

// --- the whole plot ---

function redraw() {
  for (const view of plot.views) drawPanel(view);
  const unseen = plot.views.reduce((sum, view) => sum + view.unseen, 0);
  const bars = plot.views.some((view) => view.marks.some((m) => m.spread > 0));
  byId("plot-note").textContent = [
    "Filled: no shown point is both cheaper and better.",
    plot.y === "fid" && plot.views.some((view) => view.panel.floor) ? "Dashed: the floor, what real images score against other real ones." : "",
    plot.y === "fid" && plot.views.some((view) => view.panel.floorSpread) ? "Its band: ±1 s.d. over sets of them." : "",
    plot.views.some((view) => view.marks.some((m) => m.p[WARNINGS])) ? "!: with a warning." : "",
    bars ? "Bars: ±1 s.d. over seeds." : "",
    unseen ? `Not shown: ${unseen} finished point(s) without a value${byId("log-x").checked || byId("log-y").checked ? " above zero" : ""}.` : "",
    "A point opens its cell.",
  ].filter(Boolean).join(" ");
}

function relayout() {
  plot.views = shownPanels().map(newView);
  const area = byId("panels");
  area.classList.toggle("single", plot.views.length === 1);
  area.replaceChildren(...plot.views.map((view) => view.box));
  redraw();
}

function swatch(curve) {
  const svg = tint(draw("svg", { width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true", class: "panel" }), curve);
  svg.append(draw("line", { x1: 0, x2: 30, y1: 7, y2: 7, stroke: "currentColor", "stroke-width": 1.7, "stroke-dasharray": curve.dash.join(" ") || "none" }));
  svg.append(draw("path", { d: DATA.markers[curve.marker], transform: "translate(15 7) scale(8)", fill: "currentColor" }));
  return svg;
}

function fillLegend() {
  const drawn = new Set(DATA.panels.flatMap((panel) => panel.lines.filter((l) => l.points.some((p) => p[DONE] > 0)).map((l) => l.curve)));
  const buttons = new Map();
  const press = (curve, on) => {
    if (on) plot.hidden.delete(curve); else plot.hidden.add(curve);
    buttons.get(curve).setAttribute("aria-pressed", String(on));
  };
  for (const [i, curve] of DATA.curves.entries()) {
    if (!drawn.has(i)) continue;
    const button = make("button", { type: "button", "aria-pressed": "true", title: curve.family }, swatch(curve), curve.name);
    buttons.set(i, button);
    button.addEventListener("click", () => { press(i, plot.hidden.has(i)); redraw(); });
    const dim = (on) => () => {
      for (const group of document.querySelectorAll("#panels g[data-curve]")) group.classList.toggle("faint", on && group.dataset.curve !== String(i));
    };
    button.addEventListener("pointerenter", dim(true));
    button.addEventListener("pointerleave", dim(false));
  }
  const all = (on) => () => { for (const curve of buttons.keys()) press(curve, on); redraw(); };
  const some = [["Show all", true], ["Hide all", false]].map(([name, on]) => {
    const button = make("button", { type: "button", class: "plain" }, name);
    button.addEventListener("click", all(on));
    return button;
  });
  byId("legend").replaceChildren(...buttons.values(), ...(buttons.size > 3 ? some : []));
  return buttons.size;
}

function startPlot() {
  byId("plot-common").textContent = DATA.title;
  if (!fillLegend()) {
    byId("plot-controls").hidden = byId("legend").hidden = true;
    byId("plot-note").textContent = "No cell has finished: there is nothing to draw. The reasons are below.";
    return;
  }
  const fill = (id, options) => {
    byId(id).replaceChildren(...options.map(([key, name]) => make("option", { value: key }, name)));
    byId(id).addEventListener("change", () => { plot[id.slice(5)] = byId(id).value; relayout(); });
  };
  fill("plot-y", [["fid", [...new Set(DATA.panels.map((panel) => panel.score))].join(" or ")], ["is", "IS"]]);
  fill("plot-x", [["nfe", "NFE"], ["seconds", "seconds"]]);
  const titled = DATA.panels.map((panel, i) => [String(i), panel.title || panel.name]).filter(([i]) => shownPanels().includes(DATA.panels[Number(i)]));
  fill("plot-panel", [["all", "all"], ...titled]);
  byId("plot-panel-label").hidden = titled.length < 2;
  for (const id of ["log-x", "log-y"]) { byId(id).checked = true; byId(id).addEventListener("change", redraw); }
  relayout();
  let width = byId("panels").clientWidth;
  new ResizeObserver(() => {
    if (byId("panels").clientWidth !== width) { width = byId("panels").clientWidth; redraw(); }
  }).observe(byId("panels"));
}
