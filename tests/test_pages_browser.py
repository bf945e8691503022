"""The pages of serve and label as they are seen: phone and desk, light and dark."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import needs_browser
from conftest import ROOT
from PIL import Image
from test_report_browser import CONTRAST, DESK, PHONE

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("selenium", reason="the extra 'dev' is not installed")
sys.path.insert(0, str(ROOT / "docs" / "pictures"))
import take

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_browser,
]

# Controls that a reader of the screen would not know, and text that its box cuts.
UNNAMED = """const all = document.querySelectorAll("button, input, select, a, img, canvas");
return [...all].filter((one) => one.getClientRects().length && !one.textContent.trim()
  && !one.getAttribute("aria-label") && !(one.labels && one.labels.length)
  && !one.hasAttribute("alt")).map((one) => one.outerHTML);"""
CUT = """return [...document.querySelectorAll("main *")].filter((one) => {
  if (!one.getClientRects().length || one.closest(".cell, .unseen, .grid")) return false;
  return one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX === "hidden";
}).map((one) => one.outerHTML.slice(0, 200));"""


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Any:
    folder = tmp_path_factory.mktemp("pages")
    cache = folder / "cache"
    cache.mkdir()
    backbones.mkdir(exist_ok=True)
    (cache / "backbones").symlink_to(backbones)
    return folder, cache, take.prepare(folder, cache)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with take.browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("page", ["serve", "label"])
def test_a_page_is_readable_at_every_width_and_in_both_schemes(
    page: str, garden: Any, browser: Any
) -> None:
    folder, cache, images = garden
    settings = {"run": "softmax"} if page == "serve" else {"data": folder / "garden"}
    with take.served(take.run(page, folder, cache, **settings)) as address:
        for width in (PHONE, DESK):
            for dark in (False, True):
                take.window(browser, width, 900, dark=dark)
                browser.get_log("browser")
                if page == "serve":
                    take.serve_page(browser, address, images)
                else:
                    take.label_page(browser, address)
                where = (width, dark)
                assert browser.get_log("browser") == [], where
                assert browser.execute_script(
                    "return document.documentElement.scrollWidth"
                ) <= width, where  # fmt: skip
                worst = browser.execute_script(CONTRAST)
                assert worst[0] >= 4.5, (where, worst)
                assert browser.execute_script(UNNAMED) == [], where
                assert browser.execute_script(CUT) == [], where


def test_the_pictures_of_the_readme_can_be_taken_again(tmp_path: Path, garden: Any) -> None:
    _, cache, _ = garden
    take.main(tmp_path, cache)
    for name in ("label.png", "serve.png"):
        now = (tmp_path / name).read_bytes()
        committed = (ROOT / "docs" / "pictures" / name).read_bytes()
        assert max(len(now), len(committed)) <= take.MOST_BYTES
        assert Image.open(io.BytesIO(committed)).size == Image.open(io.BytesIO(now)).size
        assert f"docs/pictures/{name}" in (ROOT / "README.md").read_text()
