"""A contact sheet: for each photo a row of pictures with a line of text under it."""

from bisect import bisect_left
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

MARGIN = 8
TEXT_SIZE = 15


@dataclass(frozen=True)
class Row:
    """Pictures of any sizes, each with a short title, and a text for the row."""

    pictures: list[tuple[str, Image.Image]]
    text: str


def contact_sheet(rows: list[Row], tile: int = 224) -> Image.Image:
    """Rows one below the other, each picture fitted into tile x tile pixels -> PIL RGB."""
    font = ImageFont.load_default(TEXT_SIZE)
    line = TEXT_SIZE + MARGIN
    columns = max(len(row.pictures) for row in rows)
    fitted = [
        [ImageOps.contain(p.convert("RGB"), (tile, tile), Image.Resampling.LANCZOS) for _, p in row.pictures]
        for row in rows
    ]
    heights = [2 * line + MARGIN + max((small.height for small in pictures), default=0) for pictures in fitted]
    sheet = Image.new("RGB", (columns * (tile + MARGIN) + MARGIN, sum(heights) + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = MARGIN + sum(heights[:number])
        draw.text((MARGIN, top), fit_text(row.text, sheet.width - 2 * MARGIN, font), "black", font)
        for column, ((title, _), small) in enumerate(zip(row.pictures, fitted[number], strict=True)):
            left = MARGIN + column * (tile + MARGIN)
            draw.text((left, top + line), fit_text(title, tile, font), "dimgray", font)
            sheet.paste(small, (left + (tile - small.width) // 2, top + 2 * line))
    return sheet


def fit_text(text: str, width: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """`text` on one line, cut with an ellipsis to `width` pixels; control characters are left out."""
    text = "".join(c for c in text if c.isprintable())
    most = max(0, int(4 * width))  # characters; more do not fit, however narrow
    if len(text) <= most and font.getlength(text) <= width:
        return text
    fits = bisect_left(range(1, min(len(text), most) + 1), True, key=lambda k: font.getlength(f"{text[:k]}...") > width)
    return f"{text[:fits]}..."
