"""Measures against hand-computed, closed-form and published values."""

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.color import absolute_colorfulness, colorfulness, lab_to_rgb, mean_color
from lcad.evaluation import metrics
from lcad.evaluation.metrics import METRICS, SET_VARIANTS, ScoredPhoto, build_fid, build_metrics, clip_metric
from lcad.models.perceptual import psnr


def flat(color, size=16) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (size, size, 3)).copy()


def test_psnr_by_hand():
    real = torch.zeros(2, 3, 4, 4)
    fake = real.clone()
    fake[0] += 0.1
    fake[1, 0] += 0.3
    assert psnr(real, fake).tolist() == pytest.approx([20.0, -10 * np.log10(0.03)], abs=1e-4)
    error_of_ten = ScoredPhoto(flat((100, 100, 100)), flat((110, 100, 100)))
    assert METRICS["psnr"].score(error_of_ten) == pytest.approx(10 * np.log10(255**2 / (100 / 3)))


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
    assert METRICS["ssim"].score(ScoredPhoto(flat((100,) * 3), flat((120,) * 3))) == pytest.approx(expected, rel=1e-6)
    expected = (2 * 4 * 9 + c) / (4**2 + 9**2 + c)  # where the constant counts
    assert METRICS["ssim"].score(ScoredPhoto(flat((4,) * 3), flat((9,) * 3))) == pytest.approx(expected, rel=1e-6)


def test_what_a_table_says_of_its_columns():
    assert {name: measure.best for name, measure in METRICS.items()} == {
        "psnr": "higher", "ssim": "higher", "colorfulness": "", "colorfulness_true": "", "colorfulness_error": "lower",
        "colorfulness_abs": "", "adherence": "higher",
    }  # fmt: skip
    assert all(measure.name == name for name, measure in METRICS.items())
    assert [measure.variant for measure in METRICS.values()] == [
        "dB, over RGB in uint8, scikit-image",
        "mean over R, G and B in uint8, 7x7 window, scikit-image",
        "Hasler and Suesstrunk 2003, as published",
        "that of the true photo",
        "absolute difference of colorfulness to the true photo's, photo by photo",
        "of |rg| and |yb|, as in peers' code",
        "share of (object, colour word) pairs whose region has the asked colour",
    ]
    assert SET_VARIANTS == {
        "colorfulness_difference": "|mean colorfulness of all results - that of all true photos|, as in Table 3",
        "fid": "torchmetrics, 2048 Inception features, images in uint8",
    }
    for value, name in ((METRICS["psnr"], "best"), (ScoredPhoto(flat((0,) * 3), flat((0,) * 3)), "caption")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, "other")


def test_the_true_photo_has_its_own_colorfulness():
    red, grey = flat((200, 30, 30)), flat((90, 90, 90))
    own = METRICS["colorfulness_true"].score
    assert (
        own(ScoredPhoto(red, grey)) == METRICS["colorfulness"].score(ScoredPhoto(grey, red)) > 10
        and own(ScoredPhoto(grey, red)) < 1
    )


def test_adherence_counts_objects():
    red = (lab_to_rgb(torch.tensor([50.0, 60, 40])[:, None, None]) * 255).round().byte().flatten().tolist()
    left, right = torch.zeros(16, 16), torch.zeros(16, 16)
    left[:, :8] = right[:, 8:] = 1
    fake = flat(red)
    score = METRICS["adherence"].score
    assert score(ScoredPhoto(fake, fake, objects=[("red", left), ("blue", right)])) == 0.5
    assert score(ScoredPhoto(fake, fake, objects=[("red", left)])) == 1
    assert score(ScoredPhoto(fake, fake)) is None


