"""Texts that files hold beside their pixels: those of a PNG by keyword, and comments of JPEG and other formats."""

import re
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from lcad.io.containers import TEXTS, png_chunks
from lcad.io.metadata import png_chunk

COMMENT = "Comment"  # PNG's keyword for what has no other
LONGEST = 65_533  # bytes of a comment in a JPEG
_METADATA = ("XML:com.adobe.xmp", *(f"Raw profile type {name}" for name in ("exif", "APP1", "xmp", "iptc")))
_PROFILES = ("Raw profile type icc", "Raw profile type icm")  # a result has its own


@dataclass(frozen=True)
class Text:
    """One text.

    Attributes:
        keyword: 1 to 79 characters of Latin-1.
        content: the bytes of a comment as they are, for keyword `COMMENT`; of a PNG's text its UTF-8.
        chunk: name and content of the PNG's chunk that it comes from; None: of another format.
    """

    keyword: str
    content: bytes
    chunk: tuple[bytes, bytes] | None = None

    def as_png(self) -> bytes:
        """The chunk of a PNG; of one that comes from a PNG, as it was."""
        if self.chunk is not None:
            return png_chunk(*self.chunk)
        content = self.content.rstrip(b"\0").replace(b"\0", b" ")
        keyword = self.keyword.encode("latin-1")
        try:
            international = not content.isascii() and bool(content.decode("utf-8"))
        except UnicodeDecodeError:
            international = False
        if international:
            return png_chunk(b"iTXt", keyword + b"\0\0\0\0\0" + content)
        return png_chunk(b"tEXt", keyword + b"\0" + content)

    def as_comment(self) -> bytes:
        """The bytes of a JPEG's comment, which has no keyword of its own."""
        return self.content if self.keyword == COMMENT else f"{self.keyword}: ".encode() + self.content


def texts_of(image: Image.Image, file: BinaryIO) -> tuple[list[Text], list[str]]:
    """The texts of an image that was loaded from `file`, but for EXIF, XMP and IPTC; and notes on what is not kept."""
    if image.format == "PNG":
        return _png_texts(png_chunks(file, TEXTS))
    comments = [image.info.get("comment"), image.info.get("id_section")]
    if image.format in ("JPEG", "MPO"):
        comments = [content for name, content in getattr(image, "applist", []) if name == "COM"]
    if image.format == "PPM":
        file.seek(0)
        head = file.read(1 << 16)
        numbers = 2 if head[1:2] in b"14" else 3
        header = re.match(rb"P[1-6](?:(?:\s|#[^\n\r]*[\n\r])+\d+){%d}" % numbers, head)
        comments = [line.strip() for line in re.findall(rb"#([^\n\r]*)", header.group())] if header else []
    texts = [text.encode() if isinstance(text, str) else text for text in comments]
    return [Text(COMMENT, text) for text in texts if text], []


def jpeg_comments(texts: list[Text]) -> bytes:
    """The segments of a JPEG; those that are too long are left out."""
    kept = [content for content in (text.as_comment() for text in texts) if 0 < len(content) <= LONGEST]
    return b"".join(b"\xff\xfe" + (len(content) + 2).to_bytes(2, "big") + content for content in kept)


def notes_on_texts(texts: list[Text], suffix: str) -> list[str]:
    """What of the texts a file of that suffix cannot keep."""
    lost = texts
    if suffix == ".png":
        lost = []
    elif suffix in (".jpg", ".jpeg"):
        lost = [text for text in texts if len(text.as_comment()) > LONGEST]
    if not lost:
        return []
    names = ", ".join(dict.fromkeys(repr(text.keyword) for text in lost))
    reason = f"a JPEG holds {LONGEST:,} bytes" if lost is not texts else f"{suffix} has no place for them"
    return [f"its texts {names} are not kept: {reason}"]


def _png_texts(chunks: list[tuple[bytes, bytes]]) -> tuple[list[Text], list[str]]:
    texts, notes = [], []
    for name, content in chunks:
        key, separator, value = content.partition(b"\0")
        keyword = key.decode("latin-1")
        if keyword in _METADATA:
            continue
        if keyword in _PROFILES:
            notes.append("has a colour profile in a text, which no reader of PNG need look at; it is not used")
        elif not separator or not 0 < len(key) < 80:
            notes.append(f"a damaged text of {len(content):,} bytes is not kept")
        else:
            texts.append(Text(keyword, _plain(name, value), (name, content)))
    return texts, notes


def _plain(name: bytes, value: bytes) -> bytes:
    """What stands behind the keyword of a chunk -> the text in UTF-8, or a little more of it than a comment holds."""
    if name == b"tEXt":
        return value.decode("latin-1").encode()
    compressed, rest = name == b"zTXt", value[1:]
    if name == b"iTXt":
        compressed, rest = value[:1] == b"\1", value[2:].split(b"\0", 2)[-1]
    if compressed:
        try:
            rest = zlib.decompressobj().decompress(rest, LONGEST + 1)
        except zlib.error:
            return b""
    return rest if name == b"iTXt" else rest.decode("latin-1").encode()
