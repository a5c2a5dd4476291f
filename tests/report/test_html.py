"""report.html: what it holds, that no row can inject anything, and how it behaves in a real browser."""

import itertools
import json
import re
import time

import pytest

from seedsbench.report.html_data import STRIP_BYTES
from seedsbench.report.main import build_report
from seedsbench.report.pareto import panels
from seedsbench.report.rows import read_rows
from seedsbench.report.site import build_site
from tests.support.machine import ROOT
from tests.support.pages import Page, open_page, pick
from tests.support.studies import make_row, repeated, usual_rows, write_study

DASH = "\N{EN DASH}"
EVIL = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"
EVIL += " & 'x\" {{data}} <!-- \u2028"
TIP = "return document.querySelector('#panels .tip').innerText"
COMMAND = "return document.querySelector('#detail pre').innerText"
OPEN = "return document.getElementById('detail').open"


def evil_rows():
    """Rows whose every text is hostile, beside some that are merely odd."""
    failed = make_row("heun", 50, status="failed", reason=EVIL, command=f"seedsbench '{EVIL}'")
    custom = make_row(EVIL, 20, custom={"a": EVIL}, **{EVIL: EVIL, "__proto__": "x", "inf": "Infinity"})
    odd = make_row("euler", 10, model="\ud800\x00", big=2**60, flags=[1, True], nan="NaN")
    return [failed, custom, odd, make_row("heun", 20, model=EVIL, time_utc=EVIL), make_row("heun", 10)]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    rows = usual_rows()
    for row in rows:
        row["command"] = f"seedsbench regime=edm solver={row['solver']} nfe={row['nfe_budget']}"
    rows += [{**row, "regime": "vp", "run_key": row["run_key"][::-1]} for row in rows]
    study = write_study(tmp_path_factory.mktemp("html") / "study", rows, sheets=True)
    return build_report(study).html


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    rows = [make_row("heun", 20, regime="vp"), *evil_rows()]
    return build_report(write_study(tmp_path_factory.mktemp("html") / "st<u>dy", rows)).html


def test_the_page_holds_every_row_and_every_field(usual):
    data = Page(usual.read_text()).data
    columns = {name: values for name, *values in data["columns"]}
    rows = [json.loads(path.read_text()) for path in (usual.parent / "rows").glob("*.json")]
    assert len(data["rowCurve"]) == len(rows)

    def field(name, i):
        values, *index = columns[name]
        return values[index[0][i]] if index else values[0]

    by_key = {field("run_key", i): i for i in range(len(rows))}
    for row in rows:
        for name, value in row.items():
            if name != "solver_params":
                assert field(name, by_key[row["run_key"]]) == value, name


def test_the_page_tells_failures_environment_and_alt_texts(usual):
    page = Page(usual.read_text())
    for told in ("non-finite sample at step 3", "fits no step of seeds3", "2 failed", "torch2.9"):
        assert told in page.text
    images = page.of("img")
    assert len(images) >= 3
    assert all(len(image["alt"]) > 40 for image in images)
    assert any("lowest FID" in image["alt"] for image in images)
    assert any(image["alt"].startswith("FID against measured NFE. ") for image in images)


def test_nothing_is_loaded_from_elsewhere(usual, evil):
    for path in (usual, evil):
        content = path.read_text()
        page = Page(content)
        for address in (a[name] for _, a in page.elements for name in ("src", "href", "action") if name in a):
            assert address.startswith(("data:", "#", "figures/"))
        assert not re.search(r"@import|url\(", content)
        policy = next(a["content"] for a in page.of("meta") if "http-equiv" in a)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_no_row_can_inject_markup(evil):
    content = evil.read_text()
    page = Page(content)
    assert len(page.scripts) == 2
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert [a["src"] for a in page.of("img") if not a["src"].startswith(("data:", "figures/"))] == []
    assert page.of("u") == []
    assert "<!--" not in content
    assert not re.search("[\u2028\u2029\x00\ud800]", re.sub("(?s)<section.*</section>", "", content))
    assert EVIL in json.dumps(page.data, ensure_ascii=False).replace('\\"', '"')


