"""Another look for results that are there, from their files and records, without the model."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcad.inference.output import read_result_record
from lcad.inference.records import to_json
from lcad.io.color_profiles import linear_to_srgb, strips
from lcad.io.images import write_bytes
from lcad.io.photos import Photo, read_photo, write_photo
from lcad.recoloring.looks import change_look

Look = tuple[float, float]
"""saturation and warmth, see `lcad.recoloring.looks`"""

STALE = ("instances", "color_results", "seconds", "batch")  # of a record, what is not true of the adjusted result


def find_results(source: Path) -> tuple[list[tuple[Path, dict]], list[str]]:
    """Results with their records -> (file, record) of each, and a line for each that is missing.

    Args:
        source: a result, a record, or a folder of records.

    Raises:
        ValueError: no record there.
    """
    if source.is_dir():
        files = sorted(source.rglob("*.json"))
    else:
        stems = [source.stem, source.stem.rpartition("_")[0]]  # of the first sample, and of the others, "photo_1"
        files = [source] if source.suffix == ".json" else [source.with_name(f"{stem}.json") for stem in stems if stem]
    found: list[tuple[Path, dict]] = []
    missing = []
    for file in files:
        record = read_result_record(file)
        if record is None:
            continue
        for path in (file.parent / Path(str(name)).name for name in record["results"]):
            if not source.is_dir() and source.suffix != ".json" and path.name != source.name:
                continue
            if path.is_file():
                found.append((path, record))
            else:
                missing.append(f"{path}: is named by its record {file.name}, but is not there")
    if not found and not missing:
        raise ValueError(f"{source}: no result with its record; give a result of scripts/sample.py, or its folder")
    return found, missing


def adjust(result: Path, record: dict, look: Look, folder: Path, overwrite: bool = False) -> Path:
    """Write a result with another look, and its record, into a folder -> the new file.

    The record is the old one with the new look in its settings, and `adjusted_from` says which file was read.

    Raises:
        ValueError: the file exists, or has no colours left. OSError: the disk. ImageError: the result is damaged.
    """
    target = folder / result.name
    json_file = folder / f"{result.stem}.json"
    if os.path.exists(folder) and os.path.samefile(folder, result.parent):
        raise ValueError(f"{target}: the look would replace the result it is made from; choose another --output")
    for path in (target, json_file):
        if os.path.lexists(path) and not (overwrite and read_result_record(json_file) is not None):
            raise ValueError(f"{path}: exists already; choose another --output or --overwrite")
    photo = read_photo(result)
    values = with_look(photo, _look_of(record), look)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in record.items() if key not in STALE}
    settings = record["settings"] | {"saturation": look[0], "warmth": look[1]}
    changed = {"settings": settings, "results": [target.name], "adjusted_from": str(result)}
    target.unlink(missing_ok=True)
    write_bytes(json_file, to_json(kept | changed, indent=2))
    write_photo(target, values, photo)
    return target


def with_look(photo: Photo, before: Look, after: Look) -> np.ndarray:
    """The values (H, W, 3) of a result that has a look, with another, in its own depth and profile; in strips of rows.

    Raises:
        ValueError: see `lcad.recoloring.looks.change_look`.
    """
    height, width = photo.values.shape[:2]
    peak = np.iinfo(photo.values.dtype).max

    def looked(rows: slice) -> torch.Tensor:
        part = photo.values[rows]
        rgb = part.astype(np.float32) / peak if photo.space is None else linear_to_srgb(photo.space.linear(part))
        rgb = np.broadcast_to(rgb[..., None], (*rgb.shape, 3)) if rgb.ndim == 2 else rgb
        return change_look(torch.from_numpy(np.array(rgb, np.float32)).movedim(-1, 0), before, after)

    return photo.encoded_strips((height, width), ((rows, looked(rows)) for rows in strips(height, width)))


def _look_of(record: dict) -> Look:
    """The look in a record's settings; raises ValueError: it is none."""
    settings: Any = record.get("settings")  # whatever stands in the file
    try:
        return float(settings.get("saturation", 1)), float(settings.get("warmth", 0))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{record.get('photo')}: its record has no settings that can be read ({error})") from error
