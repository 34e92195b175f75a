"""Rendered scenes: shaded objects in named colours, with captions and exact instance masks.

Nothing in the luminance tells the colours: an object's L is drawn without regard to its colour word. So a
model can only know them from the caption. Everything follows from (seed, index).

Arrays: (S, S), Lab (S, S, 3); pixels x right, y down.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from lcad.color import lab_to_rgb_in_gamut
from lcad.data.build.silhouettes import KINDS
from lcad.io.images import to_image
from lcad.masks.files import save_masks
from lcad.text.captions import SCARCE_CAPTION
from lcad.text.color_names import COLOR_WORDS, example_color

SUPERSAMPLING = 2
TRAINING_LEVELS = ("complete", "complete_plain", "partial", "partial_plain", "sentence")  # see `caption_scene`


@dataclass(frozen=True)
class SceneObject:
    """One object.

    Attributes:
        kind: a row of `lcad.data.build.silhouettes.KINDS`.
        color: one of `COLOR_WORDS`.
        position: where it is among the others, such as "on the left"; empty if it is alone.
    """

    kind: str
    color: str
    position: str


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: (3, S, S) sRGB in [0, 1].
        masks: (objects, S, S) float {0, 1}, in the order of `objects`; they do not overlap.
        ground: the lower and the upper ground, rows of `GROUNDS`; one of them twice if there is no horizon.
        captions: see `caption_scene`.
    """

    image: torch.Tensor
    masks: torch.Tensor
    objects: list[SceneObject]
    ground: tuple[str, str]
    captions: dict[str, str]


@dataclass(frozen=True)
class Ground:
    """What objects stand before: its natural colour in (hue in degrees, chroma), its L, and its grain.

    Attributes:
        grain: standard deviations in pixels at 128 of the noise, along (y, x).
        contrast: standard deviation of the noise, in L.
    """

    hue: tuple[float, float]
    chroma: tuple[float, float]
    luminance: tuple[float, float]
    grain: tuple[float, float]
    contrast: float
    words: tuple[str, ...]


GROUNDS = {
    "grass": Ground((108, 124), (26, 42), (35, 62), (2.5, 0.7), 8, ("grass", "a lawn", "green grass")),
    "sky": Ground((246, 272), (14, 32), (55, 85), (7, 14), 4, ("the sky", "a blue sky")),
    "sand": Ground((72, 84), (16, 28), (60, 84), (0.6, 0.6), 5, ("sand", "a beach")),
    "wood": Ground((58, 72), (20, 34), (30, 62), (0.7, 16), 7, ("wood", "a wooden table")),
    "water": Ground((222, 252), (12, 28), (30, 65), (1.0, 5), 7, ("water", "the sea")),
    "snow": Ground((240, 280), (0, 4), (84, 95), (5, 5), 2, ("snow", "white snow")),
    "road": Ground((60, 280), (0, 3), (35, 60), (0.8, 0.8), 4, ("a road", "asphalt")),
    "soil": Ground((50, 68), (14, 26), (22, 42), (1.6, 1.6), 7, ("soil", "the ground")),
}
FAR = ("sky",)
NEAR = ("grass", "sand", "water", "snow", "road", "soil")

# where 1 to 4 objects stand: name -> [(x, y, words)], in units of the image side
LAYOUTS = {
    1: [[(0.5, 0.55, "")]],
    2: [
        [(0.27, 0.55, "on the left"), (0.73, 0.55, "on the right")],
        [(0.5, 0.27, "at the top"), (0.5, 0.75, "at the bottom")],
    ],
    3: [[(0.18, 0.55, "on the left"), (0.5, 0.55, "in the middle"), (0.82, 0.55, "on the right")]],
    4: [
        [
            (0.27, 0.27, "at the top left"),
            (0.73, 0.27, "at the top right"),
            (0.27, 0.75, "at the bottom left"),
            (0.73, 0.75, "at the bottom right"),
        ]
    ],
}
RADII = {1: (0.24, 0.4), 2: (0.16, 0.24), 3: (0.12, 0.165), 4: (0.13, 0.2)}


