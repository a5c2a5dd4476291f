"""Pages read by a parser, and opened in a browser."""

import json
from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements with their attributes, the text outside of scripts, and the scripts of a page."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.text, self.scripts = [], "", []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts.append((self.elements[-1][1], data))
        else:
            self.text += data

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def data(self):
        (content,) = [data for attrs, data in self.scripts if attrs.get("type") == "application/json"]
        return json.loads(content)


def open_page(browser, path, width=1400, dark=False):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(path.as_uri())
    # The script's last act is to fill the table; on a busy machine `get` has been seen to return before.
    filled = "return document.querySelectorAll('#cells-table tbody tr').length > 0"
    WebDriverWait(browser, 20).until(lambda it: it.execute_script(filled))
    return browser.execute_script


def pick(browser, name, value):
    script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
    events = "for (const of of ['input', 'change']) e.dispatchEvent(new Event(of, {bubbles: true}));"
    browser.execute_script(script + events, name, value)
