"""The pipeline a user calls."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch

from lcad import denoiser
from lcad.color import rgb_to_lab
from lcad.config import LatentConfig
from lcad.instance_sampling import LogitTargets
from lcad.io.images import to_tensor
from lcad.pipeline import LCADPipeline
from lcad.text.captions import SCARCE_CAPTION
from ldm.checkpoint import CheckpointError
from ldm.schedulers import SCHEDULERS, build_scheduler
from tests.conftest import random_photo

LEFT = (torch.arange(32) < 16).float().expand(1, 32, 32)


def call(pipeline, *args, **options):
    options = {"num_inference_steps": 2, "output_type": "pt", "generator": torch.Generator().manual_seed(0)} | options
    return pipeline(*args, **options).images


@pytest.mark.parametrize("size", [(48, 40), (40, 48), (100, 30), (33, 65)])
def test_size_and_luminance_are_kept(tiny_pipeline, size):
    photo = random_photo(0, *size)
    (result,) = tiny_pipeline(photo, "a red cup", num_inference_steps=2).images
    assert result.size == size
    own, ours = rgb_to_lab(to_tensor(photo)), rgb_to_lab(to_tensor(result))
    in_gamut = (to_tensor(result).amin(0) > 0.02) & (to_tensor(result).amax(0) < 0.98)
    assert (own[0] - ours[0])[in_gamut].abs().max() < 0.5  # 8-bit rounding
    (decoded,) = tiny_pipeline(photo, num_inference_steps=2, output_luminance="decoded").images
    assert decoded.size == size


def test_colours_of_the_input_do_not_matter(tiny_pipeline):
    photo = random_photo(3, 32, 32)
    luminance = rgb_to_lab(to_tensor(photo).double())[:1]
    grey = torch.cat([luminance, torch.zeros(2, 32, 32)])
    from lcad.color import lab_to_rgb

    (colour,) = call(tiny_pipeline, to_tensor(photo), "a cup")
    (from_grey,) = call(tiny_pipeline, lab_to_rgb(grey).float(), "a cup")
    assert torch.allclose(colour, from_grey, atol=2e-3)


def test_model_size_keeps_aspect_and_area(tiny_pipeline):
    for height, width in ((480, 640), (640, 480), (1000, 100), (32, 32)):
        h, w = tiny_pipeline.model_size(height, width)
        assert h % 4 == 0 and w % 4 == 0
        assert abs(h * w / 32**2 - 1) < 0.3
        assert abs(np.log((h / w) / (height / width))) < 0.3


def test_no_caption_is_the_scarce_one(tiny_pipeline):
    photo = random_photo(1)
    expected = call(tiny_pipeline, photo, SCARCE_CAPTION)[0]
    assert torch.equal(call(tiny_pipeline, photo)[0], expected)
    assert torch.equal(call(tiny_pipeline, photo, "")[0], expected)
    assert not torch.equal(call(tiny_pipeline, photo, "a red cup")[0], expected)


def test_no_state_survives_a_call(tiny_pipeline):
    photo, other = random_photo(1), random_photo(2, 64, 20)
    masks = np.zeros((1, 40, 48))
    masks[0, :20] = 1
    first = call(tiny_pipeline, photo, "a red cup")[0]
    call(tiny_pipeline, other, "a blue dog")
    masked = call(tiny_pipeline, photo, "a red cup", masks)[0]
    assert not torch.equal(masked, first)
    assert torch.equal(call(tiny_pipeline, photo, "a red cup", masks, refinement=None)[0], first)
    assert torch.equal(call(tiny_pipeline, photo, "a red cup")[0], first)


def test_a_photo_does_not_depend_on_its_batch(tiny_pipeline):
    photos, captions = [random_photo(i) for i in range(3)], ["a red cup", "a dog", ""]
    generators = lambda n: [torch.Generator().manual_seed(7) for _ in range(n)]  # noqa: E731
    masks = [None, torch.ones(1, 40, 48), None]
    together = call(tiny_pipeline, photos, captions, masks, generator=generators(3))
    for photo, caption, mask, expected in zip(photos, captions, masks, together, strict=True):
        alone = call(tiny_pipeline, photo, caption, mask, generator=generators(1))[0]
        assert torch.allclose(alone, expected, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_of_a_scheduler_does_not_depend_on_the_batch(tiny_checkpoint, name):
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(name)
    photos = [random_photo(i) for i in range(3)]
    seeded = [torch.Generator().manual_seed(i) for i in range(3)]
    together = call(pipeline, photos, "a red cup", generator=seeded, num_inference_steps=4)
    for i, photo in enumerate(photos):
        alone = call(pipeline, photo, "a red cup", generator=[torch.Generator().manual_seed(i)], num_inference_steps=4)
        difference = (alone[0] - together[i]).abs()
        # lcm jumps to the end at each step, and from pure noise 15 times as far as the noise is off
        assert difference.mean() < 1e-5 and difference.max() < (0.02 if name == "lcm" else 1e-4)


def test_noise_is_drawn_where_the_generator_is(tiny_pipeline, monkeypatch):
    asked = []

    def randn(shape, generator, device):
        asked.append(device.type)
        return torch.zeros(shape)

    monkeypatch.setattr(denoiser, "randn_tensor", randn)
    for generator in (None, torch.Generator(), [torch.Generator()]):
        call(tiny_pipeline, random_photo(0), "a cup", generator=generator, num_inference_steps=1)
    assert asked == ["cpu"] * 3
    if torch.cuda.is_available():
        call(tiny_pipeline, random_photo(0), "a cup", generator=torch.Generator("cuda"), num_inference_steps=1)
        assert asked[-1] == "cuda"


def test_a_result_that_is_not_finite_is_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="not numbers"):
        call(tiny_pipeline, random_photo(0), "a cup", guidance_scale=float("nan"))


def test_a_very_long_photo_is_worked_on_at_a_smaller_area(tiny_pipeline):
    assert tiny_pipeline.model_size(100, 800) == tiny_pipeline.model_size(1, 8)
    assert max(tiny_pipeline.model_size(1, 100_000)) == max(tiny_pipeline.model_size(1, 8)) <= 96


def test_latents_and_scheduler_are_in_float32(tiny_checkpoint, monkeypatch):
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint, torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    seen, step = [], pipeline.scheduler.step

    def noting(predicted, t, x, **options):
        seen.extend([predicted.dtype, x.dtype])
        return step(predicted, t, x, **options)

    noting.__signature__ = inspect.signature(step)
    monkeypatch.setattr(pipeline.scheduler, "step", noting)
    monkeypatch.setattr(LogitTargets, "gradient", lambda self, logits, _: seen.append(logits.dtype) or logits * 0)
    call(pipeline, random_photo(0), "a cup", torch.ones(1, 40, 48), num_inference_steps=2)
    assert set(seen) == {torch.float32}


def test_costly_parts_run_once_a_photo(tiny_pipeline):
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in {
            "luminance": tiny_pipeline.luminance_encoder,
            "extension": tiny_pipeline.unet.conv_in.extension,
            "text": tiny_pipeline.text_encoder,
        }.items()
    ]
    call(tiny_pipeline, random_photo(0), "a red cup", num_inference_steps=6)
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == ["extension", "luminance", "text", "text"]  # text: the caption and the empty one


def test_save_and_load_give_the_same_result(tiny_pipeline, tiny_checkpoint):
    loaded = LCADPipeline.from_pretrained(tiny_checkpoint)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.hint_scale == "unit" and loaded.config.image_size == 32
    assert torch.equal(call(loaded, random_photo(0), "a cup")[0], call(tiny_pipeline, random_photo(0), "a cup")[0])


def test_a_checkpoint_brings_its_own_steps(tiny_checkpoint, tmp_path):
    pipeline, passes = LCADPipeline.from_pretrained(tiny_checkpoint), []
    assert pipeline.config.num_inference_steps == LatentConfig().num_inference_steps
    index = json.loads((tiny_checkpoint / "model_index.json").read_text())
    del index["num_inference_steps"]
    nameless = shutil.copytree(tiny_checkpoint, tmp_path / "nameless")
    (nameless / "model_index.json").write_text(json.dumps(index))
    assert LCADPipeline.from_pretrained(nameless).config.num_inference_steps == 50, "the paper's"
    pipeline.register_to_config(num_inference_steps=3)
    pipeline.save_pretrained(tmp_path)
    loaded = LCADPipeline.from_pretrained(tmp_path)
    loaded.unet.register_forward_hook(lambda *_: passes.append(1))
    for given, made in ((None, 3), (2, 2)):
        passes.clear()
        loaded(random_photo(0), "a cup", num_inference_steps=given)
        assert len(passes) == made


@pytest.mark.parametrize("name", ["dpmpp", "unipc", "euler"])
def test_schedulers_are_swappable(tiny_checkpoint, name):
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint)
    pipeline.scheduler = build_scheduler(name)
    assert torch.isfinite(call(pipeline, random_photo(0), "a cup")[0]).all()


def test_bfloat16(tiny_checkpoint):
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint, torch_dtype=torch.bfloat16)
    assert pipeline.unet.dtype == torch.bfloat16
    result = call(pipeline, random_photo(0), "a cup", torch.ones(1, 40, 48))[0]
    assert result.dtype == torch.float32 and torch.isfinite(result).all()


def test_arguments_that_do_not_fit(tiny_pipeline):
    photo = random_photo(0)
    with pytest.raises(ValueError, match="1 photos, 2 captions"):
        tiny_pipeline([photo], ["a", "b"])
    with pytest.raises(ValueError, match="share a model size"):
        tiny_pipeline([photo, random_photo(1, 100, 20)])
    with pytest.raises(ValueError, match="3 phrases|for 1 phrases"):
        tiny_pipeline(photo, "a cup", torch.ones(3, 40, 48))
    with pytest.raises(ValueError, match="allowed: input, decoded"):
        tiny_pipeline(photo, output_luminance="none")
    with pytest.raises(ValueError, match="unknown output_type 'numpy'; allowed: pil, pt, np, decoded, latent"):
        tiny_pipeline(photo, output_type="numpy")


@pytest.mark.parametrize("masks, said", [
    (np.full((1, 40, 48), 255), "values from 255 to 255 .*allowed: 0 to 1; divide those in 0..255 by 255"),
    (torch.full((1, 40, 48), -0.5), "values from -0.5 to -0.5 .*allowed: 0 to 1"),
    (torch.full((1, 40, 48), torch.nan), "values from nan to nan .*allowed: 0 to 1"),
    (torch.ones(1, 48, 40), "masks of 40x48 pixels for a photo of 48x40; expected"),
    (torch.ones(1, 30, 48), "masks of 48x30 pixels for a photo of 48x40; expected"),
    (torch.ones(40, 48), "expected .phrases, H, W."),
])  # fmt: skip
def test_masks_that_cannot_be_meant_are_refused(tiny_pipeline, masks, said):
    with pytest.raises(ValueError, match=said):
        call(tiny_pipeline, random_photo(0), "a cup", masks)


def test_masks_may_be_of_another_size(tiny_pipeline):
    left = torch.zeros(1, 40, 48)
    left[..., :24] = 1
    own, doubled = (call(tiny_pipeline, random_photo(0), "a cup", masks)[0] for masks in (
        left, left.repeat_interleave(2, 1).repeat_interleave(2, 2)
    ))  # fmt: skip
    assert torch.allclose(own, doubled, atol=1e-5)
    assert not torch.allclose(own, call(tiny_pipeline, random_photo(0), "a cup")[0], atol=1e-3)


@pytest.mark.parametrize(
    "name, value",
    [
        ("second_pass_size", "large"),
        ("image_size", -1),
        ("guidance_scale", None),
        ("num_inference_steps", 1.5),
        ("antithetic_noise", "twice"),
        ("unmasked_saturation", 2.5),
    ],
)
def test_settings_that_no_config_could_have_are_refused(tiny_checkpoint, tmp_path, name, value):
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    file = tmp_path / "copy" / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(CheckpointError, match=f"model_index.json: .*{name}: .*{value}"):
        LCADPipeline.from_pretrained(tmp_path / "copy")


def test_arrays_are_those_of_diffusers(tiny_pipeline):
    (array,) = call(tiny_pipeline, random_photo(0), "a cup", output_type="np")
    (tensor,) = call(tiny_pipeline, random_photo(0), "a cup")
    assert array.shape == (40, 48, 3) and array.dtype == np.float32
    assert np.array_equal(array, tensor.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "damage",
    [
        "class",
        "no index",
        "no hint scale",
        "no unet",
        "missing key",
        "not finite",
        "noise from pure noise",
        "other sizes",
        "truncated",
        "scheduler",
    ],
)
def test_other_checkpoints_are_refused(tiny_checkpoint, tmp_path, damage):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if damage == "class":
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    elif damage == "no index":
        (folder / "model_index.json").unlink()
    elif damage == "no hint scale":
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "hint_scale"}))
    elif damage == "no unet":
        shutil.rmtree(folder / "unet")
    elif damage in ("missing key", "not finite"):
        from safetensors.torch import load_file, save_file

        weights = load_file(unet)
        bias = weights.pop("conv_out.bias")
        if damage == "not finite":
            weights["conv_out.bias"] = bias * float("nan")
        save_file(weights, unet, {"format": "pt"})
    elif damage == "other sizes":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 24}))
    elif damage == "truncated":
        unet.write_bytes(unet.read_bytes()[:1000])
    else:
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        changed = {"rescale_betas_zero_snr": True} if damage == "noise from pure noise" else {"_class_name": "os"}
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | changed))
    with pytest.raises(CheckpointError) as error:
        LCADPipeline.from_pretrained(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_antithetic_noise_is_the_mean_of_two(tiny_pipeline, tmp_path):
    """From x_T and from -x_T, whoever gives it, with masks and guidance, and callbacks see all steps."""
    both, seen = tiny_pipeline.with_parts({}), []
    both.register_to_config(antithetic_noise=True)
    both.save_pretrained(tmp_path / "model")
    both = LCADPipeline.from_pretrained(tmp_path / "model")
    both.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def colorized(pipeline, **options) -> torch.Tensor:
        photos, masks = [random_photo(seed, 32, 32) for seed in (0, 1)], [None, LEFT]
        options = {"latents": noise, "guidance_scale": 2.0, "output_type": "latent"} | options
        return call(pipeline, photos, ["a red cup"] * 2, masks, **options)

    def note(pipe, step, t, tensors):
        seen.append((step + 1, pipe.num_timesteps))
        return {}

    mean = colorized(both, callback_on_step_end=note)
    one, other = (colorized(tiny_pipeline, latents=sign * noise) for sign in (1, -1))
    assert torch.equal(mean, (one + other) / 2) and not torch.allclose(one, other, atol=0.1)
    assert seen == [(step, 4) for step in (1, 2, 3, 4)]
    assert torch.equal(colorized(both, latents=-noise), mean)
    drawn = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    own = {"latents": None, "generator": torch.Generator().manual_seed(5)}
    assert torch.equal(colorized(both, **own), colorized(both, latents=drawn))
    both.register_to_config(second_pass_size=64)
    seen.clear()
    call(both, random_photo(0, 64, 64), num_inference_steps=4, callback_on_step_end=note)
    assert seen == [(step + 1, 10) for step in range(10)], "the second pass begins from their mean, once"


@pytest.mark.parametrize("output_type", ["decoded", "pt"])
def test_results_without_masks_have_a_saturation_of_their_own(tiny_pipeline, output_type):
    pipeline, masks = tiny_pipeline.with_parts({}), [None, LEFT]
    pipeline.register_to_config(unmasked_saturation=0.5)

    def colorized(pipeline) -> list[torch.Tensor]:
        photos = [random_photo(seed, 32, 32) for seed in (0, 1)]
        return call(pipeline, photos, ["a red cup"] * 2, masks, output_type=output_type)

    def chroma(rgb: torch.Tensor) -> float:
        return rgb_to_lab(rgb)[1:].norm(dim=0).mean().item()

    (bare, masked), (plain, same) = colorized(pipeline), colorized(tiny_pipeline)
    assert torch.equal(masked, same)
    assert chroma(bare) == pytest.approx(chroma(plain) / 2, rel=0.1)


def test_a_second_pass_works_the_result_out_again_at_a_larger_size(tiny_pipeline, tmp_path):
    """From the first result under noise, as a whole, and so that callbacks see how far it is."""
    twice, seen = tiny_pipeline.with_parts({}), []
    twice.register_to_config(second_pass_size=64)
    twice.save_pretrained(tmp_path / "model")
    twice = LCADPipeline.from_pretrained(tmp_path / "model")
    twice.set_progress_bar_config(disable=True)
    assert twice.model_sizes(480, 480) == twice.model_sizes(64, 64) == ((32, 32), (64, 64))
    assert twice.model_sizes(48, 48) == ((32, 32), (48, 48)), "no more than there is to see"
    assert twice.model_sizes(32, 32) == twice.model_sizes(8, 8) == ((32, 32),)
    assert twice.model_sizes(480, 480, long_side=96) == ((96, 96),), "nothing to gain"
    assert twice.model_sizes(480, 480, tiled_side=128) == ((32, 32), (64, 64), (128, 128))
    assert twice.model_sizes(480, 480, tiled_side=48) == ((32, 32), (64, 64))
    photo = random_photo(0, 64, 64)

    def note(pipe, step, t, tensors):
        seen.append((step + 1, pipe.num_timesteps, int(t), tensors["latents"].shape[-1]))
        return {}

    def colorized(pipeline, **options):
        seeded = {"generator": torch.Generator().manual_seed(0), "num_inference_steps": 4, "output_type": "decoded"}
        return pipeline(photo, "a red cup", **(seeded | options)).images[0]

    made = colorized(twice, callback_on_step_end=note)
    assert made.shape == (3, 64, 64)
    assert [(step, of, side) for step, of, _, side in seen] == [(k + 1, 6, 8 if k < 4 else 16) for k in range(6)]
    assert [t for _, _, t, _ in seen[4:]] == [t for _, _, t, _ in seen[2:4]], "the later half of the steps"
    first = [torch.full((1, 4, 8, 8), value) for value in (-3.0, 3.0)]
    ends = [
        colorized(twice, callback_on_step_end=lambda _p, step, _t, _kept, z=z: {"latents": z} if step == 3 else {})
        for z in first
    ]
    assert (ends[0] - ends[1]).abs().mean() > 0.01, "it goes on from the first"


def test_texts_are_encoded_once_and_before_other_parts_run(tiny_pipeline, monkeypatch):
    """As `model_cpu_offload_seq` says: an encoder that was needed again would come back to the device."""
    pipeline, order = tiny_pipeline.with_parts({}), []
    pipeline.register_to_config(second_pass_size=64)
    for part in (pipeline.text_encoder, pipeline.luminance_encoder, pipeline.unet):
        forward = part.forward
        monkeypatch.setattr(
            part,
            "forward",
            lambda *args, _part=part, _forward=forward, **options: order.append(_part) or _forward(*args, **options),
        )
    call(pipeline, random_photo(0, 64, 64), "a cup", guidance_scale=2.0)
    assert [part is pipeline.text_encoder for part in order[:3]] == [True, True, False]
    assert pipeline.text_encoder not in order[3:] and pipeline.unet in order[3:]
