"""Take the README's pictures of the pages of ``make label`` and ``make serve``.

    python docs/pictures/take.py docs/pictures

The images are the tutorial's: pieces of the two photographs that scikit-learn brings. Needs
Chromium, chromedriver and the extras ``dev`` and ``serve``; a slow test runs it.
"""

import base64
import contextlib
import io
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parents[2]
MOST_BYTES = 150_000
SEEN = """[...document.images].every((one) => one.complete ||
  (one.loading === "lazy" && one.getBoundingClientRect().top > innerHeight))"""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
    "--disable-background-networking", "--no-first-run",
    # As with a mouse and a keyboard: buttons show their keys.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,"
    "availablePointerTypes=4",
)  # fmt: skip


def run(stage: str, folder: Path, cache: Path, **settings: object) -> list[str]:
    """Spell a command on the set in `folder`."""
    places = {"cache": cache, "results": folder / "results"}
    named = [f"{key.upper()}={value}" for key, value in (places | settings).items()]
    return [sys.executable, "-m", "pipeline", stage, *named]


@contextlib.contextmanager
def served(line: list[str]) -> Iterator[str]:
    """Start a server; give its address."""
    one = subprocess.Popen([*line, "PORT=0"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert one.stderr
        said = next(text for text in one.stderr if "http://127.0.0.1:" in text)
        address = said.split()[0]
        while "serve" in line:  # until the model is loaded the page asks again and again
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"{address}readyz").close()
                break
            time.sleep(0.1)
        yield address
    finally:
        one.send_signal(signal.SIGINT)
        one.communicate(timeout=60)


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Any]:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def until(browser: Any, script: str, seconds: float = 120) -> None:
    """Wait until a script is true."""
    end = time.monotonic() + seconds
    while not browser.execute_script(f"return {script}"):
        if time.monotonic() > end:
            raise TimeoutError(script)
        time.sleep(0.05)


def window(browser: Any, width: int, height: int, *, dark: bool) -> None:
    """Set the size of the window in pixels, and the colour scheme."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def label_page(browser: Any, address: str) -> None:
    """Open the labelling page and wait for pictures, map and heads."""
    browser.get(address)
    until(browser, "document.querySelectorAll('.cell img').length > 5")
    until(browser, "/fitted/.test(document.getElementById('facts').textContent)")
    until(browser, "document.getElementById('legend').children.length > 1")
    until(browser, SEEN)


def serve_page(browser: Any, address: str, images: list[Path]) -> None:
    """Open the predicting page, classify images, and ask where the last one's class is seen."""
    browser.get(address)
    until(browser, "document.getElementById('engine').textContent")
    browser.find_element("id", "files").send_keys("\n".join(map(str, images)))
    until(browser, f"document.querySelectorAll('.result .bars').length === {len(images)}")
    browser.execute_script("document.querySelector('.result button').click()")
    until(browser, "document.querySelector('.heat')")
    until(browser, SEEN)
    time.sleep(0.3)


def picture(browser: Any, path: Path) -> None:
    """Save what the window shows as a PNG of a palette, of at most `MOST_BYTES`."""
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {})
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    for n_colours in (256, 192, 128, 96, 64, 48, 32, 24, 16):
        stream = io.BytesIO()
        image.quantize(n_colours, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if len(stream.getvalue()) <= MOST_BYTES:
            break
    path.write_bytes(stream.getvalue())


def prepare(folder: Path, cache: Path) -> list[Path]:
    """Make the set and a run on it; give two of its test images."""
    garden = folder / "garden"
    sets = ROOT / "docs" / "tutorials" / "sets.py"
    subprocess.run([sys.executable, sets, "mislabelled", garden], check=True)
    line = run("softmax", folder, cache, data=garden)
    subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    test = garden / "test"
    return [test / "temple" / "temple-00.jpg", test / "flower" / "flower-01.jpg"]


def main(out: Path, cache: Path) -> None:
    """Take both pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = prepare(folder, cache)
        with browsing(folder / "profile") as browser:
            with served(run("label", folder, cache, data=folder / "garden")) as address:
                window(browser, 1280, 1180, dark=False)
                label_page(browser, address)
                picture(browser, out / "label.png")
            with served(run("serve", folder, cache, run="softmax")) as address:
                window(browser, 1000, 1000, dark=False)
                serve_page(browser, address, images)
                picture(browser, out / "serve.png")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("one or two arguments: the folder for the pictures, and the cache (cache)")
    main(Path(sys.argv[1]), Path(*sys.argv[2:] or ["cache"]).absolute())
