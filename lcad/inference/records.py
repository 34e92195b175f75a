"""The JSON record beside each result: everything that decided it."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from lcad.inference.plan import Job, Settings
from lcad.masks.from_text import FoundMasks
from lcad.models.lcm_lora import FOLDER
from lcad.pipeline import LCADPipeline
from lcad.recoloring.object_masks import FoundObjects
from lcad.text.captions import SCARCE_CAPTION

PACKAGES = ("torch", "diffusers", "transformers", "pillow")
MASKS = ("masks_sha256", "color_masks_sha256")
DECISIVE = ("photo_sha256", "caption", "settings", "colors", "model_sha256", "dtype", *MASKS)  # for a result


class Recorder:
    """Makes the records of one run; the model's weights are hashed once."""

    def __init__(self, pipeline: LCADPipeline, settings: Settings):
        self.model_sha256 = model_hash(pipeline)
        self._of_run = {
            "settings": asdict(settings),
            "model": str(pipeline.source),
            "model_sha256": self.model_sha256,
            "device": str(pipeline.device),
            "dtype": str(pipeline.unet.dtype).removeprefix("torch."),
            "versions": {name: version(name) for name in PACKAGES},
        }

    def record(
        self,
        job: Job,
        found: FoundMasks | None,
        photo_sha256: str,
        results: list[Path],
        objects: FoundObjects | None = None,
    ) -> dict:
        """Everything needed to repeat a result."""
        used = [] if found is None else [phrase.text for phrase in found.instances.phrases]
        return {
            "photo": str(job.photo),
            "photo_sha256": photo_sha256,
            "results": [path.name for path in results],
            "caption": job.caption or SCARCE_CAPTION,
            "masked_phrases": used,
            "masks_sha256": None if found is None else _mask_hash(found.instances.masks),
            "colors": [target.text for target in job.colors] or None,
            "color_masks_sha256": None if objects is None else _mask_hash(objects.masks),
            "mask_scores": [] if found is None else [round(score, 3) for score in found.scores],
        } | self._of_run


def same_result(old: dict | None, new: dict, decisive: Iterable[str] = DECISIVE) -> bool:
    """Would the result of one record be that of the other? What settings an older record lacks had their defaults."""
    if old is None:
        return False
    settings = old.get("settings")
    if isinstance(settings, dict):  # a transfer's record has others than a run's
        defaults = {name: value for name, value in asdict(Settings()).items() if name in new["settings"]}
        settings = defaults | settings
    return all((settings if key == "settings" else old.get(key)) == new[key] for key in decisive)


def _mask_hash(masks: Tensor) -> str:
    return hashlib.sha256(masks.numpy().tobytes()).hexdigest()


def to_json(record: dict, indent: int | None = None) -> bytes:
    """JSON in UTF-8; what is no UTF-8 in a file's name is escaped, and comes back as it was."""
    return json.dumps(record, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace")


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_hash(folder: Path, found: Iterable[Path], suffixes: tuple[str, ...]) -> str:
    """SHA-256 over the names and contents of what is found in a folder and has one of the suffixes."""
    digest = hashlib.sha256()
    for file in sorted(found):
        if file.suffix in suffixes and file.is_file():
            digest.update(f"{file.relative_to(folder).as_posix()} {file_hash(file)}\n".encode())
    return digest.hexdigest()


def model_hash(pipeline: LCADPipeline) -> str:
    """SHA-256 over the checkpoint's configs and weights: of its files, or of the tensors if it was made in memory.

    Weights for a few steps count where they are used.
    """
    source = pipeline.source
    if source is not None:
        left_out = None if pipeline.few_step else source / FOLDER
        files = (path for path in (*source.glob("*"), *source.glob("*/*")) if path.parent != left_out)
        return files_hash(source, files, (".json", ".safetensors", ".txt"))
    digest = hashlib.sha256()
    digest.update(repr(sorted(pipeline.config.items())).encode())
    for part in (pipeline.unet, pipeline.luminance_encoder, pipeline.vae, pipeline.text_encoder):
        for name, value in part.state_dict().items():
            digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
