"""The manifest of a data set: each file of an evaluation, its hash, and the one caption it is scored with.

`manifest.csv` lies beside `images/` and `captions.json`; its columns are the fields of `ManifestRow`.
"""

import csv
import hashlib
import io
import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath

from lcad.io.images import write_bytes
from lcad.text.levels import LEVELS

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class ManifestRow:
    """One photo of an evaluation.

    Attributes:
        file: path inside the manifest's folder, with /.
        sha256: of the file, 64 hexadecimal digits.
        caption: the photo's one fixed caption.
        level: of that caption, of `lcad.text.levels.LEVELS`.
    """

    file: str
    sha256: str
    caption: str
    level: str


COLUMNS = [field.name for field in fields(ManifestRow)]


def read_manifest(path: Path) -> list[ManifestRow]:
    """The rows of a manifest.

    Raises:
        ValueError: missing, empty, malformed, naming a file twice or one outside the folder.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a manifest ({error}); see scripts/prepare_data.py") from error
    if header != COLUMNS or not lines:
        raise ValueError(f"{path}: expected the columns {','.join(COLUMNS)} and a line for each photo, got {header}")
    rows: dict[str, ManifestRow] = {}
    for number, line in enumerate(lines, start=2):
        problem = _problem(line) or (f"{line[0]!r} is named twice" if line[0] in rows else None)
        if problem:
            raise ValueError(f"{path}, row {number}: {problem}; write it again with scripts/prepare_data.py")
        rows[line[0]] = ManifestRow(*line)
    return list(rows.values())


def _problem(line: list[str]) -> str | None:
    if len(line) != len(COLUMNS):
        return f"expected {len(COLUMNS)} values, got {len(line)}"
    file, sha256, _, level = line
    plain = PurePosixPath(file)
    plain_path = str(plain) == file and plain.name and not PureWindowsPath(file).anchor
    if not plain_path or ".." in plain.parts or "\\" in file or "\0" in file:
        return f"{file!r} is not a path inside the folder"
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        return f"expected a SHA-256 of 64 digits, got {sha256!r}"
    return None if level in LEVELS else f"got the level {level!r}; allowed: {', '.join(LEVELS)}"


def write_manifest(path: Path, rows: list[ManifestRow]) -> None:
    """Write a manifest whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *map(astuple, rows)])
    write_bytes(path, text.getvalue().encode())


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path) -> dict[str, str]:
    """The files of the folder's manifest that are not as it says: file -> "missing" or "changed".

    Raises:
        ValueError: a manifest that cannot be read.
    """
    problems = {}
    for row in read_manifest(folder / MANIFEST):
        if not (folder / row.file).is_file():
            problems[row.file] = "missing"
        elif file_sha256(folder / row.file) != row.sha256:
            problems[row.file] = "changed"
    return problems
