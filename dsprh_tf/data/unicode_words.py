"""The words of texts in any script, as TensorFlow operations.

The same operations run in Python and in exported graphs, where they need neither this package nor
tensorflow-text. What they do is fixed: a vocabulary names its rule (`BagOfWords.standardize`), and
another rule gets another name.
"""

from __future__ import annotations

import functools
import html.entities

import numpy as np
import tensorflow as tf

from dsprh_tf.data import unicode_table
from dsprh_tf.data.unicode_table import APOSTROPHE, EMOJI, FLAG, LETTER, MARK, PAIRED, SPACE

_TEXTS = [tf.TensorSpec([None], tf.string)]
_SPACE, _QUOTE, _S = 0x20, 0x27, 0x73
_YPOGEGRAMMENI, _IOTA = 0x345, 0x3B9
_INVALID = 0xFFFD  # where bytes are not UTF-8, and what an entity without a character becomes

# The elements of HTML, also of its past. Other names in angle brackets may be words: tags are
# written "<dog><beach>" too.
_ELEMENTS = """
a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink
blockquote body br button canvas caption center cite code col colgroup data datalist dd del details
dfn dialog dir div dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2
h3 h4 h5 h6 head header hgroup hr html i iframe image img input ins isindex kbd keygen label legend
li link listing main map mark marquee math menu menuitem meta meter nav nobr noembed noframes
noscript object ol optgroup option output p param picture plaintext pre progress q rb rp rt rtc ruby
s samp script search section select slot small source spacer span strike strong style sub summary
sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul var video wbr
xmp
"""
_MARKUP = (
    rf"<!--(?s:.*?)-->|<(?:!doctype|\?xml|/?(?:{'|'.join(_ELEMENTS.split())}))(?:[\s/][^<>]*)?>"
)
_REFERENCE = "(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31})"
_MARKS = 2**63 - 1  # hashes of their names
_WINDOWS = [ord(bytes([number]).decode("cp1252", "replace")) for number in range(128, 160)]


@tf.function(input_signature=_TEXTS, autograph=False)
def spaced_words(texts: tf.Tensor) -> tf.Tensor:
    """Texts of prose as their words, with spaces between.

    1. Character references of HTML (`&amp;`, `&#8217;`; with a semicolon) become their characters,
       twice over; then tags of HTML's elements, comments, and declarations become spaces.
    2. Characters are decomposed and their case is folded (NFKD and full case folding, Unicode 14),
       marks are put in canonical order. Characters that are invisible by default go, as do skin
       tones and variation selectors. The signs for trademarks split words.
    3. Letters, digits and their marks make words; everything else splits them. An apostrophe,
       however it is written, stays in a word between letters; then "'s" at its end goes.
    4. Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, ...) are
       read as pairs of neighbouring characters with their marks; a character alone is a word.
    5. Each emoji is a word, and each flag.

    Args:
        texts: string [n], UTF-8; where bytes are not, they split words.

    Returns:
        string [n], words in decomposed form (NFD), in their order.
    """
    return _encode(*_words(*_folded(_without_markup(texts))))


@tf.function(input_signature=_TEXTS, autograph=False)
def spaced_tags(texts: tf.Tensor) -> tf.Tensor:
    """Lists of tags with spaces between: characters as in `spaced_words`, step 2; nothing else.

    Args:
        texts: string [n], UTF-8.

    Returns:
        string [n], tags in decomposed form (NFD), in their order.
    """
    points, splits, info = _folded(texts)
    space = tf.equal(_kind(info), SPACE)
    return _encode(tf.where(space, _SPACE, points), splits)


# Characters


