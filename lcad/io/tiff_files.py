"""TIFF by what its tags say: photometric interpretation, planes, extra samples, sample formats, reduced pages."""

import logging
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from lcad.io.color_profiles import lab_to_wide, strips, wide_space
from lcad.io.metadata import EXIF_IFD, metadata_of_tiff
from lcad.io.pixels import ImageError, Pixels, interpreted, unsigned, upright

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLORS = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.SEPARATED: 4,
    PHOTOMETRIC.YCBCR: 3,
    PHOTOMETRIC.CIELAB: 3,
    PHOTOMETRIC.ICCLAB: 3,
}
"""channels of colour of the photometric interpretations that are read"""
_BY_LIBTIFF = (COMPRESSION.OJPEG,)  # what Pillow decodes and tifffile does not
_PREMULTIPLIED, _ALPHA = 1, 2  # of extra samples; 0 is anything else, such as a scanner's infrared
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said in its error


def tiff_size(file: BinaryIO) -> tuple[int, int]:
    """(width, height) of the photo in a TIFF, upright."""
    with tifffile.TiffFile(file) as tiff:
        page, _ = photo_page(tiff)
        size = page.imagewidth, page.imagelength
        return size if _orientation(page) < 5 else size[::-1]


def read_tiff(file: BinaryIO, max_pixels: int) -> Pixels:
    """The photo of a TIFF: its first page that is neither a reduced copy nor a mask.

    Raises:
        ImageError: of a kind that is not read, with the reason; without the file's name. Damage raises many kinds.
    """
    with tifffile.TiffFile(file) as tiff:
        page, notes = photo_page(tiff)
        if page.imagewidth * page.imagelength > max_pixels:
            raise ImageError(f"{page.imagewidth}x{page.imagelength} pixels, at most {max_pixels:,} are read")
        _check(page, file.seek(0, 2))
        icc, orientation = page.tags.valueof(34675), _orientation(page)
        if _needs_libtiff(page):
            return interpreted(Pixels(_by_libtiff(file, page.index), notes=notes), icc)
        exif = _exif(page)
        values = _samples(page)
        colors = _COLORS[page.photometric]
        if values.shape[2] < colors or not values.size:
            raise ImageError(f"damaged image (its samples are of shape {values.shape}); copy it again from its source")
        extra = [int(kind) for kind in page.extrasamples]
        extra += [0] * (values.shape[2] - colors - len(extra))
        alpha = next((i for i, kind in enumerate(extra) if kind in (_PREMULTIPLIED, _ALPHA)), None)
        if len(extra) > (alpha is not None):
            notes.append(f"has {values.shape[2]} channels; those that are neither colour nor transparency are left out")
        if page.photometric in (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB):
            pixels = Pixels(_from_lab(values[..., :3], page.photometric), depth=8 * values.itemsize)
            pixels.notes, pixels.space = [*notes, "is CIE Lab; the result is sRGB"], wide_space()
            icc, exif = None, b""
        else:
            pixels = _pixels(page, values, colors, alpha, notes)
            if alpha is not None and extra[alpha] == _PREMULTIPLIED:
                _unmultiply(pixels)
    pixels.values, pixels.turned = upright(pixels.values, orientation), orientation >= 5
    pixels.alpha = None if pixels.alpha is None else upright(pixels.alpha, orientation)
    return interpreted(pixels, icc, "cmyk" if colors == 4 else None, exif)


def _pixels(page: tifffile.TiffPage, values: np.ndarray, colors: int, alpha: int | None, notes: list[str]) -> Pixels:
    """Samples (H, W, C) of grey, RGB, CMYK or a palette's numbers -> 8 or 16 bit, not turned yet."""
    used = values[..., :colors] if alpha is None else values[..., [*range(colors), colors + alpha]]
    if page.photometric == PHOTOMETRIC.PALETTE:
        colormap = page.colormap  # 16 bit; most writers have 8, times 257 or 256, and some have them as they are
        if colormap.max() < 256 or not (colormap % 257).any() or not (colormap % 256).any():
            table = (colormap if colormap.max() < 256 else colormap >> 8).astype(np.uint8)
        else:
            table = colormap
        pixels = Pixels(np.moveaxis(table, 0, -1)[used[..., 0]], depth=8 * table.itemsize, notes=notes)
        if alpha is not None:
            pixels.alpha = unsigned(used[..., 1], page.bitspersample)[0].astype(table.dtype)
        return pixels
    used, more = unsigned(used, _bits(page, used))
    pixels = Pixels(used[..., :colors], depth=8 * used.itemsize, notes=notes + more)
    if colors == 1:
        pixels.values = used[..., 0]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        pixels.values = np.iinfo(used.dtype).max - pixels.values
    if alpha is not None and (used[..., -1] < np.iinfo(used.dtype).max).any():
        pixels.alpha = used[..., -1]
    return pixels


def _bits(page: tifffile.TiffPage, values: np.ndarray) -> int:
    """Of a sample: fewer than its type has where the file names the highest value of a scan of 10, 12 or 14 bits."""
    highest = page.tags.valueof(281)  # MaxSampleValue
    peak = max(highest) if isinstance(highest, tuple) else highest
    scan = page.bitspersample == 16 and values.dtype.kind == "u" and peak in (1023, 4095, 16383)
    return peak.bit_length() if scan and values.max(initial=0) <= peak else page.bitspersample


