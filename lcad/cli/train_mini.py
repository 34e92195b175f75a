"""Train the whole bundled model from packed data, on one GPU in twelve minutes or on the CPU in hours.

python scripts/pack_data.py --config configs/mini_128_latent.yaml --output runs/packed_128 --processes 2 \\
    --include vgg16.safetensors=data/weights/vgg16_features_fp16.safetensors \\
        token_vectors.safetensors=data/weights/clip_bpe_vectors_128_fp16.safetensors
lcad train mini --packed runs/packed_128 --minutes 12
lcad train mini --packed part_1 part_2 --minutes 12 --pieces 15MB       # the weights leave in pieces
lcad train mini --packed runs/packed_128 --minutes 240 trainer.batch_size=64 trainer.compile=false

lcad train mini --packed runs/packed_128 --minutes 8 --init checkpoints/mini --few-steps colorization:trainer.seed=1

It runs configs/mini_128_*.yaml in their order, each within its share of the time. The same command goes on with a run
that was stopped. Autoencoder and luminance encoder are the committed ones unless --from-scratch trains them too.
"""

import argparse
import time
from pathlib import Path

from lcad.cli.common import REPOSITORY, build_parser, reporting, stage_of


def run(args: argparse.Namespace, started: float) -> int:
    from lcad.data.build.pieces import parse_size
    from lcad.training.speedrun import choose_steps, run_steps, write_pieces
    from lcad.training.trainer import train

    size = parse_size(args.pieces) if args.pieces else None
    steps = choose_steps(args.from_scratch, args.without_slr, args.few_steps, args.init)
    configs = REPOSITORY / "configs"
    train_step = lambda config, resume: train(config, *stage_of(config), resume)  # noqa: E731
    model = run_steps(steps, configs, args.packed, args.output, args.minutes, args.overrides, train_step, started)
    minutes = (time.monotonic() - started) / 60
    print(f"wrote {model} in {minutes:.1f} min; try: lcad sample --model {model}")
    if size:
        manifest = write_pieces(model, args.output / "pieces", size)
        print(f"in pieces: {manifest}; join them with scripts/join_pieces.py, then tar xf {model.name}.tar")
    return 0


def main(argv: list[str] | None = None) -> int:
    started = time.monotonic()
    parser = build_parser("lcad train mini", __doc__)
    add = parser.add_argument
    add("--packed", type=Path, nargs="+", required=True, help="folders that pack_data.py wrote")
    add("--minutes", type=float, default=12, help="for everything, loading included (default: %(default)g)")
    add("--output", type=Path, default=Path("runs/mini_128"), help="default: %(default)s")
    add("--from-scratch", action="store_true", help="train autoencoder and luminance encoder too")
    add("--init", default="", metavar="MODEL", help="train this checkpoint folder's colorization on")
    add("--few-steps", action="store_true", help="also the weights for few steps, which sample.py --fast takes")
    add("--without-slr", action="store_true", help="also the variant that Table 1 needs")
    add("--pieces", metavar="SIZE", help="also write the model in pieces of this size, such as 15MB")
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="of all steps, such as trainer.batch_size=64; localizer:key=value of one",
    )
    args = parser.parse_args(argv)
    if args.init and args.from_scratch:
        parser.error("--init trains a model on, --from-scratch begins a new one: choose one")
    if args.minutes <= 0:
        parser.error(f"--minutes must be above 0, got {args.minutes}")
    return reporting(lambda: run(args, started))
