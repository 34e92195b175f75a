"""The adapter that finds objects: peft's LoRA merged, read strictly, and never in the way of colours."""

import re
from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lcad.grounding import FILE, LAYERS, merged
from lcad.masks.attention import phrase_attention
from lcad.phrases import find_phrases
from lcad.pipeline import LCADPipeline
from ldm.checkpoint import CheckpointError
from tests.conftest import random_photo


@pytest.fixture
def adapted(tiny_pipeline):
    """The tiny UNet under peft's LoRA with random weights."""
    unet = deepcopy(tiny_pipeline.unet)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=LAYERS))
    generator = torch.Generator().manual_seed(0)
    for name, weight in unet.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return unet


@torch.no_grad()
def test_merging_is_what_peft_computes(tiny_pipeline, adapted):
    unet = tiny_pipeline.unet
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([900]), torch.randn(1, 77, 16)
    luminance = torch.randn(1, 16, 8, 8)

    def predict(unet):
        return unet(*inputs, unet.luminance_responses(luminance)).sample

    plain = predict(unet)
    copy = merged(unet, get_peft_model_state_dict(adapted))
    assert torch.allclose(predict(copy), predict(adapted), atol=1e-5)
    assert (predict(copy) - plain).abs().max() > 0.01 and torch.equal(predict(unet), plain), "only the copy changes"


def test_every_layer_that_attention_hangs_on_is_adapted(tiny_pipeline):
    """All but norms, time steps, the head, resampling and the fixed part of extended convolutions."""
    names = {name.removesuffix(".weight") for name in tiny_pipeline.unet.state_dict() if name.endswith(".weight")}
    left = {name for name in names if not re.fullmatch(LAYERS, name)}
    outside = r".*norm\d?|.*time_.*|conv_in|conv_out|conv_norm_out|.*samplers.*|down_blocks.*\.conv1"
    assert left < names and all(re.fullmatch(outside, name) for name in left), left


def test_a_folder_keeps_its_adapter_and_looks_with_it(tiny_pipeline, adapted, tmp_path):
    pipeline = LCADPipeline(**tiny_pipeline.components, grounding=get_peft_model_state_dict(adapted))
    pipeline.save_pretrained(tmp_path)
    loaded, photo, caption = LCADPipeline.from_pretrained(tmp_path), random_photo(0), "the red cup, the blue dish"
    phrases = find_phrases(caption, loaded.tokenizer)
    without, expected, found = (
        phrase_attention(looking, photo, caption, phrases)
        for looking in (loaded, pipeline.grounded(), loaded.grounded())
    )
    assert torch.equal(expected, found) and not torch.equal(found, without)
    assert loaded.grounded().config.image_size == loaded.config.image_size
    assert tiny_pipeline.grounded() is tiny_pipeline, "a model without an adapter looks as it is"


def drop(adapter):
    del adapter["conv_in.extension.lora_A.weight"]


def misshape(adapter):
    adapter["conv_in.extension.lora_B.weight"] = torch.zeros(3, 2, 1, 1)


def add(adapter):
    adapter["conv_out.lora_A.weight"] = torch.zeros(2, 16, 3, 3)


@pytest.mark.parametrize("damage", [drop, misshape, add])
def test_a_foreign_adapter_is_one_clear_line(tiny_pipeline, adapted, tmp_path, damage):
    LCADPipeline(**tiny_pipeline.components, grounding=get_peft_model_state_dict(adapted)).save_pretrained(tmp_path)
    adapter = load_file(tmp_path / FILE)
    damage(adapter)
    save_file(adapter, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"grounding/.*: not an adapter of this UNet: 1 keys .* conv_\w+\."):
        LCADPipeline.from_pretrained(tmp_path)
