"""A headless Chromium on the dashboard of a test's daemon, and what every page is looked over for."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "science"))

from selenium import webdriver
from selenium.common.exceptions import ElementNotInteractableException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from daemon import Daemon  # noqa: F401, the tests' own daemon
from support import BUILD

PICTURES = os.path.join(BUILD, "web")
WIDTHS = {1280: 860, 390: 844}

# What is wrong with the page as it stands: texts of too little contrast, controls without a name, ids that are
# there twice, pictures without words, headings. WCAG 2.2: 1.4.3, 4.1.2, 1.1.1.
LOOK_OVER = r"""
const faults = [];
const rgba = (text) => { const m = text.match(/[\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] ?? 1]; };
const over = (a, b) => { const k = a[3]; return [0, 1, 2].map((i) => a[i] * k + b[i] * (1 - k)).concat(1); };
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
function ground(element) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 0) layers.push(c); if (c[3] === 1) break; }
  return layers.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]);
}
const shown = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0;
for (let node; (node = walker.nextNode());) {
  const e = node.parentElement;
  if (!node.data.trim() || !shown(e) || e.closest('.sr, .skip, svg, option, [disabled]')) continue;
  texts += 1;
  const style = getComputedStyle(e), size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
  const back = ground(e), wanted = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
  const found = ratio(over(rgba(style.color), back), back);
  if (found < wanted) faults.push(`contrast ${found.toFixed(2)} of "${node.data.trim().slice(0, 40)}" (${e.className || e.tagName})`);
}
if (texts < 3) faults.push(`only ${texts} texts`);
const nameOf = (e) => e.getAttribute('aria-label') || (e.labels && [...e.labels].map((l) => l.textContent).join('')) || e.textContent.trim() || e.title ||
  (e.getAttribute('aria-labelledby') || '').split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join('');
for (const e of document.querySelectorAll('a, button, input, select, textarea, [role=progressbar], [role=img], [role=tabpanel], dialog[open]'))
  if (shown(e) && !nameOf(e)) faults.push(`no name: ${e.outerHTML.slice(0, 90)}`);
for (const e of document.querySelectorAll('th')) if (!e.textContent.trim()) faults.push('a column without a name');
for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) faults.push('a picture without alt');
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
for (const id of new Set(ids)) if (ids.filter((i) => i === id).length > 1) faults.push(`the id ${id} twice`);
if (document.querySelectorAll('h1').length !== 1) faults.push(`${document.querySelectorAll('h1').length} h1`);
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) {
  const wide = [...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest('.scroll, .tabs')).slice(0, 3);
  faults.push(`${root.scrollWidth - root.clientWidth} px too wide: ${wide.map((e) => e.className || e.tagName).join(', ')}`);
}
return faults;
"""


class Browser:
    """A context manager."""

    def __enter__(self):
        options = Options()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                         "--no-proxy-server", "--force-prefers-reduced-motion", "--window-size=1280,860"):
            options.add_argument(argument)
        options.binary_location = "/usr/bin/chromium"
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def open(self, port, place):
        """place: what comes behind '#'. The page is loaded anew."""
        self.driver.get("about:blank")
        self.driver.get(f"http://127.0.0.1:{port}/#{place}")
        self.wait(lambda: self.all("h1"), f"a heading on {place}")

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        found = self.wait(lambda: self.all(selector), selector)
        return found[0]

    def text(self, selector="main"):
        return self.one(selector).text

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition, what, seconds=20):
        """Until it is true, and that is returned; an element that goes meanwhile is not there yet."""
        deadline = time.time() + seconds
        while True:
            try:
                value = condition()
            except (StaleElementReferenceException, ElementNotInteractableException, IndexError):
                value = None
            if value:
                return value
            if time.time() > deadline:
                raise AssertionError(f"no {what} after {seconds} s on {self.driver.current_url}:\n{self.text('body')[:1500]}")
            time.sleep(0.05)

    def wait_text(self, part, selector="main", seconds=20):
        self.wait(lambda: part in self.all(selector)[0].text, f'"{part}"', seconds)

    def button(self, text, within="body"):
        """The visible button or link with this text or name."""
        def find():
            return [e for e in self.all(f"{within} button, {within} a.button")
                    if e.is_displayed() and text in (e.text.strip(), e.get_attribute("aria-label"))]
        return self.wait(find, f"button {text}")[0]

    def click(self, text, within="body"):
        """It may be made anew just then."""
        self.wait(lambda: self.button(text, within).click() or True, f"button {text} to click")

    def field(self, pointer):
        return self.one(f"[data-pointer='{pointer}']")

    def type(self, element, text):
        element.clear()
        element.send_keys(text)

    def set_width(self, width, height=None):
        self.width = width
        metrics = {"width": width, "height": height or WIDTHS[width], "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def set_theme(self, theme):
        if self.run("return document.documentElement.dataset.theme") != theme:
            self.run("document.querySelector('button[aria-label$=theme]').click()")

    def settle(self):
        """Until nothing is loading and the charts are drawn."""
        self.wait(lambda: not [s for s in self.all(".spinner") if s.is_displayed()], "end of loading")
        self.wait(lambda: self.run("return [...document.querySelectorAll('.chart')].every((c) => !c.clientWidth || c.querySelector('canvas'))"), "chart")

    def picture(self, name):
        """The whole page, as a file in build/web."""
        os.makedirs(PICTURES, exist_ok=True)
        height = min(2600, max(WIDTHS[self.width], self.run("return document.documentElement.scrollHeight")))
        self.set_width(self.width, height)
        time.sleep(0.15)
        try:
            self.driver.save_screenshot(os.path.join(PICTURES, name + ".png"))
        finally:
            self.set_width(self.width)

    def faults(self):
        return self.run(LOOK_OVER)

    def complaints(self):
        """What the console got since the last call: errors and breaches of the policy."""
        try:
            return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        except WebDriverException as gone:
            return [str(gone)]


def call(daemon, method, path, body=None):
    return json.loads(daemon.call(method, path, body) or b"null")
