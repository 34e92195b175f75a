"""Regions painted and erased by hand, in headless Chromium."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

if importlib.util.find_spec("gradio") is None:
    pytest.skip('the page needs Gradio: pip install -e ".[web]"', allow_module_level=True)
pytest.importorskip("selenium", reason="pip install selenium")

from tests.browser import CAPTION, Page, until  # noqa: E402
from tests.test_web_choices import COLOR, PHOTO, change  # noqa: E402

pytestmark = pytest.mark.slow  # a server and a browser

CANVAS = "#lcad-canvas canvas"
PAINTED = slice(23, 34), slice(24, 34)  # of the photo's 60 rows and 80 columns, by `paint`


def paint(page: Page) -> None:
    """Open the canvas, and paint a block in the dark half of the photo."""
    page.press("#lcad-painting > button")
    until(lambda: page.all(CANVAS), "the canvas")
    page.settle(CANVAS)
    rows = np.linspace(0.35, 0.6, 12)
    page.draw(CANVAS, *((x, y) for k, y in enumerate(rows) for x in ((0.28, 0.45), (0.45, 0.28))[k % 2]))


def test_a_painted_region_is_coloured_and_nothing_else(page, scan):
    page.open(scan, CAPTION)
    paint(page)
    page.change(PHOTO, lambda: page.press("#lcad-add"))
    page.colorize(4)
    plain, record = page.result()
    assert [row["phrase"] for row in record["instances"][0]] == ["red cup"]  # with which it was sampled
    page.type(COLOR, "#b06050")
    until(lambda: "#b06050" in page.text("#lcad-report"))
    colored, record = page.result()
    assert record["colors"] == ["red cup=#b06050"]
    changed = change(colored, plain)
    assert changed[PAINTED].mean() > 5 > 1 > changed[:, 45:].max()


def test_a_part_of_a_region_is_erased(page, scan):
    page.open(scan, CAPTION)
    page.change(PHOTO, lambda: page.draw(PHOTO, (0.25, 0.5)))
    page.colorize(4)
    plain, _ = page.result()
    page.type(COLOR, "#b06050")
    until(lambda: "#b06050" in page.text("#lcad-report"))
    whole, _ = page.result()
    assert change(whole, plain)[:, :35].mean() > 5
    paint(page)
    page.change("#lcad-divider img:last-of-type", lambda: page.press("#lcad-erase"))
    rest, record = page.result()
    assert record["colors"] == ["red cup=#b06050"]
    assert change(rest, plain)[PAINTED].max() < 1  # as if it had not been coloured
    assert change(rest, whole)[:, :8].max() < 2  # as before, but for the mean colour, which is that of the rest now
    assert change(rest, plain)[:, 45:].max() < 1


def test_another_photo_has_nothing_painted_on_it(page, scan, tmp_path):
    page.open(scan, CAPTION)
    paint(page)
    Image.fromarray(np.full((60, 80), 250, np.uint8)).save(tmp_path / "white.png")
    page.open(tmp_path / "white.png", CAPTION)  # the drop zone takes it without having been emptied
    page.press("#lcad-add")
    until(lambda: "nothing is painted yet" in page.status())


INK = """
const canvas = document.querySelector(arguments[0]);
return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter(value => value).length;
"""


def test_the_last_stroke_is_undone_and_all_are_cleared(page, scan):
    def ink() -> int:
        return page.driver.execute_script(INK, CANVAS)

    page.open(scan, CAPTION)
    page.press("#lcad-painting > button")
    page.settle(CANVAS)
    page.draw(CANVAS, (0.2, 0.5), (0.4, 0.5))
    one = ink()
    page.draw(CANVAS, (0.7, 0.5))
    assert ink() > one > 0
    page.press("#lcad-canvas [data-do=undo]")
    assert ink() == one
    page.press("#lcad-canvas [data-do=clear]")
    assert ink() == 0
    page.press("#lcad-add")
    until(lambda: "nothing is painted yet" in page.status())
