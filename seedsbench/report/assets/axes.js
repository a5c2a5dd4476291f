// Axes: round numbers, how far an axis reaches, from values to pixels.
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

// One outlier does not flatten the rest: the rule of report/limits.py.
const FEWEST = 8, ALWAYS_SHOWN = 0.95, EMPTIEST = 0.5;

/** The best of scores and anchors, and the worst score that leaves half of the axis to the best 95 % of the scores. */
function endsOf(scores, anchors, better, f) {
  const ranked = [...scores].sort((a, b) => better * (b - a)); // best first
  const best = [ranked[0], ...anchors].reduce((a, b) => (better * (b - a) > 0 ? b : a));
  const reach = ranked.map((score) => Math.abs(f(score) - f(best)));
  const usual = ranked.length >= FEWEST ? reach[Math.floor(ALWAYS_SHOWN * (ranked.length - 1))] : Infinity;
  return [best, ranked.findLast((_, i) => EMPTIEST * reach[i] <= usual)];
}

const measure = (log) => (log ? Math.log : (v) => v);

/** A scale from values to pixels, from the lowest of them to the highest and a margin; null where nothing can be shown. least: the ratio of its ends, at least, where it is logarithmic. */
function scale(values, log, least, from, to) {
  const usable = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
  if (!usable.length) return null;
  const f = measure(log), back = log ? Math.exp : (v) => v;
  let low = f(Math.min(...usable)), high = f(Math.max(...usable));
  const pad = Math.max(0.06 * (high - low), log ? (Math.log(least) - (high - low)) / 2 : 0.05 * Math.abs(high) || 0.5);
  low -= pad; high += pad;
  if (!log && Math.min(...usable) >= 0) low = Math.max(low, 0);
  return exactScale(back(low), back(high), log, from, to);
}

/** A scale between two values, without margin. */
function exactScale(low, high, log, from, to) {
  const f = measure(log), back = log ? Math.exp : (v) => v;
  const place = (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
  const at = (pixel) => back(f(low) + ((pixel - from) / (to - from)) * (f(high) - f(low)));
  return { place, at, low, high, log, holds: (v) => v >= low && v <= high };
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
