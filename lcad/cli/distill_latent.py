"""Distil a trained model to a few sampling steps, with its guidance baked in (latent consistency models).

lcad distill --config configs/mini_128_distillation.yaml
lcad distill --config configs/coco_stuff_distillation.yaml trainer.devices=2 trainer.strategy=ddp
lcad distill --config configs/mini_128_distillation.yaml --resume last

The model is written with a LoRA in lcm_lora/, a few megabytes that may be copied beside the model it is made of. With
it --fast takes 4 steps in place of tens.
"""

from lcad.cli.common import run_stage
from lcad.config import DistillationStageConfig


def main(argv: list[str] | None = None) -> int:
    return run_stage("lcad distill", __doc__, DistillationStageConfig, argv)
