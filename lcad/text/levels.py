"""Caption levels derived from complete captions: the same partial and scarce captions on every machine.

A colour expression is a colour word with its modifiers and suffix, as "dark blue", "tan colored" or "red-haired".
"""

import re
from hashlib import sha256

from lcad.text.captions import SCARCE_CAPTION
from lcad.text.color_expressions import MODIFIERS, SHADES, split_words
from lcad.text.reading import Span, color_expressions

LEVELS = ("complete", "partial", "scarce")

_EXPRESSION = "\1"  # stands for one that stays, as \0 for one that goes
_JOIN = r"(?:,? (?:and|or|&) |-and-|, ?|[/-])"  # between colours of one object
_CARRIERS = "that|which|is|are|was|were|turned|painted|wearing|dressed|in|of|with|all|and|or|an?|the"
_FOLLOWERS = "and|or|at|by|from|has|in|is|next|of|on|over|sits|that|to|under|with"  # never follow an adjective

_REPAIRS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # where expressions are gone stands \0
        (rf"\0(?:(?:{_JOIN}| )\0)+", "\0"),
        (rf"\0{_JOIN}(?={_EXPRESSION})", "\0 "),  # "red and white bus" -> "white bus"
        (rf"{_EXPRESSION}{_JOIN}\0", _EXPRESSION),  # or "red bus"
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
    if not _expressions(caption):
        return "scarce"
    if declared not in ("complete", "partial"):
        raise ValueError(f"{caption!r} names colours: it is complete or partial, not {declared!r}")
    return declared


def _expressions(caption: str) -> list[Span]:
    """The characters of a caption's colour expressions, with all that goes with them: "dark and light blue"."""
    words = split_words(caption)
    before = MODIFIERS | SHADES | {"soft"}
    spans = []
    for first, end in color_expressions(words, caption):
        joined = first > 1 and words[first - 1].text == "and" and words[first - 2].text in MODIFIERS
        first -= 2 * joined
        while first > 0 and words[first - 1].text in before:
            first -= 1
        end += end < len(words) and words[end].glued and words[end].text.endswith("ed")
        spans.append((words[first].start, words[end - 1].end))
    return spans


def _partial(caption: str) -> str:
    caption = caption.translate({0: " ", 1: " "})
    spans = _expressions(caption)
    if not spans:
        return caption
    ranked = sorted(range(len(spans)), key=lambda i: sha256(f"{i} {caption}".encode()).digest())
    going = set(ranked[: max(1, len(spans) // 2)])
    ends = [0] + [end for _, end in spans]
    marks = ["\0" if i in going else _EXPRESSION for i in range(len(spans))]
    parts = [caption[end:start] + mark for end, (start, _), mark in zip(ends, spans, marks, strict=False)]
    text = "".join(parts) + caption[ends[-1] :]
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    staying = iter([caption[slice(*span)] for i, span in enumerate(spans) if i not in going])
    text = re.sub(_EXPRESSION, lambda _: next(staying), text).strip(" ,") or SCARCE_CAPTION
    return text[:1].upper() + text[1:] if caption[:1].isupper() else text
