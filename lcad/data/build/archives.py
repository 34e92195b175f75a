"""Files of a folder, a zip or a plain tar, listed first and read one at a time; nothing is ever unpacked to disk.

Archives come from strangers: what is read has a bounded size, and links and paths that lead outside are refused.
"""

import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

MAX_BYTES = 100 * 2**20  # of one file, unpacked
_UTF_8 = 0x800  # of a zip's flags: names are in UTF-8


class MemberError(ValueError):
    """A file that cannot be read; the message is one line."""


@dataclass(frozen=True)
class Member:
    """A file of a folder or an archive, not read yet.

    Attributes:
        path: inside `source`, with /.
        size: in bytes, unpacked.
        special: a link or a device in an archive.
        open: opens the content.
    """

    source: Path
    path: str
    size: int
    special: bool
    open: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"{self.source}: {self.path!r}"

    def refusal(self) -> str | None:
        """Why the file is not to be read, if so."""
        path = PurePosixPath(self.path)
        if self.special:
            return "is a link or a device"
        if path.is_absolute() or ".." in path.parts or "\\" in self.path or not self.path.isprintable():
            return "is a path that leads outside or has unusual characters"
        return f"has {self.size:,} bytes, at most {MAX_BYTES:,} are read" if self.size > MAX_BYTES else None

    def read(self) -> bytes:
        """The content, at most `MAX_BYTES`; raises MemberError: refused, empty or damaged."""
        if reason := self.refusal():
            raise MemberError(f"{self}: {reason}; refused")
        try:
            with self.open() as file:
                data = file.read(MAX_BYTES + 1)
        except Exception as error:  # damaged and hostile archives fail in many ways
            raise MemberError(f"{self}: damaged ({error}); get {self.source.name} again") from error
        if not 0 < len(data) <= MAX_BYTES:
            raise MemberError(f"{self}: empty or larger than it says ({len(data)} bytes); get {self.source.name} again")
        return data


def list_members(source: Path, stack: ExitStack, report: Callable[[str], None]) -> list[Member]:
    """The files of a folder (with its subfolders, sorted) or an archive (in its order), without hidden ones.

    Their paths are in Unicode's composed form (NFC), as captions are looked up by; a Mac's archives have the other one.

    Args:
        stack: keeps an archive open for reading.
        report: is told in one line what is wrong with an archive.

    Raises:
        FileNotFoundError: no such file or folder.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; give a folder, a .zip or an uncompressed .tar")
    found: list[Member] = []
    try:
        if source.is_dir():
            found += [file_member(path, source) for path in sorted(source.rglob("*")) if path.is_file()]
        elif zipfile.is_zipfile(source):
            archive = stack.enter_context(zipfile.ZipFile(source))
            for info in archive.infolist():
                link = stat.S_ISLNK(info.external_attr >> 16)
                if not info.is_dir():
                    path = _zip_path(info).replace("\\", "/")
                    found.append(Member(source, path, info.file_size, link, partial(archive.open, info)))
        else:
            tar = stack.enter_context(tarfile.TarFile.open(source, "r:"))
            for entry in tar:
                special = not entry.isfile()
                if not entry.isdir():
                    found.append(Member(source, entry.name, entry.size, special, partial(_extract, tar, entry)))
    except Exception as error:  # as above
        report(f"{source}: damaged, short or no .zip or uncompressed .tar, {len(found)} files listed ({error})")
    found = [replace(member, path=unicodedata.normalize("NFC", member.path)) for member in found]
    return [member for member in found if not member.name.startswith(".")]


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(entry)
    if file is None:
        raise MemberError("is no file")
    return file


def _zip_path(info: zipfile.ZipInfo) -> str:
    """A file's path in a zip; UTF-8 that is not marked as such, as macOS writes it, would be read as cp437."""
    if info.flag_bits & _UTF_8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def file_member(path: Path, folder: Path) -> Member:
    """A file of a folder of the user's own, where links are fine."""
    return Member(folder, path.relative_to(folder).as_posix(), path.stat().st_size, False, lambda: path.open("rb"))
