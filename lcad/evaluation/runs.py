"""What an evaluation is made of: samples, this project's model with parts switched off, and baselines."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcad.data.build.manifest import MANIFEST, read_manifest, verify
from lcad.evaluation.baselines import Method
from lcad.evaluation.scoring import Sample, fitted, middle_square
from lcad.inference.batch_runner import FolderRun
from lcad.inference.output import OutputFolder
from lcad.inference.plan import Job, Settings
from lcad.inference.records import file_hash, to_json
from lcad.io.images import image_folder, list_images, read_image, to_image, to_tensor, write_bytes, write_image
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import FoundMasks, MaskFinder
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.captions import SCARCE_CAPTION, read_captions
from lcad.text.levels import caption_at_level

ABLATIONS = {
    "L-CAD": "all of the paper",
    "W/o LIC": "without luminance-guided image compression: the plain decoder",
    "W/o SLR": "without semantic-aligned latent representation: a model trained without channel-extended convolutions",
    "W/o ISS": "without the instance-aware sampling strategy",
}


@dataclass(frozen=True)
class Run:
    """A row of a table: a model with settings, under the name the paper gives it."""

    method: str
    model: str
    settings: Settings


def read_samples(folder: Path, captions: Path | None, level: str) -> list[Sample]:
    """The photos of a folder with their one caption each: the manifest's if there is one, else the first.

    Args:
        level: complete (the caption as it is), partial or scarce, see `lcad.text.levels`.

    Raises:
        FileNotFoundError: no such folder, or no images. ValueError: files are not as the manifest says, two photos
            of one stem, or an unknown level.
    """
    if (folder / MANIFEST).is_file() and captions is None:
        wrong = verify(folder)
        if wrong:
            states = ", ".join(f"{name} ({state})" for name, state in list(wrong.items())[:5])
            raise ValueError(f"{folder}: {len(wrong)} files are not as {MANIFEST} says: {states}")
        photos = {folder / row.file: row.caption for row in read_manifest(folder / MANIFEST)}
    else:
        found = list_images(image_folder(folder))
        listed = read_captions(found[0].parent, captions)
        photos = {photo: (listed.get(photo.name) or [SCARCE_CAPTION])[0] for photo in found}
    stems = [photo.stem for photo in photos]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1}) if len(set(stems)) < len(stems) else []
    if twice:
        raise ValueError(f"{folder}: several photos are called {', '.join(twice[:5])}; results could not be told apart")
    return [Sample(photo, caption_at_level(caption, level)) for photo, caption in photos.items()]


def ablation(name: str, model: str, settings: Settings) -> Run:
    """One of `ABLATIONS`; for "W/o SLR", `model` is the one trained without."""
    changes: dict[str, dict[str, Any]] = {"W/o LIC": {"luminance_guidance": False}, "W/o ISS": {"refinement": None}}
    return Run(name, model, replace(settings, **changes.get(name, {})))


def folder_name(method: str) -> str:
    """A method's folder of results: "W/o LIC*" -> "wo_lic_scarce"."""
    plain = method.replace("/", "").replace("-", "").replace("*", " scarce").lower()
    return "_".join("".join(c if c.isalnum() else " " for c in plain).split())


def colorize(
    run: Run,
    pipeline: LCADPipeline,
    samples: list[Sample],
    output: Path,
    find_masks: MaskFinder | None,
    batch_size: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Colorize the samples into `output`; what is there from the same model and settings is kept.

    Raises:
        ValueError: a photo could not be done, or a result made differently is in the way; the first is named.
    """
    runner = FolderRun(pipeline, run.settings, OutputFolder(output, samples=run.settings.kept), find_masks)
    jobs = [Job(sample.photo, sample.caption, sample.photo.stem) for sample in samples]
    problems = runner.run(jobs, batch_size, progress).problems
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"{run.method}: {problems[0]}{more}")


def cropped(
    samples: list[Sample], folder: Path, find_masks: MaskFinder | None = None
) -> tuple[list[Sample], MaskFinder | None]:
    """The samples with the middle squares of photos that are not square, written into `folder`, and their masks.

    The masks are found in the whole photos, where files have them, and cropped too.
    """
    originals: dict[Path, Path] = {}
    made = []
    for sample in samples:
        image = read_image(sample.photo)
        if image.width != image.height:
            square = folder / f"{sample.photo.stem}.png"
            write_image(square, fitted(image, min(image.size), "crop"))
            originals[square] = sample.photo
            sample = replace(sample, photo=square)
        made.append(sample)
    if find_masks is None:
        return made, None

    def find(photo: Path, image: PreparedPhoto, caption: str) -> FoundMasks | None:
        original = originals.get(photo)
        if original is None:
            return find_masks(photo, image, caption)
        found = find_masks(original, PreparedPhoto.of(read_image(original)), caption)
        if found is None:
            return None
        masks = middle_square(found.instances.masks)
        used = [i for i, mask in enumerate(masks) if mask.any()]
        instances = InstanceMasks([found.instances.phrases[i] for i in used], masks[used])
        return replace(found, instances=instances, scores=[found.scores[i] for i in used if found.scores])

    return made, find


def make_baseline(
    method: Method,
    samples: list[Sample],
    output: Path,
    size: int,
    progress: Callable[[Iterable], Iterable] = iter,
    fit: str = "squash",
) -> None:
    """Write what a baseline makes of the samples at size x size, and a record of what it was made from beside it.

    What is there is kept if it was made by the same method from the same photo and caption.
    """
    for sample in progress(samples):
        path = output / f"{sample.photo.stem}.png"
        record = {"size": size, "photo_sha256": file_hash(sample.photo), "caption": sample.caption, "fit": fit}
        record |= {"method": getattr(method, "settings", {"name": method.__name__})}
        beside = path.with_suffix(".json")
        if path.exists() and beside.is_file() and beside.read_bytes() == to_json(record):
            continue
        photo = fitted(read_image(sample.photo), size, fit)
        result = to_image(method(to_tensor(photo), sample.caption))
        path.unlink(missing_ok=True)
        write_bytes(beside, to_json(record))
        write_image(path, result)
