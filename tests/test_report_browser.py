"""A report in a real browser: Chromium, headless, light and dark, with and without a script."""

import base64
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from browsing import needs_browser
from PIL import Image
from reporting import HOSTILE, make

PHONE, DESK = 360, 1400

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Write a report on images and classes with awkward names."""
    made = make(
        tmp_path_factory.mktemp("browser"), names=("cat", HOSTILE.replace("/", "")), train=30
    )
    made.comparison["entries"][0]["method"] = HOSTILE
    made.write(made.comparison)
    made.report()
    return made.folder / "report-net-final-center-seed0.html"


def opened(browser, page, *, width=DESK, dark=False, script=True):
    """Open the page in a window of `width` pixels; what the browser said before is dropped."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    return browser


def column(browser, table, number):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')]"
        ".map((row) => row.cells[arguments[1]].textContent)",
        f"#table-{table}", number,
    )  # fmt: skip


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
def test_the_console_stays_empty_and_nothing_is_requested(browser, page, width, dark):
    opened(browser, page, width=width, dark=dark)
    assert browser.get_log("browser") == []
    asked = [
        one["message"] for one in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in one["message"]
    ]  # fmt: skip
    outside = [one for one in asked if not re.search(r'"url":"(file|data):', one)]
    assert len(asked) >= 1
    assert outside == []
    assert browser.execute_script("return window.alerted") is None


@pytest.mark.parametrize("width", [PHONE, 800, DESK])
def test_the_page_is_no_wider_than_the_window(browser, page, width):
    opened(browser, page, width=width)
    for element in browser.execute_script("return [...document.querySelectorAll('details')]"):
        browser.execute_script("arguments[0].open = true", element)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [PHONE, 1300, DESK])
def test_a_table_that_is_cut_says_that_it_scrolls(browser, page, width):
    opened(browser, page, width=width)
    time.sleep(0.2)  # the observer speaks after the layout
    found = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter((one) => one.checkVisibility() "
        "&& !one.querySelector('.matrix')).map((one) => [one.scrollWidth > one.clientWidth + 1, "
        "one.previousElementSibling.getClientRects().length > 0])"
    )
    assert all(cut == said for cut, said in found)
    assert any(cut for cut, _ in found) or width != PHONE


def test_tables_are_sorted_with_the_keyboard_and_say_so(browser, page):
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    given = column(browser, "methods", 1)
    head = "document.querySelector('#table-methods th:nth-child(2)')"
    browser.execute_script(f"{head}.querySelector('button').focus()")
    sorts = []
    for _ in range(3):
        press(browser, Keys.ENTER)
        sorts.append(browser.execute_script(f"return {head}.getAttribute('aria-sort')"))
        now = [float(text) for text in column(browser, "methods", 1)]
        if sorts[-1] == "descending":
            assert now == sorted(map(float, given), reverse=True)
        elif sorts[-1] == "ascending":
            assert now == sorted(map(float, given))
            status = browser.execute_script("return document.querySelector('#status').textContent")
            assert status.endswith("sorted by Accuracy, %, ascending")
    assert sorts == ["descending", "ascending", None]
    assert column(browser, "methods", 1) == given
    assert given != sorted(given)


def test_every_picture_of_the_galleries_is_drawn(browser, page):
    opened(browser, page)
    count, empty = browser.execute_script(
        "const all = [...document.querySelectorAll('.gallery svg')];"
        "return [all.length, all.filter((one) => { const b = one.querySelector('use')"
        ".getBoundingClientRect(); return b.width < 20 || b.height < 20; }).length];"
    )
    assert count > 10
    assert empty == 0
    # And it is a picture, not an empty frame: its pixels differ.
    assert spread(browser, ".gallery svg") > 10


def spread(browser, selector):
    """Standard deviation of the pixels of an element, as the browser paints it."""
    x, y, width, height = browser.execute_script(
        "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return [box.x + scrollX, box.y + scrollY, box.width, box.height]",
        selector,
    )
    clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"])))
    return float(np.asarray(image.convert("L")).std())


