// The interactive Pareto plot: panels of curves, log or linear axes, hover and arrow keys, a legend that hides curves.
// Fields of a point, in the order of html_data.POINT. FID: what its panel is judged by, whose name is panel.score.
const BUDGET = 0, NFE = 1, FID = 2, FID_SD = 3, N = 4, IS = 5, IS_SD = 6, SPEED = 7, SECONDS = 8, DONE = 9, SKIPPED = 10, FAILED = 11, FID_MIN = 12, WARNINGS = 13, DOUBTED = 14;
const COSTS = {
  nfe: { name: "NFE per sample, measured", of: (p) => p[NFE] },
  seconds: { name: "sampling seconds per image", of: (p) => p[SECONDS] },
};
const SCORES = {
  fid: { name: (panel) => panel.axis, of: (p) => p[FID], spread: (p) => p[FID_SD], better: -1, least: 1.6 },
  is: { name: (panel) => `IS, ${panel.features}`, of: (p) => p[IS], spread: (p) => p[IS_SD], better: 1, least: 1.05 },
};
// Fields of a published score, in the order of html_data.PUBLISHED_POINT.
const P_NFE = 0, P_FID = 1, P_SOLVER = 2, P_SOURCE = 3, P_WHERE = 4;
// buttons: of the legend, by curve. zoom: [low cost, high cost, low score, high score] by a panel's slug.
const plot = { x: "nfe", y: "fid", panel: "all", hidden: new Set(), zoom: new Map(), buttons: new Map(), views: [] };

/** Whether a value passes the filter of its name, if there is one. */
function passes(name, v) {
  const wanted = byId(`filter-${name}`)?.value ?? "";
  return wanted === "" || wanted === String(v);
}

const isShown = (line, p) => p[DONE] > 0 && passes("solver", DATA.curves[line.curve].solver) && passes("nfe_budget", p[BUDGET]);

