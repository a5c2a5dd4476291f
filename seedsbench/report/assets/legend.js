// The legend: its entries hide and show curves.
function swatch(curve) {
  const svg = tint(draw("svg", { width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true", class: "panel" }), curve);
  svg.append(draw("line", { x1: 0, x2: 30, y1: 7, y2: 7, stroke: "currentColor", "stroke-width": 1.7, "stroke-dasharray": curve.dash.join(" ") || "none" }));
  svg.append(draw("path", { d: DATA.markers[curve.marker], transform: "translate(15 7) scale(8)", fill: "currentColor" }));
  return svg;
}

/** Show these curves and hide all others. */
function showOnly(curves) {
  const wanted = new Set(curves);
  plot.hidden = new Set([...plot.buttons.keys()].filter((i) => !wanted.has(i)));
  for (const [i, button] of plot.buttons) button.setAttribute("aria-pressed", String(wanted.has(i)));
  redraw();
  saveState();
}

function toggle(curve) {
  const shown = [...plot.buttons.keys()].filter((i) => !plot.hidden.has(i));
  showOnly(plot.hidden.has(curve) ? [...shown, curve] : shown.filter((i) => i !== curve));
}

/** A curve alone; all of them where it is alone already. */
function isolate(curve) {
  const alone = plot.hidden.size === plot.buttons.size - 1 && !plot.hidden.has(curve);
  showOnly(alone ? plot.buttons.keys() : [curve]);
}

function fillLegend() {
  const drawn = new Set(DATA.panels.flatMap((panel) => panel.lines.filter((l) => l.points.some((p) => p[DONE] > 0)).map((l) => l.curve)));
  for (const [i, curve] of DATA.curves.entries()) {
    if (!drawn.has(i)) continue;
    const hint = `${curve.family}. Press to hide or show; twice, or with Shift, for it alone.`;
    const button = make("button", { type: "button", "aria-pressed": "true", title: hint }, swatch(curve), curve.name);
    plot.buttons.set(i, button);
    button.addEventListener("click", (event) => (event.shiftKey ? isolate(i) : toggle(i)));
    button.addEventListener("dblclick", (event) => { if (!event.shiftKey) isolate(i); });
    const dim = (on) => () => {
      for (const group of document.querySelectorAll("#panels g[data-curve]")) group.classList.toggle("faint", on && group.dataset.curve !== String(i));
    };
    button.addEventListener("pointerenter", dim(true));
    button.addEventListener("pointerleave", dim(false));
  }
  const some = [["Show all", () => plot.buttons.keys()], ["Hide all", () => []]].map(([name, which]) => {
    const button = make("button", { type: "button", class: "plain" }, name);
    button.addEventListener("click", () => showOnly(which()));
    return button;
  });
  byId("legend").replaceChildren(...plot.buttons.values(), ...(plot.buttons.size > 3 ? some : []));
  return plot.buttons.size;
}
