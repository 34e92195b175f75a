"""Sources of instance masks by name, and the function from a photo and its caption to masks each comes to."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import CLIPTokenizer

from lcad.masks.from_text import MaskFinder, build_file_finder, build_region_finder
from lcad.masks.labelled import build_label_finder, coco_labels, map_labels
from lcad.masks.providers import PROVIDERS, SOURCES, best_provider
from lcad.masks.types import ProviderOptions

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

__all__ = ["SOURCES", "build_finder"]


def build_finder(
    source: str,
    pipeline: "LCADPipeline",
    files: Path | None = None,
    label_names: Path | None = None,
    options: ProviderOptions | None = None,
) -> MaskFinder | None:
    """Where masks come from: a row of `SOURCES`; None for `none`.

    Args:
        files: for `files` and `auto`: a folder of mask files, or of label maps if `label_names` says what their ids
            are, or a JSON file of labelled objects in COCO's format.
        options: of the mask providers.

    Raises:
        ValueError: an unknown source, or one that lacks what it needs. FileNotFoundError: no such files.
        CheckpointError: see the providers. MaskError: see `coco_labels`.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown source of masks {source!r}; allowed: {', '.join(SOURCES)}")
    if source == "none":
        return None
    localizer = pipeline.with_localizer  # may copy weights: only for a finder that needs them
    if source not in ("files", "auto"):
        return build_region_finder(localizer(), PROVIDERS[source](options or ProviderOptions()))
    filed = None if files is None else _build_given_finder(pipeline.tokenizer, localizer, files, label_names)
    if source == "files":
        if filed is None:
            raise ValueError("masks from files need their folder")
        return filed
    automatic = build_region_finder(localizer(), best_provider(options or ProviderOptions()))
    if filed is None:
        return automatic
    return lambda path, photo, caption: filed(path, photo, caption) or automatic(path, photo, caption)


def _build_given_finder(
    tokenizer: CLIPTokenizer, localizer: Callable[[], "LCADPipeline"], files: Path, label_names: Path | None
) -> MaskFinder:
    if not files.exists():
        raise FileNotFoundError(f"{files}: no such folder of masks, nor file of labelled objects")
    if files.is_file():
        return build_label_finder(localizer(), coco_labels(files))
    if label_names is not None:
        return build_label_finder(localizer(), map_labels(files, label_names))
    return build_file_finder(files, tokenizer)
