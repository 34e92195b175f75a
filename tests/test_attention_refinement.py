"""Algorithm 1: the closed gradient, both modes, and nothing left on the model."""

import copy
from dataclasses import FrozenInstanceError
from math import log
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0

from lcad.instance_sampling import LogitTargets, Refinement, in_step_range, with_instance_masks
from lcad.masks.types import InstanceMasks
from lcad.text.phrases import Phrase
from lcad.training.attention_supervision import localization_loss, pixel_loss, token_loss
from ldm.attention import (
    CROSS_ATTENTION,
    SELF_ATTENTION,
    LogitTransform,
    check_processors,
    cross_attention_sizes,
)

PHRASES = [Phrase("the red cup", (0, 11), (1, 4)), Phrase("the blue cup", (13, 25), (5, 8))]


@pytest.fixture
def targets() -> LogitTargets:
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4], masks[1, :, 4:] = 1, 0.5
    return LogitTargets([InstanceMasks(PHRASES, masks), None], (8, 8), heads=2)


def test_gradient_is_that_of_the_binary_cross_entropy(targets):
    logits = torch.randn(2, 2, 64, 77, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(8, 8, dtype=torch.float64)
    mask[:, :4] = 1
    right = 0.5 * (1 - mask)
    loss = sum(
        F.binary_cross_entropy(logits[0, :, :, a:b].sigmoid(), m.flatten()[None, :, None].expand(2, 64, b - a))
        for (a, b), m in (((1, 4), mask), ((5, 8), right))
    )
    (expected,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(targets.gradient(logits.detach(), "mean"), expected)
    element = targets.gradient(logits.detach(), "element")
    assert torch.allclose(element, expected * 2 * 64 * 3)
    assert not element[1].any()  # the photo without masks


def test_the_pixel_loss_has_the_gradient_of_the_refinement():
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4], masks[1, :, 4:] = 1, 0.5
    targets = LogitTargets([InstanceMasks(PHRASES[:1], masks[:1])], (8, 8), heads=1)
    logits = torch.randn(1, 1, 64, 77, requires_grad=True)
    wanted = masks[0].flatten()[None, :, None].expand(1, 64, 3)
    (gradient,) = torch.autograd.grad(pixel_loss(logits[:, 0, :, 1:4], wanted).mean(), logits)
    assert torch.allclose(gradient, targets.gradient(logits.detach(), "mean"), atol=1e-7)


def test_the_token_loss_is_of_the_share_of_attention_in_the_mask():
    target = torch.zeros(1, 16, 3)
    target[:, :4, 0], target[:, :4, 1] = 1, 0.5  # token 2 has no mask
    logits = torch.zeros(1, 16, 3)
    assert token_loss(logits, target)[0].tolist() == pytest.approx([log(4), log(8), 0])
    logits[:, :2] = 100.0
    assert token_loss(logits, target)[0].tolist() == pytest.approx([0, log(2), 0], abs=1e-5)
    off = torch.zeros(1, 16, 3)
    off[:, :4] = -50.0  # all attention is elsewhere, and there is still a way back
    off.requires_grad_()
    token_loss(off, target)[0, 0].backward()
    assert off.grad[0, :4, 0].sum().item() == pytest.approx(-1, rel=1e-3)


def test_the_localization_loss_is_that_of_the_mean_over_heads():
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4], masks[1, :, 4:] = 1, 0.5
    one = LogitTargets([InstanceMasks(PHRASES, masks), None], (8, 8), heads=1, resize="area")
    logits = torch.randn(2, 1, 64, 77)
    several = torch.cat([logits - 1, logits + 1], dim=1)
    assert localization_loss(one, several).item() == pytest.approx(localization_loss(one, logits).item(), rel=1e-5)
    # phrases count alike, and the photo without masks not at all
    token = [masks[i].flatten()[None, :, None].expand(1, 64, 3) for i in range(2)]
    each = [
        (pixel_loss(part, wanted) + token_loss(part, wanted)).mean()
        for part, wanted in zip((logits[:1, 0, :, 1:4], logits[:1, 0, :, 5:8]), token, strict=True)
    ]
    assert localization_loss(one, logits).item() == pytest.approx(sum(each).item() / 2, rel=1e-5)
    masks = torch.zeros(1, 8, 8)
    masks[0, :1] = 1  # half of each pixel in the first of four rows
    small = LogitTargets([InstanceMasks(PHRASES[:1], masks)], (8, 8), heads=1, resize="area")
    perfect = torch.full((1, 1, 16, 77), -20.0)
    perfect[..., :4, :] = 0
    assert localization_loss(small, perfect).item() == pytest.approx(log(2) / 4 + log(2), rel=1e-4)


