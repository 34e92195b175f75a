"""Photos, captions and masks of training as a few files that can be sent, which `lcad.data.build.packing` writes.

A pack is an index, `packed.json`, and shards: safetensors files of arrays, each cut into as many shards as it takes.
Lists whose entries differ in length are ragged: the values of all entries, and where each one starts. Shards and index
come from strangers: all of it is checked before it is used.

Letters: N photos; C captions, of which row 0 is the empty one and row 1 "a colorful image"; T texts, each there once
however many captions it is; P phrases; 77 tokens; S the side of a decoded square. A photo's label map has 0 where there
is no object, and labels 1 to 15; a set of labels is a uint16 in which bit i stands for label i.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import Tensor

from lcad.data.build.pieces import parse_record, some
from lcad.data.photos import Crop, choose_crop
from lcad.io.images import decode_image
from lcad.text.captions import SCARCE_CAPTION
from ldm.text_encoder import MAX_TOKENS, VOCABULARY_SIZE

INDEX = "packed.json"
FORMAT = "lcad-pack-1"
EMPTY_ROW, SCARCE_ROW = 0, 1  # captions of no photo
MAX_LABELS = 15
PADDING = VOCABULARY_SIZE - 1  # CLIP's end token
SPLITS = ("train", "val")
SPANS = {"phrase": 0, "noun": 2, "part": 4}  # columns of `phrase_spans` where each kind's [start, end) stands

ARRAYS: dict[str, tuple[type, int]] = {
    "photo_bytes": (np.uint8, 0),  # encoded files, each once
    "photo_starts": (np.int64, 0),
    "photo_files": (np.int32, 0),  # (N,) which of them a photo is
    "photo_sources": (np.uint8, 0),  # (N,) the number of its source
    "photo_splits": (np.uint8, 0),  # (N,) index in `SPLITS`
    "label_bytes": (np.uint8, 0),  # a PNG for each photo, empty without masks
    "label_starts": (np.int64, 0),
    "text_bytes": (np.uint8, 0),  # UTF-8
    "text_starts": (np.int32, 0),
    "text_mirrored": (np.int32, 0),  # (T,) the text of the mirrored photo
    "token_values": (np.uint16, 0),  # with the start and end tokens, without padding
    "token_starts": (np.int32, 0),
    "caption_texts": (np.int32, 0),  # (C,)
    "caption_starts": (np.int32, 0),  # of each photo, after the two captions of none
    "phrase_spans": (np.uint8, 6),  # (P, 6) tokens [start, end) of the phrase, its noun and its part
    "phrase_labels": (np.uint16, 0),  # (P,) sets of labels
    "phrase_starts": (np.int32, 0),  # of each caption as it is and then mirrored
}
"""name -> type, and the number of columns if there are any"""


class PackError(ValueError):
    """A pack that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Packed:
    """A pack in memory.

    Attributes:
        arrays: see `ARRAYS`; read-only.
        repeats: of each source, how often its training photos come in an epoch.
        files: further files of the pack, name -> where it lies.
    """

    arrays: dict[str, np.ndarray]
    repeats: list[int]
    files: dict[str, Path]

    def __len__(self) -> int:
        """N."""
        return len(self.arrays["photo_files"])

    @property
    def caption_count(self) -> int:
        """C."""
        return len(self.arrays["caption_texts"])

    def split(self, name: str) -> np.ndarray:
        """The photos of "train" (those of a source as often as it repeats) or "val" (sources alternate): int64."""
        chosen = self.arrays["photo_splits"] == SPLITS.index(name)
        sources = [np.flatnonzero(chosen & (self.arrays["photo_sources"] == i)) for i in range(len(self.repeats))]
        if name == "train":
            return np.concatenate([np.tile(own, times) for own, times in zip(sources, self.repeats, strict=True)])
        turns = np.concatenate([np.arange(len(own)) for own in sources])
        return np.concatenate(sources)[np.argsort(turns, kind="stable")]

    def photo_bytes(self, i: int) -> bytes:
        """The file of photo i as it was packed."""
        return self._entry("photo_bytes", "photo_starts", int(self.arrays["photo_files"][i])).tobytes()

    def photo(self, i: int) -> Image.Image:
        """Photo i, RGB; raises ImageError."""
        return decode_image(io.BytesIO(self.photo_bytes(i)), f"photo {i} of the pack")

    def label_map(self, i: int) -> np.ndarray | None:
        """The labels (H, W) uint8 of photo i, at its size; None without masks.

        Raises:
            ImageError: unreadable. PackError: labels over 15.
        """
        data = self._entry("label_bytes", "label_starts", i).tobytes()
        if not data:
            return None
        labels = np.asarray(decode_image(io.BytesIO(data), f"label map {i} of the pack"))[..., 0]
        if labels.max(initial=0) > MAX_LABELS:
            raise PackError(f"label map {i} of the pack: got label {labels.max()}; they go to {MAX_LABELS}; pack again")
        return labels

    def captions(self, i: int) -> range:
        """The rows of photo i's captions, 0 <= row < C; a photo may have none."""
        start, end = self.arrays["caption_starts"][i + 1 : i + 3].tolist()
        return range(start, end)

    def caption(self, row: int, mirrored: bool = False) -> str:
        """A caption, or that of the mirrored photo."""
        return self._entry("text_bytes", "text_starts", int(self.texts(mirrored)[row])).tobytes().decode()

    def texts(self, mirrored: bool = False) -> np.ndarray:
        """(C,) the text of each caption."""
        texts = self.arrays["caption_texts"]
        return self.arrays["text_mirrored"][texts] if mirrored else texts

    def decode(self, i: int, size: int, crop: Crop | None = None) -> Tensor:
        """Photo i cut to S x S: (3, S, S) uint8, its centre unless a crop is given; raises ImageError."""
        photo = self.photo(i)
        cut = (crop or choose_crop(photo.size, size))(photo)
        return torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous()

    def decode_labels(self, i: int, size: int, crop: Crop | None = None) -> Tensor | None:
        """The labels (S, S) uint8 of `decode`, nearest; None without masks. Raises as `label_map`."""
        labels = self.label_map(i)
        if labels is None:
            return None
        image = Image.fromarray(labels)
        cut = (crop or choose_crop(image.size, size))(image, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(cut))

    def _entry(self, values: str, starts: str, i: int) -> np.ndarray:
        start, end = self.arrays[starts][i : i + 2].tolist()
        return self.arrays[values][start:end]


