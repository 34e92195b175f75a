"""Weights for a few sampling steps: a LoRA of the UNet (LCM-LoRA, Luo et al. 2023), which a checkpoint keeps beside it.

In the format of diffusers and peft: `lcm_lora/pytorch_lora_weights.safetensors`, keys `unet.<layer>.lora_A.weight` and
`.lora_B.weight`, of alpha = rank. `lcad.training.distillation_stage` trains them, with the guidance baked in.
"""

from pathlib import Path

import torch
from torch import Tensor

from lcad.models.channel_extended_unet import ExtendedUNet
from ldm.checkpoint import CheckpointError, check_finite, load_state_dict, write_weights
from ldm.devices import copy_where_it_computes

FOLDER = "lcm_lora"
FILE = f"{FOLDER}/pytorch_lora_weights.safetensors"  # diffusers' own name
STEPS = 4  # of sampling with them
GUIDANCE = 1.0  # likewise: none beside what is baked in
ADAPTER = "lcm"

LoraWeights = dict[str, Tensor]
"""unet.<layer>.lora_A.weight (rank, in, ...) and unet.<layer>.lora_B.weight (out, rank, ...)"""


def add_lora(unet: ExtendedUNet, rank: int, layers: list[str]) -> None:
    """Put a LoRA that changes nothing yet beside layers of the UNet, by the ends of their names.

    Channel-extended convolutions stay as they are: their responses are made by themselves.
    """
    from peft import LoraConfig  # where it is used: slow to import

    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        init_lora_weights="gaussian",
        target_modules=layers,
        exclude_modules=unet.site_names,
    )
    unet.add_adapter(config, ADAPTER)


def take_lora(unet: ExtendedUNet) -> LoraWeights:
    """Take the LoRA of `add_lora` away from the UNet, which is then as before -> its weights."""
    from peft.utils import get_peft_model_state_dict

    own = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    unet.unload_lora()
    return {f"unet.{name}": value.detach().cpu() for name, value in own.items()}


def with_lora(unet: ExtendedUNet, weights: LoraWeights) -> ExtendedUNet:
    """A copy of the UNet that has the LoRA merged into its weights.

    Raises:
        ValueError, RuntimeError: weights of another UNet; see `read_lora` for those of strangers.
    """
    changed = copy_where_it_computes(unet)
    changed.load_lora_adapter(dict(weights), prefix="unet", adapter_name=ADAPTER)
    changed.fuse_lora()
    changed.unload_lora()
    return changed


def read_lora(folder: Path, unet: ExtendedUNet) -> LoraWeights | None:
    """What a checkpoint folder has of them; None if it has none.

    Raises:
        CheckpointError: the file cannot be read, is not for this UNet, or holds values that are not finite.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    weights = load_state_dict(path)
    layers = {f"unet.{name}": module for name, module in unet.named_modules()}
    pairs = {name.rpartition(".lora_")[0] for name in weights}
    wrong = [name for name in sorted(pairs) if not _fits(weights, name, getattr(layers.get(name), "weight", None))]
    whole = {f"{name}.lora_{half}.weight" for name in pairs for half in "AB"}
    if wrong or not weights or whole != weights.keys():
        example = (wrong or sorted(whole ^ weights.keys()) or ["no key"])[0]
        raise CheckpointError(
            f"{path}: not a LoRA for this model's UNet, such as {example}; remove the folder to do without"
        )
    check_finite(path, weights)
    return weights


def _fits(weights: LoraWeights, layer: str, weight: Tensor | None) -> bool:
    down, up = (weights.get(f"{layer}.lora_{half}.weight") for half in "AB")
    if weight is None or down is None or up is None or down.ndim < 2 or up.ndim < 2:
        return False
    ones = (1,) * (weight.ndim - 2)
    return down.shape[1:] == weight.shape[1:] and up.shape == (len(weight), len(down), *ones)


def write_lora(folder: Path, weights: LoraWeights, dtype: torch.dtype) -> None:
    write_weights(folder / FILE, weights, dtype)
