"""Colorizing a folder of photos: what is to be done, doing it in batches, and a record beside each result."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from itertools import groupby, starmap
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lcad.adherence import adherent_share, instance_report
from lcad.attention_refinement import InstanceMasks, Refinement
from lcad.caption_levels import caption_at_level
from lcad.captions import SCARCE_CAPTION, plain_line
from lcad.contact_sheet import Row, contact_sheet
from lcad.masks.candidates import enlarge, shrink
from lcad.masks.files import MaskError, save_masks, save_spans
from lcad.masks.finding import FoundMasks, MaskFinder
from lcad.masks.overlay import mask_row
from lcad.photo_files import Photo, notes_on_writing, read_photo, write_photo
from lcad.pipeline import LCADPipeline
from lcad.run_records import pixel_hash
from lcad.upsampling import recolored_strips, resize
from ldm.images import ImageError, read_image, read_size, write_bytes, write_image

PACKAGES = ("torch", "diffusers", "transformers", "pillow")
DECISIVE = ("photo_sha256", "caption", "masks_sha256", "settings", "model_sha256", "dtype")  # of a record, for a result
CONTACT_SHEET = "contact_sheet"  # a name that no result may have
SHOWN_MASKS, SAVED_MASKS = "shown_masks", "masks"  # folders in the output folder
SHEET_ROWS = 40  # photos on the contact sheet: a long run keeps no more pictures than these
THUMBNAIL = 320  # pixels, of what is kept for the contact sheet
SHOWN_SIDE = 512  # pixels, long side of the copies of photo and result that are kept to show and to judge
BATCH_PIXELS = 32_000_000  # photos of a batch have no more together; a larger one is alone in memory
TRUE_COLOR_CHROMA = 4  # spread of RGB channels (0-255) above which a photo counts as coloured


@dataclass(frozen=True)
class Settings:
    """What decides a result, besides the photo, its caption and its masks."""

    steps: int = 50
    scheduler: str = "ddim"
    guidance: float = 5.0
    seed: int = 0
    samples: int = 1
    pick: str | None = None  # "adherence": of the samples keep the one whose objects best have their colours
    output_luminance: str = "input"
    refinement: Refinement | None = Refinement()
    luminance_guidance: bool = True
    size: int | None = None  # photos and masks are resized to size x size first
    model_size: int | None = None  # the long side the model works at; None: its own size
    tiled_size: int | None = None  # the long side it then works out in tiles; None: without

    @property
    def kept(self) -> int:
        """Results of a photo that are written."""
        return 1 if self.pick else self.samples


@dataclass(frozen=True)
class Job:
    """One photo, its caption ("" if it has none), the name of its results without suffix, and the caption's level."""

    photo: Path
    caption: str
    name: str
    level: str = "complete"


@dataclass
class Summary:
    """What came of a run: photos by outcome, and one line for each problem."""

    written: int = 0
    kept: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def of_all(cls, parts: list["Summary"]) -> "Summary":
        """Of the processes that shared a run out."""
        numbers = {name: sum(getattr(part, name) for part in parts) for name in ("written", "kept", "failed")}
        rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.text)
        return cls(**numbers, problems=[line for part in parts for line in part.problems], rows=rows[:SHEET_ROWS])


@dataclass
class _Batch:
    jobs: list[Job]
    pixels: int = 0

    @property
    def alone(self) -> bool:
        """Is it one photo so large that no other is to be in memory?"""
        return self.pixels > BATCH_PIXELS


@dataclass
class _Loaded:
    job: Job
    photo: Photo
    image: Image.Image  # 8 bit RGB, `SHOWN_SIDE` at most
    found: FoundMasks | None
    record: dict

    @property
    def instances(self) -> InstanceMasks | None:
        return None if self.found is None else self.found.instances


@dataclass
class _Result:
    item: _Loaded
    values: list[np.ndarray]  # (H, W, 3) in the photo's depth, for each result that is kept
    images: list[Image.Image]  # the same in 8 bit, `SHOWN_SIDE` at most
    record: dict


def own_share(jobs: list[Job], rank: int, processes: int) -> list[Job]:
    """The jobs of every `processes`-th photo; all levels of a photo go to one process."""
    photos = set(list(dict.fromkeys(job.photo for job in jobs))[rank::processes])
    return [job for job in jobs if job.photo in photos]


