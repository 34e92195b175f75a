"""From downloads to the project's folder of square photos, captions and a manifest; scripts/prepare_data.py runs it.

Names are plain file names. Problems are one-line texts: what was not done; the rest is done all the same.
"""

import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from lcad.config import ModelConfig
from lcad.data.build.archives import Member, MemberError
from lcad.data.build.manifest import MANIFEST, ManifestRow, file_sha256, read_manifest, write_manifest
from lcad.io.images import IMAGE_SUFFIXES, ImageError, decode_image, write_bytes, write_image
from lcad.text.captions import SCARCE_CAPTION, Captions, read_captions
from lcad.text.levels import caption_at_level, level_of

SIZE = ModelConfig.image_size  # side of a prepared photo in pixels (Sec. 4)

PAPER_COUNTS = {
    "coco-stuff train": (59_000, 500),
    "coco-stuff val": (2_400, 100),
    "multi-instance train": (65_000, 500),
    "multi-instance val": (7_000, 500),
    "imagenet val": (5_000, 0),
}
"""data set and split -> number of photos in the paper (Sec. 4), and how far it is rounded"""

Photos = dict[str, Member]


def count_warning(data_set: str, got: int) -> str | None:
    """A line if the number of photos is not the paper's."""
    expected, rounding = PAPER_COUNTS.get(data_set, (got, 0))
    about = "about " if rounding else ""
    return f"{data_set}: got {got:,} photos, expected {about}{expected:,}" if abs(got - expected) > rounding else None


def images_of(members: list[Member], report: Callable[[str], None], split: str | None = None) -> list[Member]:
    """The images that may be read; of a split, those in its own folders if there are any. Others are reported."""
    images = []
    for member in members:
        if PurePosixPath(member.path).suffix.lower() in IMAGE_SUFFIXES:
            if reason := member.refusal():
                report(f"{member}: {reason}; refused")
            else:
                images.append(member)
    own = [m for m in images if split and any(p.startswith(split) for p in PurePosixPath(m.path).parts[:-1])]
    return own or images


def named_photos(images: list[Member], names: Iterable[str], report: Callable[[str], None]) -> Photos:
    """The photos of these names, in the order of the archive; a name without a photo, or with two, is reported."""
    wanted = set(names)
    found: Photos = {}
    for member in images:
        if member.name in found:
            report(f"{member}: has the name of {found[member.name]}, which is used")
        elif member.name in wanted:
            found[member.name] = member
    for name in sorted(wanted - found.keys()):
        report(f"{name!r}: missing; get its archive or folder again")
    return found


def first_photos(images: list[Member], number: int, report: Callable[[str], None]) -> Photos:
    """The first `number` photos by name; of ImageNet's validation set, where names are known, exactly those.

    Raises:
        ValueError: a number below 1.
    """
    if number < 1:
        raise ValueError(f"got {number} as the number of photos; give 1 or more")
    names = sorted({member.name for member in images})[:number]
    if any(re.fullmatch(r"ILSVRC2012_val_\d{8}\.JPEG", name) for name in names):
        names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, number + 1)]
    return named_photos(images, names, report)


def captions_inside(members: list[Member], split: str) -> Captions:
    """The captions in an archive: the JSON file of the split, or the only one.

    Raises:
        ValueError: none, several, or unreadable.
    """
    files = [member for member in members if member.name.endswith(".json") and not member.refusal()]
    files = [member for member in files if split in member.path] or files
    if len(files) != 1:
        found = ", ".join(str(member) for member in files) or "none"
        raise ValueError(f"expected one JSON file with the {split} captions, found {found}; name it with --captions")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.json"
        path.write_bytes(files[0].read())
        try:
            return read_captions(path.parent, path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), str(files[0]))) from error


def prepare(
    photos: Photos,
    captions: Captions,
    output: Path,
    level: str,
    report: Callable[[str], None],
    overwrite: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[ManifestRow]:
    """Write `images/` (centre squares of SIZE x SIZE, PNG), `captions.json` and the manifest into `output`.

    A photo that is there and as an earlier manifest says is not done again, unless asked to `overwrite`. The fixed
    caption of a photo is its first; all of its captions are brought to `level`.

    Returns:
        The manifest, sorted by file; without rows nothing but images is written.

    Raises:
        ValueError: an unknown level. OSError: no space, no permission.
    """
    try:
        hashes = {row.file: row.sha256 for row in read_manifest(output / MANIFEST)}
    except ValueError:  # none yet, or one that is about to be replaced
        hashes = {}
    names, rows, written = _output_names(photos), [], {}
    for name, member in progress(photos.items()):
        file = f"images/{names[name]}"
        path = output / file
        try:
            if overwrite or not _is_finished(path, hashes.get(file)):
                image = decode_image(io.BytesIO(member.read()), str(member))
                write_image(path, ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.LANCZOS))
        except (MemberError, ImageError) as error:
            report(str(error))
            continue
        own = [caption_at_level(caption, level) for caption in captions.get(name, ())] or [SCARCE_CAPTION]
        written[names[name]] = list(dict.fromkeys(own))
        rows.append(ManifestRow(file, file_sha256(path), own[0], level_of(own[0], level)))
    rows.sort(key=lambda row: row.file)
    if rows:
        write_bytes(output / "captions.json", json.dumps(written, indent=1, sort_keys=True).encode())
        write_manifest(output / MANIFEST, rows)
    return rows


def left_over(output: Path, rows: list[ManifestRow]) -> list[str]:
    """The files of `images/` that are not in the manifest: training would read them too."""
    listed = {row.file for row in rows}
    return sorted(p.name for p in (output / "images").glob("*") if f"images/{p.name}" not in listed)


def _output_names(names: Iterable[str]) -> dict[str, str]:
    """ "a.jpg" -> "a.png"; where that would clash, on any file system, "a.jpg.png"."""
    names = list(names)
    taken = Counter(text.casefold() for name in names for text in (name, Path(name).stem))
    return {name: f"{Path(name).stem if taken[Path(name).stem.casefold()] == 1 else name}.png" for name in names}


def _is_finished(path: Path, sha256: str | None) -> bool:
    try:
        with Image.open(path) as image:
            whole = image.format == "PNG" and image.size == (SIZE, SIZE)
    except OSError:
        return False
    return whole and sha256 in (None, file_sha256(path))
