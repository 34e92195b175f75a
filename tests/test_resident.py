"""Training data in the device's memory, and what is drawn of them; the teacher; compiled steps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.config import DataConfig, LatentConfig, PixelConfig, TrainerConfig
from lcad.data.build.packing import pack
from lcad.data.datasets import open_photos
from lcad.data.packed import EMPTY_ROW, SCARCE_ROW, dense_tokens, open_packed
from lcad.data.resident import ResidentPhotos
from lcad.instance_sampling import LogitTargets
from lcad.io.images import to_tensor
from lcad.masks.types import InstanceMasks
from lcad.text.phrases import Phrase
from lcad.training.attention_supervision import LabelTargets, localization_loss
from lcad.training.latent_stage import LatentStage, _grey
from lcad.training.localizer_stage import LocalizerStage
from lcad.training.pixel_stage import PixelStage
from lcad.training.start import build_pipeline
from lcad.training.teacher import AlignmentHead, Teacher
from ldm.checkpoint import CheckpointError
from ldm.text_encoder import build_tokenizer
from tests.conftest import random_photo, tiny_config, train_on


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataConfig:
    """Six photos of two objects with masks, and four without captions."""
    root = tmp_path_factory.mktemp("data")
    for i in range(10):
        folder = root / ("cups" if i < 6 else "plain") / "images"
        folder.mkdir(parents=True, exist_ok=True)
        random_photo(i, 48, 40).save(folder / f"p{i}.png")
        for k in range(2 if i < 6 else 0):
            mask = np.zeros((40, 48), np.uint8)
            mask[:, 24 * k : 24 * (k + 1)] = 255
            (root / "masks" / f"p{i}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / f"p{i}" / f"{k}.png")
    captions = {f"p{i}.png": ["the red cup on the left, the blue dish", "a nice table"] for i in range(6)}
    (root / "cups" / "captions.json").write_text(json.dumps(captions))
    more = [{"folder": str(root / "plain")}]
    config = DataConfig(
        str(root / "cups"), masks=str(root / "masks"), validation=2, scarce_probability=0, caption_dropout=0, more=[]
    )
    config.more = [type(config)(**more[0], validation=2)]
    return config


@pytest.fixture(scope="module")
def packed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pack(data, folder, build_tokenizer(), {}, 10**6, 0)
    return open_packed(folder)


def stage_of(**options) -> LatentStage:
    torch.manual_seed(0)
    options = {"trainable": ["unet.*", "text_encoder.*"]} | options
    stage = LocalizerStage if options.get("train_localizer") else LatentStage
    return stage(build_pipeline(tiny_config()), LatentConfig(**options), TrainerConfig())


def test_drawn_batches_are_what_the_folders_say(data, packed):
    """Photos as latents, each with a caption of its own in the right orientation, and label maps that fit them."""
    stage = stage_of()
    resident = ResidentPhotos(stage, packed, "train", data)
    photos = open_photos(data, 32, 0, stage.pipeline.tokenizer)["train"]
    assert len(resident) == len(photos) == 6 and len(resident.variants) == 2
    known = {}
    for index in range(len(photos)):
        image = torch.from_numpy(np.asarray(photos.square(index)).copy()).permute(2, 0, 1)[None].float() / 255
        for mirrored in (False, True):
            moments = stage.prepare(image.flip(-1) if mirrored else image)["moments"][0]
            known[index, mirrored] = moments
    both = [dense_tokens(packed, m).tolist() for m in (False, True)]
    tokens = list(zip(*both, strict=True))
    seen = set()
    for epoch in range(12):
        batch = resident.draw(epoch, 0, 6)
        places = set()
        parts = (batch[name] for name in ("moments", "tokens", "labels", "members"))
        for moments, drawn, labels, members in zip(*parts, strict=True):
            (index, mirrored) = min(known, key=lambda key: (known[key] - moments.float()).abs().max())
            assert (known[index, mirrored] - moments.float()).abs().max() < 1e-2
            places.add(index)
            own = packed.captions(int(packed.split("train")[index]))
            rows = [row for row in (*own, SCARCE_ROW) if tokens[row][mirrored] == drawn.tolist()]
            assert rows and (rows[0] == SCARCE_ROW) == (len(own) == 0)
            if len(own) and members.any():
                first = members[members != 0][0].int()  # of the cup, on the left unless mirrored
                inside = first >> labels.int() & 1
                assert inside[:, :4].float().mean() == (0 if mirrored else 1)
                assert inside[:, 4:].float().mean() == (1 if mirrored else 0)
            seen.add((index, mirrored, rows[0]))
        assert len(places) == 6, "each once in an epoch"
    assert len({key[:2] for key in seen}) == 12 and len(seen) > 14


def test_draws_depend_on_seed_epoch_and_number_alone(data, packed):
    resident = ResidentPhotos(stage_of(), packed, "train", data)
    again = ResidentPhotos(stage_of(), packed, "train", data)
    resident.draw(0, 0, 2)
    for name, values in resident.draw(3, 1, 2).items():
        assert torch.equal(values, again.draw(3, 1, 2)[name])
    orders = [torch.cat([resident.draw(epoch, k, 2)["moments"] for k in range(3)]) for epoch in (0, 1)]
    assert not torch.equal(*orders)


def test_captions_are_dropped_and_scarce_as_the_config_says(data, packed):
    data = DataConfig(**{**vars(data), "scarce_probability": 0.5, "caption_dropout": 0.25})
    resident = ResidentPhotos(stage_of(), packed, "train", data)
    rows = torch.cat([resident.draw(epoch, 0, 6)["tokens"] for epoch in range(200)])
    empty, scarce = (torch.from_numpy(dense_tokens(packed)[row]) for row in (EMPTY_ROW, SCARCE_ROW))
    assert (rows == empty).all(1).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert (rows == scarce).all(1).float().mean().item() > 0.46
    validation = ResidentPhotos(stage_of(), packed, "val", data)
    assert not any((validation.draw(0, 0, 4)["tokens"] == empty).all(1))


def test_random_crops_are_further_variants(data, packed):
    data = DataConfig(**{**vars(data), "crops": 2, "zoom": 1.5, "flip": False})
    stage = PixelStage(
        build_pipeline(tiny_config()), PixelConfig(perceptual_weight=0, adversarial_weight=0), TrainerConfig()
    )
    resident = ResidentPhotos(stage, packed, "train", data, captioned=False)
    assert resident.variants == [(0, 0), (1, 0), (2, 0)]
    images = resident.arrays["image"]
    assert images.dtype == torch.uint8 and images.shape[:2] == (3, 6)
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
    drawn = resident.draw(0, 0, 6)
    assert drawn.keys() == {"image"} and drawn["image"].max() <= 1 and drawn["image"].dtype == torch.float32


def test_only_labelled_photos_teach_where_objects_are(data, packed):
    stage = stage_of(train_localizer=True, localizer_weight=1.0)
    resident = ResidentPhotos(stage, packed, "train", data, labelled_only=True, span="noun")
    assert len(resident) == 4, "of six photos two have no captions"
    for epoch in range(5):
        batch = resident.draw(epoch, 0, 4)
        assert (batch["members"] != 0).sum(1).tolist() == [2] * 4, "cup and dish, without their colours"
        assert torch.isfinite(stage._loss(batch, torch.Generator().manual_seed(0)))


def test_targets_from_label_maps_are_those_of_masks(packed, data):
    """The losses and gradients of `LogitTargets` with area masks, at every size."""
    stage = stage_of(instance_sampling_probability=1.0)
    batch = ResidentPhotos(stage, packed, "train", data).draw(0, 0, 6)
    targets = LabelTargets(batch["labels"], batch["members"], batch["share"], 2)
    items = []
    for labels, members, share in zip(batch["labels"], batch["members"], batch["share"], strict=True):
        phrases, masks, token = [], [], 0
        while token < 77:
            length = round(1 / share[token].item()) if share[token] else 1
            if share[token]:
                phrases.append(Phrase("", (0, 0), (token, token + length)))
                masks.append((members[token].int() >> labels.int() & 1).float())
            token += length
        items.append(InstanceMasks(phrases, torch.stack(masks)) if phrases else None)
    assert sum(item is not None for item in items) >= 2
    expected = LogitTargets(items, (8, 8), 2, resize="area")
    for pixels in (64, 16):
        logits = torch.randn(6, 2, pixels, 77, generator=torch.Generator().manual_seed(pixels))
        gradients = (one.gradient(logits, "element") for one in (targets, expected))
        assert torch.allclose(*gradients, atol=1e-6)
        losses = [localization_loss(one, logits).item() for one in (targets, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    none = targets.weighing(batch["share"] * 0)
    assert not none.gradient(logits, "element").any() and targets.gradient(logits, "element").any()


@pytest.mark.slow
def test_a_compiled_step_is_the_same(packed, data):
    """Attention to masks and the alignment included, one graph for all steps."""
    import torch._dynamo as dynamo

    dynamo.reset()
    dynamo.utils.counters.clear()
    eager, compiled = (
        LatentStage(
            build_pipeline(tiny_config()),
            LatentConfig(
                trainable=["unet.*", "text_encoder.*"], instance_sampling_probability=0.5, localizer_weight=1.0
            ),
            TrainerConfig(compile=compile),
        )
        for compile in (False, True)
    )
    resident = ResidentPhotos(eager, packed, "train", data)
    for number in range(3):
        losses = []
        for stage in (eager, compiled):
            stage.zero_grad()
            loss = stage._loss(resident.draw(0, number, 2), torch.Generator().manual_seed(number))
            loss.backward()
            losses.append((loss.item(), stage.unet.conv_in.weight.grad.norm().item()))
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1 and not dynamo.utils.counters["graph_break"]


def test_features_are_drawn_to_the_teachers(squeezenet_file, packed, data):
    """The teacher sees the grey photo and stays as it is; the loss of features that say the same is zero, and falls."""
    options = {"teacher": f"squeezenet1_1={squeezenet_file}", "teacher_node": "features.4", "teacher_weight": 100.0}
    stage = stage_of(**options)
    before = [value.clone() for value in stage.teacher.features.state_dict().values()]
    resident = ResidentPhotos(stage, packed, "train", data)
    assert resident.arrays["teacher"].float().mean((0, 1, 3, 4)).abs().max() < 0.3, "standardised"
    stage.on_fit_start()
    batch = resident.draw(0, 0, 6)
    losses = train_on(stage, batch, 4, 3e-3)
    assert losses[-1] < losses[0] - 25
    assert stage.unet.mid_block.attentions[0].proj_in.weight.grad.abs().max() > 0
    assert all(map(torch.equal, before, stage.teacher.features.state_dict().values()))
    stage.eval()
    assert stage._loss(batch, torch.Generator().manual_seed(0)).item() < 10, "in training alone"
    head = AlignmentHead(4, 3)
    said = head(torch.ones(1, 4, 2, 2)).detach()
    assert head.loss(torch.ones(1, 4, 2, 2), said).item() == pytest.approx(0, abs=1e-5)
    assert head.loss(torch.ones(1, 4, 2, 2), -said).item() == pytest.approx(2, abs=1e-5)


def test_what_is_taught_is_weighed_and_ends_with_the_run(squeezenet_file, monkeypatch):
    stage = stage_of(teacher=f"squeezenet1_1={squeezenet_file}", teacher_node="features.4", teacher_weight=8.0)
    seen = []
    monkeypatch.setattr(stage.head, "loss", lambda *given: seen.append(given) or torch.tensor(0.25))
    stage.on_fit_start()
    batch = {"image": torch.rand(2, 3, 32, 32), "caption": ["a cup", "a dog"]}

    def loss(**more) -> float:
        return stage._loss(batch | more, torch.Generator().manual_seed(0)).item()

    taught, kept = loss(), torch.ones(1)
    assert loss(teacher=kept) == taught and seen[1][1] is kept and len(seen) == 2
    assert torch.equal(seen[0][1], stage.teacher(_grey(batch["image"]))) and seen[0][0].shape == (2, 32, 4, 4)
    stage.on_fit_end()
    assert taught - loss() == pytest.approx(8 * 0.25, abs=1e-4) and len(seen) == 2


def test_the_teacher_is_standardised_by_the_first_photos(squeezenet_file):
    class Photos:
        asked: list[int] = []

        def __len__(self) -> int:
            return 70

        def square(self, index: int) -> Image.Image:
            self.asked.append(index)
            return random_photo(index % 3, 32, 32)

    stage, photos = stage_of(teacher=f"squeezenet1_1={squeezenet_file}", teacher_node="features.4"), Photos()
    assert stage.training_data(photos) is photos and photos.asked == list(range(64))
    features = stage.teacher(_grey(torch.stack([to_tensor(random_photo(index % 3, 32, 32)) for index in range(64)])))
    assert torch.allclose(features.mean((0, 2, 3)), torch.zeros(128), atol=1e-3)
    deviations = features.std((0, 2, 3))
    assert torch.allclose(deviations[deviations > 0.1], torch.tensor(1.0), atol=1e-3)


def test_colours_do_not_reach_the_teacher(squeezenet_file):
    stage = stage_of(teacher=f"squeezenet1_1={squeezenet_file}", teacher_node="features.4")
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept = stage.prepare_resident(image)["teacher"]
    assert torch.allclose(kept.float(), stage.teacher(_grey(_grey(image))).float(), atol=2e-2)


def test_teachers_that_cannot_be(squeezenet_file, tmp_path):
    for given, node, error, message in (
        ("no_such_net", "features.4", ValueError, "latent.teacher: got 'no_such_net'; allowed"),
        (f"squeezenet1_1={squeezenet_file}", "nowhere", ValueError, "'nowhere' is not in squeezenet1_1"),
        (f"squeezenet1_0={squeezenet_file}", "features.4", ValueError, "not the weights of squeezenet1_0"),
        (f"squeezenet1_0={tmp_path / 'gone'}", "features.4", (OSError, CheckpointError), "gone"),
    ):
        with pytest.raises(error, match=message):
            Teacher(given, node)
    with pytest.raises(ValueError, match="latent.teacher_site: 'conv_in' is no transformer"):
        stage_of(teacher=f"squeezenet1_1={squeezenet_file}", teacher_node="features.4", teacher_site="conv_in")
