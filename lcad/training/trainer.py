"""From a typed config to a running Lightning trainer, for both stages."""

import sys
import time
import warnings
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint, Timer, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.trainer.states import RunningStage
from torch.nn.attention import SDPBackend, sdpa_kernel

from lcad.config import LatentStageConfig, StageConfig, TrainerConfig
from lcad.data.datamodule import PhotoModule
from lcad.data.datasets import open_photos
from lcad.data.photos import PhotoDataset
from lcad.io.images import image_grid, to_image, write_image
from lcad.pipeline import LCADPipeline
from lcad.training.start import start_pipeline
from ldm.devices import DTYPES

EXAMPLES = 6  # photos in a logged image grid
EMA_EVERY = 10  # steps


class ExampleGrid(pl.Callback):
    """After each validation, write `images/<step>.png` (and log it to TensorBoard): see `example_images`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, stage: pl.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        dataset = trainer.datamodule.validation
        items = [dataset[i] for i in range(min(EXAMPLES, len(dataset)))]
        batch = {
            "image": torch.stack([item["image"] for item in items]).to(stage.device),
            "caption": [item["caption"] for item in items],
        }
        grid = image_grid(stage.example_images(batch), columns=3)
        write_image(self.folder / f"{trainer.global_step:08d}.png", to_image(grid))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("examples", grid, trainer.global_step)


class LastCheckpoint(pl.Callback):
    """Write `last.ckpt` every so many steps and at the last one, be it of the steps, the epochs or the hours.

    Always inside the epoch: after `fit` has ended, Lightning counts the broken-off epoch as done, and a run
    resumed from there would not see the rest of its photos.
    """

    def __init__(self, folder: Path, every: int):
        self.path, self.every, self.saved_step = folder / "last.ckpt", every, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        step = trainer.global_step
        last_epoch = trainer.max_epochs == trainer.current_epoch + 1
        ending = trainer.should_stop or step == trainer.max_steps or (last_epoch and trainer.is_last_batch)
        if step != self.saved_step and (step % self.every == 0 or ending):
            self.saved_step = step
            trainer.save_checkpoint(self.path)


class RunTimer(Timer):
    """Lightning's timer, which counts what was prepared before the first step too.

    Attributes:
        prepared: the seconds that took.
    """

    prepared = 0.0

    def time_elapsed(self, stage: RunningStage = RunningStage.TRAINING) -> float:
        return super().time_elapsed(stage) + self.prepared

    def on_fit_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """However long the preparation was, one step is made."""
        prepared, self.prepared = self.prepared, 0.0
        super().on_fit_start(trainer, *args, **kwargs)
        self.prepared = prepared


class Rate(pl.Callback):
    """Logs `train/images_per_s` between two logged steps, without waiting for the device: a mean over those steps."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.before: tuple[int, float] | None = None  # the step last logged at, and when

    def on_train_batch_end(self, trainer: pl.Trainer, stage: pl.LightningModule, *_: object) -> None:
        step = trainer.global_step
        if step % trainer.log_every_n_steps or (self.before and step == self.before[0]):
            return
        now = time.monotonic()
        if self.before:
            images = (step - self.before[0]) * trainer.accumulate_grad_batches * self.batch_size * trainer.world_size
            stage.log("train/images_per_s", images / (now - self.before[1]))
        self.before = step, now


class TrainedAverage(EMAWeightAveraging):
    """Lightning's moving average, for checkpoints that leave the frozen weights out."""

    def on_load_checkpoint(self, trainer: pl.Trainer, stage: pl.LightningModule, checkpoint: dict) -> None:
        frozen = {k: v for k, v in stage.state_dict().items() if k not in checkpoint["state_dict"]}
        checkpoint["state_dict"] = frozen | checkpoint["state_dict"]
        super().on_load_checkpoint(trainer, stage, checkpoint)


def build_trainer(config: TrainerConfig, output: Path) -> pl.Trainer:
    """A Lightning trainer that logs to `output` and keeps `checkpoints/best.ckpt` and `last.ckpt` there."""
    checkpoints = output / "checkpoints"
    timer = [] if config.hours is None else [RunTimer(timedelta(hours=config.hours))]
    # a tenth of the updates, each worth ten
    decay = None if config.ema_decay is None else config.ema_decay**EMA_EVERY
    average = [] if decay is None else [TrainedAverage(decay=decay, update_every_n_steps=EMA_EVERY)]
    callbacks = [
        *timer,  # before the checkpoint, which is to see that time is up
        *average,  # before it too: it is to hold the average with this step
        LastCheckpoint(checkpoints, config.checkpoint_every),
        ModelCheckpoint(checkpoints, "best", monitor="validation/loss", save_top_k=1, enable_version_counter=False),
        LearningRateMonitor("step"),
        Rate(config.batch_size),
        ExampleGrid(output / "images"),
    ]
    if config.progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10 if sys.stderr.isatty() else 200))
    logger = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}[config.logger]
    return pl.Trainer(
        default_root_dir=output,
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=config.strategy,
        precision=config.precision,
        max_epochs=config.max_epochs if config.max_epochs is not None else -1,
        max_steps=config.max_steps if config.max_steps is not None else -1,
        accumulate_grad_batches=config.accumulate_grad_batches,
        val_check_interval=config.validate_every * config.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        limit_val_batches=config.validation_batches,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every,
        logger=logger(output, name="logs"),  # a folder version_<n> for each start: a resume keeps the earlier curve
        callbacks=callbacks,
        enable_progress_bar=config.progress_bar,
        enable_model_summary=config.progress_bar,
        use_distributed_sampler=False,  # PhotoModule's sampler shares the photos out itself
    )