def photo_page(tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPage, list[str]]:
    """The page, and a note if there are others like it."""
    pages = [tiff.pages[index] for index in range(min(len(tiff.pages), 1000))]
    pages = [tiff.pages.first if not isinstance(page, tifffile.TiffPage) else page for page in pages]
    pages += [below for page in pages[:8] if page.subfiletype & 1 and page.pages for below in page.pages]
    full = [page for page in pages if not page.subfiletype & 5 and page.tags.valueof(255) != 2] or pages[:1]
    notes = [f"has {len(full)} pages; the first is colorized"] if len(full) > 1 else []
    return full[0], notes


def _exif(page: tifffile.TiffPage) -> bytes:
    """As it is without a TIFF around it, where there is a camera's directory."""
    try:
        return metadata_of_tiff(page).exif if EXIF_IFD in page.tags else b""
    except Exception:  # damaged in one of many ways, which is said where the metadata is kept
        return b""


def _orientation(page: tifffile.TiffPage) -> int:
    value = page.tags.valueof(274, 1)
    return int(value) if value in range(1, 9) else 1


def _check(page: tifffile.TiffPage, size: int) -> None:
    """Refuse what is not read, and parts that lie outside the file."""
    bits, photometric = page.bitspersample, page.photometric
    if photometric not in _COLORS:
        name = getattr(photometric, "name", photometric)
        raise ImageError(f"a TIFF of photometric interpretation {name} is not read; develop it to RGB or grey")
    if photometric == PHOTOMETRIC.SEPARATED and page.tags.valueof(332, 1) != 1:
        raise ImageError("a TIFF of inks other than CMYK is not read; convert it to RGB or grey")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ImageError(f"a TIFF of {bits} bit samples in format {page.sampleformat} is not read; use 8 or 16 bit")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS and not _needs_libtiff(page):
        name = getattr(page.compression, "name", page.compression)
        raise ImageError(f"a TIFF of compression {name} is not read; save it with another")
    if page.samplesperpixel > 16:
        raise ImageError(f"a TIFF of {page.samplesperpixel} channels is not read; save the three of a photo")
    if page.imagedepth > 1:
        raise ImageError("a TIFF of volumes is not read; save the slice that is wanted")
    if photometric in (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB) and page.dtype.itemsize > 2:
        raise ImageError(f"a CIE Lab TIFF of {bits} bit is not read; save it with 8 or 16 bit, or as RGB")
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not parts or any(offset <= 0 or count <= 0 or offset + count > size for offset, count in parts):
        raise ImageError("damaged or truncated image (parts of it are missing); copy it again from its source")


def _needs_libtiff(page: tifffile.TiffPage) -> bool:
    subsampled = page.photometric == PHOTOMETRIC.YCBCR and page.compression not in (6, 7, 33003, 33004, 33005, 34712)
    return page.compression in _BY_LIBTIFF or subsampled


def _by_libtiff(file: BinaryIO, index: int) -> np.ndarray:
    file.seek(0)
    with Image.open(file) as image:
        image.seek(index)
        return np.asarray(image.convert("RGB"))  # Pillow turns a TIFF upright by itself


def _samples(page: tifffile.TiffPage) -> np.ndarray:
    """(H, W, C) as they are in the file."""
    try:
        values = page.asarray()
    except (ImportError, NotImplementedError) as error:
        raise ImageError(f"this kind of TIFF cannot be decoded ({error}); save it without compression") from error
    values = values.reshape(page.shaped)[:, 0]  # (planes, H, W, samples); it has no depth
    values = np.moveaxis(values[..., 0], 0, -1) if len(values) > 1 else values[0]
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _from_lab(values: np.ndarray, photometric: int) -> np.ndarray:
    """(H, W, 3) as TIFF keeps CIE Lab -> 16 bit RGB, see `wide_space`."""
    deep, icc = values.dtype.itemsize == 2, photometric == PHOTOMETRIC.ICCLAB
    unit = 256 if deep else 1
    result = np.empty(values.shape, np.uint16)
    for rows in strips(*values.shape[:2]):
        part: np.ndarray = values[rows]
        signed: np.ndarray
        if icc:  # a and b from -128; of 16 bits L = 100 is 0xFF00
            lightness, chroma = part[..., :1] / (652.8 if deep else 2.55), part[..., 1:] / unit - 128.0
        else:
            signed = part[..., 1:].astype(np.int16 if deep else np.int8)
            lightness, chroma = part[..., :1].astype(np.uint16) / (655.35 if deep else 2.55), signed / unit
        result[rows] = lab_to_wide(np.concatenate([lightness, chroma], axis=-1))
    return result


def _unmultiply(pixels: Pixels) -> None:
    """Colours that were multiplied by their alpha, as they were before; in place."""
    if pixels.alpha is None:
        return
    peak = np.iinfo(pixels.values.dtype).max
    for rows in strips(*pixels.values.shape[:2]):
        alpha = pixels.alpha[rows].astype(np.uint64)
        alpha = alpha if pixels.values.ndim == 2 else alpha[..., None]
        colors = pixels.values[rows].astype(np.uint64) * peak // np.maximum(alpha, 1)
        pixels.values[rows] = colors.clip(0, peak).astype(pixels.values.dtype)
