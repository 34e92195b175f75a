"""What a file says beside its pixels, kept byte for byte: EXIF, XMP, IPTC.

EXIF is a TIFF directory without pixels, kept here without "Exif\\0\\0" before it; values are copied, not read as text.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import tifffile

ORIENTATION, EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x0112, 34665, 34853, 40965
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377  # as TIFF tags
COLOR_SPACE, UNCALIBRATED = 0xA001, 0xFFFF
LARGEST = 1 << 26  # bytes of a value that is kept
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# tags that describe how pixels are stored, not the photograph; resolution, XMP, IPTC and profile are written apart
_STORAGE = {*range(254, 267), ORIENTATION, *range(273, 285), 292, 293, 296, 297, 301, *range(317, 326), 330, 332, 333}
_STORAGE |= {334, 336, 338, 339, 340, 341, 347, *range(512, 533), XMP, IPTC, PHOTOSHOP, 34675, 37724}

Entry = tuple[int, int, bytes]  # type, count, the value in the directory's byte order
Directory = dict[int, "Entry | Directory"]


@dataclass
class Metadata:
    """Of one photo; empty bytes: none."""

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""


def metadata_of_info(info: dict) -> Metadata:
    """What Pillow has found in a file, `Image.info`; orientation is set to upright."""
    exif = info.get("exif") or _raw_profile(info, "exif") or _raw_profile(info, "APP1")
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or _raw_profile(info, "xmp") or b""
    photoshop = info.get("photoshop")
    blocks = photoshop if isinstance(photoshop, dict) else {}
    raw = _raw_profile(info, "iptc")
    iptc = blocks.get(0x0404) or _iptc_block(raw) or raw
    return Metadata(
        exif=upright_exif(exif if isinstance(exif, bytes) else b""),
        xmp=upright_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp)),
        iptc=iptc if isinstance(iptc, bytes) else b"",
    )


def metadata_of_tiff(page: tifffile.TiffPage) -> Metadata:
    """What the directory of a page holds."""
    file, order = page.parent.filehandle, page.parent.byteorder

    def read(at: int, size: int) -> bytes:
        file.seek(at)
        return file.read(size)

    def raw(tag: tifffile.TiffTag) -> bytes:
        return read(tag.valueoffset, tag.valuebytecount)

    directory: Directory = {}
    for tag in page.tags:
        if tag.code in (EXIF_IFD, GPS_IFD):
            if not page.parent.is_bigtiff:
                below = struct.unpack(f"{order}I", read(tag.offset + 8, 4))[0]
                directory[tag.code] = _read_directory(read, below, order)
        elif tag.code not in _STORAGE and int(tag.dtype) in _SIZES:
            directory[tag.code] = (int(tag.dtype), tag.count, raw(tag))
    named = {code: raw(page.tags[code]) if code in page.tags else b"" for code in (XMP, IPTC, PHOTOSHOP)}
    exif = write_directory(directory, order, 8) if directory else b""
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    iptc = named[IPTC] or _iptc_block(named[PHOTOSHOP])
    return Metadata(header + exif if exif else b"", upright_xmp(named[XMP]), iptc)


def upright_exif(exif: bytes) -> bytes:
    """The same bytes without "Exif\\0\\0", orientation set to 1; empty if they are no EXIF."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 14:
        return b""
    patched = bytearray(exif)
    offset = struct.unpack_from(f"{order}I", exif, 4)[0]
    if offset + 2 > len(exif):
        return b""
    for place in range(offset + 2, offset + 2 + 12 * struct.unpack_from(f"{order}H", exif, offset)[0], 12):
        if place + 12 <= len(exif) and struct.unpack_from(f"{order}H", exif, place)[0] == ORIENTATION:
            struct.pack_into(f"{order}HIHH", patched, place + 2, 3, 1, 1, 0)
    return bytes(patched)


def upright_xmp(xmp: bytes) -> bytes:
    """XMP with tiff:Orientation set to 1, as attribute or element."""
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[2-8]", rb"\g<1>1", xmp)


def read_exif(exif: bytes) -> tuple[Directory, str]:
    """The main directory of EXIF without what describes storage, and its byte order "<" or ">"; empty where damaged."""
    order = "<" if exif[:2] == b"II" else ">"
    if len(exif) < 8:
        return {}, order

    def read(at: int, size: int) -> bytes:
        return exif[at : at + size]

    directory = _read_directory(read, struct.unpack_from(f"{order}I", exif, 4)[0], order)
    return {tag: entry for tag, entry in directory.items() if tag not in _STORAGE}, order


