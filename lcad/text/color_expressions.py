"""Colour expressions of captions ("red", "dark blue", "navy", "rust colored"), and the basic word for each.

The project's one vocabulary of colours: phrases and caption levels both read it.

The names and their RGB values are those of CSS and of the XKCD survey, as matplotlib has them (color_values.json).
"""

import json
import re
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from lcad.color import lab_to_rgb_in_gamut, rgb_to_lab
from lcad.text.color_names import COLOR_WORDS, name_color

BASIC = (*COLOR_WORDS, "black", "white")
"""The words that `basic_color` gives."""


def word_set(words: str) -> frozenset[str]:
    """A table of words, written as text."""
    return frozenset(words.split())


NAMES = word_set(  # colours when alone; those that are rather things (peach) need "colored" or a colour behind
    """gray silver gold golden bronze copper tan beige cream navy maroon burgundy crimson scarlet magenta fuchsia
    lavender lilac violet indigo azure aqua aquamarine cyan teal turquoise khaki ivory taupe mauve chartreuse periwinkle
    ecru cerulean ochre auburn"""
).union(BASIC)
MODIFIERS = word_set("dark darker light lighter pale bright brilliant deep vivid vibrant neon fluorescent pastel")
SHADES = word_set(  # of XKCD's "navy blue", "lime green", ...; not those that say more of the object, as "muddy brown"
    """acid apple army avocado baby banana blood bottle brick bubblegum burnt cadet canary candy charcoal cherry
    chocolate clay cobalt coffee coral cornflower denim eggplant electric emerald fern forest grass gunmetal hot hunter
    ice jade kelly lemon lime lipstick metallic midnight military mint moss mustard off olive peach peacock pea pine
    plum powder pumpkin robin royal ruby rose rust rusty sage salmon sand sandy sapphire sea seafoam sky slate spring
    steel sunflower tomato wine"""
)
_DYES = word_set(  # things that are colours of clothes and furnishings: "a peach sweater"
    """peach salmon plum mustard mint charcoal rust coral emerald ruby sapphire olive rose sage wine lemon lime
    chocolate cherry tomato eggplant apricot cobalt jade moss"""
)
_DYED = re.compile(
    r"(?:shirt|jacket|hat|coat|dress|suit|vest|sweater|cardigan|blouse|skirt|top|scar(?:f|ves)|gown|shorts|pants|"
    r"trousers|jeans|tie|shoes?|boots|gloves?|socks?|hoodie|robe|blanket|curtains?|sofa|couch|cushions?|pillows?|"
    r"carpet|rug|towels?|lipstick|walls?|umbrella)$"
)
_FABRICS = word_set("silk wool woolen cotton linen velvet satin leather knit knitted")
_SPELLED = word_set("silver golden beige violet maroon burgundy crimson scarlet magenta lavender").union(BASIC)
_NO_SLIPS = word_set(  # words and names that are one letter away from a colour
    """greed greek greet greer blown brows brawn blank block brack while write whine waite whyte sliver salver solver
    silber violent scarlett starlet marion marlon gulden magento"""
)
_ISH = {"redd": "red", "whit": "white", "orang": "orange", "purpl": "purple", "blu": "blue"}  # stems before "ish"
_SAME = (  # other spellings, and names whose value lies across a border of `lcad.text.color_names`
    {"gray": "grey", "golden": "yellow", "aquamarine": "turquoise", "azure": "blue", "lavender": "purple"}
    | dict.fromkeys(("beige", "khaki", "auburn", "chocolate"), "brown")
    | dict.fromkeys(("cream", "ecru"), "white")
    | dict.fromkeys(("banana", "canary", "lemon"), "yellow")
    | dict.fromkeys(("burgundy", "wine"), "red")
    | {"olive": "green"}
)


@dataclass(frozen=True)
class Word:
    """A word or a mark of a caption.

    Attributes:
        text: in small letters; of a colour with one letter wrong ("yelow"), the colour.
        start, end: characters [start, end) of the caption.
        glued: joined to the word before by a hyphen, which is no word.
    """

    text: str
    start: int
    end: int
    glued: bool = False


def split_words(caption: str) -> list[Word]:
    """The words and marks of a caption; "dog's" is two words, and so is "red-haired"."""
    words = []
    for match in re.finditer(r"(?P<hyphen>(?<=\w)-(?=\w))|['’]s\b|[^\W_]+(?:['’](?!s\b)[^\W_]+)*|[^\s\"#]", caption):
        if match["hyphen"] is None:
            glued = match.start() > 1 and caption[match.start() - 1] == "-" and caption[match.start() - 2].isalnum()
            text = match.group().lower()
            words.append(Word(_slips().get(text, text), *match.span(), glued))
    return words


