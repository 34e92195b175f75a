"""The data module of both stages: the same batches again after a resume, on any number of devices."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lcad.data.photos import collate, take_instances


class ResumableSampler(DistributedSampler):
    """Shuffles by (seed, epoch), gives each device its share, and can start inside an epoch.

    Yields keys `epoch * len(dataset) + index`, see `PhotoDataset`.

    Attributes:
        resumed: (epoch, items of it to leave out, because an earlier run has seen them). Lightning may start an
            epoch's iteration more than once: it gives the same items each time.
    """

    def __init__(self, dataset: Dataset, replicas: int, rank: int, seed: int):
        super().__init__(dataset, replicas, rank, shuffle=True, seed=seed)
        self.resumed = (0, 0)

    def __iter__(self) -> Iterator[int]:
        epoch, start = self.resumed
        indices = list(super().__iter__())[start if self.epoch == epoch else 0 :]
        count = _length(self.dataset)
        return iter(self.epoch * count + index for index in indices)


class PhotoModule(pl.LightningDataModule):
    """Training and validation loaders over two data sets, with the position in the epoch as its state."""

    def __init__(self, train: Dataset, validation: Dataset, batch_size: int, workers: int, seed: int):
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.resumed = {"epoch": 0, "batches_done": 0}

    def train_dataloader(self) -> Iterable[dict]:
        sampler = ResumableSampler(self.train, self.trainer.world_size, self.trainer.global_rank, self.seed)
        sampler.resumed = (self.resumed["epoch"], self.resumed["batches_done"] * self.batch_size)
        sampler.set_epoch(self.resumed["epoch"])  # Lightning does so only after workers have begun to fetch
        return self._loader(self.train, sampler=sampler, drop_last=_length(self.train) >= self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.validation, shuffle=False)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """All but the instances, whose masks are read once."""
        instances = take_instances(batch)
        return super().transfer_batch_to_device(batch, device, dataloader_idx) | {"instances": instances}

    def _loader(self, dataset: Dataset, **options: Any) -> DataLoader:
        return DataLoader(
            dataset,
            self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate,
            pin_memory=self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
            **options,
        )

    def state_dict(self) -> dict[str, int]:
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        if progress.is_last_batch:  # the next epoch, which workers begin to fetch before Lightning says so
            return {"epoch": self.trainer.current_epoch + 1, "batches_done": 0}
        return {"epoch": self.trainer.current_epoch, "batches_done": progress.current.ready}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resumed = state


def _length(dataset: Dataset) -> int:
    """Torch does not say that a data set has a length; those of this project do."""
    return len(cast(Sized, dataset))