def render_scene(seed: int, index: int, size: int = 128, same_kind: bool | None = None) -> Scene:
    """Scene number `index` of the stream `seed`.

    Args:
        size: side of the image in pixels.
        same_kind: all objects of one kind, or all of different kinds; None: either, by chance.
    """
    rng = np.random.default_rng((seed, index))
    count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.35, 0.25, 0.1]))
    layout = LAYOUTS[count][rng.integers(len(LAYOUTS[count]))]
    layout = [layout[k] for k in rng.permutation(count)]  # the order of a caption's phrases tells no positions
    alike = rng.random() < 0.5 if same_kind is None else same_kind
    kinds = [str(rng.choice(list(KINDS)))] * count if alike else rng.choice(list(KINDS), count, replace=False).tolist()
    colors = rng.choice(COLOR_WORDS, count, replace=False).tolist()
    ground, lab = _ground(rng, size)
    objects, masks = [], np.zeros((count, size, size), dtype=bool)
    for i, (x, y, position) in enumerate(layout):
        radius = rng.uniform(*RADII[count])
        center = np.array([x, y]) + rng.uniform(-0.03, 0.03, 2)
        silhouette = _silhouette(kinds[i], center * size, radius * size, rng, size)
        masks[i] = silhouette & ~masks[:i].any(0)
        _shadow(lab, silhouette, rng, size)
        _paint(lab, masks[i], colors[i], rng, size)
        objects.append(SceneObject(kinds[i], colors[i], position))
    image = lab_to_rgb_in_gamut(torch.from_numpy(lab).movedim(-1, 0).float())
    return Scene(image, torch.from_numpy(masks).float(), objects, ground, caption_scene(objects, ground, rng))


def caption_scene(objects: list[SceneObject], ground: tuple[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Captions by level, comma-separated phrases in the order of the objects.

    complete and partial, each with position words and (`*_plain`) without; `sentence`, a complete caption with
    positions in other words and with the ground; scarce. In a partial caption half of the objects have no colour.
    """
    near = str(rng.choice(GROUNDS[ground[0]].words))
    named = rng.permutation(len(objects)) < (len(objects) + 1) // 2

    def phrases(colored: Iterable[bool], positions: bool) -> str:
        words = []
        for item, with_color in zip(objects, colored, strict=True):
            parts = ["the", item.color if with_color else "", item.kind, item.position if positions else ""]
            words.append(" ".join(filter(None, parts)))
        return ", ".join(words)

    everything = [True] * len(objects)
    article = "an" if objects[0].color == "orange" else "a"
    if len(objects) == 1:
        item = objects[0]
        forms = [f"{article} {item.color} {item.kind} on {near}", f"the {item.kind} is {item.color}, on {near}"]
    else:
        forms = [
            " and ".join(f"a {o.color} {o.kind} {o.position}" for o in objects).replace("a orange", "an orange")
            + f", on {near}",
            ", ".join(f"{o.position} a {o.color} {o.kind}" for o in objects).replace("a orange", "an orange"),
            ", ".join(f"the {o.kind} {o.position} is {o.color}" for o in objects),
        ]
    return {
        "complete": phrases(everything, True),
        "complete_plain": phrases(everything, False),
        "partial": phrases(named, True),
        "partial_plain": phrases(named, False),
        "sentence": str(rng.choice(forms)),
        "scarce": SCARCE_CAPTION,
    }


def write_scenes(
    folder: Path,
    number: int,
    seed: int,
    size: int = 128,
    same_kind: bool | None = None,
    levels: Iterable[str] = TRAINING_LEVELS,
) -> Iterable[int]:
    """Write scenes as a folder of images, `captions.json`, `masks/` and `scenes.json`; yields after each.

    `scenes.json` says for each image its objects (kind, color, position), ground and captions by level;
    `captions.json` has those of `levels`, for training. Plain captions of objects of one kind say which colours there
    are, not where: it is for instance masks to tell.
    An image of the same name is kept: an interrupted run is gone on with.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    captions, scenes = {}, {}
    for index in range(number):
        scene = render_scene(seed, index, size, same_kind)
        name = f"scene_{seed}_{index:06d}.png"
        if not (images / name).exists():
            save_masks(folder / "masks", Path(name).stem, scene.masks, [f"{o.color} {o.kind}" for o in scene.objects])
            to_image(scene.image).save(images / name)
        captions[name] = [scene.captions[level] for level in levels]
        scenes[name] = {
            "objects": [asdict(item) for item in scene.objects],
            "ground": scene.ground,
            "captions": scene.captions,
        }
        yield index
    (folder / "captions.json").write_text(json.dumps(captions, indent=0))
    (folder / "scenes.json").write_text(json.dumps(scenes, indent=0))


def _noise(rng: np.random.Generator, size: int, grain: tuple[float, float]) -> np.ndarray:
    """Smooth noise (S, S) of zero mean and unit deviation; grain in pixels at S = 128."""
    sigma = [g * size / 128 for g in grain]
    values = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), sigma, mode="wrap", truncate=3)
    return (values - values.mean()) / values.std()