def list_jobs(
    photos: list[Path],
    captions: dict[str, list[str]],
    levels: tuple[str, ...] = ("complete",),
    folder: Path = Path(),
) -> list[Job]:
    """Photos of one folder with their first caption, at each of the caption levels.

    Results are named after the photo's stem, or its whole name where that clashes; of several levels, with the level.

    Args:
        folder: of the results, below the output folder.
    """
    stems = [photo.stem for photo in photos] + [CONTACT_SHEET]
    jobs = []
    for photo in photos:
        caption = (captions.get(photo.name) or [""])[0]
        name = photo.stem if stems.count(photo.stem) == 1 else photo.name
        for level in levels:
            own_name = name if len(levels) == 1 else f"{name}_{level}"
            jobs.append(Job(photo, caption_at_level(caption, level), str(folder / own_name), level))
    return jobs


class FolderRun:
    """Colorizes jobs with one pipeline into one output folder.

    A photo that cannot be done is reported and the others go on. A result that exists is kept if its record
    says it was made from the same photo with the same settings, and is never overwritten unless asked.
    A result is lossless and has its photo's depth, profile and EXIF: TIFF for TIFF and PNG for all else, unless
    `suffix`, one of `lcad.photo_files.FORMATS`, says otherwise. `log` is told of each photo, see `lcad.run_records`.
    """

    def __init__(
        self,
        pipeline: LCADPipeline,
        settings: Settings,
        output: Path,
        find_masks: MaskFinder | None = None,
        model: str = "",
        overwrite: bool = False,
        report: Callable[[str], None] = print,
        show_masks: bool = False,
        keep_masks: bool = False,
        suffix: str | None = None,
        log: Callable[[dict], None] = lambda line: None,
        readers: int = 2,
    ):
        self.pipeline, self.settings, self.output = pipeline, settings, output
        self.find_masks, self.model, self.overwrite, self.report = find_masks, model, overwrite, report
        self.show_masks, self.keep_masks, self.suffix, self.log = show_masks, keep_masks, suffix, log
        self.readers = readers
        self.summary = Summary()
        self._row_of: dict[Path, Row] = {}

    def run(self, jobs: list[Job], batch_size: int = 4, progress: Callable[[Iterable], Iterable] = iter) -> Summary:
        """Do all jobs, in batches of photos that come to the same model size.

        While the model works on a batch, the photos of the next are read and the results of the one before written,
        unless one of them is of more than `BATCH_PIXELS`.
        """
        batches = progress(list(self._batches(jobs, batch_size)))
        writing: list[tuple[_Result, Future]] = []
        with ThreadPoolExecutor(self.readers) as readers, ThreadPoolExecutor(1) as writer:
            for alone, reading in _read_ahead(readers, batches):
                if alone:
                    self._finish(writing)
                loaded = [item for item in starmap(self._load, reading) if item is not None]
                reading.clear()  # it holds the photos, and so do the other lists: none may outlive its use
                results = self._colorize(loaded) if loaded else []
                loaded.clear()
                self._finish(writing)
                writing += [(result, writer.submit(self._write, result)) for result in results]
                results.clear()
                if alone:
                    self._finish(writing)
            self._finish(writing)
        return self.summary

    def plan(self, jobs: list[Job]) -> Iterator[tuple[Job, str]]:
        """What `run` would do with each job, without doing it: "new", "in the way" or "done" if a result is there.

        "done" is said of a result from the same photo, caption, settings and model; masks are not looked for.
        """
        for job in jobs:
            path = self._path(job, 0)
            if self.overwrite or not path.exists():
                yield job, "new"
                continue
            try:
                record = self._record(job, None, _sha256(job.photo))
            except OSError:
                yield job, "in the way"
                continue
            same = self._was_made_by(job, record, [key for key in DECISIVE if key != "masks_sha256"])
            yield job, "done" if same else "in the way"

    def seconds_per_photo(self, job: Job) -> float:
        """An estimate from two short runs over one photo, at a batch size of 1."""
        seconds = []
        for steps in (1, 3):
            started = time.perf_counter()
            self.pipeline(
                read_image(job.photo),
                job.caption,
                None,
                steps,
                self.settings.guidance,
                long_side=self.settings.model_size,
                tiled_side=self.settings.tiled_size,
            )
            seconds.append(time.perf_counter() - started)
        step = max(0.0, (seconds[1] - seconds[0]) / 2)
        return (seconds[1] + step * (self.settings.steps - 3)) * self.settings.samples

    def _batches(self, jobs: list[Job], batch_size: int) -> Iterator[_Batch]:
        def sizes(job: Job) -> tuple[tuple[tuple[int, int], ...], int]:
            """Those of the model, and the photo's own number of pixels."""
            try:
                width, height = read_size(job.photo)
            except (ImageError, OSError):  # reported when the photo is read in full
                return (), 0
            if self.settings.size is not None:  # all are made the same
                return (), width * height
            own = self.pipeline.model_sizes(height, width, self.settings.model_size, self.settings.tiled_size)
            return own, width * height

        sized = sorted(((*sizes(job), job) for job in jobs), key=lambda item: item[:2])
        for _, group in groupby(sized, key=lambda item: item[0]):
            batch = _Batch([])
            for _, pixels, job in group:
                if batch.jobs and (len(batch.jobs) == batch_size or batch.pixels + pixels > BATCH_PIXELS):
                    yield batch
                    batch = _Batch([])
                batch.jobs.append(job)
                batch.pixels += pixels
            yield batch

    def _load(self, job: Job, reading: Future) -> _Loaded | None:
        """A job's inputs; None if there is nothing to do or it cannot be done (then reported)."""
        try:
            photo, photo_hash = reading.result()
        except (ImageError, OSError) as error:
            return self._fail(job, str(error))
        for note in photo.notes + notes_on_writing(photo, self._path(job, 0).suffix):
            self.report(f"note: {job.photo.name}: {note}")
        image = photo.preview()
        found = self._find_masks(job, image)
        if self.settings.size is not None:
            image = image.resize((self.settings.size, self.settings.size), Image.Resampling.BICUBIC)
            photo = Photo(np.asarray(image))
            found = None if found is None else _resized(found, self.settings.size)
        record = self._record(job, found, photo_hash) | {"size": [image.width, image.height]}
        image = shrink(image, SHOWN_SIDE)
        there = [self._path(job, k).exists() for k in range(self.settings.kept)]
        if self.overwrite or not any(there) or (not all(there) and self._was_made_by(job, record)):
            return _Loaded(job, photo, image, found, record)
        if self._was_made_by(job, record):
            self.summary.kept += 1
            self.log({"name": job.name, "outcome": "kept"})
            self._add_row(job, image, [read_image(self._path(job, k)) for k in range(self.settings.kept)])
            return None
        return self._fail(
            job,
            f"{self._path(job, 0)}: exists already and was made differently; choose another --output or --overwrite",
        )

    def _find_masks(self, job: Job, image: Image.Image) -> FoundMasks | None:
        if self.find_masks is None or job.level == "scarce" or not job.caption:  # no phrases for the masks
            return None
        try:
            found = self.find_masks(job.photo, image, job.caption)
        except (MaskError, ImageError) as error:
            self._problem(f"{error}; {job.photo.name} is colorized without masks")
            return None
        if found is None:
            return None
        for note in found.notes:
            self.report(f"note: {job.photo.name}: {note}")
        if self.show_masks:
            sheet = contact_sheet([mask_row(image, job.caption, found)])
            write_image(self.output / SHOWN_MASKS / f"{job.name}.png", sheet)
        if self.keep_masks and len(found.instances.phrases):
            self._save_masks(job, found, image)
        return found if len(found.instances.phrases) else None

    def _save_masks(self, job: Job, found: FoundMasks, photo: Image.Image) -> None:
        folder, phrases = self.output / SAVED_MASKS, found.instances.phrases
        if (folder / job.photo.stem).exists() and not self.overwrite:
            self.report(f"note: {folder / job.photo.stem}: masks are there already and are kept")
            return
        for old in (folder / job.photo.stem).glob("*.png"):
            old.unlink()
        save_masks(folder, job.photo.stem, enlarge(found.instances.masks, photo), [phrase.text for phrase in phrases])
        save_spans(folder, job.photo.stem, job.caption, [phrase.characters for phrase in phrases])

    def _colorize(self, batch: list[_Loaded]) -> list[_Result]:
        settings = self.settings
        results: list[list[np.ndarray]] = [[] for _ in batch]
        luminances = [item.photo.luminance() for item in batch]
        started = time.perf_counter()
        for k in range(settings.samples):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                pictures = self.pipeline(
                    luminances,
                    [item.job.caption for item in batch],
                    [item.instances for item in batch],
                    num_inference_steps=settings.steps,
                    guidance_scale=settings.guidance,
                    generator=[torch.Generator().manual_seed(settings.seed + k) for _ in batch],
                    refinement=settings.refinement,
                    output_luminance=settings.output_luminance,
                    luminance_guidance=settings.luminance_guidance,
                    output_type="decoded",
                    long_side=settings.model_size,
                    tiled_side=settings.tiled_size,
                ).images
            if k == 0:
                for message in dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning):
                    self.report(f"note: {message}")
            for own, item, luminance, decoded in zip(results, batch, luminances, pictures, strict=True):
                own.append(self._at_full_size(luminance, decoded, item.photo))
        seconds = round((time.perf_counter() - started) / len(batch), 2)
        made = []
        for item, own in zip(batch, results, strict=True):
            images = [shrink(item.photo.shown(values), SHOWN_SIDE) for values in own]
            order, reports = self._judge(item, images)
            record = item.record | {"seconds": seconds, "instances": reports}
            made.append(_Result(item, [own[k] for k in order], [images[k] for k in order], record))
        return made

    def _write(self, result: _Result) -> list[str]:
        """Write record and results -> a hash of the pixels of each.

        First the record: a run killed in between finds results missing, never one without its record.
        """
        job = result.item.job
        paths = [self._path(job, k) for k in range(len(result.values))]
        for path in paths:
            path.unlink(missing_ok=True)
        write_bytes(self._record_path(job), json.dumps(result.record, indent=2, ensure_ascii=False).encode())
        for path, values in zip(paths, result.values, strict=True):
            write_photo(path, values, result.item.photo)
        return list(map(pixel_hash, result.values))

    def _finish(self, writing: list[tuple[_Result, Future]]) -> None:
        """Wait for results to be written and note what came of it; the list is emptied."""
        while writing:
            result, written = writing.pop(0)
            job = result.item.job
            try:
                pixels = written.result()
                self.log({"name": job.name, "outcome": "written", "pixels": pixels} | result.record)
            except OSError as error:
                self._fail(job, f"{self._path(job, 0)}: cannot be written ({error.strerror or error})")
                continue
            self.summary.written += 1
            self._add_row(job, result.item.image, result.images, result.record["instances"])

    def _at_full_size(self, luminance: torch.Tensor, decoded: torch.Tensor, photo: Photo) -> np.ndarray:
        """The result (H, W, 3) in the photo's depth and profile."""
        if self.settings.output_luminance == "decoded":
            return photo.encoded(resize(decoded[None], luminance.shape[-2:])[0])
        values = np.empty((*luminance.shape[-2:], 3), np.uint16 if photo.depth == 16 else np.uint8)
        for rows, rgb in recolored_strips(luminance[None], decoded[None]):
            values[rows] = photo.encoded(rgb[0])
        return values

    def _judge(self, item: _Loaded, images: list[Image.Image]) -> tuple[list[int], list[list[dict]]]:
        """Which results to keep, and for each what its masked objects were asked to be and are."""
        if item.instances is None:
            return list(range(self.settings.kept)), [[] for _ in range(self.settings.kept)]
        reports = [instance_report(image, item.instances) for image in images]
        order = list(range(len(images)))
        if self.settings.pick == "adherence":
            order = sorted(order, key=lambda k: -adherent_share(reports[k]))  # of equals the first
        order = order[: self.settings.kept]
        return order, [reports[k] for k in order]

    def _record(self, job: Job, found: FoundMasks | None, photo_hash: str) -> dict:
        """Everything needed to repeat a result."""
        settings = asdict(self.settings)
        used = [] if found is None else [phrase.text for phrase in found.instances.phrases]
        masks = None if found is None else found.instances.masks.numpy().tobytes()
        return {
            "photo": str(job.photo),
            "photo_sha256": photo_hash,
            "caption": job.caption or SCARCE_CAPTION,
            "masked_phrases": used,
            "masks_sha256": None if masks is None else hashlib.sha256(masks).hexdigest(),
            "mask_scores": [] if found is None else [round(score, 3) for score in found.scores],
            "settings": settings,
            "model": self.model,
            "model_sha256": self.model_hash,
            "device": str(self.pipeline.device),
            "dtype": str(self.pipeline.unet.dtype).removeprefix("torch."),
            "versions": {name: version(name) for name in PACKAGES},
        }

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 over the checkpoint folder's weight files."""
        digest = hashlib.sha256()
        for file in sorted(Path(self.model).glob("*/*.safetensors")) if self.model else []:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()

    def _was_made_by(self, job: Job, record: dict, decisive: Iterable[str] = DECISIVE) -> bool:
        try:
            old = json.loads(self._record_path(job).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return all(old.get(key) == record[key] for key in decisive)

    def _path(self, job: Job, sample: int) -> Path:
        suffix = self.suffix or (".tif" if job.photo.suffix.lower() in (".tif", ".tiff") else ".png")
        return self.output / (f"{job.name}{suffix}" if self.settings.kept == 1 else f"{job.name}_{sample}{suffix}")

    def _record_path(self, job: Job) -> Path:
        return self.output / f"{job.name}.json"

    def _add_row(
        self, job: Job, photo: Image.Image, results: list[Image.Image], reports: Iterable[list[dict]] = ()
    ) -> None:
        """Put results on the contact sheet, those of one photo beside each other."""
        title = "colorized" if job.level == "complete" else job.level
        judged = [", ".join(map(_verdict, report)) for report in reports] or [""] * len(results)
        pictures = [
            (" ".join(filter(None, (title, str(k) if k else "", verdict))), image)
            for k, (image, verdict) in enumerate(zip(results, judged, strict=True))
        ]
        caption = job.caption or SCARCE_CAPTION
        row = self._row_of.get(job.photo)
        if row is None:
            if len(self.summary.rows) >= SHEET_ROWS:
                return
            row = self._row_of[job.photo] = Row([("grey", photo.convert("L"))], f"{job.photo.name}: {caption}")
            self.summary.rows.append(row)
            pixels = np.asarray(photo.resize((32, 32)), dtype=np.int16)
            if np.ptp(pixels, axis=2).mean() > TRUE_COLOR_CHROMA:
                row.pictures.append(("as given", photo))
        given = [item for item in row.pictures if item[0] == "as given"]
        row.pictures[len(row.pictures) - len(given) :] = [*pictures, *given]
        for _, picture in row.pictures:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))

    def _problem(self, message: str) -> None:
        self.summary.problems.append(plain_line(message))

    def _fail(self, job: Job, message: str) -> None:
        self.summary.failed += 1
        self.log({"name": job.name, "outcome": "failed", "problem": message})
        self._problem(message)


