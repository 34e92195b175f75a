"""Names of colours: which word a person would use for a Lab colour, and examples of each word.

Lab as in `lcad.color`; hue is atan2(b, a) in degrees in [0, 360), chroma the length of (a, b). Except for black,
grey and white the word depends on hue and chroma alone, so that luminance gives no name away.
"""

import math

import numpy as np

NEUTRAL_CHROMA = 9.0  # below it a colour is black, grey or white
BROWN_CHROMA = 36.0  # hues of orange, and of yellow up to BROWN_HUE, below it are brown
BROWN_HUE = 88
PINK_CHROMA = 42.0  # hues of red below it are pink

HUES = {  # word -> [from, to) in degrees; sRGB's own red lies at 40, its green at 136, its blue at 306
    "red": (12, 46),
    "orange": (46, 76),
    "yellow": (76, 104),
    "green": (104, 178),
    "turquoise": (178, 228),
    "blue": (228, 308),
    "purple": (308, 338),
    "pink": (338, 372),
}

COLOR_WORDS = (*HUES, "brown", "grey")
"""The words whose meaning does not depend on luminance."""

COLOR_PATTERN = rf"\b({'|'.join((*COLOR_WORDS, 'gray', 'black', 'white', 'silver', 'golden', 'tan'))})\b"
"""A regular expression for a colour word in a caption; its one group is the word."""

# (hue, chroma) ranges of clear examples, well inside what `name_color` calls by that word
EXAMPLES = {
    "red": ((24, 40), (48, 75)),
    "orange": ((54, 68), (46, 75)),
    "yellow": ((84, 98), (40, 75)),
    "green": ((118, 165), (32, 65)),
    "turquoise": ((188, 218), (24, 40)),
    "blue": ((252, 298), (30, 60)),
    "purple": ((313, 332), (34, 60)),
    "pink": ((345, 365), (26, 50)),
    "brown": ((52, 74), (16, 28)),
    "grey": ((0, 360), (0, 4)),
}


def name_colors(lab: np.ndarray) -> np.ndarray:
    """The words for Lab colours (..., 3) -> array (...) of `COLOR_WORDS`, black and white.

    >>> name_colors(np.array([[53, 80, 67], [50, 15, 20], [92, 0, 1]])).tolist()
    ['red', 'brown', 'white']
    """
    luminance, a, b = np.moveaxis(np.asarray(lab, dtype=float), -1, 0)
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    starts = [start for start, _ in HUES.values()]
    sector = np.searchsorted(starts, hue, side="right") - 1  # -1: below red, still pink
    words = np.array(list(HUES), dtype="<U9")[sector]
    pale_red = (words == "red") & (chroma < PINK_CHROMA)
    brown = (hue >= HUES["orange"][0]) & (hue < BROWN_HUE) & (chroma < BROWN_CHROMA)
    words[pale_red & (hue < 30)] = "pink"
    words[brown | pale_red & (hue >= 30)] = "brown"
    neutral = chroma < NEUTRAL_CHROMA
    words[neutral] = "grey"
    words[neutral & (luminance < 25)] = "black"
    words[neutral & (luminance > 85)] = "white"
    return words


def name_color(lab: np.ndarray) -> str:
    """The word for one Lab colour (3,)."""
    return str(name_colors(np.asarray(lab)[None])[0])


def example_color(word: str, rng: np.random.Generator) -> tuple[float, float]:
    """A clear example of a colour word -> (a, b) in Lab units, the same for every luminance.

    Raises:
        KeyError: not one of `COLOR_WORDS`.
    """
    (hue_from, hue_to), (chroma_from, chroma_to) = EXAMPLES[word]
    hue = math.radians(rng.uniform(hue_from, hue_to))
    chroma = rng.uniform(chroma_from, chroma_to)
    return chroma * math.cos(hue), chroma * math.sin(hue)
