"""Training data in the memory of the device: what a stage needs of a pack is made once, and batches are drawn there.

No worker, no copy and no wait for the device in the loop. A batch is drawn from (seed, epoch, number) alone, so that a
resumed run sees the same ones. Random crops and mirrored photos are further variants of a photo, made at the start.

Letters: V variants, N photos, C captions of which rows 0 and 1 are the empty and the scarce one, B photos of a batch,
S the model's image size, h x w its latents.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lcad.config import DataConfig
from lcad.data.datamodule import PhotoModule
from lcad.data.packed import EMPTY_ROW, SCARCE_ROW, Packed, PackError, dense_phrases, dense_tokens
from lcad.data.photos import choose_crop
from lcad.io.images import ImageError

CHUNK, CPU_CHUNK = 256, 16  # photos that are read and encoded at once; a CPU's caches hold no more
STORED = {torch.float32: torch.float16, torch.bfloat16: torch.float16}


class ResidentStage(Protocol):
    """A stage of training, as far as what is kept for it goes."""

    pipeline: Any

    @property
    def device(self) -> torch.device: ...

    def prepare_resident(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, S, S) in [0, 1] -> what is kept of them."""
        ...


class ResidentPhotos(Dataset):
    """The photos of one split of a pack, as a stage wants them, on the stage's device.

    Args:
        stage: its `prepare_resident` makes of images (B, 3, S, S) in [0, 1] what is kept of them.
        captioned: keep captions and label maps too.
        labelled_only: captions without masked phrases, and photos without such captions, are left out.
        span: which tokens of a phrase have its masks: "noun", or None for the phrase or its part, by chance.
    """

    def __init__(
        self,
        stage: ResidentStage,
        packed: Packed,
        split: str,
        config: DataConfig,
        seed: int = 0,
        captioned: bool = True,
        labelled_only: bool = False,
        span: str | None = None,
    ):
        self.packed, self.size, self.seed, self.device = packed, stage.pipeline.config.image_size, seed, stage.device
        training = split == "train"
        self.scarce_probability = config.scarce_probability if training else 0.0
        self.caption_dropout = config.caption_dropout if training else 0.0
        items = packed.split(split)
        if captioned:
            self._keep_captions(span)
            starts = self._caption_rows(labelled_only)
            if labelled_only:
                items = items[(starts[1:] > starts[:-1])[items].numpy()]
        if not len(items):
            raise ValueError(f"data.packed: no photo of {split} is left" + " with masks" * labelled_only)
        self.photos, places = np.unique(items, return_inverse=True)  # (N,), (M,)
        self.items = torch.from_numpy(places).to(self.device)
        if captioned:
            self.row_starts = starts[self.photos].to(self.device)  # (N,)
            self.row_counts = (starts[1:] - starts[:-1])[self.photos].to(self.device)
        self.captioned = captioned
        self.arrays: dict[str, Tensor] = {}
        variants = [(crops, mirrored) for crops in range((config.crops if training else 0) + 1) for mirrored in (0, 1)]
        self.variants = variants if training and config.flip else [row for row in variants if not row[1]]
        self._mirrored = torch.tensor([mirrored for _, mirrored in self.variants], device=self.device)
        self._build(stage, config.zoom)
        self._orders: tuple[int, Tensor] | None = None

    def _keep_captions(self, span: str | None) -> None:
        packed, both = self.packed, (False, True)
        # (2, C, 77)
        self.tokens = torch.from_numpy(np.stack([dense_tokens(packed, m) for m in both])).to(self.device)
        dense = [[dense_phrases(packed, m, one) for m in both] for one in ([span] if span else ["phrase", "part"])]
        # (spans, 2, C, 77)
        self.members = torch.from_numpy(np.stack([[m.view(np.int16) for m, _ in row] for row in dense])).to(self.device)
        self.shares = torch.from_numpy(np.stack([[share for _, share in row] for row in dense])).to(self.device)

    def _caption_rows(self, labelled_only: bool) -> Tensor:
        """The rows of captions that are drawn, one photo's after another's; -> where each photo's start (N' + 1,)."""
        starts = torch.from_numpy(self.packed.arrays["caption_starts"][1:].astype(np.int64))
        rows = torch.arange(int(starts[0]), int(starts[-1]))
        kept = (self.members[0, 0, rows.to(self.device)] != 0).any(1).cpu() if labelled_only else torch.ones(len(rows))
        before = torch.cat([torch.zeros(1), kept.float().cumsum(0)]).long()
        self.rows = rows[kept.bool()].to(self.device)
        return before[starts - starts[0]]

    def _build(self, stage: ResidentStage, zoom: float) -> None:
        crops = sorted({crop for crop, _ in self.variants})
        at_once = CPU_CHUNK if self.device.type == "cpu" else CHUNK
        chunks = _Chunks(self.packed, self.photos, crops, self.size, zoom, self.seed, self.captioned, at_once)
        # processes, as Python decodes with one thread at a time; forked, as they then share the packed photos
        workers = min(len(os.sched_getaffinity(0)), len(chunks) - 1) if sys.platform == "linux" else 0
        loader = DataLoader(
            chunks,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            multiprocessing_context="fork" if workers else None,
        )
        for number, read in enumerate(tqdm(loader, "photos to the device", unit="batch", mininterval=5)):
            if isinstance(read, Exception):
                raise read
            images, labels = (torch.from_numpy(part).to(self.device) for part in read)
            crop, start = chunks.place(number)
            for variant, (own, mirrored) in enumerate(self.variants):
                if own == crop:
                    cut = (images.flip(-1), labels.flip(-1)) if mirrored else (images, labels)
                    self._keep(stage, variant, start, *cut)

    def _keep(self, stage: ResidentStage, variant: int, start: int, images: Tensor, labels: Tensor) -> None:
        kept = stage.prepare_resident(images.float() / 255)
        if self.captioned:
            stride = self.size // kept["moments"].shape[-1]
            kept["labels"] = labels[:, stride // 2 :: stride, stride // 2 :: stride]
        for name, values in kept.items():
            if name not in self.arrays:
                shape = (len(self.variants), len(self.photos), *values.shape[1:])
                self.arrays[name] = torch.empty(shape, dtype=STORED.get(values.dtype, values.dtype), device=self.device)
            self.arrays[name][variant, start : start + len(values)] = values

    def __len__(self) -> int:
        """Photos of an epoch, those of a source as often as it repeats."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """-> image (3, S, S) in [0, 1] and its first caption, to look at."""
        place = int(self.items[index])
        i = int(self.photos[place])
        rows = self.packed.captions(i)
        caption = self.packed.caption(rows[0]) if len(rows) else self.packed.caption(SCARCE_ROW)
        return {"image": self.packed.decode(i, self.size).float() / 255, "caption": caption}

    def draw(self, epoch: int, number: int, batch_size: int) -> dict[str, Tensor]:
        """Batch `number` of an epoch; nothing here waits for the device.

        -> what the stage has kept, and, with captions, tokens (B, 77), labels (B, h, w) uint8 and for each token the
        labels it belongs to: members (B, 77) int16 and share (B, 77), see `lcad.data.packed.dense_phrases`.
        """
        place = self._order(epoch)[number * batch_size : (number + 1) * batch_size]
        generator = torch.Generator(self.device).manual_seed(hash((self.seed, epoch, number)) % 2**63)
        chance = torch.rand(4, len(place), generator=generator, device=self.device)
        variant = (chance[0] * len(self.variants)).long()
        batch = {name: values[variant, place] for name, values in self.arrays.items()}
        if "image" in batch:
            batch["image"] = batch["image"].float() / 255
        if not self.captioned:
            return batch
        counts = self.row_counts[place]
        drawn = self.row_starts[place] + (chance[1] * counts).long().clamp_max(counts.sub(1).clamp_min(0))
        row = self.rows[drawn.clamp_max(len(self.rows) - 1)] if len(self.rows) else drawn * 0
        row = row.masked_fill((counts == 0) | (chance[2] < self.caption_dropout + self.scarce_probability), SCARCE_ROW)
        row = row.masked_fill(chance[2] < self.caption_dropout, EMPTY_ROW)
        mirrored, span = self._mirrored[variant], (chance[3] * len(self.members)).long()
        return batch | {
            "tokens": self.tokens[mirrored, row],
            "members": self.members[span, mirrored, row],
            "share": self.shares[span, mirrored, row],
        }

    def _order(self, epoch: int) -> Tensor:
        if self._orders is None or self._orders[0] != epoch:
            generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**63)
            self._orders = epoch, self.items[torch.randperm(len(self.items), generator=generator).to(self.device)]
        return self._orders[1]


@dataclass(frozen=True)
class _Chunks(Dataset):
    """Photos and label maps of a pack, `at_once` of them: first all cut in the middle (crop 0), then at random."""

    packed: Packed
    photos: np.ndarray
    crops: list[int]
    size: int
    zoom: float
    seed: int
    labelled: bool
    at_once: int

    def __len__(self) -> int:
        return len(self.crops) * -(-len(self.photos) // self.at_once)

    def place(self, number: int) -> tuple[int, int]:
        """-> which crop, and the first of its photos."""
        crop, chunk = divmod(number, len(self) // len(self.crops))
        return self.crops[crop], chunk * self.at_once

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray] | Exception:
        """-> images (n, 3, S, S) and labels (n, S, S), uint8; an error is handed on, to be raised as it is."""
        crop, start = self.place(number)
        try:
            read = [self._read(i, crop) for i in self.photos[start : start + self.at_once].tolist()]
        except (ImageError, PackError) as error:
            return error
        images, labels = zip(*read, strict=True)
        return np.stack(images), np.stack(labels)

    def _read(self, i: int, crop: int) -> tuple[np.ndarray, np.ndarray]:
        photo = self.packed.photo(i)
        rng = np.random.default_rng((self.seed, i, crop)) if crop else None
        cut = choose_crop(photo.size, self.size, rng, self.zoom)
        labels = self.packed.decode_labels(i, self.size, cut) if self.labelled else None
        image = np.asarray(cut(photo)).transpose(2, 0, 1)
        return image, np.zeros(image.shape[1:], np.uint8) if labels is None else labels.numpy()


def _as_it_is(read: object) -> object:
    """As arrays: tensors would pass through shared memory, of which containers have little."""
    return read


class ResidentModule(PhotoModule):
    """Batches of `ResidentPhotos`, with the position in the epoch as state, as `PhotoModule` has it."""

    train: ResidentPhotos
    validation: ResidentPhotos

    def train_dataloader(self) -> "_Batches":
        return _Batches(self)

    def val_dataloader(self) -> DataLoader:
        """Always the same batches, made when they are first asked for."""
        count = max(1, min(self.trainer.limit_val_batches, len(self.validation) // self.batch_size))
        batches = [self.validation.draw(0, number, self.batch_size) for number in range(int(count))]
        return DataLoader(cast(Dataset, batches), batch_size=None)  # a list will do

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """It is there."""
        return batch


class _Batches:
    """The batches of the current epoch, from where a resumed run goes on."""

    def __init__(self, module: ResidentModule):
        self.module = module

    def __len__(self) -> int:
        return max(1, len(self.module.train) // (self.module.batch_size * self.module.trainer.world_size))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        module, trainer = self.module, self.module.trainer
        epoch, resumed = trainer.current_epoch, module.resumed
        first = resumed["batches_done"] if resumed["epoch"] == epoch else 0
        for number in range(first, len(self)):
            yield module.train.draw(epoch, number * trainer.world_size + trainer.global_rank, module.batch_size)
