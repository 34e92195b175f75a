"""The grounding adapter: low-rank changes of the UNet and the text encoder (LoRA, Hu et al. 2022) with which words attend
to their objects.

A model trained for colours need not know what a cup looks like. `latent.adapter_rank` teaches an adapter, from masks,
where objects are; merged into copies of both parts it finds them (`lcad.masks.attention`), and what colorizes stays as
it was. In a checkpoint folder it is `grounding/`, in diffusers' format for LoRA.
"""

import copy
import re
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from ldm.checkpoint import CheckpointError, load_state_dict

FILE = "grounding/pytorch_lora_weights.safetensors"

PARTS = {
    # where a convolution is extended, its extension is adapted
    "unet": r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|net\.0\.proj|net\.2|conv2|conv_shortcut|extension)"
    r"|(mid_block|up_blocks)\..*\.conv1",
    "text_encoder": r".*\.([qkv]_proj|out_proj|fc1|fc2)",
}
"""part of the pipeline -> pattern of its layers that attention hangs on"""

Adapter = dict[str, Tensor]
"""<part>.<layer>.lora_A.weight (rank, in, ...) and <part>.<layer>.lora_B.weight (out, rank, ...), of all layers"""


def adapted(part: str, module: nn.Module, rank: int) -> nn.Module:
    """A copy of one of the `PARTS` with a new adapter, the only part of it that is trained; it changes nothing yet."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=PARTS[part])  # its rank is its scale: W + B A
    return inject_adapter_in_model(config, copy.deepcopy(module).requires_grad_(False))


def adapter_of(modules: dict[str, nn.Module]) -> Adapter:
    """What `adapted` modules have learnt."""
    return {
        f"{part}.{name}": value.detach()
        for part, module in modules.items()
        for name, value in get_peft_model_state_dict(module).items()
    }


def read_adapter(folder: Path, modules: dict[str, nn.Module]) -> Adapter | None:
    """The adapter in a checkpoint folder; None if there is none.

    Raises:
        CheckpointError: it cannot be read, or is not one of these modules.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    adapter = load_state_dict(path)
    rank = next((len(value) for name, value in adapter.items() if ".lora_A." in name), 0)
    wanted = {}
    for part, pattern in PARTS.items():
        for name, layer in modules[part].named_modules():
            if re.fullmatch(pattern, name):
                out, *others = layer.weight.shape
                wanted[f"{part}.{name}.lora_A.weight"] = (rank, *others)
                wanted[f"{part}.{name}.lora_B.weight"] = (out, rank, *[1] * (len(others) - 1))
    wrong = sorted(
        name for name in wanted.keys() | adapter.keys()
        if name not in adapter or tuple(adapter[name].shape) != wanted.get(name)
    )  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"{path}: not an adapter of this model: {len(wrong)} keys are missing, left over or misshapen, such as "
            f"{wrong[0]}; remove the folder to do without"
        )
    return adapter


def write_adapter(folder: Path, adapter: Adapter, dtype: torch.dtype) -> None:
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.to(dtype).contiguous() for name, value in adapter.items()}, path, {"format": "pt"})


@torch.no_grad()
def merged(part: str, module: nn.Module, adapter: Adapter) -> nn.Module:
    """A copy of one of the `PARTS` with W + B A in place of each weight W that the adapter changes."""
    module = copy.deepcopy(module)
    for key in adapter:
        name = key.removeprefix(f"{part}.").removesuffix(".lora_A.weight")
        if key == f"{part}.{name}.lora_A.weight":
            weight = module.get_submodule(name).weight
            down, up = (adapter[f"{part}.{name}.lora_{side}.weight"].flatten(1).to(weight) for side in "AB")
            weight += (up @ down).view_as(weight)
    return module
