"""What instance masks do to attention in training: a share of the photos is given them, the others learn to find them.

Shapes: B photos, M heads, P = h * w pixels of a layer, T = 77 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from lcad.config import LatentConfig
from lcad.instance_sampling import LogitTargets
from lcad.masks.types import InstanceMasks
from ldm.attention import LogitTransform, cross_attention_sizes, layer_sizes

TRAINING_STRENGTH = 10.0  # of given masks: a phrase outweighs the 70 tokens of padding, with 5 it does not


@dataclass
class AttentionSupervision:
    """What is done to the attention of one training pass.

    With `given`, logits are moved towards these targets as in sampling (Algorithm 1, one pass). The paper does so in
    sampling alone: its text encoder has learnt elsewhere to keep a colour with its object. With `wanted`, words learn
    to attend to their own objects without the help of masks: `loss`, once the pass is done.
    """

    given: LogitTargets | None
    wanted: LogitTargets | None
    _losses: list[Tensor] = field(default_factory=list)  # of each layer

    def transform(self, rows: int) -> LogitTransform | None:
        """For a pass of so many rows; None: it needs none."""
        return None if self.given is None and self.wanted is None else LogitTransform(self._attend, rows)

    def loss(self) -> Tensor | float:
        """The mean of `localization_loss` over the layers of the pass."""
        return torch.stack(self._losses).mean() if self._losses else 0.0

    def _attend(self, _name: str, logits: Tensor) -> Tensor:
        if self.wanted is not None:
            self._losses.append(localization_loss(self.wanted, logits))
        return logits if self.given is None else logits - TRAINING_STRENGTH * self.given.gradient(logits, "element")


def draw_supervision(
    batch: dict,
    latent_size: tuple[int, int],
    probability: float,
    config: LatentConfig,
    unet: UNet2DConditionModel,
    generator: torch.Generator,
) -> AttentionSupervision:
    """Which photos of a batch are given their masks, each with this probability; the others are to find them."""
    if not (config.instance_sampling_probability or config.localizer_weight):
        return AttentionSupervision(None, None)
    heads = unet.config.attention_head_dim
    resident = "labels" in batch
    rows = len(batch["labels"] if resident else batch["instances"])
    chosen = torch.rand(rows, generator=generator, device=generator.device) < probability
    if resident:
        weight = batch["share"]
        chosen = chosen[:, None].to(weight.device)
        targets = LabelTargets(batch["labels"], batch["members"], weight, heads)
        targets.make(cross_attention_sizes(unet, latent_size), weight.device)
        return AttentionSupervision(
            targets.weighing(weight * chosen) if config.instance_sampling_probability else None,
            targets.weighing(weight * ~chosen) if config.localizer_weight else None,
        )
    instances: Sequence[InstanceMasks | None] = batch["instances"]
    own = [item if use else None for item, use in zip(instances, chosen, strict=True)]
    given = LogitTargets(own, latent_size, heads) if any(own) else None
    if not config.localizer_weight:
        return AttentionSupervision(given, None)
    others = [None if use else item for item, use in zip(instances, chosen, strict=True)]
    if config.train_localizer:
        others = [None if item is None else _of_nouns(item) for item in others]
    wanted = LogitTargets(others, latent_size, heads, resize="area") if given or any(others) else None
    return AttentionSupervision(given, wanted)


class LabelTargets(LogitTargets):
    """The same from label maps, in the device's memory: no Python for each photo.

    Args:
        labels: (B, h, w) uint8, 0 where there is no object, at the size of the latents.
        members: (B, T) int16, the labels each token belongs to: bit i stands for label i.
        weight: (B, T), 1 / tokens of the phrase, 0 outside phrases and for photos that are left alone.
    """

    def __init__(self, labels: Tensor, members: Tensor, weight: Tensor, heads: int):
        height, width = labels.shape[-2:]
        self.heads, self._sizes = heads, layer_sizes((height, width))
        numbers = torch.arange(1, 16, device=labels.device)
        objects = (labels[:, None] == numbers[:, None, None]).float()  # (B, 15, h, w)
        belongs = (members.int()[..., None] >> numbers & 1).float()  # (B, T, 15)

        def resized(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
            small = F.interpolate(objects, size, mode="area").flatten(2)  # (B, 15, P)
            return (belongs @ small).transpose(1, 2)[:, None].clamp(0, 1), weight.float()[:, None, None]

        self._resized = resized
        self._targets = {}

    def weighing(self, weight: Tensor) -> "LabelTargets":
        """The targets made so far with other weights (B, T)."""
        return self.holding({pixels: (t, weight.float()[:, None, None]) for pixels, (t, _) in self._targets.items()})


def localization_loss(targets: LogitTargets, logits: Tensor) -> Tensor:
    """How far the attention of words is from their masks: a scalar, the mean over phrases.

    The sum of two losses of logits (B, M, P, T), of which the mean over heads is taken, as in TokenCompose (Wang et
    al. 2024): `pixel_loss`, which is L_BCE of Algorithm 1, and `token_loss`, for which to look at another object,
    few as its pixels are, costs as much as to look at nothing in particular.
    """
    target, weight = (part[:, 0] for part in targets.at(logits))
    logits = logits.float().mean(1)  # (B, P, T)
    each = pixel_loss(logits, target) + token_loss(logits, target)  # (B, T)
    weight = weight.clamp_min(0)
    return (each * weight[:, 0]).sum() / weight.sum().clamp_min(1)


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits with masks (B, P, T), the mean over pixels -> (B, T)."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)


def token_loss(logits: Tensor, target: Tensor) -> Tensor:
    """-log of the share of a token's attention (softmax over pixels) that lies in its mask, shapes as above."""
    inside = (logits.log_softmax(1) + target.clamp_min(1e-30).log()).logsumexp(1)
    return torch.where(target.amax(1) > 0, -inside, 0)


def _of_nouns(instances: InstanceMasks) -> InstanceMasks:
    """The masks for the objects' own words: to CLIP, which reads forward, a colour does not know what has it."""
    nouns = [replace(phrase, tokens=phrase.object_tokens) for phrase in instances.phrases]
    return InstanceMasks(nouns, instances.masks)
