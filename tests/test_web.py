"""The page itself: in headless Chromium, by a client, and from where it must not be reached."""

import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.conftest import random_photo

if importlib.util.find_spec("gradio") is None:
    pytest.skip('the page needs Gradio: pip install -e ".[web]"', allow_module_level=True)
httpx = pytest.importorskip("httpx")  # which Gradio brings
pytest.importorskip("selenium", reason="pip install selenium")

from tests.browser import CAPTION, PHONE, ROOT, Server, until  # noqa: E402

pytestmark = pytest.mark.slow  # a server and a browser: about 150 s

PAGE_SIZE = 1300, 1400  # pixels


def test_from_the_upload_to_the_download(page, scan, page_checkpoint, tmp_path):
    page.type("#lcad-caption textarea, #lcad-caption input", CAPTION)
    page.upload(scan)
    assert "80 x 60 pixels, 16 bit" in page.status()
    until(lambda: len(page.all("#lcad-phrases label")) == 2)
    page.colorize(4)
    plain, record = page.result()
    assert plain.dtype == np.uint16 and plain.shape == (60, 80, 3)
    assert (record["photo"], record["caption"], record["settings"]["seed"]) == ("scan.tif", CAPTION, 0)

    from scripts import sample

    options = ["--model", page_checkpoint, "--input", scan, "--caption", CAPTION, "--output", tmp_path / "cli"]
    assert sample.main([str(option) for option in (*options, "--device", "cpu")]) == 0
    command = tifffile.imread(tmp_path / "cli" / "scan.tif")  # the page adds nothing of its own
    assert np.abs(plain.astype(int) - command).mean() < 65535 * 1e-4  # but for the rounding of several threads

    page.change("#lcad-photo img", lambda: page.draw("#lcad-photo img", (0.75, 0.5)))
    page.type("#lcad-color input, #lcad-color textarea", "#b06050")
    until(lambda: "#b06050" in page.text("#lcad-report"))
    colored, record = page.result()
    assert record["colors"] == ["red cup=#b06050"]
    change = np.abs(colored.astype(int) - plain) / 257
    assert change[:, :30].mean() < 1 < change[:, 50:].mean()  # where it was clicked, and nowhere else

    page.type("#lcad-saturation input[type=number]", "0")
    grey, record = page.result()
    assert record["settings"]["saturation"] == 0 and np.ptp(grey.astype(int), axis=2).max() <= 257


def test_many_photos_become_a_zip(page, tmp_path):
    for k, name in enumerate(("a.png", "b.tif")):
        random_photo(k).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "captions.json").write_text(json.dumps({"a.png": ["a red house"]}))
    page.driver.find_element("xpath", "//button[@role='tab'][contains(., 'Many photos')]").click()
    names = ("a.png", "b.tif", "broken.jpg", "captions.json")
    page.send("#lcad-many-drop input[type=file]", *(tmp_path / name for name in names))
    until(lambda: all(Path(name).stem in page.text("#lcad-many-drop") for name in names), "the files")
    page.press("#lcad-many-colorize")
    until(lambda: "2 colorized, 1 failed" in page.text("#lcad-many-status"), "the batch")
    assert "broken.jpg: not an image" in page.text("#lcad-many-status")
    (link,) = until(lambda: page.all("#lcad-zip a[download]"))
    (tmp_path / "all.zip").write_bytes(httpx.get(link.get_attribute("href"), timeout=60).content)
    with zipfile.ZipFile(tmp_path / "all.zip") as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
    assert content.keys() == {"a.png", "a.json", "b.tif", "b.json", "contact_sheet.png"}
    assert [json.loads(content[name])["caption"] for name in ("a.json", "b.json")] == [
        "a red house",
        "a colorful image",
    ]
    for name in ("a.png", "b.tif", "contact_sheet.png"):
        with Image.open(io.BytesIO(content[name])) as picture:
            assert np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2).max() > 10  # in colour
            assert picture.size == (48, 40) or name == "contact_sheet.png"


def test_stop_while_it_samples(page, scan, page_checkpoint):
    page.open(scan, CAPTION)
    kept = sorted((page_checkpoint.parent / "kept").rglob("*"))
    page.press("#lcad-settings > button")
    steps = "//div[@id='lcad-settings']//label[contains(., 'Steps')]//input"
    until(lambda: page.driver.find_element("xpath", steps).is_displayed())
    page.driver.find_element("xpath", steps).send_keys("\ue009a\ue009", "200", "\ue004")  # Ctrl+A, the number, Tab
    page.press("#lcad-colorize")
    until(lambda: "step 2" in page.text("#lcad-progress"), "a step")
    page.press("#lcad-stop")
    until(lambda: "stopped" in page.status())
    until(lambda: not page.all("#lcad-progress progress"))
    done = [image for image in page.all("#lcad-candidates img") if image.is_displayed()]
    assert len(done) < 4 and not page.all("#lcad-files a[download]")
    assert sorted((page_checkpoint.parent / "kept").rglob("*")) == kept
    page.driver.find_element("xpath", steps).send_keys("\ue009a\ue009", "1", "\ue004")
    page.colorize(4)  # it goes on
    assert page.result()[1]["settings"]["steps"] == 1


