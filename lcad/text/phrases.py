"""Phrases of a caption: the stretches that name one object each, as characters and as tokens."""

import re
from dataclasses import dataclass

from transformers import CLIPTokenizer

from lcad.text.color_object_pairs import color_object_pairs, head_noun, noun_span
from lcad.text.lexicon import ADJECTIVES, PHOTOS
from lcad.text.reading import Span, read_caption
from ldm.text_encoder import MAX_TOKENS

_PLACE = (
    r"(?P<where>(?:(?P<row>top|upper|bottom|lower)[ -])?"
    r"(?P<place>left|right|middle|cent(?:er|re)|top|upper|bottom|lower))(?:most)?"
)
_NOT_PLACED = "side|corner|hand|edge|half|part|end|way|direction"
_BEFORE = re.compile(rf"\bthe (?:far )?{_PLACE} (?!(?:{_NOT_PLACED})\b)", re.IGNORECASE)  # "the left cup"
_AFTER = re.compile(  # "the cup on the left", but not "on the left of the plate"
    rf" (?:(?:that|which) )?(?:(?:is|are) )?(?:on|at|in|to) the (?:far |very )?"
    rf"(?>{_PLACE}\b(?:[ -]hand)?(?: (?:side|corner|half))?)(?! of (?!the (?:image|picture|photo|frame|scene)))",
    re.IGNORECASE,
)
_SAME_PLACE = {"upper": "top", "lower": "bottom", "center": "middle", "centre": "middle"}


@dataclass(frozen=True)
class Phrase:
    """One object of a caption ("the blue cup").

    Attributes:
        text: the words.
        characters: [start, end) in the caption.
        tokens: [start, end) in CLIP's 77 tokens; the start-of-text token is token 0. Empty for a phrase beyond them.
        colors: the object's colour expressions as written; none for phrases of `comma_phrases`, as for all below.
        color_spans: [start, end) of each in the caption.
        object: the head noun as written ("cup").
        object_span, object_tokens: its characters and tokens, [start, end).
        position: left, right, middle, top, bottom, "top left", ..., if the caption says where the object is.
    """

    text: str
    characters: Span
    tokens: Span
    colors: tuple[str, ...] = ()
    color_spans: tuple[Span, ...] = ()
    object: str = ""
    object_span: Span = (0, 0)
    object_tokens: Span = (0, 0)
    position: str | None = None


def comma_parts(caption: str) -> list[tuple[int, str]]:
    """The non-empty parts between commas, without the spaces around them, each with its place in the caption."""
    return [(match.start(), match.group()) for match in re.finditer(r"[^,\s](?:[^,]*[^,\s])?", caption)]


def comma_phrases(caption: str, tokenizer: CLIPTokenizer) -> list[Phrase]:
    """The parts of a comma-separated caption, as in the release ("the blue cup, the red cup").

    Phrases beyond the 77 tokens CLIP reads have no tokens.
    """
    return span_phrases(caption, [(start, start + len(text)) for start, text in comma_parts(caption)], tokenizer)


def span_phrases(caption: str, spans: list[Span], tokenizer: CLIPTokenizer) -> list[Phrase]:
    """Phrases from their characters [start, end) in the caption; those beyond CLIP's 77 tokens have no tokens.

    Raises:
        ValueError: a span that holds no word.
    """
    offsets, phrases = _offsets(caption, tokenizer), []
    for span in spans:
        text = caption[slice(*span)]
        if not text.strip():
            raise ValueError(f"characters {list(span)} of {caption!r} are no words")
        phrases.append(Phrase(text, span, _tokens(offsets, span) or (0, 0)))
    return phrases


def find_phrases(caption: str, tokenizer: CLIPTokenizer) -> list[Phrase]:
    """The objects of any caption that have a colour or a position ("the left cup"), in the order of the caption.

    An object has one phrase, with all its colours; it goes from the first of them, or the position, to the noun
    ("dark red leather jacket"), or from the noun to its last colour ("dog is brown"). Objects whose noun lies beyond
    the 77 tokens CLIP reads are left out.
    """
    objects: dict[Span, list[Span]] = {}
    for color, noun in color_object_pairs(caption):
        objects.setdefault(noun, []).append(color)
    placed = _placed(caption, objects)
    offsets, phrases = _offsets(caption, tokenizer), []
    for noun in objects | placed:
        colors, before, after = objects.get(noun, []), placed.get(noun), _AFTER.match(caption, noun[1])
        starts, ends = zip(noun, *colors, *([before.span("where")] if before else []), strict=True)
        span = min(starts), max(ends)
        object_tokens, tokens = _tokens(offsets, noun), _tokens(offsets, span)
        if object_tokens and tokens:
            words, name = tuple(caption[slice(*color)] for color in colors), caption[slice(*noun)]
            position = _position(before or after)
            text = caption[slice(*span)]
            phrases.append(Phrase(text, span, tokens, words, tuple(colors), name, noun, object_tokens, position))
    return sorted(phrases, key=lambda phrase: phrase.characters)


def _placed(caption: str, objects: dict[Span, list[Span]]) -> dict[Span, re.Match]:
    """Objects, with and without colours, whose position stands before them."""
    words = read_caption(caption).words
    index = {word.start: k for k, word in enumerate(words)}
    colored = {colors[0][0]: noun for noun, colors in objects.items()}
    placed = {}
    for match in _BEFORE.finditer(caption):
        k = index.get(match.end(), len(words))
        while k < len(words) and words[k].text in ADJECTIVES:
            k += 1
        noun = colored.get(words[k].start) if k < len(words) else None
        if noun is None and (head := head_noun(words, k)) is not None:
            noun = noun_span(words, head, set())
        if noun is not None and caption[slice(*noun)].lower() not in PHOTOS:
            placed[noun] = match
    return placed


def _position(match: re.Match | None) -> str | None:
    if match is None:
        return None
    parts = [part.lower() for part in match.group("row", "place") if part]
    return " ".join(_SAME_PLACE.get(part, part) for part in parts)


def _offsets(caption: str, tokenizer: CLIPTokenizer) -> list[Span]:
    """The characters of each of CLIP's tokens; (0, 0) for those of its own."""
    return tokenizer(caption, truncation=True, max_length=MAX_TOKENS, return_offsets_mapping=True)["offset_mapping"]


def _tokens(offsets: list[Span], span: Span) -> Span | None:
    """The tokens [start, end) that lie within a span of characters, if any do."""
    inside = [i for i, (left, right) in enumerate(offsets) if left < right and left >= span[0] and right <= span[1]]
    return (inside[0], inside[-1] + 1) if inside else None