function shownPanels() {
  const chosen = plot.panel === "all" ? DATA.panels : DATA.panels.filter((panel) => panel.slug === plot.panel);
  return chosen.filter((panel) => passes("model", panel.model) && passes("regime", panel.regime) && panel.lines.some((line) => line.points.some((p) => isShown(line, p))));
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

/** Published scores of a panel, where they are asked for and the axes are theirs. */
function publishedOf(panel) {
  return plot.x === "nfe" && plot.y === "fid" && byId("published").checked ? panel.published : [];
}

/** The published scores that none of ours beats at their cost or less: the axes reach to these. */
const unbeaten = (others, ours) => others.filter((o) => ours.every((k) => k.cost > o[P_NFE] || k.score > o[P_FID]));

/** Both scales of a panel: a zoom's, or of all that is shown but outliers. */
function scalesOf(view, kept, floor, others) {
  const { left, right, top, bottom } = view.frame;
  const [logX, logY] = [byId("log-x").checked, byId("log-y").checked], zoom = plot.zoom.get(view.panel.slug);
  if (zoom && (!logX || zoom[0] > 0) && (!logY || zoom[2] > 0)) {
    return [exactScale(zoom[0], zoom[1], logX, left, right), exactScale(zoom[2], zoom[3], logY, bottom, top)];
  }
  const better = unbeaten(others, kept), scores = kept.map((k) => k.score);
  const anchors = [...(floor ? [floor] : []), ...better.map((o) => o[P_FID])];
  const ends = scores.length ? endsOf(scores, anchors, SCORES[plot.y].better, measure(logY)) : [];
  const inside = kept.filter((k) => k.score >= Math.min(...ends) && k.score <= Math.max(...ends));
  const bars = inside.flatMap((k) => (k.spread > 0 ? [k.score - k.spread, k.score + k.spread] : []));
  const costs = [...kept.map((k) => k.cost), ...better.map((o) => o[P_NFE])];
  return [scale(costs, logX, 2, left, right), scale([...ends, ...bars], logY, SCORES[plot.y].least, bottom, top)];
}

function drawPanel(view) {
  const { panel, svg } = view;
  const width = Math.max(260, view.box.clientWidth), height = plot.views.length === 1 ? Math.min(460, Math.max(320, width * 0.5)) : 300;
  view.frame = { left: 52, right: width - 12, top: 34, bottom: height - 40 };
  const { left, right, top, bottom } = view.frame;
  const { kept, left: unseen } = usable(panel, byId("log-x").checked, byId("log-y").checked);
  const floor = plot.y === "fid" ? panel.floor : null, others = kept.length ? publishedOf(panel) : [];
  const [x, y] = scalesOf(view, kept, floor, others);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.append(draw("text", { x: 2, y: 12 }, SCORES[plot.y].name(panel)));
  Object.assign(view, { unseen, x, y, marks: [], crosses: [], leaving: 0 });
  hideTip(view);
  if (!x || !y) {
    svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to show with these settings"));
    return;
  }
  // What lies beyond the frame is cut off by an SVG of its own.
  const inner = draw("svg", { x: left, y: top, width: right - left, height: bottom - top, viewBox: `${left} ${top} ${right - left} ${bottom - top}` });
  const over = draw("g");
  drawAxes(svg, x, y, { width, height, left, right: width - right, top, bottom: height - bottom });
  svg.append(inner, over);
  if (floor) drawFloor(view, inner, over, floor);
  drawPublished(view, inner, others);
  const best = new Set(frontOf(kept.filter((k) => !k.p[DOUBTED]), SCORES[plot.y].better));
  for (const line of panel.lines) {
    const points = kept.filter((k) => k.curve === line.curve).sort((a, b) => a.cost - b.cost);
    if (points.length) drawCurve(view, inner, over, points, best);
  }
  view.ring = draw("circle", { class: "ring", r: 9, visibility: "hidden" });
  svg.append(view.ring);
}

function drawFloor(view, inner, over, floor) {
  const { left, right, bottom } = view.frame, { y, panel } = view;
  if (!y.holds(floor)) return;
  const at = y.place(floor), around = panel.floorSpread || 0;
  if (around) {
    const from = y.place(Math.min(floor + around, y.high)), to = y.place(Math.max(floor - around, y.low));
    inner.append(draw("rect", { class: "floor-band", x: left, y: from, width: right - left, height: to - from }));
  }
  inner.append(draw("line", { class: "floor", x1: left, x2: right, y1: at, y2: at }));
  over.append(draw("text", { class: "halo", x: left + 5, y: bottom - at < 18 ? at - 5 : at + 14 }, `real vs real, ${number(floor, 2)}${around ? ` ± ${number(around, 1)}` : ""}`));
}

function drawPublished(view, inner, others) {
  const group = draw("g", { class: "published" });
  for (const other of others) {
    if (!view.x.holds(other[P_NFE]) || !view.y.holds(other[P_FID])) continue;
    const at = [view.x.place(other[P_NFE]), view.y.place(other[P_FID])];
    group.append(draw("path", { d: `M${at[0] - 3.5} ${at[1] - 3.5}l7 7m0 -7l-7 7` }));
    view.crosses.push({ other, at });
  }
  if (view.crosses.length) inner.append(group);
}

/** A curve: its interval shaded, line and marks; where it leaves the frame an arrow with the value. */
function drawCurve(view, inner, over, points, best) {
  const { x, y, frame } = view, curve = DATA.curves[points[0].curve];
  const group = tint(draw("g", { "data-curve": points[0].curve }), curve), above = group.cloneNode();
  const low = (k) => (y.log && k.score - k.spread <= 0 ? frame.bottom : y.place(k.score - k.spread));
  const path = (list, place) => list.map((k) => `${x.place(k.cost).toFixed(1)},${place(k).toFixed(1)}`).join(" ");
  if (points.length > 1 && points.some((k) => k.spread > 0)) {
    const around = `${path(points, (k) => y.place(k.score + k.spread))} ${path([...points].reverse(), low)}`;
    group.append(draw("polygon", { class: "band", points: around }));
  } else if (points[0].spread > 0) {
    const at = x.place(points[0].cost);
    group.append(draw("line", { class: "bar", x1: at, x2: at, y1: low(points[0]), y2: y.place(points[0].score + points[0].spread) }));
  }
  group.append(draw("polyline", { class: "line", points: path(points, (k) => y.place(k.score)), "stroke-dasharray": curve.dash.join(" ") || "none" }));
  for (const k of points) {
    if (!x.holds(k.cost)) continue;
    if (!y.holds(k.score)) { above.append(...leavingMark(view, k)); continue; }
    const at = [x.place(k.cost), y.place(k.score)];
    const mark = draw("path", { class: best.has(k) ? "mark on" : "mark", d: DATA.markers[curve.marker] });
    mark.setAttribute("transform", `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)}) scale(8)`);
    above.append(mark);
    if (k.p[WARNINGS]) above.append(draw("text", { x: at[0], y: at[1] - 8, "text-anchor": "middle" }, "!"));
    view.marks.push({ ...k, at, front: best.has(k) });
  }
  inner.append(group);
  over.append(above);
}

/** An arrow at the edge of the frame and the value beside it; of several near one place the values stand in a column. */
function leavingMark(view, k) {
  const up = k.score > view.y.high, x = view.x.place(k.cost), y = up ? view.frame.top : view.frame.bottom;
  const beside = view.marks.filter((m) => m.leaves && Math.abs(m.at[1] - y) < 9 && Math.abs(m.at[0] - x) < 40).length;
  const d = up ? `M${x - 5} ${y + 4}h10l-5 -9z` : `M${x - 5} ${y - 4}h10l-5 9z`;
  const told = draw("text", { class: "value halo", x: x + 8, y: up ? y - 1 + 12 * beside : y - 4 - 12 * beside }, `${number(k.score, 3)}${k.p[WARNINGS] ? " !" : ""}`);
  view.marks.push({ ...k, at: [x, y], front: false, leaves: true });
  view.leaving += 1;
  return [draw("path", { class: "leaves", d }), told];
}

// --- values of one point, by pointer or by arrow keys ---

/** What is said of a point of ours: its curve's name, then a line each. */
function toldOf(view, mark) {
  const p = mark.p;
  return [
    DATA.curves[mark.curve].name,
    `${view.panel.score} ${withSpread(p[FID], p[FID_SD])}`,
    `NFE ${number(p[NFE])} (budget ${number(p[BUDGET])})`,
    ...(p[N] > 1 ? [`lowest of ${p[N]}: ${number(p[FID_MIN])}`] : []),
    ...(p[IS] === null ? [] : [`IS ${withSpread(p[IS], p[IS_SD])}`]),
    ...(p[WARNINGS] ? ["! with a warning: see the cell"] : []),
    ...(p[SPEED] === null ? [] : [`${number(p[SPEED], 3)} images/s`]),
    `${p[DONE]} done${p[SKIPPED] ? `, ${p[SKIPPED]} skipped` : ""}${p[FAILED] ? `, ${p[FAILED]} failed` : ""}${mark.front ? ", on the front" : ""}`,
  ];
}

/** The same of a published one. */
const printedOf = (o) => [o[P_SOLVER], `FID ${number(o[P_FID])}, published`, `NFE ${number(o[P_NFE])}`, o[P_SOURCE], o[P_WHERE]].filter(Boolean);

function showTip(view, mark) {
  view.current = mark;
  view.ring.setAttribute("cx", mark.at[0]);
  view.ring.setAttribute("cy", mark.at[1]);
  view.ring.setAttribute("visibility", "visible");
  const [name, ...lines] = mark.other ? printedOf(mark.other) : toldOf(view, mark);
  view.tip.replaceChildren(make("b", {}, name), ...lines.flatMap((line) => [line, make("br")]).slice(0, -1));
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
  for (const mark of [...view.marks, ...view.crosses]) {
    const distance = Math.hypot(mark.at[0] - at[0], mark.at[1] - at[1]);
    if (distance < least) { least = distance; found = mark; }
  }
  return found;
}

function stepTo(view, key) {
  const marks = view.marks, now = marks.includes(view.current) ? view.current : null;
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
  if (!mark || mark.other) return;
  const rows = [];
  for (let i = 0; i < ROWS; i++) {
    if (DATA.rowPanel[i] === panel && DATA.rowCurve[i] === mark.curve && value("nfe_budget", i) === mark.p[BUDGET]) rows.push(i);
  }
  const row = rows.find((i) => value("status", i) === "done") ?? rows[0];
  if (row !== undefined) openCell(row);
}

function newView(panel) {
  const box = make("div", { class: "panel" });
  const svg = draw("svg", { tabindex: 0, role: "img", "aria-label": `${panel.name}. Arrow keys walk along the points, Enter opens the cell, plus and minus zoom, 0 resets. All values are in the table of cells.` });
  const tip = make("div", { class: "tip", role: "status" });
  tip.hidden = true;
  if (panel.title) box.append(make("h3", {}, panel.title)); // a panel alone has the section's title
  box.append(svg, tip);
  const view = { panel, box, svg, tip, marks: [], current: null };
  svg.addEventListener("pointermove", (event) => {
    if (view.drag) return;
    const mark = nearest(view, event);
    if (mark && mark !== view.current) showTip(view, mark);
    if (!mark) hideTip(view);
  });
  svg.addEventListener("pointerdown", () => { view.before = view.current; });
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hideTip(view); });
  svg.addEventListener("blur", () => hideTip(view));
  svg.addEventListener("click", (event) => {
    const mark = nearest(view, event);
    if (!mark || view.dragged) return;
    const again = view.before === mark; // a finger's first touch shows the values, as a mouse's hover does
    showTip(view, mark);
    if (again) openPoint(view);
  });
  svg.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) { event.preventDefault(); stepTo(view, event.key); }
    // Else the same key press would go on to the dialog's Close button.
    if (event.key === "Enter") { event.preventDefault(); openPoint(view); }
    if (event.key === "Escape") hideTip(view);
    if (event.key === "+" || event.key === "=") zoomAround(view, 0.5);
    if (event.key === "-") zoomAround(view, 2);
    if (event.key === "0") setZoom(view, null);
  });
  startZoom(view);
  return view;
}

