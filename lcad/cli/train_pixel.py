"""Stage 1: train the luminance encoder (or a base autoencoder) in pixel space.

lcad train pixel --config configs/mini_pixel.yaml
lcad train pixel --config configs/coco_stuff_pixel.yaml trainer.devices=2 trainer.strategy=ddp
lcad train pixel --config configs/mini_pixel.yaml --resume last
"""

from lcad.cli.common import run_stage
from lcad.config import PixelStageConfig


def main(argv: list[str] | None = None) -> int:
    return run_stage("lcad train pixel", __doc__, PixelStageConfig, argv)
