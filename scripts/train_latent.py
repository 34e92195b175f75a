#!/usr/bin/env python3
"""Stage 2: train the noise prediction network in the latent space (or a base text-to-image model).

python scripts/train_latent.py --config configs/mini_latent.yaml
python scripts/train_latent.py --config configs/coco_stuff_latent.yaml trainer.devices=2 trainer.strategy=ddp
python scripts/train_latent.py --config configs/mini_latent.yaml --resume last
"""

from lcad.cli.common import run_stage
from lcad.config import LatentStageConfig


def main(argv: list[str] | None = None) -> int:
    return run_stage(__doc__, LatentStageConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
