"""Asked against obtained: the colour each masked phrase asks for, and the one its region has in a result."""

import numpy as np
from PIL import Image
from torch.nn.functional import interpolate

from lcad.color import mean_color
from lcad.io.images import shrink, to_tensor
from lcad.masks.types import InstanceMasks
from lcad.text.color_names import name_color
from lcad.text.color_object_pairs import asked_color, one_color

SIDE = 512  # pixels, long side at which colours are measured


def instance_report(result: Image.Image, instances: InstanceMasks) -> list[dict]:
    """For each phrase: phrase, asked (a basic colour word, or None), obtained (mean Lab), name, adherent (or None)."""
    small = to_tensor(shrink(result, SIDE))
    rows = []
    for phrase, mask in zip(instances.phrases, instances.masks, strict=True):
        own = interpolate(mask[None, None], small.shape[-2:], mode="area")[0, 0]
        lab = mean_color(small, own)
        asked = one_color(phrase.colors) if phrase.colors else asked_color(phrase.text)
        name = name_color(lab)
        row = {"phrase": phrase.text, "asked": asked, "obtained": np.round(lab, 1).tolist(), "name": name}
        rows.append(row | {"adherent": None if asked is None else asked == name})
    return rows


def adherent_share(report: list[dict]) -> float:
    """The share of the asked colours that were obtained; 1 if none was asked."""
    judged = [row["adherent"] for row in report if row["adherent"] is not None]
    return sum(judged) / len(judged) if judged else 1.0
