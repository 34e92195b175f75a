#!/usr/bin/env python3
"""Label what a classifier sees in photos that have no label maps: for training weights that find objects.

python scripts/label_photos.py --input data/photos_128 --output data/photos_labelled \
    --weights data/weights/squeezenet1_1_fp16.pth --skip data/photos_128/ade_labels

Writes a data folder of the photos in which a word is found: images/, labels/ (PNGs of class ids) and classes.txt, for
a config's folder, label_maps and label_names, and captions.json with those captions that name what is labelled. Words
in a photo's captions or its file name are looked for, or else any. Run it again to go on after an interruption: what is
labelled is kept. Photos that cannot be read are named; the exit status is then 1.
"""

import argparse
import json
import sys
from pathlib import Path

from lcad.cli.common import build_parser, reporting

WORDS = Path(__file__).parent.parent / "configs" / "words" / "imagenet.txt"


def run(args: argparse.Namespace) -> int:
    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from lcad.data.build.cam_labels import Labeller, read_words
    from lcad.io.images import ImageError, image_folder, list_images, read_image, write_bytes, write_image
    from lcad.io.label_maps import read_label_map
    from lcad.text.captions import read_captions
    from ldm.devices import choose_device

    words = read_words(args.words)
    labeller = Labeller(words, args.weights, choose_device(args.device))
    photos = list_images(image_folder(args.input))
    captions = read_captions(photos[0].parent, args.captions)
    classes = args.output / "classes.txt"
    listed = "".join(f"{number} {', '.join(word.names)}\n" for number, word in enumerate(words, 1)).encode()
    if classes.exists() and classes.read_bytes() != listed:
        raise FileExistsError(f"{args.output}: holds labels of other words; choose another --output")
    write_bytes(classes, listed)
    problems = 0
    named: dict[str, list[str]] = {}
    for photo in tqdm(photos, "labelling", unit="photo"):
        place, texts = args.output / "labels" / f"{photo.stem}.png", captions.get(photo.name, [])
        if args.skip and (args.skip / place.name).exists():
            continue
        if not place.exists():
            try:
                labels = labeller.label(read_image(photo), [*texts, photo.stem.replace("_", " ")])
            except ImageError as error:
                tqdm.write(f"problem: {error}", file=sys.stderr)
                problems += 1
                continue
            if not labels.any():
                continue
            write_bytes(args.output / "images" / photo.name, photo.read_bytes())
            write_image(place, Image.fromarray(labels))
        found = [words[number - 1] for number in np.unique(read_label_map(place)).tolist() if number]
        named[photo.name] = [text for text in texts if any(word.is_in([text]) for word in found)]
    write_bytes(args.output / "captions.json", json.dumps(named, indent=0).encode())
    print(f"{len(named)} of {len(photos)} photos are labelled in {args.output}")
    return 1 if problems else 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of photos")
    parser.add_argument("--output", type=Path, required=True, help="folder for images/, labels/ and classes.txt")
    parser.add_argument("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    parser.add_argument("--words", type=Path, default=WORDS, help="what ImageNet's classes are called")
    parser.add_argument("--weights", type=Path, help="of torchvision's squeezenet1_1 (default: downloaded)")
    parser.add_argument("--skip", type=Path, help="folder of label maps: photos that have one are left out")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
