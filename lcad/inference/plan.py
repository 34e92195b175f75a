"""What is to be done: settings, jobs with a name of their own, and the batches they are done in."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcad.config import LatentConfig
from lcad.defaults import OUTPUT_LUMINANCE, PAPER_STEPS, PLAIN_LOOK, SEED
from lcad.instance_sampling import Refinement
from lcad.recoloring.exact_colors import ColorTarget
from lcad.text.levels import caption_at_level
from ldm.schedulers import scheduler_name

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

CONTACT_SHEET = "contact_sheet"  # a name that no result may have
NAME_BYTES = 255 - 24  # of a result's name: file systems allow 255 with level, number and suffix
BATCH_PIXELS = 32_000_000  # photos of a batch have no more together; a larger one is alone in memory


@dataclass(frozen=True)
class Settings:
    """What decides a result, besides the photo, its caption and its masks."""

    steps: int = PAPER_STEPS
    scheduler: str = "ddim"
    guidance: float = LatentConfig.guidance_scale
    seed: int = SEED
    samples: int = 1
    pick: str | None = None  # "adherence": of the samples keep the one whose objects best have their colours
    output_luminance: str = OUTPUT_LUMINANCE[0]
    refinement: Refinement | None = Refinement()
    luminance_guidance: bool = True
    size: int | None = None  # photos and masks are resized to size x size first
    model_size: int | None = None  # the long side the model works at; None: its own size
    tiled_size: int | None = None  # the long side it then works out in tiles; None: without
    saturation: float = PLAIN_LOOK["saturation"]  # of the finished result, see `lcad.recoloring.looks`
    warmth: float = PLAIN_LOOK["warmth"]

    @property
    def kept(self) -> int:
        """Results of a photo that are written."""
        return 1 if self.pick else self.samples


def settings_of(pipeline: "LCADPipeline", steps: int | None, guidance: float | None, **others: Any) -> Settings:
    """Settings with the scheduler that the pipeline has; None is the model's own steps or guidance."""
    steps = pipeline.config.num_inference_steps if steps is None else steps
    guidance = pipeline.config.guidance_scale if guidance is None else guidance
    return Settings(steps, scheduler_name(pipeline.scheduler), guidance, **others)


@dataclass(frozen=True)
class Job:
    """One photo, its caption ("" if it has none), the name of its results without suffix, the caption's level, and the
    exact colours that its objects are to have."""

    photo: Path
    caption: str
    name: str
    level: str = "complete"
    colors: tuple[ColorTarget, ...] = ()


@dataclass
class Batch:
    """Photos for the model together.

    Attributes:
        company: names of those that are only there because they were in a recorded batch, and are written with another.
    """

    jobs: list[Job]
    pixels: int = 0
    company: frozenset[str] = frozenset()

    @property
    def alone(self) -> bool:
        """Is it one photo so large that no other is to be in memory?"""
        return self.pixels > BATCH_PIXELS


def shard_jobs(jobs: list[Job], rank: int, processes: int) -> list[Job]:
    """The jobs of every `processes`-th photo; all levels of a photo go to one process."""
    photos = set(list(dict.fromkeys(job.photo for job in jobs))[rank::processes])
    return [job for job in jobs if job.photo in photos]


def list_jobs(
    photos: list[Path],
    captions: dict[str, list[str]],
    levels: tuple[str, ...] = ("complete",),
    folder: Path = Path(),
    colors: Callable[[Path], tuple[ColorTarget, ...]] = lambda photo: (),
) -> list[Job]:
    """Photos of one folder with their first caption, at each of the caption levels.

    Args:
        folder: of the results, below the output folder.
        colors: the exact colours of a photo.
    """
    jobs = []
    for photo, name in result_names(photos).items():
        caption = (captions.get(photo.name) or [""])[0]
        for level in levels:
            own_name = name if len(levels) == 1 else f"{name}_{level}"
            jobs.append(Job(photo, caption_at_level(caption, level), str(folder / own_name), level, colors(photo)))
    return jobs


def result_names(photos: list[Path]) -> dict[Path, str]:
    """A name without suffix for each photo of a folder: its stem, or where two would be the same its whole name.

    Names that differ only in case or in Unicode's composition count as the same, as on some file systems.
    """
    choices = {photo: _choices(photo.name) for photo in photos}
    chosen = dict.fromkeys(photos, 0)
    while True:
        same = Counter(folded(choices[photo][k]) for photo, k in chosen.items())
        same[CONTACT_SHEET] += 1
        clashing = [photo for photo, k in chosen.items() if same[folded(choices[photo][k])] > 1]
        if not clashing:
            return {photo: choices[photo][k] for photo, k in chosen.items()}
        least = min(chosen[photo] for photo in clashing)
        for photo in clashing:
            chosen[photo] += chosen[photo] == least


def _choices(name: str) -> list[str]:
    """Names for a photo's results, the next where one is taken; the last is of this file name alone."""
    stem = Path(name).stem
    own = hashlib.sha256(os.fsencode(name)).hexdigest()
    plain = [text for text in (stem, name) if text.strip(".")]  # a folder could be called . or ..
    short = [text if len(os.fsencode(text)) <= NAME_BYTES else f"{_cut(text)}~{own[:8]}" for text in plain]
    return [*short, f"{_cut(name)}~{own[:8]}", own]


def _cut(text: str) -> str:
    return os.fsencode(text)[: NAME_BYTES - 9].decode("utf-8", "ignore")


def folded(name: str) -> str:
    """A name as names are compared: without differences of case and of Unicode's composition."""
    return unicodedata.normalize("NFC", name).casefold()


def plan_batches(
    jobs: list[Job],
    batch_size: int,
    sizes: Callable[[Job], tuple[tuple, int]],
    recorded: dict[str, tuple[str, ...]] | None = None,
) -> Iterator[Batch]:
    """Batches of photos that come to the same model size, of at most `BATCH_PIXELS` together.

    Args:
        sizes: of a job: those the model works at, and the photo's own number of pixels.
        recorded: of an earlier run, which this one repeats: result name -> all names of its batch.
    """
    by_name = {job.name: job for job in jobs}
    grouped: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        grouped.setdefault((recorded or {}).get(job.name, ()), []).append(job)
    for names, group in grouped.items():
        if names:
            whole = [by_name[name] for name in names if name in by_name]
            company = frozenset(names) - {job.name for job in group}
            yield Batch(whole, sum(sizes(job)[1] for job in whole), company)
    sized = sorted(((*sizes(job), job) for job in grouped.get((), [])), key=lambda item: item[:2])
    for _, alike in groupby(sized, key=lambda item: item[0]):
        batch = Batch([])
        for _, pixels, job in alike:
            if batch.jobs and (len(batch.jobs) == batch_size or batch.pixels + pixels > BATCH_PIXELS):
                yield batch
                batch = Batch([])
            batch.jobs.append(job)
            batch.pixels += pixels
        yield batch
