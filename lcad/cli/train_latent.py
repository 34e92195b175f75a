"""Stage 2: train the noise prediction network in the latent space (or a base text-to-image model).

lcad train latent --config configs/mini_latent.yaml
lcad train latent --config configs/coco_stuff_latent.yaml trainer.devices=2 trainer.strategy=ddp
lcad train latent --config configs/mini_latent.yaml --resume last
"""

from lcad.cli.common import run_stage
from lcad.config import LatentStageConfig


def main(argv: list[str] | None = None) -> int:
    return run_stage("lcad train latent", __doc__, LatentStageConfig, argv)
