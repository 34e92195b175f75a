"""The record of a run, `run.jsonl`: a line with the command, then one for each photo as soon as it is done."""

import errno
import hashlib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: there two runs into one folder are not told from one
    fcntl = None

RUN_RECORD = "run.jsonl"
_START = b'{"time": "'  # of each line


class RunRecord:
    """Appends to the record in a run's output folder; each line is whole or, after a kill, the last one is not.

    The folder is this run's alone until `close`, or until its process ends. Of several processes the first writes the
    record, each other one a part of its own beside it, which the first takes in: in the end, or after a kill when the
    next run begins.

    Raises:
        ValueError: another run is writing there, or the file is something else.
    """

    def __init__(self, folder: Path, rank: int = 0):
        self.path = folder / (f"run_{rank}.jsonl" if rank else RUN_RECORD)
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size and not is_record(self.path):
            raise ValueError(f"{self.path}: is not the record of a run and is kept; choose another --output")
        self._file = self.path.open("ab", buffering=0)
        self._lock()
        self._torn = _is_torn(self.path)
        if rank == 0:
            self.merge_parts()

    def write(self, line: dict) -> None:
        """Add a line, with the time.

        Raises:
            OSError: the disk; it names the file.
        """
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | line
        self._append(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace"))

    def merge_parts(self) -> None:
        """Move the lines of other processes here."""
        for part in sorted(self.path.parent.glob("run_[0-9]*.jsonl")):
            if is_record(part):
                self._append(part.read_bytes().rstrip(b"\n"))
                part.unlink()

    def close(self) -> None:
        """Let other runs write into the folder."""
        self._file.close()

    def _lock(self) -> None:
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            rows = [row for row in _rows(self.path.read_text(encoding="utf-8", errors="replace")) if "pid" in row]
            who = f"process {rows[-1]['pid']} on {rows[-1].get('host')}" if rows else "another process"
            raise ValueError(
                f"{self.path.parent}: {who} is writing results there; wait for it, or choose another --output"
            ) from error
        except OSError:  # a file system without locks
            pass

    def _append(self, line: bytes) -> None:
        data = (b"\n" if self._torn else b"") + line + b"\n"
        try:
            self._torn = True
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def this_process() -> dict:
    """Who writes a record: for a run that comes upon it."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def is_record(path: Path) -> bool:
    """Is this file the record of a run?"""
    try:
        with path.open("rb") as file:
            start = file.read(len(_START))
    except OSError:
        return False
    return start != b"" and _START.startswith(start)  # a full disk may have cut it


@dataclass(frozen=True)
class RecordedRun:
    """What a record says of its last run.

    Attributes:
        command: the options of scripts/sample.py.
        cwd: the folder that its paths are relative to.
        model_sha256: of the weights.
        photos: result name -> the photo's line, of all runs into that folder.
    """

    command: list[str]
    model_sha256: str
    photos: dict[str, dict]
    cwd: Path = Path()

    @property
    def batches(self) -> dict[str, tuple[str, ...]]:
        """result name -> the names of the batch that the model made it in."""
        listed = {name: row.get("batch") for name, row in self.photos.items()}
        return {name: tuple(map(str, batch)) for name, batch in listed.items() if isinstance(batch, list)}


def read_record(path: Path) -> RecordedRun:
    """Raises ValueError: missing, or not a record."""
    try:
        rows = _rows(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as the record of a run ({error})") from error
    runs = [row for row in rows if isinstance(row.get("command"), list)]
    if not runs:
        raise ValueError(f"{path}: names no command; give the {RUN_RECORD} of an output folder")
    photos: dict[str, dict] = {}
    for row in rows:
        if isinstance(row.get("name"), str):  # a photo that was kept has its pixels in an earlier line
            photos[row["name"]] = photos.get(row["name"], {}) | row
    run = runs[-1]
    command = [str(part) for part in run["command"]]
    return RecordedRun(command, str(run.get("model_sha256")), photos, Path(str(run.get("cwd", ""))))


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
        decisive += ("colors", "color_masks_sha256")
        changed = [key for key in decisive if again.get(key) != row.get(key)]
        why = f"changed: {', '.join(changed)}" if again else "not made this time"
        different.append(f"{name}: not the same pixels as in the record ({why})")
    return same, different


def pixel_hash(values: np.ndarray) -> str:
    """SHA-256 of an image's shape, depth and pixels."""
    digest = hashlib.sha256(f"{values.shape} {values.dtype}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _rows(text: str) -> list[dict]:
    """The objects of a record's lines; names may hold other line breaks than \\n."""
    rows = []
    for line in text.split("\n"):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            continue  # torn by a kill
    return [row for row in rows if isinstance(row, dict)]


def _is_torn(path: Path) -> bool:
    """Does the last line lack its end?"""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"
