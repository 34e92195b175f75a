"""Typed configs: every committed one loads, mistakes name the key."""

from pathlib import Path

import pytest

from lcad.config import ConfigError, LatentStageConfig, PixelStageConfig, load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def schema_of(path: Path):
    return PixelStageConfig if path.stem.endswith(("pixel", "autoencoder")) else LatentStageConfig


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_configs_load(path):
    config = load_config(schema_of(path), path)
    assert config.output.startswith("runs/")


@pytest.mark.parametrize("name", ["coco_stuff", "multi_instance"])
def test_full_size_configs_have_the_papers_settings(name):
    pixel = load_config(PixelStageConfig, CONFIGS[0].parent / f"{name}_pixel.yaml")
    assert (pixel.pixel.learning_rate, pixel.trainer.batch_size, pixel.trainer.epochs) == (1e-6, 8, 10)
    assert (pixel.pixel.adversarial, pixel.pixel.perceptual, pixel.pixel.artifact_map) == (1.0, 0.5, "paper")
    latent = load_config(LatentStageConfig, CONFIGS[0].parent / f"{name}_latent.yaml")
    assert (latent.latent.learning_rate, latent.trainer.epochs) == (5e-5, 50)
    assert (latent.data.scarce, latent.data.drop) == (0.3, 0.1)


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


def test_overrides_win(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("output: a\ndata: {folder: f}\ntrainer: {batch_size: 4}")
    config = load_config(PixelStageConfig, path, ["trainer.batch_size=2", "output=b", "pixel.perceptual=0"])
    assert (config.trainer.batch_size, config.output, config.pixel.perceptual) == (2, "b", 0.0)
