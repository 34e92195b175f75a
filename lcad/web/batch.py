"""A folder's worth of photos: what scripts/sample.py does with a folder, and its results as one ZIP."""

import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lcad.inference.batch_runner import FolderRun
from lcad.inference.inventory import take_inventory
from lcad.inference.output import OutputFolder, read_result_record
from lcad.inference.plan import Job, list_jobs
from lcad.inference.records import to_json
from lcad.inference.summary import Summary
from lcad.io.images import IMAGE_SUFFIXES, ImageError, write_bytes
from lcad.text.captions import Captions, plain_line, read_captions
from lcad.web.progress import Cancelled, Step, streamed
from lcad.web.studio import Limits, Studio

CAPTIONS = (".json", ".csv", ".txt")
BATCH_SIZE = 4


@dataclass(frozen=True)
class Finished:
    """What came of a batch.

    Attributes:
        archive: the ZIP: results, a record beside each, and the contact sheet.
        sheet: the contact sheet alone; None: no photo was done.
        text: how many were done.
        problems: one line each.
    """

    archive: Path | None
    sheet: Path | None
    text: str
    problems: list[str]


def colorize_all(
    studio: Studio,
    files: list[Path],
    folder: Path,
    caption: str = "",
    seed: int = 0,
    cancel: threading.Event | None = None,
) -> Iterator[Step | Finished]:
    """Colorize photos, each with its caption from the caption files among them -> steps, and what came of all.

    Args:
        files: photos; `captions.json`, `captions.csv`, `pairs.json` or `photo.txt`, as data/README.md has them.
        folder: for the results; what an earlier batch has left there is removed.
        caption: of all photos without one of their own.
        cancel: ends the batch when it is set; what is done until then is in the ZIP.

    Raises:
        ValueError: no photos, too many, or captions that cannot be read (CaptionError).
    """
    given = [path for path in files if path.suffix.lower() not in CAPTIONS]
    if len(given) > studio.limits.photos:
        raise ValueError(f"got {len(given)} photos; at most {studio.limits.photos} are taken at a time here")
    if not given:
        raise ValueError(f"there are no photos; give some of {', '.join(IMAGE_SUFFIXES)}")
    settings = studio.settings(seed=int(seed))
    shutil.rmtree(folder, ignore_errors=True)
    output = OutputFolder(folder / "results")
    runner = FolderRun(studio.pipeline, settings, output, studio.find_masks, report=lambda _: None)
    try:
        yield Step(0, len(given), "Reading")
        yield from streamed(partial(_run, studio, files, caption, runner), cancel or threading.Event())
    except Cancelled:
        pass
    finally:
        shutil.rmtree(folder / "photos", ignore_errors=True)
    yield _pack(folder, runner.summary)


def _run(studio: Studio, files: list[Path], caption: str, runner: FolderRun, give: Callable[[Step], None]) -> None:
    photos = runner.output.folder.parent / "photos"
    for line in _gather(studio.limits, files, photos):
        runner.summary.fail(line)
    jobs = _jobs(photos, runner, caption)

    def told(batches: Iterable) -> Iterator:
        done = 0
        for batch in batches:
            give(Step(done, len(jobs), f"{done} of {len(jobs)} photos"))
            yield batch
            done += len(batch.jobs)

    with studio.turn:
        runner.run(jobs, BATCH_SIZE, told)


def _gather(limits: Limits, files: list[Path], folder: Path) -> list[str]:
    """Bring uploaded files, each in a folder of its own, together in one -> a line for each that is not taken."""
    folder.mkdir(parents=True)
    refused = []
    for path in files:
        try:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                limits.check(path, path.name)
        except ImageError as error:
            refused.append(str(error))
            continue
        names = (path.name, *(f"{path.stem}_{k}{path.suffix}" for k in range(2, len(files) + 2)))
        place = next(place for place in map(folder.joinpath, names) if not place.exists())
        try:
            os.link(path, place)
        except OSError:  # another file system
            shutil.copyfile(path, place)
    return refused


def _jobs(photos: Path, runner: FolderRun, caption: str) -> list[Job]:
    """Jobs for what is in a folder; what is not read is noted as a problem."""
    try:
        inventory = take_inventory(photos, runner.output.folder)
    except FileNotFoundError as error:  # no images: all were refused, or are of other kinds
        if not runner.summary.problems:
            runner.summary.fail(str(error))
        return []
    for path, reason in inventory.not_read.items():
        runner.summary.fail(f"{path}: {reason}")
    found = inventory.photos.get(photos, [])
    captions: Captions = {path.name: [line] for path in found if (line := plain_line(caption))}
    return list_jobs(found, captions | read_captions(photos))


def _pack(folder: Path, summary: Summary) -> Finished:
    """The ZIP of what was done; nothing in it, nor in the lines, names a folder of this machine."""
    results = folder / "results"
    text = f"{summary.written} colorized, {summary.failed} failed"
    problems = [line.replace(f"{folder}/results/", "").replace(f"{folder}/photos/", "") for line in summary.problems]
    problems = [line.replace(f"{folder}/photos", "the upload") for line in problems]
    if not summary.written:
        return Finished(None, None, text, problems)
    for path in results.glob("*.json"):
        record = read_result_record(path)
        if record is not None:
            record |= {key: Path(record[key]).name for key in ("photo", "model")}
            write_bytes(path, to_json(record, indent=2))
    sheet = summary.write_sheet(results)
    archive = folder / "colorized.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:  # images are compressed as they are
        for path in sorted(results.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                packed.write(path, path.name)
    kept = sheet.replace(folder / sheet.name)
    shutil.rmtree(results)
    return Finished(archive, kept, text, problems)