def _decode(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Code points int32 [m], and int64 [n + 1] where each text begins."""
    points = tf.strings.unicode_decode(texts, "UTF-8", replacement_char=_INVALID)
    return points.flat_values, tf.cast(points.row_splits, tf.int64)


def _encode(points: tf.Tensor, splits: tf.Tensor) -> tf.Tensor:
    rows = tf.RaggedTensor.from_row_splits(points, splits, validate=False)
    return tf.strings.unicode_encode(rows, "UTF-8")


def _info(points: tf.Tensor) -> tf.Tensor:
    return tf.gather(unicode_table.load().info, _rows(points))


def _rows(points: tf.Tensor) -> tf.Tensor:
    return tf.gather(unicode_table.load().blocks, _shift(points, 7)) + (points & 127)


def _shift(values: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(values, bits)


def _kind(info: tf.Tensor) -> tf.Tensor:
    return info & 7


def _folded(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Code points of texts, folded and in order, where each text begins, and their `info`.

    A space stands before each text, so that no word and no mark goes across texts.
    """
    texts = tf.strings.lower(tf.strings.join([" ", texts]))  # ASCII alone, the common case
    points, splits = _decode(texts)
    info = _info(points)
    points, splits, info = tf.cond(
        tf.reduce_any(_shift(info, 11) > 0),
        lambda: _replaced(points, splits, info),
        lambda: (points, splits, info),
    )
    return tf.cond(
        tf.reduce_any(_kind(info) >= MARK),
        lambda: _ordered(points, splits, info),
        lambda: (points, splits, info),
    )


def _replaced(points, splits, info):
    """Each character replaced by what it folds to."""
    table = unicode_table.load()
    length = _shift(info, 11)
    size = len(table.folded)  # a character that folds to itself is found behind those
    start = tf.where(length > 0, tf.gather(table.starts, _rows(points)), size + points)
    length = tf.where(length > 0, length - 1, 1)
    at = tf.ragged.range(start, start + length).flat_values
    points = tf.where(at < size, tf.gather(table.folded, tf.minimum(at, size - 1)), at - size)
    ends = tf.concat([[0], tf.cumsum(tf.cast(length, tf.int64))], 0)
    return points, tf.gather(ends, splits), _info(points)


def _ordered(points, splits, info):
    """Marks in canonical order; then the one mark that folds to a letter does so."""
    combining = _shift(info, 3) & 255

    def sort():
        group = tf.cumsum(tf.cast(tf.equal(combining, 0), tf.int64))
        key = group * 256 + tf.cast(combining, tf.int64)
        # The lower index is first among equal keys.
        order = tf.math.top_k(-key, tf.size(key)).indices
        return tf.gather(points, order), tf.gather(info, order)

    wrong = (combining[1:] > 0) & (combining[:-1] > combining[1:])
    points, info = tf.cond(tf.reduce_any(wrong), sort, lambda: (points, info))
    folds = tf.equal(points, _YPOGEGRAMMENI)
    return tf.where(folds, _IOTA, points), splits, tf.where(folds, LETTER, info)


# Words


def _words(points, splits, info):
    """Code points of words with spaces between, and where each text begins."""
    kind = _kind(info)
    return tf.cond(
        tf.reduce_any(kind >= MARK),
        lambda: _words_of_any_script(points, splits, kind),
        lambda: (_of_words(points, *_in_words(kind, tf.equal(points, _S))), splits),
    )


def _of_words(points, word, apostrophe):
    """Characters outside of words replaced by spaces, apostrophes by the one of ASCII."""
    return tf.where(word, tf.where(apostrophe, _QUOTE, points), _SPACE)


def _in_words(kind, is_s):
    """Which characters (with their marks) belong to words of letters: bool [u], bool [u].

    Args:
        kind: int32 [u].
        is_s: bool [u], whether they are the letter s.

    Returns:
        Whether they belong to a word, and whether they are an apostrophe in one.
    """
    letter = tf.equal(kind, LETTER)
    apostrophe = tf.equal(kind, APOSTROPHE) & _before(letter) & _after(letter)
    word = letter | apostrophe
    possessive = apostrophe & _after(is_s) & ~_after(_after(word))
    possessive &= ~_before(is_s & _before(apostrophe))  # or "'s" would be at the end again
    return word & ~possessive & ~_before(possessive), apostrophe


def _before(values):
    """The value before each, False before the first."""
    return tf.concat([[False], values], 0)[:-1]


def _after(values):
    """The value after each, False after the last."""
    return tf.concat([values, [False]], 0)[1:]


def _sums(values):
    """int64 [m + 1], sums of the values before each, and of all."""
    return tf.concat([[0], tf.cumsum(tf.cast(values, tf.int64))], 0)


def _words_of_any_script(points, splits, kind):
    # A unit is a character with the marks after it.
    is_unit = tf.not_equal(kind, MARK)
    start = tf.where(is_unit)[:, 0]
    size = tf.size(points, tf.int64)
    end = tf.concat([start[1:], [size]], 0)
    kind = tf.gather(kind, start)
    is_s = tf.equal(tf.gather(points, start), _S) & tf.equal(end - start, 1)
    word, apostrophe = _in_words(kind, is_s)
    kind = tf.where(word, LETTER, tf.where(kind > MARK, kind, SPACE))

    # A run is neighbouring units of one kind. A word begins with it, with each emoji, and with
    # each second letter of flags; in pairs, a unit within the run ends one word and begins another.
    begins = tf.concat([[True], tf.not_equal(kind[1:], kind[:-1])], 0)
    ends = tf.concat([begins[1:], [True]], 0)
    first = tf.gather(tf.where(begins)[:, 0], _sums(begins)[1:] - 1)
    odd = tf.equal((tf.range(tf.size(kind, tf.int64)) - first) % 2, 1)
    gap = begins | tf.equal(kind, EMOJI) | (tf.equal(kind, FLAG) & ~odd)
    twice = tf.equal(kind, PAIRED) & ~begins & ~ends

    # What stands for a unit: itself, with a space before it or between it and itself.
    parts = tf.ragged.range(1 + tf.cast(gap, tf.int64) + 2 * tf.cast(twice, tf.int64))
    unit, part = parts.value_rowids(), parts.flat_values
    space = tf.gather(gap, unit) & tf.equal(part, 0) | tf.gather(twice, unit) & tf.equal(part, 1)
    space |= tf.gather(tf.equal(kind, SPACE), unit)
    start = tf.where(space, size, tf.gather(start, unit))
    end = tf.where(space, size + 1, tf.gather(end, unit))
    points = tf.where(tf.scatter_nd(tf.where(is_unit), apostrophe, [size]), _QUOTE, points)
    written = tf.gather(tf.concat([points, [_SPACE]], 0), tf.ragged.range(start, end).flat_values)
    first_part = tf.gather(parts.row_splits, tf.gather(_sums(is_unit), splits))
    return written, tf.gather(_sums(end - start), first_part)


# Markup


def _without_markup(texts: tf.Tensor) -> tf.Tensor:
    found = tf.strings.regex_full_match(texts, r"\C*(?:&[#A-Za-z]|<[!?/A-Za-z])\C*")

    def replaced():
        rows = tf.where(found)
        return tf.tensor_scatter_nd_update(texts, rows, _plain(tf.boolean_mask(texts, found)))

    return tf.cond(tf.reduce_any(found), replaced, lambda: texts)


def _plain(texts: tf.Tensor) -> tf.Tensor:
    """Texts without markup and with characters in place of references."""
    texts = tf.strings.unicode_transcode(  # what follows matches valid UTF-8 alone
        texts, "UTF-8", "UTF-8", replacement_char=_INVALID
    )
    for _ in range(2):  # "&amp;quot;" is common
        texts = _characters(texts)
    return tf.strings.regex_replace(tf.strings.lower(texts), _MARKUP, " ")


def _characters(texts: tf.Tensor) -> tf.Tensor:
    """Texts with their character references replaced."""
    parts = tf.strings.split(texts, "&")  # each but the first of a text may begin with one
    part, row = parts.flat_values, parts.value_rowids()
    first = tf.not_equal(row, tf.concat([[-1], row], 0)[:-1])
    found = tf.strings.regex_full_match(part, rf"(?s){_REFERENCE};.*") & ~first
    name = tf.where(found, tf.strings.regex_replace(part, rf"(?s)^{_REFERENCE};.*$", r"\1"), "")
    meaning = tf.where(tf.strings.regex_full_match(name, "#.+"), _numbered(name), _named(name))
    found &= tf.not_equal(meaning, "")
    rest = tf.strings.regex_replace(part, r"(?s)^[^;]*;(.*)$", r"\1")
    part = tf.where(
        found, tf.strings.join([meaning, rest]), tf.strings.join([tf.where(first, "", "&"), part])
    )
    return tf.strings.unsorted_segment_join(part, row, tf.size(texts))


def _numbered(name: tf.Tensor) -> tf.Tensor:
    """Characters of references by number, "#39" or "#x27"; of others any."""
    decimal = tf.strings.regex_full_match(name, "#[0-9]+")
    digits = tf.where(decimal, tf.strings.regex_replace(name, "^#", ""), "0")
    hexadecimal = tf.strings.regex_full_match(name, "#[xX].*")
    digits16 = tf.where(hexadecimal, tf.strings.regex_replace(name, "^#[xX]", ""), "0")
    digits16 = tf.strings.substr(tf.strings.join(["00000", tf.strings.lower(digits16)]), -6, 6)
    values = tf.cast(tf.io.decode_raw(digits16, tf.uint8), tf.int32)
    values = tf.where(values > 57, values - 87, values - 48)  # "a" to "f", "0" to "9"
    number = tf.strings.to_number(digits, tf.int32)
    number += tf.reduce_sum(values * [1 << 20, 1 << 16, 1 << 12, 1 << 8, 1 << 4, 1], axis=1)
    windows = (number >= 128) & (number < 160)  # where pages mean Windows' characters
    number = tf.where(windows, tf.gather(_WINDOWS, tf.where(windows, number - 128, 0)), number)
    wrong = tf.equal(number, 0) | (number > 0x10FFFF) | tf.equal(number // 0x800, 0xD800 // 0x800)
    return tf.strings.unicode_encode(tf.where(wrong, _INVALID, number)[:, tf.newaxis], "UTF-8")


def _named(name: tf.Tensor) -> tf.Tensor:
    """Characters of references by name, "amp"; "" for names that HTML does not have."""
    names, marks, characters = _entities()
    at = tf.searchsorted(marks, tf.strings.to_hash_bucket_fast(name, _MARKS))
    at = tf.minimum(at, len(names) - 1)
    return tf.where(tf.equal(tf.gather(names, at), name), tf.gather(characters, at), "")


@functools.cache
def _entities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of HTML's character references, their hashes, ascending, and their characters."""
    known = {name[:-1]: value for name, value in html.entities.html5.items() if name[-1] == ";"}
    names = np.array([name.encode("ascii") for name in known], object)
    with tf.init_scope():
        marks = tf.strings.to_hash_bucket_fast(names, _MARKS).numpy()
    order = marks.argsort()
    characters = np.array([value.encode("utf-8") for value in known.values()], object)
    return names[order], marks[order], characters[order]
