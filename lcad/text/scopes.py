"""Stretches of a caption whose colours do not count, found word by word, and words that are read as others.

Each rule is a function of `Text` and gives `Scope`s. An index k is one of its words.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from lcad.text.color_expressions import Word
from lcad.text.lexicon import (
    ADJECTIVES,
    AFFIRMED,
    BARE_NEGATIONS,
    CLAUSE_ENDS,
    DEGREES,
    DETERMINERS,
    ED_ING_NOUNS,
    HEDGES,
    HUES,
    LINKS,
    NEGATIONS,
    NEGATIONS_OF_SEVERAL,
    NO_NOUNS,
    OF_REQUESTS,
    PARTS_ED,
    PHOTOS,
    PICTURED,
    REQUESTS,
    STOPS,
    VERBS,
    WEARS,
    WHOLES_ED,
    WISHES,
)

REACH = 16  # words behind a word that it may speak of
_BEARING = LINKS | WEARS
_NO_THINGS = NO_NOUNS | VERBS | NEGATIONS
_BEFORE_COLORS = DETERMINERS | DEGREES | HEDGES | ADJECTIVES | {"be", "even", "in"}
_NOT_ASKED = STOPS - OF_REQUESTS

DENIED = "says what a thing is not; it is passed over"
OPEN = "leaves open which colour is meant; it is passed over"
PART = "gives the colour of a part that has no word of its own; it is passed over"

_CLOSING = {mark: mark for mark in ",-–—"} | {"(": ")", "[": "]"}


@dataclass(frozen=True)
class Text:
    """The words of a caption and its colour expressions, first word -> end."""

    words: list[Word]
    colors: dict[int, int]

    @cached_property
    def ends(self) -> dict[int, int]:
        """Of each colour expression: end -> first word."""
        return {end: first for first, end in self.colors.items()}

    def colored(self, first: int, end: int) -> bool:
        """Does a colour expression begin at one of the words [first, end)?"""
        return any(k in self.colors for k in range(first, end))

    def __getitem__(self, k: int) -> str:
        """The word k in small letters; "" beyond the caption."""
        return self.words[k].text if 0 <= k < len(self.words) else ""


@dataclass(frozen=True)
class Scope:
    """Words [first, end) whose colours do not count; `note` tells a user why."""

    first: int
    end: int
    note: str = ""


def denied(text: Text) -> Iterator[Scope]:
    """ "no red hat", "neither red nor brown", "instead of a red car"."""
    k = 0
    while k < len(text.words):
        behind = k + _negation(text, k)
        end = behind
        if behind > k and text[behind] not in AFFIRMED and text.colored(behind, behind + REACH):
            end = _reach(text, behind, text[k] in BARE_NEGATIONS)
            if text.colored(behind, end):
                yield Scope(k, end, DENIED)
            else:
                end = behind
        k = max(end, k + 1)


def _negation(text: Text, k: int) -> int:
    """How many words of a negation begin at k."""
    for length in (3, 2):
        if tuple(text[i] for i in range(k, k + length)) in NEGATIONS_OF_SEVERAL:
            return length
    return int(text[k] in NEGATIONS)


def _reach(text: Text, start: int, bare: bool = False) -> int:
    """Where the phrase ends that begins at `start`: behind its noun, or behind the last of several joined by "or".

    Args:
        bare: the noun may have its colour behind it, "no man in red".
    """
    k, full, colored = start, False, False
    while k < min(len(text.words), start + REACH):
        word, after = text[k], k + 1 in text.colors
        if k in text.colors:
            k, full, colored = text.colors[k], True, True
            continue
        if word in CLAUSE_ENDS or word == "," and not _lists(text, k):
            break
        if word == "and" and not (k in text.ends and after):
            break
        if word in ("or", "nor"):
            full = False
        elif word in STOPS and full and not (bare and not colored and after and word in _BEARING):
            break
        full = full or word.isalpha() and word not in _NO_THINGS and not word.endswith("ing")
        k += 1
    return k


def _lists(text: Text, k: int) -> bool:
    """Is the comma k one between colours, of which "or", "nor" or "and" joins the last: "red, green or blue"?"""
    if k not in text.ends:
        return False
    while text[k] == "," and k + 1 in text.colors:
        k = text.colors[k + 1]
    return text[k + (text[k] == ",")] in ("or", "nor", "and")


def asides(text: Text, scopes: Iterable[Scope]) -> set[int]:
    """The words to leave out, so that what stands around a denied colour belongs together again.

    "a red (not orange) car" and "a red, not orange car" are a red car, "not white but green" is green.
    """
    gone: set[int] = set()
    for scope in scopes:
        first, end = scope.first, scope.end
        joint = text[first - 1] if text[first - 1] in {"and", "but", *_CLOSING} else ""
        before = first - len(joint[:1])
        color = _skip(text, first + _negation(text, first))
        if before in text.ends and color in text.colors and text[first] not in BARE_NEGATIONS | {"without"}:
            if text[text.ends[before] - 1] not in _BEARING:  # both are colours of the noun behind
                while color in text.colors:
                    end = text.colors[color]
                    color = end + (text[end] in ("or", "nor", ","))
            first, end = before, end + (text[end] == _CLOSING.get(joint))
        elif text[end] == "but" or text[first - 1] + text[end] in ("()", "[]"):
            first, end = first - (text[end] != "but"), end + 1
        else:
            continue
        gone.update(k for k in range(first, end) if text[k] not in _BEARING)
    return gone


def undecided(text: Text) -> Iterator[Scope]:
    """ "red or blue", "a red car or a blue one", "maybe red"."""
    for k in range(len(text.words)):
        if text[k] == "or":
            right = _skip(text, k + 1)
            if right in text.colors:
                yield Scope(_first_choice(text, k), text.colors[right], OPEN)
        elif text[k] in HEDGES and (right := _skip(text, k + 1)) in text.colors:
            yield Scope(k, text.colors[right], OPEN)


def _skip(text: Text, k: int) -> int:
    """Behind determiners, hedges and adjectives that stand before a colour."""
    end = k + 5
    while k < end and k not in text.colors and text[k] in _BEFORE_COLORS:
        k += 1
    return k


def _first_choice(text: Text, k: int) -> int:
    """The first colour of the choices before the "or" k, or k if they have none."""
    end = k - (text[k - 1] in (",", "/", "and"))
    end -= text[end - 1] == "and"  # "and/or"
    for _ in range(8):  # back over the noun
        if end in text.ends or text[end - 1] in STOPS or not text[end - 1].isalnum():
            break
        end -= 1
    if end not in text.ends:
        return k
    while text[text.ends[end] - 1] == "," and text.ends[end] - 1 in text.ends:
        end = text.ends[end] - 1
    return text.ends[end]


def compared(text: Text) -> Iterator[Scope]:
    """What a thing is only compared with: "as red as a red rose", "like a green apple", "the colour of red wine"."""
    for k in range(len(text.words)):
        alike = text[k] == "like" and text[k - 1] not in WISHES or text[k] == "as" and k in text.ends
        alike = alike or text[k] == "than" or text[k] == "of" and text[k - 1] in HUES
        if alike and text.colored(k + 1, k + 1 + REACH):
            yield Scope(k, _reach(text, k + 1))


def pictured(text: Text) -> Iterator[Scope]:
    """ "in black and white", said of a photo."""
    photo = False
    for k in range(len(text.words)):
        photo = photo or text[k] in PHOTOS
        monochrome = text[k + 1] == "black" and text[k + 2] in ("and", "&", "/") and text[k + 3] == "white"
        if text[k] == "in" and monochrome and (photo or text[k - 1] in PICTURED):
            yield Scope(k, k + 4)


def of_parts(text: Text) -> Iterator[Scope]:
    """ "blue-eyed", but not "red-haired"."""
    for first, end in text.colors.items():
        word = text[end]
        glued = word.endswith("ed") and text.words[end].glued and word not in WHOLES_ED | ED_ING_NOUNS
        if glued or word in PARTS_ED:
            yield Scope(first, end + 1, PART)


def likened(text: Text) -> dict[int, Word]:
    """ "lips as red as blood" is read as "lips be red as blood"."""
    firsts = [k for k in range(len(text.words)) if text[k] == "as" and text[text.colors.get(k + 1, -1)] == "as"]
    return {k: replace(text.words[k], text="be") for k in firsts}


def requests(text: Text) -> tuple[list[Scope], dict[int, Word | None]]:
    """ "turn the red car to a dark blue" is read as "turn the car be dark blue".

    Returns:
        The colours that are to go, and the words that are read as another, or left out (None).
    """
    going: list[Scope] = []
    read: dict[int, Word | None] = {}
    for k in range(len(text.words)):
        if text[k] not in REQUESTS or text[k - 1] in DETERMINERS or k in text.ends:
            continue
        joints = ("to", "into", "with") if text[k] in ("replace", "swap") else ("to", "into")
        end = _request_end(text, k + 1, joints)
        asked = text.ends.get(end, end)  # "red", at the end of it
        joint = max((at for at in range(k + 1, end) if text[at] in joints), default=k)
        if asked == end and joint == k:
            continue
        kept = joint if asked == end else asked
        going += [Scope(first, first + 1) for first in range(k + 1, kept) if first in text.colors]
        link = asked
        while asked < end and text[link - 1] in ("to", "into", "a", "an"):
            link -= 1
        if link < asked:
            read |= dict.fromkeys(range(link, asked)) | {link: replace(text.words[link], text="be")}
        start = next((at for at in range(k + 1, link) if text[at] == "from"), link)
        read |= dict.fromkeys(range(start, link if asked < end else start))
    return going, read


def _request_end(text: Text, k: int, joints: tuple[str, ...]) -> int:
    """Where the request ends whose verb stands before k; behind one of the `joints` there is a colour."""
    end = min(len(text.words), k + REACH)
    while k < end and (k in text.colors or text[k].isalnum() and text[k] not in _NOT_ASKED):
        if text[k] in ("to", "into", "with") and not (text[k] in joints and _skip(text, k + 1) in text.colors):
            break
        k = text.colors.get(k, k + 1)
    return k
