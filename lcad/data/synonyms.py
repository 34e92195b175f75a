"""Words left out of training, and the synonyms that stand for them when it is tested whether they are understood.

Tables are files of lines "<word>: <synonym>", such as configs/words/synonyms.txt; # begins a comment.
"""

import re
from pathlib import Path


def read_synonyms(path: Path) -> dict[str, str]:
    """Word -> synonym, both in lower case; raises ValueError: missing or malformed."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [line.lower().split(":") for line in lines if line and not line.startswith("#")]
        table = {word.strip(): synonym.strip() for word, synonym in rows}
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: not a table of synonyms ({error}); expected lines of '<word>: <synonym>'") from error
    if not all(table) or not all(table.values()):
        raise ValueError(f"{path}: a word or its synonym is empty; expected lines of '<word>: <synonym>'")
    return table


def with_synonyms(caption: str, table: dict[str, str]) -> str:
    """The caption with each word of the table, in one or many, replaced; "a" and "an" before it follow.

    >>> with_synonyms("A red car beside two sofas", {"car": "automobile", "sofa": "couch", "red": "crimson"})
    'A crimson automobile beside two couches'
    """
    if not table:
        return caption
    forms = {form: (word, k) for word in table for k, form in enumerate(_forms(word))}
    listed = "|".join(sorted(map(re.escape, forms), key=len, reverse=True))

    def replaced(match: re.Match) -> str:
        word, k = forms[match["word"].lower()]
        synonym = _forms(table[word])[k]
        if match["word"][0].isupper():
            synonym = synonym[0].upper() + synonym[1:]
        article = match["article"] or ""
        if article:
            article = article[0] + ("n " if synonym[0].lower() in "aeiou" else " ")
        return article + synonym

    return re.sub(rf"\b(?P<article>an? )?(?P<word>{listed})\b", replaced, caption, flags=re.IGNORECASE)


def names_any(caption: str, words: list[str]) -> bool:
    """Whether one of the words stands in the caption, whole, in any case, in one or many."""
    listed = "|".join(re.escape(form) for word in words for form in _forms(word.lower()))
    return bool(words) and re.search(rf"\b(?:{listed})\b", caption, re.IGNORECASE) is not None


def _forms(word: str) -> tuple[str, str]:
    """The word in one and in many: ("lady", "ladies")."""
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word, f"{word[:-1]}ies"
    return word, word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
