"""Caption levels derived from complete captions: the same partial and scarce captions on every machine.

A colour expression is a colour word with its modifiers and suffix, as "dark blue", "tan colored" or "red-haired".
"""

import re
from hashlib import sha256
from itertools import count

from lcad.captions import SCARCE_CAPTION
from lcad.color_names import COLOR_PATTERN

LEVELS = ("complete", "partial", "scarce")

MODIFIERS = "dark|light|pale|bright|deep|vivid|soft|navy|sky|royal|olive|lime|neon|hot|mustard|off"
_EXPRESSION = rf"(?:\b(?:{MODIFIERS})[ -](?:and )?)*{COLOR_PATTERN}(?:-\w+ed\b| colou?red\b)?"
_JOIN = r"(?:,? (?:and|or|&) |-and-|, ?|[/-])"  # between colours of one object
_CARRIERS = "that|which|is|are|was|were|turned|painted|wearing|dressed|in|of|with|all|and|or|an?|the"
_FOLLOWERS = "and|or|at|by|from|has|in|is|next|of|on|over|sits|that|to|under|with"  # never follow an adjective

_REPAIRS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # where expressions are gone stands \0
        (rf"\0(?:(?:{_JOIN}| )\0)+", "\0"),
        (rf"\0{_JOIN}(?={_EXPRESSION})", "\0 "),  # "red and white bus" -> "white bus"
        (rf"{COLOR_PATTERN}{_JOIN}\0", r"\1"),  # or "red bus"
        (r"\b(an?|the) \0 (?:and|or) (?!an?\b|the\b)", "\\1 \0 "),  # "a red and shiny bus" -> "a shiny bus"
        (rf"\b(?:an?|the) \0(?= (?:{_FOLLOWERS})\b)", "something"),  # the fruit: "an orange on a bench"
        (rf"(?: (?:{_CARRIERS}))* ?\0(?=$|[.,;:]| (?:{_FOLLOWERS})\b)", ""),  # "a bus that is red" -> "a bus"
        (r"\b(a)n? \0[ -]?(?=(?:(?!uni|us[eu]|uti|eu|one\b)[aeiou]|hour|honest))", r"\1n "),  # "an egg"
        (r"\b(a)n? \0[ -]?(?=\w)", r"\1 "),  # "an orange cat" -> "a cat"
        (r"\0[ -]?", ""),
        (r" +", " "),
    )
)


def caption_at_level(caption: str, level: str) -> str:
    """A complete caption with half of its colour words (at least one gone, one of several left), or with none.

    Which colour words go is decided by a hash of the caption. A caption without colour words stays as it is.

    >>> caption_at_level("an orange cat", "partial")
    'a cat'

    Args:
        level: of `LEVELS`.

    Raises:
        ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown caption level {level!r}; allowed: {', '.join(LEVELS)}")
    if level == "complete":
        return caption
    return SCARCE_CAPTION if level == "scarce" else _partial(caption)


def level_of(caption: str, declared: str = "complete") -> str:
    """The level of a caption: scarce if it has no colour word, else what it is `declared` to be.

    Raises:
        ValueError: it has colour words and is declared scarce, or the level is unknown.
    """
    if not re.search(COLOR_PATTERN, caption, re.IGNORECASE):
        return "scarce"
    if declared not in ("complete", "partial"):
        raise ValueError(f"{caption!r} names colours: it is complete or partial, not {declared!r}")
    return declared


def _partial(caption: str) -> str:
    number = len(re.findall(_EXPRESSION, caption, re.IGNORECASE))
    ranked = sorted(range(number), key=lambda i: sha256(f"{i} {caption}".encode()).digest())
    going, index = ranked[: max(1, number // 2)], count()
    text = re.sub(_EXPRESSION, lambda m: "\0" if next(index) in going else m.group(), caption, flags=re.IGNORECASE)
    if number:
        for pattern, replacement in _REPAIRS:
            text = pattern.sub(replacement, text)
        text = text.strip(" ,") or SCARCE_CAPTION
    return text[:1].upper() + text[1:] if caption[:1].isupper() else text
