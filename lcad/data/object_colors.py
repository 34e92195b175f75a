"""The colour word for an object of a photo, or none where a person would hesitate.

On photos a mean colour is often wrong: objects have several colours, rough outlines and shadows, and most of them are
nearly grey. Arrays: lab (H, W, 3) or (N, 3), see `lcad.color`; masks (H, W) bool.
"""

import numpy as np
from PIL import Image, ImageFilter

from lcad.text.color_names import NEUTRAL_CHROMA, name_colors

INSIDE = 0.01  # of a photo's pixels that an object must have without its rim
SHARE = 0.25  # of an object's visible pixels that a colour must have to be named
WHITE_SHARE = 0.15  # white is seen sooner, beside black above all
COVERED = 0.75  # of them that have the colours named
MOST_SHADE = 0.45  # of an object's pixels that may be shadow or shine
MOST_SHADE_OF_TWO = 0.3  # of an object of two colours
TWO_CHROMA = 20.0  # a colour beside white is one, and no tinted light
GREY_SPREAD = 17.0  # the most that the luminance of a grey thing may deviate
BLACK_QUARTILE, WHITE_QUARTILE = 42.0, 62.0  # three quarters of a black thing are darker, of a white one lighter

# word -> (chroma, luminance), each [from, to): where the median of an object's pixels of that word must lie
CLEAR = {
    "red": ((42, 200), (15, 70)),
    "orange": ((45, 200), (50, 90)),
    "yellow": ((36, 200), (55, 101)),
    "green": ((16, 200), (15, 95)),
    "turquoise": ((16, 200), (20, 95)),
    "blue": ((17, 200), (12, 92)),
    "purple": ((18, 200), (12, 85)),
    "pink": ((18, 200), (50, 95)),
    "brown": ((14, 60), (12, 55)),
    "grey": ((0, 6), (34, 63)),
    "black": ((0, 4.5), (0, 27)),
    "white": ((0, 5.5), (75, 101)),
}


def object_color(lab: np.ndarray, mask: np.ndarray) -> str | None:
    """The colour of the object under a mask, but for its rim: "brown", "black and white"; None: no clear one."""
    radius = max(1, round(min(mask.shape) / 64))
    padded = Image.fromarray(np.pad(mask, radius, mode="edge").astype(np.uint8))
    inside = np.asarray(padded.filter(ImageFilter.MinFilter(2 * radius + 1)))[radius:-radius, radius:-radius] > 0
    return clear_color(lab[inside]) if inside.mean() >= INSIDE else None


def clear_color(lab: np.ndarray) -> str | None:
    """The word for an object's pixels (N, 3); two where one is white. None where it has others, or no clear one.

    Black and grey among the pixels of another colour are taken for shadows, grey among black or white for shine.
    """
    luminance, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    words = _pixel_words(lab)
    found, counts = np.unique(words, return_counts=True)
    shares = dict(zip(found.tolist(), (counts / len(lab)).tolist(), strict=True))
    first = max(shares, key=lambda word: shares[word])
    shade = {"grey": (), "black": ("grey",), "white": ("grey",)}.get(first, ("grey", "black"))
    hidden = sum(shares.pop(word, 0) for word in shade)
    seen = 1 - hidden
    named = [word for word, share in shares.items() if share >= (WHITE_SHARE if word == "white" else SHARE) * seen]
    named.sort(key=lambda word: word == "white")
    if hidden > MOST_SHADE or sum(shares[word] for word in named) < COVERED * seen:
        return None
    for word in named:
        medians = np.median(chroma[words == word]), np.median(luminance[words == word])
        if not all(low <= value < high for value, (low, high) in zip(medians, CLEAR[word], strict=True)):
            return None
    if len(named) == 1:
        return named[0] if _even(named[0], luminance) else None
    strong = named[0] == "black" or np.median(chroma[words == named[0]]) >= TWO_CHROMA
    return " and ".join(named) if named[1:] == ["white"] and strong and hidden <= MOST_SHADE_OF_TWO else None


def _pixel_words(lab: np.ndarray) -> np.ndarray:
    """As `name_colors`, but that people see black and white sooner, and dark orange as brown."""
    luminance, neutral = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2]) < NEUTRAL_CHROMA
    words = name_colors(lab)
    words[(words == "orange") & (luminance < 50)] = "brown"
    words[neutral & (luminance < 30)] = "black"
    words[neutral & (luminance > 70)] = "white"
    return words


def _even(word: str, luminance: np.ndarray) -> bool:
    if word == "grey":
        return luminance.std() <= GREY_SPREAD
    lower, upper = np.percentile(luminance, [25, 75])
    return not (word == "black" and upper > BLACK_QUARTILE or word == "white" and lower < WHITE_QUARTILE)


def clear_words(lab: np.ndarray) -> np.ndarray:
    """The word of each Lab colour (..., 3) that is a clear one by itself; "" for the others."""
    flat = lab.reshape(-1, 3)
    words = _pixel_words(flat)
    chroma = np.hypot(flat[:, 1], flat[:, 2])
    bounds = np.array([CLEAR[word] for word in words.tolist()])  # (N, 2, 2)
    values = np.stack([chroma, flat[:, 0]], 1)
    words[((values < bounds[..., 0]) | (values >= bounds[..., 1])).any(1)] = ""
    return words.reshape(lab.shape[:-1])