def test_colorfulness_measures_are_of_the_result():
    red, grey = flat((200, 30, 30)), flat((90, 90, 90))
    value = colorfulness(torch.tensor([200, 30, 30]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4) / 255).item()
    assert value > 10
    for name, of_red, of_grey in (
        ("colorfulness", value, 0), ("colorfulness_error", value, value), ("colorfulness_abs", value, 0)
    ):  # fmt: skip
        score = METRICS[name].score
        assert score(ScoredPhoto(grey, red)) == pytest.approx(of_red, rel=1e-4)
        assert score(ScoredPhoto(red, grey)) == pytest.approx(of_grey, rel=1e-4, abs=1e-4)


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
    measures = build_metrics(["alex=weights=1.pth", "vgg"], [], torch.device("cpu"))
    assert asked == [("alex", "weights=1.pth"), ("vgg", None)]
    assert [measure.name for measure in measures] == [*METRICS, "lpips_alex", "lpips_vgg"]
    assert measures[-1].best == "lower" and measures[-1].variant == "LPIPS v0.1, vgg, images in [-1, 1]"
    assert measures[-1].score(ScoredPhoto(flat((0, 0, 0)), flat((255, 0, 51)))) == 0.25
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


def test_clip_models_are_those_that_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(metrics, "clip_metric", lambda *given: asked.append(given) or "measure")
    device = torch.device("cpu")
    assert build_metrics([], ["ViT-B-32=weights=1.pt", "ViT-L-14=openai"], device)[-2:] == ["measure", "measure"]
    assert asked == [("ViT-B-32", "weights=1.pt", device), ("ViT-L-14", "openai", device)]


def test_fid_has_2048_features_and_the_weights_that_are_given(tmp_path, monkeypatch):
    asked = []

    class Distance(torch.nn.Module):
        def __init__(self, *given, **options):
            super().__init__()
            asked.append((*given, *options.items()))

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", Distance)
    packages = []
    monkeypatch.setattr(metrics, "find_spec", lambda name: packages.append(name) or "there")
    (tmp_path / "inception.pth").touch()
    for weights in (str(tmp_path / "inception.pth"), "download"):
        assert isinstance(build_fid(weights, torch.device("cpu")), Distance)
    option = "feature_extractor_weights_path"
    assert asked == [(2048, (option, str(tmp_path / "inception.pth"))), (2048, (option, None))]
    assert set(packages) == {"torch_fidelity"}


def test_missing_weights_say_so(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such file of Inception weights"):
        build_fid(str(tmp_path / "inception.pth"), torch.device("cpu"))
    (tmp_path / "inception.pth").touch()
    monkeypatch.setattr("lcad.evaluation.metrics.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install \"lcad\[eval\]"):
        build_fid(str(tmp_path / "inception.pth"), torch.device("cpu"))
    with pytest.raises(ValueError, match="CLIP score: ViT-none"):
        clip_metric("ViT-none", "openai", torch.device("cpu"))


def test_clip_score_with_a_model_of_random_weights(tmp_path, monkeypatch):
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
    asked, own = [], open_clip.create_model_and_transforms
    create = lambda *given, **options: asked.append(str(options["device"])) or own(*given, **options)  # noqa: E731
    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    measure = clip_metric("tiny-clip", str(weights), torch.device("cpu"))
    monkeypatch.undo()
    captions = ("a cup", "a dog", "the red car", "snow", "one two three", "a colorful image")
    scores = [measure.score(ScoredPhoto(flat((9, 9, 9)), flat((200, 30, 30)), caption)) for caption in captions]
    assert all(0 <= score <= 100 for score in scores) and len(set(scores)) > 1
    assert measure.variant == "100 max(cos, 0), open_clip tiny-clip (weights.pt)"
    assert (measure.name, measure.best) == ("clip_score", "higher")
    model, _, prepare = open_clip.create_model_and_transforms("tiny-clip", pretrained=str(weights))
    model.eval()
    with torch.no_grad():
        seen = model.encode_image(prepare(Image.fromarray(flat((200, 30, 30))))[None])
        said = model.encode_text(open_clip.get_tokenizer("tiny-clip")(list(captions)))
    cosines = torch.nn.functional.cosine_similarity(seen, said).clamp_min(0) * 100
    assert scores == pytest.approx(cosines.tolist(), abs=1e-3)
    assert asked == ["cpu"]
