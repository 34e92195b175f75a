"""Eq. (3) against a literal sum, and the weight it gives."""

import pytest
import torch

from lcad.training.artifact_loss import ARTIFACT_MAPS, WINDOW, artifact_loss, ldl_artifact_map, paper_artifact_map


def test_equation_3_literally():
    real, fake = torch.rand(1, 3, 12, 11, dtype=torch.float64), torch.rand(1, 3, 12, 11, dtype=torch.float64)
    ours, n = paper_artifact_map(real, fake, 7), 7
    for row, column in ((3, 3), (6, 5), (8, 7)):  # windows that lie inside
        total = 0.0
        for channel in range(3):
            window = (real - fake)[0, channel, row - 3 : row + 4, column - 3 : column + 4]
            mean = sum(window.flatten().tolist()) / n**2
            total += sum(((delta - mean) / n) ** 2 for delta in window.flatten().tolist()) / 3
        assert ours[0, 0, row, column].item() == pytest.approx(total)


def test_borders_are_reflected():
    real, fake = torch.rand(1, 3, 12, 11, dtype=torch.float64), torch.zeros(1, 3, 12, 11, dtype=torch.float64)
    padded = torch.nn.functional.pad(real, (3, 3, 3, 3), mode="reflect")[0, :, :7, :7].flatten(1)
    corner = ((padded - padded.mean(1, keepdim=True)) ** 2).mean()
    assert paper_artifact_map(real, fake)[0, 0, 0, 0].item() == pytest.approx(corner.item())
    padded = torch.nn.functional.pad(real.sum(1, keepdim=True), (3, 3, 3, 3), mode="reflect")[..., -7:, -7:]
    whole = real.sum(1)
    expected = ((whole - whole.mean()) ** 2).sum().div(12 * 11 - 1) ** 0.2 * padded.var()
    maps = ldl_artifact_map(real, fake)
    assert maps.shape == (1, 1, 12, 11) and maps[0, 0, -1, -1].item() == pytest.approx(expected.item())


def test_ldls_map_is_of_each_photo_and_is_differentiated():
    real, fake = torch.rand(2, 3, 9, 9), torch.rand(2, 3, 9, 9, requires_grad=True)
    maps = ldl_artifact_map(real, fake)
    assert torch.allclose(maps[1:], ldl_artifact_map(real[1:] - fake[1:], torch.zeros(1, 3, 9, 9)))
    expected = ((maps + 0.3) * (real - fake)).abs().mean()
    loss = artifact_loss(real, fake, "ldl", 0.3)
    assert loss.item() == pytest.approx(expected.item())
    (gradient,), (wanted,) = torch.autograd.grad(loss, fake), torch.autograd.grad(expected, fake)
    assert torch.allclose(gradient, wanted) and not torch.allclose(gradient, ((maps + 0.3) / fake.numel()).detach())


def test_the_window_may_be_another():
    real, fake = torch.rand(1, 3, 9, 9), torch.rand(1, 3, 9, 9)
    for kind, of in ARTIFACT_MAPS.items():
        assert of(real, fake, 5).shape == (1, 1, 9, 9)
        expected = (of(real, fake, 5) * (real - fake)).abs().mean()
        assert artifact_loss(real, fake, kind, window=5).item() == pytest.approx(expected.item())
    assert (WINDOW, artifact_loss(real, fake)) == (7, artifact_loss(real, fake, "paper", 0.0, 7))


def test_an_even_error_has_no_weight_without_a_floor():
    real = torch.rand(1, 3, 16, 16)
    assert artifact_loss(real, real + 0.1).item() < 1e-6
    assert artifact_loss(real, real + 0.1, floor=0.5).item() == pytest.approx(0.05, rel=1e-3)


def test_the_papers_map_is_a_weight_and_gets_no_gradient():
    real, fake = torch.rand(1, 3, 9, 9), torch.rand(1, 3, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(artifact_loss(real, fake), fake)
    weight = paper_artifact_map(real, fake.detach())
    assert torch.allclose(gradient, weight * (fake - real).sign().detach() / fake.numel(), atol=1e-9)


def test_unknown_map_is_named():
    with pytest.raises(ValueError, match="allowed: paper, ldl"):
        artifact_loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), "other")
