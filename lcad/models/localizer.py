"""Weights for looking: the UNet and the text encoder once more, trained to attend to the objects that words name.

A model trained for colours need not know what a cup looks like. With `latent.looking` copies of its weights learn, from
masks, where objects are. They find masks (`lcad.masks.attention`), and what colorizes stays as it was. A checkpoint
folder keeps those that were trained in `grounding/`.
"""

import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ldm.checkpoint import CheckpointError, load_state_dict

FILE = "grounding/model.safetensors"
PARTS = ("unet", "text_encoder")

Grounding = dict[str, Tensor]
"""<part>.<parameter> -> what it is while objects are looked for; the other parameters are the model's own"""


def read_grounding(folder: Path, modules: dict[str, nn.Module]) -> Grounding | None:
    """What a checkpoint folder has of them; None if it has none.

    Raises:
        CheckpointError: the file cannot be read, or is not for these modules.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    weights = load_state_dict(path)
    own = {f"{part}.{name}": value.shape for part in PARTS for name, value in modules[part].state_dict().items()}
    wrong = sorted(name for name, value in weights.items() if own.get(name) != value.shape)
    if wrong:
        raise CheckpointError(
            f"{path}: not for this model: {len(wrong)} of {len(weights)} keys are foreign or misshapen, such as "
            f"{wrong[0]}; remove the folder to do without"
        )
    return weights


def write_grounding(folder: Path, weights: Grounding, dtype: torch.dtype) -> None:
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.to(dtype).contiguous() for name, value in weights.items()}, path, {"format": "pt"})


def looking(modules: dict[str, nn.Module], weights: Grounding) -> dict[str, nn.Module]:
    """Copies of the modules (by part) with these weights."""
    copies = {part: copy.deepcopy(modules[part]) for part in PARTS}
    for part, module in copies.items():
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
        module.load_state_dict(own, strict=False)
    return copies
