"""What users of diffusers expect of a pipeline: the counterparts of its own common pipeline tests."""

import inspect

import numpy as np
import pytest
import torch

from lcad.pipeline import LCADPipeline
from ldm.checkpoint import CheckpointError
from tests.conftest import random_photo

OPTIONAL = {
    "num_inference_steps",
    "num_images_per_prompt",
    "generator",
    "latents",
    "output_type",
    "return_dict",
    "negative_prompt",
    "guidance_scale",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
}


def inputs(seed: int = 0, **others) -> dict:
    generator = torch.Generator().manual_seed(seed)
    own = {"image": random_photo(0), "caption": "a red cup", "generator": generator, "num_inference_steps": 2}
    return own | {"output_type": "np"} | others


def test_the_signature_has_their_words():
    parameters = inspect.signature(LCADPipeline.__call__).parameters
    assert {"image", "caption", "prompt"} <= parameters.keys()
    assert all(parameters[name].default is not inspect.Parameter.empty for name in OPTIONAL), OPTIONAL


def test_tuples_and_output_classes_hold_the_same(tiny_pipeline):
    named, plain = tiny_pipeline(**inputs()), tiny_pipeline(**inputs(), return_dict=False)
    assert isinstance(plain, tuple) and isinstance(plain[0], np.ndarray) and plain[0].shape == (1, 40, 48, 3)
    assert np.array_equal(named.images, plain[0]) and np.array_equal(named[0], plain[0])


def test_photos_of_other_sizes_are_a_list(tiny_pipeline):
    photos = [random_photo(0, 48, 48), random_photo(1, 96, 96)]
    assert [array.shape for array in tiny_pipeline(**inputs(image=photos)).images] == [(48, 48, 3), (96, 96, 3)]


@pytest.mark.parametrize("size", [2, 3])
def test_a_batch_has_what_each_photo_has_alone(tiny_pipeline, size):
    captions = ["a red cup", "a blue dish of the very long kind that takes many more words", "a dog"][:size]
    seeds = [torch.Generator().manual_seed(i) for i in range(size)]
    together = tiny_pipeline(**inputs(image=[random_photo(0)] * size, caption=captions, generator=seeds))[0]
    assert together.shape == (size, 40, 48, 3)
    for i, caption in enumerate(captions):
        alone = tiny_pipeline(**inputs(caption=caption, generator=[torch.Generator().manual_seed(i)]))[0]
        assert np.abs(alone[0] - together[i]).max() < 1e-4


def test_prompt_is_the_caption(tiny_pipeline):
    expected = tiny_pipeline(**inputs())[0]
    given = inputs() | {"prompt": inputs()["caption"]}
    del given["caption"]
    assert np.array_equal(tiny_pipeline(**given)[0], expected)


def test_a_negative_prompt_is_what_guidance_leads_away_from(tiny_pipeline):
    plain, empty = tiny_pipeline(**inputs())[0], tiny_pipeline(**inputs(negative_prompt=""))[0]
    assert np.array_equal(plain, empty)
    assert not np.allclose(tiny_pipeline(**inputs(negative_prompt="a grey photo"))[0], plain, atol=1e-4)
    same = tiny_pipeline(**inputs(negative_prompt="a red cup"))[0]  # away from what it goes to: no guidance
    assert np.allclose(same, tiny_pipeline(**inputs(guidance_scale=1.0))[0], atol=1e-4)


