"""The data set of training: repeatable keys, splits, bad files, and a cache that says the same."""

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from lcad.config import DataConfig, LabelsConfig, LatentConfig, TrainerConfig
from lcad.data.cache import CachedDataset
from lcad.data.datamodule import PhotoModule, ResumableSampler
from lcad.data.datasets import open_photos
from lcad.data.photos import collate, take_instances
from lcad.data.training_masks import instances_of_label_maps
from lcad.io.images import ImageError
from lcad.pipeline import LCADPipeline
from lcad.training.latent_stage import LatentStage
from lcad.training.localizer_stage import LocalizerStage
from tests.conftest import random_photo


def cache_of(stage: LatentStage, photos, folder: Path) -> CachedDataset:
    stage.config = replace(stage.config, cache=str(folder))
    return stage.training_data(photos)


def opened(folder, **options):
    return open_photos(DataConfig(folder=str(folder), validation=2, **options), size=32, seed=0)


def test_items_depend_on_the_key_alone(photo_folder):
    photos = opened(photo_folder)["train"]
    assert len(photos) == 6
    again = opened(photo_folder)["train"]
    for key in (0, 5, 17):
        one, two = photos[key], again[key]
        assert one["image"].shape == (3, 32, 32) and torch.equal(one["image"], two["image"])
        assert one["caption"] == two["caption"] and one["index"] == key % 6
    different_epochs = [photos[6 * epoch]["image"] for epoch in range(4)]
    assert any(not torch.equal(different_epochs[0], image) for image in different_epochs[1:])


def test_splits_file(photo_folder):
    splits = {f"p{i}.png": "val" if i < 3 else "test" if i < 5 else "train" for i in range(8)}
    path = photo_folder / "splits.json"
    path.write_text(json.dumps(splits))
    parts = opened(photo_folder, splits=str(path))
    assert [p.stem for p in parts["train"].photos] == ["p5", "p6", "p7"]
    assert [p.stem for p in parts["val"].photos] == ["p0", "p1"]
    path.write_text('{"p0.png": "holiday"}')
    with pytest.raises(ValueError, match="train | val | test"):
        opened(photo_folder, splits=str(path))


def test_bad_photos_and_absent_names_are_warned_of(photo_folder):
    (photo_folder / "images" / "p0.png").write_bytes(b"")
    captions = json.loads((photo_folder / "captions.json").read_text()) | {"ghost.png": ["x"]}
    (photo_folder / "captions.json").write_text(json.dumps(captions))
    with pytest.warns(UserWarning, match="ghost.png"):
        photos = opened(photo_folder)["train"]
    with pytest.warns(UserWarning, match="p0.png.*empty"):
        assert photos[0]["image"].shape == (3, 32, 32)


def test_a_bad_photo_steps_to_the_whole_next_item(photo_folder, tiny_pipeline, tiny_checkpoint, tmp_path):
    """With its caption and masks, from the cache too; a file is warned of once."""
    shutil.copytree(photo_folder / "masks" / "p0", photo_folder / "masks" / "p3")
    random_photo(3, 80, 30).save(photo_folder / "images" / "p3.png")
    for mask in (photo_folder / "masks" / "p3").iterdir():
        Image.open(mask).resize((80, 30), Image.Resampling.NEAREST).save(mask)
    for i in (0, 2, 7):
        (photo_folder / "images" / f"p{i}.png").write_bytes(b"no photo")
    options = {
        "masks": str(photo_folder / "masks"),
        "validation": 0,
        "crop": "center",
        "scarce_probability": 0,
        "caption_dropout": 0,
    }
    photos = open_photos(DataConfig(str(photo_folder), **options), 32, 0, tiny_pipeline.tokenizer)["train"]
    stage = LatentStage(LCADPipeline.from_pretrained(tiny_checkpoint), LatentConfig(), TrainerConfig())
    cached = cache_of(stage, photos, tmp_path / "cache")
    with pytest.warns(UserWarning, match="p2.png.*the next photo is used instead") as caught:
        items = [photos[8 * epoch + 2] for epoch in range(3)]
    assert len(caught) == 1
    from_cache = [cached[8 * epoch + 2] for epoch in range(3)]
    for epoch, found in enumerate(items):
        wanted = photos[8 * epoch + 3]
        assert torch.equal(found["image"], wanted["image"]) and found["index"] == 3 and "cup 3" in found["caption"]
        assert torch.equal(found["instances"].masks, wanted["instances"].masks)
        wanted, found = cached[8 * epoch + 3], from_cache[epoch]
        assert torch.equal(found["moments"], wanted["moments"]) and found["caption"] == wanted["caption"]
        expected = stage.prepare(photos[8 * epoch + 3]["image"][None])["moments"][0]
        assert torch.allclose(found["moments"], expected, atol=2e-2)
    with pytest.warns(UserWarning):
        assert photos[7]["index"] == 1, "after the last comes the first of the same epoch"
    assert cache_of(stage, photos, tmp_path / "cache").unreadable.keys() == {"0", "2", "7"}


