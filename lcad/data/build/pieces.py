"""Files that travel in pieces of a bounded size, and are only used if nothing was lost or changed on the way.

A manifest `<name>.pieces.json` names the pieces `<name>.part000`, ... with their SHA-256 and sizes in bytes, and those
of the whole. It comes from strangers: no name in it leads out of its folder.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from lcad.data.build.manifest import file_sha256
from lcad.io.images import atomic_write, write_bytes

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
CHUNK = 2**20  # bytes read at a time


@dataclass(frozen=True)
class FileRecord:
    """A file as it should be: its name without folders, its SHA-256 (64 hexadecimal digits), its size in bytes."""

    name: str
    sha256: str
    size: int

    def state(self, folder: Path) -> str | None:
        """What is wrong with the file in a folder: "missing", "damaged" or nothing."""
        path = folder / self.name
        if not path.is_file():
            return "missing"
        return None if path.stat().st_size == self.size and file_sha256(path) == self.sha256 else "damaged"


def parse_size(text: str) -> int:
    """Bytes of "15MB" (millions), "15MiB" (2^20) or "1500"; raises ValueError: not a size of at least one byte."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?) ?((?:[KMG]i?)?)B?", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ValueError(f"got {text!r} as a size; write it as 15MB, 15MiB or a number of bytes")
    return size


def is_plain_name(name: object) -> bool:
    """Is it the name of a file that can be shown, without any folder?"""
    return (
        isinstance(name, str)
        and PurePath(name).name == name
        and name not in ("", ".", "..")
        and name.isprintable()
        and "\\" not in name
    )


def parse_record(content: object) -> FileRecord:
    """A `FileRecord` from JSON; raises ValueError: it is none."""
    fields = content if isinstance(content, dict) else {}
    name: Any
    sha256: Any
    name, sha256, size = (fields.get(key) for key in ("name", "sha256", "size"))
    good = is_plain_name(name) and isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    if not good or type(size) is not int or size < 0:
        raise ValueError(f"expected a file's name, sha256 and size, got {str(content)[:100]!r}")
    return FileRecord(name, sha256, size)


def split_file(path: Path, folder: Path, size: int) -> Path:
    """Write a file's pieces of at most `size` bytes, and then their manifest, into a folder -> the manifest."""
    if size < 1:
        raise ValueError(f"got {size} bytes as the size of a piece; give 1 or more")
    pieces: list[FileRecord] = []
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while (data := file.read(size)) or not pieces:
            piece = FileRecord(_piece_name(path.name, len(pieces)), hashlib.sha256(data).hexdigest(), len(data))
            write_bytes(folder / piece.name, data)
            whole.update(data)
            pieces.append(piece)
    record = FileRecord(path.name, whole.hexdigest(), sum(piece.size for piece in pieces))
    manifest = folder / f"{path.name}.pieces.json"
    write_bytes(manifest, json.dumps(asdict(record) | {"pieces": list(map(asdict, pieces))}, indent=1).encode())
    return manifest


def join_pieces(manifest: Path, output_folder: Path) -> Path:
    """Check the pieces beside a manifest and join them, whole or not at all -> the file in `output_folder`.

    Raises:
        ValueError: a manifest that cannot be read, pieces that are missing or damaged. OSError: no such file, no space.
    """
    record, pieces = _read_manifest(manifest)
    wrong = [f"{piece.name} is {state}" for piece in pieces if (state := piece.state(manifest.parent))]
    if wrong:
        raise ValueError(f"{manifest}: {some(wrong)}; copy them again")
    digest, path = hashlib.sha256(), output_folder / record.name
    with atomic_write(path) as file:
        for data in _chunks(manifest.parent / piece.name for piece in pieces):
            digest.update(data)
            file.write(data)
        if digest.hexdigest() != record.sha256:
            raise ValueError(f"{manifest}: the pieces do not make the file that it names; split it again")
    return path


def some(listed: list[str], most: int = 5) -> str:
    """The first few of a list, and how many more there are, for a message of one line."""
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _piece_name(name: str, number: int) -> str:
    return f"{name}.part{number:03d}"


def _read_manifest(path: Path) -> tuple[FileRecord, list[FileRecord]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record, pieces = parse_record(content), list(map(parse_record, content["pieces"]))
        if [piece.name for piece in pieces] != [_piece_name(record.name, i) for i in range(len(pieces))]:
            raise ValueError("expected pieces named and numbered after the whole")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a manifest of pieces ({error}); copy it again") from error
    return record, pieces


def _chunks(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                yield data
