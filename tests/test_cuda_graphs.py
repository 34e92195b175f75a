"""Steps that are captured once a shape and replayed: the same pixels as without, here without a GPU.

What stands in for a CUDA graph keeps each operation with the tensors it was run on, and repeats exactly these: a number
that Python has read is fixed in it, as it is in a graph.
"""

import copy
import weakref

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lcad.denoiser import Conditions, build_denoiser
from lcad.instance_sampling import Refinement
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import comma_phrases
from ldm.cuda_graphs import GraphCache
from ldm.sampling import sample
from ldm.schedulers import SCHEDULERS, build_scheduler
from tests.conftest import random_photo

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="captures a CUDA graph")


class Recording(TorchDispatchMode):
    """Operations, and a number for each tensor that they made; other tensors are read again where they are."""

    def __init__(self):
        super().__init__()
        self.operations, self.made, self.kept = [], {}, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(operation), "Python reads a number from the device"
        given = tree_map(lambda part: self.made.get(id(part), part) if isinstance(part, Tensor) else part, args)
        result = operation(*args, **(kwargs or {}))
        self.operations.append((operation, given, kwargs or {}))
        for place, part in enumerate(tree_leaves(result)):
            self.made[id(part)] = Made(len(self.operations) - 1, place)
            self.kept.append(part)  # so that no other tensor gets its id
        return result


class Made:
    """The output of an operation that was recorded."""

    def __init__(self, operation: int, place: int):
        self.operation, self.place = operation, place


class Capture:
    """In place of `CudaCapture`; counts."""

    def __init__(self):
        self.captured = self.replayed = 0

    def __call__(self, function, device):
        self.captured += 1
        with Recording() as recording:
            output = function()
        last = recording.made[id(output)]
        operations = recording.operations
        recording.kept.clear()

        def replay() -> Tensor:
            self.replayed += 1
            results = []
            for operation, given, options in operations:
                args = tree_map(
                    lambda part: results[part.operation][part.place] if isinstance(part, Made) else part, given
                )
                results.append(tree_leaves(operation(*args, **options)))
            return output.copy_(results[last.operation][last.place])  # always to the same place

        return replay


def rerun(function, device):
    """The least that a capture does: the function once more, on the same tensors."""
    return function


@pytest.fixture
def pipelines(tiny_pipeline):
    """The tiny one as it is, and one with captured steps."""
    plain, captured = tiny_pipeline.with_parts({}), tiny_pipeline.with_parts({})
    for pipeline in (plain, captured):
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = copy.deepcopy(pipeline.scheduler)
    return plain, captured


def colorize(pipeline: LCADPipeline, seed: int, caption: str, **options) -> Tensor:
    width, height = options.pop("size", (48, 40))
    options = {"num_inference_steps": 2, "output_type": "latent"} | options
    return pipeline(
        random_photo(seed, width, height), caption, generator=torch.Generator().manual_seed(seed), **options
    ).images


def half(caption: str, pipeline: LCADPipeline, left: bool) -> InstanceMasks:
    phrases = comma_phrases(caption, pipeline.tokenizer)
    masks = torch.zeros(len(phrases), 40, 48)
    masks[..., :24] = left
    masks[..., 24:] = not left
    return InstanceMasks(phrases, masks)


@pytest.mark.parametrize("capture", [Capture, lambda: rerun])
@pytest.mark.parametrize("mode", ["one_pass", "two_pass"])
def test_photos_of_one_size_share_a_graph_and_have_the_same_pixels(pipelines, mode, capture):
    plain, captured = pipelines
    captured.enable_cuda_graphs(capture=capture())
    refinement, seen = Refinement(mode=mode), []
    for seed, caption, guidance in (
        (0, "the red cup", 5.0),
        (1, "a blue dish, the green table", 2.5),
        (2, "a dog", 7.0),
    ):
        given = {"guidance_scale": guidance, "refinement": refinement, "masks": half(caption, plain, seed != 1)}
        expected = colorize(plain, seed, caption, **given)
        assert torch.equal(colorize(captured, seed, caption, **given), expected), (seed, mode)
        assert not torch.equal(colorize(plain, seed, caption, **given | {"masks": None}), expected), "masks do nothing"
        seen.append(expected)
    assert len(captured._graphs._graphs) == 1
    assert not torch.equal(seen[0], seen[1])


