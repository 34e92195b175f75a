"""Measures against hand-computed, closed-form and published values."""

import json

import numpy as np
import pytest
import torch

from lcad.color import absolute_colorfulness, colorfulness, lab_to_rgb, mean_color
from lcad.evaluation.metrics import MEASURES, Scored, build_fid, build_measures, clip_measure
from lcad.models.perceptual import psnr


def flat(color, size=16) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (size, size, 3)).copy()


def test_psnr_by_hand():
    real = torch.zeros(2, 3, 4, 4)
    fake = real.clone()
    fake[0] += 0.1
    fake[1, 0] += 0.3
    assert psnr(real, fake).tolist() == pytest.approx([20.0, -10 * np.log10(0.03)], abs=1e-4)
    error_of_ten = Scored(flat((100, 100, 100)), flat((110, 100, 100)))
    assert MEASURES["psnr"].score(error_of_ten) == pytest.approx(10 * np.log10(255**2 / (100 / 3)))


def test_colorfulness_by_hand():
    assert colorfulness(torch.full((1, 3, 4, 4), 0.5)).item() == 0
    halves = torch.zeros(1, 3, 2, 2)
    halves[:, 0, :, 0] = 1  # left red: rg 255, yb 127.5; right black: 0, 0
    expected = (127.5**2 + 63.75**2) ** 0.5 * 1.3
    assert colorfulness(halves).item() == pytest.approx(expected, rel=1e-5)


def test_colorfulness_of_absolute_values_differs_where_opponents_change_sign():
    halves = torch.zeros(1, 3, 2, 2)
    halves[:, 0, :, 0] = halves[:, 1, :, 1] = 1  # red: rg 255, green: rg -255; yb 127.5 both
    assert colorfulness(halves).item() == pytest.approx(255 + 0.3 * 127.5, rel=1e-5)
    assert absolute_colorfulness(halves).item() == pytest.approx(0.3 * (255**2 + 127.5**2) ** 0.5, rel=1e-5)


def test_ssim_closed_form_for_flat_images():
    """Without variance SSIM is the luminance term: (2 x y + c) / (x^2 + y^2 + c), c = (0.01 * 255)^2."""
    c = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c) / (100**2 + 120**2 + c)
    assert MEASURES["ssim"].score(Scored(flat((100,) * 3), flat((120,) * 3))) == pytest.approx(expected, rel=1e-6)


def test_adherence_counts_objects():
    red = (lab_to_rgb(torch.tensor([50.0, 60, 40])[:, None, None]) * 255).round().byte().flatten().tolist()
    left, right = torch.zeros(16, 16), torch.zeros(16, 16)
    left[:, :8] = right[:, 8:] = 1
    fake = flat(red)
    score = MEASURES["adherence"].score
    assert score(Scored(fake, fake, objects=[("red", left), ("blue", right)])) == 0.5
    assert score(Scored(fake, fake, objects=[("red", left)])) == 1
    assert score(Scored(fake, fake)) is None


def test_colorfulness_measures_are_of_the_result():
    red, grey = flat((200, 30, 30)), flat((90, 90, 90))
    value = colorfulness(torch.tensor([200, 30, 30]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4) / 255).item()
    assert value > 10
    for name, of_red, of_grey in (
        ("colorfulness", value, 0), ("colorfulness_error", value, value), ("colorfulness_abs", value, 0)
    ):  # fmt: skip
        score = MEASURES[name].score
        assert score(Scored(grey, red)) == pytest.approx(of_red, rel=1e-4)
        assert score(Scored(red, grey)) == pytest.approx(of_grey, rel=1e-4, abs=1e-4)


def test_mean_color_is_inside_the_mask():
    image = torch.zeros(3, 4, 4)
    image[:, :, 2:] = 1
    mask = torch.zeros(4, 4)
    mask[:, 2:] = 1
    assert mean_color(image, mask).tolist() == pytest.approx([100, 0, 0], abs=0.02)
    assert mean_color(image, torch.ones(4, 4)).tolist() == pytest.approx([50, 0, 0], abs=0.02)


def test_lpips_is_of_images_from_minus_one_to_one(monkeypatch):
    seen, asked = [], []

    class Metric(torch.nn.Module):
        def forward(self, real, fake):
            seen.append((real, fake))
            return torch.tensor([[[[0.25]]]])

    monkeypatch.setattr("lcad.models.perceptual.build_lpips", lambda *given: asked.append(given) or Metric())
    measures = build_measures(["alex=weights=1.pth", "vgg"], [], torch.device("cpu"))
    assert asked == [("alex", "weights=1.pth"), ("vgg", None)]
    assert [measure.name for measure in measures] == [*MEASURES, "lpips_alex", "lpips_vgg"]
    assert measures[-1].score(Scored(flat((0, 0, 0)), flat((255, 0, 51)))) == 0.25
    ((real, fake),) = seen
    assert torch.equal(real, -torch.ones(1, 3, 16, 16))
    assert fake[0, :, 0, 0].tolist() == pytest.approx([1, -1, -0.6])


class MeanColors(torch.nn.Module):
    """Stands in for Inception: the mean of each channel is its three features."""

    num_features = 3

    def forward(self, images):
        return images.double().mean(dim=(-2, -1))


def test_fid_closed_form():
    """Of Gaussians with diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2; torchmetrics takes our uint8 images."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = np.random.default_rng(0)
    fid = FrechetInceptionDistance(MeanColors(), input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    values = {True: rng.integers(100, 140, (400, 3)), False: rng.integers(120, 200, (400, 3))}
    for real, colors in values.items():
        images = torch.from_numpy(colors).byte()[:, :, None, None].expand(-1, -1, 8, 8)
        fid.update(images, real=real)
    m1, m2 = values[True].mean(0), values[False].mean(0)
    c1, c2 = np.cov(values[True].T), np.cov(values[False].T)
    roots = np.sqrt(np.linalg.eigvals(c1 @ c2).real).sum()
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * roots
    assert fid.compute().item() == pytest.approx(expected, rel=1e-4)


def test_missing_weights_say_so(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such file of Inception weights"):
        build_fid(str(tmp_path / "inception.pth"), torch.device("cpu"))
    (tmp_path / "inception.pth").touch()
    monkeypatch.setattr("lcad.evaluation.metrics.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install \"lcad\[eval\]"):
        build_fid(str(tmp_path / "inception.pth"), torch.device("cpu"))
    with pytest.raises(ValueError, match="CLIP score: ViT-none"):
        clip_measure("ViT-none", "openai", torch.device("cpu"))


def test_clip_score_with_a_model_of_random_weights(tmp_path):
    import open_clip

    config = open_clip.get_model_config("ViT-B-32")
    config |= {"embed_dim": 16}
    config["vision_cfg"] = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    config["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("tiny-clip").state_dict(), weights)
    measure = clip_measure("tiny-clip", str(weights), torch.device("cpu"))
    captions = ("a cup", "a dog", "the red car", "snow", "one two three", "a colorful image")
    scores = [measure.score(Scored(flat((9, 9, 9)), flat((200, 30, 30)), caption)) for caption in captions]
    assert all(0 <= score <= 100 for score in scores) and len(set(scores)) > 1
    assert "tiny-clip (weights.pt)" in measure.variant
