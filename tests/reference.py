"""The reference weights, rebuilt from keys and shapes, and the reference numbers.

Rule, first match wins: schedule buffers keep their values; otherwise randn of the key's CRC-32 seed, scaled by
0.5 (token embedding), 0.2 (position embedding), 0.1 around 1 (norm weights), 0.02 (biases), 1.5 / sqrt(fan_in)
(to_q, to_k), 0.2 / sqrt(fan_in) (zero convolutions), 1 / sqrt(fan_in) (the rest).
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "reference"
SCHEDULE_LENGTH = 1000


def reference_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    if "." not in key and tuple(shape) == (SCHEDULE_LENGTH,):
        return torch.zeros(shape)  # a schedule buffer: dropped by the converter
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(key.encode()))
    values = torch.randn(tuple(shape), generator=generator, dtype=torch.float32)
    fan_in = math.prod(shape[1:])
    if key.endswith("token_embedding.weight"):
        return values.mul_(0.5)
    if key.endswith("position_embedding.weight"):
        return values.mul_(0.2)
    if len(shape) == 1:
        return values.mul_(0.1).add_(1) if key.endswith("weight") else values.mul_(0.02)
    if ".to_q." in key or ".to_k." in key:
        return values.mul_(1.5 / math.sqrt(fan_in))
    return values.mul_((0.2 if "zero_conv" in key else 1.0) / math.sqrt(fan_in))


def reference_state_dict(shapes: dict[str, list[int]] | None = None) -> dict[str, Tensor]:
    """The tiny model's state dict, or that of other shapes."""
    shapes = shapes or json.loads((GOLDEN / "tiny_shapes.json").read_text())
    return {key: reference_weight(key, tuple(shape)) for key, shape in shapes.items()}


class Numbers:
    """Reference tensors by name, from the full set where it exists, else from the committed part."""

    def __init__(self):
        full = SHARED / "tiny.npz"
        self._file = np.load(full if full.is_file() else GOLDEN / "tiny.npz")

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self._file[name])

    def names(self, prefix: str) -> list[str]:
        return [name for name in self._file.files if name.startswith(prefix)]


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    assert value.shape == expected.shape, (value.shape, expected.shape)
    return ((value.double() - expected.double()).abs().max() / expected.double().abs().max()).item()
