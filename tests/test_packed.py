"""A pack says what its photos say, is the same however it is made, and what is wrong with it is said in one line."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file, save

from lcad.config import AnyStageConfig, load_config
from lcad.data.build.packing import unite_masks
from lcad.data.build.scenes import write_scenes
from lcad.data.datasets import open_photos
from lcad.data.packed import EMPTY_ROW, SCARCE_ROW, PackError, dense_phrases, dense_tokens, open_packed
from lcad.data.photos import choose_crop
from lcad.io.images import read_image, to_tensor
from lcad.text.captions import SCARCE_CAPTION, mirror_words
from ldm.text_encoder import tokenize
from scripts import pack_data


class Always:
    """A generator whose every chance comes out the same."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A config of three folders: label maps, rendered scenes, and photos of which one is in the first folder too."""
    root = tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    for folder in ("labelled", "plain"):
        (root / folder / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for i in range(6):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        photo = np.asarray(small.resize((48, 40), Image.Resampling.BICUBIC)).copy()
        photo[:, :20], photo[:, 30:], photo[:8, 20:30] = (40, 60, 210), (40, 160, 50), (200, 30, 40)  # clear colours
        Image.fromarray(photo).save(root / "labelled" / "images" / f"p{i}.png")
        labels = np.kron(rng.integers(0, 40, (5, 6)), np.ones((8, 8))).astype(np.uint8)
        labels[:, :20], labels[:, 30:], labels[:8, 20:30] = 1, 2, 3
        Image.fromarray(labels).save(root / "labels" / f"p{i}.png")
    shutil.copy(root / "labelled" / "images" / "p0.png", root / "plain" / "images" / "again.png")
    for i in range(4):
        small.resize((30 + i, 40)).save(root / "plain" / "images" / f"q{i}.jpg")
    (root / "labelled" / "captions.json").write_text(
        json.dumps({"p0.png": ["the red lawn on the left, the left lawn, a blue sky", "two grey lawns"]})
    )
    names = "1 sky\n2 lawn\n3 left lawn\n" + "".join(f"{i} thing {i}\n" for i in range(4, 40))
    (root / "classes.txt").write_text(names)
    list(write_scenes(root / "scenes", 8, 5, 32, None, ["complete_plain", "complete", "scarce"]))
    labelled = {"label_maps": str(root / "labels"), "label_names": str(root / "classes.txt")}
    labelled |= {"folder": str(root / "labelled"), "caption_sources": ["file", "label_maps"], "repeat": 2}
    more = [{"folder": str(root / "scenes"), "masks": str(root / "scenes" / "masks")}, {"folder": str(root / "plain")}]
    more[1] |= {"caption_sources": ["dominant_colors"]}
    config = {"output": "none", "data": labelled | {"more": more, "validation": 2}, "pixel": {"kl_weight": 0.0}}
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    (root / "teacher.bin").write_bytes(b"teacher")
    return root


def packed_into(root: Path, output: Path, *options: str) -> Path:
    assert pack_data.main(["--config", str(root / "config.yaml"), "--output", str(output), *options]) == 0
    return output


@pytest.fixture(scope="module")
def folder(root) -> Path:
    return packed_into(
        root, root / "packed", "--shard-size", "20KB", "--include", f"teacher.bin={root / 'teacher.bin'}"
    )


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    shutil.copytree(folder, tmp_path / "copied")
    return tmp_path / "copied"


def test_photos_and_captions_are_those_of_the_folders(root, folder, tiny_pipeline):
    packed = open_packed(folder)
    parts = open_photos(load_config(AnyStageConfig, root / "config.yaml").data, 32, 0, tiny_pipeline.tokenizer)
    assert len(list(folder.glob("shard_*"))) > 2 and len(packed) == 6 + 8 + 5
    assert max(file.stat().st_size for file in folder.iterdir()) <= 20_000
    assert packed.files["teacher.bin"].read_bytes() == b"teacher"
    assert len(packed.arrays["photo_starts"]) - 1 == 6 + 8 + 5 - 1, "one photo is in two folders"
    tokens = [dense_tokens(packed, mirrored) for mirrored in (False, True)]
    for name, photos in parts.items():
        indices = packed.split(name)
        assert len(indices) == len(photos)
        for i, path in zip(indices, photos.photos, strict=True):
            assert packed.photo_bytes(i) == path.read_bytes()
            assert [packed.caption(row) for row in packed.captions(i)] == photos.captions[path]
            for mirrored, table in enumerate(tokens):
                texts = [mirror_words(text) if mirrored else text for text in photos.captions[path]]
                assert [packed.caption(row, bool(mirrored)) for row in packed.captions(i)] == texts
                rows = table[list(packed.captions(i))]
                assert not texts or torch.equal(torch.from_numpy(rows).long(), tokenize(tiny_pipeline.tokenizer, texts))
    assert tokens[0].dtype == np.int32 and (tokens[0] != tokens[1]).any(), "a caption says where things are"
    assert [packed.caption(row) for row in (EMPTY_ROW, SCARCE_ROW)] == ["", SCARCE_CAPTION]
    expected = tokenize(tiny_pipeline.tokenizer, ["", SCARCE_CAPTION]).numpy()
    assert (tokens[0][[EMPTY_ROW, SCARCE_ROW]] == expected).all() and (tokens[1][:2] == expected).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("span", ["phrase", "noun", "part"])
def test_phrases_have_the_masks_of_the_folders(root, folder, tiny_pipeline, mirrored, span):
    """Bit for bit, from the same masks: of several phrases of a token the last counts, as in refined attention."""
    packed = open_packed(folder)
    photos = open_photos(load_config(AnyStageConfig, root / "config.yaml").data, 32, 0, tiny_pipeline.tokenizer)[
        "train"
    ]
    members, share = dense_phrases(packed, mirrored, span)
    assert members.dtype == np.uint16 and share.dtype == np.float16 and not members[:2].any()
    with_masks, differing = 0, 0
    for i, path in zip(packed.split("train"), photos.photos, strict=True):
        rgb, label_map = np.asarray(read_image(path)), packed.label_map(i)
        assert (label_map is None) == (path.parent.parent.name == "plain")
        for row, text in zip(packed.captions(i), photos.captions[path], strict=True):
            text = mirror_words(text) if mirrored else text
            found = path in photos.finders and photos.finders[path](path, rgb, text, Always(span != "part"))
            owners = {}
            for phrase, mask in zip(*(found.phrases, found.masks) if found else ([], []), strict=True):
                tokens = phrase.object_tokens if span == "noun" else phrase.tokens
                owners |= dict.fromkeys(range(*tokens), (mask.numpy(), 1 / (tokens[1] - tokens[0])))
                differing += phrase.tokens != phrase.object_tokens
            assert set(np.flatnonzero(members[row])) == set(np.flatnonzero(share[row])) == owners.keys(), text
            for token, (mask, part) in owners.items():
                assert (members[row, token] >> label_map & 1 == mask).all() and mask.any()
                assert share[row, token] == np.float16(part)
            with_masks += bool(owners)
    assert with_masks > 20 and differing > 20


def test_the_phrases_of_a_mirrored_caption_are_its_own(folder):
    packed = open_packed(folder)
    row = packed.captions(0)[0]
    plain, mirrored = (dense_phrases(packed, flag)[0][row] for flag in (False, True))
    assert "the left lawn" in packed.caption(row) and (plain != mirrored).any(), "a label is called that"


def test_of_many_labels_the_largest_are_kept():
    masks = {label: np.zeros((20, 20), bool) for label in range(100, 120)}
    for n, label in enumerate(masks):
        masks[label][n, : n + 1] = True
    masks[200], masks[201] = np.ones((20, 20), bool), np.zeros((20, 20), bool)
    label_map, numbers = unite_masks(masks)
    assert numbers == {200: 1} | {119 - n: n + 2 for n in range(14)}, "the largest first, an empty one not at all"
    assert label_map.dtype == np.uint8 and label_map.min() == 1 and label_map.max() == 15
    assert all((label_map == numbers[label]).sum() == label - 99 for label in range(106, 120)), "small ones are seen"


def test_decoded_squares_are_those_of_the_data_set(root, folder, tiny_pipeline):
    packed = open_packed(folder)
    photos = open_photos(load_config(AnyStageConfig, root / "config.yaml").data, 32, 0)["val"]
    for k, i in enumerate(packed.split("val").tolist()):
        decoded = packed.decode(i, 32)
        assert decoded.dtype == torch.uint8 and torch.equal(decoded.float() / 255, photos[k]["image"])
    i = int(packed.split("train")[0])
    crop = choose_crop((48, 40), 32, np.random.default_rng(3), 1.5)
    assert torch.equal(packed.decode(i, 32, crop).float() / 255, to_tensor(crop(packed.photo(i))))
    enlarged = choose_crop((48, 40), 80)
    assert (
        packed.decode_labels(i, 80, enlarged).numpy() == packed.label_map(i)[:, 4:-4].repeat(2, 0).repeat(2, 1)
    ).all()
    assert packed.decode_labels(i, 80).equal(packed.decode_labels(i, 80, enlarged))


def test_the_same_data_make_the_same_files(root, folder, tmp_path):
    options = ("--shard-size", "20KB", "--include", f"teacher.bin={root / 'teacher.bin'}", "--processes", "2")
    again = packed_into(root, tmp_path / "again", *options)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {file.name: file.read_bytes() for file in again.iterdir()} == files
    assert not any(str(root.parent).encode() in data for data in files.values())


def test_what_is_lost_or_damaged_is_named(copied, tmp_path):
    (copied / "shard_0000.safetensors").unlink()
    damaged = copied / "shard_0001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (copied / "teacher.bin").write_bytes(b"other")
    with pytest.raises(
        PackError, match="0000.safetensors is missing, .*0001.safetensors is damaged, teacher.bin is dam"
    ):
        open_packed(copied)
    with pytest.raises(FileNotFoundError, match=r"no packed.json in .*pack_data.py"):
        open_packed([tmp_path])


def test_shards_may_lie_anywhere(folder, copied, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.move(copied / "shard_0001.safetensors", tmp_path / "other")
    (copied / "shard_0001.safetensors").write_bytes(b"half a copy")
    (copied / "shard_9999.safetensors").write_bytes(b"of an earlier pack")
    packed = open_packed([copied, tmp_path / "other"])
    assert all((packed.arrays[name] == values).all() for name, values in open_packed(folder).arrays.items())
    (tmp_path / "other" / "packed.json").write_text("{}")
    with pytest.raises(PackError, match="is of another pack than"):
        open_packed([copied, tmp_path / "other"])


def shard_alone(folder: Path, data: bytes) -> Path:
    """A pack of this one shard, with a hash that fits."""
    (folder / "shard.safetensors").write_bytes(data)
    record = {"name": "shard.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    index = json.loads((folder / "packed.json").read_text()) | {"shards": [record]}
    (folder / "packed.json").write_text(json.dumps(index))
    return folder


def rewritten(folder: Path, change) -> Path:
    """A pack in which `change` has been done to the arrays."""
    arrays: dict[str, list[np.ndarray]] = {}
    for shard in sorted(folder.glob("shard_*")):
        for name, values in load_file(shard).items():
            arrays.setdefault(name, []).append(values)
        shard.unlink()
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return shard_alone(folder, save(change(whole) or whole))


def put(name: str, place, value):
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name][place] = value

    return change


STARTS = ["photo_starts", "label_starts", "text_starts", "token_starts", "caption_starts", "phrase_starts"]
HOSTILE = [put(name, place, value) for name in STARTS for place, value in ((0, 1), (-1, 2**31 - 1), (3, -(2**31)))]
HOSTILE += [put(name, 0, 100) for name in ("photo_files", "photo_sources", "photo_splits")]
HOSTILE += [put(name, 0, value) for name in ("text_mirrored", "caption_texts") for value in (-1, 10**6, 5)]
HOSTILE += [put("phrase_spans", (0, slice(2)), value) for value in ((3, 3), (4, 3), (70, 78))]
HOSTILE += [put("phrase_labels", 0, 0), put("phrase_labels", 0, 3), put("token_values", 0, 49408)]
HOSTILE += [lambda arrays: {"unknown": np.zeros(3)}, lambda arrays: {"photo_bytes": np.zeros(3, np.uint8)}]
HOSTILE += [lambda arrays: {k: v for k, v in arrays.items() if k != "photo_sources"}]
HOSTILE += [lambda arrays: arrays | {"photo_starts": arrays["photo_starts"].astype(np.float64)}]
HOSTILE += [lambda arrays: arrays | {"phrase_spans": arrays["phrase_spans"][:, :5].copy()}]
HOSTILE += [lambda arrays: arrays | {"phrase_spans": arrays["phrase_spans"][:-1]}]
HOSTILE += [lambda arrays: arrays | {"photo_files": np.array(3, np.int32)}]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_arrays_are_refused(copied, number):
    with pytest.raises(PackError, match="not a pack that can be used"):
        open_packed(rewritten(copied, HOSTILE[number]))


def test_shards_that_are_no_arrays_are_refused(copied):
    foreign = safetensors.torch.save({"photo_bytes": torch.zeros(3, dtype=torch.bfloat16)})
    for data in (foreign, foreign[:-1], foreign[:9], b"", b"\xff" * 100):
        with pytest.raises(PackError, match="not a pack that can be used"):
            open_packed(shard_alone(copied, data))


def test_rewriting_alone_does_no_harm(copied, folder):
    assert len(open_packed(rewritten(copied, lambda arrays: None))) == len(open_packed(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"shards": [{"name": "../x", "sha256": "0" * 64, "size": 1}]},
        {"shards": None},
        {"files": [{"name": "teacher.bin", "sha256": "0", "size": 1}]},
        {"repeats": []},
        {"repeats": [0, 1, 1]},
        {"repeats": [10**9, 1, 1]},
        {"repeats": "123"},
        {"format": "lcad-pack-9"},
    ],
)
def test_hostile_indices_are_refused(copied, change):
    index = json.loads((copied / "packed.json").read_text())
    (copied / "packed.json").write_text(json.dumps(index | change))
    with pytest.raises(PackError, match="not the index of a pack"):
        open_packed(copied)


def test_a_hostile_label_map_is_an_error_when_it_is_read(copied):
    def change(arrays):
        arrays["label_bytes"][:] = 0

    packed = open_packed(rewritten(copied, change))
    with pytest.raises(ValueError, match="label map 0 of the pack"):
        packed.label_map(0)


def test_mistakes_are_one_line(root, tmp_path, capsys):
    def error(*options: str, output: Path = tmp_path / "new") -> str:
        assert pack_data.main(["--config", str(root / "config.yaml"), "--output", str(output), *options]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ")
        return message

    assert "holds a pack already" in error(output=root / "packed")
    assert "give at least" in error("--shard-size", "1KB")
    assert "as a size" in error("--shard-size", "big")
    assert "no such file to include" in error("--include", "teacher.bin=nowhere")
    assert "cannot include a file as '../x'" in error("--include", f"../x={root / 'teacher.bin'}")
    assert "no such file or folder" in error("data.folder=nowhere")


def test_bad_photos_are_left_out_and_bad_masks_end_it(root, tmp_path, capsys):
    shutil.copytree(root / "scenes", tmp_path / "scenes")
    scenes, options = tmp_path / "scenes", [f"data.folder={tmp_path / 'scenes'}", "data.caption_sources=[file]"]
    options += ["data.more=[]", f"data.masks={scenes / 'masks'}", "--processes", "1"]
    photo = min((scenes / "images").iterdir())
    photo.write_bytes(b"none")
    with pytest.warns(UserWarning, match=f"{photo.name}.*it is left out of the pack"):
        assert len(open_packed(packed_into(root, tmp_path / "packed", *options))) == 7
    mask = min((scenes / "masks" / max((scenes / "images").iterdir()).stem).glob("*.png"))
    mask.write_bytes(b"none")
    assert pack_data.main(["--config", str(root / "config.yaml"), "--output", str(tmp_path / "bad"), *options]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {mask}")