def test_keyboard_alone(page):
    until(lambda: page.all("#lcad-examples button"))
    page.tab_to("#lcad-examples button")
    page.keys("\ue007")
    until(lambda: "astronaut" in page.status(), "the example")
    page.tab_to("#lcad-caption textarea, #lcad-caption input")
    page.keys("\ue009a\ue009", CAPTION, "\ue007")
    until(lambda: "red cup" in page.text("#lcad-phrases"), "the objects")
    page.tab_to("#lcad-next")
    page.change("#lcad-photo img", lambda: page.keys("\ue007"))
    page.change("#lcad-photo img", lambda: page.keys(" "))
    page.tab_to("#lcad-colorize")
    assert page.driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keys(" ")
    until(lambda: len(page.all("#lcad-candidates img")) == 4 and not page.all("#lcad-progress progress"))


CONTRAST = """
const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const values = color => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
};
const light = rgb => rgb.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
return [...document.querySelectorAll(arguments[0])].filter(item => item.offsetParent).map(item => {
    let below = item;
    while (below && values(getComputedStyle(below).backgroundColor)[3] < 255) below = below.parentElement;
    const back = values(getComputedStyle(below || document.body).backgroundColor);
    const text = values(getComputedStyle(item).color);
    const [low, high] = [light(text), light(back)].sort((a, b) => a - b);
    return [item.outerHTML.slice(0, 80), (high + 0.05) / (low + 0.05), light(back)];
});
"""  # WCAG 2.1: the contrast of texts to what is behind them, and how light that is
TEXTS = (
    "#lcad-head h1, #lcad-head p, .lcad-heading h2, .lcad-heading small, .lcad-note p, #lcad-colorize, #lcad-stop, "
    "#lcad-next, #lcad-phrases label, #lcad-caption textarea, [data-testid=block-info], .lcad-report :is(th, td)"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_legible(page, scan, scheme):
    page.look_as(PAGE_SIZE, scheme)
    page.driver.refresh()
    page.open(scan, CAPTION)
    page.change("#lcad-photo img", lambda: page.draw("#lcad-photo img", (0.75, 0.5)))
    page.colorize(4)
    texts = until(lambda: page.text("#lcad-report") and page.driver.execute_script(CONTRAST, TEXTS))
    assert len(texts) > 20
    pale = [(text, contrast) for text, contrast, _ in texts if contrast < 4.5]
    assert not pale
    heading = next(back for text, _, back in texts if text.startswith("<h1"))
    assert (heading > 0.5) == (scheme == "light")


def test_a_phone(page, scan):
    page.look_as(PHONE)
    page.driver.refresh()
    page.open(scan, CAPTION)
    page.colorize(4)
    page.press("#lcad-painting > button")
    page.press("#lcad-settings > button")
    until(lambda: page.all("#lcad-canvas canvas"))
    assert page.driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [PHONE[0]] * 2
    controls = "#lcad-colorize #lcad-stop #lcad-next #lcad-clear #lcad-set-color #lcad-any-color #lcad-add #lcad-erase"
    for control in (*controls.split(), "#lcad-write", "#lcad-picker button", "#lcad-saturation input[type=range]"):
        place = page.shown(control).rect
        assert place["width"] >= 24 and 0 <= place["x"] <= PHONE[0] - place["width"], (control, place)
        assert page.driver.execute_script(
            "const b = arguments[0].getBoundingClientRect();"
            "return arguments[0].contains(document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2))",
            page.one(control),
        ), f"{control} is covered"
    page.driver.find_element("xpath", "//button[@role='tab'][contains(., 'Many photos')]").click()
    page.one("#lcad-many-colorize")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") == PHONE[0]


def test_it_comes_up_without_gradios_stub_files():
    """They take a quarter of the start: 11 seconds of a processor in place of 8."""
    program = """
import sys
stubs = []
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".pyi") and stubs.append(args[0]))
from lcad.cli.web import main
assert main(["--auth", "no colon"]) == 2  # said before it serves
assert "gradio" in sys.modules
print(len(stubs))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1] == "0"


def test_a_model_that_cannot_be_loaded_ends_it():
    command = [sys.executable, "scripts/web.py", "--model", "no such folder"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and ended.stderr.startswith("error: no such folder: no such checkpoint folder")


def test_what_cannot_be_read_is_one_line_and_the_page_goes_on(page, scan, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    page.upload(tmp_path / "broken.png")
    assert "not an image that can be read" in page.status() and str(tmp_path) not in page.status()
    assert page.all(".lcad-problem[role=alert]")
    page.press("#lcad-colorize")
    until(lambda: "there is no photo yet" in page.status())


def test_a_client_does_the_same_from_code(page_server, scan, page_checkpoint, tmp_path):
    from gradio_client import Client, handle_file

    client = Client(page_server.url, download_files=str(tmp_path / "got"), verbose=False)
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


def test_nothing_of_the_server_is_reachable(page_server, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with httpx.Client(base_url=page_server.url, timeout=60) as client:
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


def test_a_password_is_asked_for(page_checkpoint):
    server = Server(page_checkpoint, "--auth", "anna:secret")
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
