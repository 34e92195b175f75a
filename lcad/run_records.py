"""The record of a run, `run.jsonl`: a line with the command, then one for each photo as soon as it is done."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RUN_RECORD = "run.jsonl"


class RunRecord:
    """Appends to the record in a run's output folder; each line is whole or, after a kill, the last one is not.

    Of several processes the first writes the record, each other one a part of its own beside it, which the first
    takes in: in the end, or after a kill when the next run begins.
    """

    def __init__(self, folder: Path, rank: int = 0):
        self.path = folder / (f"run_{rank}.jsonl" if rank else RUN_RECORD)
        folder.mkdir(parents=True, exist_ok=True)
        if _is_torn(self.path):
            self._append("\n")
        if rank == 0:
            self.take_in_parts()

    def write(self, line: dict) -> None:
        """Add a line, with the time."""
        self._append(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | line, ensure_ascii=False) + "\n")

    def take_in_parts(self) -> None:
        """Move the lines of other processes here."""
        for part in sorted(self.path.parent.glob("run_*.jsonl")):
            self._append(part.read_text(encoding="utf-8", errors="replace").rstrip("\n") + "\n")
            part.unlink()

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


@dataclass(frozen=True)
class RecordedRun:
    """What a record says of its last run.

    Attributes:
        command: the options of scripts/sample.py.
        model_sha256: of the weights.
        photos: result name -> the photo's line, of all runs into that folder.
    """

    command: list[str]
    model_sha256: str
    photos: dict[str, dict]


def read_record(path: Path) -> RecordedRun:
    """Raises ValueError: missing, or not a record."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as the record of a run ({error})") from error
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            continue  # torn by a kill
    rows = [row for row in rows if isinstance(row, dict)]
    runs = [row for row in rows if isinstance(row.get("command"), list)]
    if not runs:
        raise ValueError(f"{path}: names no command; give the {RUN_RECORD} of an output folder")
    photos: dict[str, dict] = {}
    for row in rows:
        if isinstance(row.get("name"), str):  # a photo that was kept has its pixels in an earlier line
            photos[row["name"]] = photos.get(row["name"], {}) | row
    return RecordedRun([str(part) for part in runs[-1]["command"]], str(runs[-1].get("model_sha256")), photos)


def differences(before: RecordedRun, after: RecordedRun) -> tuple[int, list[str]]:
    """How many photos of a run came out with the same pixels in its repetition, and a line for each other one."""
    same, different = 0, []
    for name, row in before.photos.items():
        again = after.photos.get(name, {})
        if "pixels" not in row:
            continue
        if again.get("pixels") == row["pixels"]:
            same += 1
            continue
        decisive = ("photo_sha256", "model_sha256", "masks_sha256", "settings", "versions", "device", "dtype")
        changed = [key for key in decisive if again.get(key) != row.get(key)]
        why = f"changed: {', '.join(changed)}" if again else "not made this time"
        different.append(f"{name}: not the same pixels as in the record ({why})")
    return same, different


def pixel_hash(values: np.ndarray) -> str:
    """SHA-256 of an image's shape, depth and pixels."""
    digest = hashlib.sha256(f"{values.shape} {values.dtype}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _is_torn(path: Path) -> bool:
    """Does the last line lack its end?"""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"
