"""Which object of a caption has which colour, by rules over tables of words.

From each group of colour expressions ("red and yellow") the search goes forward to the noun that closes the noun
phrase ("tulips"). Where none follows ("the dog is brown", "a man in red", "two dogs , one black"), it goes back to the
noun the colour is said of. An index k is one of the words of a `Reading`; spans are characters [start, end).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lcad.text.color_expressions import Word, basic_color, expression_end
from lcad.text.lexicon import (
    ADJECTIVES,
    ARTICLES,
    CLAUSES,
    CLOTHED,
    COUNTS,
    DEGREES,
    DETERMINERS,
    ED_ING_NOUNS,
    GEAR,
    HUES,
    LINKS,
    LY_NOUNS,
    MOTION,
    NEGATIONS,
    NO_NOUNS,
    NOUNS_TOO,
    PHOTOS,
    PLURALS,
    SINGULARS,
    STOPS,
    VERBS,
    WEARS,
    WORN,
    is_being,
    is_verb,
)
from lcad.text.reading import Reading, Span, read_caption

REACH = 30  # words that are looked at on each side of a colour


@dataclass(frozen=True)
class Group:
    """Colour expressions of one object: ("red", "yellow") in "red and yellow tulips".

    Attributes:
        spans: of the expressions.
        first, end: words [first, end).
    """

    spans: list[Span]
    first: int
    end: int


def color_object_pairs(caption: str) -> list[tuple[Span, Span]]:
    """The (colour expression, object) pairs of a caption in the order of the colours; an object is one head noun.

    >>> caption = "a woman in a dark red jacket"
    >>> [(caption[slice(*color)], caption[slice(*noun)]) for color, noun in color_object_pairs(caption)]
    [('dark red', 'jacket')]
    """
    reading = read_caption(caption)
    words, groups = reading.words, _groups(reading)
    colored = {k for group in groups for k in range(group.first, group.end)}
    found: list[tuple[Span, Span]] = []
    following = None  # the next group, if its noun stands after it
    for group in reversed(groups):
        before = _carrier(words, group.first)
        carrier = words[before].text if before >= 0 else ""
        said = carrier in LINKS or carrier in WEARS
        noun = head_noun(words, group.end, said or carrier in ("one", "other", "others"))
        if following is not None and not said and _joined(words[group.end : following[0].first]):
            noun = following[1]
        following = (group, noun) if noun is not None else None
        if noun is None and before >= 0:
            noun = _behind(words, before, colored)
        if noun is not None and words[noun].text not in PHOTOS:
            found += [(span, noun_span(words, noun, colored)) for span in reversed(group.spans)]
    return found[::-1]


def _groups(reading: Reading) -> list[Group]:
    groups: list[Group] = []
    joints = {",", "and", "or", "&", "/"}
    for first, end in reading.colors:
        start = reading.words[first].start
        spans = [] if start in reading.muted else [(start, reading.words[end - 1].end)]
        between = [word.text for word in reading.words[groups[-1].end : first]] if groups else [""]
        if len(between) <= 3 and joints.issuperset(between):
            groups[-1] = Group(groups[-1].spans + spans, groups[-1].first, end)
        else:
            groups.append(Group(spans, first, end))
    return groups


def _joined(between: list[Word]) -> bool:
    """Do the words between two groups give both the same noun: "a black *and a large* white dog"?"""
    texts = [word.text for word in between]
    allowed = DETERMINERS | COUNTS | DEGREES | ADJECTIVES | {"and", "or", ",", "&"}
    return 0 < len(texts) < 6 and all(text in allowed or _is_participle(text) for text in texts)


def _carrier(words: list[Word], k: int) -> int:
    """The word before a group that says how the colour is meant: "dressed *in* all white"; -1 if there is none."""
    k -= 1
    while k >= 0 and words[k].text in DEGREES:
        k -= 1
    return k


def head_noun(words: list[Word], start: int, bare: bool = False) -> int | None:
    """The last noun of the noun phrase whose colour words end before words[start].

    Args:
        bare: the colour may be said of a noun before ("in red"), so that a verb may follow.
    """
    head, noun = None, False
    for k in range(start, min(len(words), start + REACH)):
        if not words[k].glued:
            if expression_end(words, k) > k:
                break
            if not noun and not bare and _links_adjective(words, k):
                continue
            if _closes(words, k, head if noun else None, bare and head is None):
                break
        if not _is_adjective(words, k):
            head, noun = k, True
            if _is_plural(words[k].text) and not (k + 1 < len(words) and words[k + 1].glued):
                break
        elif not noun:
            head = k
    return head


def _links_adjective(words: list[Word], k: int) -> bool:
    """ "a red *,* floppy hat", "a black *and* furry dog"."""
    after = words[k + 1].text if k + 1 < len(words) else "."
    if words[k].text == ",":
        return not (after in STOPS | VERBS or after.endswith("ing") or _is_plural(after)) and after[0].isalpha()
    return words[k].text == "and" and (_is_adjective(words, k + 1) or after.endswith("y"))


def _closes(words: list[Word], k: int, head: int | None, bare: bool) -> bool:
    """Does words[k] end a noun phrase whose last noun so far is `head`?"""
    text, after = words[k].text, words[k + 1].text if k + 1 < len(words) else "."
    last = after in STOPS or not after[0].isalpha()
    open_ = head is None and not bare  # a colour alone cannot be all: the noun is still to come
    if text == "one" and head is None:
        return bare
    if text in STOPS or not text[0].isalnum() or text.endswith("ing") and len(text) > 5 and after in ARTICLES:
        return True
    if _is_participle(text):
        return last and not open_ if text.endswith("ed") else (last if open_ else after not in GEAR)
    if open_:
        return is_verb(text) and after in ARTICLES | {"to"}
    being = head is None or is_being(words[head].text) or WORN.search(words[head].text) and text not in GEAR
    if text.endswith("ly") and text not in LY_NOUNS:
        return True
    if (
        text.endswith("s")
        and not text.endswith(("ss", "us"))
        and (after in ARTICLES | MOTION or being and head is not None)
    ):
        return True
    if text in VERBS or text in NOUNS_TOO:
        return after in MOTION or being and last or text not in NOUNS_TOO and (being or last)
    return is_verb(text)


def _behind(words: list[Word], before: int, colored: set[int]) -> int | None:
    """The noun before words[before] that a colour without a noun is said of, if that word says so."""
    carrier, previous = words[before].text, words[before - 1].text if before else ""
    dressed = previous in CLOTHED or not (previous == "lit" or _is_participle(previous))
    earliest = max(0, before - REACH)
    first = next((k + 1 for k in range(before - 1, earliest - 1, -1) if words[k].text in (".", "?", "!")), earliest)
    nouns = [k for k in range(first, before + 1) if k not in colored and _is_noun(words, k)]
    if carrier in ("is", "are", "was", "were"):  # the first noun of the clause
        start = next((k for k in range(before - 1, first - 1, -1) if words[k].text in CLAUSES), first - 1)
        inside = [k for k in nouns if k > start]
        if inside:
            return next(k for k in inside if k + 1 not in inside)
    elif carrier in WEARS and dressed:
        nouns = [k for k in nouns if is_being(words[k].text)] or nouns
    elif carrier in ("the", "a") and previous == "in":  # "the man in the red"
        nouns = [k for k in nouns if k == before - 2 and is_being(words[k].text)]
    elif carrier in COUNTS:
        nouns = [k for k in nouns if _is_plural(words[k].text)] or nouns
    elif carrier == ",":
        nouns = [k for k in nouns if k == before - 1]
    elif before in nouns or previous in DETERMINERS and carrier.isalpha():  # "hair blue", "the leaves orange"
        return before
    elif not (carrier in LINKS or carrier in WEARS):
        return None
    return nouns[-1] if nouns else None


def _is_noun(words: list[Word], k: int) -> bool:
    text = words[k].text
    after = words[k + 1].text if k + 1 < len(words) else "."
    verb = is_verb(text) or text in VERBS and text not in NOUNS_TOO or _is_participle(text) and after not in GEAR
    adverb = text.endswith("ly") and text not in LY_NOUNS
    return text[0].isalpha() and len(text) > 1 and not (verb or adverb or text in NO_NOUNS | NEGATIONS)


def _is_adjective(words: list[Word], k: int) -> bool:
    text = words[k].text if k < len(words) else ""
    return text in ADJECTIVES | HUES or text.isdigit() or text.endswith("ed") and _is_participle(text)


def _is_participle(text: str) -> bool:
    """ "parked" or "running", not "bed" or "building"."""
    return len(text) > 3 and text.endswith(("ed", "ing")) and text not in ED_ING_NOUNS


def _is_plural(text: str) -> bool:
    return text in PLURALS or text.endswith("s") and not text.endswith(("ss", "us", "is")) and text not in SINGULARS


def noun_span(words: list[Word], noun: int, colored: set[int]) -> Span:
    """The characters of words[noun] with what is joined to it by hyphens: "t-shirt".

    Args:
        colored: the words that belong to colour expressions.
    """
    first = noun
    while words[first].glued and first - 1 not in colored and noun - first < REACH:
        first -= 1
    return words[first].start, words[noun].end


def asked_color(text: str) -> str | None:
    """The basic word of the one colour that `text` asks for, None if it names none or several.

    >>> asked_color("the navy blue cup"), asked_color("a red and white bus")
    ('blue', None)
    """
    return one_color(text[slice(*color)] for color, _ in color_object_pairs(text))


def one_color(expressions: Iterable[str]) -> str | None:
    """The basic word of colour expressions, None if they are none or of several colours."""
    colors = {basic_color(text) or basic_color(f"{text} colored") for text in expressions}
    return colors.pop() if len(colors) == 1 else None
