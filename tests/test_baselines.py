"""Baselines: closed forms, and the real pipelines of SDEdit and ControlNet with small random models."""

import shutil

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from lcad.color import rgb_to_lab
from lcad.evaluation import baselines
from lcad.evaluation.baselines import build_baseline, grey, mean_chroma
from lcad.pipeline import LCADPipeline

PHOTO = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3


def test_grey_and_mean_chroma():
    own = rgb_to_lab(PHOTO)
    without, mean = rgb_to_lab(grey(PHOTO)), rgb_to_lab(mean_chroma(PHOTO))
    assert without[0] == pytest.approx(own[0], abs=0.1) and without[1:].abs().max() < 0.1
    assert mean[0] == pytest.approx(own[0], abs=0.1)
    assert mean[1:].mean(dim=(1, 2)).tolist() == pytest.approx(own[1:].mean(dim=(1, 2)).tolist(), abs=0.1)
    assert mean[1:].std(dim=(1, 2)).max() < 0.1


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory, tiny_checkpoint):
    """A Stable Diffusion pipeline and a ControlNet of random weights, in diffusers' layout."""
    parts = LCADPipeline.from_pretrained(tiny_checkpoint)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=8,
    )
    pipeline = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
    )
    folder = tmp_path_factory.mktemp("sd")
    pipeline.save_pretrained(folder / "sd")
    ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 16)).save_pretrained(folder / "control")
    return folder


@pytest.mark.parametrize("name", ["sdedit", "controlnet"])
def test_editing_methods_of_figure_6(stable_diffusion, name):
    method = build_baseline(name, None, str(stable_diffusion / "sd"), str(stable_diffusion / "control"))
    one, two, other = method(PHOTO, "a red cup"), method(PHOTO, "a red cup"), method(PHOTO, "a blue dog")
    assert one.shape == PHOTO.shape and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("name, part", [("sdedit", "sd/unet"), ("controlnet", "sd/unet"), ("controlnet", "control")])
def test_other_weights_at_the_same_path_are_another_method(stable_diffusion, name, part, tmp_path, monkeypatch):
    paths = [shutil.copytree(stable_diffusion / of, tmp_path / of) for of in ("sd", "control")]
    before = build_baseline(name, None, *map(str, paths)).settings
    assert build_baseline(name, None, *(str(stable_diffusion / of) for of in ("sd", "control"))).settings == before
    file = tmp_path / part / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file(weights | {"conv_in.bias": weights["conv_in.bias"] + 1}, file, {"format": "pt"})
    assert build_baseline(name, None, *map(str, paths)).settings != before
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda source, **_: asked.append(source) or paths[0])
    assert baselines._checkpoint_hash("someone/model") == baselines._checkpoint_hash(str(paths[0])) and asked


def test_missing_checkpoints_are_asked_for():
    for name in ("round_trip", "sdedit", "controlnet"):
        with pytest.raises(ValueError, match="needs the path of its checkpoint"):
            build_baseline(name)
    with pytest.raises((OSError, ValueError)):
        build_baseline("sdedit", stable_diffusion="/nowhere")
