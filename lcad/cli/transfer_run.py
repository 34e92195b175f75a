"""Transferring colours to the photos of a folder, one by one, as carefully as `lcad.inference.batch_runner` does."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcad.inference.output import OutputFolder, read_result_record
from lcad.inference.plan import Job
from lcad.inference.records import file_hash, model_hash, same_result, to_json
from lcad.inference.run_records import pixel_hash
from lcad.inference.summary import SHEET_ROWS, THUMBNAIL, Summary, failure, one_line
from lcad.io.contact_sheet import Row
from lcad.io.images import read_image, shrink, write_bytes, write_image
from lcad.io.photos import Photo, notes_on_writing, read_photo, write_photo
from lcad.pipeline import LCADPipeline
from lcad.pipeline_inputs import LCADPipelineOutput
from lcad.recoloring.transfer import Transfer, transfer_colors
from lcad.recoloring.transfer_reference import reference_colors
from lcad.text.captions import SCARCE_CAPTION

CONFIDENCE = "confidence"  # folder in the output folder
DECISIVE = ("photo_sha256", "colors_sha256", "settings", "model_sha256", "caption")  # of a record, for a result
VERSION = 1  # of the method; results of another one are not taken for the same


class Filler:
    """The model's colours for what a picture does not give.

    Args:
        steps: of sampling; None: the model's own.
    """

    def __init__(self, pipeline: LCADPipeline, steps: int | None, seed: int):
        self.pipeline, self.steps, self.seed = pipeline, steps, seed
        self.model_sha256 = model_hash(pipeline)

    def __call__(self, luminance: Tensor, caption: str) -> Tensor:
        """L (1, H, W) -> the model's picture, sRGB (3, h, w) of its own size."""
        texts, generator = [caption or SCARCE_CAPTION], [torch.Generator().manual_seed(self.seed)]
        made = self.pipeline(
            [luminance], texts, num_inference_steps=self.steps, generator=generator, output_type="decoded"
        )
        return cast(LCADPipelineOutput, made).images[0]


@dataclass
class TransferRun:
    """Does jobs one by one; one that fails is reported and the others go on.

    Attributes:
        fill: for what does not fit; None: it stays grey.
        reference: the pictures show similar things, not the photos.
        show_confidence: write a picture of what fits.
        report: is told of notes, a line each.
        summary: what has come of the jobs.
    """

    output: OutputFolder
    fill: Filler | None = None
    reference: bool = False
    show_confidence: bool = False
    report: Callable[[str], None] = print
    summary: Summary = field(default_factory=Summary)

    def run(
        self, jobs: list[Job], pictures: dict[Path, Path], progress: Callable[[list[Job]], Iterable[Job]] = iter
    ) -> Summary:
        """Do all jobs, each with its picture."""
        self.output.protect([*pictures, *pictures.values()])
        for job in progress(jobs):
            try:
                self._do(job, pictures[job.photo])
            except Exception as error:  # of many kinds, for files of strangers; the others go on
                self.summary.fail(failure(job.photo, error))
        return self.summary

    def _do(self, job: Job, picture: Path) -> None:
        shown = self.output.folder / CONFIDENCE / f"{job.name}.png"
        obstacle = self.output.obstacle(job) or self._obstacle(job, shown)
        if obstacle is not None:
            return self.summary.fail(obstacle)
        (path,) = self.output.results(job)
        record = self._record(job, picture, path)
        if path.exists() and not self.output.overwrite:
            if same_result(read_result_record(self.output.record(job)), record, DECISIVE):
                self.summary.kept += 1
                return None
            return self.summary.fail(
                f"{path}: exists already and was made differently; choose another --output or --overwrite"
            )
        photo, colors = read_photo(job.photo), read_image(picture)
        for note in photo.notes + notes_on_writing(photo, path.suffix):
            self.report(one_line(f"note: {job.photo.name}: {note}"))
        luminance = photo.luminance()
        transfer = (reference_colors if self.reference else transfer_colors)(luminance, colors)
        values = self._values(photo, luminance, transfer, job.caption)
        record |= transfer.report() | {"pixels": pixel_hash(values)}
        path.unlink(missing_ok=True)  # first the record: a run killed in between finds the result missing
        write_bytes(self.output.record(job), to_json(record, indent=2))
        write_photo(path, values, photo)
        confidence = transfer.shown_confidence(luminance)
        if self.show_confidence:
            write_image(shown, confidence)
        self._add_row(job, photo, colors, confidence, values, transfer)
        self.summary.written += 1

    def _values(self, photo: Photo, luminance: Tensor, transfer: Transfer, caption: str) -> np.ndarray:
        """The result (H, W, 3) in the photo's depth and profile."""
        rest = None
        if self.fill is not None and float(transfer.confidence.min()) < 1:
            rest = self.fill(luminance, caption)
        return photo.encoded_strips((luminance.shape[-2], luminance.shape[-1]), transfer.strips(luminance, rest))

    def _record(self, job: Job, picture: Path, path: Path) -> dict:
        """What decides a result, and where it comes from."""
        fill = self.fill
        model = {"steps": fill.steps, "seed": fill.seed, "dtype": str(fill.pipeline.dtype)} if fill else None
        return {
            "photo": str(job.photo),
            "photo_sha256": file_hash(job.photo),
            "colors": str(picture),
            "colors_sha256": file_hash(picture),
            "results": [path.name],
            "settings": {"method": "reference" if self.reference else "registered", "version": VERSION, "fill": model},
            "model": str(fill.pipeline.source) if fill else None,
            "model_sha256": fill.model_sha256 if fill else None,
            "caption": (job.caption or SCARCE_CAPTION) if fill else None,
        }

    def _obstacle(self, job: Job, shown: Path) -> str | None:
        """Why the confidence cannot be written; None: it can, or need not."""
        if not self.show_confidence or not shown.exists():
            return None
        found = shown.stat()
        if (found.st_dev, found.st_ino) in self.output.inputs:
            return f"{shown}: the confidence would replace an input; choose another --output"
        if read_result_record(self.output.record(job)) is None and not self.output.overwrite:
            return f"{shown}: is not of an earlier result here and is kept; choose another --output or --overwrite"
        return None

    def _add_row(
        self,
        job: Job,
        photo: Photo,
        colors: Image.Image,
        confidence: Image.Image,
        values: np.ndarray,
        transfer: Transfer,
    ) -> None:
        if len(self.summary.rows) >= SHEET_ROWS:
            return
        pictures = [
            ("grey", photo.preview(THUMBNAIL).convert("L")),
            ("reference" if self.reference else "colours from", colors),
            ("what does not fit, in red", confidence),
            ("result", photo.shown(values, THUMBNAIL)),
        ]
        small = [(title, shrink(picture.convert("RGB"), THUMBNAIL)) for title, picture in pictures]
        self.summary.rows.append(Row(small, f"{job.photo.name}: {transfer.confidence.mean():.0%} of it"))
