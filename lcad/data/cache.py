"""A cache of what does not change in stage 2: latents, the deepest luminance feature, text embeddings.

Shapes: N different photos, each as it is and mirrored; moments (2, N, 2 C, h, w), luminance (2, N, C_l, h, w),
text (captions, 77, D); float16 on disk, read as float32 through memory maps.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from lcad.data.photos import PhotoDataset
from lcad.io.images import ImageError, to_tensor
from lcad.text.captions import SCARCE_CAPTION, mirror_words

BATCH = 16


class CachedDataset(Dataset):
    """The items of a `PhotoDataset` with cached tensors in place of the image: same keys, same draws."""

    def __init__(self, photos: PhotoDataset, folder: Path):
        self.photos = photos
        self.arrays = {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
        listed = folder / "captions.json"
        self.photo_rows = {photo: row for row, photo in enumerate(_different(photos))}
        self.unreadable: dict[str, str] = json.loads((folder / "unreadable.json").read_text())  # row -> why
        self.caption_rows = {c: i for i, c in enumerate(json.loads(listed.read_text()))} if listed.is_file() else {}

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: int) -> dict[str, Tensor | str | int]:
        """-> moments, luminance (if the UNet takes it), text (if frozen), and all but the image of a photo's item."""
        return self.photos.readable(key, self._item)

    def _item(self, key: int) -> dict[str, Tensor | str | int]:
        index, caption, mirrored, rng = self.photos.draw(key)
        place = self.photo_rows[self.photos.photos[index]]
        if str(place) in self.unreadable:
            raise ImageError(self.unreadable[str(place)])
        item: dict = {"caption": caption, "index": index, "mirrored": int(mirrored)}
        item["instances"] = self.photos.instances(index, caption, mirrored, rng)
        for name, array in self.arrays.items():
            row = array[self.caption_rows[caption]] if name == "text" else array[int(mirrored), place]
            item[name] = torch.from_numpy(row.astype(np.float32))
        return item


@torch.no_grad()
def open_cache(
    photos: PhotoDataset,
    folder: Path,
    prepare: Callable[[Tensor], dict[str, Tensor]],
    encode: Callable[[list[str]], Tensor] | None,
    fingerprint: Callable[[list], str],
) -> CachedDataset:
    """Open the cache for these photos and these frozen weights, building it first if it is not there.

    Args:
        folder: holds one subfolder for each combination of photos and weights.
        prepare: images (B, 3, S, S) in [0, 1] -> the tensors of them that are kept, by name.
        encode: captions -> (captions, 77, D); None: text is not cached, its encoder is trained.
        fingerprint: a description of the photos -> a hash of it and of all that `prepare` and `encode` depend on.

    Raises:
        ValueError: photos with random crops, which have no fixed latents.
    """
    if photos.crop != "center":
        raise ValueError(f"latent.cache needs data.crop=center, got {photos.crop}; random crops have no fixed latents")
    place = folder / fingerprint(_described(photos, with_captions=encode is not None))
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder, prefix=f"{place.name}.partial."))
        _write_images(photos, prepare, partial)
        if encode is not None:
            _write_text(photos, encode, partial)
        try:
            partial.rename(place)
        except OSError:  # another device has finished the same cache
            shutil.rmtree(partial)
    return CachedDataset(photos, place)


def _different(photos: PhotoDataset) -> dict[Path, int]:
    """The photos, each once however often it repeats -> index of one of its places in the data set."""
    return {photo: index for index, photo in enumerate(photos.photos)}


def _write_images(photos: PhotoDataset, prepare: Callable[[Tensor], dict[str, Tensor]], folder: Path) -> None:
    arrays: dict[str, np.memmap] = {}
    indices = list(_different(photos).values())
    unreadable: dict[int, str] = {}
    for start in tqdm(range(0, len(indices), BATCH), "caching latents", unit="batch", mininterval=5):
        squares: dict[int, Tensor] = {}  # by row
        for row, index in enumerate(indices[start : start + BATCH], start):
            try:
                squares[row] = to_tensor(photos.square(index))
            except ImageError as error:
                unreadable[row] = str(error)
        if not squares:
            continue
        images = torch.stack(list(squares.values()))
        for mirrored in (0, 1) if photos.flip else (0,):
            for name, value in prepare(images.flip(-1) if mirrored else images).items():
                if name not in arrays:
                    shape = (2 if photos.flip else 1, len(indices), *value.shape[1:])
                    arrays[name] = open_memmap(folder / f"{name}.npy", "w+", np.float16, shape)
                arrays[name][mirrored, list(squares)] = value.float().cpu().numpy()
    (folder / "unreadable.json").write_text(json.dumps(unreadable))


def _write_text(photos: PhotoDataset, encode: Callable[[list[str]], Tensor], folder: Path) -> None:
    drawn = {"", SCARCE_CAPTION}.union(*(photos.captions.get(photo, ()) for photo in photos.photos))
    captions = sorted(drawn | {mirror_words(caption) for caption in drawn} if photos.flip else drawn)
    text = None
    for start in tqdm(range(0, len(captions), BATCH), "caching text", unit="batch", mininterval=5):
        rows = encode(captions[start : start + BATCH])
        if text is None:
            text = open_memmap(folder / "text.npy", "w+", np.float16, (len(captions), *rows.shape[1:]))
        text[start : start + len(rows)] = rows.float().cpu().numpy()
    (folder / "captions.json").write_text(json.dumps(captions))


def _described(photos: PhotoDataset, with_captions: bool) -> list:
    listed = []
    for photo in tqdm(_different(photos), "checking photos against the cache", unit="photo", mininterval=5):
        captions = photos.captions.get(photo) if with_captions else None
        listed.append([hashlib.sha256(photo.read_bytes()).hexdigest(), captions])
    return [listed, photos.size, photos.flip]
