"""The paper's additions: exact no-ops when new, exact equations when not, and no state left behind."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from lcad.models.channel_extended_unet import ExtendedConv2d, ExtendedUNet
from lcad.models.guided_decoder import decode_with_luminance
from lcad.models.luminance_encoder import LuminanceEncoder
from lcad.training.start import build_pipeline
from ldm.attention import LogitTransform
from tests.conftest import tiny_config


@pytest.fixture(scope="module")
def fresh():
    return build_pipeline(tiny_config("down_blocks"))


def unet_inputs(unet: ExtendedUNet, batch: int = 2):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, 8, 8, generator=generator)
    text = torch.randn(batch, 77, unet.config.cross_attention_dim, generator=generator)
    luminance = torch.randn(batch, unet.config.luminance_channels, 8, 8, generator=generator)
    return x, torch.tensor([10, 500])[:batch], text, luminance


@torch.no_grad()
def test_new_additions_leave_the_base_model_bit_equal(fresh):
    x, t, text, luminance = unet_inputs(fresh.unet)
    plain = UNet2DConditionModel.forward(fresh.unet, x, t, text).sample
    responses = fresh.unet.luminance_responses(luminance)
    assert len(responses) == 3  # the first convolution, and one residual block in each of two levels
    assert torch.equal(fresh.unet(x, t, text, responses).sample, plain)
    features = fresh.luminance_encoder(torch.randn(2, 3, 32, 32))
    assert torch.equal(
        decode_with_luminance(fresh.vae, x, features), fresh.vae.decode(x / fresh.vae.config.scaling_factor).sample
    )


def test_luminance_encoder_starts_from_the_compression_encoder(fresh):
    own, source = fresh.luminance_encoder.encoder.state_dict(), fresh.vae.encoder.state_dict()
    assert own and all(torch.equal(value, source[name]) for name, value in own.items())


@torch.no_grad()
def test_extended_convolution_is_equation_5(fresh):
    """With its response it is one convolution over the stacked channels, and without it the fixed one."""
    base = torch.nn.Conv2d(4, 6, 3, padding=1)
    extended = ExtendedConv2d(base, 5)
    torch.nn.init.normal_(extended.extension.weight)
    f, y = torch.randn(2, 4, 7, 5), torch.randn(2, 5, 7, 5)
    stacked = F.conv2d(
        torch.cat([f, y], 1), torch.cat([base.weight, extended.extension.weight], 1), base.bias, padding=1
    )
    assert torch.equal(extended(f), base(f))
    extended.response = extended.extension(y)
    assert torch.allclose(extended(f), stacked, atol=1e-5)


@torch.no_grad()
def test_an_extension_is_like_its_convolution():
    base = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1)
    extended = ExtendedConv2d(base, 5)
    assert extended.weight is base.weight and extended.bias is base.bias
    assert extended.extension.bias is None and not extended.extension.weight.any()
    assert extended.extension(torch.zeros(1, 5, 7, 5)).shape == base(torch.zeros(1, 4, 7, 5)).shape == (1, 6, 4, 3)


@torch.no_grad()
def test_responses_are_of_the_luminance_at_each_level(tiny_pipeline):
    """Of an odd size too: levels round up, as the convolutions between them do."""
    unet = tiny_pipeline.unet
    luminance = torch.randn(2, 16, 7, 5, generator=torch.Generator().manual_seed(0))
    responses = unet.luminance_responses(luminance)
    names = ["conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv1"]
    assert list(responses) == unet.site_names == names
    half = F.interpolate(luminance, (4, 3), mode="bilinear", antialias=True)
    for name, resized in zip(names, (luminance, luminance, half), strict=True):
        assert torch.equal(responses[name], unet.get_submodule(name).extension(resized)), name
    fewer = {sites: unet.with_settings(sites=sites).site_names for sites in ("conv_in", "none")}
    assert fewer == {"conv_in": names[:1], "none": []}


def test_a_unet_of_another_architecture_is_refused(tiny_pipeline):
    config = dict(tiny_pipeline.unet.config)
    assert ExtendedUNet.from_config(config).config.sites == "down_blocks"
    with pytest.raises(ValueError, match="another architecture: {'center_input_sample': True}"):
        ExtendedUNet.from_config(config | {"center_input_sample": True})
    with pytest.raises(ValueError, match="unknown sites 'x'; allowed: none, conv_in, down_blocks"):
        ExtendedUNet(sites="x")


def test_settings_are_those_of_the_base_class():
    """Layer by layer, with none of them at its default."""
    options = {
        "sample_size": 8, "in_channels": 5, "out_channels": 3, "layers_per_block": 1, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "block_out_channels": (16, 24),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 12, "norm_num_groups": 4,
    }  # fmt: skip
    base, ours = UNet2DConditionModel(**options), ExtendedUNet(**options, sites="none")
    assert repr(ours).replace("ExtendedUNet", "UNet2DConditionModel") == repr(base)
    heads = [[part.heads for part in unet.modules() if isinstance(part, Attention)] for unet in (base, ours)]
    assert heads[0] == heads[1] == [2] * len(heads[0]) and ours.site_names == []
    assert {name: ours.config[name] for name in options} == {name: base.config[name] for name in options}


def test_the_base_class_is_told_of_a_transform_where_there_is_one(monkeypatch, tiny_pipeline):
    told, transform = [], LogitTransform(lambda _, logits: logits, 1)
    monkeypatch.setattr(UNet2DConditionModel, "forward", lambda _unet, *given, **options: told.append((given, options)))
    tiny_pipeline.unet(1, 2, 3, {}, return_dict=False)
    tiny_pipeline.unet(1, 2, 3, {}, transform)
    tiny_pipeline.unet(1, 2, 3, {}, transform, cross_attention_kwargs={"scale": 1})
    assert told == [
        ((1, 2, 3), {"return_dict": False}),
        ((1, 2, 3), {"cross_attention_kwargs": {"logit_transform": transform}}),
        ((1, 2, 3), {"cross_attention_kwargs": {"scale": 1, "logit_transform": transform}}),
    ]


@torch.no_grad()
def test_every_site_and_every_feature_matters(tiny_pipeline):
    unet = tiny_pipeline.unet
    x, t, text, luminance = unet_inputs(unet)
    responses = unet.luminance_responses(luminance)
    whole = unet(x, t, text, responses).sample
    for site in responses:
        fewer = {name: r for name, r in responses.items() if name != site}
        assert not torch.allclose(unet(x, t, text, fewer).sample, whole, atol=1e-6), site
    features = tiny_pipeline.luminance_encoder(torch.randn(2, 3, 32, 32))
    decoded = decode_with_luminance(tiny_pipeline.vae, x, features)
    assert len(features) == 5  # one each of three levels, two of the middle
    for index in range(5):
        changed = [f * (i != index) for i, f in enumerate(features)]
        assert not torch.allclose(decode_with_luminance(tiny_pipeline.vae, x, changed), decoded, atol=1e-6), index


def test_responses_do_not_outlive_a_call_that_fails(tiny_pipeline):
    unet = tiny_pipeline.unet
    x, t, text, luminance = unet_inputs(unet)
    with pytest.raises(RuntimeError, match="stop"), unet.conditioned_on(unet.luminance_responses(luminance)):
        raise RuntimeError("stop")
    assert all(unet.get_submodule(site).response is None for site in unet.site_names)


def test_checkpointing_gives_the_same_gradients(tiny_pipeline):
    """Recomputation happens after forward has returned: it must see the same responses."""
    unet = tiny_pipeline.unet.with_settings(sites="down_blocks").train()
    x, t, text, luminance = unet_inputs(unet)

    def gradients():
        unet.zero_grad()
        unet(x, t, text, unet.luminance_responses(luminance)).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}

    plain = gradients()
    unet.enable_gradient_checkpointing()
    assert unet.is_gradient_checkpointing
    recomputed = gradients()
    assert plain.keys() == recomputed.keys() and "down_blocks.1.resnets.0.conv1.extension.weight" in plain
    for name, value in plain.items():
        assert torch.allclose(value, recomputed[name], rtol=1e-4, atol=1e-7), name


def test_sites_can_be_added_to_a_trained_unet(tiny_pipeline):
    narrow = tiny_pipeline.unet.with_settings(sites="conv_in")
    wide = narrow.with_settings(sites="down_blocks")
    assert torch.equal(wide.conv_in.extension.weight, tiny_pipeline.unet.conv_in.extension.weight)
    assert not wide.down_blocks[0].resnets[0].conv1.extension.weight.any()
    with pytest.raises(ValueError, match="allowed: none, conv_in, down_blocks"):
        narrow.with_settings(sites="everywhere")


def test_full_size_layout_matches_the_published_checkpoint():
    """Ten luminance features, and the parameter counts of the paper's model (without the unused output head)."""
    with torch.device("meta"):
        encoder = LuminanceEncoder()
        unet = ExtendedUNet()
    assert len(encoder.zero_convs) == 10
    head = 2 * 512 + 512 * 8 * 9 + 8
    assert sum(p.numel() for p in encoder.parameters()) + head == 35_904_136
    assert sum(p.numel() for p in unet.parameters()) == 860_995_524