@pytest.mark.parametrize("photos, copies", [(1, 2), (2, 3)])
def test_several_results_of_each_photo(tiny_pipeline, photos, copies):
    """Photo by photo, each with masks of its own, and each as it is alone."""
    images, masks = [random_photo(i) for i in range(photos)], [torch.ones(1, 40, 48)] * photos
    seeds = [torch.Generator().manual_seed(i) for i in range(photos * copies)]
    given = inputs(image=images, masks=masks, generator=seeds, num_images_per_prompt=copies)
    made = tiny_pipeline(**given)[0]
    assert made.shape == (photos * copies, 40, 48, 3)
    for i in range(photos * copies):
        own = inputs(image=images[i // copies], masks=masks[0], generator=[torch.Generator().manual_seed(i)])
        difference = np.abs(tiny_pipeline(**own)[0][0] - made[i])
        assert difference.mean() < 1e-5 and difference.max() < 2e-3, i  # the gamut is found by bisection


def test_callbacks_see_each_step_and_only_what_they_ask_for(tiny_pipeline):
    seen = []

    def note(pipe, step, t, tensors):
        assert pipe is tiny_pipeline
        seen.append((step, int(t), sorted(tensors), {value.shape for value in tensors.values()}))
        return {}

    plain = tiny_pipeline(**inputs())[0]
    for names in (["latents"], ["denoised", "latents"], []):
        seen.clear()
        again = tiny_pipeline(**inputs(callback_on_step_end=note, callback_on_step_end_tensor_inputs=names))[0]
        assert np.array_equal(again, plain)
        assert [(step, asked) for step, _, asked, _ in seen] == [(0, names), (1, names)]
        assert seen[0][1] > seen[1][1] and tiny_pipeline.num_timesteps == 2
    with pytest.raises(ValueError, match="unknown callback tensor 'noise'; allowed: latents, denoised"):
        tiny_pipeline(**inputs(callback_on_step_end=note, callback_on_step_end_tensor_inputs=["noise"]))


def test_what_a_callback_returns_is_gone_on_with(tiny_pipeline):
    def empty_at_the_end(pipe, step, _t, tensors):
        last = step == pipe.num_timesteps - 1
        return {"latents": torch.zeros_like(tensors["latents"])} if last else tensors

    latents = tiny_pipeline(**inputs(callback_on_step_end=empty_at_the_end, output_type="latent"))[0]
    assert latents.shape[:2] == (1, 4) and not latents.any()


def test_the_last_denoised_latents_are_the_result(tiny_pipeline):
    """But for the noise that DDIM leaves in the end, of variance 1 - alphas_cumprod[0]."""
    kept = {}
    given = inputs(callback_on_step_end=lambda pipe, step, t, tensors: kept.update(tensors), output_type="latent")
    latents = tiny_pipeline(**given, callback_on_step_end_tensor_inputs=["denoised"])[0]
    assert (kept["denoised"] - latents).abs().mean() < 0.05 * latents.abs().mean()


def test_a_callback_can_change_the_guidance_and_end_a_call(tiny_pipeline):
    def increase(pipe, _step, _t, tensors):
        pipe._guidance_scale += 1.0
        return tensors

    tiny_pipeline(**inputs(callback_on_step_end=increase, guidance_scale=2.0))
    assert tiny_pipeline.guidance_scale == 4.0 and tiny_pipeline.config.guidance_scale == 5.0, "the model's own stays"
    changed = tiny_pipeline(**inputs(callback_on_step_end=increase, guidance_scale=2.0))[0]
    assert not np.allclose(changed, tiny_pipeline(**inputs(guidance_scale=2.0))[0], atol=1e-4)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_pipeline(**inputs(callback_on_step_end=stop))
    assert tiny_pipeline(**inputs())[0].shape == (1, 40, 48, 3)


def test_components_are_what_it_is_made_of(tiny_pipeline):
    parts = {"vae", "unet", "luminance_encoder", "text_encoder", "tokenizer", "scheduler"}
    assert tiny_pipeline.components.keys() == parts
    settings = {name: tiny_pipeline.config[name] for name in LCADPipeline.settings}
    again = LCADPipeline(**tiny_pipeline.components, **settings)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(again(**inputs())[0], tiny_pipeline(**inputs())[0])


def test_types_of_all_parts_or_of_some(tiny_checkpoint):
    whole = LCADPipeline.from_pretrained(tiny_checkpoint, torch_dtype=torch.bfloat16)
    assert {whole.unet.dtype, whole.vae.dtype, whole.text_encoder.dtype} == {torch.bfloat16}
    mixed = LCADPipeline.from_pretrained(tiny_checkpoint, torch_dtype={"unet": torch.bfloat16})
    assert mixed.unet.dtype == torch.bfloat16 and mixed.vae.dtype == torch.float32
    mixed.set_progress_bar_config(disable=True)
    assert np.isfinite(mixed(**inputs(masks=torch.ones(1, 40, 48)))[0]).all()
    assert whole.to(dtype=torch.float32).unet.dtype == torch.float32
    assert LCADPipeline.from_pretrained(tiny_checkpoint, device_map="cpu").device.type == "cpu"


def test_variants(tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path, variant="fp16")
    files = [file.name for file in tmp_path.rglob("*.safetensors")]
    assert files and all(".fp16." in name for name in files)
    loaded = LCADPipeline.from_pretrained(tmp_path, variant="fp16")
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(loaded(**inputs())[0], tiny_pipeline(**inputs())[0])
    with pytest.raises(CheckpointError, match="does not load as"):
        LCADPipeline.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="does not load as"):
        LCADPipeline.from_pretrained(tmp_path, variant="nothing")


def test_attention_slicing_and_vae_slicing_change_nothing(tiny_checkpoint):
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline(**inputs())[0]
    pipeline.enable_attention_slicing(slice_size=1)
    pipeline.vae.enable_slicing()
    assert np.abs(pipeline(**inputs())[0] - plain).max() < 1e-3
    pipeline.disable_attention_slicing()
    pipeline.unet.set_default_attn_processor()
    assert np.array_equal(pipeline(**inputs(masks=torch.ones(1, 40, 48)))[0].shape, plain.shape)
