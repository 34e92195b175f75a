"""The page itself: in headless Chromium, by a client, and from where it must not be reached."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import random_photo

if importlib.util.find_spec("gradio") is None:
    pytest.skip('the page needs Gradio: pip install -e ".[web]"', allow_module_level=True)
httpx = pytest.importorskip("httpx")  # which Gradio brings
pytestmark = pytest.mark.slow  # a server and a browser: about 90 s

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
CAPTION = "the red cup, the blue plate"
PATIENCE = 180  # seconds; a busy machine is no failure


class Server:
    """scripts/web.py in a process of its own, with the tiny model."""

    def __init__(self, checkpoint: Path, *options: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "scripts/web.py", "--model", str(checkpoint), "--port", str(port), "--device", "cpu"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
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
        self.process.send_signal(2)
        return self.process.communicate(timeout=PATIENCE)[0]


def until(condition, what: str = ""):
    """Wait for something that comes true, and return it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE} s for {what or condition}")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny model, two steps."""
    folder = tmp_path_factory.mktemp("page") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"num_inference_steps": 2}))
    return folder


@pytest.fixture(scope="module")
def server(checkpoint):
    server = Server(checkpoint, "--max-upload", "2")
    yield server
    printed = server.stop()
    refused = printed.count("InvalidPathError: Cannot move")  # Gradio's own word on forged paths
    assert printed.count("Traceback") == refused, printed


