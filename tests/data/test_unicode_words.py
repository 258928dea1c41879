"""Words of any script: the operations against a naive reading by `unicodedata`, kind by kind."""

from __future__ import annotations

import html.entities
import re
import unicodedata
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsprh_tf.data import unicode_table, unicode_words
from dsprh_tf.data.text import split_words

UNICODE = "14.0.0"  # of the table
FILE = Path(unicode_table.__file__).with_name("unicode_14.txt")

# A naive reading, one character at a time, that shares nothing with the package but the elements
# of HTML.
APOSTROPHES = "'`\u2018\u2019\u201b\u2032\u02bb\u02bc\u00b4"
PAIRED = (
    "CJK", "IDEOGRAPHIC ITERATION", "IDEOGRAPHIC CLOSING", "IDEOGRAPHIC NUMBER", "KANGXI",
    "OLD CHINESE", "HANGZHOU", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HENTAIGANA", "MASU",
    "VERTICAL KANA", "VERTICAL IDEOGRAPHIC", "BOPOMOFO", "YI ", "TANGUT", "NUSHU", "KHITAN", "THAI",
    "LAO", "KHMER", "MYANMAR", "TAI THAM", "TAI LE", "NEW TAI LUE", "TAI VIET", "AHOM",
)  # fmt: skip


def invisible(c):
    """Default_Ignorable_Code_Point but for U+200B; skin tones; the keycap."""
    p = ord(c)
    return (
        unicodedata.category(c) == "Cf"
        and c != "\u200b"
        and not (0x600 <= p <= 0x605 or p in (0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD))
        and not 0xFFF9 <= p <= 0xFFFB
        and not 0x13430 <= p <= 0x13438
        or c in "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u3164\uffa0\u20e3"
        or c == "\u2065"
        or 0xFFF0 <= p <= 0xFFF8
        or 0xFE00 <= p <= 0xFE0F
        or 0xE0000 <= p <= 0xE0FFF
        or 0x1F3FB <= p <= 0x1F3FF
    )


def character(reference):
    """The character of an HTML reference, or the reference if there is none."""
    name = reference[1]
    if name[0] != "#":
        return html.entities.html5.get(f"{name};", reference[0])
    number = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    if 128 <= number < 160:
        return bytes([number]).decode("cp1252", "replace")
    wrong = number == 0 or number > 0x10FFFF or 0xD800 <= number < 0xE000
    return "\ufffd" if wrong else chr(number)


def plain(text):
    for _ in range(2):
        text = re.sub(
            r"&(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});", character, text
        )
    text = re.sub(r"[A-Z]", lambda found: found[0].lower(), text)
    names = "|".join(unicode_words._ELEMENTS.split())
    tag = rf"<(!doctype|\?xml|/?({names}))([ \t\n\f\r/][^<>]*)?>"
    return re.sub(rf"<!--(.|\n)*?-->|{tag}", " ", text)


def folded(text):
    """NFKD, case folding, no invisible characters; apostrophes are one, TM and SM spaces."""
    text = unicodedata.normalize("NFD", "".join(c for c in text if not invisible(c)))
    before = None
    while text != before:
        before = text
        for c in APOSTROPHES[2:]:
            text = text.replace(c, "'")
        text = text.replace("\u2122", " ").replace("\u2120", " ")
        text = unicodedata.normalize("NFKD", text).casefold()
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not invisible(c))
    return text


def kind(c):
    """One letter: word, apostrophe, mark, pairs, emoji, flag, and a space for the rest."""
    p, category = ord(c), unicodedata.category(c)
    if 0x1F1E6 <= p <= 0x1F1FF:
        return "f"
    in_blocks = (0x2300, 0x23FF), (0x2600, 0x27BF), (0x2B00, 0x2BFF), (0x1F000, 0x1FAFF)
    if category in ("So", "Cn") and any(low <= p <= high for low, high in in_blocks):
        return "e"
    if c in "'`":
        return "'"
    if category[0] == "M":
        return "m"
    if category[0] in "LN" or category == "Cn" and not is_never(c):
        tangut = 0x17000 <= p <= 0x18D08  # without names in unicodedata
        paired = unicodedata.name(c, "").startswith(PAIRED) or tangut and category[0] == "L"
        paired |= 0x20000 <= p <= 0x3FFFD
        return "p" if paired and category != "Nd" else "w"
    return " "


def read_words(text):
    """The words of a text, composed."""
    units = []  # characters with their marks
    for c in " " + folded(plain(text)):
        if kind(c) == "m":
            units[-1] += c
        else:
            units.append(c)
    kinds = "".join(kind(unit[0]) for unit in units)
    words = []
    for run in re.finditer(r"w+('w+)*|p+|e|ff?", kinds):
        part = units[run.start() : run.end()]
        if run[0][0] == "p" and len(part) > 1:
            words += ["".join(pair) for pair in zip(part, part[1:])]
            continue
        if run[0][0] == "w":
            part = ["'" + u[1:] if u[0] == "`" else u for u in part]
            end = ["'" if u[0] == "'" else u for u in part[-4:]]
            if end[-2:] == ["'", "s"] and end[:-2] != ["'", "s"]:
                part = part[:-2]
        words.append("".join(part))
    return [unicodedata.normalize("NFC", word) for word in words]


def is_never(c):
    return ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF


def is_space(c):
    return unicodedata.category(c)[0] == "Z" or c in "\t\n\v\f\r\x85\u200b" or is_never(c)


def read_tags(text):
    tags = "".join(" " if is_space(c) else c for c in folded(text)).split(" ")
    return [unicodedata.normalize("NFC", tag) for tag in tags if tag]


