"""The folder of results: where each lies, what in it is this project's own, and what must not be replaced."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lcad.inference.plan import Job

SHOWN_MASKS, SAVED_MASKS = "shown_masks", "masks"  # folders in the output folder
OWN_KEYS = {"photo", "photo_sha256", "model_sha256", "settings", "results"}  # of every record of a result


@dataclass
class OutputFolder:
    """Paths of results, and whether they may be written.

    Attributes:
        suffix: of the results, one of `lcad.io.photos.FORMATS`; None: TIFF for TIFF, PNG for all else.
        samples: results of a photo.
        overwrite: replace results that were made differently.
        inputs: the photos' (device, inode), which no result may be, see `protect`.
    """

    folder: Path
    suffix: str | None = None
    samples: int = 1
    overwrite: bool = False
    inputs: set[tuple[int, int]] = field(default_factory=set)

    def protect(self, photos: Iterable[Path]) -> None:
        """Take note of the input files, so that no result replaces one, by whatever name it is reached."""
        self.inputs |= {identity for photo in photos if (identity := _identity(photo)) is not None}

    def results(self, job: Job) -> list[Path]:
        suffix = self.suffix or (".tif" if job.photo.suffix.lower() in (".tif", ".tiff") else ".png")
        names = [job.name] if self.samples == 1 else [f"{job.name}_{k}" for k in range(self.samples)]
        return [self.folder / f"{name}{suffix}" for name in names]

    def record(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def obstacle(self, job: Job) -> str | None:
        """Why this job's results cannot be written here, whatever made them; None: they can."""
        for path in (*self.results(job), self.record(job)):
            if _identity(path) in self.inputs:
                return f"{path}: the result would replace the photo itself; choose another --output"
        record = self.record(job)
        if os.path.lexists(record) and read_result_record(record) is None:
            return f"{record}: is not a record of this program and is kept; move it, or choose another --output"
        return None


def read_result_record(path: Path) -> dict | None:
    """The record beside a result; None: missing, damaged, or some other file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.keys() >= OWN_KEYS else None


def own_results(folder: Path) -> set[str]:
    """Names of the files in a folder that its records say are results."""
    names: set[str] = set()
    for path in folder.glob("*.json"):
        record = read_result_record(path)
        if record is not None:
            names |= set(map(str, record["results"]))
    return names


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
