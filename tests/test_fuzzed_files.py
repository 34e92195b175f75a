"""Readers of strangers' files, fed with damage: one line of error of their own kind, or a result; nothing else.

A few cases by default; `pytest -n 0 --hypothesis-profile many tests/test_fuzzed_files.py` tries 200 of each file.
"""

import random
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcad.inference.run_records import read_record
from lcad.io.images import ImageError, read_image
from lcad.io.photos import read_photo
from lcad.masks.coco import read_instances
from lcad.masks.files import MaskError, read_masks, read_spans
from lcad.text.captions import CaptionError, read_captions
from tests.test_photo_files import CASES

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=12), part, max_size=4),
    max_leaves=12,
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed (mostly in the headers), cut out, doubled, or the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(min(len(changed), rng.choice((32, 200, len(changed)))))
        match rng.randrange(5):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                changed[place] ^= 1 << rng.randrange(8)
            case 2:
                del changed[place : place + rng.randrange(1, 9)]
            case 3:
                changed[place:place] = changed[place : place + rng.randrange(1, 9)]
            case _:
                changed[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        if not changed:
            break
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.2 else changed)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_damaged_photographs(case, tmp_path):
    rng, path = random.Random(repr(case)), tmp_path / f"a{case[0]}"
    for _ in range(settings.default.max_examples):
        path.write_bytes(mutated(CASES[case], rng))
        for read in (read_photo, read_image):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read(path)
                except ImageError as error:
                    assert str(path) in str(error)


@given(content=st.binary(max_size=200) | JSON)
@pytest.mark.parametrize(
    "name", ["captions.json", "pairs.json", "captions.csv", "run.jsonl", "phrases.json", "instances.json"]
)
def test_strange_texts(name, content, tmp_path):
    import json

    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    folder = tmp_path / "a"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    readers = {
        "run.jsonl": (lambda: read_record(path), ValueError),
        "phrases.json": (lambda: read_spans(tmp_path, Path("a.png"), "a red cup"), MaskError),
        "instances.json": (lambda: read_instances(path), MaskError),
    }
    read, kind = readers.get(name, (lambda: read_captions(folder, path), CaptionError))
    try:
        read()
    except kind as error:
        assert "\n" not in str(error) and name in str(error)


@given(data=st.binary(max_size=300), header=st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n"]))
@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_strange_masks(suffix, data, header, tmp_path):
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "a" / f"0_cup{suffix}").write_bytes(header + data)
    with pytest.raises((MaskError, ImageError)):
        read_masks(tmp_path, Path("a.png"), (4, 4), 1)
