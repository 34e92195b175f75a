"""Reading images that come from strangers, and writing results without ever leaving half a file.

Shapes: images are PIL at the border, tensors inside: (3, H, W) float32 in [0, 1].
"""

import io
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

try:  # optional: pip install pillow-heif
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIC = (".heic", ".heif")
except ImportError:
    HEIC = ()

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", *HEIC)
MAX_PIXELS = 178_000_000  # about where Pillow refuses, too
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow warns from half as many on
UNFINISHED = ".unfinished"  # suffix of a file that is being written
UNFINISHED_SECONDS = 60  # for so long nothing was written to one that a killed run has left


class ImageError(ValueError):
    """An image file that cannot be used; the message is one line: what, where, what to do."""


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read a photo as RGB, upright (EXIF orientation applied).

    Returns:
        A PIL image of mode RGB. Transparent pixels are laid on white, 16-bit grey is scaled to 8 bit.

    Raises:
        ImageError: missing, empty, unreadable, truncated or larger than `MAX_PIXELS`.
    """
    with checked_image(Path(path)) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def decode_image(file: BinaryIO, name: str) -> Image.Image:
    """As `read_image`, of an open file; `name` is what errors call it."""
    with _checked(file, name) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


@contextmanager
def checked_image(path: Path) -> Iterator[Image.Image]:
    """An opened image whose pixels are not read yet; whatever is wrong with it, then or within, is an ImageError."""
    if not path.is_file():
        raise ImageError(f"{path}: no such image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    # an open file: given a path, Pillow 13 maps uncompressed TIFFs into memory and garbles those stored on their side
    with _checked(path, str(path)) as image:
        yield image


@contextmanager
def _checked(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    try:
        with ExitStack() as stack:
            if isinstance(file, Path):
                file = stack.enter_context(file.open("rb"))
            image = stack.enter_context(Image.open(file))
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{name}: {image.width}x{image.height} pixels, at most {MAX_PIXELS:,} are read")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large; at most {MAX_PIXELS:,} pixels are read") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that can be read; use one of {', '.join(IMAGE_SUFFIXES)}") from error
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        raise ImageError(f"{name}: damaged or truncated image ({error}); copy it again from its source") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        peak = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        image = Image.fromarray((values / peak * 255).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def image_folder(folder: Path) -> Path:
    """Where the images of a data folder lie: its subfolder `images`, or the folder itself."""
    return folder / "images" if (folder / "images").is_dir() else folder


def list_images(source: str | os.PathLike) -> list[Path]:
    """The image files of a folder (not recursive, sorted by name), or the file itself.

    Raises:
        FileNotFoundError: the path is missing, or the folder holds no image.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder; give an image or a folder of images")
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise FileNotFoundError(f"{source}: no images in this folder; it may hold {', '.join(IMAGE_SUFFIXES)}")
    return found


def folders_of_images(root: Path, left_out: Path) -> list[Path]:
    """`root` and the folders below it that hold images, sorted; without hidden ones, links and `left_out`.

    Raises:
        FileNotFoundError: no image anywhere.
    """
    found = []
    for place, names, files in os.walk(root):
        folder = Path(place)
        names[:] = [n for n in names if not n.startswith(".") and (folder / n).resolve() != left_out.resolve()]
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files):
            found.append(folder)
    if not found:
        raise FileNotFoundError(f"{root}: no images in this folder or below; they may be {', '.join(IMAGE_SUFFIXES)}")
    return sorted(found)


def to_tensor(image: Image.Image) -> Tensor:
    """PIL RGB -> (3, H, W) float32 in [0, 1]."""
    array = np.asarray(image.convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255


def to_image(rgb: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] (clipped) -> PIL RGB."""
    array = (rgb.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).cpu().numpy())


def image_grid(rows: Tensor, columns: int) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> one picture (3, rows * H, columns * W), row by row."""
    from torchvision.utils import make_grid

    return make_grid(rows.detach().float().cpu().clamp(0, 1), nrow=columns, padding=2, pad_value=1.0)


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to that comes to be whole or not at all (temporary file beside it, then rename)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
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
    with whole_file(path) as file:
        file.write(data)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs have left of `whole_file` in a folder and below; what may still be written is kept."""
    for file in folder.rglob(f".*{UNFINISHED}"):
        if time.time() - file.stat().st_mtime > UNFINISHED_SECONDS:
            file.unlink(missing_ok=True)


def write_image(path: str | os.PathLike, image: Image.Image) -> None:
    """Write `image` as PNG, or as JPEG if the name says so, atomically."""
    buffer = io.BytesIO()
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    image.save(buffer, **({"format": "JPEG", "quality": 90} if jpeg else {"format": "PNG"}))
    write_bytes(path, buffer.getvalue())
