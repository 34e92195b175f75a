"""From an open image file to pixels.

TIFF is read with tifffile, PNG of 16 bit and JPEG 2000 with imagecodecs, all else with Pillow.
"""

import io
from collections.abc import Callable
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from lcad.io.code_points import HdrError, coded_space
from lcad.io.color_profiles import ProfileError, gamma_space
from lcad.io.containers import jp2_profile, nclx, png_chunks
from lcad.io.metadata import metadata_of_info
from lcad.io.pixels import ORIENTATION, ImageError, Pixels, interpreted, split_alpha, unsigned, upright
from lcad.io.texts import texts_of
from lcad.io.tiff_files import SIGNATURES, read_tiff, tiff_size

PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26  # of one text, unpacked; Pillow's own 1 MB is less than some programs write
PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
CODES = "code points"  # in `Image.info`: (primaries, transfer, matrix, full range) of a file without a profile
_UNSPECIFIED = (2, 2)
_CODESTREAM = b"\xff\x4f\xff\x51"  # how JPEG 2000 itself begins, inside of its file format
_OTHERS = (
    *("gamma", "chromaticity", "srgb", "icc_profile", "dpi", "aspect", "transparency", "exif", "photoshop", "xmp"),
    *("interlace", "comment", "id_section", CODES),
)  # in `Image.info`, where a PNG's texts are, too
_SRGB_GAMMA = 0.45455
_SRGB_CHROMATICITY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


def decode(file: BinaryIO, max_pixels: int) -> Pixels:
    """The photo in an image file; of several pages the first, with a note.

    Raises:
        ImageError: of a kind that is not read, without the file's name. Damage raises errors of many kinds.
    """
    if _is_tiff(file):
        return read_tiff(file, max_pixels)
    with Image.open(file) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(f"{image.width}x{image.height} pixels, at most {max_pixels:,} are read")
        pages = getattr(image, "n_frames", 1)
        notes = [f"has {pages} pages; the first is colorized"] if pages > 1 else []
        if image.format == "PPM" and image.mode == "RGB" and _ppm_peak(image) > 255:
            notes.append("has 16 bits a channel, of which 8 are read; use TIFF or PNG to keep them")
        deep = _deep_decoder(image)
        image.load()
        image.info = _own_info(image, file)
        texts, more = texts_of(image, file)
        if deep is None:
            pixels = image_pixels(image)
        else:
            file.seek(0)
            values, bits = deep(file.read())
            pixels = _of_any_depth(upright(values, _orientation(image)), bits)
            pixels = _interpreted(pixels, image)
        pixels.turned, pixels.info, pixels.notes = _orientation(image) >= 5, image.info, notes + pixels.notes + more
        pixels.texts = texts
        return pixels


def image_pixels(image: Image.Image) -> Pixels:
    """A PIL image upright, with the meaning that its EXIF and profile give it."""
    turned = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
    return _interpreted(_plain(turned), image)


def image_size(file: BinaryIO) -> tuple[int, int]:
    """(width, height) of the photo that `decode` reads, upright, from its header."""
    if _is_tiff(file):
        return tiff_size(file)
    with Image.open(file) as image:
        return image.size if _orientation(image) < 5 else image.size[::-1]


def _is_tiff(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start in SIGNATURES


def _own_info(image: Image.Image, file: BinaryIO) -> dict:
    """`Image.info` without texts that have the name of what else is in it, and with what Pillow does not look for."""
    texts: dict[str, str | bytes] = {}
    if isinstance(image, PngImagePlugin.PngImageFile):
        texts = {**image.text, "exif": image.text.get("exif", "").encode("latin-1")}
    info = {key: value for key, value in image.info.items() if key not in _OTHERS or value != texts.get(key)}
    if image.format == "PNG":
        chunks = [tuple(content) for _, content in png_chunks(file, (b"cICP",)) if len(content) == 4]
        return info | ({CODES: chunks[0]} if chunks else {})
    if image.format in ("AVIF", "HEIF"):  # whose matrix and range the decoder has undone
        codes = nclx(file)
        return info | ({CODES: (*codes, 0, 1)} if codes else {})
    if image.format == "JPEG2000":
        profile = jp2_profile(file)
        return info | ({"icc_profile": profile} if profile else {})
    return info


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF, in one of the many ways there are: the photo is worth more
        return 1
    return value if value in range(1, 9) else 1


def _deep_decoder(image: ImageFile.ImageFile) -> Callable[[bytes], tuple[np.ndarray, int]] | None:
    """What decodes an image that Pillow would cut to 8 bit -> samples, and their bits; None for all others."""
    if image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile):
        return lambda data: (imagecodecs.png_decode(data), 16)
    if image.format == "JPEG2000" and image.mode in ("RGB", "RGBA", "LA", "I;16"):
        return _jpeg2k
    return None


