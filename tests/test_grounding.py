"""The adapter that finds objects: peft's LoRA merged, read strictly, and never in the way of colours."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcad.grounding import FILE, PARTS, adapted, adapter_of, merged
from lcad.masks.attention import phrase_attention
from lcad.phrases import find_phrases
from lcad.pipeline import LCADPipeline
from ldm.checkpoint import CheckpointError
from ldm.text_encoder import encode_text, tokenize
from tests.conftest import random_photo


@pytest.fixture
def trained(tiny_pipeline) -> dict:
    """The tiny UNet and text encoder under peft's LoRA with random weights."""
    generator = torch.Generator().manual_seed(0)
    modules = {part: adapted(part, getattr(tiny_pipeline, part), rank=2) for part in PARTS}
    for module in modules.values():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return modules


@torch.no_grad()
def test_merging_is_what_peft_computes(tiny_pipeline, trained):
    luminance, noisy, t = torch.randn(1, 16, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([900])
    tokens = tokenize(tiny_pipeline.tokenizer, ["the red cup"])

    def predict(unet, text_encoder):
        return unet(noisy, t, encode_text(text_encoder, tokens), unet.luminance_responses(luminance)).sample

    own = {part: getattr(tiny_pipeline, part) for part in PARTS}
    plain, expected = predict(**own), predict(**trained)
    adapter = adapter_of(trained)
    copies = {part: merged(part, module, adapter) for part, module in own.items()}
    assert torch.allclose(predict(**copies), expected, atol=1e-5) and torch.equal(predict(**own), plain)
    for part in PARTS:
        assert (predict(**own | {part: copies[part]}) - plain).abs().max() > 1e-3, part


def test_every_layer_that_attention_hangs_on_is_adapted(tiny_pipeline):
    """All but norms, embeddings, time steps, the head, resampling and the fixed part of extended convolutions."""
    outside = r".*norm\d?|.*embedding|.*time_.*|conv_in|conv_out|conv_norm_out|.*samplers.*|down_blocks.*\.conv1"
    for part, pattern in PARTS.items():
        weights = [name for name in getattr(tiny_pipeline, part).state_dict() if name.endswith(".weight")]
        names = {name.removesuffix(".weight") for name in weights}
        left = {name for name in names if not re.fullmatch(pattern, name)}
        assert left < names and all(re.fullmatch(outside, name) for name in left), left


def test_a_folder_keeps_its_adapter_and_looks_with_it(tiny_pipeline, trained, tmp_path):
    pipeline = LCADPipeline(**tiny_pipeline.components, grounding=adapter_of(trained))
    pipeline.save_pretrained(tmp_path)
    loaded, photo, caption = LCADPipeline.from_pretrained(tmp_path), random_photo(0), "the red cup, the blue dish"
    phrases = find_phrases(caption, loaded.tokenizer)
    without, expected, found = (
        phrase_attention(looking, photo, caption, phrases)
        for looking in (loaded, pipeline.grounded(), loaded.grounded())
    )
    assert torch.allclose(expected, found, atol=1e-5) and not torch.allclose(found, without, atol=1e-3)
    assert loaded.grounded().config.image_size == loaded.config.image_size
    assert tiny_pipeline.grounded() is tiny_pipeline, "a model without an adapter looks as it is"


def drop(adapter):
    del adapter["unet.conv_in.extension.lora_A.weight"]


def misshape(adapter):
    adapter["unet.conv_in.extension.lora_B.weight"] = torch.zeros(3, 2, 1, 1)


def add(adapter):
    adapter["unet.conv_out.lora_A.weight"] = torch.zeros(2, 16, 3, 3)


@pytest.mark.parametrize("damage", [drop, misshape, add])
def test_a_foreign_adapter_is_one_clear_line(tiny_pipeline, trained, tmp_path, damage):
    LCADPipeline(**tiny_pipeline.components, grounding=adapter_of(trained)).save_pretrained(tmp_path)
    adapter = load_file(tmp_path / FILE)
    damage(adapter)
    save_file(adapter, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"grounding/.*: not an adapter of this model: 1 keys .* unet.conv_\w+\."):
        LCADPipeline.from_pretrained(tmp_path)
