"""Converted weights: nothing unmatched, nothing mixed up, and the numbers of the authors' code."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from lcad.conversion import convert
from lcad.models.guided_decoder import decode_with_luminance
from lcad.pipeline import LCADPipeline
from ldm.autoencoder import build_autoencoder
from ldm.checkpoint import CheckpointError
from ldm.conversion.compvis import unet_key, vae_key
from ldm.schedulers import build_scheduler
from ldm.text_encoder import build_text_encoder
from ldm.unet import unet_config
from scripts.convert_checkpoint import main

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT.parent / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference numbers are not here")

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
SCHEDULE = ["betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"]
SCHEDULE += ["log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"]
SCHEDULE += ["posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"]
SCHEDULE += ["logvar"]

MINI = dict(unet=(32, 64), attention=(True, False), vae=(32, 64), layers=1, hidden=32, text_layers=1)
TINY = dict(unet=(32, 64, 128, 128), attention=(True, True, True, False), vae=(32, 64, 128, 128), layers=2, hidden=32)
FULL = dict(unet=(320, 640, 1280, 1280), vae=(128, 256, 512, 512), hidden=768, text_layers=12)


class Shapes(dict):
    """key -> shape of a CompVis state dict, written down layer by layer."""

    def conv(self, name, out, into, kernel=3):
        self.update({f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)})

    def linear(self, name, out, into, bias=True):
        self[f"{name}.weight"] = (out, into)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name, width):
        self.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def unet_block(self, name, into, out, embedding):
        self.norm(f"{name}.in_layers.0", into)
        self.conv(f"{name}.in_layers.2", out, into)
        self.linear(f"{name}.emb_layers.1", out, embedding)
        self.norm(f"{name}.out_layers.0", out)
        self.conv(f"{name}.out_layers.3", out, out)
        if into != out:
            self.conv(f"{name}.skip_connection", out, into, 1)

    def transformer(self, name, width, context):
        self.norm(f"{name}.norm", width)
        self.conv(f"{name}.proj_in", width, width, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, into in (("attn1", width), ("attn2", context)):
            self.linear(f"{block}.{attention}.to_q", width, width, bias=False)
            self.linear(f"{block}.{attention}.to_k", width, into, bias=False)
            self.linear(f"{block}.{attention}.to_v", width, into, bias=False)
            self.linear(f"{block}.{attention}.to_out.0", width, width)
        self.linear(f"{block}.ff.net.0.proj", 8 * width, width)
        self.linear(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            self.norm(f"{block}.{norm}", width)
        self.conv(f"{name}.proj_out", width, width, 1)

    def vae_block(self, name, into, out):
        self.norm(f"{name}.norm1", into)
        self.conv(f"{name}.conv1", out, into)
        self.norm(f"{name}.norm2", out)
        self.conv(f"{name}.conv2", out, out)
        if into != out:
            self.conv(f"{name}.nin_shortcut", out, into, 1)

    def vae_middle(self, name, width):
        self.vae_block(f"{name}.block_1", width, width)
        self.norm(f"{name}.attn_1.norm", width)
        for layer in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.attn_1.{layer}", width, width, 1)
        self.vae_block(f"{name}.block_2", width, width)


def add_unet(shapes, widths, attention, layers, first, context):
    embedding = 4 * widths[0]
    shapes.linear(f"{UNET}time_embed.0", embedding, widths[0])
    shapes.linear(f"{UNET}time_embed.2", embedding, embedding)
    shapes.conv(f"{UNET}input_blocks.0.0", widths[0], first)
    number, width, skips = 1, widths[0], [widths[0]]
    for level, out in enumerate(widths):
        for _ in range(layers):
            shapes.unet_block(f"{UNET}input_blocks.{number}.0", width, out, embedding)
            if attention[level]:
                shapes.transformer(f"{UNET}input_blocks.{number}.1", out, context)
            number, width = number + 1, out
            skips.append(width)
        if level < len(widths) - 1:
            shapes.conv(f"{UNET}input_blocks.{number}.0.op", width, width)
            number += 1
            skips.append(width)
    shapes.unet_block(f"{UNET}middle_block.0", width, width, embedding)
    shapes.transformer(f"{UNET}middle_block.1", width, context)
    shapes.unet_block(f"{UNET}middle_block.2", width, width, embedding)
    for number in range(len(widths) * (layers + 1)):
        level = len(widths) - 1 - number // (layers + 1)
        shapes.unet_block(f"{UNET}output_blocks.{number}.0", width + skips.pop(), widths[level], embedding)
        width = widths[level]
        if attention[level]:
            shapes.transformer(f"{UNET}output_blocks.{number}.1", width, context)
        if level and number % (layers + 1) == layers:
            shapes.conv(f"{UNET}output_blocks.{number}.{2 if attention[level] else 1}.conv", width, width)
    shapes.norm(f"{UNET}out.0", widths[0])
    shapes.conv(f"{UNET}out.2", 4, widths[0])


def add_encoder(shapes, name, widths, layers, zero_convs):
    shapes.conv(f"{name}.conv_in", widths[0], 3)
    width = widths[0]
    for level, out in enumerate(widths):
        for block in range(layers):
            shapes.vae_block(f"{name}.down.{level}.block.{block}", width, out)
            if zero_convs:
                shapes.conv(f"{name}.down.{level}.zero_conv.{block}", out, out, 1)
            width = out
        if level < len(widths) - 1:
            shapes.conv(f"{name}.down.{level}.downsample.conv", width, width)
    shapes.vae_middle(f"{name}.mid", width)
    if zero_convs:
        shapes.conv(f"{name}.zero_conv_mid1", width, width, 1)
        shapes.conv(f"{name}.zero_conv_mid2", width, width, 1)
    shapes.norm(f"{name}.norm_out", width)
    shapes.conv(f"{name}.conv_out", 8, width)


def add_decoder(shapes, name, widths, layers):
    width = widths[-1]
    shapes.conv(f"{name}.conv_in", width, 4)
    shapes.vae_middle(f"{name}.mid", width)
    for level in reversed(range(len(widths))):
        for block in range(layers + 1):
            shapes.vae_block(f"{name}.up.{level}.block.{block}", width, widths[level])
            width = widths[level]
        if level:
            shapes.conv(f"{name}.up.{level}.upsample.conv", width, width)
    shapes.norm(f"{name}.norm_out", width)
    shapes.conv(f"{name}.conv_out", 3, width)


def add_text(shapes, hidden, layers):
    shapes[f"{TEXT}embeddings.token_embedding.weight"] = (49408, hidden)
    shapes[f"{TEXT}embeddings.position_embedding.weight"] = (77, hidden)
    for layer in range(layers):
        name = f"{TEXT}encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes.linear(f"{name}.self_attn.{projection}", hidden, hidden)
        shapes.norm(f"{name}.layer_norm1", hidden)
        shapes.linear(f"{name}.mlp.fc1", 4 * hidden, hidden)
        shapes.linear(f"{name}.mlp.fc2", hidden, 4 * hidden)
        shapes.norm(f"{name}.layer_norm2", hidden)
    shapes.norm(f"{TEXT}final_layer_norm", hidden)


def compvis_shapes(
    unet, vae, hidden, attention=(True, True, True, False), layers=2, text_layers=2, luminance=True
) -> dict[str, tuple[int, ...]]:
    shapes = Shapes({name: (1000,) for name in SCHEDULE})
    add_unet(shapes, unet, attention, layers, 4 + (vae[-1] if luminance else 0), hidden)
    add_encoder(shapes, f"{VAE}encoder", vae, layers, zero_convs=False)
    add_decoder(shapes, f"{VAE}decoder", vae, layers)
    if luminance:
        add_encoder(shapes, f"{VAE}g_encoder", vae, layers, zero_convs=True)
    shapes.conv(f"{VAE}quant_conv", 8, 8, 1)
    shapes.conv(f"{VAE}post_quant_conv", 4, 4, 1)
    add_text(shapes, hidden, text_layers)
    return dict(shapes)


def compvis_state(**sizes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in compvis_shapes(**sizes).items()}


def reference_state() -> dict[str, torch.Tensor]:
    """The tiny reference model, from its manifest by the rule of `weights_rule.md`."""
    state = {}
    for key, entry in json.loads((REFERENCE / "manifest_tiny.json").read_text())["keys"].items():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        if entry["rule"] == "keep":
            state[key] = torch.zeros(entry["shape"])
        else:
            state[key] = torch.randn(entry["shape"], generator=generator) * entry["scale"] + entry["offset"]
    return state


@pytest.fixture(scope="module")
def mini() -> dict[str, torch.Tensor]:
    return compvis_state(**MINI)


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def error_of(tmp_path: Path, state: dict[str, torch.Tensor], **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        convert(write(tmp_path / "w.safetensors", state), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@needs_reference
@pytest.mark.parametrize(("name", "sizes"), [("tiny", TINY), ("full", FULL)])
def test_the_layout_of_these_tests_is_the_published_one(name, sizes):
    manifest = json.loads((REFERENCE / f"manifest_{name}.json").read_text())["keys"]
    assert compvis_shapes(**sizes) == {key: tuple(entry["shape"]) for key, entry in manifest.items()}


@pytest.mark.parametrize(
    ("old", "layers", "new"),
    [
        ("input_blocks.3.0.op.bias", 2, "down_blocks.0.downsamplers.0.conv.bias"),
        ("input_blocks.5.1.norm.bias", 2, "down_blocks.1.attentions.1.norm.bias"),
        ("input_blocks.5.0.in_layers.2.bias", 3, "down_blocks.1.resnets.0.conv1.bias"),
        ("output_blocks.5.2.conv.bias", 2, "up_blocks.1.upsamplers.0.conv.bias"),
        ("output_blocks.7.0.skip_connection.bias", 2, "up_blocks.2.resnets.1.conv_shortcut.bias"),
        ("middle_block.2.out_layers.3.bias", 2, "mid_block.resnets.1.conv2.bias"),
        ("label_emb.0.0.weight", 2, None),
    ],
)
def test_unet_names(old, layers, new):
    assert unet_key(old, layers) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("decoder.up.3.block.2.norm1.bias", "decoder.up_blocks.0.resnets.2.norm1.bias"),
        ("decoder.up.0.block.0.nin_shortcut.bias", "decoder.up_blocks.3.resnets.0.conv_shortcut.bias"),
        ("encoder.mid.attn_1.proj_out.bias", "encoder.mid_block.attentions.0.to_out.0.bias"),
        ("loss.logvar", None),
    ],
)
def test_vae_names(old, new):
    assert vae_key(old, levels=4) == new


def test_published_layout_lands_where_it_belongs(tmp_path, mini):
    conversion = convert(write(tmp_path / "w.safetensors", mini))
    pipeline = conversion.pipeline
    unet, vae = pipeline.unet.state_dict(), pipeline.vae.state_dict()
    luminance, text = pipeline.luminance_encoder.state_dict(), pipeline.text_encoder.state_dict()
    first = mini[f"{UNET}input_blocks.0.0.weight"]
    pairs = [
        (unet["conv_in.weight"], first[:, :4]),
        (unet["conv_in.extension.weight"], first[:, 4:]),
        (unet["up_blocks.0.upsamplers.0.conv.weight"], mini[f"{UNET}output_blocks.1.1.conv.weight"]),
        (unet["down_blocks.1.resnets.0.conv1.weight"], mini[f"{UNET}input_blocks.3.0.in_layers.2.weight"]),
        (vae["decoder.up_blocks.0.resnets.1.conv2.weight"], mini[f"{VAE}decoder.up.1.block.1.conv2.weight"]),
        (vae["encoder.mid_block.attentions.0.to_q.weight"], mini[f"{VAE}encoder.mid.attn_1.q.weight"][..., 0, 0]),
        (luminance["zero_convs.0.weight"], mini[f"{VAE}g_encoder.down.0.zero_conv.0.weight"]),
        (luminance["zero_convs.1.bias"], mini[f"{VAE}g_encoder.down.1.zero_conv.0.bias"]),
        (luminance["zero_convs.2.bias"], mini[f"{VAE}g_encoder.zero_conv_mid1.bias"]),
        (luminance["zero_convs.3.bias"], mini[f"{VAE}g_encoder.zero_conv_mid2.bias"]),
        (luminance["encoder.conv_in.weight"], mini[f"{VAE}g_encoder.conv_in.weight"]),
        (text["final_layer_norm.bias"], mini[f"{TEXT}final_layer_norm.bias"]),
    ]
    assert all(torch.equal(got, wanted) for got, wanted in pairs)
    assert conversion.untrained == [] and pipeline.config.hint_scale == "release"


def test_every_number_of_the_file_is_used_or_dropped(tmp_path, mini):
    conversion = convert(write(tmp_path / "w.safetensors", mini))
    models = [conversion.pipeline.unet, conversion.pipeline.vae, conversion.pipeline.text_encoder]
    models.append(conversion.pipeline.luminance_encoder)
    used = sum(parameter.numel() for model in models for parameter in model.parameters())
    dropped = [key for keys in conversion.dropped.values() for key in keys]
    assert used == sum(value.numel() for key, value in mini.items() if key not in dropped)
    head = {f"{VAE}g_encoder.{name}_out.{kind}" for name in ("norm", "conv") for kind in ("weight", "bias")}
    assert set(dropped) == head | set(SCHEDULE)
    assert all(not tensor.is_meta for model in models for tensor in (*model.parameters(), *model.buffers()))


def test_weights_in_another_memory_layout_can_be_saved(tmp_path, mini):
    state = {key: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for key, v in mini.items()}
    torch.save(state, tmp_path / "w.ckpt")
    convert(tmp_path / "w.ckpt").pipeline.save_pretrained(tmp_path / "out")
    key = "down_blocks.0.resnets.0.conv1.weight"
    saved = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")[key]
    assert torch.equal(saved, mini[f"{UNET}input_blocks.1.0.in_layers.2.weight"])


def test_drops_position_ids_and_averages(tmp_path, mini):
    extra = {f"{TEXT}embeddings.position_ids": torch.arange(77)[None], "model_ema.decay": torch.tensor(0.9999)}
    summary = convert(write(tmp_path / "w.safetensors", mini | extra)).summary()
    assert all(key in summary for key in extra) and "emaonly" in summary


def test_plain_stable_diffusion_gets_luminance_parts_that_have_to_be_trained(tmp_path):
    state = compvis_state(**MINI, luminance=False)
    conversion = convert(write(tmp_path / "w.safetensors", state), sites="down_blocks")
    pipeline = conversion.pipeline
    assert pipeline.config.hint_scale == "unit"
    assert conversion.summary().count("has to be trained") == 2
    extensions = [p for name, p in pipeline.unet.named_parameters() if "extension" in name]
    assert len(extensions) == 3 and all(p.eq(0).all() for p in extensions)
    encoder = pipeline.luminance_encoder.encoder.conv_in.weight
    assert torch.equal(encoder, pipeline.vae.encoder.conv_in.weight)
    assert encoder.data_ptr() != pipeline.vae.encoder.conv_in.weight.data_ptr()
    assert all(feature.eq(0).all() for feature in pipeline.luminance_encoder(torch.randn(1, 3, 16, 16)))


def test_published_weights_at_the_papers_sites_leave_the_new_ones_at_zero(tmp_path, mini):
    conversion = convert(write(tmp_path / "w.safetensors", mini), sites="down_blocks")
    assert len(conversion.untrained) == 1 and "down_blocks.0.resnets.0.conv1" in conversion.untrained[0]
    assert not conversion.pipeline.unet.conv_in.extension.weight.eq(0).all()


@pytest.mark.parametrize("key", [f"{UNET}label_emb.0.weight", f"{VAE}encoder.surprise.weight", "surprise"])
def test_an_extra_key_is_an_error_that_names_it(tmp_path, mini, key):
    assert key in error_of(tmp_path, mini | {key: torch.zeros(1)})


def test_two_keys_for_one_weight_are_an_error(tmp_path, mini):
    key = f"{UNET}input_blocks.1.0.norm1.bias"
    assert key in error_of(tmp_path, mini | {key: torch.zeros(32)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"{UNET}input_blocks.1.0.in_layers.2.bias", "down_blocks.0.resnets.0.conv1.bias"),
        (f"{UNET}out.2.weight", "conv_out.weight"),
        (f"{VAE}decoder.conv_out.bias", "decoder.conv_out.bias"),
        (f"{VAE}g_encoder.zero_conv_mid2.bias", "zero_convs.3.bias"),
        (f"{TEXT}encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"),
    ],
)
def test_a_missing_key_is_an_error_that_names_it(tmp_path, mini, old, new):
    message = error_of(tmp_path, {key: value for key, value in mini.items() if key != old})
    assert "missing" in message and new in message


@pytest.mark.parametrize(
    "key",
    [
        f"{UNET}out.2.bias",
        f"{VAE}encoder.mid.attn_1.q.weight",
        f"{VAE}g_encoder.zero_conv_mid1.weight",
        f"{TEXT}embeddings.position_embedding.weight",
    ],
)
def test_a_wrong_shape_is_an_error_that_names_it(tmp_path, mini, key):
    wrong = torch.cat([mini[key], mini[key]])
    message = error_of(tmp_path, mini | {key: wrong})
    assert f"{key} is ({len(wrong)}," in message and "needs" in message


def test_other_first_convolutions_are_refused(tmp_path, mini):
    key = f"{UNET}input_blocks.0.0.weight"
    assert "4 + 64" in error_of(tmp_path, mini | {key: mini[key][:, :9]})
    plain = compvis_state(**MINI, luminance=False)
    inpainting = torch.zeros(32, 9, 3, 3)
    assert "(32, 9, 3, 3), needs (32, 4, 3, 3)" in error_of(tmp_path, plain | {key: inpainting})


def test_a_file_without_one_of_the_parts_is_refused(tmp_path, mini):
    for prefix in (UNET, VAE, TEXT):
        rest = {key: value for key, value in mini.items() if not key.startswith(prefix)}
        assert "missing key" in error_of(tmp_path, rest)


def test_text_heads_have_to_divide_the_hidden_size(tmp_path, mini):
    path = write(tmp_path / "w.safetensors", mini)
    assert convert(path, text_heads=4).pipeline.text_encoder.config.num_attention_heads == 4
    with pytest.raises(ValueError, match="5 text heads"):
        convert(path, text_heads=5)


def test_hint_scale_is_a_named_property(tmp_path, mini):
    path = write(tmp_path / "w.safetensors", mini)
    assert convert(path, hint_scale="unit").pipeline.config.hint_scale == "unit"
    with pytest.raises(ValueError, match="'half'; allowed: unit, release"):
        convert(path, hint_scale="half")


@pytest.fixture
def sd_folder(tmp_path) -> Path:
    """A small Stable Diffusion 1.x folder, as diffusers and transformers write it."""
    torch.manual_seed(0)
    folder = tmp_path / "sd"
    config = unet_config([32, 64], [True, False], 1, attention_heads=4, cross_attention_dim=32, norm_num_groups=16)
    UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    build_autoencoder([32, 64], 1, norm_num_groups=16, scaling_factor=0.5).save_pretrained(folder / "vae")
    build_text_encoder(32, 1, 4, 64).save_pretrained(folder / "text_encoder")
    build_scheduler("pndm").save_pretrained(folder / "scheduler")
    return folder


def test_a_diffusers_folder_equals_its_models(sd_folder):
    pipeline = convert(sd_folder).pipeline
    base = UNet2DConditionModel.from_pretrained(sd_folder / "unet").eval()
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 32)
    with torch.no_grad():
        responses = pipeline.unet.luminance_responses(torch.randn(1, 64, 8, 8))
        assert torch.equal(pipeline.unet(x, t, text, responses).sample, base(x, t, text).sample)
    assert pipeline.vae.config.scaling_factor == 0.5 and pipeline.luminance_encoder.config.norm_num_groups == 16
    assert pipeline.text_encoder.config.num_attention_heads == 4


def test_names_of_earlier_releases_of_diffusers_and_transformers(sd_folder):
    wanted = convert(sd_folder).pipeline
    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    vae_file = sd_folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(vae_file)
    for new, old in old_names.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    save_file(state, vae_file)
    text_file = sd_folder / "text_encoder" / "model.safetensors"
    text = {f"text_model.{key}": value for key, value in load_file(text_file).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    text_file.unlink()
    torch.save(text, sd_folder / "text_encoder" / "pytorch_model.bin")
    got = convert(sd_folder)
    for model in ("vae", "text_encoder"):
        states = getattr(got.pipeline, model).state_dict(), getattr(wanted, model).state_dict()
        assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    assert list(got.dropped.values()) == [["text_model.embeddings.position_ids"]]


def test_folders_that_are_not_stable_diffusion_1_are_refused(sd_folder, tmp_path):
    with pytest.raises(CheckpointError, match="scheduler_config.json"):
        convert(tmp_path)
    (sd_folder / "luminance_encoder").mkdir()
    with pytest.raises(CheckpointError, match="already"):
        convert(sd_folder)
    (sd_folder / "luminance_encoder").rmdir()
    (sd_folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    with pytest.raises(CheckpointError, match="'v_prediction'; allowed: 'epsilon'"):
        convert(sd_folder)
    (sd_folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (sd_folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        convert(sd_folder)


def test_main_writes_a_folder_that_loads_to_the_same_weights(tmp_path, mini, capsys):
    source, output = write(tmp_path / "w.safetensors", mini), tmp_path / "out"
    assert main([str(source), str(output), "--text-heads", "4"]) == 0
    printed = capsys.readouterr().out
    assert "published L-CAD checkpoint" in printed and "dropped: 13 keys" in printed and str(output) in printed
    wanted, loaded = convert(source, text_heads=4).pipeline, LCADPipeline.from_pretrained(output)
    for model in ("vae", "unet", "luminance_encoder", "text_encoder"):
        states = getattr(wanted, model).state_dict(), getattr(loaded, model).state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert loaded.text_encoder.config.num_attention_heads == 4 and loaded.config.hint_scale == "release"


def test_main_at_half_precision_and_the_papers_sites(tmp_path, mini):
    source, output = write(tmp_path / "w.safetensors", mini), tmp_path / "out"
    options = ["--dtype", "float16", "--sites", "down_blocks", "--image-size", "64"]
    assert main([str(source), str(output), *options]) == 0
    assert LCADPipeline.from_pretrained(output).config.image_size == 64
    state = load_file(output / "unet" / "diffusion_pytorch_model.safetensors")
    assert "down_blocks.1.resnets.0.conv1.extension.weight" in state
    assert {value.dtype for value in state.values()} == {torch.float16}


def test_main_refuses_in_one_line(tmp_path, mini, capsys):
    source, output = write(tmp_path / "w.safetensors", mini), tmp_path / "out"
    output.mkdir()
    (output / "precious.txt").write_text("mine")

    def refused(*arguments) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and not captured.out
        return captured.err

    assert "not empty" in refused(source, output)
    assert "is a file" in refused(source, source)
    assert "holds the source" in refused(source, tmp_path, "--overwrite")
    assert "no such weight file" in refused(tmp_path / "nothing.ckpt", tmp_path / "new")
    assert not (tmp_path / "new").exists() and [p.name for p in output.iterdir()] == ["precious.txt"]
    assert main([str(source), str(output), "--overwrite"]) == 0
    assert (output / "precious.txt").read_text() == "mine"


@needs_reference
def test_tiny_reference_model_reproduces_the_authors_numbers(tmp_path):
    torch.save({"state_dict": reference_state()}, tmp_path / "tiny.ckpt")
    pipeline = convert(tmp_path / "tiny.ckpt", text_heads=4, image_size=64).pipeline
    with np.load(REFERENCE / "tiny.npz") as archive:
        names = ["text/ids", "text/emb", "in/hint", "in/img", "in/x", "in/t", "vae/z", "vae/moments", "vae/decode"]
        names += ["unet/eps2", *(f"g/{i}" for i in range(10))]
        golden = {name: torch.from_numpy(archive[name]) for name in names}

    def agree(got, name):
        return (got - golden[name]).abs().max() < 1e-4 * golden[name].abs().max()

    with torch.no_grad():
        text = pipeline.text_encoder(input_ids=golden["text/ids"].long()).last_hidden_state
        features = pipeline.luminance_encoder(golden["in/hint"])
        responses = pipeline.unet.luminance_responses(features[-1])
        eps = pipeline.unet(golden["in/x"], golden["in/t"], text[:2], responses).sample
        moments = pipeline.vae.encode(golden["in/img"]).latent_dist.parameters
        decoded = decode_with_luminance(pipeline.vae, golden["vae/z"][:1], [feature[:1] for feature in features])
    assert agree(text, "text/emb") and agree(moments, "vae/moments") and agree(decoded, "vae/decode")
    assert all(agree(feature[:1], f"g/{i}") for i, feature in enumerate(features))
    assert agree(eps, "unet/eps2")