def test_curves_look_as_in_the_figures(usual):
    data = Page(usual.read_text()).data
    looks = panels(read_rows(usual.parent)[0])[0].looks
    assert [curve["name"] for curve in data["curves"]] == list(looks)
    for curve, look in zip(data["curves"], looks.values(), strict=True):
        assert (curve["light"], curve["marker"]) == (look.colour, look.family.marker)
        assert bool(curve["dash"]) == (look.line != "-")
        assert data["markers"][look.family.marker].startswith("M")


def test_the_committed_example_has_no_dead_link():
    page = ROOT / "results" / "example" / "report.html"
    links = [a["href"] for a in Page(page.read_text()).of("a") if not a["href"].startswith("#")]
    assert len(links) > 5
    assert [link for link in links if not (page.parent / link).is_file()] == []


def test_unreadable_files_are_listed(tmp_path):
    study = write_study(tmp_path / "s", [make_row("heun", 20)], sheets=True)
    (study / "rows" / "half<b>.json").write_text('{"sta')
    for strip in (study / "samples").iterdir():
        strip.write_bytes(b"no image")
    page = Page(build_report(study).html.read_text())
    assert "half<b>.json" in page.text
    assert "not JSON" in page.text
    assert page.data["strips"] == {}
    assert "No cell of this study has samples" in page.text