def test_the_image_under_the_pointer_is_shown(browser, page):
    from selenium.webdriver.common.action_chains import ActionChains

    opened(browser, page)
    mark = browser.find_element("css selector", "#figure-map-pca use[data-i='7']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    peek = browser.find_element("css selector", "#figure-map-pca .peek")
    assert peek.is_displayed()
    assert peek.text
    picture = peek.find_element("css selector", "img, svg")
    assert picture.size["width"] > 20
    assert spread(browser, "#figure-map-pca .peek :is(img, svg)") > 10


def test_the_map_is_walked_with_the_arrow_keys(browser, page):
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    browser.execute_script("document.querySelector('#figure-map-tsne .drawing').focus()")

    def here():
        return browser.execute_script(
            "const at = document.querySelector('#figure-map-tsne use.at');"
            "return at && [Number(at.getAttribute('x')), document.querySelector('#status')"
            ".textContent, document.querySelector('.peek').hidden];"
        )

    start, said, hidden = here()
    assert ".jpg" in said
    assert not hidden
    press(browser, Keys.ARROW_RIGHT)
    right = here()
    assert right[0] > start
    assert right[1] != said
    press(browser, Keys.ESCAPE)
    assert here() is None


def test_every_control_shows_that_it_has_the_focus(browser, page):
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    seen = set()
    for _ in range(60):
        press(browser, Keys.TAB)
        kind, outline = browser.execute_script(
            "const one = document.activeElement; const style = getComputedStyle(one);"
            "return [one.tagName + '.' + one.className, style.outlineStyle];"
        )
        seen.add(kind)
        assert outline != "none", kind
    assert any(kind.startswith("BUTTON") for kind in seen)
    assert any(kind.startswith("DIV.scroll") for kind in seen)
    assert any(kind.startswith("A.") for kind in seen)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_a_contrast_of_at_least_four_and_a_half(browser, page, dark):
    opened(browser, page, dark=dark)
    worst = browser.execute_script(CONTRAST)
    assert worst[0] >= 4.5, worst


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const parsed = (text) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
};
const over = (top, ground) =>
  [0, 1, 2].map((i) => top[i] * top[3] + ground[i] * (1 - top[3])).concat(1);
const light = (c) => {
  const [r, g, b] = c.map((v) => v / 255).map((v) =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let worst = [99, ""];
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !one.getClientRects().length || one.closest(".unseen")) continue;
  const grounds = [];
  for (let up = one; up; up = up.parentElement) {
    grounds.push(parsed(getComputedStyle(up).backgroundColor));
  }
  let ground = [255, 255, 255, 1];
  for (const layer of grounds.reverse()) ground = over(layer, ground);
  const style = getComputedStyle(one);
  const text = over(parsed(one.namespaceURI.endsWith("svg") ? style.fill : style.color), ground);
  const [a, b] = [light(text), light(ground)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < worst[0]) worst = [ratio, one.tagName + " " + one.textContent.slice(0, 40)];
}
return worst;
"""


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_without_a_script_everything_but_sorting_and_the_map_is_there(browser, page, width):
    opened(browser, page, width=width, script=False)
    shots = browser.execute_cdp_cmd("Page.captureScreenshot", {})
    assert len(shots["data"]) > 10_000
    from selenium.webdriver.common.by import By

    text = browser.find_element(By.TAG_NAME, "main").text
    for said in (
        "has the highest accuracy",
        "Comparison of methods",
        "Commands, runs and versions",
        "They cross at 12.",
    ):
        assert said in text
    assert browser.find_elements(By.CSS_SELECTOR, "thead button") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, ".gallery svg use")) > 10
    assert browser.find_element(By.CSS_SELECTOR, "#figure-cost svg").size["height"] > 150
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