def _jpeg2k(data: bytes) -> tuple[np.ndarray, int]:
    """As the values are in the file: OpenJPEG would bring those with a profile to sRGB, and clip them."""
    start = data.index(_CODESTREAM)
    values = imagecodecs.jpeg2k_decode(data[start:] if jp2_profile(io.BytesIO(data)) is not None else data)
    return values, (data[start + 42] & 0x7F) + 1  # Ssiz of the first component


def _ppm_peak(image: ImageFile.ImageFile) -> int:
    arguments = image.tile[0][3]
    return arguments[1] if isinstance(arguments, tuple) and isinstance(arguments[1], int) else 255


def _of_any_depth(values: np.ndarray, bits: int | None = None) -> Pixels:
    """Of samples of so many bits; None: of their type's."""
    values, notes = unsigned(values, bits or 8 * values.itemsize)
    values, alpha = split_alpha(values)
    return Pixels(values, alpha, 8 * values.itemsize, notes=notes)


def _plain(image: Image.Image) -> Pixels:
    """An image of any of Pillow's modes; of CMYK the inks."""
    if image.mode.startswith("I"):  # 16 bit grey in all formats but TIFF
        return _of_any_depth(np.asarray(image).clip(0, (1 << 16) - 1).astype(np.uint16))
    if image.mode == "F":
        return _of_any_depth(np.asarray(image))
    if image.mode == "CMYK":
        return Pixels(np.asarray(image))
    if image.mode in ("PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("La", "1"):
        image = image.convert("LA" if image.mode == "La" else "L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    return Pixels(*split_alpha(np.asarray(image)))


def _interpreted(pixels: Pixels, image: Image.Image) -> Pixels:
    """By the image's code points or profile; else by a PNG's chunks gAMA and cHRM, unless they mean sRGB, or by EXIF.

    A PNG's code points count for more than its profile, those of other formats for less.
    """
    info, cmyk = image.info, image.mode == "CMYK"
    icc, codes = info.get("icc_profile") or None, info.get(CODES)
    if codes and codes[:2] != _UNSPECIFIED and (image.format == "PNG" or not icc):
        try:
            return _coded(pixels, codes)
        except HdrError as error:
            raise ImageError(str(error)) from error
        except ProfileError as error:
            pixels.notes.append(f"{error}; they are ignored")
    gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
    if icc or cmyk or not gamma or "srgb" in info:
        exif = b"" if "srgb" in info else _exif(info)
        return interpreted(pixels, icc, "cmyk" if cmyk else None, exif)
    grey = pixels.values.ndim == 2
    usual = grey or chromaticity is None or np.allclose(chromaticity, _SRGB_CHROMATICITY, atol=0.002)
    if usual and abs(gamma - _SRGB_GAMMA) < 0.01:
        return interpreted(pixels, None, None, _exif(info) if chromaticity is None else b"")
    try:
        pixels.space = gamma_space(1 / gamma, chromaticity, 1 if grey else 3)
    except ProfileError as error:
        pixels.notes.append(f"{error}, which are ignored")
    return pixels


def _coded(pixels: Pixels, codes: tuple[int, int, int, int]) -> Pixels:
    """By code points: primaries, transfer, matrix, and whether the full range is used."""
    primaries, transfer, matrix, full = codes
    pixels.space, notes = coded_space(primaries, transfer)
    if matrix != 0 or full != 1:
        raise ImageError("has its values in the range or the matrix of video (cICP), which is not read; save it as RGB")
    pixels.notes += notes
    return pixels


def _exif(info: dict) -> bytes:
    try:
        return metadata_of_info(info).exif
    except Exception:  # damaged in one of many ways, which is said where the metadata is kept
        return b""