@cache
def _slips() -> dict[str, str]:
    """Typing errors -> colours: one letter left out, changed or put in, or two swapped; never the first.

    Short words, and letters added at the end, are left alone: they make other words ("oranges", "whiter", "Browne").
    """
    slips: dict[str, str] = {}
    for color in _SPELLED:
        for k in range(1, len(color)):
            head, tail = color[:k], color[k:]
            slips |= dict.fromkeys((head + tail[1:], head + tail[1:2] + tail[0] + tail[2:]), color)
            slips |= {head + c + rest: color for c in string.ascii_lowercase for rest in (tail, tail[1:])}
    allowed = (slip for slip in slips if len(slip) > 4 and slip not in _NO_SLIPS | NAMES)
    return {slip: slips[slip] for slip in allowed}


@cache
def _library() -> dict[str, tuple[float, float, float]]:
    """Colour name -> RGB in [0, 1]; CSS before XKCD."""
    colors = json.loads(Path(__file__).with_name("color_values.json").read_text(encoding="utf-8"))["colors"]
    channels = {name: bytes.fromhex(value[1:]) for name, value in colors.items()}
    return {name: (red / 255, green / 255, blue / 255) for name, (red, green, blue) in channels.items()}


def expression_end(words: list[Word], index: int) -> int:
    """Where the colour expression that starts at words[index] ends, or `index` if none does."""
    texts = [word.text for word in words[index : index + 6]] + [""] * 6
    first = 0
    while texts[first] in MODIFIERS and first < 2:
        first += 1
    name, after = texts[first], texts[first + 1]
    colored = ("colored", "coloured")
    if _ish(name):
        length = 2 if after in NAMES else 1
    elif name in NAMES and after in BASIC and words[index + first + 1].glued and f"{name} {after}" in _library():
        length = 2  # "blue-green"
    elif name in NAMES and not (name == "cream" and after in ("cheese", "puff", "puffs", "pie", "pies")):
        length = 2 if name == "navy" and after == "blue" else 1
    elif (name in SHADES and after in NAMES) or (after in colored and name in _library()):
        length = 2 if name not in MODIFIERS else 0
    elif name in _DYES and _DYED.search(texts[first + 2] if after in _FABRICS else after):
        length = 1
    else:
        length = 0
    if not length:
        return index
    end = first + length
    if texts[end] in (*colored, "ish") and (texts[end] != "ish" or words[index + end].glued):
        end += 1
    return index + end


def basic_color(word: str) -> str | None:
    """The basic word of `lcad.text.color_names` for a colour expression, or None if it is none.

    >>> [basic_color(word) for word in ("navy blue", "crimson", "Dark-Green", "gray", "happy")]
    ['blue', 'red', 'green', 'grey', None]
    """
    words = split_words(word)
    if not words or expression_end(words, 0) != len(words):
        return None
    texts = [word.text for word in words if word.text not in ("colored", "coloured", "ish")]
    while texts[0] in MODIFIERS:
        texts.pop(0)
    last = _SAME.get(texts[-1], _ish(texts[-1]) or texts[-1])
    if last in BASIC:
        return last
    rgb = _library().get(" ".join(texts)) or _library()[last]
    return name_color(rgb_to_lab(torch.tensor(rgb)[:, None, None])[:, 0, 0].numpy())


def color_value(expression: str) -> tuple[float, float, float] | None:
    """The colour that an expression names, sRGB in [0, 1]; None if it names none.

    The value of CSS or else of the XKCD survey for the whole name; or for what follows the modifiers ("pastel coral"),
    which then make it darker, paler or stronger; or of the basic word ("reddish").
    """
    texts = [word.text for word in split_words(expression)]
    plain = " ".join(text for text in texts if text not in ("colored", "coloured"))
    for name in (plain, plain.replace("gray", "grey"), plain.replace(" ", "")):  # CSS writes its names in one
        if name in _library():
            return _library()[name]
    words, modifiers = plain.split(), []
    while len(words) > 1 and words[0] in MODIFIERS:
        modifiers.append(words.pop(0))
    rgb = color_value(" ".join(words)) if modifiers else _library().get(basic_color(expression) or "")
    return None if rgb is None else _modified(rgb, modifiers)


def known_colors() -> list[str]:
    """The names of colours that `color_value` has a value of its own for."""
    return sorted(_library())


def _modified(rgb: tuple[float, float, float], modifiers: list[str]) -> tuple[float, float, float]:
    """sRGB in [0, 1], made darker, paler or stronger in Lab."""
    lab = rgb_to_lab(torch.tensor(rgb)[:, None, None])
    for word in modifiers:
        if word in ("dark", "darker", "deep"):
            lab = lab * 0.65
        elif word in ("light", "lighter", "pale", "pastel"):
            lab = torch.cat([(lab[:1] + 100) / 2, lab[1:] * 0.6])
        else:  # bright, vivid, neon, ...
            lab = torch.cat([lab[:1], lab[1:] * 1.3])
    return tuple(lab_to_rgb_in_gamut(lab)[:, 0, 0].tolist())


def _ish(word: str) -> str | None:
    stem = word.removesuffix("ish")
    base = _SAME.get(stem, _ISH.get(stem, stem))
    return base if stem != word and base in BASIC else None
