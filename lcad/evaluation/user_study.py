"""User studies (Sec. 4.2): a web page on which a volunteer votes for images; `user_votes` counts the votes.

In the *corresponding* experiment a volunteer picks the image that matches a caption best, in the *reality* experiment
the most realistic one, the real photo among them. A *sample* is one photo as every method colorized it. The page knows
samples and images by random ids only; the *key* says which method made which image.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lcad.io.images import jpeg_data_uri, list_images, read_image, write_bytes
from lcad.text.captions import Captions

QUESTIONS = {
    "corresponding": "Which image matches the description best?",
    "reality": "Which image looks most realistic?",
}
GROUND_TRUTH = "Ground truth"  # the paper's name for the real photo


@dataclass(frozen=True)
class Key:
    """What a page does not tell.

    Attributes:
        study: id of the page, which every vote file repeats.
        samples: sample id -> {"photo": its stem, "images": {image id: method}}.
    """

    study: str
    experiment: str
    dataset: str
    seed: int
    methods: list[str]
    samples: dict[str, dict]


def parse_methods(options: list[str]) -> dict[str, Path]:
    """["name=folder", ...] -> {name: folder}; ValueError if one is not of that form or a name comes twice."""
    folders: dict[str, Path] = {}
    for option in options:
        name, _, folder = (part.strip() for part in option.partition("="))
        if not name or not folder or name in folders or name == GROUND_TRUTH:
            raise ValueError(f"--method {option!r}: expected name=folder, each name once and none {GROUND_TRUTH!r}")
        folders[name] = Path(folder)
    return folders


def build_study(
    experiment: str,
    methods: dict[str, Path],
    captions: Captions | None = None,
    real: Path | None = None,
    samples: int = 100,
    seed: int = 0,
    dataset: str = "own photos",
) -> tuple[str, Key]:
    """The page (one HTML file that loads nothing) and its key; the same arguments and images give the same of both.

    Args:
        methods: name -> folder of its results, as in the key and the table. Images belong together by stem.
        captions: of the photos by file name, for the corresponding experiment; the first of a photo's counts.
        real: folder of the real photos, for the reality experiment.

    Raises:
        ValueError: an argument that the experiment lacks or has no use for; too few photos; a photo that one method
            lacks, or has in another size. FileNotFoundError: a folder that is missing or empty.
    """
    for option, given, owner in (("--captions", captions, "corresponding"), ("--real", real, "reality")):
        if (given is not None) != (experiment == owner):
            got = "not given" if given is None else "given"
            raise ValueError(f"{experiment} experiment: {option} is {got}; it belongs to the {owner} experiment")
    folders = methods | ({GROUND_TRUTH: real} if real else {})
    if len(folders) < 2:
        raise ValueError(f"got {len(folders)} folder of images; a choice needs 2 or more (--method name=folder)")
    files = {method: _by_stem(folder) for method, folder in folders.items()}
    texts = {Path(name).stem: lines for name, lines in (captions or {}).items()} | (captions or {})
    photos = sorted(files[GROUND_TRUTH] if real else {s for found in files.values() for s in found if texts.get(s)})
    if not photos:
        raise ValueError(f"no image of {', '.join(map(str, folders.values()))} has a caption; captions go by file name")
    for method, found in files.items():
        if missing := [photo for photo in photos if photo not in found]:
            raise ValueError(
                f"{folders[method]}: {method} has no image of {len(missing)} of {len(photos)} photos, "
                f"such as {missing[0]!r}; add them, or leave these photos out of the "
                f"{'real ones' if real else 'captions'}"
            )
    if not 1 <= samples <= len(photos):
        raise ValueError(f"--samples {samples}: expected 1 to {len(photos)}, the photos there are to ask about")

    rng = np.random.default_rng(seed)
    shown, answers = [], {}
    for number, order in zip(rng.permutation(len(photos)), _balanced_orders(len(files), samples, rng), strict=False):
        photo = photos[number]
        pictures = _read_alike([found[photo] for found in files.values()])
        sample, ids = rng.bytes(8).hex(), [rng.bytes(8).hex() for _ in files]
        caption = texts[photo][0] if captions else ""
        images = [{"id": ids[i], "src": jpeg_data_uri(pictures[i])} for i in order]
        shown.append({"id": sample, "caption": caption, "images": images})
        answers[sample] = {"photo": photo, "images": dict(zip(ids, files, strict=True))}
    study = hashlib.sha256(json.dumps([experiment, shown]).encode()).hexdigest()[:16]
    content = {"id": study, "question": QUESTIONS[experiment], "samples": shown}
    return _render(content), Key(study, experiment, dataset, seed, list(files), answers)


def write_study(folder: Path, page: str, key: Key) -> None:
    """Write study.html and key.json; ValueError if the folder holds the key of another study."""
    path = folder / "key.json"
    if path.exists() and read_key(path).study != key.study:
        raise ValueError(f"{path}: the key of another study, whose votes would be lost; choose another --output")
    write_bytes(path, json.dumps(asdict(key), indent=1).encode())
    write_bytes(folder / "study.html", page.encode())


def read_key(path: Path) -> Key:
    """Read a key.json; ValueError if it is none."""
    try:
        key = Key(**read_json(path))
        makers = {method for sample in key.samples.values() for method in sample["images"].values()}
        if makers != set(key.methods) or key.experiment not in QUESTIONS:
            raise ValueError(f"experiment {key.experiment!r}, methods {key.methods}, images by {sorted(makers)}")
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a key.json as build writes it ({error})") from error
    return key


def read_json(path: Path) -> Any:
    """Read a file as JSON; FileNotFoundError or ValueError if that cannot be."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); expected the file as it was saved") from error


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise ValueError(f"{path}: {found[path.stem].name} has the same stem; expected one image of a photo")
        found[path.stem] = path
    return found


def _balanced_orders(images: int, samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One order of the images for each sample; how often an image takes a place differs by at most one."""
    orders: list[np.ndarray] = []
    while len(orders) < samples:
        base = rng.permutation(images)
        orders += [np.roll(base, shift) for shift in rng.permutation(images)]
    return orders[:samples]


def _read_alike(paths: list[Path]) -> list[Image.Image]:
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.size != images[0].size:
            (w, h), (width, height) = image.size, images[0].size
            raise ValueError(f"{path}: {w}x{h} pixels, expected {width}x{height} as {paths[0]}; resize one of them")
    return images


def _render(study: dict) -> str:
    from jinja2 import Template  # its `tojson` keeps captions from ending the script element

    return Template(Path(__file__).with_name("user_study.html").read_text(encoding="utf-8")).render(study=study)
