"""LPIPS with a local backbone, against the numbers of its authors' example pair where the weights are at hand."""

from pathlib import Path

import pytest
import torch

from lcad.perceptual import build_lpips
from ldm.images import read_image, to_tensor

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs SqueezeNet's weights")
def test_published_example():
    metric = build_lpips("squeeze", str(WEIGHTS / "squeezenet1_1_fp16.pth"))
    reference, *others = (to_tensor(read_image(WEIGHTS / f"ex_{n}.png"))[None] * 2 - 1 for n in ("ref", "p0", "p1"))
    with torch.no_grad():
        assert [metric(reference, other).item() for other in others] == pytest.approx([0.7112, 0.1479], abs=2e-4)
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_wrong_weights_are_named(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not the weights of squeezenet1_1"):
        build_lpips("squeeze", str(tmp_path / "x.pth"))
    with pytest.raises(ValueError, match="allowed: vgg, alex, squeeze"):
        build_lpips("resnet")
