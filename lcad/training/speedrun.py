"""The whole bundled model in one run: the configs of both stages one after another, each in its share of the time."""

import gc
import json
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lcad.config import DistillationStageConfig, LatentStageConfig, PixelStageConfig, StageConfig, load_config
from lcad.data.build.pieces import split_file
from lcad.data.packed import open_packed
from lcad.io.images import write_bytes
from lcad.models import lcm_lora, localizer

RESERVE = 5.0  # seconds of each step's time, for what comes after its training
COMPILED_FROM = 240.0  # seconds of a step's time: compiling takes about 95, and less time does not win them back
PLAN = "plan.json"  # the hours of each step that was begun: one that goes on keeps them
PACKED_FILES = {  # what a pack may bring, and the keys that then name it
    "vgg16.safetensors": (
        "latent.teacher=vgg16={}",
        "latent.perceptual_backbone={}",
        "pixel.perceptual_backbone={}",
    ),
    "squeezenet1_1.pth": ("latent.semantic_backbone=squeezenet1_1={}",),
    "token_vectors.safetensors": ("model.text.token_vectors={}",),
}


@dataclass(frozen=True)
class Step:
    """One training run.

    Attributes:
        config: file in configs/.
        share: of the time.
        init: the step whose model it starts from, or a checkpoint folder; "": as its config says.
        part: file in its model that the whole model gets.
    """

    name: str
    schema: type[StageConfig]
    config: str
    share: float
    init: str = ""
    overrides: tuple[str, ...] = ()
    part: str = ""


COLORIZATION = Step("colorization", LatentStageConfig, "mini_128_latent.yaml", 0.84)
LOCALIZER = Step(  # no teacher: masks teach it
    "localizer", LatentStageConfig, "mini_128_localizer.yaml", 0.16, "colorization", ("latent.teacher=null",),
    localizer.FILE,
)  # fmt: skip
FEW_STEPS = Step(
    "few_steps", DistillationStageConfig, "mini_128_distillation.yaml", 0.3, "colorization", ("latent.teacher=null",),
    lcm_lora.FILE,
)  # fmt: skip
AUTOENCODER = Step("autoencoder", PixelStageConfig, "mini_128_autoencoder.yaml", 0.15)
LUMINANCE = Step("luminance", PixelStageConfig, "mini_128_pixel.yaml", 0.1, "autoencoder")
WITHOUT_SLR = Step(
    "without_slr", LatentStageConfig, "mini_128_latent.yaml", 0.12, "colorization",
    ("latent.sites=none", "latent.teacher=null"),
)  # fmt: skip

STEP_NAMES = {step.name for step in (AUTOENCODER, LUMINANCE, COLORIZATION, LOCALIZER, FEW_STEPS, WITHOUT_SLR)}


def choose_steps(
    from_scratch: bool = False, without_slr: bool = False, few_steps: bool = False, init: str = ""
) -> list[Step]:
    """The steps in their order.

    Args:
        from_scratch: autoencoder and luminance encoder too, which are taken as they are otherwise.
        without_slr, few_steps: these steps too.
        init: checkpoint folder of which colorization is trained on.
    """
    before = [AUTOENCODER, LUMINANCE] if from_scratch else []
    colorization = replace(COLORIZATION, init="luminance" if from_scratch else init)
    after = [step for step, wanted in ((FEW_STEPS, few_steps), (WITHOUT_SLR, without_slr)) if wanted]
    return [*before, colorization, LOCALIZER, *after]


