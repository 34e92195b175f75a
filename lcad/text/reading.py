"""What a caption says for certain: its words, its colours, those that do not count, and what was not understood."""

import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import lru_cache

from lcad.text.color_expressions import NAMES, SHADES, Word, expression_end, split_words
from lcad.text.lexicon import (
    ADJECTIVES,
    COUNTS,
    DETERMINERS,
    ENGLISH,
    FOREIGN,
    FOREIGN_OR_NAMES,
    NEGATIONS,
    NOT_COLORS,
    NOUNS_TOO,
    RUN_TOGETHER,
    STOPS,
    TITLES,
    VERBS,
    is_being,
    is_verb,
)
from lcad.text.scopes import Text, asides, compared, denied, likened, of_parts, pictured, requests, undecided

Span = tuple[int, int]

FOREIGN_WORDS = "is not English; no colours or objects are read from it"
WEIGHTS = "weights of words have no effect here; the words are read without them"

_WEIGHT = re.compile(  # "red:1.3)", "red::2", "red++", "blue--", "(red)1.2"
    r"(?<=[^\W\d_]):{1,2}\s?-?\d+(?:\.\d+)?|(?<=[^\W_])\++(?!\w)|(?<=[)\]}])[+-]+|(?<=[^\W_])-+(?![\w-])"
    r"|(?<=\))\d+(?:\.\d+)?"
)
_DOUBLED = re.compile(r"\({2,}|\[{2,}|\{{2,}")
_THE = DETERMINERS - {"a", "an"}
_BRACKETS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Reading:
    """A caption as it is understood.

    Attributes:
        words: without weights and asides, so that "a red (not orange) car" is "a red car".
        colors: the colour expressions [first, end) of the words; names ("the Black Keys") are none.
        muted: the characters at which those begin that do not count.
        notes: one line for each thing that was not understood.
    """

    words: list[Word]
    colors: list[Span]
    muted: frozenset[int]
    notes: list[str]


def not_understood(caption: str) -> list[str]:
    """One line in plain words for each part of a caption that asks for nothing, or only without its weight.

    >>> not_understood("a car that is not red")
    ["'not red': says what a thing is not; it is passed over"]
    """
    return list(read_caption(caption).notes)


@lru_cache(maxsize=32)  # phrases, places and notes of a caption are all found in it
def read_caption(caption: str) -> Reading:
    """Words, colours and notes of a caption; spans of words are characters [start, end) of it."""
    weights = list(_WEIGHT.finditer(caption))
    bare = _WEIGHT.sub(lambda match: " " * len(match.group()), caption.replace("*", " "))
    words = _plain(split_words(bare))
    if _is_foreign(words):
        return Reading([], [], frozenset(), [f"{_short(caption)!r}: {FOREIGN_WORDS}"])
    words = _without_brackets(words, [match.start() for match in weights], color_expressions(words, caption))
    text = Text(words, dict(color_expressions(words, caption)))
    negative = list(denied(text))
    going, read = requests(text)
    scopes = negative + [s for rule in (undecided, compared, pictured, of_parts) for s in rule(text)] + going
    muted = {words[k].start for scope in scopes for k in range(scope.first, scope.end) if k in text.colors}
    lines, told = [], 0
    for scope in sorted((s for s in scopes if s.note), key=lambda s: (s.first, -s.end)):
        if scope.end > told:
            start, told = max(scope.first, told), scope.end
            lines.append(f"{_short(caption[words[start].start : words[told - 1].end])!r}: {scope.note}")
    read |= likened(text) | dict.fromkeys(asides(text, negative))
    words = [new for k, word in enumerate(words) if (new := read.get(k, word)) is not None]
    if marks := [match.group() for match in weights] + _DOUBLED.findall(caption):
        lines.append(f"{_short(' '.join(dict.fromkeys(marks)))!r}: {WEIGHTS}")
    return Reading(words, color_expressions(words, caption), frozenset(muted), list(dict.fromkeys(lines)))


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def color_expressions(words: list[Word], caption: str) -> list[Span]:
    """The colour expressions of the words of a caption, [first, end) of them; those in names are left out."""
    names = {place for match in NOT_COLORS.finditer(caption) for place in range(*match.span())}
    content = [caption[word.start] for word in words if len(word.text) > 2 and word.text not in STOPS]
    titled = len(content) > 2 and all(letter.isupper() for letter in content if letter.isalpha())
    found, k = [], 0
    while k < len(words):
        end = expression_end(words, k)
        bare = end == len(words) or words[end].text in STOPS or not words[end].text[0].isalnum()
        if bare and end == k + 2 and words[k].text in SHADES - NAMES and k > 0 and words[k - 1].text in _THE:
            k += 1  # "make the sky blue"
        if end > k and not (words[k].start in names or _is_name(words, k, caption, titled)):
            found.append((k, end))
        k = max(end, k + 1)
    return found


