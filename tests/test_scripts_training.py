"""Both stages through the scripts' own main, on CPU, on a few small photos."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lcad.pipeline import LCADPipeline
from scripts import sample, train_latent, train_pixel

TINY_MODEL = {
    "image_size": 32,
    "autoencoder": {"block_out_channels": [8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4},
    "unet": {
        "block_out_channels": [16, 32],
        "attention_levels": [True, True],
        "layers_per_block": 1,
        "attention_heads": 2,
        "norm_num_groups": 8,
        "sites": "none",
    },
    "text": {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32},
}


def write_config(tmp_path: Path, name: str, photos: Path, **sections) -> Path:
    trainer = {"batch_size": 2, "max_steps": 3, "validate_every": 3, "checkpoint_every": 1, "log_every": 1}
    trainer |= {"progress_bar": False, "accelerator": "cpu"} | sections.pop("trainer", {})
    data = {"folder": str(photos), "validation": 2, "num_workers": 0} | sections.pop("data", {})
    config = {"output": str(tmp_path / name), "trainer": trainer, "data": data, **sections}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def base(tmp_path, photo_folder, capsys) -> Path:
    """A base autoencoder trained for three steps: a complete checkpoint folder."""
    pixel = {
        "train": "autoencoder",
        "adversarial_weight": 0,
        "perceptual_weight": 0,
        "artifact_map": "none",
        "chroma_weight": 3.0,
    }
    config = write_config(tmp_path, "base", photo_folder, model=TINY_MODEL, pixel=pixel)
    assert train_pixel.main(["--config", str(config)]) == 0, capsys.readouterr().err
    return tmp_path / "base" / "model"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{file.parent.name}.{k}": v for file in folder.glob("*/*.safetensors") for k, v in load_file(file).items()}


def changed(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    return {name for name in new if name not in old or not torch.equal(old[name], new[name])}


def logged(run: Path, column: str) -> dict[int, float]:
    """Step -> value."""
    rows = [row for file in sorted(run.glob("logs/*/metrics.csv")) for row in csv.DictReader(file.open())]
    return {int(row["step"]): float(row[column]) for row in rows if row.get(column)}


def test_both_stages_from_base_to_sampling(tmp_path, photo_folder, base, capsys):
    """Base -> text-to-image -> stage 1 -> stage 2 -> sample: each stage changes only what it trains."""
    pixel = {
        "train": "luminance",
        "learning_rate": 1e-3,
        "perceptual_weight": 0,
        "artifact_floor": 0.1,
        "discriminator_channels": 8,
    }
    config = write_config(tmp_path, "pixel", photo_folder, init=str(base), pixel=pixel, trainer={"max_steps": 4})
    assert train_pixel.main(["--config", str(config)]) == 0, capsys.readouterr().err
    stage1 = tmp_path / "pixel" / "model"
    touched = changed(base, stage1)
    assert touched and all(name.startswith("luminance_encoder.") for name in touched)

    latent = {"sites": "down_blocks", "learning_rate": 1e-3, "sample_steps": 2, "cache": str(tmp_path / "cache")}
    config = write_config(tmp_path, "latent", photo_folder, init=str(stage1), latent=latent, data={"crop": "center"})
    overrides = ["trainer.accumulate_grad_batches=2", "trainer.ema_decay=0.5", "trainer.validate_every=1"]
    assert train_latent.main(["--config", str(config), *overrides]) == 0, capsys.readouterr().err
    stage2 = tmp_path / "latent" / "model"
    touched = changed(stage1, stage2)
    assert "unet.conv_in.extension.weight" in touched and "unet.conv_out.weight" in touched
    allowed = ("unet.up_blocks.", "unet.conv_norm_out.", "unet.conv_out.")
    assert all(name.startswith(allowed) or ".extension." in name for name in touched), touched
    assert list((tmp_path / "latent" / "images").glob("*.png"))

    out = tmp_path / "out"
    assert (
        sample.main(
            ["--model", str(stage2), "--input", str(photo_folder / "images"), "--steps", "2", "--output", str(out)]
        )
        == 0
    )
    assert len(list(out.glob("p*.png"))) == 8 and (out / "contact_sheet.png").is_file()


def test_base_text_to_image_trains_unet_and_text(tmp_path, photo_folder, base):
    latent = {"trainable": ["unet.*", "text_encoder.*"], "learning_rate": 1e-3, "sample_steps": 2}
    config = write_config(tmp_path, "t2i", photo_folder, init=str(base), latent=latent)
    overrides = ["trainer.gradient_checkpointing=true", "trainer.logger=tensorboard", "trainer.validate_every=1"]
    assert train_latent.main(["--config", str(config), *overrides]) == 0
    assert list((tmp_path / "t2i" / "logs").rglob("events.out.*"))
    touched = changed(base, tmp_path / "t2i" / "model")
    assert any(name.startswith("text_encoder.") for name in touched)
    assert not any(name.startswith(("vae.", "luminance_encoder.")) for name in touched)


def test_weights_for_finding_objects_are_saved_beside_the_others(tmp_path, photo_folder, base, capsys):
    latent = {"train_localizer": True, "localizer_weight": 1.0, "trainable": ["unet.*attn2*", "text_encoder.*fc1*"]}
    data = {"masks": str(photo_folder / "masks"), "crop": "center"}
    config = write_config(tmp_path, "grounding", photo_folder, init=str(base), latent=latent, data=data)
    assert train_latent.main(["--config", str(config), "trainer.ema_decay=0.5"]) == 0, capsys.readouterr().err
    model = tmp_path / "grounding" / "model"
    touched = changed(base, model)
    assert touched and all(name.startswith("localizer.") and ("attn2" in name or "fc1" in name) for name in touched)
    own, learnt = LCADPipeline.from_pretrained(base).unet.state_dict(), load_file(model / "localizer/model.safetensors")
    assert all(not torch.equal(own[name.removeprefix("unet.")], learnt[name]) for name in learnt if "to_k" in name)

    further = ["latent.trainable=[text_encoder.*fc1*]", "latent.learning_rate=0", f"output={tmp_path / 'further'}"]
    assert train_latent.main(["--config", str(config), f"init={model}", *further]) == 0, capsys.readouterr().err
    kept = load_file(tmp_path / "further" / "model" / "localizer" / "model.safetensors")
    assert kept.keys() == learnt.keys() and all(torch.equal(kept[name], learnt[name]) for name in kept), "it goes on"

    out, photos = tmp_path / "out", photo_folder / "images"
    arguments = ["--model", str(model), "--input", str(photos), "--masks", "regions", "--steps", "2"]
    assert sample.main([*arguments, "--output", str(out)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    status = train_latent.main(["--config", str(config), "latent.localizer_weight=0", f"output={tmp_path / 'other'}"])
    assert "latent.train_localizer: it learns by latent.localizer_weight" in one_line_error(capsys, status)


@pytest.mark.parametrize("kind", ["pixel", "latent"])
def test_resuming_gives_the_same_next_step(tmp_path, photo_folder, base, kind, monkeypatch):
    """A run killed after 3 of 6 steps (inside the second epoch) and resumed ends where the unbroken one ends.

    With a worker process, a validation at the step it is killed after, and a moving average over steps 1, 3 and 5.
    """
    monkeypatch.setattr("lcad.training.trainer.EMA_EVERY", 2)
    script, section = {
        "pixel": (train_pixel, {"pixel": {"learning_rate": 1e-3, "perceptual_weight": 0, "discriminator_channels": 8}}),
        "latent": (train_latent, {"latent": {"learning_rate": 1e-3, "sites": "conv_in", "sample_steps": 1}}),
    }[kind]
    photos = {
        "data": {"validation": 2, "max_photos": 4, "num_workers": 1},
        "trainer": {"validate_every": 3, "ema_decay": 0.9},
    }
    for name in ("whole", "broken"):
        write_config(tmp_path, name, photo_folder, init=str(base), **section, **json.loads(json.dumps(photos)))
    assert script.main(["--config", str(tmp_path / "whole.yaml"), "trainer.max_steps=6"]) == 0
    assert script.main(["--config", str(tmp_path / "broken.yaml"), "trainer.steps=3"]) == 0  # as the key was called
    assert script.main(["--config", str(tmp_path / "broken.yaml"), "trainer.max_steps=6", "--resume", "last"]) == 0
    whole, broken = logged(tmp_path / "whole", "train/loss"), logged(tmp_path / "broken", "train/loss")
    assert sorted(whole) == list(range(6))
    assert whole == pytest.approx(broken, rel=1e-5)
    assert not changed(tmp_path / "whole" / "model", tmp_path / "broken" / "model")


AUTOENCODER = {
    "train": "autoencoder",
    "adversarial_weight": 0,
    "perceptual_weight": 0,
    "artifact_map": "none",
    "learning_rate": 1e-2,
}


def test_the_average_and_the_decay_of_a_run(tmp_path, photo_folder, monkeypatch):
    """Every second step's weights are averaged, each worth two; the rate decays from step to step."""
    monkeypatch.setattr("lcad.training.trainer.EMA_EVERY", 2)
    config = write_config(
        tmp_path, "x", photo_folder, model=TINY_MODEL, pixel=AUTOENCODER | {"final_learning_rate": 1e-3}
    )

    def run(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        assert train_pixel.main(["--config", str(config), f"output={tmp_path / name}", *overrides]) == 0
        return weights(tmp_path / name / "model")

    averaged, last = run("averaged", "trainer.ema_decay=0.8"), run("plain")
    write_config(tmp_path, "x", photo_folder, model=TINY_MODEL, pixel=AUTOENCODER)
    first = run("first", "trainer.max_steps=1")
    for name, value in averaged.items():
        if name.startswith("vae."):
            expected = 0.8**2 * first[name] + (1 - 0.8**2) * last[name]
            assert torch.allclose(value, expected, atol=1e-5), name
    moved = (last["vae.decoder.conv_in.weight"] - first["vae.decoder.conv_in.weight"]).abs().max()
    assert moved > 1e-3, "there is something to average"
    rates = list(logged(tmp_path / "plain", "lr-Adam").values())
    assert rates == pytest.approx([1e-2, 1e-3 + 9e-3 * 0.75, 1e-3 + 9e-3 * 0.25])


def test_runs_limited_by_epochs_can_be_resumed(tmp_path, photo_folder, capsys):
    """After one epoch of three batches a run is known as one, and goes on as one that was never broken off."""
    for name in ("whole", "broken"):
        write_config(
            tmp_path, name, photo_folder, model=TINY_MODEL, pixel=AUTOENCODER,
            trainer={"max_steps": None, "checkpoint_every": 10**6, "validate_every": 10**6},
        )  # fmt: skip
    broken = ["--config", str(tmp_path / "broken.yaml")]
    assert train_pixel.main(["--config", str(tmp_path / "whole.yaml"), "trainer.max_epochs=2"]) == 0
    assert train_pixel.main([*broken, "trainer.max_epochs=1"]) == 0
    assert (tmp_path / "broken" / "checkpoints" / "last.ckpt").is_file()
    capsys.readouterr()
    assert "holds a run already" in one_line_error(capsys, train_pixel.main([*broken, "trainer.max_epochs=2"]))
    assert train_pixel.main([*broken, "trainer.max_epochs=2", "--resume", "last"]) == 0
    assert logged(tmp_path / "whole", "train/loss") == pytest.approx(
        logged(tmp_path / "broken", "train/loss"), rel=1e-5
    )
    assert sorted(logged(tmp_path / "whole", "train/loss")) == list(range(6))
    assert not changed(tmp_path / "whole" / "model", tmp_path / "broken" / "model")


def test_runs_limited_by_hours_decay_by_the_time_they_have_used(tmp_path, photo_folder):
    config = write_config(
        tmp_path, "timed", photo_folder, model=TINY_MODEL, pixel=AUTOENCODER | {"final_learning_rate": 1e-3},
        trainer={"max_steps": None, "hours": 0.001, "validate_every": 10**6, "checkpoint_every": 10**6},
    )  # fmt: skip
    assert train_pixel.main(["--config", str(config)]) == 0
    rates = list(logged(tmp_path / "timed", "lr-Adam").values())
    assert len(rates) > 1 and rates == sorted(rates, reverse=True) and rates[0] == 1e-2 and rates[-1] < 6e-3


def test_a_run_ends_with_a_checkpoint_when_its_time_is_up(tmp_path, photo_folder, base):
    config = write_config(
        tmp_path, "timed", photo_folder, init=str(base), latent={"sites": "conv_in", "sample_steps": 1}
    )
    overrides = ["trainer.max_steps=null", "trainer.hours=0.0002", "trainer.checkpoint_every=1000000"]
    assert train_latent.main(["--config", str(config), "trainer.validate_every=1000000", *overrides]) == 0
    assert (tmp_path / "timed" / "checkpoints" / "last.ckpt").is_file()
    assert train_latent.main(["--config", str(config), "--resume", "last", *overrides]) == 0


def one_line_error(capsys, status: int) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "it/s]" not in line]  # not progress bars
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_mistakes_are_one_line(tmp_path, photo_folder, base, capsys):
    config = write_config(tmp_path, "x", photo_folder, init=str(base))
    capsys.readouterr()
    run = lambda *args: one_line_error(capsys, train_latent.main(["--config", str(config), *args]))  # noqa: E731
    assert "trainer.batch_sise" in run("trainer.batch_sise=3")
    assert "trainer.batch_size" in run("trainer.batch_size=many")
    assert "no such checkpoint folder" in run("init=nowhere")
    assert "no such file or folder" in run("data.folder=nowhere")
    assert "latent.trainable" in run("latent.trainable=[unet.*.wings]")
    assert "latent.sites: got 'everywhere'; allowed: none" in run("latent.sites=everywhere")
    assert "nothing" not in run("--resume", "last")
    assert "holds a run already" in one_line_error(
        capsys, train_latent.main(["--config", str(config), f"output={base.parent}"])
    )
    assert "no such config" in one_line_error(capsys, train_latent.main(["--config", "nowhere.yaml"]))
