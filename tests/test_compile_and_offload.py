"""The conditioned UNet is a module like any other: it compiles whole, and its weights may be away between calls."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.models.attention_processor import AttnProcessor2_0

from lcad.instance_sampling import LogitTargets, Refinement, with_instance_masks
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import find_phrases
from tests.conftest import random_photo

PARTS = ("text_encoder", "luminance_encoder", "unet", "vae")


@pytest.fixture
def compiler():
    import torch._dynamo as dynamo

    dynamo.reset()
    before, dynamo.config.error_on_recompile = dynamo.config.error_on_recompile, True
    yield lambda module: torch.compile(module, fullgraph=True, backend="eager", dynamic=False)
    dynamo.config.error_on_recompile = before
    dynamo.reset()


@torch.no_grad()
def test_the_unet_compiles_whole_once_for_all_photos(tiny_pipeline, compiler):
    unet = tiny_pipeline.unet
    compiled = compiler(unet)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 16, generator=generator)
        responses = unet.luminance_responses(torch.randn(2, 16, 8, 8, generator=generator))
        t = torch.tensor(100 * seed)
        expected = unet(x, t, text, responses).sample
        assert torch.allclose(compiled(x, t, text, responses).sample, expected, atol=1e-5), seed
        assert not torch.allclose(unet(x, t, text, {}).sample, expected, atol=1e-4), seed


@torch.no_grad()
def test_masks_are_compiled_with_it(tiny_pipeline, compiler):
    unet, compiled = tiny_pipeline.unet, compiler(tiny_pipeline.unet)
    phrases = find_phrases("the red cup", tiny_pipeline.tokenizer)
    text = torch.randn(2, 77, 16)
    responses = unet.luminance_responses(torch.randn(2, 16, 8, 8))
    masks = torch.zeros(1, 8, 8)
    masks[:, :4] = 1
    targets = LogitTargets([InstanceMasks(phrases, masks)], (8, 8), heads=2)

    def denoiser(model):
        def predict(x, t, logit_transform=None):
            return model(x, t, text, responses, logit_transform).sample

        return with_instance_masks(predict, targets, 1, Refinement())

    plain, whole = denoiser(unet), denoiser(compiled)
    for t in (900, 500, 100):
        x = torch.randn(2, 4, 8, 8)
        expected = plain(x, torch.tensor(t))
        assert torch.allclose(whole(x, torch.tensor(t)), expected, atol=1e-5)
        assert not torch.allclose(unet(x, torch.tensor(t), text, responses).sample[:1], expected[:1], atol=1e-4)


def own_copy(pipeline: LCADPipeline) -> LCADPipeline:
    copied = pipeline.with_parts({part: copy.deepcopy(getattr(pipeline, part)) for part in PARTS})
    copied.set_progress_bar_config(disable=True)
    return copied


def colorize(pipeline: LCADPipeline) -> torch.Tensor:
    (result,) = pipeline(
        random_photo(0),
        "the red cup on the left, the blue dish",
        masks="auto",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    return result


def test_weights_may_be_away_between_the_calls_of_their_modules(tiny_pipeline):
    """As with sequential offloading: outside of their own forward the parameters are not there at all."""
    pipeline = own_copy(tiny_pipeline)
    expected = colorize(pipeline)
    for part in PARTS:
        cpu_offload(getattr(pipeline, part), torch.device("cpu"))
    assert {p.device.type for part in PARTS for p in getattr(pipeline, part).parameters()} == {"meta"}
    assert torch.equal(colorize(pipeline), expected)
    weights = {
        f"unet.{name}": value + 1 for name, value in tiny_pipeline.unet.named_parameters() if "attn2.to_q" in name
    }
    pipeline.localizer = weights
    moved = colorize(pipeline)
    pipeline = own_copy(tiny_pipeline)
    pipeline.localizer = weights
    assert torch.equal(moved, colorize(pipeline))


def test_each_part_is_asked_to_come_before_it_is_used(tiny_pipeline):
    """As with model offloading, whose hook is the whole part's: nothing inside of it may run before."""
    pipeline, present = own_copy(tiny_pipeline), set()

    class Arrival(ModelHook):
        def __init__(self, part: str):
            self.part, self.execution_device = part, torch.device("cpu")

        def pre_forward(self, module, *args, **kwargs):
            present.clear()  # the one before goes away
            present.add(self.part)
            return args, kwargs

    def check(part: str):
        def hook(*_):
            assert part in present, f"a module of {part} runs while that is away"

        return hook

    for part in PARTS:
        module = getattr(pipeline, part)
        add_hook_to_module(module, Arrival(part))
        for child in module.children():
            child.register_forward_pre_hook(check(part))
    assert torch.isfinite(colorize(pipeline)).all() and present == {"vae"}


def test_processors_that_know_no_masks_are_refused(tiny_pipeline):
    pipeline = own_copy(tiny_pipeline)
    pipeline.unet.set_attn_processor(AttnProcessor2_0())
    photo, masks = random_photo(0), torch.ones(1, 40, 48)
    pipeline(photo, "a cup", num_inference_steps=1)
    with pytest.raises(ValueError, match="is AttnProcessor2_0; put them back with unet.set_default_attn_processor"):
        pipeline(photo, "a cup", masks, num_inference_steps=1)
    pipeline.unet.set_default_attn_processor()
    pipeline(photo, "a cup", masks, num_inference_steps=1)


def test_a_compiled_unet_is_compiled_once_for_all_photos(tiny_pipeline):
    """In each of a call's ways to use it, not in each call or step."""
    pipeline, compiled, counts = own_copy(tiny_pipeline), [], []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    pipeline.unet.compile(backend=backend, fullgraph=True, dynamic=False)
    for seed, caption in enumerate(("the red cup", "a green dish, a cup")):
        given = {"masks": torch.ones(1 + seed, 40, 48), "num_inference_steps": 2, "output_type": "latent"}
        given["guidance_scale"] = 3.0 + seed
        made, expected = (
            own(random_photo(seed), caption, generator=torch.Generator().manual_seed(seed), **given).images
            for own in (pipeline, tiny_pipeline)
        )
        assert torch.allclose(made, expected, atol=1e-3)
        counts.append(len(compiled))
    assert counts == [1, 1]
    torch.compiler.reset()
