"""What is chosen by hand on the page, in headless Chromium: a colour from the picker, a candidate, an example."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("gradio") is None:
    pytest.skip('the page needs Gradio: pip install -e ".[web]"', allow_module_level=True)
pytest.importorskip("selenium", reason="pip install selenium")

from tests.browser import CAPTION, until  # noqa: E402

pytestmark = pytest.mark.slow  # a server and a browser

PHOTO, COLOR = "#lcad-photo img", "#lcad-color :is(input, textarea)"


def change(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much 16 bit values (H, W, 3) differ at each pixel, of 255."""
    return np.abs(one.astype(int) - other).mean(-1) / 257


def test_a_colour_from_the_picker(page, scan):
    page.open(scan, CAPTION)
    page.change(PHOTO, lambda: page.draw(PHOTO, (0.75, 0.5)))
    page.colorize(4)
    plain, _ = page.result()
    page.press("#lcad-picker .dialog-button")
    field = "#lcad-picker .input input"
    before = page.value(field)
    assert before == page.value(COLOR)
    page.draw("#lcad-picker .color-gradient", (0.2, 0.8), (0.5, 0.5), (0.9, 0.4))  # as wide as it is drawn
    assert page.value(field) != before
    until(lambda: page.value(COLOR) == page.value(field))
    page.type(field, "#b06050")
    until(lambda: page.value(COLOR) == "#b06050")
    page.press("#lcad-picker .dialog-button")
    page.press("#lcad-set-color")
    until(lambda: "#b06050" in page.text("#lcad-report"))
    colored, record = page.result()
    assert record["colors"] == ["red cup=#b06050"]
    assert change(colored, plain)[:, 45:].min() > 5 > 1 > change(colored, plain)[:, :35].max()
    page.press("#lcad-any-color")
    until(lambda: page.text("#lcad-report") and "#b06050" not in page.text("#lcad-report"))
    assert np.array_equal(page.result()[0], plain)
    page.type(COLOR, "navy")
    until(lambda: page.value(COLOR) == "#000080")  # and the picker shows it
    until(lambda: "#000080" in page.text("#lcad-report"))


def test_a_choice_while_another_is_worked_out_counts(page, scan):
    page.open(scan, CAPTION)
    page.colorize(4)
    for tile in page.all("#lcad-candidates button")[1:3]:
        tile.click()
    until(lambda: "selected" in page.all("#lcad-candidates button")[2].get_attribute("class"))
    assert page.result()[1]["settings"]["seed"] == 2


def test_an_example_can_be_chosen_again(page, scan):
    for caption in ("a blue cat", ""):
        until(lambda: len(page.all("#lcad-examples button")) > 1)
        page.all("#lcad-examples button")[1].click()
        until(lambda: "tabby cat" in page.text("#lcad-phrases"), "the example's own caption")
        if caption:
            page.type("#lcad-caption textarea, #lcad-caption input", caption)
            until(lambda: "blue cat" in page.text("#lcad-phrases"))
    page.upload(scan)
