"""What lies in a folder of photos: those to colorize, and a reason for each file that is passed over."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from lcad.inference.output import SAVED_MASKS, SHOWN_MASKS, own_results, read_result_record
from lcad.inference.run_records import RUN_RECORD, is_record
from lcad.inference.summary import is_own_sheet
from lcad.io.images import IMAGE_SUFFIXES, image_folder

RAW = ".3fr .arw .cr2 .cr3 .crw .dng .erf .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srw .x3f"
OTHER = ".ai .apng .avif .bmp .eps .exr .gif .hdr .heic .heif .ico .j2k .jfif .jp2 .jpe .jpeg .jpg .jxl .pbm .pgm "
OTHER += ".png .ppm .psb .psd .svg .svgz .tga .tif .tiff .webp .xcf"


@dataclass
class Inventory:
    """What was found.

    Attributes:
        photos: by folder, sorted.
        not_read: files that are images, but of no kind that is read, each with the reason.
        notes: one line for each thing that was passed over.
    """

    photos: dict[Path, list[Path]] = field(default_factory=dict)
    not_read: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def take_inventory(source: Path, output: Path, recursive: bool = False) -> Inventory:
    """Look through a folder, or where it holds no photo its subfolder `images`, or take one photo.

    Results of this project are never input.

    Args:
        output: the folder of results; nothing in it is input, unless it is `source` itself.
        recursive: also folders below; without hidden ones, links, and output folders of earlier runs.

    Raises:
        FileNotFoundError: the path is missing, or there is no image.
    """
    inventory = Inventory()
    if source.is_file():
        inventory.photos[source.parent] = [source]
        return inventory
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder; give an image or a folder of images")
    walk = os.walk(source, onerror=lambda error: inventory.notes.append(f"{error.filename}: {error.strerror}"))
    for place, names, files in walk:
        folder = Path(place)
        names[:] = [n for n in sorted(names) if recursive and _is_input(folder / n, output, inventory)]
        _look_into(folder, sorted(files), inventory)
    if not inventory.photos and not inventory.not_read:
        if image_folder(source) != source and not recursive:
            return take_inventory(image_folder(source), output)
        where = "in this folder or below" if recursive else "in this folder"
        passed = "".join(f" ({note})" for note in inventory.notes[:3])
        raise FileNotFoundError(f"{source}: no images {where}; they may be {', '.join(IMAGE_SUFFIXES)}{passed}")
    return inventory


def _is_input(folder: Path, output: Path, inventory: Inventory) -> bool:
    """Are photos below to be looked for?"""
    if folder.name.startswith(".") or folder.resolve() == output.resolve():
        return False
    if folder.is_symlink():
        inventory.notes.append(f"{folder}: a linked folder is passed over")
        return False
    if folder.name in (SHOWN_MASKS, SAVED_MASKS) and is_record(folder.parent / RUN_RECORD):
        return False
    if is_record(folder / RUN_RECORD) and not _holds_its_photos(folder):
        inventory.notes.append(f"{folder}: results of an earlier run are passed over")
        return False
    return True


def _holds_its_photos(output: Path) -> bool:
    """Was this output folder the input, too?"""
    for path in output.rglob("*.json"):
        record = read_result_record(path)
        name = Path(str(record["photo"])).name if record else ""
        if record and name not in record["results"] and (path.parent / name).is_file():
            return True
    return False


def _look_into(folder: Path, files: list[str], inventory: Inventory) -> None:
    results = own_results(folder) & set(files)
    if results:
        inventory.notes.append(f"{folder}: {len(results)} results of an earlier run are passed over")
    looks_like_image = {*IMAGE_SUFFIXES, *RAW.split(), *OTHER.split()}
    for name in files:
        path, suffix = folder / name, Path(name).suffix.lower()
        if suffix not in looks_like_image or name in results or is_own_sheet(path):
            continue
        if not path.exists():
            inventory.notes.append(f"{path}: a link to nowhere is passed over")
        elif not path.is_file():
            inventory.notes.append(f"{path}: not a regular file; it is passed over")
        elif suffix in IMAGE_SUFFIXES:
            inventory.photos.setdefault(folder, []).append(path)
        elif suffix in RAW.split():
            inventory.not_read[path] = "camera raw is not read; develop it to TIFF or PNG first"
        else:
            cure = 'pip install "lcad[heic]"' if suffix in (".heic", ".heif") else "save it as PNG or TIFF"
            inventory.not_read[path] = f"images {suffix} are not read here; {cure}"
