"""From an open image file to pixels.

TIFF is read with tifffile, PNG of 16 bit and JPEG 2000 with imagecodecs, all else with Pillow.
"""

from collections.abc import Callable
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from lcad.io.color_profiles import ProfileError, gamma_space
from lcad.io.pixels import ORIENTATION, ImageError, Pixels, interpreted, split_alpha, unsigned, upright
from lcad.io.tiff_files import SIGNATURES, read_tiff, tiff_size

PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26  # of one text, unpacked; Pillow's own 1 MB is less than some programs write
PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
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
        if deep is None:
            pixels = image_pixels(image)
        else:
            file.seek(0)
            pixels = _of_any_depth(upright(deep(file.read()), _orientation(image)))
            pixels = _interpreted(pixels, image)
        pixels.turned, pixels.info, pixels.notes = _orientation(image) >= 5, image.info, notes + pixels.notes
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


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF, in one of the many ways there are: the photo is worth more
        return 1
    return value if value in range(1, 9) else 1


def _deep_decoder(image: ImageFile.ImageFile) -> Callable[[bytes], np.ndarray] | None:
    """What decodes an image that Pillow would cut to 8 bit; None for all others."""
    if image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile):
        return imagecodecs.png_decode
    if image.format == "JPEG2000" and image.mode in ("RGB", "RGBA", "LA"):
        return imagecodecs.jpeg2k_decode
    return None


def _ppm_peak(image: ImageFile.ImageFile) -> int:
    arguments = image.tile[0][3]
    return arguments[1] if isinstance(arguments, tuple) and isinstance(arguments[1], int) else 255


def _of_any_depth(values: np.ndarray) -> Pixels:
    values, notes = unsigned(values, 8 * values.itemsize)
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
    """By the image's profile, or without one by the chunks gAMA and cHRM of a PNG, unless they mean sRGB."""
    icc, cmyk = image.info.get("icc_profile") or None, image.mode == "CMYK"
    gamma, chromaticity = image.info.get("gamma"), image.info.get("chromaticity")
    if icc or cmyk or not gamma or "srgb" in image.info:
        return interpreted(pixels, icc, "cmyk" if cmyk else None)
    grey = pixels.values.ndim == 2
    usual = grey or chromaticity is None or np.allclose(chromaticity, _SRGB_CHROMATICITY, atol=0.002)
    if usual and abs(gamma - _SRGB_GAMMA) < 0.01:
        return pixels
    try:
        pixels.space = gamma_space(1 / gamma, chromaticity, 1 if grey else 3)
    except ProfileError as error:
        pixels.notes.append(f"{error}, which are ignored")
    return pixels