def test_a_graph_for_each_shape_and_kind(pipelines):
    plain, captured = pipelines
    capture = Capture()
    captured.enable_cuda_graphs(capture=capture)
    mask = half("the red cup", plain, True)
    calls = [
        (1, {}),
        (1, {"guidance_scale": 3.0}),  # a number is no new graph
        (2, {"guidance_scale": 1.0}),  # without an unconditional half
        (3, {"masks": mask}),
        (3, {"masks": mask, "guidance_scale": 9.0, "num_inference_steps": 5}),
        (4, {"masks": mask, "refinement": Refinement(strength=7.0)}),
        (4, {"masks": mask, "refinement": Refinement(strength=7.0, end=0.5)}),  # both of the graphs that are there
        (5, {"num_images_per_prompt": 2}),
        (6, {"size": (64, 64)}),
    ]
    for number, options in calls:
        found = colorize(captured, 0, "the red cup", **options)
        assert torch.equal(found, colorize(plain, 0, "the red cup", **options)), options
        assert capture.captured == number, options
    assert capture.replayed == sum(options.get("num_inference_steps", 2) for _, options in calls)


@pytest.mark.parametrize("scheduler", ["ddim", "pndm"])
def test_tiles_and_parts_of_the_steps(pipelines, scheduler):
    """PNDM keeps the predictions of earlier steps; tiles and the steps outside of a range take turns on the graphs."""
    plain, captured = pipelines
    capture = Capture()
    captured.enable_cuda_graphs(capture=capture)
    for pipeline in pipelines:
        pipeline.scheduler = build_scheduler(scheduler)
    caption = "the red cup, the blue cup"
    masks = torch.zeros(2, 64, 96)
    masks[0, :, :40] = masks[1, :, 60:] = 1
    given = {"masks": InstanceMasks(comma_phrases(caption, plain.tokenizer), masks), "size": (96, 64), "tiled_side": 96}
    given |= {"refinement": Refinement(start=0.3, end=0.7), "num_inference_steps": 4}
    assert torch.equal(colorize(captured, 0, caption, **given), colorize(plain, 0, caption, **given))
    assert 2 <= capture.captured <= 4 and capture.replayed > 8


def test_weights_that_change_in_place_are_read_and_others_captured_anew(tiny_pipeline, pipelines):
    unet = copy.deepcopy(tiny_pipeline.unet)
    plain, captured = (pipeline.with_parts({"unet": unet}) for pipeline in pipelines)
    for pipeline in (plain, captured):
        pipeline.set_progress_bar_config(disable=True)
    capture = Capture()
    captured.enable_cuda_graphs(capture=capture)
    results = []

    def check(number: int, what: str) -> None:
        results.append(colorize(plain, 0, "a red cup"))
        assert torch.equal(colorize(captured, 0, "a red cup"), results[-1]), what
        assert capture.captured == number, what

    check(1, "first")
    with torch.no_grad():
        unet.conv_out.weight.mul_(2)
    check(1, "weights changed in place")
    unet.conv_out.weight = torch.nn.Parameter(unet.conv_out.weight * 2)
    check(2, "other weights")
    unet.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)
    check(3, "diffusers' FreeU")
    unet.disable_freeu()
    captured.unet = plain.unet = copy.deepcopy(unet)
    check(4, "another UNet")
    captured.disable_cuda_graphs()
    check(4, "without graphs")
    assert all(not torch.equal(a, b) for a, b in zip(results[:3], results[1:4], strict=True))


