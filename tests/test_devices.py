"""The types that weights have where none is asked for, and what bfloat16 does to colours."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lcad.color import rgb_to_lab
from lcad.pipeline import LCADPipeline
from ldm.devices import choose_dtype

ROOT = Path(__file__).parents[1]
MINI = ROOT / "checkpoints" / "mini"


@pytest.mark.parametrize(
    "device, capabilities, expected",
    [
        ("cuda", {}, torch.float16),
        ("mps", {"bf16": True}, torch.float32),
        ("cpu", {"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ("cpu", {"avx512_bf16": True}, torch.bfloat16),
        ("cpu", {"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_the_type_of_weights_unasked(monkeypatch, device, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_dtype("auto", torch.device(device)) == expected
    assert choose_dtype("float16", torch.device(device)) == torch.float16
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32, "an older torch does not tell"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_format_of_weights(tiny_checkpoint, dtype):
    """float32 stays as it was, for the same pixels."""
    pipeline = LCADPipeline.from_pretrained(tiny_checkpoint, torch_dtype=dtype)
    for part in (pipeline.unet, pipeline.vae.decoder):
        weight = part.conv_in.weight
        assert weight.is_contiguous() == (dtype == torch.float32)
        assert weight.is_contiguous(memory_format=torch.channels_last) == (dtype != torch.float32)


@pytest.mark.skipif(not MINI.is_dir(), reason="the mini model is not in this checkout")
def test_bfloat16_hardly_changes_colors():
    """Why it may be the default: the mean distance of ab stays below 1."""
    photo = Image.open(ROOT / "data" / "examples" / "images" / "astronaut.jpg")
    chroma = []
    for dtype in (torch.float32, torch.bfloat16):
        pipeline = LCADPipeline.from_pretrained(MINI, torch_dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        made = pipeline(photo, "a woman in an orange suit", "auto", generator=generator, output_type="pt").images
        chroma.append(rgb_to_lab(made[0][None])[:, 1:])
    exact, rounded = chroma
    assert exact.norm(dim=1).mean() > 5, "it is in colour"
    assert 0 < (exact - rounded).norm(dim=1).mean() < 0.5
