"""A classifier's features of the grey photo, which the UNet may see beside the luminance."""

import subprocess
import sys

import pytest
import torch

from lcad.config import LatentConfig, TrainerConfig
from lcad.models.guided_decoder import decode_with_luminance
from lcad.models.semantic_features import BACKBONES, SemanticFeatures
from lcad.pipeline import LCADPipeline
from lcad.training.latent_stage import LatentStage
from lcad.training.start import add_semantics, build_pipeline, start_pipeline
from ldm.checkpoint import CheckpointError
from tests.conftest import random_photo, tiny_config, train_on


@pytest.fixture
def backbone(squeezenet_file) -> str:
    return f"squeezenet1_1={squeezenet_file}"


@pytest.fixture
def pipeline(tiny_pipeline, backbone) -> LCADPipeline:
    """The tiny pipeline with semantic features, the adapter still at zero."""
    pipeline = tiny_pipeline.with_parts({})
    add_semantics(pipeline, backbone)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def colorized(pipeline: LCADPipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    result = pipeline(random_photo(0), "a red cup", num_inference_steps=2, generator=generator, output_type="pt")
    return result.images[0]


@torch.no_grad()
def train_by_hand(pipeline: LCADPipeline) -> None:
    torch.manual_seed(1)
    torch.nn.init.normal_(pipeline.unet.semantic_adapter.head.weight, std=0.2)


@pytest.mark.parametrize("size", [(8, 8), (5, 7)])
def test_features_have_one_scale_and_stay_as_they_are(backbone, size):
    """Of the hint, at the size that is asked for; frozen, whatever a stage says."""
    semantics = SemanticFeatures(backbone).train()
    assert not any(value.requires_grad for value in semantics.parameters())
    assert not any(module.training for module in semantics.modules())
    hint = torch.rand(2, 1, 32, 40, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1) * 2 - 1
    features = semantics(hint, size)
    assert features.shape == (2, BACKBONES["squeezenet1_1"][1], *size) and features.dtype == hint.dtype
    whole = semantics(hint, (16, 16))
    assert whole.square().mean(1).max() <= 1.001 and (features[0] - features[1]).abs().max() > 0.01
    half = semantics.bfloat16()(hint.bfloat16(), size)
    assert half.dtype == torch.bfloat16 and (half.float() - features).abs().mean() < 0.05


def test_a_model_that_gets_them_gives_the_same_pictures_until_it_is_trained(tiny_pipeline, pipeline):
    assert torch.equal(colorized(pipeline), colorized(tiny_pipeline))
    assert tiny_pipeline.luminance_encoder.semantics is None, "another pipeline's parts stay as they are"
    encoder = pipeline.luminance_encoder
    add_semantics(pipeline, "squeezenet1_1=nowhere")
    assert pipeline.luminance_encoder is encoder, "it has them"
    train_by_hand(pipeline)
    assert (colorized(pipeline) - colorized(tiny_pipeline)).abs().max() > 0.001


@torch.no_grad()
def test_the_decoder_does_not_see_them(pipeline, tiny_pipeline):
    hint = torch.rand(1, 3, 32, 32)
    features, plain = pipeline.luminance_encoder(hint), tiny_pipeline.luminance_encoder(hint)
    assert len(features) == len(plain) + 1 and features[-1].shape[1] == plain[-1].shape[1] + 64
    assert torch.equal(features[-1][:, :-64], plain[-1])
    z = torch.randn(1, 4, 8, 8)
    decoded = [decode_with_luminance(pipeline.vae, z, given) for given in (features, plain)]
    assert torch.equal(*decoded)


def test_a_checkpoint_keeps_them_and_is_read_where_nothing_was_loaded_before(pipeline, tmp_path):
    """In a process of its own: torch would not trace the backbone while a library loads a model."""
    train_by_hand(pipeline)
    pipeline.save_pretrained(tmp_path / "model")
    code = (
        "import sys, torch; from lcad.pipeline import LCADPipeline; p = LCADPipeline.from_pretrained(sys.argv[1]); "
        "torch.save(p.luminance_encoder(torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32))[-1], sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model", tmp_path / "seen.pt"], check=True)
    hint = torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32)
    with torch.no_grad():
        seen = pipeline.luminance_encoder(hint)[-1]
    assert torch.allclose(torch.load(tmp_path / "seen.pt", weights_only=True), seen, atol=1e-5)
    loaded = LCADPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(colorized(loaded), colorized(pipeline))


def test_training_may_leave_all_but_the_adapter_as_it_is(backbone):
    pipeline = build_pipeline(tiny_config())
    config = LatentConfig(semantic_backbone=backbone, trainable=["unet.semantic_adapter.*"])
    stage = LatentStage(pipeline, config, TrainerConfig())
    trained = {name for name, value in stage.named_parameters() if value.requires_grad}
    assert trained == {
        f"unet.semantic_adapter.{part}.{kind}" for part in ("conv1", "conv2", "head") for kind in ("weight", "bias")
    }
    batch = {"image": torch.rand(2, 3, 32, 32), "caption": ["a cup", "a dog"]}
    assert stage.prepare(batch["image"])["luminance"].shape == (2, 16 + 64, 8, 8)
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    losses = train_on(stage, batch, 8, 1e-2)
    changed = {name for name, value in stage.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == trained and losses[-1] < losses[0] - 0.01


def test_what_starts_from_parts_that_have_them_has_an_adapter(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    parts = {"vae": str(tmp_path / "model"), "luminance_encoder": str(tmp_path / "model")}
    started = start_pipeline(None, tiny_config(), init_parts=parts)
    assert started.unet.semantic_adapter is not None and started.luminance_encoder.semantics.channels == 64


def test_an_adapter_follows_its_sites(pipeline):
    train_by_hand(pipeline)
    unet = pipeline.unet
    assert unet.with_settings(sites="none").semantic_adapter is None
    fewer = unet.with_settings(sites="conv_in").semantic_adapter
    assert torch.equal(fewer.conv1.weight, unet.semantic_adapter.conv1.weight) and not fewer.head.weight.any()
    assert torch.equal(unet.with_settings().semantic_adapter.head.weight, unet.semantic_adapter.head.weight)


def test_what_cannot_be_had_is_said(tiny_pipeline, tmp_path, backbone):
    with pytest.raises(ValueError, match="latent.semantic_backbone: got 'resnet9'; allowed: squeezenet1_1, vgg16"):
        add_semantics(tiny_pipeline.with_parts({}), "resnet9")
    with pytest.raises(CheckpointError, match="nowhere"):
        add_semantics(tiny_pipeline.with_parts({}), "squeezenet1_1=nowhere.safetensors")
    with pytest.raises(ValueError, match="not the weights of vgg16"):
        add_semantics(tiny_pipeline.with_parts({}), backbone.replace("squeezenet1_1", "vgg16"))
    release = tiny_pipeline.with_parts({})
    release.register_to_config(hint_scale="release")
    with pytest.raises(ValueError, match="for models with hint_scale unit, not release"):
        add_semantics(release, backbone)