def test_the_graph_unused_for_longest_makes_room(pipelines):
    _, captured = pipelines
    capture = Capture()
    captured.enable_cuda_graphs(2, capture)
    for copies, number in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
        colorize(captured, 0, "a cup", num_images_per_prompt=copies, num_inference_steps=1)
        assert capture.captured == number
        assert len(captured._graphs._graphs) <= 2


def test_calls_within_a_call_do_not_mix(pipelines):
    plain, captured = pipelines
    captured.enable_cuda_graphs(capture=Capture())
    inner = []

    def other_photo(pipe, step, t, tensors):
        scheduler, pipe.scheduler = pipe.scheduler, copy.deepcopy(pipe.scheduler)
        inner.append(colorize(pipe, 7 + step, "a blue dish"))
        pipe.scheduler = scheduler

    expected = colorize(plain, 0, "a red cup", callback_on_step_end=other_photo)
    before, inner[:] = list(inner), []
    assert torch.equal(colorize(captured, 0, "a red cup", callback_on_step_end=other_photo), expected)
    assert len(inner) == 2 and all(map(torch.equal, inner, before))


def test_inference_mode_comes_and_goes(pipelines):
    plain, captured = pipelines
    captured.enable_cuda_graphs(capture=rerun)
    expected = colorize(plain, 0, "a red cup")
    with torch.inference_mode():
        assert torch.equal(colorize(captured, 0, "a red cup"), expected)
    assert torch.equal(colorize(captured, 0, "a red cup"), expected)


def test_memory_that_other_graphs_hold_is_freed_first(pipelines):
    plain, captured = pipelines
    alive = weakref.WeakSet()

    class Replay:
        def __init__(self, function):
            self.function = function
            alive.add(self)

        def __call__(self):
            return self.function()

    def capture(function, device):
        if len(alive) >= 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return Replay(function)

    captured.enable_cuda_graphs(capture=capture)
    for copies in (1, 2, 3):
        given = {"num_images_per_prompt": copies}
        assert torch.equal(colorize(captured, 0, "a cup", **given), colorize(plain, 0, "a cup", **given))
    assert len(alive) == 1

    def never(function, device):
        raise torch.cuda.OutOfMemoryError("no room")

    captured.enable_cuda_graphs(capture=never)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no room"):
        colorize(captured, 0, "a cup")


def test_what_cannot_be_captured_is_run_as_it_is(tiny_pipeline, pipelines):
    plain, captured = pipelines
    expected = colorize(plain, 0, "a red cup")
    capture = Capture()
    captured.enable_cuda_graphs(capture=capture)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.warns(UserWarning, match="without CUDA graphs: .*autocast is on"),
    ):
        colorize(captured, 0, "a red cup")
    captured.unet = copy.deepcopy(tiny_pipeline.unet)
    cpu_offload(captured.unet, torch.device("cpu"))
    with pytest.warns(UserWarning, match="without CUDA graphs: .*its weights are offloaded"):
        assert torch.equal(colorize(captured, 0, "a red cup"), expected)
    assert capture.captured == 0
    captured.unet, captured._graphs = tiny_pipeline.unet, GraphCache()  # as after .to("cpu")
    with pytest.warns(UserWarning, match="without CUDA graphs: .*it is on cpu"):
        assert torch.equal(colorize(captured, 0, "a red cup"), expected)
    with pytest.raises(ValueError, match="CUDA graphs need a CUDA device, got cpu; leave them out, or choose"):
        captured.enable_cuda_graphs()


def test_on_a_cuda_device_steps_are_captured_unasked(tiny_pipeline, pipelines, monkeypatch, recwarn):
    plain, _ = pipelines
    expected, pipeline, capture = colorize(plain, 0, "a red cup"), tiny_pipeline.with_parts({}), Capture()
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(pipeline._graphs, "_capture", capture)
    assert torch.equal(colorize(pipeline, 0, "a red cup"), expected) and capture.captured == 0, "on the CPU"
    monkeypatch.setattr(GraphCache, "refusal", lambda _self, _module: None)
    for _ in range(2):
        assert torch.equal(colorize(pipeline, 0, "a red cup"), expected)
        assert capture.captured == 1, "those of one call serve the next"
    pipeline.disable_cuda_graphs()
    for one in (pipeline, pipeline.with_parts({})):
        one.set_progress_bar_config(disable=True)
        assert torch.equal(colorize(one, 0, "a red cup"), expected) and capture.captured == 1
    assert not [warning for warning in recwarn if "CUDA graphs" in str(warning.message)]


