"""Typed configs: every committed one loads, mistakes name the key."""

from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from lcad.color import HINT_SCALES
from lcad.config import (
    AnyStageConfig,
    AutoencoderConfig,
    ConfigError,
    DataConfig,
    DistillationStageConfig,
    LatentConfig,
    LatentStageConfig,
    ModelConfig,
    PixelConfig,
    PixelStageConfig,
    TextConfig,
    TrainerConfig,
    UNetConfig,
    load_config,
)
from lcad.config_keys import RENAMED, allowed_values
from lcad.models.channel_extended_unet import SITES
from lcad.models.perceptual import BACKBONES
from lcad.training.artifact_loss import ARTIFACT_MAPS
from ldm.devices import DTYPES
from ldm.schedulers import PREDICTIONS

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def schema_of(path: Path):
    if path.stem.endswith("distillation"):
        return DistillationStageConfig
    return PixelStageConfig if path.stem.endswith(("pixel", "autoencoder")) else LatentStageConfig


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_configs_load(path, capsys):
    config = load_config(schema_of(path), path)
    assert config.output.startswith("runs/") and not capsys.readouterr().err


@pytest.mark.parametrize("name", ["coco_stuff", "multi_instance"])
def test_full_size_configs_have_the_papers_settings(name):
    pixel = load_config(PixelStageConfig, CONFIGS[0].parent / f"{name}_pixel.yaml")
    assert (pixel.pixel.learning_rate, pixel.trainer.batch_size, pixel.trainer.max_epochs) == (1e-6, 8, 10)
    assert (pixel.pixel.adversarial_weight, pixel.pixel.perceptual_weight, pixel.pixel.artifact_map) == (
        1.0,
        0.5,
        "paper",
    )
    latent = load_config(LatentStageConfig, CONFIGS[0].parent / f"{name}_latent.yaml")
    assert (latent.latent.learning_rate, latent.trainer.max_epochs) == (5e-5, 50)
    assert (latent.data.scarce_probability, latent.data.caption_dropout) == (0.3, 0.1)


@pytest.mark.parametrize(
    "text, overrides, named",
    [
        ("pixel: {learning_rat: 1}", [], "pixel.learning_rat"),
        ("trainer: {batch_size: many}", [], "trainer.batch_size"),
        ("model: {unet: {wings: 2}}", [], "model.unet.wings"),
        ("{}", ["trainer.batch_sise=1"], "trainer.batch_sise"),
        ("{}", ["seed"], "key=value"),
        ("a: [", [], "x.yaml"),
        ("- 1", [], "x.yaml"),
        ("output: o", [], "data.folder"),
    ],
)
def test_mistakes_name_the_key(tmp_path, text, overrides, named):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(PixelStageConfig, path, overrides)
    assert named in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override, said",
    [
        ("trainer.max_steps=-5", "trainer.max_steps: got -5; it must be 1 or more"),
        ("trainer.batch_size=0", "trainer.batch_size: got 0; it must be 1 or more"),
        ("trainer.hours=0", "trainer.hours: got 0.0; it must be above 0"),
        ("trainer.ema_decay=1.5", "trainer.ema_decay: got 1.5; it must be from 0 to 1"),
        ("trainer.logger=paper", "trainer.logger: got 'paper'; allowed: csv, tensorboard"),
        ("latent.learning_rate=nan", "latent.learning_rate: got nan; it must be 0.0 or more"),
        ("latent.guidance_scale=inf", "latent.guidance_scale: got inf; it must be 0.0 or more"),
        ("latent.sites=everywhere", "latent.sites: got 'everywhere'; allowed: none, conv_in, down_blocks"),
        ("latent.train_localizer=true", "latent.train_localizer: it learns by latent.localizer_weight"),
        ("data.caption_dropout=7", "data.caption_dropout: got 7.0; it must be from 0 to 1"),
        ("data.scarce_probability=-0.1", "data.scarce_probability: got -0.1; it must be from 0 to 1"),
        ("data.zoom=0.5", "data.zoom: got 0.5; it must be 1 or more"),
        ("data.more=[{folder: f, repeat: 0}]", "data.more.repeat: got 0; it must be 1 or more"),
        ("data.crop=left", "data.crop: got 'left'; allowed: random, center"),
        ("save_dtype=int8", "save_dtype: got 'int8'; allowed: float32, float16, bfloat16"),
        ("model.autoencoder.block_out_channels=[8,0]", "model.autoencoder.block_out_channels: got 0; it must be 1"),
        ("model.hint_scale=other", "model.hint_scale: got 'other'; allowed: unit, release"),
    ],
)
def test_values_that_are_not_allowed_are_refused(tmp_path, override, said):
    path = tmp_path / "x.yaml"
    path.write_text("output: o\ndata: {folder: f}")
    with pytest.raises(ConfigError) as error:
        load_config(LatentStageConfig, path, [override])
    assert f"{path}: {said}" in str(error.value)


