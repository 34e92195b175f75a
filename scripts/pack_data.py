#!/usr/bin/env python3
"""Pack the training data of a config into a few files, for a machine that has nothing but these.

python scripts/pack_data.py --config configs/mini_latent.yaml --output runs/packed --processes 2
python scripts/pack_data.py --config configs/mini_localizer.yaml --output runs/packed data.max_photos=1000 \
    --include teacher.safetensors=data/weights/vgg16_features_fp16.safetensors

Writes shards of photos, captions, tokens and label maps (safetensors) and packed.json, which has their SHA-256. The
same data make the same files. `lcad.data.packed.open_packed` reads them, from one folder or several.
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting
from lcad.config import AnyStageConfig, load_config


def run(args: argparse.Namespace) -> int:
    config = load_config(AnyStageConfig, args.config, args.overrides)
    from functools import partial

    from tqdm import tqdm

    from lcad.data.build.packing import pack
    from lcad.data.build.pieces import parse_size
    from ldm.text_encoder import build_tokenizer

    include = {}
    for named in args.include:
        name, _, file = named.partition("=")
        include[name] = Path(file)
    bar = partial(tqdm, desc="packing", unit="photo", mininterval=1)
    size = parse_size(args.shard_size)
    files = pack(config.data, args.output, build_tokenizer(), include, size, args.processes, bar)
    print(f"wrote {len(files)} files of {sum(file.size for file in files) / 1e6:.1f} MB to {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--config", required=True, help="YAML file of configs/; its data section says what is packed")
    add("--output", type=Path, required=True, help="folder for the shards and packed.json")
    add("--include", nargs="+", default=[], metavar="NAME=FILE", help="further files, copied as they are")
    add("--shard-size", default="50MB", help="the most that a shard has")
    add("--processes", type=int, default=0, help="that prepare photos beside this one")
    add("overrides", nargs="*", metavar="key=value", help="such as data.max_photos=1000")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
