"""English plurals: which forms of a word share its column in a bag of words."""

from __future__ import annotations

from collections.abc import Collection, Iterator

# Plurals that no rule makes. People and persons, cattle and cows are different words.
_IRREGULAR = {
    "children": "child", "feet": "foot", "firemen": "fireman", "geese": "goose", "men": "man",
    "mice": "mouse", "oxen": "ox", "policemen": "policeman", "snowmen": "snowman",
    "teeth": "tooth", "women": "woman",
}  # fmt: skip
_IRREGULAR_OF = {singular: plural for plural, singular in _IRREGULAR.items()}
# Words on s that are no plurals of the word without it.
_NO_PLURALS = frozenset(
    {"arms", "customs", "glasses", "goods", "lens", "means", "news", "pants", "series", "species"}
)
_SHORTEST = 3  # letters of a singular; shorter ones ("as", "is") are other words


def singulars(word: str) -> Iterator[str]:
    """What a word may be the plural of, the likeliest first; nothing for most words.

    Whether one of them is meant is not known: "buses" may be of "bus" or "buse".

    Args:
        word: a word in lower case.
    """
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
        return
    if not word.isascii() or not word.endswith("s") or word in _NO_PLURALS:
        return
    found = []
    if word.endswith("ies"):
        found += [word[:-3] + "y", word[:-1]]
    elif word.endswith("ves"):
        found += [word[:-3] + "fe", word[:-3] + "f", word[:-1]]
    elif word.endswith(("ches", "shes", "sses", "xes", "zes", "oes", "ses")):
        found += [word[:-2], word[:-1]]
    elif not word.endswith(("ss", "us", "is", "'s")):
        found += [word[:-1]]
    yield from (one for one in found if len(one) >= _SHORTEST)


def plural(word: str) -> str:
    """The regular plural of a word in lower case, or one of a few irregular ones."""
    if word in _IRREGULAR_OF:
        return _IRREGULAR_OF[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def folded(words: Collection[str]) -> dict[str, str]:
    """The plurals among words whose singular is among them, too: plural -> singular."""
    known, found = set(words), {}
    for word in words:
        match = next((one for one in singulars(word) if one in known), None)
        if match is not None:
            found[word] = match
    return {word: found.get(match, match) for word, match in found.items()}


def unseen(vocabulary: Collection[str], seen: Collection[str]) -> dict[str, str]:
    """Forms of a vocabulary's words that no text had, so that a query may have them.

    Args:
        vocabulary: the words with a column.
        seen: all words of the texts, which mean what they mean there.

    Returns:
        Form -> word, in the order of the vocabulary.
    """
    taken, found = {*vocabulary, *seen}, {}
    for word in vocabulary:
        if not (word.isascii() and word.isalpha() and len(word) >= _SHORTEST):
            continue
        forms = [next(singulars(word), None)]
        if forms[0] is None and word not in _NO_PLURALS:
            forms = [plural(word)]
        for form in forms:
            if form is not None and form not in taken:
                found[form] = word
                taken.add(form)
    return found
