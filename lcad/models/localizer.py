"""Localizer weights: fine-tuned copies of the UNet and the text encoder, used only to find instance masks.

A model trained for colours need not know what a cup looks like. `lcad.training.localizer_stage` trains copies of its
weights, from masks, to attend to the objects that words name. They find masks (`lcad.masks.attention`), and what
colorizes stays as it was. A checkpoint folder keeps those that were trained in `localizer/`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.checkpoint import CheckpointError, check_finite, load_state_dict, write_weights
from ldm.devices import copy_where_it_computes

FILE = "localizer/model.safetensors"
EARLIER_FILE = "grounding/model.safetensors"  # where checkpoints of version 0.1 have it
PARTS = ("unet", "text_encoder")

LocalizerWeights = dict[str, Tensor]
"""<part>.<parameter> -> what it is while objects are looked for; the other parameters are the model's own"""


def read_localizer(folder: Path, modules: dict[str, nn.Module]) -> LocalizerWeights | None:
    """What a checkpoint folder has of them; None if it has none.

    Raises:
        CheckpointError: the file cannot be read, is not for these modules, or holds values that are not finite.
    """
    path = next((folder / name for name in (FILE, EARLIER_FILE) if (folder / name).is_file()), None)
    if path is None:
        return None
    weights = load_state_dict(path)
    own = {f"{part}.{name}": value.shape for part in PARTS for name, value in modules[part].state_dict().items()}
    wrong = sorted(name for name, value in weights.items() if own.get(name) != value.shape)
    if wrong:
        raise CheckpointError(
            f"{path}: not for this model: {len(wrong)} of {len(weights)} keys are foreign or misshapen, such as "
            f"{wrong[0]}; remove the folder to do without"
        )
    check_finite(path, weights)
    return weights


def write_localizer(folder: Path, weights: LocalizerWeights, dtype: torch.dtype) -> None:
    write_weights(folder / FILE, weights, dtype)


def localizer_parts(modules: dict[str, nn.Module], weights: LocalizerWeights) -> dict[str, nn.Module]:
    """Copies of the modules (by part) with these weights."""
    copies = {part: copy_where_it_computes(modules[part]) for part in PARTS}
    for part, module in copies.items():
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
        module.load_state_dict(own, strict=False)
    return copies
