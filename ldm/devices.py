"""Choosing the device to compute on, sharing work out to several, and the types weights can have."""

import copy
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Module = TypeVar("Module", bound=nn.Module)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """`auto` is the accelerator if there is one, else the CPU; anything else is torch's name (cpu, cuda:1, mps).

    Raises:
        ValueError: no such device on this machine.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {name!r} cannot be used here ({reason}); allowed: auto, cpu, cuda, cuda:1, mps"
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float16 on a CUDA device, bfloat16 on a CPU with instructions for it, and float32 elsewhere; anything
    else a row of `DTYPES`."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """Whether this machine's processor multiplies in bfloat16: x86 with AVX-512 or AMX, of which torch tells."""
    return any(cpu_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def cpu_capabilities() -> Mapping[str, Any]:
    """`torch.cpu.get_capabilities`; empty where torch is too old to have it."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def execution_device(module: nn.Module) -> torch.device:
    """Where the module computes: where its parameters are, or with offloading (accelerate's hooks) where they come."""
    for part in module.modules() if hasattr(module, "_hf_hook") else ():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device


def copy_where_it_computes(module: Module) -> Module:
    """A copy of its own, which is not offloaded: it stays on the device that the module computes on."""
    from accelerate.hooks import remove_hook_from_module

    copied = copy.deepcopy(module)
    if hasattr(copied, "_hf_hook"):
        device = execution_device(copied)
        remove_hook_from_module(copied, recurse=True)
        copied.to(device)
    return copied


def launch(accelerator: str, devices: int, nodes: int = 1) -> "Fabric":
    """Start this program once for each device of this machine, or join the processes that torchrun has started.

    Args:
        accelerator: Lightning's name (auto, cpu, cuda, mps).
        devices: of each node.

    Returns:
        Fabric: this process's device, rank and the number of processes; they have all come here by now.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    # by default the first to finish waits half an hour for the others
    strategy = DDPStrategy(timeout=timedelta(days=30)) if devices * nodes > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy)
    fabric.launch()
    return fabric
