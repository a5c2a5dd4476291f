// Two solvers of a panel compared at each budget: the difference over common runs, its interval, and the verdict.
// Fields of a verdict, in the order of html_data.VERDICT.
const AT = 0, FIRST = 1, SECOND = 2, DIFFERENCE = 3, ERROR = 4, LOW = 5, HIGH = 6, RUNS = 7, PAIRED = 8, UNPAIRED = 9, CORRELATION = 10, CHANCE = 11, WORD = 12, WHY = 13;
const OTHER_WAY = { better: "worse", worse: "better", inconclusive: "inconclusive" };

/** The verdicts on `a` beside `b`, lowest budget first: turned where the page holds them the other way round. */
function verdictsOn(panel, a, b) {
  return panel.verdicts.filter((v) => (v[FIRST] === a && v[SECOND] === b) || (v[FIRST] === b && v[SECOND] === a)).map((v) => {
    if (v[FIRST] === a) return v;
    const turned = [...v];
    const negative = (x) => (x === null ? null : -x);
    [turned[FIRST], turned[SECOND], turned[DIFFERENCE], turned[LOW], turned[HIGH]] = [a, b, negative(v[DIFFERENCE]), negative(v[HIGH]), negative(v[LOW])];
    turned[WORD] = OTHER_WAY[v[WORD]];
    return turned;
  }).sort((v, w) => v[AT] - w[AT]);
}

/** The interval as a bar beside a line at zero, each to its own scale. */
function intervalBar(verdict) {
  const reach = Math.max(...[verdict[LOW], verdict[HIGH], verdict[DIFFERENCE]].map((x) => Math.abs(x ?? 0)), 1e-300);
  const width = 200, middle = width / 2;
  const place = (v) => Math.max(1, Math.min(width - 1, middle + (v / reach) * (middle - 4)));
  const told = `${number(verdict[LOW], 2)} to ${number(verdict[HIGH], 2)}`;
  const svg = draw("svg", { class: "interval", width, height: 20, viewBox: `0 0 ${width} 20`, role: "img", "aria-label": told });
  svg.append(draw("line", { class: "zero", x1: middle, x2: middle, y1: 0, y2: 20 }));
  if (verdict[LOW] !== null) svg.append(draw("line", { class: verdict[WORD], x1: place(verdict[LOW]), x2: place(verdict[HIGH]), y1: 10, y2: 10 }));
  svg.append(draw("circle", { class: verdict[WORD], cx: place(verdict[DIFFERENCE]), cy: 10, r: 3.5 }));
  return svg;
}

function verdictWords(v) {
  const words = v[WHY] ? `${v[WORD]}: ${v[WHY]}` : v[WORD];
  return v[CHANCE] === null ? words : `${words} (p = ${number(v[CHANCE], 1)})`;
}

function drawPairs() {
  const panel = DATA.panels[Number(byId("pair-panel").value)];
  const [a, b] = ["pair-first", "pair-second"].map((id) => Number(byId(id).value));
  const found = a === b ? [] : verdictsOn(panel, a, b);
  const score = (curve, budget) => {
    const p = panel.lines.find((line) => line.curve === curve)?.points.find((q) => q[BUDGET] === budget);
    return p ? withSpread(p[FID], p[FID_SD]) : "–";
  };
  const lines = found.map((v) => make("tr", {},
    make("th", { scope: "row", class: "number" }, number(v[AT])),
    make("td", {}, score(a, v[AT])), make("td", {}, score(b, v[AT])),
    make("td", { class: "number" }, withSpread(v[DIFFERENCE], v[ERROR])),
    make("td", {}, intervalBar(v)), make("td", {}, v[LOW] === null ? "–" : `${number(v[LOW], 2)} to ${number(v[HIGH], 2)}`),
    make("td", { class: "number" }, number(v[UNPAIRED], 2)), make("td", { class: "number" }, number(v[CORRELATION], 2)),
    make("td", {}, `${v[RUNS]}${v[PAIRED] || v[CHANCE] === null ? "" : " (unpaired)"}`), make("td", {}, verdictWords(v))));
  const [first, second] = [a, b].map((i) => DATA.curves[i]?.name ?? "");
  const heads = ["NFE budget", `${panel.score}, ${first}`, `${panel.score}, ${second}`, "difference", "95 % interval", "", "error if unpaired", "correlation", "runs", `${first} is`];
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((h) => make("th", { scope: "col" }, h)))), make("tbody", {}, ...lines));
  byId("pair-table").replaceChildren(found.length ? table : make("p", { class: "note" }, "No budget at which both have a score without further warnings."));
}

/** Fill the lists of curves with those of the panel; the two best at its largest budget come first. */
function choosePair() {
  const panel = DATA.panels[Number(byId("pair-panel").value)];
  const curves = [...new Set(panel.verdicts.flatMap((v) => [v[FIRST], v[SECOND]]))].sort((a, b) => a - b);
  const last = panel.verdicts.filter((v) => v[AT] === Math.max(...panel.verdicts.map((w) => w[AT])))[0];
  for (const [id, pick] of [["pair-first", last[FIRST]], ["pair-second", last[SECOND]]]) {
    byId(id).replaceChildren(...curves.map((i) => make("option", { value: i }, DATA.curves[i].name)));
    byId(id).value = String(pick);
  }
  drawPairs();
}

function startPairs() {
  const titled = [...DATA.panels.entries()].filter(([, panel]) => panel.verdicts.length);
  byId("pairs").hidden = !titled.length;
  if (!titled.length) return;
  byId("pair-panel").replaceChildren(...titled.map(([i, panel]) => make("option", { value: i }, panel.title || panel.name)));
  byId("pair-panel-label").hidden = titled.length < 2;
  byId("pair-panel").addEventListener("change", choosePair);
  for (const id of ["pair-first", "pair-second"]) byId(id).addEventListener("change", drawPairs);
  choosePair();
}