def _read_ahead(readers: Executor, batches: Iterable[_Batch]) -> Iterator[tuple[bool, list[tuple[Job, Future]]]]:
    """Batches with their photos being read, one batch ahead, unless it or the next is to be alone in memory."""
    ahead = None
    for batch in batches:
        if ahead is not None and batch.alone:
            yield False, ahead
            ahead = None
        reading = [(job, readers.submit(_read, job.photo)) for job in batch.jobs]
        if ahead is not None:
            yield False, ahead
            ahead = None
        if batch.alone:
            yield True, reading
        else:
            ahead = reading
    if ahead is not None:
        yield False, ahead


def _read(path: Path) -> tuple[Photo, str]:
    """A photo and the SHA-256 of its file.

    Raises:
        ImageError: see `read_photo`; or the file was changed meanwhile. OSError: it cannot be read.
    """
    before = path.stat()
    photo, digest = read_photo(path), _sha256(path)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(f"{path}: was changed while it was read; run again when it is complete")
    return photo, digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _resized(found: FoundMasks, size: int) -> FoundMasks:
    masks = F.interpolate(found.instances.masks[None], (size, size), mode="area")[0]
    return replace(found, instances=InstanceMasks(found.instances.phrases, masks))


def _verdict(row: dict) -> str:
    """ "red: orange" for a phrase that asked for red, "red" where it got it."""
    return row["name"] if row["asked"] in (None, row["name"]) else f"{row['asked']}: {row['name']}"