def test_a_folder_without_a_photo_that_can_be_read_is_an_error(photo_folder):
    for file in (photo_folder / "images").iterdir():
        file.write_bytes(b"no photo")
    with pytest.warns(UserWarning), pytest.raises(ImageError, match="no photo of the data set can be read"):
        opened(photo_folder)["train"][0]


def test_sampler_shares_out_and_starts_inside_an_epoch():
    dataset = list(range(10))
    parts = [ResumableSampler(dataset, 2, rank, seed=0) for rank in range(2)]
    for part in parts:
        part.set_epoch(3)
    keys = [list(part) for part in parts]
    assert sorted(key - 30 for key in keys[0] + keys[1]) == dataset
    parts[0].resumed = (3, 2)
    assert list(parts[0]) == list(parts[0]) == keys[0][2:], "however often the epoch is started"
    parts[0].set_epoch(4)
    assert len(list(parts[0])) == 5, "only the epoch that was broken off is cut"


class Keys(torch.utils.data.Dataset):
    """Seven items that are their keys."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, key: int) -> dict:
        return {"key": key, "instances": None}


class Recorder(pl.LightningModule):
    """Notes the keys it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight, self.keys = torch.nn.Parameter(torch.zeros(1)), []

    def training_step(self, batch: dict, _index: int) -> torch.Tensor:
        self.keys.append(batch["key"].tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEach(pl.Callback):
    """Writes <step>.ckpt after every batch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_every_batch_goes_on_with_the_same_photos(tmp_path, workers):
    """Three batches an epoch, over three epochs: inside each, at its end, and where the last begins."""

    def trained(resume: Path | None = None) -> list[list[int]]:
        stage = Recorder()
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        callbacks = [] if resume else [SaveEach(tmp_path)]
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=3, callbacks=callbacks, enable_checkpointing=False,
            use_distributed_sampler=False, **quiet,
        )  # fmt: skip
        data = PhotoModule(Keys(), Keys(), 2, workers, seed=5)
        trainer.fit(stage, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
        return stage.keys

    whole = trained()
    assert len(whole) == 9 and [key // 7 for batch in whole for key in batch] == [0] * 6 + [1] * 6 + [2] * 6
    for done in range(1, 9):
        assert trained(tmp_path / f"{done}.ckpt") == whole[done:], done


@pytest.mark.parametrize("text_trained", [False, True])
def test_cached_items_are_those_of_the_photos(photo_folder, tiny_checkpoint, tmp_path, text_trained):
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint)
    trainable = ["unet.*", "text_encoder.*"] if text_trained else ["unet.*"]
    stage = LatentStage(pipeline, LatentConfig(trainable=trainable), TrainerConfig())
    photos = opened(photo_folder, crop="center")["train"]
    cached = cache_of(stage, photos, tmp_path / "cache")
    for key in (0, 3, 10, 20):
        plain, item = photos[key], cached[key]
        assert item["caption"] == plain["caption"] and item["mirrored"] == plain["mirrored"]
        expected = stage.prepare(plain["image"][None])
        for name, value in expected.items():
            assert torch.allclose(item[name], value[0], atol=2e-2), name  # float16 on disk
        assert ("text" in item) is not text_trained
        if not text_trained:
            assert torch.allclose(item["text"], stage._encode_text([plain["caption"]])[0], atol=1e-2)
    folders = list((tmp_path / "cache").iterdir())
    cache_of(stage, photos, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == folders  # found again, not built again
    pipeline.vae.encoder.conv_in.weight.data += 0.1
    cache_of(stage, photos, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2  # other weights, other cache
    looking = LatentConfig(trainable=trainable, train_localizer=True, localizer_weight=1.0)
    cached = cache_of(LocalizerStage(pipeline, looking, TrainerConfig()), photos, tmp_path / "cache")
    assert not cached[0]["moments"].any() and len(list((tmp_path / "cache").iterdir())) == 3


def test_another_photo_of_the_same_name_and_size_has_another_cache(photo_folder, tiny_checkpoint, tmp_path):
    for i in (0, 1):  # of which both files have as many bytes
        Image.new("RGB", (48, 40), (200, 30 + i, 30)).save(photo_folder / "images" / f"p{i}.bmp")
    stage = LatentStage(LCADPipeline.from_pretrained(tiny_checkpoint), LatentConfig(), TrainerConfig())
    photos = opened(photo_folder, crop="center", flip=False)["train"]
    cache_of(stage, photos, tmp_path / "cache")
    one, two = (photo_folder / "images" / f"p{i}.bmp" for i in (0, 1))
    times = one.stat()
    one.write_bytes(two.read_bytes())
    os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))
    cache_of(stage, photos, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_photo_that_repeats_is_cached_once(photo_folder, tiny_checkpoint, tmp_path):
    stage = LatentStage(LCADPipeline.from_pretrained(tiny_checkpoint), LatentConfig(), TrainerConfig())
    photos = opened(photo_folder, crop="center", repeat=3)["train"]
    cached = cache_of(stage, photos, tmp_path / "cache")
    assert len(cached) == 18 and cached.arrays["moments"].shape[1] == 6
    for key in (1, 7, 16):
        expected = stage.prepare(photos[key]["image"][None])["moments"][0]
        assert torch.allclose(cached[key]["moments"], expected, atol=2e-2)


def test_cache_needs_fixed_crops(photo_folder, tiny_checkpoint, tmp_path):
    stage = LatentStage(LCADPipeline.from_pretrained(tiny_checkpoint), LatentConfig(), TrainerConfig())
    with pytest.raises(ValueError, match="data.crop=center"):
        cache_of(stage, opened(photo_folder)["train"], tmp_path)


def test_captions_of_all_formats_give_no_warning(photo_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(photo_folder)


def test_masks_come_with_the_captions_that_name_their_objects(photo_folder, tiny_pipeline):
    """Two masks for "the red cup, the blue cup"; none for a caption that is dropped, or names fewer objects."""

    def training(**options):
        config = DataConfig(
            str(photo_folder),
            masks=str(photo_folder / "masks"),
            validation=0,
            crop="center",
            caption_dropout=0,
            **options,
        )
        return open_photos(config, 32, 0, tiny_pipeline.tokenizer)["train"]

    photos = training(scarce_probability=0)
    items = [photos[8 * epoch] for epoch in range(12)]
    assert all(photos[8 * epoch + 1]["instances"] is None for epoch in range(12)), "the second photo has no masks"
    assert {item["mirrored"] for item in items} == {0, 1}
    for item in items:
        first, second = item["instances"].phrases
        assert first.text in ("the red cup 0", "red cup") and second.text in ("the blue cup", "blue cup")
        left, right = item["instances"].masks.flip(0) if item["mirrored"] else item["instances"].masks
        assert left.shape == (32, 32) and left[:, :14].min() == 1 == right[:, 18:].min() and left[:, 18:].max() == 0
    assert len({item["instances"].phrases[0].text for item in items}) == 2
    assert all(training(scarce_probability=1)[8 * epoch]["instances"] is None for epoch in range(4))
    photos.captions[photos.photos[0]] = ["a red cup"]
    assert photos[0]["instances"] is None


def test_instances_of_a_batch_travel_as_one_tensor(photo_folder, tiny_pipeline):
    config = DataConfig(
        str(photo_folder),
        masks=str(photo_folder / "masks"),
        validation=0,
        crop="center",
        caption_dropout=0,
        scarce_probability=0,
    )
    photos = open_photos(config, 32, 0, tiny_pipeline.tokenizer)["train"]
    for keys in ([1, 0, 8, 2], [1, 2]):
        items = [photos[key] for key in keys]
        batch = collate(items)
        assert all(isinstance(batch[key], torch.Tensor) for key in ("image", "masks", "index"))
        taken = take_instances(batch)
        assert not {"masks", "phrases", "instances"} & batch.keys()
        for item, own in zip(items, taken, strict=True):
            expected = item["instances"]
            assert (own is None) == (expected is None)
            assert own is None or (own.phrases == expected.phrases and torch.equal(own.masks, expected.masks))


def test_masks_need_a_folder(photo_folder, tiny_pipeline):
    config = DataConfig(str(photo_folder), validation=2, masks="nowhere")
    with pytest.raises(FileNotFoundError, match="data.masks: nowhere: no such folder"):
        open_photos(config, 32, 0, tiny_pipeline.tokenizer)


def test_masks_are_cut_as_their_photos(photo_folder, tiny_pipeline):
    """Random crops of a photo that is white where its first object is."""
    white = np.zeros((40, 48, 3), np.uint8)
    white[:, :24] = 255
    Image.fromarray(white).save(photo_folder / "images" / "p0.png")
    config = DataConfig(
        str(photo_folder),
        masks=str(photo_folder / "masks"),
        validation=0,
        caption_dropout=0,
        scarce_probability=0,
        zoom=1.6,
    )
    photos = open_photos(config, 32, 0, tiny_pipeline.tokenizer)["train"]
    items = [photos[8 * epoch] for epoch in range(20)]
    for item in items:
        first = item["instances"].masks[0]
        assert torch.allclose(first, item["image"][0], atol=0.02)
    assert len({item["image"][0].sum().round().item() for item in items}) > 10, "the crops differ"


def test_a_phrase_has_the_label_it_ends_with(tmp_path, tiny_pipeline):
    labels = np.array([[1, 2], [3, 0]], np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(labels).save(tmp_path / "p.png")
    classes = {1: ["chair"], 2: ["swivel chair", "chair"], 3: ["person", "man"]}
    find = instances_of_label_maps({"p": tmp_path / "p.png"}, classes, tiny_pipeline.tokenizer)

    def found(caption: str) -> dict[str, list[int]]:
        masks = find(Path("p.jpg"), np.zeros(()), caption, np.random.default_rng(0))
        pairs = zip(masks.phrases, masks.masks, strict=True) if masks else ()
        return {phrase.text: sorted(set(labels[mask > 0].tolist())) for phrase, mask in pairs}

    assert found("a black swivel chair, two brown chairs") == {"black swivel chair": [2], "brown chairs": [1, 2]}
    assert found("A Red Man beside a green armchair") == {"Red Man": [3]}, "an armchair is not a chair"
    assert found("a yellow cup") == {}


def test_label_maps_are_masks_of_the_captions_made_of_them(photo_folder, tiny_pipeline):
    (photo_folder / "labels").mkdir()
    for i in range(8):
        labels = np.zeros((40, 48), np.uint8)
        labels[:, :24], labels[:, 24:] = 1, 2
        Image.fromarray(labels).save(photo_folder / "labels" / f"p{i}.png")
        two_colors = np.where(labels[..., None] == 1, (40, 90, 220), (40, 140, 50)).astype(np.uint8)
        Image.fromarray(two_colors).save(photo_folder / "images" / f"p{i}.png")
    (photo_folder / "classes.txt").write_text("1 sky\n2 lawn")
    options = {"label_maps": str(photo_folder / "labels"), "label_names": str(photo_folder / "classes.txt")}
    config = DataConfig(
        str(photo_folder), caption_sources=["label_maps", "file"], validation=0, crop="center", **options
    )
    photos = open_photos(config, 32, 0, tiny_pipeline.tokenizer)["train"]
    seen = set()
    for key in range(8 * 12):
        item = photos[key]
        found, named = item["instances"], [word for word in ("sky", "lawn") if word in item["caption"]]
        assert (found is not None) == bool(named)
        for phrase, mask in zip(*(found.phrases, found.masks) if found else ([], []), strict=True):
            left = "sky" in phrase.text
            seen.add((left, len(found.phrases)))
            mask = mask.flip(-1) if item["mirrored"] else mask
            assert mask[:, :14].min() == left and mask[:, 18:].min() == (not left)
    assert seen == {(True, 1), (False, 1), (True, 2), (False, 2)}
    assert open_photos(config, 32, 0)["train"][0]["instances"] is None, "without a tokenizer no masks"


def test_names_for_masks_alone(photo_folder, tiny_pipeline):
    """A man has masks where a file's caption names him, and no colour; a photo's first label set has its masks."""
    captions = {"p0.png": ["a tall blue man"], "p1.png": ["a red man"], "p2.png": ["two dogs"]}
    (photo_folder / "captions.json").write_text(json.dumps(captions))
    for name, stems in (("voc", ["p0", "p2", "p3"]), ("ade", ["p0", "p1"])):
        (photo_folder / name).mkdir()
        for stem in stems:
            Image.fromarray(np.full((40, 48), 1 + (stem > "p1"), np.uint8)).save(photo_folder / name / f"{stem}.png")
            Image.new("RGB", (48, 40), (40, 90, 220)).save(photo_folder / "images" / f"{stem}.png")
    (photo_folder / "things.txt").write_text("2 dog")
    (photo_folder / "all.txt").write_text("1 man\n2 dog")
    (photo_folder / "ade.txt").write_text("1 wall")
    voc = LabelsConfig(str(photo_folder / "voc"), str(photo_folder / "things.txt"), str(photo_folder / "all.txt"), True)
    ade = LabelsConfig(str(photo_folder / "ade"), str(photo_folder / "ade.txt"))
    sources = ["file", "label_maps"]
    config = DataConfig(
        str(photo_folder),
        caption_sources=sources,
        labels=[voc, ade],
        caption_dropout=0,
        scarce_probability=0,
        validation=0,
    )
    photos = open_photos(config, 32, 0, tiny_pipeline.tokenizer)["train"]
    found = [photos.captions[photo] for photo in photos.photos[:4]]
    assert found[0] == ["a tall blue man", "the blue wall"] and found[1] == ["a red man", "the blue wall"]
    assert found[2] == ["two dogs", "the blue dog"] and found[3] == [], "no caption says that there is a dog"
    photos.captions[photos.photos[0]] = photos.captions[photos.photos[1]] = ["a red man"]
    first, second = photos[0]["instances"], photos[1]["instances"]
    assert [phrase.text for phrase in first.phrases] == ["red man"] and first.masks.min() == 1 and second is None