def dense_tokens(packed: Packed, mirrored: bool = False) -> np.ndarray:
    """Token ids (C, 77) int32 of all captions, padded as CLIP reads them."""
    starts, values = packed.arrays["token_starts"], packed.arrays["token_values"]
    texts = packed.texts(mirrored)
    lengths = np.diff(starts)[texts]
    tokens = np.full((len(texts), MAX_TOKENS), PADDING, np.int32)
    inside = np.arange(MAX_TOKENS) < lengths[:, None]  # (C, 77)
    rows, columns = np.nonzero(inside)
    tokens[inside] = values[starts[texts][rows] + columns]
    return tokens


def dense_phrases(packed: Packed, mirrored: bool = False, span: str = "phrase") -> tuple[np.ndarray, np.ndarray]:
    """Which labels each token of each caption is of: members (C, 77) uint16 and share (C, 77) float16.

    A token belongs to the labels in its set: pixels where `members >> label & 1`, which never holds for label 0. Its
    share is 1 / tokens of its phrase. Both are 0 for tokens of no phrase; a token of several is of the last.

    Args:
        span: what of a phrase counts: "phrase" (the object with its colour), "noun", or "part" (all between commas, for
            masks from files; else the phrase).
    """
    members = np.zeros((packed.caption_count, MAX_TOKENS), np.uint16)
    share = np.zeros(members.shape, np.float16)
    counts = np.diff(packed.arrays["phrase_starts"]).reshape(-1, 2)  # (C, 2)
    rows = np.repeat(np.arange(2 * len(counts)), counts.ravel())  # (P,) 2 * caption + mirrored
    own = np.flatnonzero(rows % 2 == mirrored)
    start, end = packed.arrays["phrase_spans"][own, SPANS[span] : SPANS[span] + 2].T.astype(int)
    lengths = end - start
    phrases = np.repeat(np.arange(len(own)), lengths)  # (tokens of phrases,)
    columns = np.arange(len(phrases)) + (end - np.cumsum(lengths))[phrases]
    at = rows[own][phrases] // 2, columns
    members[at] = packed.arrays["phrase_labels"][own][phrases]
    share[at] = (1 / lengths)[phrases]
    return members, share


def open_packed(folders: Path | list[Path]) -> Packed:
    """Read a pack whose files lie in one folder or, in any distribution, in several.

    Raises:
        FileNotFoundError: no index. PackError: files are missing or damaged, which are named, or do not fit together.
    """
    folders = [Path(folders)] if isinstance(folders, (str, Path)) else list(map(Path, folders))
    index, content = _read_index(folders)
    places: dict[str, Path] = {}
    wrong = []
    for record in content["shards"] + content["files"]:
        states = {folder: record.state(folder) for folder in folders}
        place = next((folder / record.name for folder, state in states.items() if state is None), None)
        if place is not None:
            places[record.name] = place
        else:
            wrong.append(f"{record.name} is {'damaged' if 'damaged' in states.values() else 'missing'}")
    if wrong:
        raise PackError(f"{index}: {some(wrong)}; copy them again, into any of the given folders")
    try:
        arrays = _read_shards([places[record.name] for record in content["shards"]])
        _check(arrays, len(content["repeats"]))
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that numpy does not have
        raise PackError(f"{index}: not a pack that can be used ({error}); pack the photos again") from error
    return Packed(arrays, content["repeats"], {record.name: places[record.name] for record in content["files"]})


