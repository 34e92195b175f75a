"""What both training stages share: Adam with a schedule, step-wise seeds, lean resume checkpoints."""

import math

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer


def step_generator(stage: pl.LightningModule, on_device: bool = False) -> torch.Generator:
    """A generator that depends on seed, step, batch and device only: a resumed run draws the same noise.

    Args:
        on_device: of the stage's device, which then need not be waited for; else of the CPU.
    """
    trainer = stage.trainer
    batch = trainer.fit_loop.epoch_loop.total_batch_idx
    seed = hash((stage.trainer_config.seed, batch, trainer.global_rank)) % 2**63
    return torch.Generator(stage.device if on_device else "cpu").manual_seed(seed)


def clip_gradients(stage: pl.LightningModule) -> None:
    """To the norm `trainer.gradient_clip`, on the device (Lightning's own clipping refuses a fused optimizer)."""
    if stage.trainer_config.gradient_clip is not None:
        torch.nn.utils.clip_grad_norm_(stage.parameters(), stage.trainer_config.gradient_clip)


def build_optimizer(
    stage: pl.LightningModule, learning_rate: float, final_learning_rate: float | None, warmup_steps: int
) -> dict:
    """Adam over what requires a gradient, with linear warm-up and, if a final rate is given, cosine decay.

    The decay is by the share of the steps or of the hours that is done, whichever is greater.
    """
    parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    trainer = stage.trainer
    total = trainer.estimated_stepping_batches
    final = 1.0 if final_learning_rate is None else final_learning_rate / learning_rate

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, total - warmup_steps)  # 0 of steps without an end
        done = min(1.0, max(done, time_share(trainer)))
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def time_share(trainer: pl.Trainer) -> float:
    """The share of its hours that a run has used, earlier parts of it too; 0 without a limit, alike on all devices."""
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)
    if timer is None:
        return 0.0
    used, left = timer.time_elapsed() - getattr(timer, "prepared", 0.0), timer.time_remaining()
    return trainer.strategy.broadcast(used / (used + left))


def only_trained_weights(stage: pl.LightningModule, checkpoint: dict) -> None:
    """Leave frozen parameters out of a resume checkpoint; they come from `init` again."""
    frozen = {name for name, parameter in stage.named_parameters() if not parameter.requires_grad}
    checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
