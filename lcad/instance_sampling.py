"""Instance-aware sampling (Sec. 3.4, Algorithm 1): cross-attention logits moved towards instance masks.

Shapes: B photos, M heads, P = h * w pixels of a layer, T = 77 tokens.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from lcad.masks.types import InstanceMasks
from ldm.attention import CROSS_ATTENTION, SELF_ATTENTION, attention_logits, layer_sizes
from ldm.guidance import Denoiser

NORMALIZATIONS = ("element", "mean")
MODES = ("one_pass", "two_pass")


@dataclass(frozen=True)
class Refinement:
    """How logits are moved.

    Attributes:
        strength: lambda in Algorithm 1; with `element`, the most a logit can move in one step.
        normalization: `element`: the gradient of each element's own loss. `mean`: of the loss averaged over a
            phrase's heads, pixels and tokens, as in the release, which moves logits by next to nothing. With
            `two_pass` this is the release to the last detail: it replays the self-attention logits of the first
            pass too (its attention class is shared), where Algorithm 1 replays cross-attention alone.
        mode: `two_pass` is Algorithm 1: one pass collects all layers' logits, a second replays them refined.
            `one_pass`: each layer refines its own logits as it goes, at about half the cost.
        start, end: the part of the sampling steps that is refined; 0 is pure noise, 1 the finished photo.
    """

    strength: float = 20.0
    normalization: str = "element"
    mode: str = "one_pass"
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"unknown normalization {self.normalization!r}; allowed: {', '.join(NORMALIZATIONS)}")
        if self.mode not in MODES:
            raise ValueError(f"unknown refinement mode {self.mode!r}; allowed: {', '.join(MODES)}")
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(f"refinement needs 0 <= start <= end <= 1, got start {self.start} and end {self.end}")


class LogitTargets:
    """Where each token's attention should be, for every layer resolution of a UNet.

    Built once per batch of photos, read at every step.

    Args:
        resize: how masks come to a layer's size: `nearest`, as in the release, or `area`, which has parts of pixels.
    """

    def __init__(
        self,
        photos: list[InstanceMasks | None],
        latent_size: tuple[int, int],
        heads: int,
        tokens: int = 77,
        resize: str = "nearest",
    ):
        self.heads = heads
        self._resized = lambda size: _resize_targets(photos, size, tokens, resize)
        self._sizes = layer_sizes(latent_size)
        self._targets: dict[int, tuple[Tensor, Tensor]] = {}

    def gradient(self, logits: Tensor, normalization: str) -> Tensor:
        """dL_BCE / dlogits (B, M, P, T), in closed form: (sigmoid(logit) - mask) / N.

        N is 1 for `element`, and heads * pixels * tokens of the phrase for `mean`. Tokens of no phrase get 0.
        The gradient is by the logits, as in the release; the paper differentiates by the probabilities.
        """
        target, weight = (part.to(logits.dtype) for part in self._at(logits))
        gradient = logits.sigmoid() - target
        if normalization == "mean":  # the release moves phrases whose mask is lost, too
            return gradient * weight.abs() / (self.heads * logits.shape[-2])
        return gradient * (weight > 0)

    def grounding_loss(self, logits: Tensor) -> Tensor:
        """How far the attention of words is from their masks, for training: a scalar, the mean over phrases.

        The sum of two losses of logits (B, M, P, T), of which the mean over heads is taken, as in TokenCompose (Wang et
        al. 2024): `pixel_loss`, which is L_BCE of Algorithm 1, and `token_loss`, for which to look at another object,
        few as its pixels are, costs as much as to look at nothing in particular.
        """
        target, weight = (part[:, 0] for part in self._at(logits))
        logits = logits.float().mean(1)  # (B, P, T)
        each = pixel_loss(logits, target) + token_loss(logits, target)  # (B, T)
        weight = weight.clamp_min(0)
        return (each * weight[:, 0]).sum() / weight.sum().clamp_min(1)

    def _at(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The targets and weights for a layer of that resolution, on its device; made when they are first asked for."""
        pixels = logits.shape[-2]
        if pixels not in self._targets:
            target, weight = self._resized(self._sizes[pixels])
            self._targets[pixels] = target.to(logits.device), weight.to(logits.device)
        return self._targets[pixels]