READ = {"words": read_words, "tags": read_tags}


# Every character


def points_of(letter):
    """The ranges of the table's file that begin with a letter."""
    lines = (line.split() for line in FILE.read_text().splitlines())
    return [(int(x[1], 16), int(x[2], 16)) for x in lines if x[0] == letter]


UNASSIGNED = {p for first, last in points_of("U") for p in range(first, last + 1)}


def is_known(c):
    """Whether a character is in the table's Unicode and in Python's, or in neither."""
    return (unicodedata.category(c) == "Cn") == (ord(c) in UNASSIGNED) or kind(c) == "e"


@pytest.fixture(scope="module")
def characters():
    """All that are assigned, and some of the others."""
    assigned = (unicodedata.category(chr(p)) not in ("Cn", "Co", "Cs") for p in range(0x110000))
    every = (chr(p) for p, is_one in enumerate(assigned) if is_one or p % 97 == 0)
    every = (c for c in every if unicodedata.category(c) != "Cs")
    return [c for c in every if unicodedata.unidata_version == UNICODE or is_known(c)]


def test_the_file_is_what_unicodedata_says():
    if unicodedata.unidata_version != UNICODE:
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}")
    assert "\n".join(unicode_table.write_lines()) + "\n" == FILE.read_text("ascii")


@pytest.mark.parametrize("rule", READ)
def test_every_character(characters, rule):
    """Alone, between letters, and before a mark."""
    for at in range(0, len(characters), 50_000):
        some = characters[at : at + 50_000]
        texts = [f"{c} a{c}b {c}\u0323s" for c in some]
        for text, words in zip(texts, split_words(texts, rule)):
            assert words == READ[rule](text), ascii(text)


def test_what_characters_fold_to_stays_as_it_is():
    folded = {chr(p) for p in unicode_table.load().folded.tolist()} - {"\u0345"}
    texts = [f"a{c}b" for c in sorted(folded)]
    assert split_words(texts, "tags") == [
        [unicodedata.normalize("NFC", part) for part in text.split()] for text in texts
    ]


# Every string, in Python and in a SavedModel

PIECES = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(max_codepoint=0x7F), max_size=12),
    st.text(APOSTROPHES + "sSt\u0301\u017f. \uff07", max_size=9),
    st.text("aA\u0301\u0316\u0345\u0323\u0327\u034f\u200d \u1fb3\u037a\u0344\u00b4", max_size=9),
    st.text("犬が走る東京カ\u3099タｶﾞー々、。0a 〇\U00020000", max_size=9),
    st.text("สุนัขที่น้ำ ๆ๑ဃကြោ", max_size=9),
    st.text("강아지ㄱᄀ\u1161\u11a8가", max_size=9),
    st.text("👩\u200d👧🏽❤\ufe0f🇩🇪🇫#1\u20e3™✓a ", max_size=9),
    st.text("&#;xX0189afFD<>/!-? pbr", max_size=16),
    st.sampled_from(
        ["<br>", "<p class=x>", "</b>", "<B/>", "<dog>", "<!-- <b> -->", "<!DOCTYPE html>", "<br",
         "&amp;", "&amp;amp;", "&nbsp;", "&quot;", "&Auml;", "&NotEqualTilde;", "&#8217;", "&#x27;",
         "&#146;", "&#xD800;", "&#1114112;", "&amp;lt;br&amp;gt;", "&amp", "&unknown;", "'s", "’S"]
    ),
)  # fmt: skip
TEXTS = st.lists(st.lists(PIECES, max_size=6).map("".join), max_size=20)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a SavedModel with both rules."""
    folder = tmp_path_factory.mktemp("rules")
    module = tf.Module()
    module.words, module.tags = unicode_words.spaced_words, unicode_words.spaced_tags
    tf.saved_model.save(module, str(folder))
    return folder


@pytest.fixture(scope="module")
def loaded(saved):
    return tf.saved_model.load(str(saved))


def read_alike(loaded, rule, texts):
    """The same words here, in the SavedModel, and in the naive reading."""
    if unicodedata.unidata_version != UNICODE:
        texts = ["".join(c for c in text if is_known(c)) for text in texts]
    expected = [READ[rule](text) for text in texts]
    assert split_words(texts, rule) == expected
    spaced = getattr(loaded, rule)(tf.constant(texts, tf.string)).numpy()
    rows = (unicodedata.normalize("NFC", row.decode()) for row in spaced)
    assert [[word for word in row.split(" ") if word] for row in rows] == expected
    for form in ("NFC", "NFD"):
        assert split_words([unicodedata.normalize(form, text) for text in texts], rule) == expected
    words = [word for row in expected for word in row]  # each is a text of this word
    assert split_words(words, rule) == [[word] for word in words]


OPTIONS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.mark.parametrize("rule", READ)
@settings(max_examples=15, **OPTIONS)
@given(texts=TEXTS)
def test_some_strings(loaded, rule, texts):
    read_alike(loaded, rule, texts)


@pytest.mark.parametrize("rule", READ)
@settings(max_examples=250, **OPTIONS)
@given(texts=TEXTS)
def test_every_string(loaded, rule, texts):
    read_alike(loaded, rule, texts)


@settings(max_examples=200, **OPTIONS)
@given(st.lists(st.one_of(st.binary(max_size=3), PIECES.map(str.encode)), max_size=6).map(b"".join))
def test_bytes_that_are_no_text_split_words(content):
    (spaced,) = unicode_words.spaced_words(tf.constant([content])).numpy()
    words = unicodedata.normalize("NFC", spaced.decode()).split(" ")
    assert [word for word in words if word] == read_words(content.decode("utf-8", "replace"))