// --- the whole plot ---

function redraw() {
  for (const view of plot.views) drawPanel(view);
  const unseen = plot.views.reduce((sum, view) => sum + view.unseen, 0);
  const bars = plot.views.some((view) => view.marks.some((m) => m.spread > 0));
  const crosses = plot.views.reduce((sum, view) => sum + view.crosses.length, 0);
  byId("reset-zoom").hidden = !plot.views.some((view) => plot.zoom.has(view.panel.slug));
  byId("plot-note").textContent = [
    "Filled: no shown point is both cheaper and better.",
    plot.y === "fid" && plot.views.some((view) => view.panel.floor) ? "Dashed: the floor, what real images score against other real ones." : "",
    plot.y === "fid" && plot.views.some((view) => view.panel.floorSpread) ? "Its band: ±1 s.d. over sets of them." : "",
    plot.views.some((view) => view.marks.some((m) => m.p[WARNINGS])) ? "!: with a warning." : "",
    bars ? "Shaded: ±1 s.d. over seeds." : "",
    plot.views.some((view) => view.leaving) ? "Arrows: beyond the axis, with their values." : "",
    crosses ? `Crosses: ${crosses} published scores, measured by others.` : "",
    unseen ? `Not shown: ${unseen} finished point(s) without a value${byId("log-x").checked || byId("log-y").checked ? " above zero" : ""}.` : "",
    "A point opens its cell. Drag a box to zoom, double-click to reset.",
  ].filter(Boolean).join(" ");
}

