"""Photos read by other threads while the model works, no more of them at a time than memory has room for."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

from lcad.inference.plan import Batch, Job
from lcad.inference.records import file_hash
from lcad.io.images import ImageError
from lcad.io.photos import Photo, read_photo


def read_ahead(readers: Executor, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[tuple[Job, Future]]]]:
    """Batches with their photos being read, one batch ahead, unless it or the next is to be alone in memory."""
    ahead = None
    for batch in batches:
        if ahead is not None and batch.alone:
            yield ahead
            ahead = None
        reading = [(job, readers.submit(_read, job.photo)) for job in batch.jobs]
        if ahead is not None:
            yield ahead
            ahead = None
        if batch.alone:
            yield batch, reading
        else:
            ahead = batch, reading
    if ahead is not None:
        yield ahead


def _read(path: Path) -> tuple[Photo, str]:
    """A photo and the SHA-256 of its file.

    Raises:
        ImageError: see `read_photo`; or the file was changed meanwhile. OSError: it cannot be read.
    """
    before = path.stat()
    photo, digest = read_photo(path), file_hash(path)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(f"{path}: was changed while it was read; run again when it is complete")
    return photo, digest
