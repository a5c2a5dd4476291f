// What the parts of the page share: the data, elements, numbers, the theme. All text goes in as text, never as markup.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; strings become text nodes. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Let an element have a curve's colour under either theme. */
function tint(element, curve) {
  element.classList.add("tinted");
  element.style.setProperty("--on-light", curve.light);
  element.style.setProperty("--on-dark", curve.dark);
  return element;
}

/** A number as people write it: 0.2943, 19, 2,000. */
function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  if (Number.isInteger(value) || size >= 1000) return Math.round(value).toLocaleString("en-GB");
  return String(Number(value.toPrecision(digits)));
}

/** The same with its last zeros, for columns: 8.610 under 8.631. */
function aligned(value) {
  if (typeof value !== "number" || Math.abs(value) < 1e-4 || Math.abs(value) >= 1000) return number(value);
  return value.toPrecision(4);
}

function withSpread(mean, spread) {
  if (mean === null || spread === null || !(spread > 0)) return number(mean);
  const digits = Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(spread))));
  return `${mean.toFixed(digits)} ± ${spread.toFixed(digits)}`;
}

// Rows: value(name, row) reads one field of one row.
const COLUMNS = new Map(DATA.columns.map((column) => [column[0], column]));
const ROWS = DATA.rowCurve.length;
function value(name, row) {
  const column = COLUMNS.get(name);
  if (!column) return null;
  return column[2] ? column[1][column[2][row]] : column[1][0];
}

// Theme: as the system unless chosen; the choice is kept where the browser lets a file keep anything.
{
  const select = byId("theme");
  const apply = (theme) => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
  };
  let kept = null;
  try { kept = localStorage.getItem("seedsbench-theme"); } catch { /* storage is forbidden: nothing is lost */ }
  if (["auto", "light", "dark"].includes(kept)) { select.value = kept; apply(kept); }
  select.addEventListener("change", () => {
    apply(select.value);
    try { localStorage.setItem("seedsbench-theme", select.value); } catch { /* as above */ }
  });
}

// Sheets: one at a time, fitted or at full size.
{
  const viewer = byId("sheet-viewer"), choice = byId("sheet-choice"), full = byId("sheet-full");
  if (choice) {
    choice.value = "0";
    choice.addEventListener("change", () => {
      [...viewer.children].forEach((figure, i) => { figure.hidden = i !== Number(choice.value); });
    });
  }
  if (full) {
    full.checked = false;
    full.addEventListener("change", () => viewer.classList.toggle("full", full.checked));
  }
}