def test_strips_that_fit_are_kept_first_those_of_every_cell(tmp_path):
    rows = [make_row(solver, 10, seed=k) for k in range(3) for solver in ("heun", "ddim", "euler")]
    study = write_study(tmp_path / "s", rows, sheets=True)
    for path in (study / "samples").iterdir():
        path.write_bytes(path.read_bytes() + bytes(STRIP_BYTES // 5))
    alone = study / "samples" / f"{rows[0]['run_key']}.png"
    alone.write_bytes(alone.read_bytes() + bytes(STRIP_BYTES))
    kept = Page(build_report(study).html.read_text()).data["strips"]
    assert {row["run_key"] for row in rows[1:3]} < set(kept)
    assert len(kept) == 4
    assert rows[0]["run_key"] not in kept


@pytest.mark.slow
def test_the_page_of_a_thousand_rows_is_small(tmp_path):
    solvers = [f"solver_{i}" for i in range(11)]
    regimes = ("vp", "ve", "iddpm", "edm")
    more = {f"field_{i}": 1 / (i + 3) for i in range(15)}
    cells = itertools.product(solvers, (10, 20, 35, 50, 100, 200, 400, 800), range(3), regimes)
    rows = [
        make_row(s, b, seed=k, regime=r, command=f"seedsbench regime={r} solver={s} nfe={b} seed={k}", **more)
        for s, b, k, r in itertools.islice(cells, 1000)
    ]
    study = write_study(tmp_path / "s", rows, sheets=True)
    for path in (study / "samples").iterdir():
        path.write_bytes(path.read_bytes() + bytes(8000))  # as large as strips of photographs
    report = build_report(study)
    assert report.html.stat().st_size < 4_000_000
    assert len(Page(report.html.read_text()).of("img")) >= len(report.sheets) + 1 == 5


def column(js, n):
    lines = "[...document.getElementById('cells-table').tBodies[0].rows]"
    return js(f"return {lines}.map((line) => line.cells[arguments[0]].innerText)", n)


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_complaint_and_without_overflow(browser, usual, evil, width, dark):
    for path in (usual, evil):
        js = open_page(browser, path, width, dark)
        assert browser.get_log("browser") == []
        assert js("return document.documentElement.scrollWidth") <= width
        assert js("return window.pwned") is None


def test_search_filter_and_clear(browser, usual):
    js = open_page(browser, usual)
    total = len(column(js, 0))
    pick(browser, "search", "non-finite sample")
    assert set(column(js, 1)) == {"failed"}
    pick(browser, "search", "")
    pick(browser, "filter-solver", "heun")
    pick(browser, "filter-regime", "vp")
    assert len(column(js, 0)) == 9
    assert js("return document.getElementById('cells-count').textContent") == f"9 of {total} cells"
    browser.find_element("id", "clear").click()
    assert len(column(js, 0)) == total


def test_filters_hold_for_the_plot_too(browser, usual):
    js = open_page(browser, usual)
    marks = "return document.querySelectorAll('#panels .mark').length"
    before = js(marks)
    pick(browser, "filter-solver", "heun")
    pick(browser, "filter-nfe_budget", "20")
    assert 0 < js(marks) <= js("return document.querySelectorAll('#panels svg[role]').length") < before
    browser.find_element("id", "clear").click()
    assert js(marks) == before


def test_two_solvers_are_compared_with_their_interval_either_way_round(browser, usual):
    js = open_page(browser, usual)
    rows = "[...document.querySelectorAll('#pair-table tbody tr')]"
    options = "[...document.getElementById('pair-first')].map(option => [option.text, option.value])"
    values = dict(js(f"return {options}"))

    def shown(first, second):
        for which, name in (("pair-first", first), ("pair-second", second)):
            pick(browser, which, values[name])
        return js(f"return {rows}.map(row => [...row.cells].map(cell => cell.innerText))")

    there, back = shown("heun", "ddim"), shown("ddim", "heun")
    assert [line[0] for line in there] == ["10", "20", "50"]
    for one, other in zip(there, back, strict=True):
        assert one[1:3] == other[2:0:-1]
        assert float(one[3].split(" ±")[0]) == -float(other[3].split(" ±")[0])
        words = {"better": "worse", "worse": "better", "inconclusive": "inconclusive"}
        verdicts = [line[-1].replace(":", " ").split()[0] for line in (one, other)]
        assert verdicts[1] == words[verdicts[0]]
    assert js("return document.querySelectorAll('#pair-table .interval').length") == 3


@pytest.mark.slow
def test_a_site_opens_without_complaint_and_leads_to_its_studies(browser, tmp_path):
    rows = [row for s in ("heun", "ddim") for b in (10, 20) for row in repeated(s, b, [1.0, 1.1, 1.3])]
    studies = [write_study(tmp_path / "a", rows), write_study(tmp_path / "b", evil_rows())]
    index, *_ = build_site(studies, tmp_path / "site")
    for width in (1400, 420):
        js = open_page(browser, index, width)
        assert browser.get_log("browser") == []
        assert js("return document.documentElement.scrollWidth") <= width
        assert js("return window.pwned") is None
    browser.find_element("link text", "a").click()
    assert js("return document.querySelector('h1').innerText") == "a"


def test_columns_sort_both_ways_with_missing_values_last(browser, usual):
    js = open_page(browser, usual)
    heads = js("return [...document.querySelectorAll('#cells-table th')].map(h => h.innerText.trim())")
    n = heads.index("FID")
    button = browser.find_elements("css selector", "#cells-table th button")[n]
    for order, state in ((1, "ascending"), (-1, "descending")):
        button.send_keys("\ue007")  # Enter: headers are reached and pressed from the keyboard
        shown = column(js, n)
        known = [float(text) for text in shown if text != DASH]
        assert known == sorted(known, reverse=order < 0)
        assert shown[len(known) :] == [DASH] * (len(shown) - len(known)) != []
        states = js("return [...document.querySelectorAll('#cells-table th')].map(h => h.ariaSort)")
        assert states[n] == state
        assert states.count("none") == len(states) - 1


def test_the_legend_hides_curves_and_axes_switch(browser, usual):
    js = open_page(browser, usual)
    marks = "return document.querySelectorAll('#panels .mark').length"
    ticks = "return [...document.querySelectorAll('#panels .panel:first-child text')].map(t => t.textContent)"
    before, logarithmic = js(marks), js(ticks)
    entry = browser.find_element("xpath", "//div[@id='legend']/button[.='heun']")
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    assert js(marks) == before - 6
    entry.click()
    assert js(marks) == before
    for name in ("log-x", "log-y"):
        browser.find_element("id", name).click()
        assert (js(ticks) != logarithmic, js(marks)) == (True, before)
        browser.find_element("id", name).click()
    assert js(ticks) == logarithmic
    pick(browser, "plot-y", "is")
    pick(browser, "plot-x", "seconds")
    assert {"IS, glyphs 64-d features", "sampling seconds per image"} <= {*js(ticks)}
    pick(browser, "plot-panel", js("return document.getElementById('plot-panel').options[2].value"))
    assert js("return document.querySelectorAll('#panels .panel').length") == 1
    assert browser.get_log("browser") == []


def test_points_are_hovered_or_walked_by_keys_and_open_their_cell(browser, usual):
    from selenium.webdriver import ActionChains

    js = open_page(browser, usual)
    plot = browser.find_element("css selector", "#panels svg")
    plot.send_keys("\ue014")  # right arrow
    first = js(TIP)
    assert first.startswith("seeds3\nFID ")
    plot.send_keys("\ue014")
    assert js(TIP) != first
    plot.send_keys("\ue007")
    assert js(OPEN)
    assert "solver=seeds3 nfe=20" in js(COMMAND)
    browser.find_element("id", "detail-close").click()

    mark = browser.find_element("css selector", "#panels g.tinted .mark")
    ActionChains(browser).move_to_element(mark).perform()
    box = "return document.querySelector('#panels .{}').getBoundingClientRect().toJSON()"
    tip, panel = (js(box.format(name)) for name in ("tip", "panel"))
    assert panel["top"] <= tip["top"] < tip["bottom"] <= panel["bottom"]
    assert re.search(r"FID [\d.]+ ± [\d.]+\nNFE 10 ", js(TIP))
    ActionChains(browser).click(mark).perform()
    assert js(OPEN)


def test_details_show_every_field_and_copy_the_command(browser, usual):
    js = open_page(browser, usual)
    pick(browser, "search", "karras_sde")
    browser.find_element("css selector", "#cells-table tbody button").click()
    assert js(COMMAND).startswith("seedsbench regime=")
    names = set(js("return [...document.querySelectorAll('#detail tbody th')].map(h => h.textContent)"))
    row = json.loads(next((usual.parent / "rows").glob("*.json")).read_text())
    assert set(row) <= names
    origin = {"origin": "file://", "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    browser.find_element("id", "copy").click()
    time.sleep(0.2)
    assert js("return document.querySelector('#detail .command [role=status]').textContent") == "copied"
    assert js("return location.hash").startswith("#cell=")
    browser.find_element("id", "detail-close").click()
    assert not js(OPEN)
    assert js("return document.activeElement.dataset.cell") is not None


def test_the_theme_switch_overrides_the_system(browser, usual):
    js = open_page(browser, usual, dark=True)
    ground = "return getComputedStyle(document.body).backgroundColor"
    dark = js(ground)
    pick(browser, "theme", "light")
    assert js(ground) == "rgb(255, 255, 255)" != dark
    pick(browser, "theme", "dark")
    assert js(ground) == dark
    pick(browser, "theme", "auto")
    assert js("return document.documentElement.hasAttribute('data-theme')") is False


# Elements whose own text has a contrast below 4.5 with the nearest opaque ground beneath it (WCAG AA).
CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const poor = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length) continue;
  const style = getComputedStyle(e), ink = parse(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const [a, b] = [light(ink), light(ground(e))].sort((p, q) => q - p);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor.push([e.tagName, e.textContent.slice(0, 40), ratio]);
}
return poor;
"""
UNNAMED = """
const named = (e) => (e.tagName === "BUTTON" && e.textContent.trim()) || e.labels?.length || e.ariaLabel;
const controls = document.querySelectorAll("button, select, input, [tabindex='0']");
return [...controls].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_is_readable_and_every_control_has_a_name(browser, usual, dark):
    js = open_page(browser, usual, dark=dark)
    browser.find_element("xpath", "//div[@id='legend']/button[.='heun']").click()
    assert js(CONTRAST) == []
    browser.find_element("css selector", "#cells-table tbody button").click()
    assert js(CONTRAST) == js(UNNAMED) == []