def resume_path(resume: str | None, output: Path) -> Path | None:
    """The Lightning checkpoint to go on from: `last` in the run folder, or a path.

    Raises:
        FileExistsError: no resume asked for, but `output` already holds a run.
        FileNotFoundError: nothing there to resume from.
    """
    if resume is None:
        if (output / "checkpoints").exists() or (output / "model").exists():
            raise FileExistsError(f"{output}: holds a run already; go on with --resume last, or choose another output=")
        return None
    path = output / "checkpoints" / "last.ckpt" if resume == "last" else Path(resume)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from; start without --resume")
    return path


def _data_of(config: StageConfig, stage: pl.LightningModule, photos: dict[str, PhotoDataset]) -> PhotoModule:
    """What a stage is trained on: photos read by workers, or held in its device's memory."""
    options = config.trainer
    if config.data.resident:
        from lcad.data.packed import open_packed
        from lcad.data.resident import ResidentModule, ResidentPhotos

        if not config.data.packed:
            raise ValueError("data.resident needs data.packed: folders that scripts/pack_data.py has made")
        packed = open_packed([Path(folder) for folder in config.data.packed])
        captioned = isinstance(config, LatentStageConfig)
        of_localizer = isinstance(config, LatentStageConfig) and config.latent.train_localizer
        span = "noun" if of_localizer else None
        train, validation = (
            ResidentPhotos(stage, packed, split, config.data, options.seed, captioned, of_localizer, span)
            for split in ("train", "val")
        )
        return ResidentModule(train, validation, options.batch_size, 0, options.seed)
    training = stage.training_data(photos["train"])
    return PhotoModule(training, photos["val"], options.batch_size, config.data.num_workers, options.seed)


def _open_photos(config: StageConfig, pipeline: LCADPipeline) -> dict[str, PhotoDataset]:
    """The photos of the config's folders; none if they come from a pack."""
    if config.data.resident:
        return {}
    with_masks = isinstance(config, LatentStageConfig) and (
        config.latent.instance_sampling_probability or config.latent.localizer_weight
    )
    tokenizer = pipeline.tokenizer if with_masks else None
    return open_photos(config.data, pipeline.config.image_size, config.trainer.seed, tokenizer)


def train(
    config: StageConfig, stage_class: type[pl.LightningModule], stage_config: object, resume: str | None
) -> Path | None:
    """Run a training stage to its end and write the checkpoint folder `<output>/model`.

    Returns:
        The folder; None on all devices but the first.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: what a user can mend; messages are one line.
    """
    started, output = time.monotonic(), Path(config.output)
    checkpoint = resume_path(resume, output)
    pl.seed_everything(config.trainer.seed, workers=True, verbose=False)
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*LeafSpec.*|.*dataloader is not resumable.*")
    pipeline = start_pipeline(config.init, config.model, config.trainer.seed, config.init_parts)
    if not getattr(stage_config, "keeps_colors", False):
        pipeline.localizer = pipeline.lcm_lora = None  # made for the weights as they are, which now change
    photos = _open_photos(config, pipeline)
    stage = stage_class(pipeline, stage_config, config.trainer)
    if config.trainer.channels_last:
        stage = stage.to(memory_format=torch.channels_last)
    options = config.trainer
    trainer = build_trainer(options, output)
    data = _data_of(config, stage.to(trainer.strategy.root_device), photos)
    for callback in trainer.callbacks:
        if isinstance(callback, RunTimer):
            callback.prepared = time.monotonic() - started
    on_cpu = trainer.strategy.root_device.type == "cpu"
    # flash attention on the CPU has a slow backward pass: a fifth of the mini model's step
    with sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
        trainer.fit(stage, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    if not trainer.is_global_zero:
        return None
    folder = output / "model"
    stage.pipeline.to("cpu", DTYPES[config.save_dtype]).save_pretrained(folder)
    return folder
