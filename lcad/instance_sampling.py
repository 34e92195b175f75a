"""Instance-aware sampling (Sec. 3.4, Algorithm 1): cross-attention logits moved towards instance masks.

Shapes: B photos, M heads, P = h * w pixels of a layer, T = 77 tokens.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lcad.masks.types import InstanceMasks
from ldm.attention import CROSS_ATTENTION, SELF_ATTENTION, LogitTransform, layer_sizes
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

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"unknown normalization {self.normalization!r}; allowed: {', '.join(NORMALIZATIONS)}")
        if self.mode not in MODES:
            raise ValueError(f"unknown refinement mode {self.mode!r}; allowed: {', '.join(MODES)}")
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(f"refinement needs 0 <= start <= end <= 1, got start {self.start} and end {self.end}")


Targets = dict[int, tuple[Tensor, Tensor]]
"""Of layers by their number of pixels P: target (B, 1, P, T) in [0, 1] and weight (B, 1, 1, T)."""

TransformedDenoiser = Callable[[Tensor, Tensor, LogitTransform | None], Tensor]
"""As `Denoiser`, and what is done to the attention logits of the call."""


def with_instance_masks(
    predict: TransformedDenoiser, targets: "LogitTargets", rows: int, refinement: Refinement
) -> Denoiser:
    """Algorithm 1: a denoiser whose cross-attention logits S are moved towards the instance masks M of their phrases.

        S  <-  S - lambda * dL_BCE(sigmoid(S), M) / dS

    Args:
        predict: takes x of `rows` rows (conditional only, used by the first of two passes) or more; rows
            beyond `rows` (the unconditional half) are never moved.
    """
    # the release's attention class is shared, so that it replays self-attention too
    kinds = (CROSS_ATTENTION, SELF_ATTENTION) if refinement.normalization == "mean" else (CROSS_ATTENTION,)

    def moved(name: str, logits: Tensor) -> Tensor:
        if name.endswith(SELF_ATTENTION):
            return logits
        return logits - refinement.strength * targets.gradient(logits, refinement.normalization)

    def two_pass(x: Tensor, t: Tensor) -> Tensor:
        """The paper's: one pass collects the logits of all layers, a second replays them moved."""
        collected: dict[str, Tensor] = {}

        def collect(name: str, logits: Tensor) -> Tensor:
            collected[name] = logits
            return logits

        def replay(name: str, _logits: Tensor) -> Tensor:
            return moved(name, collected.pop(name))

        predict(x[:rows], t, LogitTransform(collect, rows, kinds))
        return predict(x, t, LogitTransform(replay, rows, kinds))

    # ours: each layer moves its own logits as it goes, which have then seen what earlier layers moved, at half the cost
    in_one = LogitTransform(moved, rows)
    return two_pass if refinement.mode == "two_pass" else lambda x, t: predict(x, t, in_one)


def in_step_range(timesteps: Iterable[int], inside: Denoiser, outside: Denoiser, start: float, end: float) -> Denoiser:
    """`inside` for the steps from fraction `start` to `end` of `timesteps`, `outside` for the others."""
    steps = [int(t) for t in timesteps]  # none of them has to come from a device, see `sample`
    chosen = set(steps[round(start * len(steps)) : round(end * len(steps))])
    if len(chosen) == len(set(steps)):
        return inside
    return lambda x, t: (inside if int(t) in chosen else outside)(x, t)


class LogitTargets:
    """Where each token's attention should be, for every layer resolution of a UNet.

    Built once per batch of photos, read at every step. A layer's are made when it first asks, or by `make`.

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
        self._resized: Callable[[tuple[int, int]], tuple[Tensor, Tensor]] = lambda size: _resize_targets(
            photos, size, tokens, resize
        )
        self._sizes = layer_sizes(latent_size)
        self._targets: Targets = {}

    def gradient(self, logits: Tensor, normalization: str) -> Tensor:
        """dL_BCE / dlogits (B, M, P, T), in closed form: (sigmoid(logit) - mask) / N.

        N is 1 for `element`, and heads * pixels * tokens of the phrase for `mean`. Tokens of no phrase get 0.
        The gradient is by the logits, as in the release; the paper differentiates by the probabilities.
        """
        target, weight = (part.to(logits.dtype) for part in self.at(logits))
        gradient = logits.sigmoid() - target
        if normalization == "mean":  # the release moves phrases whose mask is lost, too
            return gradient * weight.abs() / (self.heads * logits.shape[-2])
        return gradient * (weight > 0)

    def at(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Targets (B, 1, P, T) and weights (B, 1, 1, T) for a layer of that resolution, on its device; made once."""
        return self._made(logits.shape[-2], logits.device)

    def make(self, sizes: Iterable[tuple[int, int]], device: torch.device) -> Targets:
        """Make those of layers of these sizes now, by their number of pixels: no step then waits for masks."""
        return {height * width: self._made(height * width, device) for height, width in sizes}

    def holding(self, targets: Targets) -> Self:
        """The same with other tensors."""
        other = copy.copy(self)
        other._targets = targets
        return other

    def _made(self, pixels: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if pixels not in self._targets:
            target, weight = self._resized(self._sizes[pixels])
            self._targets[pixels] = target.to(device), weight.to(device)
        return self._targets[pixels]


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
