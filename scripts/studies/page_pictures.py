#!/usr/bin/env python3
"""The pictures of the page in docs/web.md: an example of the mini model, in a wide window and on a phone.

python -m scripts.studies.page_pictures --output docs/

Needs Chromium with its driver, and what `pip install -e ".[dev]"` brings.
"""

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from lcad.cli.common import build_parser
from tests.browser import PHONE, Page, Server, browser, until

EXAMPLE = 2  # of those that the page shows, counting from 0
COLORS = 256  # of a picture's palette


def save(page: Page, path: Path, size: tuple[int, int]) -> None:
    """The page, of this width and as high as it is."""
    page.look_as(size)
    driver = page.driver
    driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    height = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": size[0], "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as picture:
        picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of web.png and web_phone.png")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder) / "chromium") as driver:
        server = Server("checkpoints/mini")
        try:
            page = Page(driver, server.url, Path(folder))
            until(lambda: len(page.all("#lcad-examples button")) > EXAMPLE)
            page.all("#lcad-examples button")[EXAMPLE].click()
            until(lambda: page.picture("#lcad-photo img"), "the regions")
            page.colorize(4)
            until(lambda: page.text("#lcad-report"))
            save(page, args.output / "web.png", (1050, 1100))
            save(page, args.output / "web_phone.png", PHONE)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
