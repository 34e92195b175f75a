"""LPIPS with a local backbone, against the numbers of its authors' example pair where the weights are at hand."""

from pathlib import Path

import pytest
import torch

from lcad.io.images import read_image, to_tensor
from lcad.models.perceptual import build_lpips

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"


@pytest.mark.parametrize(
    "net, file, published",
    [
        ("squeeze", "squeezenet1_1_fp16.pth", [0.7112, 0.1479]),
        ("alex", "alexnet_features_fp16.safetensors", [0.7219, 0.1376]),  # as the authors print: 0.722, 0.138
        ("vgg", "vgg16_features_fp16.safetensors", [0.5686, 0.4217]),
    ],
)
def test_published_example(net, file, published):
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"needs {file}")
    metric = build_lpips(net, str(WEIGHTS / file))
    reference, *others = (to_tensor(read_image(WEIGHTS / f"ex_{n}.png"))[None] * 2 - 1 for n in ("ref", "p0", "p1"))
    with torch.no_grad():
        assert [metric(reference, other).item() for other in others] == pytest.approx(published, abs=2e-4)
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_wrong_weights_are_named(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not the weights of squeezenet1_1"):
        build_lpips("squeeze", str(tmp_path / "x.pth"))
    with pytest.raises(ValueError, match="allowed: vgg, alex, squeeze"):
        build_lpips("resnet")