function relayout() {
  plot.views = shownPanels().map(newView);
  const area = byId("panels");
  area.classList.toggle("single", plot.views.length === 1);
  area.replaceChildren(...plot.views.map((view) => view.box));
  redraw();
}

function startPlot() {
  byId("plot-common").textContent = DATA.title;
  if (!fillLegend()) {
    byId("plot-controls").hidden = byId("legend").hidden = true;
    byId("plot-note").textContent = "No cell has finished: there is nothing to draw. The reasons are below.";
    return;
  }
  const fill = (id, options, then) => {
    byId(id).replaceChildren(...options.map(([key, name]) => make("option", { value: key }, name)));
    byId(id).addEventListener("change", () => { plot[id.slice(5)] = byId(id).value; then(); relayout(); });
  };
  const afresh = () => plot.zoom.clear(); // other values: a box of the old ones means nothing
  fill("plot-y", [["fid", [...new Set(DATA.panels.map((panel) => panel.score))].join(" or ")], ["is", "IS"]], afresh);
  fill("plot-x", [["nfe", "NFE"], ["seconds", "seconds"]], afresh);
  const titled = shownPanels().map((panel) => [panel.slug, panel.title || panel.name]);
  fill("plot-panel", [["all", "all"], ...titled], () => {});
  byId("plot-panel-label").hidden = titled.length < 2;
  byId("published").checked = DATA.overlay;
  byId("published-label").hidden = !DATA.panels.some((panel) => panel.published.length);
  for (const id of ["log-x", "log-y"]) byId(id).checked = true;
  for (const id of ["log-x", "log-y", "published"]) byId(id).addEventListener("change", redraw);
  byId("reset-zoom").addEventListener("click", () => { plot.zoom.clear(); redraw(); saveState(); });
  relayout();
  let width = byId("panels").clientWidth;
  new ResizeObserver(() => {
    if (byId("panels").clientWidth !== width) { width = byId("panels").clientWidth; redraw(); }
  }).observe(byId("panels"));
}