def test_a_mask_too_small_for_a_layer_leaves_its_phrase_alone_there():
    """4 x 4 of 64 x 64 pixels, wherever it lies: `nearest` loses it at 8 x 8 in most places, not at 64 x 64."""
    lost = 0
    for top in range(0, 60, 3):
        masks = torch.zeros(2, 64, 64)
        masks[0, top : top + 4, 60 - top : 64 - top], masks[1, :, 32:] = 1, 1
        targets = LogitTargets([InstanceMasks(PHRASES, masks)], (64, 64), heads=1)
        gradient = targets.gradient(torch.zeros(1, 1, 64, 77), "element")[0, 0]
        kept = F.interpolate(masks[None], (8, 8))[0, 0].any()
        assert gradient[:, 1:4].any() == kept and (gradient[:, 1:4].min() == -0.5 or not kept)
        assert gradient[:, 5:8].any(), "the other phrase stays"
        assert targets.gradient(torch.zeros(1, 1, 4096, 77), "element")[0, 0, :, 1:4].eq(-0.5).sum() == 16 * 3
        if not kept:  # the release moves it all the same
            moved = targets.gradient(torch.zeros(1, 1, 64, 77), "mean")[0, 0, :, 1:4]
            assert torch.allclose(moved, torch.tensor(0.5 / (64 * 3)))
        lost += not kept
    assert lost > 10


def test_an_object_that_is_elsewhere_is_still_kept_away():
    """In a part of the photo without it, as in a tile, the whole mask is empty."""
    masks = torch.zeros(1, 64, 64)
    masks[0, :, :32] = 1
    part = InstanceMasks(PHRASES[:1], masks).part(slice(0, 8), slice(4, 8), (8, 8))
    targets = LogitTargets([part], (8, 4), heads=1)
    assert targets.gradient(torch.zeros(1, 1, 32, 77), "element")[0, 0, :, 1:4].eq(0.5).all()


def test_without_a_phrase_that_is_read_nothing_is_moved():
    unread = InstanceMasks([Phrase("the red cup", (400, 411), (77, 77))], torch.ones(1, 8, 8))
    for photos in ([None, None], [unread, None], [InstanceMasks([], torch.zeros(0, 8, 8)), None]):
        targets = LogitTargets(photos, (8, 8), heads=1)
        assert not targets.gradient(torch.randn(2, 1, 64, 77), "element").any()


def test_masks_reach_every_level_and_odd_sizes():
    masks = torch.ones(2, 10, 6)
    targets = LogitTargets([InstanceMasks(PHRASES, masks)], (5, 3), heads=1)
    for pixels in (15, 6, 2, 1):
        assert targets.gradient(torch.zeros(1, 1, pixels, 77), "element")[0, 0, :, 1:4].eq(-0.5).all()


@pytest.mark.parametrize("mode", ["one_pass", "two_pass"])
@torch.no_grad()
def test_refinement_moves_attention_to_the_masks_and_leaves_other_rows(tiny_pipeline, targets, mode):
    unet = tiny_pipeline.unet
    x, text = torch.randn(4, 4, 8, 8), torch.randn(4, 77, 16)

    def predict(x, t, transform=None):
        return unet(x, t, text[: len(x)], {}, transform).sample

    plain = predict(x, torch.tensor(500))
    denoise = with_instance_masks(predict, targets, rows=2, refinement=Refinement(strength=20.0, mode=mode))
    moved = denoise(x, torch.tensor(500))
    assert not torch.allclose(moved[0], plain[0], atol=1e-4)  # has masks
    assert torch.allclose(moved[1:], plain[1:], atol=1e-5)  # no masks; the unconditional half
    assert torch.equal(predict(x, torch.tensor(500)), plain), "nothing is left on the model"

    seen = {}
    predict(x, torch.tensor(500), LogitTransform(lambda n, v: seen.setdefault(n, v), rows=2))
    name, logits = next((n, v) for n, v in seen.items() if v.shape[-2] == 64)
    after = logits - 20 * targets.gradient(logits, "element")
    inside, outside = (
        after[0, :, :, 1:4].unflatten(1, (8, 8))[:, :, :4],
        after[0, :, :, 1:4].unflatten(1, (8, 8))[:, :, 4:],
    )
    assert inside.mean() > logits[0, :, :, 1:4].mean() > outside.mean()


