"""Captions: where they come from, and the caption levels.

A caption is *complete* (colours for the major objects), *partial* (for some) or *scarce* (for none).
"""

import csv
import io
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

SCARCE_CAPTION = "a colorful image"

Captions = dict[str, list[str]]
"""file name of a photo -> its captions"""


class CaptionError(ValueError):
    """A caption file that cannot be used; the message is one line."""


def read_captions(folder: Path, file: Path | None = None) -> Captions:
    """The captions of the photos in `folder`.

    Read from `file`, or else from the first of `captions.json`, `pairs.json`, `captions.csv` found in the
    folder or its parent, or else from sidecar files (`photo.txt` beside `photo.jpg`, one caption a line).
    A photo without any is simply absent: callers fall back on `SCARCE_CAPTION`.

    Formats: a JSON object (name -> caption or list of captions); a JSON list of [name, caption] pairs, as the
    release's `pairs.json`; CSV with the columns `image` and `caption`.

    Names are compared in Unicode's composed form (NFC), and given as the folder's own files are called.

    Raises:
        CaptionError: missing, malformed, or naming a file outside the folder.
    """
    file = file or caption_file(folder)
    if file is None:
        return _read_sidecars(folder)
    if not file.is_file():
        raise CaptionError(f"{file}: no such caption file")
    try:
        text = file.read_text(encoding="utf-8-sig")
        pairs = _csv_pairs(text) if file.suffix.lower() == ".csv" else _json_pairs(json.loads(text))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, RecursionError) as error:
        raise CaptionError(f"{file}: not readable as {file.suffix or 'JSON'} ({error}); see data/README.md") from error
    except ValueError as error:
        raise CaptionError(f"{file}: {error}") from error
    captions: Captions = {}
    files: dict[str, list[str]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        files.setdefault(unicodedata.normalize("NFC", path.name), []).append(path.name)
    for name, caption in pairs:
        name = unicodedata.normalize("NFC", name).strip("\ufeff")
        if PurePath(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise CaptionError(f"{file}: {name!r} is not a plain file name; name photos without folders")
        for own in files.get(name, [name]):
            captions.setdefault(own, []).extend([text] if (text := plain_line(caption)) else [])
    return captions


def caption_file(folder: Path) -> Path | None:
    """The file that has the captions of the photos in `folder`; None: there is none, there may be sidecars."""
    names = ("captions.json", "pairs.json", "captions.csv")
    found = [place / name for place in (folder, folder.parent) for name in names if (place / name).is_file()]
    return found[0] if found else None


def read_colors(folder: Path, file: Path | None = None) -> tuple[dict[str, list[str]], Path]:
    """The exact colours of photos, from the column `colors` of a CSV of captions: "coat=#8b1a1a; sky=pale blue".

    Args:
        file: as in `read_captions`.

    Returns:
        file name of a photo -> "<object>=<colour>" of each, and the folder that files of masks are relative to.

    Raises:
        CaptionError: see `read_captions`.
    """
    file = file or caption_file(folder)
    if file is None or file.suffix.lower() != ".csv":
        return {}, folder
    try:
        rows = _csv_pairs(file.read_text(encoding="utf-8-sig"), "colors")
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise CaptionError(f"{file}: {error}") from error
    colors: dict[str, list[str]] = {}
    for name, cell in rows:
        own = [text for part in cell.split(";") if (text := plain_line(part))]
        colors.setdefault(unicodedata.normalize("NFC", name).strip("\ufeff"), []).extend(own)
    named = {path.name: colors.get(unicodedata.normalize("NFC", path.name), []) for path in folder.iterdir()}
    return {name: own for name, own in named.items() if own}, file.parent


def plain_line(text: str) -> str:
    """One line in NFC, without control characters, byte-order marks, nor what turns the direction of writing."""
    text = unicodedata.normalize("NFC", text)
    visible = (c if c.isprintable() else " " for c in text if unicodedata.category(c) != "Cf")
    return " ".join("".join(visible).split())


def _json_pairs(content: object) -> list[tuple[str, str]]:
    if isinstance(content, dict):
        rows = [
            (name, caption)
            for name, value in content.items()
            for caption in (value if isinstance(value, list) and value else [value or ""])
        ]
    elif isinstance(content, list) and all(isinstance(row, list) and len(row) == 2 for row in content):
        rows = [(name, caption) for name, caption in content]
    else:
        raise ValueError("expected {name: [caption, ...]} or [[name, caption], ...]")
    for name, caption in rows:
        if not (isinstance(name, str) and isinstance(caption, str)):
            raise ValueError(f"expected names and captions as text, got {name!r}: {caption!r}")
    return rows


def _csv_pairs(text: str, content: str = "caption") -> list[tuple[str, str]]:
    """Rows of the columns image and caption, or image and another, if it is there; the commas of a last column without
    quotation marks belong to it."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = [name.strip(" \ufeff") for name in next(reader, [])]
    if not {"image", "caption"} <= set(columns):
        raise ValueError(f"expected the columns image and caption, got {columns}")
    if content not in columns:
        return []
    image, caption, pairs = columns.index("image"), columns.index("caption"), []
    wanted = columns.index(content)
    try:
        for row in reader:
            if len(row) > len(columns) and caption != len(columns) - 1:
                raise ValueError(
                    f"line {reader.line_num} has {len(row)} cells for {len(columns)} columns; put captions with commas "
                    "in quotation marks"
                )
            if row:
                row[len(columns) - 1 :] = [",".join(row[len(columns) - 1 :])]
                row += [""] * (len(columns) - len(row))
                pairs.append((row[image], row[wanted]))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}; double the quotation marks inside a caption") from error
    return pairs


def _read_sidecars(folder: Path) -> Captions:
    captions: Captions = {}
    for photo in folder.iterdir():
        sidecar = photo.with_suffix(".txt")
        if photo.suffix != ".txt" and photo.is_file() and sidecar.is_file():
            try:
                lines = sidecar.read_text(encoding="utf-8-sig").split("\n")  # all line breaks are read as this one
            except UnicodeDecodeError as error:
                raise CaptionError(f"{sidecar}: not UTF-8 text ({error}); save it as UTF-8") from error
            captions[photo.name] = [text for line in lines if (text := plain_line(line))]
    return captions


def mirror_words(caption: str) -> str:
    """The caption of the mirrored photo: "left" and "right" change places.

    >>> mirror_words("The red cup on the left")
    'The red cup on the right'
    """
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda match: other[match.group()], caption)


@dataclass(frozen=True)
class CaptionSampler:
    """Draws the caption of one training example (Sec. 3.5).

    Attributes:
        scarce_probability: that it is replaced by `SCARCE_CAPTION`.
        dropout: probability of the empty caption, for classifier-free guidance.
    """

    scarce_probability: float
    dropout: float

    def __call__(self, captions: list[str], rng: np.random.Generator) -> str:
        draw, choice = rng.random(), rng.random()
        if draw < self.dropout:
            return ""
        if draw < self.dropout + self.scarce_probability or not captions:
            return SCARCE_CAPTION
        return captions[int(choice * len(captions))]
