// The cells that the filters leave, as files made here: as table.csv, as the rows themselves, and the LaTeX of table.tex.
/** Text that a spreadsheet would run as a formula has an apostrophe before it, as in table.csv. */
function csvField(v) {
  if (v === null) return "";
  if (typeof v === "boolean") return v ? "True" : "False";
  const text = typeof v === "string" && /^[=+\-@\t\r]/.test(v) ? `'${v}` : String(v);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function asCsv(rows) {
  const names = DATA.columns.map(([name]) => name);
  return [names, ...rows.map((i) => names.map((name) => value(name, i)))].map((line) => `${line.map(csvField).join(",")}\n`).join("");
}

/** Options are objects, as in the rows' own files. */
function asJson(rows) {
  const option = (name, v) => {
    if (typeof v !== "string" || !name.endsWith("_params")) return v;
    try { return JSON.parse(v); } catch { return v; }
  };
  const row = (i) => Object.fromEntries(DATA.columns.map(([name]) => [name, option(name, value(name, i))]));
  return `${JSON.stringify(rows.map(row), null, 1)}\n`;
}

function save(content, name, type) {
  const address = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function startDownloads() {
  const rows = () => chosen().map(({ i }) => i);
  byId("download-csv").addEventListener("click", () => save(asCsv(rows()), "cells.csv", "text/csv"));
  byId("download-json").addEventListener("click", () => save(asJson(rows()), "cells.json", "application/json"));
  byId("download-tex").addEventListener("click", () => save(DATA.latex, "table.tex", "application/x-tex"));
}
