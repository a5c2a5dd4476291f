"""What a reader does with report.html, in a real browser: downloads, zoom, isolation, addresses sent on."""

import json
import time
from io import StringIO

import pandas as pd
import pytest

from seedsbench.report.limits import unbeaten
from seedsbench.report.main import build_report
from seedsbench.report.pareto import panels
from seedsbench.report.published import matching
from seedsbench.report.rows import read_rows
from tests.support.pages import Page, open_page, pick
from tests.support.studies import CIFAR10, make_row, usual_rows, write_study

MARKS = "return document.querySelectorAll('#panels .mark').length"
HASH = "return location.hash"
PRESSED = "return [...document.querySelectorAll('#legend button[aria-pressed=true]')].map(b => b.innerText)"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    rows = usual_rows()
    for row in rows:
        row["command"] = f"seedsbench solver={row['solver']} nfe={row['nfe_budget']} seed={row['seed']}"
        row |= {"commit": f"{'0123abcd' * 5}-dirty", "device_name": "Ab <Cd> 7", "world_size": 2}
    rows[0] |= {"note": '=SUM(1), "x"\nnext', "big": 2**60, "flag": True}
    folder = write_study(tmp_path_factory.mktemp("page") / "study", rows, sheets=True)
    build_report(folder)
    return folder


def downloaded(browser, button, folder):
    """The text of the one file that a button of the page saves, and its name."""
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.find_element("id", button).click()
    for _ in range(200):
        files = [path for path in folder.iterdir() if path.suffix not in (".crdownload", ".tmp")]
        if files and not files[0].name.startswith("."):
            return files[0].read_text(), files[0].name
        time.sleep(0.05)
    raise AssertionError(f"nothing was downloaded by {button}")


def test_tables_are_downloaded_as_csv_json_and_latex(browser, study, tmp_path):
    open_page(browser, study / "report.html")
    folders = [tmp_path / kind for kind in ("csv", "json", "tex", "some")]
    for folder in folders:
        folder.mkdir()
    content, name = downloaded(browser, "download-csv", folders[0])
    assert name == "cells.csv"
    found, wanted = (
        pd.read_csv(source).sort_values("run_key", ignore_index=True)
        for source in (StringIO(content), study / "table.csv")
    )
    pd.testing.assert_frame_equal(found[[*wanted]], wanted, check_dtype=False)
    assert "'=SUM(1)" in content

    content, name = downloaded(browser, "download-json", folders[1])
    assert name == "cells.json"
    rows = {row["run_key"]: row for row in json.loads(content)}
    files = [json.loads(path.read_text()) for path in (study / "rows").glob("*.json")]
    assert len(rows) == len(files)
    for row in files:
        wanted = {**row, "big": str(row["big"])} if "big" in row else row  # a browser would round it
        assert {name: rows[row["run_key"]][name] for name in row} == wanted

    content, name = downloaded(browser, "download-tex", folders[2])
    assert (name, content) == ("table.tex", (study / "table.tex").read_text())

    pick(browser, "filter-solver", "heun")
    content, _ = downloaded(browser, "download-csv", folders[3])
    assert set(pd.read_csv(StringIO(content))["solver"]) == {"heun"}


def drag(browser, svg, start, end):
    """Drag over a plot, from one place to another, in shares of its width and height from the middle."""
    from selenium.webdriver import ActionChains

    chain = ActionChains(browser)
    places = [[round(share * svg.size[of]) for share, of in zip(at, ("width", "height"), strict=True)]
              for at in (start, end)]  # fmt: skip
    chain.move_to_element_with_offset(svg, *places[0]).click_and_hold()
    chain.move_to_element_with_offset(svg, *places[1]).release().perform()


def test_a_box_is_zoomed_into_and_a_double_click_or_the_button_resets(browser, study):
    from selenium.webdriver import ActionChains

    js = open_page(browser, study / "report.html")
    every = js(MARKS)
    svg = browser.find_element("css selector", "#panels svg")
    reset = browser.find_element("id", "reset-zoom")
    assert not reset.is_displayed()
    drag(browser, svg, (-0.1, -0.1), (0.3, 0.35))
    inside = js(MARKS)
    assert 0 < inside < every
    assert not js("return document.getElementById('detail').open")  # the drag's end is no click
    address = js(HASH)
    assert "zoom=" in address
    ActionChains(browser).move_to_element_with_offset(svg, 0, -20).double_click().perform()
    assert (js(MARKS), js(HASH)) == (every, "")
    js(f"location.hash = {json.dumps(address)}")
    time.sleep(0.1)
    assert (js(MARKS), js(HASH)) == (inside, address)
    reset.click()
    assert (js(MARKS), js(HASH), reset.is_displayed()) == (every, "", False)
    svg = browser.find_element("css selector", "#panels svg")
    svg.send_keys("++")
    assert js(MARKS) < every
    svg.send_keys("0")
    assert js(MARKS) == every
    assert browser.get_log("browser") == []


def test_a_curve_is_isolated_by_a_double_click_or_with_shift(browser, study):
    from selenium.webdriver import ActionChains, Keys

    js = open_page(browser, study / "report.html")
    every = js(PRESSED)
    entry = browser.find_element("xpath", "//div[@id='legend']/button[.='heun']")
    ActionChains(browser).double_click(entry).perform()
    assert js(PRESSED) == ["heun"]
    assert js(MARKS) == 3
    ActionChains(browser).double_click(entry).perform()
    assert js(PRESSED) == every
    ActionChains(browser).key_down(Keys.SHIFT).click(entry).key_up(Keys.SHIFT).perform()
    assert js(PRESSED) == ["heun"]
    entry.click()
    assert js(PRESSED) == []


