"""Photographs as archives keep them: 8 or 16 bit, with alpha, EXIF, ICC profile and resolution, read and written whole.

Arrays: grey (H, W) or colour (H, W, 3), uint8 or uint16, upright; L is CIE L in [0, 100].
"""

import io
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from lcad.color import rgb_to_luminance
from lcad.upsampling import strips
from ldm.images import ImageError, checked_image, whole_file

FORMATS = {".png": 16, ".tif": 16, ".tiff": 16, ".jpg": 8, ".jpeg": 8, ".webp": 8, ".bmp": 8}
"""suffix -> the most bits per channel that are written"""

ORIENTATION = 0x0112
_FROM_BGR = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}  # by channels, what OpenCV decodes
_AS_8_BIT = ((np.arange(1 << 16) * 255 + 32767) // 65535).astype(np.uint8)
# TIFF tags that describe how pixels are stored, not the photograph; the resolution is written apart
_STORAGE_TAGS = {*range(254, 267), *range(273, 285), 296, 297, 301, *range(317, 326), 330, 338, 339, 340, 341, 347}
_STORAGE_TAGS |= {*range(512, 533), 34675, 37724, 700, 33723, 34377}


@dataclass
class Photo:
    """A photograph as it was in its file, upright.

    Attributes:
        values: (H, W) or (H, W, 3), uint8 or uint16.
        alpha: (H, W), like `values`; None: opaque.
        exif: as bytes, without orientation; empty: none.
        icc: the colour profile; None: none, or one that is not of RGB and does not fit the result.
        dpi: resolution (x, y); None: not said.
        notes: what of the file is not used (further pages).
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    exif: bytes = b""
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Bits per channel: 8 or 16."""
        return 8 * self.values.itemsize

    def luminance(self) -> Tensor:
        """L (1, H, W) float32."""
        height, width = self.values.shape[:2]
        luminance = torch.empty(1, height, width)
        peak = np.iinfo(self.values.dtype).max
        for rows in strips(height, width):
            part = torch.from_numpy(self.values[rows].astype(np.float32) / peak)
            rgb = part.expand(3, *part.shape) if part.ndim == 2 else part.movedim(-1, 0)
            luminance[:, rows] = rgb_to_luminance(rgb)
        return luminance

    def preview(self) -> Image.Image:
        """8 bit RGB, transparent pixels on white."""
        image = Image.fromarray(to_8_bit(self.values)).convert("RGB")
        if self.alpha is not None:
            white = Image.new("RGB", image.size, "white")
            image = Image.composite(image, white, Image.fromarray(to_8_bit(self.alpha)))
        return image


def read_photo(path: Path) -> Photo:
    """Read a photograph; of several pages the first.

    Raises:
        ImageError: see `ldm.images.read_image`.
    """
    with checked_image(path) as image:
        pages = getattr(image, "n_frames", 1)
        notes = [f"has {pages} pages; the first is colorized"] if pages > 1 else []
        deep, profile = _reads_16_bit(image), image.info.get("icc_profile")
        with Image.open(path) as another:  # asked for its EXIF before it is loaded, a TIFF would be turned twice
            orientation = another.getexif().get(ORIENTATION, 1)
            exif, dpi = _exif(another), _dpi(another)
        if deep:
            values, alpha = _read_deep(path, orientation)
        else:
            image.load()
            image, profile = _plain_modes(ImageOps.exif_transpose(image), profile)
            values, alpha = _split(np.asarray(image))
    return Photo(values, alpha, exif, profile if _is_rgb(profile) else None, dpi, notes)


def write_photo(path: Path, rgb: np.ndarray, source: Photo) -> None:
    """Write a result with its source's alpha, EXIF, profile and resolution, whole or not at all.

    JPEG and BMP have no alpha, BMP no EXIF; JPEG is written at quality 95 and alters L a little.

    Args:
        path: its suffix decides on the format, see `FORMATS`.
        rgb: (H, W, 3) uint8 or uint16; brought to 8 bit where the format has no more.

    Raises:
        ValueError: an unknown suffix. OSError: the disk.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: unknown image format; allowed: {', '.join(FORMATS)}")
    alpha = None if suffix in (".jpg", ".jpeg", ".bmp") else source.alpha
    with whole_file(path) as file:
        if rgb.dtype == np.uint16 and FORMATS[suffix] == 16:
            pixels = rgb if alpha is None else np.dstack([rgb, alpha])
            (_write_png_16 if suffix == ".png" else _write_tiff_16)(file, pixels, source)
        else:
            rgb = to_8_bit(rgb)
            pixels = rgb if alpha is None else np.dstack([rgb, to_8_bit(alpha)])
            _write_8(file, pixels, suffix, source)


def quantized(rgb: Tensor, depth: int) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8 or uint16."""
    peak, kind = (65535, np.uint16) if depth == 16 else (255, np.uint8)
    return (rgb.clamp(0, 1) * peak).round().movedim(0, -1).numpy().astype(kind)


def to_8_bit(values: np.ndarray) -> np.ndarray:
    """uint8 or uint16 -> uint8."""
    return values if values.dtype == np.uint8 else _AS_8_BIT[values]


def _reads_16_bit(image: Image.Image) -> bool:
    """Is it a PNG or TIFF of 16 bits a channel, which Pillow would cut to 8 where it is in colour?"""
    if image.format == "PNG":
        return any("16" in str(tile[3]) for tile in image.tile)
    bits = image.tag_v2.get(258, ()) if image.format == "TIFF" else ()
    return bool(bits) and set(bits) == {16} and set(image.tag_v2.get(339, (1,))) == {1}


def _read_deep(path: Path, orientation: int) -> tuple[np.ndarray, np.ndarray | None]:
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ImageError(
            f"{path}: this kind of 16 bit image cannot be read; save it as TIFF or PNG without compression"
        )
    if values.ndim == 3:
        values = cv2.cvtColor(values, _FROM_BGR[values.shape[2]])
    return _split(_upright(values, orientation))


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array as EXIF's orientation (1 to 8) asks."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(values, flips))


def _plain_modes(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """To L, LA, RGB or RGBA; integers and floats to L of 8 bit, by their peak -> image, profile that still holds."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        peak = next(p for p in (1, 255, 65535, max(65535, values.max(initial=0))) if values.max(initial=0) <= p)
        return Image.fromarray((values / peak * 255).clip(0, 255).round().astype(np.uint8)), profile
    if image.mode == "CMYK" and profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"), None
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: as without one
    if image.mode in ("PA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA"), profile
    if image.mode == "La":
        return image.convert("LA"), profile
    if image.mode == "1":
        return image.convert("L"), profile
    return (image if image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")), profile


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, C) -> grey or colour, and alpha if it is not opaque everywhere."""
    if values.ndim == 2:
        return values, None
    colours, alpha = values, None
    if values.shape[2] in (2, 4):
        colours, alpha = values[..., :-1], values[..., -1]
        alpha = None if alpha.min(initial=np.iinfo(alpha.dtype).max) == np.iinfo(alpha.dtype).max else alpha
    return (colours[..., 0] if colours.shape[2] == 1 else colours), alpha


def _exif(image: Image.Image) -> bytes:
    try:
        kept = Image.Exif()
        kept.load(image.getexif().tobytes())
        for tag in (set(kept) & _STORAGE_TAGS) | ({ORIENTATION} & set(kept)):
            del kept[tag]
        return kept.tobytes() if len(kept) else b""
    except Exception:  # damaged EXIF, in one of the many ways there are: the photo is worth more
        return b""


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 1e6 and 1 < y < 1e6 else None


def _is_rgb(profile: bytes | None) -> bool:
    return profile is not None and profile[16:20] == b"RGB "


def _write_8(file: BinaryIO, pixels: np.ndarray, suffix: str, source: Photo) -> None:
    kind = Image.registered_extensions()[suffix]
    options: dict = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }.get(kind, {})
    options |= {"dpi": source.dpi} if source.dpi else {}
    if suffix != ".bmp":
        options |= {"exif": source.exif} if source.exif else {}
        options |= {"icc_profile": source.icc} if source.icc else {}
    Image.fromarray(pixels).save(file, format=kind, **options)


def _write_tiff_16(file: BinaryIO, pixels: np.ndarray, source: Photo) -> None:
    extra = ["unassalpha"] if pixels.shape[2] == 4 else None
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb",
        extrasamples=extra,
        compression="zlib",
        iccprofile=source.icc,
        resolution=source.dpi,
        resolutionunit="INCH" if source.dpi else None,
        metadata=None,
        software=False,  # the photo's own, below
        extratags=_descriptive_tags(source.exif),
    )


def _descriptive_tags(exif: bytes) -> list[tuple[int, str, int, str, bool]]:
    """The texts of the main directory of EXIF (description, maker, date, artist, copyright), for tifffile."""
    kept = Image.Exif()
    if exif:
        kept.load(exif)
    return [(tag, "s", 0, text, True) for tag, text in kept.items() if isinstance(text, str)]


def _write_png_16(file: BinaryIO, pixels: np.ndarray, source: Photo) -> None:
    order = [2, 1, 0, 3][: pixels.shape[2]]  # OpenCV takes BGR
    made, encoded = cv2.imencode(".png", pixels[..., order])
    if not made:
        raise OSError("the 16 bit PNG could not be encoded")
    data, chunks = encoded.ravel().data, b""
    if source.icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(source.icc))
    if source.dpi:
        x, y = (round(value / 0.0254) for value in source.dpi)  # pixels per metre
        chunks += _chunk(b"pHYs", x.to_bytes(4, "big") + y.to_bytes(4, "big") + b"\1")
    if source.exif:
        chunks += _chunk(b"eXIf", source.exif.removeprefix(b"Exif\0\0"))
    header = 8 + 25  # signature and IHDR
    for part in (data[:header], chunks, data[header:]):
        file.write(part)


def _chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
