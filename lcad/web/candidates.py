"""One colorization of a photo, and what may be changed of it afterwards."""

from dataclasses import dataclass, field

from torch import Tensor

from lcad.inference.plan import Settings
from lcad.masks.from_text import FoundMasks
from lcad.recoloring.exact_colors import Color


@dataclass(frozen=True)
class Candidate:
    """One colorization: the model's picture (3, h', w') in [0, 1], and what it was made from."""

    decoded: Tensor
    settings: Settings
    caption: str
    found: FoundMasks | None


@dataclass
class Look:
    """What is changed without sampling again; `colors` are exact ones, by the phrases' numbers in the caption."""

    saturation: float = 1.0
    warmth: float = 0.0
    colors: dict[int, Color] = field(default_factory=dict)
