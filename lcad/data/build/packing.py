"""Writes the training data of a config as a pack, see `lcad.data.packed`.

What is written depends on the data alone: there are no times, no folders and no order of processes in it.
"""

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTokenizer

from lcad.config import DataConfig
from lcad.data.build.manifest import file_sha256
from lcad.data.build.pieces import FileRecord, is_plain_name
from lcad.data.datasets import open_sources
from lcad.data.packed import ARRAYS, FORMAT, INDEX, MAX_LABELS, SPLITS
from lcad.data.training_masks import InstanceFinder, LabelledPhrase
from lcad.io.images import ImageError, atomic_write, decode_image, write_bytes
from lcad.text.captions import SCARCE_CAPTION, mirror_words
from ldm.text_encoder import MAX_TOKENS

SHARD_SIZE = 50_000_000  # bytes
HEADER = 8192  # bytes of a shard that are kept for its list of arrays
SHARD = "shard_{:04d}.safetensors"


@dataclass(frozen=True)
class Item:
    """A photo to pack.

    Attributes:
        source: the number of its source. split: index in `SPLITS`.
        finder: where its masks come from; None: it has none.
    """

    path: Path
    source: int
    split: int
    captions: list[str]
    finder: InstanceFinder | None


@dataclass(frozen=True)
class PackedItem:
    """What is packed of a photo.

    Attributes:
        data: its file.
        label_map: PNG, empty without masks.
        phrases: for each caption, as it is and then mirrored, rows of `phrase_spans` and `phrase_labels`.
    """

    data: bytes
    label_map: bytes
    phrases: list[list[tuple[tuple[int, ...], int]]]