def run_steps(
    steps: list[Step],
    configs: Path,
    packed: list[Path],
    output: Path,
    minutes: float,
    overrides: list[str],
    train_step: Callable[[StageConfig, str | None], object],
    started: float | None = None,
) -> Path:
    """Run what is not done yet, and put the model together in `<output>/model`.

    A step that was stopped goes on from its last checkpoint with the time it has left; one that has its model is done.

    Args:
        overrides: key=value of the steps' configs; those of pixel.* and latent.* for the steps that have them, and
            <step>:key=value for one step alone.
        train_step: trains a config, to go on from "last" or from its start (None).
        started: `time.monotonic()` when the clock began; None: now.

    Raises:
        PackError, ConfigError, ValueError, FileNotFoundError: what a user can mend; messages are one line.
    """
    started = time.monotonic() if started is None else started
    names = [step.name for step in steps]
    for override in overrides:
        name = override.partition(":")[0]
        if name in STEP_NAMES - set(names):
            raise ValueError(f"{override}: this run has no step {name}, only {', '.join(names)}")
    files = open_packed(packed).files
    plan, done = _read_plan(output), {}
    for step in steps:
        folder = output / step.name
        done[step.name] = folder / "model"
        if (folder / "model").is_dir():
            print(f"{step.name}: done before, see {folder}")
            continue
        last = folder / "checkpoints" / "last.ckpt"
        if folder.exists() and not last.exists():  # stopped before its first checkpoint
            folder.rename(_free(folder))
        if not last.exists() or step.name not in plan:
            left = sum(other.share for other in steps if not (output / other.name / "model").is_dir())
            seconds = (minutes * 60 - (time.monotonic() - started)) * step.share / left - RESERVE
            plan[step.name] = max(seconds, 1) / 3600
            write_bytes(output / PLAN, json.dumps(plan).encode())
        config = _config(step, configs, packed, files, folder, plan[step.name], overrides)
        began = time.monotonic()
        train_step(config, "last" if last.exists() else None)
        _free_memory()
        print(f"{step.name}: {(time.monotonic() - began) / 60:.1f} min, {folder / 'model'}", flush=True)
    return _assemble(steps, done, output)


def write_pieces(model: Path, folder: Path, size: int) -> Path:
    """Write a checkpoint folder as pieces of at most `size` bytes -> the manifest that `join_pieces` reads."""
    whole = model.parent / f"{model.name}.tar"
    with tarfile.open(whole, "w") as archive:
        archive.add(model, model.name)
    manifest = split_file(whole, folder, size)
    whole.unlink()
    return manifest


def _read_plan(output: Path) -> dict[str, float]:
    path = output / PLAN
    try:
        return {str(name): float(hours) for name, hours in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the plan of a run ({error}); delete it to plan anew") from error


def _config(
    step: Step, configs: Path, packed: list[Path], files: dict[str, Path], folder: Path, hours: float, given: list[str]
) -> StageConfig:
    own = "pixel" if step.schema is PixelStageConfig else "latent"
    other = "latent" if own == "pixel" else "pixel"
    init = folder.parent / step.init / "model" if step.init in STEP_NAMES else step.init
    brought = [key.format(path) for name, path in files.items() for key in PACKED_FILES.get(name, ())]
    overrides = [
        f"output={folder}",
        f"trainer.hours={hours}",
        f"data.packed={json.dumps([str(folder) for folder in packed])}",
        "data.resident=true",
        *([] if hours * 3600 >= COMPILED_FROM else ["trainer.compile=false"]),
        *([f"init={init}"] if step.init else []),
        *brought,
        *(override for override in given if override.partition(":")[0] not in STEP_NAMES),
        *step.overrides,
        *(override.partition(":")[2] for override in given if override.startswith(f"{step.name}:")),
    ]
    return load_config(step.schema, configs / step.config, [o for o in overrides if not o.startswith(f"{other}.")])


def _free_memory() -> None:
    """The photos of a step fill a GPU: the next one's come when they are gone."""
    torch.compiler.reset()  # what is compiled holds the stage it was made for
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free(folder: Path) -> Path:
    number = 1
    while folder.with_name(f"{folder.name}_stopped_{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}_stopped_{number}")


def _assemble(steps: list[Step], done: dict[str, Path], output: Path) -> Path:
    """The colorization's model with the localizer's weights, and those for few steps."""
    model = output / "model"
    if model.exists():
        shutil.rmtree(model)
    shutil.copytree(done["colorization"], model)
    for step in steps:
        if step.part and (made := done[step.name] / step.part).is_file():
            (model / step.part).parent.mkdir(exist_ok=True)
            shutil.copy(made, model / step.part)
    return model
