"""From the model's pictures to results on disk: the photo's own luminance, what the objects came to, files."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lcad.inference.adherence import adherent_share, instance_report
from lcad.inference.output import OutputFolder
from lcad.inference.plan import Job, Settings
from lcad.inference.records import to_json
from lcad.inference.run_records import pixel_hash
from lcad.io.images import to_tensor, write_bytes
from lcad.io.photos import Photo, write_photo
from lcad.io.pixels import shrunk_size
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import FoundMasks
from lcad.masks.types import InstanceMasks
from lcad.recoloring.dyeing import EDGE_SIDE, Dyes
from lcad.recoloring.exact_colors import color_rows, find_dyes
from lcad.recoloring.looks import apply_look
from lcad.recoloring.object_masks import FoundObjects
from lcad.upsampling import resize, transfer_chroma, transfer_chroma_strips

SHOWN_SIDE = 512  # pixels, long side of the copies of photo and result that are kept to show and to judge


@dataclass
class Loaded:
    """A photo that is ready for the model."""

    job: Job
    photo: Photo
    prepared: PreparedPhoto
    image: Image.Image  # 8 bit RGB, `SHOWN_SIDE` at most
    found: FoundMasks | None
    record: dict
    company: bool = False  # see `Batch`
    objects: FoundObjects | None = None  # that are to have exact colours

    @property
    def instances(self) -> InstanceMasks | None:
        return None if self.found is None else self.found.instances


@dataclass
class Result:
    """What the model made of a photo."""

    item: Loaded
    values: list[np.ndarray]  # (H, W, 3) in the photo's depth, for each result that is kept
    images: list[Image.Image]  # the same in 8 bit, `SHOWN_SIDE` at most
    record: dict


def finish(item: Loaded, pictures: list[torch.Tensor], settings: Settings) -> Result:
    """What is kept of the model's pictures of a photo, at the photo's size.

    Args:
        pictures: (3, h, w) in [0, 1], one for each sample.
    """
    made = [_at_full_size(decoded, item, settings) for decoded in pictures]
    images = [item.photo.shown(own, SHOWN_SIDE) for own, _ in made]
    order, reports = _judge(item, images, settings)
    record = item.record | {"instances": reports}
    if item.objects is not None:
        asked = item.objects.colors, item.objects.names
        record["color_results"] = [
            color_rows(to_tensor(images[k]), dyes.edges, *asked) for k in order if (dyes := made[k][1]) is not None
        ]
    return Result(item, [made[k][0] for k in order], [images[k] for k in order], record)


def write(result: Result, output: OutputFolder) -> list[str]:
    """Write record and results -> a hash of the pixels of each.

    First the record: a run killed in between finds results missing, never one without its record.
    """
    paths = output.results(result.item.job)
    for path in paths:
        path.unlink(missing_ok=True)
    write_bytes(output.record(result.item.job), to_json(result.record, indent=2))
    for path, values in zip(paths, result.values, strict=True):
        write_photo(path, values, result.item.photo)
    return list(map(pixel_hash, result.values))


def _at_full_size(decoded: torch.Tensor, item: Loaded, settings: Settings) -> tuple[np.ndarray, Dyes | None]:
    """The result (H, W, 3) in the photo's depth and profile, and how its objects came to their exact colours."""
    luminance, photo, own = item.prepared.luminance, item.photo, settings.output_luminance == "input"
    height, width = size = luminance.shape[-2:]
    dyes = None
    parts: Iterable[tuple[slice, torch.Tensor]]
    if item.objects is not None:
        small = shrunk_size(size, EDGE_SIDE)
        copy = transfer_chroma(resize(luminance[None], small), decoded[None]) if own else resize(decoded[None], small)
        dyes = find_dyes(copy[0].clamp(0, 1), item.objects.masks, item.objects.colors)
    if own:
        parts = ((rows, rgb[0]) for rows, rgb in transfer_chroma_strips(luminance[None], decoded[None]))
    else:
        parts = [(slice(0, height), resize(decoded[None], size)[0].clamp(0, 1))]
    if dyes is not None:
        parts = ((rows, dyes.apply(rgb, rows, (height, width))) for rows, rgb in parts)
    looked = ((rows, apply_look(rgb, settings.saturation, settings.warmth)) for rows, rgb in parts)
    return photo.encoded_strips((height, width), looked), dyes


def _judge(item: Loaded, images: list[Image.Image], settings: Settings) -> tuple[list[int], list[list[dict]]]:
    """Which results to keep, and for each what its masked objects were asked to be and are."""
    if item.instances is None:
        return list(range(settings.kept)), [[] for _ in range(settings.kept)]
    reports = [instance_report(image, item.instances) for image in images]
    order = list(range(len(images)))
    if settings.pick == "adherence":
        order = sorted(order, key=lambda k: -adherent_share(reports[k]))  # of equals the first
    order = order[: settings.kept]
    return order, [reports[k] for k in order]
