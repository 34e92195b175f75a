"""The whole model in one run: steps in order, in time, resumed, put together; and a rehearsal on the CPU."""

import json
import tarfile
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lcad.cli.common import stage_of
from lcad.config import LatentStageConfig, load_config
from lcad.data.build.packing import pack
from lcad.data.build.pieces import join_pieces
from lcad.data.build.scenes import write_scenes
from lcad.models import lcm_lora, localizer
from lcad.pipeline import LCADPipeline
from lcad.training.speedrun import choose_steps, run_steps, write_pieces
from lcad.training.trainer import train
from ldm.text_encoder import build_tokenizer
from scripts import train_mini

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Forty scenes with masks, and a file that a teacher could be in."""
    root = tmp_path_factory.mktemp("data")
    list(write_scenes(root / "scenes", 40, 3, 32, None, ["complete_plain", "complete"]))
    (root / "vectors").write_bytes(b"vectors")
    config = LatentStageConfig(output="none")
    config.data.folder, config.data.masks = str(root / "scenes"), str(root / "scenes" / "masks")
    config.data.validation = 8
    pack(config.data, root / "packed", build_tokenizer(), {"token_vectors.safetensors": root / "vectors"}, 10**6, 0)
    return root / "packed"


class Training:
    """Stands in for training: notes what is asked, and makes a model, or stops on the way."""

    def __init__(self, stops: str = ""):
        self.asked, self.stops = [], stops

    def __call__(self, config, resume):
        name = Path(config.output).name
        self.asked.append((name, resume, config))
        if name == self.stops:
            (Path(config.output) / "checkpoints").mkdir(parents=True)
            (Path(config.output) / "checkpoints" / "last.ckpt").write_bytes(b"half")
            raise KeyboardInterrupt
        (Path(config.output) / "model" / "unet").mkdir(parents=True)
        (Path(config.output) / "model" / "unet" / "weights").write_text(name)
        if part := {"localizer": localizer.FILE, "few_steps": lcm_lora.FILE}.get(name):
            (Path(config.output) / "model" / part).parent.mkdir()
            (Path(config.output) / "model" / part).write_text(f"of {name}")


def test_steps_share_the_time_and_start_from_each_other(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("lcad.training.speedrun.time.monotonic", lambda: 7.0)  # no step takes any
    training = Training()
    model = run_steps(choose_steps(True, True), CONFIGS, [packed], tmp_path, 10, ["trainer.batch_size=3"], training)
    names = [name for name, *_ in training.asked]
    assert names == ["autoencoder", "luminance", "colorization", "localizer", "without_slr"]
    configs = {name: config for name, _, config in training.asked}
    hours = [configs[name].trainer.hours * 3600 for name in names]  # what is left is shared out among what is left
    left = [sum(step.share for step in choose_steps(True, True)[k:]) for k in range(5)]
    shares = [step.share for step in choose_steps(True, True)]
    assert hours == pytest.approx([600 * own / all - 5 for own, all in zip(shares, left, strict=True)])
    inits = [configs[name].init for name in names]
    assert inits[0] is None and [Path(init).parent.name for init in inits[1:]] == [
        "autoencoder", "luminance", "colorization", "colorization",
    ]  # fmt: skip
    assert all(config.data.resident and config.data.packed == [str(packed)] for config in configs.values())
    assert all(config.trainer.batch_size == 3 for config in configs.values())
    assert configs["colorization"].model.text.token_vectors == str(packed / "token_vectors.safetensors")
    assert configs["localizer"].latent.teacher is None and configs["without_slr"].latent.sites == "none"
    assert (model / "unet" / "weights").read_text() == "colorization" and (
        model / localizer.FILE
    ).read_text() == "of localizer"
    without = Training()
    run_steps(choose_steps(), CONFIGS, [packed], tmp_path / "kept", 1, [], without)
    assert [name for name, *_ in without.asked] == ["colorization", "localizer"]
    assert without.asked[0][2].init is None and without.asked[0][2].init_parts.keys() == {"vae", "luminance_encoder"}


def test_a_model_is_trained_on_and_distilled(packed, tmp_path):
    training, overrides = Training(), ["trainer.seed=3", "few_steps:latent.solver_steps=8"]
    model = run_steps(choose_steps(few_steps=True, init="mine"), CONFIGS, [packed], tmp_path, 10, overrides, training)
    colorization, found, few = (config for *_, config in training.asked)
    assert colorization.init == "mine" and {found.init, few.init} == {str(tmp_path / "colorization" / "model")}
    assert [config.trainer.seed for config in (colorization, found, few)] == [3, 3, 3]
    assert few.latent.solver_steps == 8 and few.latent.teacher is None
    assert (model / lcm_lora.FILE).read_text() == "of few_steps"
    with pytest.raises(ValueError, match="few_steps:latent.solver_steps=8: this run has no step few_steps, only col"):
        run_steps(choose_steps(init="mine"), CONFIGS, [packed], tmp_path / "other", 10, overrides, training)


@pytest.mark.parametrize(
    ("minutes", "given", "compiled"), [(8, [], True), (4, [], False), (4, ["trainer.compile=true"], True)]
)
def test_what_has_little_time_is_not_compiled(packed, tmp_path, monkeypatch, minutes, given, compiled):
    monkeypatch.setattr("lcad.training.speedrun.time.monotonic", lambda: 7.0)
    training = Training()
    run_steps(choose_steps(), CONFIGS, [packed], tmp_path, minutes, given, training)
    assert [config.trainer.compile for *_, config in training.asked] == [compiled] * 2


def test_from_scratch_it_is_the_same_model():
    first, *_, colorization = (load_config(step.schema, CONFIGS / step.config) for step in choose_steps(True)[:3])
    assert first.model == colorization.model


def test_a_stopped_run_goes_on(packed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_steps(choose_steps(), CONFIGS, [packed], tmp_path, 10, [], Training("localizer"))
    (tmp_path / "colorization" / "model" / "mine").write_text("kept")
    training = Training()
    model = run_steps(choose_steps(), CONFIGS, [packed], tmp_path, 99, [], training)
    assert [(name, resume) for name, resume, _ in training.asked] == [("localizer", "last")]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert training.asked[0][2].trainer.hours == plan["localizer"], "it has the time that the first run has planned"
    assert (model / "mine").read_text() == "kept"
    (tmp_path / "other" / "colorization").mkdir(parents=True)  # stopped before its first checkpoint
    training = Training()
    run_steps(choose_steps(), CONFIGS, [packed], tmp_path / "other", 1, [], training)
    assert training.asked[0][:2] == ("colorization", None)
    assert (tmp_path / "other" / "colorization_stopped_1").is_dir(), "nothing is lost"
    (tmp_path / "plan.json").write_text("[1]")
    with pytest.raises(ValueError, match="plan.json: not the plan of a run"):
        run_steps(choose_steps(), CONFIGS, [packed], tmp_path, 1, [], training)


def test_a_model_leaves_in_pieces(tmp_path, tiny_checkpoint):
    manifest = write_pieces(tiny_checkpoint, tmp_path / "pieces", 20_000)
    assert len(list((tmp_path / "pieces").iterdir())) > 3
    assert max(piece.stat().st_size for piece in (tmp_path / "pieces").glob("*.part*")) <= 20_000
    whole = join_pieces(manifest, tmp_path / "joined")
    with tarfile.open(whole) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert LCADPipeline.from_pretrained(tmp_path / "out" / tiny_checkpoint.name).config.image_size == 32


def test_what_is_not_there_is_one_line(tmp_path, capsys):
    assert train_mini.main(["--packed", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "no packed.json in" in capsys.readouterr().err
    config = load_config(LatentStageConfig, CONFIGS / "mini_128_latent.yaml", ["data.packed=[]"])
    config.output, config.init_parts = str(tmp_path / "run"), {}
    config.model.text.token_vectors, config.latent.teacher = None, None
    config.model.unet.block_out_channels, config.model.image_size = [16, 16, 16, 16], 32
    config.trainer.compile, config.trainer.accelerator = False, "cpu"
    with pytest.raises(ValueError, match="data.resident needs data.packed"):
        train(config, *stage_of(config), None)


@pytest.mark.slow
def test_a_rehearsal_of_the_whole_run(packed, tmp_path, capsys):
    """All steps from scratch on two cores, within their minutes; then the weights colorize and find masks."""
    small = [
        "model.image_size=32",
        "model.unet.block_out_channels=[16,16,16,16]",
        "model.unet.attention_heads=2",
        "model.unet.norm_num_groups=8",
        "model.text.hidden_size=16",
        "model.text.intermediate_size=32",
        "model.text.token_vectors=null",
        "latent.teacher=null",
        "pixel.perceptual_weight=0",
        "trainer.batch_size=8",
        "trainer.compile=false",
        "trainer.accelerator=cpu",
        "trainer.validate_every=20",
        "trainer.progress_bar=false",
    ]
    began = time.monotonic()
    options = ["--packed", str(packed), "--output", str(tmp_path), "--from-scratch", "--without-slr"]
    options += ["--minutes", "2"]
    assert train_mini.main([*options, "--pieces", "50KB", *small]) == 0, capsys.readouterr().err
    assert time.monotonic() - began < 160, "in its time, but for what comes after the last step"
    model = tmp_path / "model"
    assert load_file(model / localizer.FILE) and list((tmp_path / "pieces").glob("*.part*"))
    pipeline = LCADPipeline.from_pretrained(model)
    (result,) = pipeline(torch.rand(3, 40, 40), "the red cup, the blue dish", "auto", 2).images
    assert result.size == (40, 40)
    assert train_mini.main([*options, *small]) == 0
    assert capsys.readouterr().out.count("done before") == 5