def exif_color_space(exif: bytes) -> str | None:
    """What EXIF says of colours that no profile explains: "Adobe RGB", "not sRGB", or None: sRGB, or nothing."""
    directory, order = read_exif(exif)
    camera = directory.get(EXIF_IFD)
    kind, _, value = _entry(camera, COLOR_SPACE)
    if kind != 3 or len(value) < 2:
        return None
    number = struct.unpack(f"{order}H", value[:2])[0]
    _, _, index = _entry(camera.get(INTEROP_IFD) if isinstance(camera, dict) else None, 1)
    if number == 2 or (number == UNCALIBRATED and index[:3] == b"R03"):  # 2: as some cameras have it
        return "Adobe RGB"
    return "not sRGB" if number == UNCALIBRATED else None


def write_directory(directory: Directory, order: str, offset: int) -> bytes:
    """A directory that will lie at `offset` of its file, with the values and directories it refers to behind it."""
    rows, behind = b"", b""
    start = offset + 2 + 12 * len(directory) + 4
    for tag, entry in sorted(directory.items()):
        place = start + len(behind)
        if isinstance(entry, dict):
            rows += struct.pack(f"{order}HHII", tag, 4, 1, place)
            behind += write_directory(entry, order, place)
        else:
            kind, count, value = entry
            field = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(f"{order}I", place)
            rows += struct.pack(f"{order}HHI", tag, kind, count) + field
            behind += value if len(value) > 4 else b""
        behind += b"\0" * (len(behind) % 2)
    return struct.pack(f"{order}H", len(directory)) + rows + b"\0\0\0\0" + behind


def png_chunk(name: bytes, content: bytes) -> bytes:
    """A chunk as it lies in a PNG."""
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def png_iptc(iptc: bytes) -> bytes:
    """The text chunk that ImageMagick and ExifTool keep IPTC in; PNG has no place of its own for it."""
    block = b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    text = b"\niptc\n%8d\n" % len(block) + block.hex().encode() + b"\n"
    return png_chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text))


def jpeg_iptc(iptc: bytes) -> bytes:
    """The APP13 segment of a JPEG."""
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block


def _read_directory(read: Callable[[int, int], bytes], offset: int, order: str, depth: int = 0) -> Directory:
    """Entries whose values are there; those of unknown types and damaged ones are left out.

    Args:
        read: the bytes of (place, how many), fewer where the file ends.
    """
    directory: Directory = {}
    count = read(offset, 2)
    rows = read(offset + 2, 12 * struct.unpack(f"{order}H", count)[0]) if len(count) == 2 else b""
    for place in range(0, len(rows) - 11, 12):
        tag, kind, count, at = struct.unpack_from(f"{order}HHII", rows, place)
        size = _SIZES.get(kind, 0) * count
        if tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD):
            if depth < 2:
                directory[tag] = _read_directory(read, at, order, depth + 1)
        elif 0 < size < LARGEST:
            value = rows[place + 8 : place + 8 + size] if size <= 4 else read(at, size)
            if len(value) == size:
                directory[tag] = (kind, count, value)
    return directory


def _entry(directory: "Entry | Directory | None", tag: int) -> Entry:
    """A value of a directory; of type 0 and empty where either is missing."""
    entry = directory.get(tag) if isinstance(directory, dict) else None
    return entry if isinstance(entry, tuple) else (0, 0, b"")


def _raw_profile(info: dict, name: str) -> bytes:
    """Bytes that are kept as hexadecimal text in a PNG: "\\n<name>\\n<length>\\n<hex>"."""
    text = info.get(f"Raw profile type {name}")
    try:
        return bytes.fromhex("".join(str(text).split("\n")[3:])) if text else b""
    except ValueError:
        return b""


def _iptc_block(data: bytes) -> bytes:
    """IPTC itself, from Photoshop's resources; empty: they hold none."""
    start = data.find(b"8BIM\x04\x04\0\0")
    if start < 0:
        return b""
    size = int.from_bytes(data[start + 8 : start + 12], "big")
    return data[start + 12 : start + 12 + size]
