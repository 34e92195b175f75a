"""Files in pieces: whole again, or a line that says what is wrong."""

import json

import pytest

from lcad.data.build.pieces import join_pieces, parse_size, split_file
from scripts import join_pieces as script


@pytest.fixture
def pieces(tmp_path):
    (tmp_path / "model.bin").write_bytes(bytes(range(250)))
    return split_file(tmp_path / "model.bin", tmp_path / "pieces", 100)


def test_pieces_make_the_file_again(tmp_path, pieces, capsys):
    parts = sorted(pieces.parent.glob("*.part*"))
    assert [part.name for part in parts] == [f"model.bin.part00{i}" for i in range(3)]
    assert [part.stat().st_size for part in parts] == [100, 100, 50]
    assert script.main([str(pieces), "--output", str(tmp_path / "joined")]) == 0, capsys.readouterr().err
    assert (tmp_path / "joined" / "model.bin").read_bytes() == bytes(range(250))
    (tmp_path / "empty").write_bytes(b"")
    empty = split_file(tmp_path / "empty", tmp_path / "pieces", 100)
    assert join_pieces(empty, tmp_path / "joined").read_bytes() == b""


def test_lost_and_damaged_pieces_are_named(tmp_path, pieces, capsys):
    (pieces.parent / "model.bin.part000").unlink()
    (pieces.parent / "model.bin.part002").write_bytes(bytes(50))
    assert script.main([str(pieces), "--output", str(tmp_path / "joined")]) == 2
    error = capsys.readouterr().err
    assert "model.bin.part000 is missing, model.bin.part002 is damaged; copy them again" in error
    assert not (tmp_path / "joined").exists()
    with pytest.raises(FileNotFoundError):
        join_pieces(tmp_path / "none.pieces.json", tmp_path)


def test_pieces_of_another_file_leave_nothing(tmp_path, pieces):
    content = json.loads(pieces.read_text())
    pieces.write_text(json.dumps(content | {"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="do not make the file"):
        join_pieces(pieces, tmp_path / "joined")
    assert not list((tmp_path / "joined").iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../model.bin"},
        {"name": "/tmp/model.bin"},
        {"name": ".."},
        {"name": "a\\b"},
        {"name": 3},
        {"sha256": "none"},
        {"size": -1},
        {"size": True},
        {"pieces": [{"name": "../model.bin", "sha256": "0" * 64, "size": 1}]},
        {"pieces": [{"name": "model.bin.part001", "sha256": "0" * 64, "size": 1}]},
        {"pieces": 3},
        {"pieces": [None]},
    ],
)
def test_hostile_manifests_are_refused(tmp_path, pieces, change):
    pieces.write_text(json.dumps(json.loads(pieces.read_text()) | change))
    with pytest.raises(ValueError, match="not a manifest of pieces"):
        join_pieces(pieces, tmp_path / "joined")
    for text in ("[]", "{", "3", "[" * 100_000):
        pieces.write_text(text)
        with pytest.raises(ValueError, match="not a manifest of pieces"):
            join_pieces(pieces, tmp_path / "joined")


def test_sizes():
    assert [parse_size(text) for text in ("15MB", "1.5 kb", "2MiB", "7", "50m")] == [
        15_000_000,
        1500,
        2**21,
        7,
        50_000_000,
    ]
    for text in ("", "MB", "0", "-1MB", "15 MB more", "15TB", "1e9", "0.1"):
        with pytest.raises(ValueError, match="as a size"):
            parse_size(text)
    with pytest.raises(ValueError, match="size of a piece"):
        split_file(None, None, 0)