class Page:
    """A browser window with the page."""

    def __init__(self, driver, url: str, downloads: Path):
        from selenium.webdriver.common.by import By

        self.driver, self.downloads, self._by = driver, downloads, By.CSS_SELECTOR
        driver.get(url)
        self.one("#lcad-colorize")

    def all(self, css: str) -> list:
        return self.driver.find_elements(self._by, css)

    def one(self, css: str):
        """The first of these that is shown, when there is one."""
        return until(lambda: next((item for item in self.all(css) if item.is_displayed()), None), css)

    def upload(self, path: Path) -> None:
        until(lambda: self.all("#lcad-drop input[type=file]"))[0].send_keys(str(path))
        until(lambda: path.name in self.status(), f"{path.name} in the status")

    def status(self) -> str:
        return self.text("#lcad-status")

    def text(self, css: str) -> str:
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText || ''", css)

    def press(self, css: str) -> None:
        button = self.one(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def type(self, css: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        field = self.one(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ENTER)

    def click_at(self, css: str, x: float, y: float) -> None:
        """Click a picture at a place in [0, 1]."""
        from selenium.webdriver import ActionChains

        picture = self.one(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
        width, height = picture.size["width"], picture.size["height"]
        place = round((x - 0.5) * width), round((y - 0.5) * height)
        ActionChains(self.driver).move_to_element_with_offset(picture, *place).click().perform()

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


@pytest.fixture
def page(server, tmp_path):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium or no chromedriver on this machine: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1300,1400",
        f"user-data-dir={tmp_path / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Page(driver, server.url, tmp_path)
    finally:
        driver.quit()


@pytest.fixture
def scan(tmp_path) -> Path:
    """A 16 bit TIFF of two halves of different luminance: two regions."""
    values = np.full((60, 80), 18000, np.uint16)
    values[:, 40:] = 46000
    tifffile.imwrite(tmp_path / "scan.tif", values)
    return tmp_path / "scan.tif"


def test_from_the_upload_to_the_download(page, scan, checkpoint, tmp_path):
    page.type("#lcad-caption textarea, #lcad-caption input", CAPTION)
    page.upload(scan)
    assert "80 x 60 pixels, 16 bit" in page.status()
    until(lambda: len(page.all("#lcad-phrases label")) == 2)
    page.press("#lcad-colorize")
    until(lambda: len(page.all("#lcad-candidates img")) == 4 and page.picture("#lcad-divider img"))
    until(lambda: not page.all("#lcad-progress progress"))
    plain, record = page.result()
    assert plain.dtype == np.uint16 and plain.shape == (60, 80, 3)
    assert (record["photo"], record["caption"], record["settings"]["seed"]) == ("scan.tif", CAPTION, 0)

    from scripts import sample

    options = ["--model", checkpoint, "--input", scan, "--caption", CAPTION, "--output", tmp_path / "cli"]
    assert sample.main([str(option) for option in (*options, "--device", "cpu")]) == 0
    command = tifffile.imread(tmp_path / "cli" / "scan.tif")  # the page adds nothing of its own
    assert np.abs(plain.astype(int) - command).mean() < 65535 * 1e-4  # but for the rounding of several threads

    before = page.picture("#lcad-photo img")
    page.click_at("#lcad-photo img", 0.75, 0.5)
    until(lambda: page.picture("#lcad-photo img") != before)
    page.type("#lcad-color input, #lcad-color textarea", "#b06050")
    until(lambda: "#b06050" in page.text("#lcad-report"))
    colored, record = page.result()
    assert record["colors"] == ["red cup=#b06050"]
    change = np.abs(colored.astype(int) - plain) / 257
    assert change[:, :30].mean() < 1 < change[:, 50:].mean()  # where it was clicked, and nowhere else

    page.type("#lcad-saturation input[type=number]", "0")
    grey, record = page.result()
    assert record["settings"]["saturation"] == 0 and np.ptp(grey.astype(int), axis=2).max() <= 257


def test_what_cannot_be_read_is_one_line_and_the_page_goes_on(page, scan, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    page.upload(tmp_path / "broken.png")
    assert "not an image that can be read" in page.status() and str(tmp_path) not in page.status()
    assert page.all(".lcad-problem[role=alert]")
    page.press("#lcad-colorize")
    until(lambda: "there is no photo yet" in page.status())


def test_a_client_does_the_same_from_code(server, scan, checkpoint, tmp_path):
    from gradio_client import Client, handle_file

    client = Client(server.url, download_files=str(tmp_path / "got"), verbose=False)
    photo = handle_file(str(scan))
    files, report = client.predict(photo=photo, caption=CAPTION, api_name="/colorize")
    assert [Path(file).suffix for file in files] == [".tif", ".json"] and tifffile.imread(files[0]).dtype == np.uint16
    assert {row["phrase"] for row in report} <= {"red cup", "blue plate"}
    with pytest.raises(Exception, match="unknown colour 'no such'"):
        client.predict(photo=photo, caption=CAPTION, colors="cup=no such", api_name="/colorize")
    random_photo(1).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"")
    many = [handle_file(str(tmp_path / name)) for name in ("a.png", "bad.png")]
    archive, problems = client.predict(files=many, caption="a red house", api_name="/colorize_many")
    assert archive.endswith(".zip") and problems == [
        "bad.png: the file is empty (0 bytes); copy it again from its source"
    ]
    client.close()


def test_nothing_of_the_server_is_reachable(server, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path in (secret, ROOT / "README.md", "/etc/passwd", "http://example.com/", "../README.md"):
            answer = client.get(f"/gradio_api/file={path}")
            assert answer.status_code in (403, 404), path
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403
        large = client.post("/gradio_api/upload", files={"files": ("large.png", b"\0" * 3_000_000)})
        assert large.status_code == 413
        for given in (str(secret), "http://example.com/x.png"):
            data = {"data": [{"path": given, "meta": {"_type": "gradio.FileData"}}, "", "", 0, 1, 0, "own"]}
            event = client.post("/gradio_api/call/colorize", json=data).json()["event_id"]
            answer = client.get(f"/gradio_api/call/colorize/{event}").text
            assert answer.startswith("event: error") and "Traceback" not in answer


def test_a_password_is_asked_for(checkpoint):
    server = Server(checkpoint, "--auth", "anna:secret")
    try:
        assert httpx.get(f"{server.url}/config").status_code == 401
        with httpx.Client(base_url=server.url) as client:
            assert client.post("/login", data={"username": "anna", "password": "no"}).status_code == 400
            assert client.post("/login", data={"username": "anna", "password": "secret"}).status_code == 200
            assert client.get("/config").status_code == 200
    finally:
        server.stop()


def test_mistakes_on_the_command_line_are_one_line(capsys):
    from lcad.cli.web import main

    assert main(["--auth", "anna"]) == 2
    assert capsys.readouterr().err == "error: --auth: expected NAME:PASSWORD, such as anna:secret\n"
    with pytest.raises(SystemExit):
        main(["--max-waiting", "0"])
    assert "--max-waiting must be at least 1, got 0" in capsys.readouterr().err
