"""What files hold beside the pixels and Pillow does not hand out: chunks of a PNG, boxes of AVIF and JPEG 2000."""

from typing import BinaryIO

LARGEST = 1 << 26  # bytes of a chunk that is kept
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_HEAD = 1 << 20  # bytes of a file in which the boxes that say what its colours mean lie


def png_chunks(file: BinaryIO, wanted: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    """(name, content) of the chunks of those names, in their order, up to the end of the file or what is damaged."""
    found = []
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name in wanted and size <= LARGEST:
            content = file.read(size)
            if len(content) == size:
                found.append((name, content))
            file.seek(4, 1)
        else:
            file.seek(size + 4, 1)
    return found


def nclx(file: BinaryIO) -> tuple[int, int] | None:
    """Code points (primaries, transfer) of an AVIF or HEIC; None: it has none."""
    file.seek(0)
    head = file.read(_HEAD)
    place = head.find(b"colrnclx") + 8
    if place < 8 or place + 4 > len(head):
        return None
    return int.from_bytes(head[place : place + 2], "big"), int.from_bytes(head[place + 2 : place + 4], "big")


def jp2_profile(file: BinaryIO) -> bytes | None:
    """The ICC profile of a JPEG 2000 file; None: it has none."""
    file.seek(0)
    head = file.read(_HEAD + LARGEST).partition(b"jp2c")[0]
    place = head.find(b"colr")
    size = int.from_bytes(head[max(0, place - 4) : place], "big")
    if place < 4 or head[place + 4 : place + 5] not in (b"\2", b"\3"):
        return None
    return head[place + 7 : place - 4 + size] or None
