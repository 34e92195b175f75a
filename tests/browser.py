"""The page's server in a process of its own, and a headless Chromium that looks at it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import tifffile
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 180  # seconds; a busy machine is no failure
CAPTION = "the red cup, the blue plate"
PHONE = 390, 844  # pixels, of a phone's screen
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1300,1400"),
)


class Server:
    """scripts/web.py in a process of its own, on the CPU."""

    def __init__(self, checkpoint: Path, *options: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "scripts/web.py", "--model", str(checkpoint), "--port", str(port), "--device", "cpu"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.process.stdout.read()
        try:
            return httpx.get(self.url, timeout=30).status_code < 500
        except httpx.TransportError:
            return False

    def stop(self) -> str:
        """End it as Ctrl+C does -> what it has printed."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE)[0]


def until(condition, what: str = ""):
    """Wait for something that comes true, and return it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE} s for {what or condition}")


class Page:
    """A browser window with the page."""

    def __init__(self, driver, url: str, downloads: Path):
        self.driver, self.downloads = driver, downloads
        driver.get(url)
        self.one("#lcad-colorize")

    def all(self, css: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str):
        """The first of these that is shown, when there is one."""
        return until(lambda: next((item for item in self.all(css) if item.is_displayed()), None), css)

    def send(self, css: str, *paths: Path) -> None:
        """Give files to a drop zone."""
        until(lambda: self.all(css), css)[0].send_keys("\n".join(map(str, paths)))

    def upload(self, path: Path) -> None:
        self.send("#lcad-drop input[type=file]", path)
        until(lambda: path.name in self.status(), f"{path.name} in the status")

    def open(self, path: Path, caption: str) -> None:
        """A photo with a caption of two objects, and its regions."""
        self.type("#lcad-caption textarea, #lcad-caption input", caption)
        self.upload(path)
        until(lambda: len(self.all("#lcad-phrases label")) == 2 and self.picture("#lcad-photo img"), "the regions")

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, css: str, most: int = 60) -> None:
        """Press Tab until the focus is there."""
        focused = "return document.activeElement.matches(arguments[0])"
        for _ in range(most):
            if self.driver.execute_script(focused, css):
                return
            self.keys(Keys.TAB)
        raise AssertionError(f"{css} is not reached by {most} times Tab")

    def settle(self, css: str) -> None:
        """Wait until an element has stopped moving and changing its size."""
        place = self.one(css).rect
        while (now := until(lambda: time.sleep(0.3) or self.one(css).rect)) != place:
            place = now

    def status(self) -> str:
        return self.text("#lcad-status")

    def text(self, css: str) -> str:
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText || ''", css)

    def shown(self, css: str) -> WebElement:
        """The same, in the middle of the window."""
        element = self.one(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        return element

    def value(self, css: str) -> str:
        """What stands in a field."""
        return self.driver.execute_script("return document.querySelector(arguments[0])?.value || ''", css)

    def press(self, css: str) -> None:
        self.shown(css).click()

    def type(self, css: str, text: str) -> None:
        field = self.shown(css)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ENTER)

    def draw(self, css: str, *places: tuple[float, float]) -> None:
        """Press the button at a place in [0, 1] of a picture, and draw on to the others; one place: a click."""
        picture = self.shown(css)
        width, height = picture.size["width"], picture.size["height"]
        hand = ActionChains(self.driver)
        for k, (x, y) in enumerate(places):
            hand.move_to_element_with_offset(picture, round((x - 0.5) * width), round((y - 0.5) * height))
            if k == 0:
                hand.click_and_hold()
        hand.release().perform()

    def change(self, css: str, action: Callable[[], object]) -> None:
        """Do something that changes a picture, and wait for the change."""
        before = self.picture(css)
        action()
        until(lambda: self.picture(css) not in ("", before), f"another picture in {css}")

    def colorize(self, number: int) -> None:
        """Make candidates, and wait until all is shown."""
        self.press("#lcad-colorize")
        until(lambda: len(self.all("#lcad-candidates img")) == number and self.picture("#lcad-divider img"))
        until(lambda: not self.all("#lcad-progress progress"))

    def look_as(self, size: tuple[int, int] | None = None, scheme: str = "light") -> None:
        """Have the window of a phone of this size, None: as it was; and prefer a "light" or a "dark" page."""
        command = self.driver.execute_cdp_cmd
        if size is None:
            command("Emulation.clearDeviceMetricsOverride", {})
        else:
            screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": True}
            command("Emulation.setDeviceMetricsOverride", screen)
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def picture(self, css: str) -> str:
        """The address of a picture, which changes with its content."""
        return self.driver.execute_script("return document.querySelector(arguments[0])?.currentSrc || ''", css)

    def result(self) -> tuple[np.ndarray, dict]:
        """The values and the record of the result, downloaded as the page's links say."""
        until(lambda: not self.all("#lcad-files a[download]"), "files of before to go")
        self.press("#lcad-write")
        until(lambda: len(self.all("#lcad-files a[download]")) == 2, "two files")
        content = {}
        for link in self.all("#lcad-files a[download]"):
            name = re.sub(r"\s", "", link.get_attribute("download"))
            content[Path(name).suffix] = httpx.get(link.get_attribute("href"), timeout=60).content
        path = self.downloads / "result.tif"
        path.write_bytes(content[".tif"])
        return tifffile.imread(path), json.loads(content[".json"])


@contextmanager
def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Chromium, with an empty folder for what it keeps."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
