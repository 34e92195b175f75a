"""Eq. (3) against a literal sum, and the weight it gives."""

import pytest
import torch

from lcad.artifact_loss import artifact_loss, paper_artifact_map


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
