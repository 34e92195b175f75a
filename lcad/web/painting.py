"""What is painted on the page's canvas (painting.js), as a mask.

The page has a canvas of its own because Gradio's ImageEditor draws by WebGL: without a graphics card a browser stands
still for half a minute when the picture under it changes, and loses what comes meanwhile.
"""

import json

from PIL import Image, ImageDraw
from torch import Tensor

from lcad.io.images import to_tensor

MOST_POINTS = 50_000  # of one drawing
WIDEST = 0.2  # of the long side


def painted(drawing: str | None, size: tuple[int, int]) -> Tensor:
    """The canvas's value -> (h, w) of `size` in {0, 1}.

    Raises:
        ValueError: it is none of the canvas's.
    """
    height, width = size
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    for share, places in _strokes(drawing):
        brush = max(1, round(share * max(size)))
        points = [(x * width, y * height) for x, y in places]
        if len(points) > 1:
            pen.line(points, fill=255, width=brush)
        for point in points:  # ends and joints are round
            pen.circle(point, max(1, brush - 1) / 2, fill=255)  # a smaller one would draw nothing
    return (to_tensor(picture)[0] > 0).float()


def _strokes(drawing: str | None) -> list[tuple[float, list[tuple[float, float]]]]:
    """Widths and points, all of them shares in [0, 1]."""
    try:
        strokes = [
            (float(stroke["width"]), [(float(x), float(y)) for x, y in stroke["points"]])
            for stroke in json.loads(drawing or "[]")
        ]
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise ValueError("what is painted cannot be read; clear it, and paint again") from error
    shares = [share for _, points in strokes for point in points for share in point]
    if len(shares) > 2 * MOST_POINTS:
        raise ValueError(f"{len(shares) // 2:,} points are painted; after {MOST_POINTS:,} add them to the region")
    if not all(0 <= share <= 1 for share in shares) or not all(0 < width <= WIDEST for width, _ in strokes):
        raise ValueError(f"places of what is painted are to be in [0, 1], widths in (0, {WIDEST}]")
    return strokes
