"""What the keys of a config may hold, and what they were called before."""

import math
import os
import sys
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

RENAMED = {
    "data.scarce": "data.scarce_probability",
    "data.drop": "data.caption_dropout",
    "data.workers": "data.num_workers",
    "trainer.accumulate": "trainer.accumulate_grad_batches",
    "trainer.epochs": "trainer.max_epochs",
    "trainer.steps": "trainer.max_steps",
    "trainer.ema": "trainer.ema_decay",
    "pixel.adversarial": "pixel.adversarial_weight",
    "pixel.perceptual": "pixel.perceptual_weight",
    "pixel.kl": "pixel.kl_weight",
    "latent.prediction": "latent.prediction_type",
    "latent.refined": "latent.instance_sampling_probability",
    "latent.grounding": "latent.localizer_weight",
    "latent.looking": "latent.train_localizer",
    "latent.guidance": "latent.guidance_scale",
    "latent.inference_steps": "latent.num_inference_steps",
}
"""Keys of version 0.1, section.key -> what they are now. The old ones are taken until version 0.3."""


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, without `low` if that is `above`."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"it must be {'above' if self.above else 'from'} {self.low} to {self.high}"
        return f"it must be above {self.low}" if self.above else f"it must be {self.low} or more"


Allowed = Range | tuple[str, ...]
NATURAL, COUNT, NUMBER, POSITIVE, SHARE = Range(0), Range(1), Range(0.0), Range(0, above=True), Range(0, 1)


def key(default: Any, allowed: Allowed) -> Any:
    """A field of a section: its default, and what its value, or each value of a list, may be.

    None is for the field's type to allow.
    """
    metadata = {"allowed": allowed}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def allowed_values(section: "type[Checked] | Checked") -> dict[str, Allowed]:
    """What each `key` of a section may hold."""
    return {own.name: own.metadata["allowed"] for own in fields(section) if "allowed" in own.metadata}


@dataclass
class Checked:
    """A section whose values are held against what its keys allow whenever one is made.

    Raises:
        ValueError: a value that is not allowed, by its path.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, allowed in allowed_values(self).items():
            given = getattr(self, name)
            for value in given if isinstance(given, list) else [given]:
                if value is not None and value not in allowed:
                    said = allowed if isinstance(allowed, Range) else f"allowed: {', '.join(allowed)}"
                    raise ValueError(f"{self._path(name)}: got {value!r}; {said}")
        if getattr(self, "final_learning_rate", None) is not None and getattr(self, "learning_rate", None) == 0:
            raise ValueError(f"{self._path('final_learning_rate')}: needs a learning_rate above 0 to come from")

    def _path(self, name: str) -> str:
        return f"{self.section}.{name}" if self.section else name


def take_new_names(values: object, source: str) -> object:
    """Rename the keys of a config, as it is read, that have other names now; a line on stderr says each new name.

    Args:
        values: nested dicts, which are changed; all else is returned as it is.
        source: where they come from, for the line.

    Raises:
        ValueError: a key under both names.
    """
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        part = values.get(section) if isinstance(values, dict) else None
        if not isinstance(part, dict) or name not in part:
            continue
        now = new.rpartition(".")[2]
        if now in part:
            raise ValueError(f"{old}: is now {new}, which is given, too; leave out {old}")
        part[now] = part.pop(name)
        say(f"{source}: {old} is now {new}")
    return values


def say(line: str) -> None:
    """To stderr, once: of the processes that work together on a machine the first one speaks."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr)
