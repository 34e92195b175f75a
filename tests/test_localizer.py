"""Weights for finding objects: read strictly, used to find objects alone, and never in the way of colours."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.attention import phrase_attention
from lcad.models.localizer import FILE, PARTS
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import find_phrases
from ldm.checkpoint import CheckpointError
from tests.conftest import random_photo


@pytest.fixture
def learnt(tiny_pipeline) -> dict[str, torch.Tensor]:
    """Other weights for the queries of cross-attention and for one layer of the text encoder."""
    generator, own = torch.Generator().manual_seed(0), {}
    for part in PARTS:
        for name, value in getattr(tiny_pipeline, part).named_parameters():
            if name.endswith(("attn2.to_q.weight", "fc1.weight")):
                own[f"{part}.{name}"] = torch.randn(value.shape, generator=generator)
    assert {name.split(".")[0] for name in own} == set(PARTS)
    return own


def with_localizer(pipeline: LCADPipeline, weights: dict[str, torch.Tensor]) -> LCADPipeline:
    own = pipeline.with_parts({})
    own.localizer = weights
    return own


def test_a_folder_keeps_them_and_looks_with_them(tiny_pipeline, learnt, tmp_path):
    pipeline = with_localizer(tiny_pipeline, learnt)
    pipeline.save_pretrained(tmp_path)
    loaded, photo, caption = LCADPipeline.from_pretrained(tmp_path), random_photo(0), "the red cup, the blue dish"
    phrases = find_phrases(caption, loaded.tokenizer)
    plain, expected, found = (
        phrase_attention(model, PreparedPhoto.of(photo), caption, phrases)
        for model in (loaded, pipeline.with_localizer(), loaded.with_localizer())
    )
    assert torch.equal(expected, found) and not torch.allclose(found, plain, atol=1e-3)
    assert torch.equal(plain, phrase_attention(tiny_pipeline, PreparedPhoto.of(photo), caption, phrases)), (
        "its own weights stay"
    )
    assert loaded.with_localizer().config.image_size == loaded.config.image_size
    assert tiny_pipeline.with_localizer() is tiny_pipeline, "without any it looks as it is"


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_its_own(tiny_pipeline, learnt, part):
    own = {name: value for name, value in learnt.items() if name.startswith(part)}
    changed = with_localizer(tiny_pipeline, own).with_localizer()
    for other in PARTS:
        before, after = (getattr(model, other).state_dict() for model in (tiny_pipeline, changed))
        differing = {f"{other}.{name}" for name in before if not torch.equal(before[name], after[name])}
        assert differing == (set(own) if other == part else set())


def misshape(weights):
    name = next(iter(weights))
    weights[name] = torch.zeros(3)


def rename(weights):
    weights["unet.strange.weight"] = weights.pop(next(iter(weights)))


def invade(weights):
    weights["vae.decoder.conv_in.weight"] = torch.zeros(3)


@pytest.mark.parametrize("damage", [misshape, rename, invade])
def test_foreign_weights_are_one_clear_line(tiny_pipeline, learnt, tmp_path, damage):
    with_localizer(tiny_pipeline, learnt).save_pretrained(tmp_path)
    weights = load_file(tmp_path / FILE)
    damage(weights)
    save_file(weights, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"model.safetensors: not for this model: 1 of \d+ keys .* such as \w+\."):
        LCADPipeline.from_pretrained(tmp_path)
    damaged = {name: torch.full_like(value, torch.nan) for name, value in learnt.items()}
    save_file(damaged, tmp_path / FILE)
    with pytest.raises(CheckpointError, match="weights are not finite, such as"):
        LCADPipeline.from_pretrained(tmp_path)
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="model.safetensors"):
        LCADPipeline.from_pretrained(tmp_path)
