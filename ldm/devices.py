"""Choosing the device to compute on, and the types weights can have."""

import torch

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
