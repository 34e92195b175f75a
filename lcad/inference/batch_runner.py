"""Doing the jobs of a folder in batches: reading ahead, the model, and writing behind."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lcad.inference.batch_size import BATCH_SIZE, choose_batch_size, colorize_batch, release_memory
from lcad.inference.finish import SHOWN_SIDE, Loaded, Result, finish, write
from lcad.inference.output import SAVED_MASKS, SHOWN_MASKS, OutputFolder, read_result_record
from lcad.inference.plan import Job, Settings, plan_batches
from lcad.inference.reading import read_ahead
from lcad.inference.records import DECISIVE, MASKS, Recorder, file_hash, same_result
from lcad.inference.summary import Summary, failure, one_line
from lcad.io.contact_sheet import contact_sheet
from lcad.io.images import ImageError, read_image, read_size, shrink, write_image
from lcad.io.photos import Photo, notes_on_writing
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.files import MaskError, save_masks, save_spans
from lcad.masks.from_text import FoundMasks, MaskFinder
from lcad.masks.overlay import mask_row
from lcad.masks.types import InstanceMasks, enlarge
from lcad.pipeline import LONGEST_ASPECT, LCADPipeline
from lcad.recoloring.object_masks import FoundObjects, build_object_finder

OUT_OF_MEMORY = (MemoryError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class RunOptions:
    """What does not decide a result.

    Attributes:
        show_masks, save_masks: write the masks that are used, to look at or to edit.
        readers: threads that read photos ahead.
    """

    show_masks: bool = False
    save_masks: bool = False
    readers: int = 2


class FolderRun:
    """Colorizes jobs with one pipeline into one output folder.

    A photo that cannot be done is reported and the others go on. A result that exists is kept if its record
    says it was made from the same photo with the same settings, and is never overwritten unless asked.
    A result is lossless and has its photo's depth, profile and EXIF, unless the output folder's suffix says otherwise.

    Args:
        report: is told of notes, a line each.
        log: is told of each photo, see `lcad.inference.run_records`.
    """

    def __init__(
        self,
        pipeline: LCADPipeline,
        settings: Settings,
        output: OutputFolder,
        find_masks: MaskFinder | None = None,
        options: RunOptions = RunOptions(),  # noqa: B008 (frozen)
        report: Callable[[str], None] = print,
        log: Callable[[dict], None] = lambda line: None,
    ):
        self.pipeline, self.settings, self.output = pipeline, settings, output
        self.find_masks, self.options, self._report, self.log = find_masks, options, report, log
        self.find_objects = build_object_finder(pipeline)  # for exact colours; another may be put in its place
        self.summary = Summary()
        self._room: float = math.inf  # photos that memory has room for, as far as is known

    def run(
        self,
        jobs: list[Job],
        batch_size: int | None = BATCH_SIZE,
        progress: Callable[[Iterable], Iterable] = iter,
        recorded: dict[str, tuple[str, ...]] | None = None,
    ) -> Summary:
        """Do all jobs, in batches of photos that come to the same model size.

        While the model works on a batch, the photos of the next are read and the results of the one before written,
        unless one of them is of more than `BATCH_PIXELS`.

        Args:
            batch_size: None: as many as the device's memory has room for.
            recorded: batches of an earlier run, see `plan_batches`.
        """
        self.output.protect(job.photo for job in jobs)
        if batch_size is None:
            batch_size = choose_batch_size(self.pipeline, self.settings)
            self._report(f"note: up to {batch_size} photos at a time")
        batches = progress(list(plan_batches(jobs, batch_size, self._sizes, recorded)))
        writing: list[tuple[Result, Future]] = []
        with ThreadPoolExecutor(self.options.readers) as readers, ThreadPoolExecutor(1) as writer:
            try:
                for batch, reading in read_ahead(readers, batches):
                    if batch.alone:
                        self._take_written(writing)
                    tried = [self._attempt(job, self._load, photo, job.name in batch.company) for job, photo in reading]
                    loaded = [item for item in tried if item is not None]
                    tried.clear()
                    reading.clear()  # it holds the photos, and so do the other lists: none may outlive its use
                    results = self._colorize(loaded) if loaded else []
                    loaded.clear()
                    self._take_written(writing)
                    writing += [(result, writer.submit(write, result, self.output)) for result in results]
                    results.clear()
                    if batch.alone:
                        self._take_written(writing)
            finally:  # also of a run that is interrupted
                readers.shutdown(wait=False, cancel_futures=True)
                self._take_written(writing)
        return self.summary

    def plan(self, jobs: list[Job]) -> Iterator[tuple[Job, str]]:
        """What `run` would do with each job, without doing it: "new", "in the way" or "done" if a result is there.

        "done" is said of a result from the same photo, caption, settings and model; masks are not looked for.
        """
        self.output.protect(job.photo for job in jobs)
        for job in jobs:
            state = "new"
            if self.output.obstacle(job) is not None:
                state = "in the way"
            elif not self.output.overwrite and self.output.results(job)[0].exists():
                try:
                    record = self._recorder.record(job, None, file_hash(job.photo), [])
                except OSError:
                    record = None
                decisive = [key for key in DECISIVE if key not in MASKS]
                old = read_result_record(self.output.record(job))
                state = "done" if record is not None and same_result(old, record, decisive) else "in the way"
            yield job, state

    @property
    def model_sha256(self) -> str:
        """Of the model's configs and weights."""
        return self._recorder.model_sha256

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self.pipeline, self.settings)

    def _sizes(self, job: Job) -> tuple[tuple[tuple[int, int], ...], int]:
        """Those the model works at, and the photo's own number of pixels."""
        try:
            width, height = read_size(job.photo)
            if self.settings.size is not None:  # all are made the same
                return (), width * height
            own = self.pipeline.model_sizes(height, width, self.settings.model_size, self.settings.tiled_size)
            return own, width * height
        except Exception:  # reported when the photo is read in full
            return (), 0

    def _attempt(self, job: Job, action: Callable, *args):
        """`action(job, *args)`; whatever goes wrong is this photo's failure, and None is returned."""
        try:
            return action(job, *args)
        except Exception as error:
            return self._fail(job, _reason(job, error))

    def _load(self, job: Job, reading: Future, company: bool = False) -> Loaded | None:
        """A job's inputs; None if there is nothing to do or it cannot be done (then reported)."""
        photo, photo_hash = reading.result()
        obstacle = self.output.obstacle(job)
        if obstacle is not None:
            return self._fail(job, obstacle)
        paths = self.output.results(job)
        notes = photo.notes + notes_on_writing(photo, paths[0].suffix)
        size = photo.values.shape[:2]
        if self.settings.size is None and max(size) > LONGEST_ASPECT * min(size):
            notes.append(f"is longer than {LONGEST_ASPECT} times its short side; the model sees it smaller than others")
        self._note(job, notes)
        prepared = PreparedPhoto.of(photo)
        found = self._find_masks(job, prepared)
        objects = self._find_objects(job, prepared, found)
        if self.settings.size is not None:
            resized = photo.preview().resize((self.settings.size, self.settings.size), Image.Resampling.BICUBIC)
            photo = Photo(np.asarray(resized))
            prepared, found = PreparedPhoto.of(photo), None if found is None else _resized(found, self.settings.size)
        record = self._recorder.record(job, found, photo_hash, paths, objects)
        record |= {"size": [prepared.width, prepared.height], "notes": notes}
        image = shrink(prepared.image, SHOWN_SIDE)
        there = [path.exists() for path in paths]
        same = same_result(read_result_record(self.output.record(job)), record)
        kept = None if company or not same or not all(there) else self._read_kept(paths)
        if kept is None and (company or self.output.overwrite or not any(there) or same):
            return Loaded(job, photo, prepared, image, found, record, company, objects)
        if kept is not None:
            self.summary.add_row(job, image, kept)
            self._log({"name": job.name, "outcome": "kept"})
            self.summary.kept += 1
            return None
        return self._fail(
            job, f"{paths[0]}: exists already and was made differently; choose another --output or --overwrite"
        )

    def _read_kept(self, paths: list[Path]) -> list[Image.Image] | None:
        """Results of an earlier run; None: damaged, and to be made again.

        Raises:
            ImageError: damaged, and nothing is to be overwritten.
        """
        try:
            return [read_image(path) for path in paths]
        except ImageError:
            if not self.output.overwrite:
                raise
            return None

    def _find_masks(self, job: Job, photo: PreparedPhoto) -> FoundMasks | None:
        if self.find_masks is None or job.level == "scarce" or not job.caption:  # no phrases for the masks
            return None
        try:
            found = self.find_masks(job.photo, photo, job.caption)
        except (MaskError, ImageError) as error:
            self.summary.add_problem(f"{error}; {job.photo.name} is colorized without masks")
            return None
        if found is None:
            return None
        self._note(job, found.notes)
        if self.options.show_masks:
            sheet = contact_sheet([mask_row(photo.image, job.caption, found)])
            write_image(self.output.folder / SHOWN_MASKS / f"{job.name}.png", sheet)
        if self.options.save_masks and len(found.instances.phrases):
            self._save_masks(job, found, photo)
        return found if len(found.instances.phrases) else None

    def _find_objects(self, job: Job, photo: PreparedPhoto, found: FoundMasks | None) -> FoundObjects | None:
        """The objects that are to have exact colours; those that are not found are problems."""
        if not job.colors:
            return None
        objects = self.find_objects(job.colors, photo, job.caption, None if found is None else found.instances)
        for note in objects.notes:
            self.summary.add_problem(f"{job.photo}: {note}; colorized without it")
        return objects if objects.targets else None

    def _save_masks(self, job: Job, found: FoundMasks, photo: PreparedPhoto) -> None:
        folder, stem, phrases = self.output.folder / SAVED_MASKS, job.photo.stem, found.instances.phrases
        if not stem.strip("."):
            return self._note(job, ["masks are not saved: no folder can be called as this photo; give it a name"])
        if (folder / stem).exists() and not self.output.overwrite:
            return self._note(job, [f"masks are in {folder / stem} already and are kept"])
        for old in (folder / stem).glob("*.png"):
            old.unlink()
        save_masks(folder, stem, enlarge(found.instances.masks, photo), [phrase.text for phrase in phrases])
        save_spans(folder, stem, job.caption, [phrase.characters for phrase in phrases])

    def _colorize(self, batch: list[Loaded]) -> list[Result]:
        """What the model makes of a batch; one that fails is done in halves, down to the photo whose failure it is.

        Where memory has been too small for a batch, later ones are of half its size at most.
        """
        if len(batch) > self._room:
            return self._colorize(batch[: self._room]) + self._colorize(batch[self._room :])
        half = len(batch) // 2
        try:
            return self._colorize_together(batch)
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0].job, _reason(batch[0].job, error))
                return []
            if isinstance(error, OUT_OF_MEMORY):
                self._room = half
        release_memory()  # here, not above: the exception would keep what the model had in memory
        return self._colorize(batch[:half]) + self._colorize(batch[half:])

    def _colorize_together(self, batch: list[Loaded]) -> list[Result]:
        settings, started = self.settings, time.perf_counter()
        prepared, captions = [item.prepared for item in batch], [item.job.caption for item in batch]
        samples, masks = [], [item.instances for item in batch]
        for k in range(settings.samples):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                pictures = colorize_batch(self.pipeline, settings, prepared, captions, masks, k)
            if k == 0:
                for message in dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning):
                    self._report(one_line(f"note: {message}"))
            samples.append(pictures)
        names = [item.job.name for item in batch]
        made = []
        for item, own in zip(batch, zip(*samples, strict=True), strict=True):
            if item.company:
                continue
            made.append(self._attempt(item.job, lambda _, *args: finish(*args), item, own, settings))
            item.prepared.release()
        made = [result for result in made if result is not None]
        for result in made:
            result.record |= {"batch": names, "seconds": round((time.perf_counter() - started) / len(batch), 2)}
        return made

    def _take_written(self, writing: list[tuple[Result, Future]]) -> None:
        """Wait for results to be written and note what came of it; the list is emptied."""
        while writing:
            result, written = writing.pop(0)
            self._attempt(result.item.job, self._take_one, result, written)

    def _take_one(self, job: Job, result: Result, written: Future) -> None:
        try:
            pixels = written.result()
        except OSError as error:
            reason = error.strerror or str(error)
            return self._fail(job, f"{self.output.results(job)[0]}: cannot be written ({reason})")
        self.summary.add_row(job, result.item.image, result.images, result.record["instances"])
        self._log({"name": job.name, "outcome": "written", "pixels": pixels} | result.record)
        self.summary.written += 1

    def _note(self, job: Job, notes: Iterable[str]) -> None:
        for note in notes:
            self._report(one_line(f"note: {job.photo.name}: {note}"))

    def _fail(self, job: Job, message: str) -> None:
        self.summary.fail(message)
        self._log({"name": job.name, "outcome": "failed", "problem": one_line(message)})

    def _log(self, line: dict) -> None:
        try:
            self.log(line)
        except OSError as error:  # a full disk: the photos themselves will tell
            message = one_line(f"{error.filename}: cannot be written ({error.strerror})")
            if message not in self.summary.problems:
                self.summary.add_problem(message)


def _reason(job: Job, error: Exception) -> str:
    """One line that names the photo and says what is wrong."""
    if isinstance(error, OUT_OF_MEMORY):
        return f"{job.photo}: out of memory; try a smaller --resolution or --tiled-resolution ({type(error).__name__})"
    return failure(job.photo, error)


def _resized(found: FoundMasks, size: int) -> FoundMasks:
    masks = F.interpolate(found.instances.masks[None], (size, size), mode="area")[0]
    return replace(found, instances=InstanceMasks(found.instances.phrases, masks))
