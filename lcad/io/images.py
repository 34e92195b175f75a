"""Reading images that come from strangers, and writing results without ever leaving half a file.

Shapes: images are PIL at the border, tensors inside: (3, H, W) float32 in [0, 1].
"""

import base64
import io
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lcad.io.decoding import decode, image_pixels, image_size
from lcad.io.pixels import ImageError as ImageError
from lcad.io.pixels import Pixels, shrunk_size

try:  # optional: pip install pillow-heif
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIC: tuple[str, ...] = (".heic", ".heif")
except ImportError:
    HEIC = ()

_USUAL: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".tga")
_USUAL += (".pbm", ".pgm", ".ppm", ".jp2", ".avif")
Image.init()
IMAGE_SUFFIXES = (*(suffix for suffix in _USUAL if suffix in Image.registered_extensions()), *HEIC)
"""what is taken for an image in a folder: the formats that photos come in and the installed Pillow reads"""
MAX_PIXELS = 178_000_000  # about where Pillow refuses, too
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow warns from half as many on
UNFINISHED = ".unfinished"  # suffix of a file that is being written
UNFINISHED_SECONDS = 60  # for so long nothing was written to one that a killed run has left


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read a photo as a colour-managed viewer shows it, in 8 bit sRGB and upright.

    Returns:
        A PIL image of mode RGB. Transparent pixels are laid on white.

    Raises:
        ImageError: missing, empty, unreadable, truncated, larger than `MAX_PIXELS`, or of a kind that is not read.
    """
    return read_pixels(Path(path)).preview()


def decode_image(file: BinaryIO, name: str) -> Image.Image:
    """As `read_image`, of an open file; `name` is what errors call it."""
    with _checked(name):
        return decode(file, MAX_PIXELS).preview()


def read_pixels(path: Path) -> Pixels:
    """Read a photo with the depth, transparency and colour space that it has; raises ImageError as `read_image`."""
    # an open file: given a path, Pillow 13 maps uncompressed images into memory and garbles those stored on their side
    with _checked(str(path)), _opened(path) as file:
        return decode(file, MAX_PIXELS)


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) of what `read_pixels` returns, from the file's header; raises ImageError as `read_image`."""
    with _checked(str(path)), _opened(path) as file:
        return image_size(file)


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        raise ImageError("no such image file")
    if path.stat().st_size == 0:
        raise ImageError("the file is empty (0 bytes); copy it again from its source")
    return path.open("rb")


@contextmanager
def _checked(name: str) -> Iterator[None]:
    """Whatever goes wrong within is an ImageError of one line that begins with the file's name."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large; at most {MAX_PIXELS:,} pixels are read") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that can be read; use one of {', '.join(IMAGE_SUFFIXES)}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: damaged or truncated image ({reason}); copy it again from its source") from error


def image_folder(folder: Path) -> Path:
    """Where the images of a data folder lie: its subfolder `images`, or the folder itself."""
    return folder / "images" if (folder / "images").is_dir() else folder


def list_images(source: str | os.PathLike) -> list[Path]:
    """The image files of a folder, or of its subfolder `images` if it holds none, sorted by name, or the file itself.

    Raises:
        FileNotFoundError: the path is missing, or the folder holds no image.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder; give an image or a folder of images")
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found and image_folder(source) != source:
        return list_images(image_folder(source))
    if not found:
        raise FileNotFoundError(f"{source}: no images in this folder; it may hold {', '.join(IMAGE_SUFFIXES)}")
    return found


def to_tensor(image: Image.Image) -> Tensor:
    """PIL of any mode, as a viewer shows it (upright, by its profile, on white) -> sRGB (3, H, W) float32 in [0, 1]."""
    array = np.asarray(image if image.mode == "RGB" and not image.info else image_pixels(image).preview())
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255


def shrink(photo: Image.Image, side: int) -> Image.Image:
    """The photo as RGB, with `side` pixels at most on its long side."""
    rgb = photo if photo.mode == "RGB" else photo.convert("RGB")
    return rgb.resize(shrunk_size(photo.size, side), Image.Resampling.BOX)


def to_image(rgb: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] (clipped) -> PIL RGB."""
    array = (rgb.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).cpu().numpy())


def image_grid(rows: Tensor, columns: int) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> one picture (3, rows * H, columns * W), row by row."""
    from torchvision.utils import make_grid

    return make_grid(rows.detach().float().cpu().clamp(0, 1), nrow=columns, padding=2, pad_value=1.0)


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to that comes to be whole or not at all (temporary file beside it, then rename)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:16]}.", suffix=UNFINISHED)
    os.close(handle)
    try:
        with open(temporary, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_write(path) as file:
        file.write(data)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs have left of `atomic_write` in a folder and below; what may still be written is kept."""
    for file in folder.rglob(f".*{UNFINISHED}"):
        if time.time() - file.stat().st_mtime > UNFINISHED_SECONDS:
            file.unlink(missing_ok=True)


def write_image(path: str | os.PathLike, image: Image.Image) -> None:
    """Write `image` as PNG, or as JPEG if the name says so, atomically."""
    buffer = io.BytesIO()
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    image.save(buffer, **({"format": "JPEG", "quality": 90} if jpeg else {"format": "PNG"}))
    write_bytes(path, buffer.getvalue())


def jpeg_data_uri(image: Image.Image, quality: int = 95) -> str:
    """PIL as a JPEG that is its own address: full chroma, and none of the file's metadata."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