def _read_index(folders: list[Path]) -> tuple[Path, dict[str, list]]:
    found = [folder / INDEX for folder in folders if (folder / INDEX).is_file()]
    if not found:
        raise FileNotFoundError(f"no {INDEX} in {', '.join(map(str, folders))}; see scripts/pack_data.py")
    texts = {path.read_bytes() for path in found}
    if len(texts) > 1:
        raise PackError(f"{found[0]}: is of another pack than {found[1]}; give the folders of one")
    try:
        content = json.loads(texts.pop())
        if content["format"] != FORMAT:
            raise ValueError(f"got the format {content['format']!r}, expected {FORMAT!r}")
        records = {kind: list(map(parse_record, content[kind])) for kind in ("shards", "files")}
        names = [record.name for record in records["shards"] + records["files"]]
        repeats = content["repeats"]
        if len(set(names)) < len(names):
            raise ValueError("a file is named twice")
        if not repeats or not all(type(times) is int and 1 <= times <= 1000 for times in repeats):
            raise ValueError(f"got {repeats!r} as the repeats of its sources")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackError(f"{found[0]}: not the index of a pack ({error!r}); copy it again") from error
    return found[0], records | {"repeats": repeats}


def _read_shards(paths: list[Path]) -> dict[str, np.ndarray]:
    cut: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for path in paths:
        for name, values in load(path.read_bytes()).items():
            if name not in ARRAYS:
                raise ValueError(f"{path.name} holds {name!r}, which is no part of a pack")
            kind, columns = ARRAYS[name]
            if values.dtype != kind or values.shape[1:] != ((columns,) if columns else ()) or not values.ndim:
                raise ValueError(f"{name} is {values.dtype} of shape {values.shape} in {path.name}")
            cut[name].append(values)
    arrays = {}
    for name in ARRAYS:
        parts = cut.pop(name)
        kind, columns = ARRAYS[name]
        arrays[name] = np.concatenate(parts) if parts else np.zeros((0, columns) if columns else 0, kind)
        arrays[name].flags.writeable = False
    return arrays


def _check(arrays: dict[str, np.ndarray], sources: int) -> None:
    """Raise ValueError unless every start, index, token, span and label lies where it can."""
    texts, photos, captions = (len(arrays[name]) for name in ("text_mirrored", "photo_files", "caption_texts"))
    entries = {
        "photo_starts": ("photo_bytes", len(arrays["photo_starts"]) - 1),
        "label_starts": ("label_bytes", photos),
        "text_starts": ("text_bytes", texts),
        "token_starts": ("token_values", texts),
        "caption_starts": ("caption_texts", photos + 1),
        "phrase_starts": ("phrase_labels", 2 * captions),
    }
    for name, (values, count) in entries.items():
        starts = arrays[name]
        whole = len(starts) == count + 1 > 0 and starts[0] == 0 and starts[-1] == len(arrays[values])
        if not whole or (starts[1:] < starts[:-1]).any():
            raise ValueError(f"{name} are not the starts of {count} entries of {values}")
    below = {
        "photo_files": len(arrays["photo_starts"]) - 1,
        "photo_sources": sources,
        "photo_splits": len(SPLITS),
        "text_mirrored": texts,
        "caption_texts": texts,
        "token_values": VOCABULARY_SIZE,
    }
    for name, end in below.items():
        if arrays[name].min(initial=0) < 0 or arrays[name].max(initial=0) >= end:
            raise ValueError(f"{name} go beyond 0 to {end - 1}")
    mirrored = arrays["text_mirrored"]
    if (mirrored[mirrored] != np.arange(texts)).any():
        raise ValueError("a text that is mirrored twice is another")
    if not len(arrays["photo_sources"]) == len(arrays["photo_splits"]) == photos > 0:
        raise ValueError("photos without a source or a split, or no photos")
    lengths, spans = np.diff(arrays["token_starts"]), arrays["phrase_spans"].reshape(-1, len(SPANS), 2)
    if lengths.min(initial=2) < 2 or lengths.max(initial=2) > MAX_TOKENS:
        raise ValueError(f"a text has {lengths.min()} to {lengths.max()} tokens; 2 to {MAX_TOKENS} are possible")
    impossible = (spans[..., 0] >= spans[..., 1]).any() or (spans > MAX_TOKENS).any()
    if len(spans) != len(arrays["phrase_labels"]) or impossible:
        raise ValueError("phrases without tokens, or beyond those of a caption")
    if (arrays["phrase_labels"] == 0).any() or (arrays["phrase_labels"] & 1).any():
        raise ValueError("phrases without labels, or of label 0")
    first = Packed(arrays, [], {})
    if arrays["caption_starts"][1] != 2 or [*map(first.caption, (EMPTY_ROW, SCARCE_ROW))] != ["", SCARCE_CAPTION]:
        raise ValueError(f"its first captions are not the empty one and {SCARCE_CAPTION!r}")
