"""Weight files as strangers send them: tensors come back, everything else is one clear line."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ldm.checkpoint import CheckpointError, build_with_weights, listing, load_state_dict

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.float16)}


class Trap:
    """A pickle that makes a folder when it is read with the code it carries."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def error_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "\x1b" not in message
    return message


def assert_tensors(state):
    assert list(state) == list(TENSORS)
    assert all(torch.equal(state[key], value) and state[key].dtype == value.dtype for key, value in TENSORS.items())


def test_reads_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert_tensors(load_state_dict(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("content", [TENSORS, {"state_dict": TENSORS, "epoch": 3}])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_pickles(tmp_path, suffix, content, zipped):
    torch.save(content, tmp_path / f"w{suffix}", _use_new_zipfile_serialization=zipped)
    assert_tensors(load_state_dict(str(tmp_path / f"w{suffix}")))


@pytest.mark.parametrize("zipped", [True, False])
def test_refuses_a_pickle_with_code_and_does_not_run_it(tmp_path, zipped):
    content = {"state_dict": TENSORS, "callbacks": Trap(tmp_path / "ran")}
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    message = error_of(tmp_path / "w.ckpt")
    assert "mkdir" in message and "convert it with its own tools to safetensors" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_refuses_truncated_pickles(tmp_path, zipped, share):
    torch.save({"w": torch.zeros(3000)}, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "w.ckpt").read_bytes()
    (tmp_path / "w.ckpt").write_bytes(data[: int(len(data) * share)])
    assert "truncated" in error_of(tmp_path / "w.ckpt")


@pytest.mark.parametrize("length", [4, 20, -10])
def test_refuses_truncated_safetensors(tmp_path, length):
    save_file(TENSORS, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[:length])
    assert "truncated" in error_of(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_refuses_empty_missing_foreign_files_and_folders(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    assert "no such weight file" in error_of(path)
    path.touch()
    assert "0 bytes" in error_of(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4265380512\n")
    assert "git-lfs pointer" in error_of(path)
    assert "is a folder" in error_of(tmp_path)
    (tmp_path / "w.txt").write_text("words")
    assert "'.txt'; allowed: .safetensors, .ckpt" in error_of(tmp_path / "w.txt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "is empty"),
        ({"state_dict": {}}, "is empty"),
        ({"w": torch.zeros(1), "step": 3}, "not tensors: step"),
        ({"state_dict": {"w": torch.zeros(1), "betas": [1, 2]}}, "not tensors: betas"),
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
    ],
)
def test_refuses_what_is_no_state_dict(tmp_path, content, words):
    torch.save(content, tmp_path / "w.ckpt")
    assert words in error_of(tmp_path / "w.ckpt")


def test_builds_a_module_from_the_tensors_themselves():
    tensors = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    model = build_with_weights(lambda: nn.Linear(3, 2), tensors)
    assert model.weight.data_ptr() == tensors["weight"].data_ptr()
    assert model.weight.requires_grad and not model.training


def test_names_missing_left_over_and_wrong_tensors():
    tensors = {"weight": torch.randn(5, 3), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        build_with_weights(lambda: nn.Linear(3, 2), tensors, names={"weight": "old.w", "extra": "old.e"})
    message = str(caught.value)
    assert "those of a Linear" in message and "missing keys: bias" in message
    assert "left over keys: old.e" in message and "old.w is (5, 3), needs (2, 3)" in message


def test_zeros_stand_in_for_named_parameters_only():
    tensors = {"weight": torch.randn(2, 3)}
    assert build_with_weights(lambda: nn.Linear(3, 2), tensors, zeros="bias").bias.eq(0).all()
    with pytest.raises(CheckpointError, match="missing keys: weight"):
        build_with_weights(lambda: nn.Linear(3, 2), {"bias": torch.zeros(2)}, zeros="bias")


def test_listing_counts_what_it_leaves_out():
    assert listing("abc") == "a, b, c"
    assert listing("abcd", limit=2) == "a, b, ... (4 in all)"