def test_a_second_pass_is_captured_too(tiny_pipeline):
    plain, pipeline, capture = tiny_pipeline.with_parts({}), tiny_pipeline.with_parts({}), Capture()
    for one in (plain, pipeline):
        one.set_progress_bar_config(disable=True)
        one.register_to_config(second_pass_size=64, antithetic_noise=True)
    pipeline.enable_cuda_graphs(capture=capture)
    for seed in range(2):
        assert torch.equal(colorize(pipeline, seed, "a red cup"), colorize(plain, seed, "a red cup"))
    assert capture.captured == 2, "one for each size"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_scheduler_reads_from_the_device(name):
    """On the meta device nothing can be read: what a loop would wait for is an error there."""
    x, steps = torch.empty(1, 4, 8, 8, device="meta"), []
    for begin in (None, x):
        z = sample(
            lambda x, t: x,
            x,
            build_scheduler(name),
            4,
            init_latents=begin,
            strength=0.5,
            callback=lambda step, t, tensors: steps.append(step),
        )
        assert z.device.type == "meta" and z.shape == x.shape
    assert len(steps) >= 6


@pytest.mark.parametrize("mode", ["one_pass", "two_pass"])
def test_no_step_reads_from_the_device(tiny_pipeline, mode):
    unet, scheduler = copy.deepcopy(tiny_pipeline.unet).to("meta"), build_scheduler("ddim")
    masks = [InstanceMasks(comma_phrases("the red cup", tiny_pipeline.tokenizer), torch.ones(1, 16, 16))]
    text, luminance = torch.empty(2, 77, 16, device="meta"), torch.empty(1, 16, 8, 8, device="meta")
    conditions = Conditions(luminance, text, masks, Refinement(mode=mode, start=0.25, end=0.75))
    scheduler.set_timesteps(4)
    denoise = build_denoiser(unet, conditions, scheduler.timesteps, lambda: 5.0)
    x = torch.empty(1, 4, 8, 8, device="meta")
    assert sample(denoise, x, scheduler, 4).device.type == "meta"


@NEEDS_CUDA
@pytest.mark.parametrize("mode", ["one_pass", "two_pass"])
def test_on_a_gpu(tiny_pipeline, mode):
    parts = {name: copy.deepcopy(part) for name, part in tiny_pipeline.components.items() if name != "tokenizer"}
    pipeline = tiny_pipeline.with_parts(parts).to("cuda")
    pipeline.set_progress_bar_config(disable=True)
    calls = [("the red cup", 5.0, True), ("a blue dish, the green table", 2.5, False), ("a dog", 7.0, True)]
    given = [
        {
            "guidance_scale": guidance,
            "refinement": Refinement(mode=mode, end=0.5),
            "masks": half(caption, pipeline, left),
            "num_inference_steps": 4,
        }
        for caption, guidance, left in calls
    ]

    def all_calls() -> list[Tensor]:
        return [colorize(pipeline, i, call[0], **own) for i, (call, own) in enumerate(zip(calls, given, strict=True))]

    expected = all_calls()
    pipeline.enable_cuda_graphs()
    found = all_calls()
    assert len(pipeline._graphs._graphs) == 2
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))
    waiting = []

    def look(pipe, step, t, tensors):
        torch.cuda.set_sync_debug_mode("error" if step < 3 else "default")
        waiting.append(step)

    try:
        colorize(pipeline, 0, "the red cup", callback_on_step_end=look, **given[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert waiting == [0, 1, 2, 3]