class LabelTargets(LogitTargets):
    """The same from label maps, in the device's memory: no Python for each photo.

    Args:
        labels: (B, h, w) uint8, 0 where there is no object, at the size of the latents.
        members: (B, T) int16, the labels each token belongs to: bit i stands for label i.
        weight: (B, T), 1 / tokens of the phrase, 0 outside phrases and for photos that are left alone.
    """

    def __init__(self, labels: Tensor, members: Tensor, weight: Tensor, heads: int):
        self.heads, self._sizes = heads, layer_sizes(tuple(labels.shape[-2:]))
        numbers = torch.arange(1, 16, device=labels.device)
        objects = (labels[:, None] == numbers[:, None, None]).float()  # (B, 15, h, w)
        belongs = (members.int()[..., None] >> numbers & 1).float()  # (B, T, 15)

        def resized(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
            small = F.interpolate(objects, size, mode="area").flatten(2)  # (B, 15, P)
            return (belongs @ small).transpose(1, 2)[:, None].clamp(0, 1), weight.float()[:, None, None]

        self._resized = resized
        self._targets = {}

    def weighing(self, weight: Tensor) -> "LabelTargets":
        """The same targets with other weights (B, T)."""
        other = copy.copy(self)
        targets = {pixels: target for pixels, (target, _) in self._targets.items()}
        other._targets = {pixels: (target, weight.float()[:, None, None]) for pixels, target in targets.items()}
        return other

    def at(self, sizes: list[tuple[int, int]]) -> "LabelTargets":
        """Make the targets of these layers' sizes now."""
        for size in sizes:
            self._targets[size[0] * size[1]] = self._resized(size)
        return self


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits with masks (B, P, T), the mean over pixels -> (B, T)."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)


def token_loss(logits: Tensor, target: Tensor) -> Tensor:
    """-log of the share of a token's attention (softmax over pixels) that lies in its mask, shapes as above."""
    inside = (logits.log_softmax(1) + target.clamp_min(1e-30).log()).logsumexp(1)
    return torch.where(target.amax(1) > 0, -inside, 0)


def _resize_targets(
    photos: list[InstanceMasks | None], size: tuple[int, int], tokens: int, mode: str
) -> tuple[Tensor, Tensor]:
    """-> target (B, 1, P, T) in [0, 1] and weight (B, 1, 1, T): 1 / tokens of the phrase.

    The weight is 0 outside phrases, and negative for those whose mask has no pixel left at this size.
    """
    target = torch.zeros(len(photos), 1, size[0] * size[1], tokens)
    weight = torch.zeros(len(photos), 1, 1, tokens)
    given = [(row, photo) for row, photo in enumerate(photos) if photo is not None and photo.phrases]
    if not given:
        return target, weight
    masks = torch.cat([photo.masks for _, photo in given])
    resized = F.interpolate(masks[None].float(), size, mode=mode)[0].flatten(1).cpu()  # (phrases, P)
    phrases = [(row, phrase.tokens) for row, photo in given for phrase in photo.phrases]
    # which phrase each token is of: if several, the last
    owners = {(row, token): number for number, (row, own) in enumerate(phrases) for token in range(*own)}
    if not owners:  # all lie beyond the tokens that CLIP reads
        return target, weight
    shares = torch.tensor([1 / max(end - start, 1) for _, (start, end) in phrases])
    # too small for this layer: a phrase is not to be moved away from its own object; one that is elsewhere is
    lost = (masks.flatten(1).amax(1) > 0).cpu() & (resized.amax(1) <= 0)
    shares[lost] *= -1
    (rows, columns), numbers = zip(*owners, strict=True), list(owners.values())
    target[rows, 0, :, columns] = resized[numbers]
    weight[rows, 0, 0, columns] = shares[numbers]
    return target, weight


def refined(
    predict: Denoiser, unet: UNet2DConditionModel, targets: LogitTargets, rows: int, refinement: Refinement
) -> Denoiser:
    """Wrap a denoiser so that the cross-attention of its first `rows` rows is refined.

    Args:
        predict: takes x of `rows` rows (conditional only, used by the first of two passes) or more; rows
            beyond `rows` (the unconditional half) are never refined.
    """

    def step(logits: Tensor) -> Tensor:
        return logits - refinement.strength * targets.gradient(logits, refinement.normalization)

    def one_pass(x: Tensor, t: Tensor) -> Tensor:
        with attention_logits(unet, lambda _name, logits: step(logits), rows):
            return predict(x, t)

    kinds = (CROSS_ATTENTION, SELF_ATTENTION) if refinement.normalization == "mean" else (CROSS_ATTENTION,)

    def two_pass(x: Tensor, t: Tensor) -> Tensor:
        collected: dict[str, Tensor] = {}

        def collect(name: str, logits: Tensor) -> Tensor:
            collected[name] = logits
            return logits

        def replay(name: str, _logits: Tensor) -> Tensor:
            logits = collected.pop(name)
            return step(logits) if name.endswith(CROSS_ATTENTION) else logits

        with attention_logits(unet, collect, rows, kinds):
            predict(x[:rows], t)
        with attention_logits(unet, replay, rows, kinds):
            return predict(x, t)

    return one_pass if refinement.mode == "one_pass" else two_pass


def during(timesteps: Iterable[int], inside: Denoiser, outside: Denoiser, start: float, end: float) -> Denoiser:
    """`inside` for the steps from fraction `start` to `end` of `timesteps`, `outside` for the others."""
    steps = [int(t) for t in timesteps]
    chosen = set(steps[round(start * len(steps)) : round(end * len(steps))])
    return lambda x, t: (inside if int(t) in chosen else outside)(x, t)
