"""The grounding adapter: low-rank changes of the UNet (LoRA, Hu et al. 2022) with which words attend to their objects.

A model trained for colours need not know what a cup looks like. `latent.adapter_rank` teaches an adapter, from masks,
where objects are; merged into a copy of the UNet it finds them (`lcad.masks.attention`), and what colorizes stays as
it was. In a checkpoint folder it is `grounding/`, in diffusers' format for LoRA.
"""

import copy
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lcad.extended_conv import ExtendedUNet
from ldm.checkpoint import CheckpointError, load_state_dict

FILE = "grounding/pytorch_lora_weights.safetensors"

# all layers that attention hangs on; where a convolution is extended, its extension
LAYERS = (
    r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|net\.0\.proj|net\.2|conv2|conv_shortcut|extension)"
    r"|(mid_block|up_blocks)\..*\.conv1"
)

Adapter = dict[str, Tensor]
"""<layer>.lora_A.weight (rank, in, ...) and <layer>.lora_B.weight (out, rank, ...) of all `LAYERS`"""


def read_adapter(folder: Path, unet: ExtendedUNet) -> Adapter | None:
    """The adapter in a checkpoint folder; None if there is none.

    Raises:
        CheckpointError: it cannot be read, or is not one of this UNet.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    adapter = load_state_dict(path)
    weights = {name: layer.weight.shape for name, layer in unet.named_modules() if re.fullmatch(LAYERS, name)}
    rank = next((len(value) for name, value in adapter.items() if ".lora_A." in name), 0)
    wanted = {f"{name}.lora_A.weight": (rank, *shape[1:]) for name, shape in weights.items()}
    wanted |= {f"{name}.lora_B.weight": (shape[0], rank, *[1] * (len(shape) - 2)) for name, shape in weights.items()}
    wrong = sorted(
        name for name in wanted.keys() | adapter.keys()
        if name not in adapter or tuple(adapter[name].shape) != wanted.get(name)
    )  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"{path}: not an adapter of this UNet: {len(wrong)} keys are missing, left over or misshapen, such as "
            f"{wrong[0]}; remove the folder to do without"
        )
    return adapter


def write_adapter(folder: Path, adapter: Adapter, dtype: torch.dtype) -> None:
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.to(dtype).contiguous() for name, value in adapter.items()}, path, {"format": "pt"})


@torch.no_grad()
def merged(unet: ExtendedUNet, adapter: Adapter) -> ExtendedUNet:
    """A copy of a UNet with W + B A in place of each weight W that the adapter changes."""
    unet = copy.deepcopy(unet)
    for name in {key.rpartition(".lora_")[0] for key in adapter}:
        weight = unet.get_submodule(name).weight
        down, up = (adapter[f"{name}.lora_{part}.weight"].flatten(1).to(weight) for part in "AB")
        weight += (up @ down).view_as(weight)
    return unet