def _is_name(words: list[Word], k: int, caption: str, titled: bool) -> bool:
    """Is a colour word part of a name: "the Black Keys", "Mr. Brown", "James Brown sings"?

    Args:
        titled: the caption writes all words with capitals.
    """

    def capital(at: int) -> bool:
        written = caption[words[at].start : words[at].end]
        return len(written) > 1 and written.istitle()

    if k == 0 or not capital(k) or titled and words[k - 1].text not in TITLES:
        return False
    before, after = words[k - 1].text, words[k + 1].text if k + 1 < len(words) else "."
    if before in TITLES or k + 1 < len(words) and capital(k + 1) and not is_being(after):
        return True
    alone = after in STOPS or not after[0].isalpha() and after[0] != "'" or is_verb(after) or after in VERBS - NOUNS_TOO
    return alone and capital(k - 1) and before not in STOPS | ADJECTIVES | COUNTS and before.isalpha()


def _plain(words: list[Word]) -> list[Word]:
    """ "isn't" as "is not"; the dots of "Mr." and "1.5" and the "no. 7" of numbers are left out."""
    texts = ["", *(word.text for word in words), "", ""]
    plain: list[Word] = []
    number = False  # "no" has been passed that stands for a number
    for k, word in enumerate(words, 1):
        decimal = texts[k - 1].isdigit() and texts[k + 1].isdigit()
        dot = word.text == "." and (number or decimal or texts[k - 1] in TITLES)
        number = word.text == "no" and (texts[k + 1].isdigit() or texts[k + 1] == "." and texts[k + 2].isdigit())
        if word.text in RUN_TOGETHER or word.text.endswith(("n't", "n’t")):
            verb = RUN_TOGETHER.get(word.text, word.text[:-3])
            own = [replace(word, text=verb)] if verb else []  # in "do n't" the verb is a word of its own
            plain += [*own, replace(word, text="not", glued=False)]
        elif not (dot or number):
            plain.append(word)
    return plain


def _is_foreign(words: list[Word]) -> bool:
    """Has the caption more words of other languages, or scripts, than of English?"""
    texts = [word.text for word in words]
    foreign = {text for text in texts if text in FOREIGN or text[0].isalpha() and text[0] > "\u024f"}
    english = sum(text in ENGLISH for text in texts)
    if foreign <= FOREIGN_OR_NAMES and len(foreign) < 2 and (english or texts[:1] != list(foreign)):
        return False
    return sum(text in foreign for text in texts) > english


def _without_brackets(words: list[Word], weights: list[int], colors: list[Span]) -> list[Word]:
    """The words without brackets that only stress what is inside: "((red)) coat".

    They stay around a remark that breaks the phrase: "a red bus (London)", "a red (not orange) car".

    Args:
        weights: the characters at which weights begin.
    """
    firsts, ends = [first for first, _ in colors], {end for _, end in colors}
    opened: list[int] = []
    remarks: set[int] = set()
    for k, word in enumerate(words):
        if word.text in _BRACKETS.values():
            opened.append(k)
        elif opened and words[opened[-1]].text == _BRACKETS.get(word.text):
            first = opened.pop()
            colored = bisect_left(firsts, first) < bisect_left(firsts, k)
            weighed = bisect_left(weights, words[k - 1].end) < bisect_left(weights, word.end + 1)
            inside = first in ends or first > 0 and words[first - 1].text in DETERMINERS | ADJECTIVES
            if words[first + 1].text in NEGATIONS | {"instead", "rather"} or not (colored or weighed or inside):
                remarks |= {first, k}
    brackets = {*_BRACKETS, *_BRACKETS.values()}
    return [word for k, word in enumerate(words) if k in remarks or word.text not in brackets]