def _ground(rng: np.random.Generator, size: int) -> tuple[tuple[str, str], np.ndarray]:
    """One ground, or two with a horizon -> their names (near, far) and Lab."""
    if rng.random() < 0.45:
        near, far = str(rng.choice(NEAR)), str(rng.choice(FAR))
        horizon = rng.uniform(0.3, 0.6) * size + 2 * _noise(rng, size, (6, 6))[0]
    else:
        near = far = str(rng.choice(list(GROUNDS)))
        horizon = np.zeros(size)
    lab = np.empty((size, size, 3))
    rows = np.arange(size)[:, None]
    for name, zone in ((far, rows < horizon), (near, rows >= horizon)):
        ground = GROUNDS[name]
        hue, strength = np.radians(rng.uniform(*ground.hue)), rng.uniform(*ground.chroma)
        slope = rng.uniform(-8, 8) * (rows / size - 0.5)
        light = rng.uniform(*ground.luminance) + ground.contrast * _noise(rng, size, ground.grain) + slope
        chroma = strength * (1 + 0.12 * _noise(rng, size, (6, 6)))
        layer = np.stack([light.clip(3, 98), chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
        lab[zone] = layer[zone]
    return (near, far), lab


def _silhouette(kind: str, center: np.ndarray, radius: float, rng: np.random.Generator, size: int) -> np.ndarray:
    """The object's pixels: its shapes stretched, tilted, mirrored by chance, and put at `center` (pixels)."""
    angle, mirror = np.radians(rng.uniform(-14, 14)), rng.choice([-1, 1])
    stretch = np.array([mirror * rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.1)])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    canvas = Image.new("L", (size * SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(canvas)
    for text in KINDS[kind]:
        shape, *numbers = text.split()
        points = np.array(numbers, dtype=float).reshape(-1, 2)
        if shape.endswith("ellipse"):
            around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            middle, half = points.mean(0), np.ptp(points, axis=0) / 2
            points = middle + half * np.stack([np.cos(around), np.sin(around)], axis=-1)
        points = ((points * stretch) @ turn * radius + center) * SUPERSAMPLING
        draw.polygon([tuple(p) for p in points], fill=255 if shape.startswith("+") else 0)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX)) >= 128


def _shadow(lab: np.ndarray, mask: np.ndarray, rng: np.random.Generator, size: int) -> None:
    """Darken what lies beside the object, in place."""
    shift = (rng.uniform(0.01, 0.04) * size, rng.uniform(-0.04, 0.04) * size)
    soft = ndimage.gaussian_filter(ndimage.shift(mask.astype(np.float32), shift, order=1), 0.02 * size)
    lab[..., 0] *= 1 - rng.uniform(0.1, 0.4) * soft


def _paint(lab: np.ndarray, mask: np.ndarray, color: str, rng: np.random.Generator, size: int) -> None:
    """Give the object its colour, shading and texture, in place.

    L is drawn before and apart from the colour: base, shading of an inflated silhouette, highlight, texture.
    """
    base, contrast = rng.uniform(34, 68), rng.uniform(6, 16)
    depth = np.sqrt(ndimage.distance_transform_edt(mask))
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(depth, 0.012 * size))
    light = rng.uniform(0, 2 * np.pi)
    shade = slope_x * np.cos(light) + slope_y * np.sin(light)
    shade = shade / (np.abs(shade[mask]).max() + 1e-6)
    luminance = base + contrast * (shade + _texture(rng, size))
    luminance += rng.uniform(0, 25) * np.clip(shade - 0.75, 0, 1) * 4 * (rng.random() < 0.5)
    luminance += base - luminance[mask].mean()
    a, b = example_color(color, rng)
    fade = 1 + 0.08 * _noise(rng, size, (5, 5))
    lab[mask] = np.stack([luminance.clip(6, 94), a * fade, b * fade], axis=-1)[mask]


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A pattern (S, S) of zero mean: none, grain, stripes, dots or checks."""
    y, x = np.mgrid[:size, :size] / size * 2 * np.pi * rng.uniform(6, 16)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    match rng.choice(["none", "grain", "stripes", "dots", "checks"], p=[0.35, 0.3, 0.15, 0.1, 0.1]):
        case "none":
            return np.zeros((size, size))
        case "grain":
            return 0.35 * _noise(rng, size, tuple(rng.uniform(0.6, 4, 2)))
        case "stripes":
            return 0.45 * np.sign(np.sin(u))
        case "dots":
            return 0.7 * ((np.sin(u) * np.sin(v)) > 0.55)
        case _:
            return 0.4 * np.sign(np.sin(u) * np.sin(v))
