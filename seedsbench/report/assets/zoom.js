// Box zoom: drag a box over a panel with mouse or pen; a double click, the button or 0 resets. A finger scrolls the page.
const LEAST_DRAG = 6; // pixels: less is a click

/** Show a part of a panel, [low cost, high cost, low score, high score]; null: all of it. */
function setZoom(view, zoom) {
  if (zoom) plot.zoom.set(view.panel.slug, zoom.map((v) => Number(v.toPrecision(4))));
  else plot.zoom.delete(view.panel.slug);
  redraw();
  saveState();
}

/** The same so many times as large, around the current point or the middle. */
function zoomAround(view, times) {
  const { left, right, top, bottom } = view.frame;
  if (!view.x || !view.y) return;
  const [x, y] = view.current?.at ?? [(left + right) / 2, (top + bottom) / 2];
  const at = (from, to, around, placed) => [from, to].map((end) => placed.at(around + times * (end - around)));
  setZoom(view, [...at(left, right, x, view.x), ...at(bottom, top, y, view.y)]);
}

function startZoom(view) {
  const { svg } = view;
  const within = (event) => {
    const box = svg.getBoundingClientRect(), { left, right, top, bottom } = view.frame;
    return [Math.max(left, Math.min(right, event.clientX - box.left)), Math.max(top, Math.min(bottom, event.clientY - box.top))];
  };
  svg.addEventListener("pointerdown", (event) => {
    view.dragged = false;
    if (event.button !== 0 || event.pointerType === "touch" || !view.x || !view.y) return;
    view.drag = { from: within(event), to: within(event), box: null };
  });
  svg.addEventListener("pointermove", (event) => {
    const { drag } = view;
    if (!drag) return;
    drag.to = within(event);
    const [[a, b], [c, d]] = [drag.from, drag.to];
    if (!drag.box && Math.hypot(c - a, d - b) < LEAST_DRAG) return;
    if (!drag.box) {
      hideTip(view);
      svg.setPointerCapture(event.pointerId);
      drag.box = draw("rect", { class: "zoom" });
      svg.append(drag.box);
    }
    for (const [name, v] of Object.entries({ x: Math.min(a, c), y: Math.min(b, d), width: Math.abs(c - a), height: Math.abs(d - b) })) drag.box.setAttribute(name, v);
  });
  const end = (done) => () => {
    const { drag } = view;
    view.drag = null;
    if (!drag?.box) return;
    drag.box.remove();
    view.dragged = true; // the click that follows opens nothing
    const [[a, b], [c, d]] = [drag.from, drag.to];
    if (!done || Math.abs(c - a) < LEAST_DRAG || Math.abs(d - b) < LEAST_DRAG) return;
    setZoom(view, [view.x.at(Math.min(a, c)), view.x.at(Math.max(a, c)), view.y.at(Math.max(b, d)), view.y.at(Math.min(b, d))]);
  };
  svg.addEventListener("pointerup", end(true));
  svg.addEventListener("pointercancel", end(false));
  svg.addEventListener("dblclick", () => setZoom(view, null));
}
