#!/usr/bin/env python3
"""Stage 1: train the luminance encoder (or a base autoencoder) in pixel space.

python scripts/train_pixel.py --config configs/mini_pixel.yaml
python scripts/train_pixel.py --config configs/coco_stuff_pixel.yaml trainer.devices=2 trainer.strategy=ddp
python scripts/train_pixel.py --config configs/mini_pixel.yaml --resume last
"""

from lcad.cli.common import run_stage
from lcad.config import PixelStageConfig


def main(argv: list[str] | None = None) -> int:
    return run_stage(__doc__, PixelStageConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
