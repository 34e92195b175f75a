"""Latent consistency distillation: its pieces against the schedulers' own, and weights that a checkpoint keeps."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lcad.cli import distill_latent, sample
from lcad.config import DistillationConfig, TrainerConfig
from lcad.inference.records import model_hash
from lcad.models.lcm_lora import FILE, STEPS, add_lora, read_lora, take_lora, with_lora
from lcad.pipeline import LCADPipeline
from lcad.training.distillation_stage import DistillationStage
from lcad.training.start import build_pipeline
from ldm.checkpoint import CheckpointError
from ldm.schedulers import PREDICTIONS, build_scheduler
from tests.conftest import random_photo, randomize_additions, tiny_config

CAPTION = "the red cup, the blue plate"


def build_stage(prediction: str = "v_prediction", **options) -> DistillationStage:
    pipeline = randomize_additions(build_pipeline(tiny_config()))
    pipeline.scheduler = build_scheduler("ddim", prediction)
    options = {"lora_rank": 2, "guidance_scale": 2.5} | options
    return DistillationStage(pipeline, DistillationConfig(**options), TrainerConfig())


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def change(stage: DistillationStage) -> None:
    """Let the LoRA do something."""
    for name, value in stage.unet.named_parameters():
        if "lora_" in name:
            value.data += draw(*value.shape, seed=len(name)) * 0.2


@pytest.fixture
def distilled(tiny_pipeline) -> LCADPipeline:
    """The tiny pipeline with a LoRA that changes its results."""
    stage = build_stage()
    change(stage)
    pipeline = tiny_pipeline.with_parts({})
    pipeline.lcm_lora = take_lora(stage.unet)
    return pipeline


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_its_solver_takes_ddims_own_steps(prediction):
    stage = build_stage(prediction)
    x, predicted = draw(1, 4, 8, 8), draw(1, 4, 8, 8, seed=1)
    own = build_scheduler("ddim", prediction)
    own = type(own).from_config(own.config, timestep_spacing="trailing")
    own.set_timesteps(50)
    for t in (999, 499, 19):
        expected = own.step(predicted, t, x).prev_sample
        made = stage._ddim_step(x, torch.tensor([t]), torch.tensor([max(t - 20, 0)]), predicted)
        assert torch.allclose(made, expected, atol=1e-5), t


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_student_is_what_the_lcm_scheduler_makes_of_a_prediction(prediction):
    stage = build_stage(prediction)
    change(stage)
    x, text = draw(1, 4, 8, 8), draw(1, 77, 16, seed=1)
    scheduler = build_scheduler("lcm", prediction)
    scheduler.set_timesteps(STEPS)
    t = scheduler.timesteps[1]
    with torch.no_grad():
        predicted = stage.unet(x, t, text, {}).sample
        made = stage._consistent(x, t[None], text, {}, None)
    assert torch.allclose(made, scheduler.step(predicted, t, x).denoised, atol=1e-5)


def test_the_teacher_is_the_model_as_it_was_with_guidance():
    stage, plain = build_stage(), randomize_additions(build_pipeline(tiny_config())).unet
    change(stage)
    x, text, t = draw(2, 4, 8, 8), draw(2, 77, 16, seed=1), torch.tensor([500, 100])
    responses = {site: value for site, value in plain.luminance_responses(draw(2, 16, 8, 8, seed=2)).items()}
    with torch.no_grad():
        guided = stage._guided(x, t, text, responses, None)
        conditional = plain(x, t, text, responses).sample
        unconditional = plain(x, t, stage._no_text.expand_as(text), responses).sample
    assert torch.allclose(guided, unconditional + 2.5 * (conditional - unconditional), atol=1e-5)


def test_only_the_lora_learns_and_the_loss_is_that_of_two_neighbours():
    stage = build_stage(huber_c=1e-6)
    z, noise, text, t = draw(2, 4, 8, 8), draw(2, 4, 8, 8, seed=1), draw(2, 77, 16, seed=2), torch.tensor([505, 3])
    loss = stage.predict_loss(z, None, text, t, noise)
    loss.backward()
    changed = {name for name, value in stage.named_parameters() if value.grad is not None}
    assert changed and all("lora_" in name for name in changed)
    with torch.no_grad():
        x = stage.schedule.add_noise(z, noise, torch.tensor([519, 19]))
        guided = stage._guided(x, torch.tensor([519, 19]), text, {}, None)
        nearer = stage._ddim_step(x, torch.tensor([519, 19]), torch.tensor([499, 0]), guided)
        made = stage._consistent(x, torch.tensor([519, 19]), text, {}, None)
        target = stage._consistent(nearer, torch.tensor([499, 0]), text, {}, None)
    assert loss.item() == pytest.approx((made - target).abs().mean().item(), rel=1e-3)


def test_learning_brings_the_student_to_the_end_of_the_teachers_trajectory():
    """What the student jumps to comes nearer to where the steps of the teacher end."""
    stage = build_stage(solver_steps=5, lora_rank=16)
    z, text = draw(1, 4, 8, 8) * 0.5, draw(1, 77, 16, seed=1)
    optimizer = torch.optim.Adam([value for value in stage.parameters() if value.requires_grad], lr=1e-2)
    start = draw(4, 4, 8, 8, seed=9)

    def distance() -> float:
        scheduler = build_scheduler("ddim", "v_prediction")
        scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing="trailing")
        scheduler.set_timesteps(5)
        with torch.no_grad():
            x = start
            for t in scheduler.timesteps:
                x = scheduler.step(stage._guided(x, t.expand(4), text.expand(4, -1, -1), {}, None), t, x).prev_sample
            jumped = stage._consistent(start, torch.full((4,), 999), text.expand(4, -1, -1), {}, None)
        return (jumped - x).abs().mean().item()

    before = distance()
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        noise = torch.randn(4, 4, 8, 8, generator=generator)
        t = torch.randint(0, 1000, (4,), generator=generator)
        loss = stage.predict_loss(z.expand(4, -1, -1, -1), None, text.expand(4, -1, -1), t, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert distance() < 0.85 * before


def test_weights_are_as_before_without_the_lora():
    unet = build_pipeline(tiny_config()).unet
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    add_lora(unet, 2, ["to_q", "conv1"])
    adapted = {name.partition(".lora_")[0] for name, _ in unet.named_modules() if ".lora_A" in name}
    assert any(name.endswith("conv1") for name in adapted) and not adapted & set(unet.site_names)
    nothing_yet = take_lora(unet)
    assert unet.state_dict().keys() == before.keys()
    for made in (unet, with_lora(unet, nothing_yet)):
        assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_folder_keeps_it_and_samples_with_it(distilled, tiny_pipeline, tmp_path):
    distilled.save_pretrained(tmp_path)
    fast = LCADPipeline.from_pretrained(tmp_path).with_lcm_lora()
    assert (fast.config.num_inference_steps, fast.config.guidance_scale) == (4, 1)
    photo, calls = random_photo(0), []
    fast.unet.register_forward_pre_hook(lambda *args: calls.append(len(args[1][0])))
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    made = fast(photo, CAPTION, **options).images[0]
    assert calls == [1, 1, 1, 1], "one row, four times"
    again = distilled.with_lcm_lora()(photo, CAPTION, **options | {"generator": torch.Generator().manual_seed(0)})
    assert torch.equal(made, again.images[0])
    plain = tiny_pipeline.for_few_steps(tiny_pipeline.unet)
    assert not torch.allclose(made, plain(photo, CAPTION, **options).images[0], atol=1e-2)
    with pytest.raises(ValueError, match="has no weights for a few steps"):
        tiny_pipeline.with_lcm_lora()


def test_objects_are_found_with_the_weights_as_they_are(distilled):
    fast, photo, caption = distilled.with_lcm_lora(), random_photo(0), CAPTION
    assert fast.with_localizer().unet is distilled.unet
    distilled.localizer = {"unet.conv_in.bias": torch.ones_like(distilled.unet.conv_in.bias)}
    found = fast.with_localizer().unet
    assert torch.equal(found.conv_in.bias, torch.ones_like(found.conv_in.bias))
    assert torch.equal(found.conv_out.weight, distilled.unet.conv_out.weight)
    assert fast(photo, caption, masks="auto").images


@pytest.mark.parametrize("fault", ["foreign", "half", "shape", "nan", "other key", "empty"])
def test_strangers_weights_are_held_against_the_unet(distilled, tmp_path, fault):
    distilled.save_pretrained(tmp_path)
    weights = load_file(tmp_path / FILE)
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    match fault:
        case "foreign":
            weights[name.replace("unet.", "unet.elsewhere.")] = weights.pop(name)
        case "half":
            del weights[name]
        case "shape":
            weights[name] = torch.zeros(3, *weights[name].shape[1:])
        case "nan":
            weights[name] = weights[name] * float("nan")
        case "other key":
            weights["unet.conv_out.bias"] = torch.zeros(4)
        case "empty":
            weights = {}
    save_file(weights, tmp_path / FILE)
    with pytest.raises(CheckpointError, match={"nan": "not finite", "empty": "is empty"}.get(fault, "not a LoRA")):
        read_lora(tmp_path, distilled.unet)
    with pytest.raises(CheckpointError):
        LCADPipeline.from_pretrained(tmp_path)


def test_diffusers_reads_it(distilled, tmp_path):
    """As the LoRA of a UNet in a pipeline of its own."""
    distilled.save_pretrained(tmp_path)
    unet = build_pipeline(tiny_config()).unet
    unet.load_state_dict(distilled.unet.state_dict())
    unet.load_lora_adapter(tmp_path / FILE.partition("/")[0], prefix="unet", use_safetensors=True)
    x, t, text = draw(1, 4, 8, 8), torch.tensor(500), draw(1, 77, 16, seed=1)
    merged = with_lora(distilled.unet, distilled.lcm_lora)
    with torch.no_grad():
        assert torch.allclose(unet(x, t, text, {}).sample, merged(x, t, text, {}).sample, atol=1e-4)
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "LCADPipeline"


def test_sample_fast(distilled, tmp_path, capsys):
    model, photo, output = tmp_path / "model", tmp_path / "photo.png", tmp_path / "out"
    distilled.save_pretrained(model)
    random_photo(0).save(photo)
    options = ["--model", str(model), "--input", str(photo), "--caption", CAPTION, "--output", str(output)]
    options += ["--dtype", "float32"]
    assert sample.main([*options, "--fast"]) == 0
    record = json.loads((output / "photo.json").read_text())
    assert (record["settings"]["steps"], record["settings"]["scheduler"], record["settings"]["guidance"]) == (
        4,
        "lcm",
        1,
    )
    fast = LCADPipeline.from_pretrained(model).with_lcm_lora()
    made = fast(Image.open(photo), CAPTION, "auto", generator=[torch.Generator().manual_seed(0)]).images[0]
    assert np.array_equal(np.asarray(made), np.asarray(Image.open(output / "photo.png")))
    assert sample.main([*options, "--fast"]) == 0 and "1 kept" in capsys.readouterr().out
    shutil.rmtree(model / "lcm_lora")  # what is sampled without it does not depend on it
    assert record["model_sha256"] != (without := model_hash(LCADPipeline.from_pretrained(model)))
    distilled.save_pretrained(model)
    assert model_hash(LCADPipeline.from_pretrained(model)) == without
    for wrong in (["--guidance", "3"], ["--scheduler", "ddim"]):
        with pytest.raises(SystemExit):
            sample.main([*options, "--fast", *wrong])
        assert f"leave out {wrong[0]}" in capsys.readouterr().err


def test_the_command_trains_it_and_goes_on_after_a_stop(tiny_checkpoint, photo_folder, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
output: {tmp_path / "run"}
init: {tiny_checkpoint}
data: {{folder: {photo_folder}, validation: 2, num_workers: 0}}
latent: {{lora_rank: 2, solver_steps: 10, learning_rate: 1.0e-2}}
trainer: {{batch_size: 2, max_steps: 2, validate_every: 2, checkpoint_every: 1, validation_batches: 1}}
"""
    )
    assert distill_latent.main(["--config", str(config)]) == 0
    first = load_file(tmp_path / "run" / "model" / FILE)
    assert any(value.abs().max() > 0 for name, value in first.items() if "lora_B" in name)
    before, after = (load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in
                     (tiny_checkpoint, tmp_path / "run" / "model"))  # fmt: skip
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run" / "images" / "00000002.png").is_file()
    shutil.rmtree(tmp_path / "run" / "model")
    assert distill_latent.main(["--config", str(config), "--resume", "last", "trainer.max_steps=4"]) == 0
    resumed = load_file(tmp_path / "run" / "model" / FILE)
    assert distill_latent.main(["--config", str(config), f"output={tmp_path / 'whole'}", "trainer.max_steps=4"]) == 0
    whole = load_file(tmp_path / "whole" / "model" / FILE)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not all(torch.equal(first[name], whole[name]) for name in whole)