def pack(
    config: DataConfig,
    output: Path,
    tokenizer: CLIPTokenizer,
    include: dict[str, Path] | None = None,
    shard_size: int = SHARD_SIZE,
    processes: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[FileRecord]:
    """Write the training and validation photos of a config into a folder.

    Photos that cannot be read are left out with a warning.

    Args:
        include: further files, name -> where each is; copied as they are.
        shard_size: the most bytes of a shard.
        processes: that prepare photos beside this one; 0: none.

    Returns:
        The shards and the further files.

    Raises:
        FileExistsError: the folder holds a pack. FileNotFoundError, ValueError: see `open_photos`; a shard size or a
            name of a further file that cannot be used. MaskError: see `lcad.masks.files`.
    """
    if (output / INDEX).exists():
        raise FileExistsError(f"{output}: holds a pack already; choose another folder or delete it")
    for name, path in (include or {}).items():
        if not is_plain_name(name) or name == INDEX or name.startswith("shard_"):
            raise ValueError(f"cannot include a file as {name!r}; give it a plain name of its own")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file to include")
    writer = ShardWriter(output, shard_size)
    sources = open_sources(config, tokenizer)
    items = [
        Item(path, number, split, source.captions.get(path, []), source.instances.get(path))
        for number, source in enumerate(sources)
        for split, part in enumerate(SPLITS)
        for path in source.parts[part]
    ]
    loader = DataLoader(_Items(items), batch_size=None, num_workers=processes, collate_fn=lambda item: item)
    _write_items(writer, items, progress(loader), tokenizer)
    shards = writer.finish()
    files = [_copy(path, output / name) for name, path in sorted((include or {}).items())]
    index = {"format": FORMAT, "repeats": [source.repeat for source in sources]}
    index |= {"shards": list(map(asdict, shards)), "files": list(map(asdict, files))}
    write_bytes(output / INDEX, json.dumps(index, indent=1).encode())
    return shards + files


class ShardWriter:
    """Cuts arrays, which come in rows and in any order, into files of a bounded size.

    Raises:
        ValueError: a size that leaves no room.
    """

    def __init__(self, folder: Path, size: int):
        if size < 2 * HEADER:
            raise ValueError(f"got shards of {size:,} bytes; give at least {2 * HEADER:,}")
        self.folder, self.room = folder, size - HEADER  # bytes of arrays
        self.records: list[FileRecord] = []
        self.waiting: dict[str, list[np.ndarray]] = {}
        self.filled = 0

    def add(self, name: str, rows: np.ndarray | list) -> None:
        """Append rows to an array of `ARRAYS`."""
        kind, columns = ARRAYS[name]
        rows = np.asarray(rows, kind).reshape((-1, columns) if columns else -1)
        step = rows.itemsize * (columns or 1)
        while len(rows):
            fitting = (self.room - self.filled) // step
            if not fitting:
                self._write()
                continue
            self.waiting.setdefault(name, []).append(rows[:fitting])
            self.filled += min(fitting, len(rows)) * step
            rows = rows[fitting:]

    def finish(self) -> list[FileRecord]:
        if self.waiting:
            self._write()
        return self.records

    def _write(self) -> None:
        data = save({name: np.concatenate(self.waiting[name]) for name in sorted(self.waiting)})
        record = FileRecord(SHARD.format(len(self.records)), hashlib.sha256(data).hexdigest(), len(data))
        write_bytes(self.folder / record.name, data)
        self.records.append(record)
        self.waiting, self.filled = {}, 0


class _Items(Dataset):
    """A data set of prepared photos. In place of one that cannot be read: a line that says why; of unusable masks: the
    error, since one that is raised in a process of a loader brings the whole traceback in its message."""

    def __init__(self, items: list[Item]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> PackedItem | str | ValueError:
        item = self.items[index]
        try:
            data = item.path.read_bytes()
            width, height = decode_image(io.BytesIO(data), str(item.path)).size
        except (OSError, ImageError) as error:
            return str(error)
        try:
            return prepare_item(item, data, (height, width))
        except (OSError, ValueError) as error:
            return ValueError(str(error))


def prepare_item(item: Item, data: bytes, size: tuple[int, int]) -> PackedItem:
    """Of a photo with masks, make its label map and find the phrases of its captions.

    Args:
        data: its file. size: (H, W).

    Raises:
        ValueError: masks that cannot be used.
    """
    texts = [text for caption in item.captions for text in (caption, mirror_words(caption))]
    finder = item.finder
    labels, read = finder.open(item.path, size) if finder else ((), dict)
    found = {text: finder.match(text, labels) for text in dict.fromkeys(texts)} if finder and labels else {}
    used = {label for phrases in found.values() for one in phrases for label in one.labels}
    if not used:
        return PackedItem(data, b"", [[] for _ in texts])
    masks = read()
    label_map, numbers = unite_masks({label: masks[label].numpy() > 0.5 for label in used})
    if label_map.shape != size:
        raise ValueError(f"{item.path}: the photo is {size[::-1]} pixels, its label map {label_map.shape[::-1]}")
    png = io.BytesIO()
    Image.fromarray(label_map).save(png, "PNG")
    return PackedItem(data, png.getvalue(), [_phrase_rows(found[text], numbers) for text in texts])


def unite_masks(masks: dict[int, np.ndarray]) -> tuple[np.ndarray, dict[int, int]]:
    """Masks (H, W) bool by label -> one label map (H, W) uint8, and the new label of each mask in it.

    The largest become 1, 2, ... to 15, and the rest is lost; where masks overlap, the smallest is seen.
    """
    areas = {label: int(mask.sum()) for label, mask in masks.items()}
    largest = sorted((label for label, area in areas.items() if area), key=lambda label: (-areas[label], label))
    numbers = {label: number for number, label in enumerate(largest[:MAX_LABELS], 1)}
    label_map = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for label, number in numbers.items():
        label_map[masks[label]] = number
    return label_map, numbers


def _phrase_rows(found: list[LabelledPhrase], numbers: dict[int, int]) -> list[tuple[tuple[int, ...], int]]:
    rows: list[tuple[tuple[int, ...], int]] = []
    for one in found:
        labels = sum(1 << numbers[label] for label in set(one.labels) & numbers.keys())
        if labels:
            rows.append(((*one.phrase.tokens, *one.phrase.object_tokens, *one.part.tokens), labels))
    return rows


def _write_items(writer: ShardWriter, items: list[Item], packed: Iterable, tokenizer: CLIPTokenizer) -> None:
    """Write all there is of the photos, which come prepared in their order."""
    files: dict[bytes, int] = {}  # SHA-256 -> number
    texts = {"": 0, SCARCE_CAPTION: 1}  # -> number
    starts = {name: [0] for name in ("photo", "label", "phrase")} | {"caption": [0, 2]}
    starts["phrase"] += [0] * 4  # of the two captions of no photo
    writer.add("caption_texts", [0, 1])
    for item, one in zip(items, packed, strict=True):
        if isinstance(one, ValueError):
            raise one
        if isinstance(one, str):
            warnings.warn(f"{one}; it is left out of the pack", stacklevel=3)
            continue
        digest = hashlib.sha256(one.data).digest()
        if digest not in files:
            files[digest] = len(files)
            writer.add("photo_bytes", np.frombuffer(one.data, np.uint8))
            starts["photo"].append(starts["photo"][-1] + len(one.data))
        writer.add("photo_files", [files[digest]])
        writer.add("photo_sources", [item.source])
        writer.add("photo_splits", [item.split])
        writer.add("label_bytes", np.frombuffer(one.label_map, np.uint8))
        starts["label"].append(starts["label"][-1] + len(one.label_map))
        for caption in item.captions:
            writer.add("caption_texts", [texts.setdefault(caption, len(texts))])
            texts.setdefault(mirror_words(caption), len(texts))
        starts["caption"].append(starts["caption"][-1] + len(item.captions))
        for rows in one.phrases:
            writer.add("phrase_spans", [spans for spans, _ in rows])
            writer.add("phrase_labels", [labels for _, labels in rows])
            starts["phrase"].append(starts["phrase"][-1] + len(rows))
    if not files:
        raise ValueError("none of the photos can be read")
    for name, values in starts.items():
        writer.add(f"{name}_starts", values)
    _write_texts(writer, list(texts), tokenizer)


def _write_texts(writer: ShardWriter, texts: list[str], tokenizer: CLIPTokenizer) -> None:
    numbers = {text: number for number, text in enumerate(texts)}
    writer.add("text_mirrored", [numbers[mirror_words(text)] for text in texts])
    encoded = [text.encode() for text in texts]
    tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    for name, values, rows in (
        ("text_starts", "text_bytes", [np.frombuffer(row, np.uint8) for row in encoded]),
        ("token_starts", "token_values", tokens),
    ):
        for row in rows:
            writer.add(values, row)
        writer.add(name, [0, *np.cumsum([len(row) for row in rows])])


def _copy(path: Path, target: Path) -> FileRecord:
    with path.open("rb") as source, atomic_write(target) as file:
        shutil.copyfileobj(source, file)
    return FileRecord(target.name, file_sha256(target), target.stat().st_size)
