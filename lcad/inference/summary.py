"""What came of a run: numbers, problems, and the rows of its contact sheet."""

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lcad.inference.plan import CONTACT_SHEET, Job
from lcad.io.contact_sheet import Row, contact_sheet
from lcad.io.images import write_bytes
from lcad.text.captions import SCARCE_CAPTION, plain_line

SHEET_ROWS = 40  # photos on the contact sheet: a long run keeps no more pictures than these
THUMBNAIL = 320  # pixels, of what is kept for the contact sheet
TRUE_COLOR_CHROMA = 4  # spread of RGB channels (0-255) above which a photo counts as coloured
MARK = "contact sheet of L-CAD"  # in the PNG's text, by which a sheet of an earlier run is known


@dataclass
class Summary:
    """Photos by outcome, and one line for each problem."""

    written: int = 0
    kept: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    _row_of: dict[Path, Row] = field(default_factory=dict)

    @classmethod
    def of_all(cls, parts: list["Summary"]) -> "Summary":
        """Of the processes that shared a run out."""
        numbers = {name: sum(getattr(part, name) for part in parts) for name in ("written", "kept", "failed")}
        rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.text)
        return cls(**numbers, problems=[line for part in parts for line in part.problems], rows=rows[:SHEET_ROWS])

    @property
    def status(self) -> int:
        """Exit status: 0 all done, 1 some photos failed, 2 nothing could be done."""
        if not self.problems:
            return 0
        return 1 if self.written + self.kept else 2

    def add_problem(self, message: str) -> None:
        self.problems.append(one_line(message))

    def fail(self, message: str) -> None:
        """Count a photo as failed, and say why."""
        self.failed += 1
        self.add_problem(message)

    def add_row(
        self, job: Job, photo: Image.Image, results: list[Image.Image], reports: Iterable[list[dict]] = ()
    ) -> None:
        """Put results on the contact sheet, those of one photo beside each other."""
        title = "colorized" if job.level == "complete" else job.level
        judged = [", ".join(map(_verdict, report)) for report in reports] or [""] * len(results)
        pictures = [
            (" ".join(filter(None, (title, str(k) if k else "", verdict))), image)
            for k, (image, verdict) in enumerate(zip(results, judged, strict=True))
        ]
        caption = job.caption or SCARCE_CAPTION
        row = self._row_of.get(job.photo)
        if row is None:
            if len(self.rows) >= SHEET_ROWS:
                return
            row = self._row_of[job.photo] = Row([("grey", photo.convert("L"))], f"{job.photo.name}: {caption}")
            self.rows.append(row)
            pixels = np.asarray(photo.resize((32, 32)), dtype=np.int16)
            if np.ptp(pixels, axis=2).mean() > TRUE_COLOR_CHROMA:
                row.pictures.append(("as given", photo))
        given = [item for item in row.pictures if item[0] == "as given"]
        row.pictures[len(row.pictures) - len(given) :] = [*pictures, *given]
        for _, picture in row.pictures:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))

    def write_sheet(self, folder: Path) -> Path:
        """Write the contact sheet, under a name whose file is not there or is a sheet of an earlier run."""
        names = (f"{CONTACT_SHEET}{number}.png" for number in ("", *(f"_{k}" for k in range(2, 1000))))
        path = next(path for path in map(folder.joinpath, names) if not os.path.lexists(path) or is_own_sheet(path))
        buffer, mark = io.BytesIO(), PngInfo()
        mark.add_text("Software", MARK)
        contact_sheet(self.rows).save(buffer, "PNG", pnginfo=mark)
        write_bytes(path, buffer.getvalue())
        return path

    def try_sheet(self, folder: Path) -> Path | None:
        """As `write_sheet`, if there is anything to show; that it cannot be written is a problem among others."""
        try:
            return self.write_sheet(folder) if self.rows else None
        except OSError as error:
            self.add_problem(f"contact sheet in {folder}: cannot be written ({error.strerror or error})")
            return None


def is_own_sheet(path: Path) -> bool:
    """Is this file a contact sheet that an earlier run has written?"""
    if not (path.name.startswith(CONTACT_SHEET) and path.suffix == ".png" and path.is_file()):
        return False
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == MARK
    except Exception:  # damaged in one of many ways: not to be told from a user's own
        return False


def one_line(message: str) -> str:
    """A message on one line; what is no UTF-8 in a file's name is shown as \\udcxx."""
    return plain_line(message.encode("utf-8", "backslashreplace").decode())


def failure(photo: Path, error: Exception) -> str:
    """One line that names the photo and says what is wrong."""
    if isinstance(error, MemoryError):
        return f"{photo}: out of memory ({type(error).__name__})"
    text = one_line(str(error)) or type(error).__name__
    if not isinstance(error, (OSError, ValueError)):
        text = f"{type(error).__name__}: {text}"
    return text if photo.name in text else f"{photo}: {text}"


def _verdict(row: dict) -> str:
    """ "red: orange" for a phrase that asked for red, "red" where it got it."""
    return row["name"] if row["asked"] in (None, row["name"]) else f"{row['asked']}: {row['name']}"