def test_the_address_says_what_is_shown(browser, study):
    page = study / "report.html"
    js = open_page(browser, page)
    pick(browser, "plot-y", "is")
    pick(browser, "plot-x", "seconds")
    pick(browser, "filter-nfe_budget", "20")
    browser.find_element("id", "log-y").click()
    browser.find_element("xpath", "//div[@id='legend']/button[.='heun']").click()
    svg = browser.find_element("css selector", "#panels svg")
    drag(browser, svg, (-0.4, -0.35), (0.4, 0.3))
    address = js(HASH)
    shown = "return [...document.querySelectorAll('#panels text, #cells-count')].map(t => t.textContent)"
    state = "return [...document.querySelectorAll('.controls select')].map(s => [s.id, s.value])"
    before = [js(shown), js(state), js(PRESSED), js("return document.getElementById('log-y').checked")]
    browser.get("about:blank")
    browser.get(page.as_uri() + address)
    after = [js(shown), js(state), js(PRESSED), js("return document.getElementById('log-y').checked")]
    assert after == before
    assert js(HASH) == address

    js = open_page(browser, page)  # a plain address opens the page as it is made
    assert js(HASH) == ""
    plain = [js(shown), js(state), js(PRESSED)]
    for wrong in (
        "score=no&cost=&zoom=1:2&zoom=a:b:c:d:e&zoom=5:1:1:5:x&hide=nobody&cell=none&__proto__=1",
        "%=%E0",
    ):
        browser.get("about:blank")
        browser.get(f"{page.as_uri()}#{wrong}")
        assert [js(shown), js(state), js(PRESSED)] == plain, wrong
    assert browser.get_log("browser") == []


def test_a_cell_that_is_open_is_in_the_address_beside_the_rest(browser, study):
    js = open_page(browser, study / "report.html")
    pick(browser, "plot-x", "seconds")
    browser.find_element("css selector", "#cells-table tbody button").click()
    address = js(HASH)
    assert "cost=seconds" in address
    browser.get("about:blank")
    browser.get((study / "report.html").as_uri() + address)
    assert js("return document.getElementById('detail').open")
    browser.find_element("id", "detail-close").click()
    time.sleep(0.1)
    assert js(HASH) == "#cost=seconds"


def test_the_top_says_command_commit_and_processor(study):
    page = Page((study / "report.html").read_text())
    assert "0123abcd0123 with changes of its files" in page.text
    assert "2 \N{MULTIPLICATION SIGN} Ab <Cd> 7" in page.text
    assert "seedsbench -m solver=ddim,dpmpp_2m,heun,seeds1,seeds2,seeds3,seeds3_asreleased" in page.text


def test_several_commands_and_machines_are_counted_and_what_is_not_recorded_is_said(tmp_path):
    commands = [f"seedsbench solver=heun solver.k{n}=1 nfe={n}" for n in range(1, 6)]
    machines = ["A", "A", "A", "B", None]
    rows = [
        make_row("heun", n + 9, command=command, device_name=name)
        for n, (command, name) in enumerate(zip(commands, machines, strict=True))
    ]
    page = Page(build_report(write_study(tmp_path / "s", rows)).html.read_text())
    assert "5 commands" in page.text
    assert all(command in page.text for command in commands)
    assert "A (3 cells), B (1 cell)" in page.text
    assert page.text.count("not recorded") == 1  # the commit


def test_an_outlier_is_an_arrow_with_its_value_and_published_scores_are_named(browser, tmp_path):
    from selenium.webdriver import ActionChains

    fids = {"heun": (35.5, 5.3, 2.4, 2.0), "euler": (7000.0, 15, 6.1, 3.9), "ddim": (13.0, 6.8, 4.7, 4.2)}
    rows = [
        make_row(s, b, **CIFAR10, fid=fid)
        for s in fids
        for b, fid in zip((9, 19, 35, 99), fids[s], strict=True)
    ]
    study = write_study(tmp_path / "s", rows)
    js = open_page(browser, build_report(study, published=True).html)
    values = "return [...document.querySelectorAll('#panels .value')].map(t => t.textContent)"
    assert js(values) == ["7,000"]
    others = matching(panels(read_rows(study)[0])[0])
    ours = pd.DataFrame([(row["nfe"], row["fid"]) for row in rows])
    better = unbeaten(others["nfe"], others["fid"], ours[0], ours[1])
    least = others[better].sort_values("fid").iloc[0]
    crosses = "return plot.views[0].crosses.map(c => [c.other[P_NFE], c.other[P_FID], ...c.at])"
    drawn = {(nfe, fid): at for nfe, fid, *at in js(crosses)}
    assert (least["nfe"], least["fid"]) in drawn
    x, y = drawn[least["nfe"], least["fid"]]
    svg = browser.find_element("css selector", "#panels svg")
    offset = round(x - svg.size["width"] / 2), round(y - svg.size["height"] / 2)
    ActionChains(browser).move_to_element_with_offset(svg, *offset).perform()
    told = js("return document.querySelector('#panels .tip').innerText")
    assert "published" in told
    assert str(least["source"]) in told
    browser.find_element("id", "published").click()
    assert js(crosses) == []
    assert js("return location.hash") == "#published=no"