def test_a_decay_needs_a_rate_to_come_from():
    with pytest.raises(ValueError, match="pixel.final_learning_rate: needs a learning_rate above 0"):
        PixelConfig(learning_rate=0, final_learning_rate=1e-6)


def test_allowed_names_are_those_there_are():
    assert allowed_values(ModelConfig)["hint_scale"] == tuple(HINT_SCALES)
    latent, pixel = allowed_values(LatentConfig), allowed_values(PixelConfig)
    assert allowed_values(UNetConfig)["sites"] == latent["sites"] == tuple(SITES)
    assert latent["prediction_type"] == tuple(PREDICTIONS)
    assert pixel["artifact_map"] == (*ARTIFACT_MAPS, "none")
    assert pixel["perceptual_net"] == tuple(BACKBONES)
    assert allowed_values(LatentStageConfig)["save_dtype"] == tuple(DTYPES)


def test_every_number_is_held_against_a_range():
    """A new key without one would be taken as it comes."""
    for section in (AutoencoderConfig, UNetConfig, TextConfig, ModelConfig, DataConfig, TrainerConfig, PixelConfig,
                    LatentConfig):  # fmt: skip
        hints = get_type_hints(section)
        numbers = {f.name for f in fields(section) if {int, float} & {hints[f.name], *get_args(hints[f.name])}}
        assert numbers <= allowed_values(section).keys(), section


def test_overrides_win(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("output: a\ndata: {folder: f}\ntrainer: {batch_size: 4}")
    config = load_config(PixelStageConfig, path, ["trainer.batch_size=2", "output=b", "pixel.perceptual_weight=0"])
    assert (config.trainer.batch_size, config.output, config.pixel.perceptual_weight) == (2, "b", 0.0)


SECTIONS = {"data": DataConfig, "trainer": TrainerConfig, "pixel": PixelConfig, "latent": LatentConfig}


@pytest.mark.parametrize("old", RENAMED)
def test_keys_of_version_0_1_are_taken_with_a_line_that_says_the_new_name(tmp_path, capsys, old):
    """In a file and as an override; under both names at once they are refused."""
    (section, name), new = old.split("."), RENAMED[old].split(".")[1]
    default = getattr(SECTIONS[section], new)
    value = {"prediction_type": "v_prediction", "train_localizer": False}.get(new, 1 if default != 1 else 0.5)
    value = 3 if new in ("accumulate_grad_batches", "num_inference_steps") else value
    path = tmp_path / "x.yaml"

    def load(text: str, *overrides: str) -> object:
        path.write_text(f"output: o\ndata:\n  folder: f\n{text}")
        loaded = load_config(AnyStageConfig, path, overrides)
        return getattr(getattr(loaded, section), new)

    def in_file(*names: str) -> str:
        lines = "".join(f"  {name}: {value}\n" for name in names)
        return lines if section == "data" else f"{section}:\n{lines}"

    said = f"{old} is now {RENAMED[old]}\n"
    assert load(in_file(name)) == value and capsys.readouterr().err == f"{path}: {said}"
    assert load("", f"{old}={value}") == value and capsys.readouterr().err == f"overrides: {said}"
    assert load(in_file(new), f"{RENAMED[old]}={value}") == value and not capsys.readouterr().err
    refused = f"{old}: is now {RENAMED[old]}, which is given, too"
    with pytest.raises(ConfigError, match=refused):
        load(in_file(name, new))
    with pytest.raises(ConfigError, match=refused):
        load("", f"{old}={value}", f"{RENAMED[old]}={value}")


def test_an_override_by_its_new_name_wins_over_a_file_with_the_old(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("output: o\ndata: {folder: f, workers: 3}\ntrainer: {steps: 4}")
    config = load_config(PixelStageConfig, path, ["trainer.max_steps=5", "data.workers=1"])
    assert (config.trainer.max_steps, config.data.num_workers) == (5, 1)