@pytest.mark.parametrize("mode", ["one_pass", "two_pass"])
@torch.no_grad()
def test_refined_logits_are_those_of_algorithm_1(tiny_pipeline, targets, mode):
    """A step against the gradient, from each layer's logits as they come or from those of a first, plain pass."""
    x, text, t = torch.randn(4, 4, 8, 8), torch.randn(4, 77, 16), torch.tensor(500)

    def predict(x, t, transform=None):
        return tiny_pipeline.unet(x, t, text[: len(x)], {}, transform).sample

    plain = {}
    predict(x[:2], t, LogitTransform(lambda name, logits: plain.setdefault(name, logits), rows=2))

    def step(name, logits):
        own = logits if mode == "one_pass" else plain[name]
        return own - 7 * targets.gradient(own, "element")

    expected = predict(x, t, LogitTransform(step, rows=2))
    found = with_instance_masks(predict, targets, 2, Refinement(strength=7.0, mode=mode))(x, t)
    assert torch.allclose(found, expected, atol=1e-5)


def test_phrases_beyond_the_last_token_move_nothing():
    beyond = InstanceMasks([Phrase("a cup", (90, 95), (77, 77))], torch.ones(1, 8, 8))
    targets = LogitTargets([beyond], (8, 8), heads=1)
    assert not targets.gradient(torch.randn(1, 1, 64, 77), "element").any()


@torch.no_grad()
def test_one_processor_for_good(tiny_pipeline):
    """It is diffusers' own until a call brings a transform, also after one that has failed."""
    unet, plain = tiny_pipeline.unet, copy.deepcopy(tiny_pipeline.unet)
    plain.set_attn_processor(AttnProcessor2_0())
    x, text, t = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 16), torch.tensor(500)
    before = unet.attn_processors

    def fail(_name, _logits):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        unet(x, t, text, {}, LogitTransform(fail, rows=1))
    assert unet.attn_processors == before and len({p.name for p in before.values()}) == len(before)
    assert torch.equal(unet(x, t, text, {}).sample, plain(x, t, text, {}).sample)
    kept = unet(
        x, t, text, {}, LogitTransform(lambda _, logits: logits, rows=1, kinds=(CROSS_ATTENTION, SELF_ATTENTION))
    ).sample
    assert {name.rpartition(".")[2] for name in (p.name for p in before.values())} == {SELF_ATTENTION, CROSS_ATTENTION}
    assert torch.allclose(kept, plain(x, t, text, {}).sample, atol=1e-5)
    plain.set_default_attn_processor()
    names = [{key: own.name for key, own in owned.items()} for owned in (plain.attn_processors, before)]
    assert names[0] == names[1]


def test_masks_need_the_networks_own_processors(tiny_pipeline):
    unet = copy.deepcopy(tiny_pipeline.unet)
    check_processors(unet)
    first = next(iter(unet.attn_processors))
    unet.set_attn_processor(unet.attn_processors | {first: AttnProcessor2_0()})
    with pytest.raises(ValueError, match=f"{first} is AttnProcessor2_0; put them back"):
        check_processors(unet)


def test_sizes_of_layers_with_words():
    kinds = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"
    unet = SimpleNamespace(config=SimpleNamespace(down_block_types=kinds))
    assert cross_attention_sizes(unet, (9, 6)) == [(9, 6), (3, 2), (3, 2)]  # the last in the middle
    assert cross_attention_sizes(unet, (2, 1)) == [(2, 1), (1, 1)]  # fewer sizes than levels


def test_part_of_the_steps():
    denoise = in_step_range(range(10, 0, -1), lambda x, t: "in", lambda x, t: "out", 0.2, 0.5)
    assert [denoise(0, t) for t in range(10, 0, -1)] == ["out"] * 2 + ["in"] * 3 + ["out"] * 5
    inside = lambda x, t: "in"  # noqa: E731
    assert in_step_range(range(4), inside, None, 0.0, 1.0) is inside, "no step has to be looked up, on a device"


@pytest.mark.parametrize(
    "options",
    [{"mode": "three_pass"}, {"normalization": "sum"}, {"start": 0.8, "end": 0.2}, {"end": 1.5}, {"start": -0.5}],
)
def test_unknown_settings_are_named(options):
    with pytest.raises(ValueError, match="unknown .*; allowed: (element, mean|one_pass, two_pass)$|start"):
        Refinement(**options)
    Refinement(start=0.5, end=0.5)  # no step at all is no mistake
    for fixed, name in ((Refinement(), "strength"), (LogitTransform(lambda name, logits: logits, 1), "rows")):
        with pytest.raises(FrozenInstanceError):  # they are shared: one is the default of functions
            setattr(fixed, name, 2)
