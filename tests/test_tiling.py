"""Latents larger than the model's own, in tiles."""

import pytest
import torch

from lcad.io.images import to_tensor
from lcad.masks.types import InstanceMasks
from lcad.text.phrases import comma_phrases
from lcad.tiling import tiled, tiles
from ldm.schedulers import SCHEDULERS, scheduler_like
from tests.conftest import random_photo


@pytest.mark.parametrize("size, tile, number", [((8, 8), (8, 8), 1), ((16, 8), (8, 8), 3), ((20, 31), (8, 9), 4 * 7)])
def test_tiles_cover_and_overlap(size, tile, number):
    places = tiles(size, tile)
    assert len(places) == number
    covered = torch.zeros(size)
    for rows, columns in places:
        part = covered[rows, columns]
        assert tuple(part.shape) == tile
        assert number == 1 or not part.any() or part.bool().float().mean() >= 0.25, "beside the one before, or above"
        part += 1
    assert covered.min() >= 1


def test_predictions_are_averaged():
    """Tiles that agree give what the whole would; where they do not, the change is gradual."""
    places = tiles((4, 24), (4, 8))
    x, t = torch.randn(2, 3, 4, 24), torch.tensor(0)
    same = tiled([lambda x, t: 2 * x] * len(places), places)(x, t)
    assert torch.allclose(same, 2 * x, atol=1e-5)
    differing = tiled([lambda x, t, k=k: torch.full_like(x, k) for k in range(len(places))], places)(x, t)[0, 0, 0]
    assert differing[0] < 0.01 and differing[-1] > len(places) - 1.01
    steps = differing.diff()
    assert (steps >= -1e-5).all() and steps.max() < 0.5


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
def test_a_photo_in_tiles(tiny_pipeline, scheduler, monkeypatch):
    monkeypatch.setattr(tiny_pipeline, "scheduler", scheduler_like(scheduler, tiny_pipeline.scheduler))
    photo = to_tensor(random_photo(3, 96, 64))
    assert tiny_pipeline.model_sizes(64, 96, tiled_side=96) == ((28, 40), (64, 96))
    assert tiny_pipeline.model_sizes(64, 96, tiled_side=32) == ((28, 40),), "nothing to gain"
    caption = "the red cup, the blue cup"
    masks = torch.zeros(2, 64, 96)
    masks[0, :, :40] = masks[1, :, 60:] = 1
    instances = InstanceMasks(comma_phrases(caption, tiny_pipeline.tokenizer), masks)

    def colorized(side: int | None, given: InstanceMasks | None = None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 3, "generator": generator, "output_type": "decoded", "tiled_side": side}
        return tiny_pipeline(photo, caption, given, **options).images[0]

    whole = colorized(96)
    assert whole.shape == (3, 64, 96) and torch.equal(whole, colorized(96)), "no state of the call before is left"
    if scheduler == "ddim":
        assert colorized(None).shape == (3, 28, 40) and not torch.equal(whole, colorized(96, instances))
