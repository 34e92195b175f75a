"""Caption files of every format, what is refused, and the caption levels of training."""

import json
import unicodedata

import numpy as np
import pytest

from lcad.text.captions import SCARCE_CAPTION, CaptionError, CaptionSampler, mirror_words, read_captions

EXPECTED = {"a.png": ["a red cup", "a cup"], "b.png": ["two  dogs".replace("  ", " ")]}


@pytest.mark.parametrize(
    "name, text",
    [
        ("captions.json", json.dumps({"a.png": ["a red cup", "a cup"], "b.png": "two  dogs"})),
        ("pairs.json", json.dumps([["a.png", "a red cup"], ["a.png", "a cup"], ["b.png", "two dogs"]])),
        ("captions.csv", "image,caption\na.png,a red cup\na.png,a cup\nb.png,two dogs\n"),
    ],
)
def test_formats(tmp_path, name, text):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / name).write_text(text)
    assert read_captions(folder) == EXPECTED  # found in the parent
    assert read_captions(folder, tmp_path / name) == EXPECTED


def test_sidecars(tmp_path):
    for stem, text in (("a", "a red cup\n\na cup\n"), ("b", "two dogs")):
        (tmp_path / f"{stem}.png").write_bytes(b"x")
        (tmp_path / f"{stem}.txt").write_text(text)
    assert read_captions(tmp_path) == EXPECTED


def test_photos_without_captions(tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps({"a.png": [], "b.png": "", "c.png": None}))
    assert not any(read_captions(tmp_path).values())


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "not readable"),
        ('"text"', "expected"),
        ('{"a.png": 3}', "expected names and captions as text"),
        ('[["a.png"]]', "expected"),
        ('{"../a.png": "x"}', "plain file name"),
        ('{"/etc/passwd": "x"}', "plain file name"),
        ('{"..": "x"}', "plain file name"),
        ('{"c:\\\\a.png": "x"}', "plain file name"),
        ("[" * 100_000, "not readable"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, reason):
    file = tmp_path / "captions.json"
    file.write_text(text)
    with pytest.raises(CaptionError, match=reason) as error:
        read_captions(tmp_path)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "captions.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CaptionError, match="not readable"):
        read_captions(tmp_path)
    with pytest.raises(CaptionError, match="no such caption file"):
        read_captions(tmp_path, tmp_path / "x.json")


def test_levels_come_in_the_asked_shares():
    drawn = CaptionSampler(scarce_probability=0.3, dropout=0.1)
    rng = np.random.default_rng(0)
    counts = {"": 0, SCARCE_CAPTION: 0, "red": 0, "blue": 0}
    for _ in range(20_000):
        counts[drawn(["red", "blue"], rng)] += 1
    shares = [count / 20_000 for count in counts.values()]
    assert shares == pytest.approx([0.1, 0.3, 0.3, 0.3], abs=0.01)
    assert {drawn([], rng) for _ in range(100)} == {"", SCARCE_CAPTION}


def test_mirroring_swaps_left_and_right():
    assert mirror_words("Left cup at the top left, bright cup right") == "Right cup at the top right, bright cup left"
    assert mirror_words(mirror_words("the left cup, the right cup")) == "the left cup, the right cup"


def test_control_characters_are_left_out(tmp_path):
    """Captions are shown in terminals: neither escape sequences nor turned writing get through."""
    strange = "a \x1b[31mred\x1b[0m cup\r\n on\ta \u202etable\u0000 \u05db\u05d5\u05e1"
    (tmp_path / "captions.json").write_text(json.dumps({"a.png": [strange, "\u202e\x07"]}), encoding="utf-8")
    (caption,) = read_captions(tmp_path)["a.png"]
    assert caption == "a [31mred [0m cup on a table \u05db\u05d5\u05e1"
    (tmp_path / "captions.json").unlink()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a \x1bred cup\n\x00\n", encoding="utf-8")
    assert read_captions(tmp_path) == {"a.png": ["a red cup"]}


@pytest.mark.parametrize(
    "text, caption",
    [
        ('image,caption\nx.png,"a red\ncoat"\n', "a red coat"),
        ('image,caption\r\nx.png,"a red\r\ncoat"\r\n', "a red coat"),
        ("image,caption\nx.png,a red\u2028coat\n", "a red coat"),
        ("image,caption\nx.png,the red cup, the blue cup\n", "the red cup, the blue cup"),
        ("\ufeff\ufeffimage, caption\n\ufeffx.png,a \ufeffred coat\n", "a red coat"),
        ("id,image,caption\n1,x.png,a coat, red\n", "a coat, red"),
    ],
)
def test_captions_of_csv_are_whole(tmp_path, text, caption):
    (tmp_path / "captions.csv").write_bytes(text.encode())
    assert read_captions(tmp_path) == {"x.png": [caption]}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("caption,image\na coat, red,x.png\n", "line 2 has 3 cells for 2 columns; put captions with commas in quot"),
        ('image,caption\nx.png,"a red coat\ny.png,a hat\n', "line 3: .*double the quotation marks"),
    ],
)
def test_csv_that_would_lose_words(tmp_path, text, reason):
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(CaptionError, match=reason):
        read_captions(tmp_path)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_compared_composed(tmp_path, form):
    name = unicodedata.normalize(form, "Zürich.png")
    (tmp_path / name).write_bytes(b"")
    for listed in ("NFC", "NFD"):
        content = {unicodedata.normalize(listed, "Zürich.png"): "a red cafe\u0301"}
        (tmp_path / "captions.json").write_text(json.dumps(content))
        assert read_captions(tmp_path) == {name: ["a red café"]}


def test_a_line_separator_in_a_sidecar_is_a_space(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a red\u2028coat\r\na \ufeffhat", encoding="utf-8", newline="")
    assert read_captions(tmp_path) == {"a.png": ["a red coat", "a hat"]}
