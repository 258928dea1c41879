"""Texts as bags of words: the multi-hot vectors that the text network reads."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from dsprh_tf.data import unicode_table, word_forms
from dsprh_tf.data.files import read_json, write_json
from dsprh_tf.data.unicode_words import spaced_tags, spaced_words

RULES = {"words": spaced_words, "tags": spaced_tags}
# Keras' rules, which vocabularies of earlier versions name: they fold ASCII alone and remove
# punctuation without a gap.
OLD_RULES = ("lower_and_strip_punctuation", "lower")
STANDARDIZE = (*RULES, *OLD_RULES)

# English function words, those with an apostrophe also without it, as they are often written, and
# "s" and "n't", as corpora have them that separate words already ("the man 's hat"). They say
# nothing about what an image shows.
_FUNCTION_WORDS = """
a about above across after again against ain ain't all along also am among an and another any are
aren't arent around as at away be because been before behind being below beneath beside between
beyond both but by can can't cannot cant could couldn't couldnt did didn't didnt do does doesn't
doesnt doing don't dont down during each either else every few for from had hadn't hadnt has hasn't
hasnt have haven't havent having he he'd he'll her here hers herself him himself his how i i'd i'll
i'm i've if im in inside into is isn't isnt it it'd it'll its itself ive just may me might more most
much must my myself n't near neither no nor not of off on once only onto or other our ours ourselves
out outside over own per s same shall she she'd she'll should shouldn't shouldnt so some such than
that thats the their theirs them themselves then there theres these they they'd they'll they're
they've theyre this those though through throughout to too toward towards under until unto up upon
us very was wasn't wasnt we we'd we'll we're we've were weren't werent what whats when where whether
which while who whom whose why will with within without won't would wouldn't wouldnt yet you you'd
you'll you're you've your youre yours yourself yourselves
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

ENGLISH_SHARE = 0.2
"""Texts with at least this share of English function words are English.

COCO's and UCM's captions have 0.46 and 0.48, messages of programs in English 0.27. Other languages
have words that are spelt alike ("a", "no", "in", "do"): the same messages in 100 other locales have
at most 0.16 (Scottish Gaelic), then 0.13 and 0.11 (Maori, Hungarian). Lists of tags have hardly
any, and so nothing to leave out."""

_BLOCK_VALUES = 4_000_000  # values of a multi-hot block while encoding: bounds memory
_BLOCK_CHARACTERS = 2_000_000  # likewise, of its texts


class BagOfWords:
    """A multi-hot vector over a word list, the text features of DJSRH, DSAH and DSPRH.

    Its operations and its word list travel inside the exported graph, so that a served model splits
    words exactly as training did.

    Args:
        vocabulary: D_T distinct words, in column order; their case is folded.
        standardize: the rule that splits texts into words. "words" is for prose, "tags" for fixed
            tags with spaces between, which may hold punctuation ("c++"): see
            `unicode_words.spaced_words` and `spaced_tags`. Vocabularies of earlier versions have
            Keras' "lower_and_strip_punctuation" or "lower".
        forms: other forms of words, which count in their columns: form -> word. Only with
            "words" or "tags".

    Attributes:
        vocabulary: the D_T words, composed (NFC).
        forms: as given, composed.
        size: D_T.
        notes: printable lines on what `fit` found.
        layer: what an export must track, with the lookup table.

    Raises:
        ValueError: no word; a word that occurs twice; a word that no text can contain (because of
            a space, or of punctuation, which splits words); a form of what is no word.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        standardize: str = "words",
        forms: Mapping[str, str] | None = None,
    ):
        if standardize not in STANDARDIZE:
            raise ValueError(f"standardize is {standardize!r}, expected one of {STANDARDIZE}")
        if not len(vocabulary):
            raise ValueError("the vocabulary is empty, expected at least one word")
        given = [str(word) for word in vocabulary]
        if "" in given or "[UNK]" in given:
            raise ValueError("the vocabulary holds an empty word or '[UNK]'; drop it")
        self.standardize = standardize
        self.notes: tuple[str, ...] = ()
        self.vocabulary = tuple(_fold(given, standardize))
        if len(set(self.vocabulary)) != self.size:
            twice, _ = Counter(self.vocabulary).most_common(1)[0]
            raise ValueError(
                f"vocabulary word {twice!r} occurs twice (case is folded); drop one of them"
            )
        self.forms = _checked_forms(forms or {}, self.vocabulary, standardize)
        if standardize in OLD_RULES:
            self.layer = _KerasColumns(self.vocabulary, standardize)
        else:
            self.layer = _Columns(self.vocabulary, standardize, self.forms)
        # The column of each word, in the vector of that word alone.
        own = self._blocks(self.vocabulary, lambda block, at: np.diagonal(block, offset=at))
        lost = np.flatnonzero(np.concatenate(list(own)) == 0)
        if len(lost):
            raise ValueError(
                f"vocabulary word {self.vocabulary[lost[0]]!r} can never be found in a text "
                f"standardized by {standardize!r}; take out its spaces, or use standardize='tags'"
            )

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        min_pairs: int = 5,
        stop_words: bool | None = None,
        max_words: int | None = None,
        plurals: bool = False,
    ) -> BagOfWords:
        """The bag of words of a corpus: words in at least `min_pairs` texts.

        Args:
            texts: [n] training texts; those of queries must stay out.
            min_pairs: the number of texts that a word must occur in.
            stop_words: whether English function words are left out; None if the texts are English,
                which `ENGLISH_SHARE` decides.
            max_words: keep only so many of the most frequent words.
            plurals: whether an English plural counts as its singular, where the texts are English;
                the two occur in as many texts as either does. Plurals and singulars that are in no
                text are known, too.

        Returns:
            Words by descending document frequency, then by the alphabet.

        Raises:
            ValueError: no word is left.
        """
        count, pairs, in_pairs = _count(texts)
        total = sum(count.values())
        english = sum(count[word] for word in STOP_WORDS) / max(total, 1)
        told = stop_words is not None
        stop_words = stop_words if told else english >= ENGLISH_SHARE
        left_out = STOP_WORDS if stop_words else frozenset()
        forms, seen = {}, pairs.keys() - left_out
        if plurals and english >= ENGLISH_SHARE:
            forms = word_forms.folded(seen)
            _, pairs, _ = _count(texts, forms)
        counted = [
            (-n, word) for word, n in pairs.items() if n >= min_pairs and word not in left_out
        ]
        vocabulary = [word for _, word in sorted(counted)][:max_words]
        if not vocabulary:
            raise ValueError(
                f"no word occurs in {min_pairs} or more of the {len(texts):,} training texts"
                f"{' once stop words are left out' if stop_words else ''}; give more texts or "
                "lower min_pairs"
            )
        if plurals and english >= ENGLISH_SHARE:
            kept = set(vocabulary)
            forms = {form: word for form, word in forms.items() if word in kept}
            forms.update(word_forms.unseen(vocabulary, seen))
        bag = cls(vocabulary, forms=forms)
        telling = sum(n for word, n in count.items() if word not in left_out)
        kept = {*vocabulary, *forms}
        share = sum(count[word] for word in kept) / max(telling, 1)
        notes = [
            f"{len(vocabulary):,} words are known, each in at least {min_pairs} of "
            f"{len(texts):,} training texts; {share:.0%} of the words there are known ones"
        ]
        if not told:
            said = "left out" if stop_words else "kept: the texts are not English"
            notes.append(
                f"{english:.0%} of the words of the training texts are English function words, "
                f"{said}"
            )
        if in_pairs:
            notes.append(
                f"{in_pairs:,} of {len(texts):,} training texts are in scripts without spaces and "
                "are read as pairs of characters"
            )
        bag.notes = tuple(notes)
        return bag

    @classmethod
    def of_tags(
        cls, tags: Sequence[str], texts: Sequence[str] = (), max_words: int | None = None
    ) -> BagOfWords:
        """The bag of words of a fixed list of tags, by the rule "tags".

        Args:
            tags: the list. One that is spelt like an earlier one once case is folded, or that holds
                a space then, is left out, and `notes` says so.
            texts: [n] training texts, which decide what is frequent.
            max_words: keep only so many of the most frequent tags, in the order of the list; of
                equals the earlier ones.
        """
        found = [words[0] for words in split_words(tags, "tags") if len(words) == 1]
        bag = cls(list(dict.fromkeys(found)), "tags")
        notes = []
        if bag.size < len(tags):
            lost = len(tags) - bag.size
            notes.append(f"{lost:,} tags of the word list are spelt like others, or hold a space")
        if max_words is not None and max_words < bag.size:
            blocks = bag._blocks(texts, lambda block, at: block.sum(axis=0))
            pairs = np.sum([np.zeros(bag.size), *blocks], axis=0)
            kept = np.sort(np.argsort(-pairs, kind="stable")[:max_words])
            notes.append(
                f"{max_words:,} of {bag.size:,} tags are kept, the most frequent in {len(texts):,} "
                "training texts"
            )
            bag = cls([bag.vocabulary[column] for column in kept], "tags")
        bag.notes = tuple(notes)
        return bag

    @classmethod
    def load(cls, path: str | os.PathLike) -> BagOfWords:
        """The bag of words that `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        fix = "write it again with BagOfWords.save"
        content = read_json(path, fix)
        keys = {"standardize", "vocabulary"}
        if not isinstance(content, dict) or not keys <= set(content) <= {*keys, "forms"}:
            raise ValueError(f"{path} is not a saved vocabulary; {fix}")
        words, forms = content["vocabulary"], content.get("forms", {})
        if not isinstance(forms, dict) or not all(isinstance(w, str) for w in forms.values()):
            raise ValueError(f"{path} is not a saved vocabulary, its forms are no words; {fix}")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{path} is not a saved vocabulary, its words are no strings; {fix}")
        try:
            return cls(words, content["standardize"], forms)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; {fix}") from error

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary as JSON, atomically."""
        content: dict = {"standardize": self.standardize, "vocabulary": list(self.vocabulary)}
        if self.forms:
            content["forms"] = self.forms
        write_json(path, content)

    @property
    def size(self) -> int:
        """D_T, the number of words."""
        return len(self.vocabulary)

    def __call__(self, texts) -> tf.Tensor:
        """The multi-hot vectors of texts, also inside a tf.function or SavedModel.

        Args:
            texts: string [n], a tensor or an array.

        Returns:
            float32 [n, D_T]; unknown words have no column.
        """
        return self.layer(texts if tf.is_tensor(texts) else as_strings(_list(texts)))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """The multi-hot vectors of any number of texts: float32 [n, D_T]."""
        vectors = self._blocks(texts, lambda block, at: block)
        return np.concatenate([np.zeros((0, self.size), np.float32), *vectors])

    def known(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text holds at least one word of the vocabulary: bool [n]."""
        hits = self._blocks(texts, lambda block, at: block.any(axis=1))
        return np.concatenate([np.zeros(0, bool), *hits])

    def _blocks(self, texts, reduce) -> Iterator:
        """`reduce(vectors, first row)` for each block of texts."""
        step = max(1, min(4096, _BLOCK_VALUES // self.size))
        for at, block in _blocks_of(_list(texts), step):
            yield reduce(self(block).numpy(), at)


def split_words(texts: Sequence[str], standardize: str = "words") -> list[list[str]]:
    """The words of texts, in their order and composed (NFC).

    Args:
        texts: [n] strings.
        standardize: "words" or "tags", see `BagOfWords`.
    """
    spaced = RULES[standardize](as_strings(texts)).numpy()
    rows = (unicodedata.normalize("NFC", row.decode("utf-8")) for row in spaced)
    return [[word for word in row.split(" ") if word] for row in rows]


def as_strings(texts: Sequence[str]) -> tf.Tensor:
    """Strings as a tensor; what UTF-8 cannot hold (lone surrogates) becomes question marks."""
    texts = list(texts)
    try:
        return tf.constant(texts, tf.string)
    except ValueError:
        clean = (t.encode("utf-8", "replace") if isinstance(t, str) else t for t in texts)
        return tf.constant(list(clean), tf.string)


class _Columns(tf.Module):
    """Texts to the columns of their words, by a rule of `RULES`."""

    def __init__(self, vocabulary: Sequence[str], standardize: str, forms: Mapping[str, str]):
        super().__init__()
        self._rule, self._size = RULES[standardize], len(vocabulary)
        column = {word: index for index, word in enumerate(vocabulary)}
        column.update({form: column[word] for form, word in forms.items()})
        words = tf.constant([unicodedata.normalize("NFD", word) for word in column])
        columns = tf.constant(list(column.values()), tf.int64)
        # Unknown words count in a column behind the last, which is not made.
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(words, columns), self._size
        )

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        words = tf.strings.split(self._rule(texts))
        columns = tf.RaggedTensor.from_row_splits(
            self._table.lookup(words.flat_values), words.row_splits, validate=False
        )
        size = self._size
        counts = tf.math.bincount(
            columns, minlength=size, maxlength=size, dtype=tf.float32, axis=-1, binary_output=True
        )
        return tf.ensure_shape(counts, [None, size])


class _KerasColumns(tf.Module):
    """Texts to the columns of their words, as earlier versions had it."""

    def __init__(self, vocabulary: Sequence[str], standardize: str):
        super().__init__()
        self._layer = keras.layers.TextVectorization(
            output_mode="multi_hot",
            standardize=standardize,
            split="whitespace",
            vocabulary=list(vocabulary),
        )

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._layer(texts), tf.float32)[:, 1:]  # column 0 is of unknown words


def _fold(words: list[str], standardize: str) -> list[str]:
    """Words of a vocabulary with their case folded; one that holds spaces keeps them."""
    if standardize in OLD_RULES:
        return [word.decode("utf-8") for word in tf.strings.lower(as_strings(words)).numpy()]
    return [" ".join(found) for found in split_words(words, "tags")]


def _checked_forms(forms: Mapping[str, str], vocabulary, standardize: str) -> dict[str, str]:
    """Forms and words, composed; refuses what the table of columns cannot hold."""
    if forms and standardize in OLD_RULES:
        raise ValueError(f"forms of words need a rule of {tuple(RULES)}, received {standardize!r}")
    known, as_read = set(vocabulary), _fold(list(forms), standardize)
    for (form, word), read in zip(forms.items(), as_read):
        if word not in known or form in known or read != form or " " in form:
            raise ValueError(
                f"{form!r} is given as a form of {word!r}, expected a word in lower case that is "
                "not in the vocabulary, and one that is"
            )
    return dict(forms)


def _count(texts, forms: Mapping[str, str] | None = None) -> tuple[Counter, Counter, int]:
    """Of each word how often it occurs and in how many texts; texts with words in pairs.

    Words are counted as those of `forms` that they are forms of.
    """
    count: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    in_pairs = 0
    for _, block in _blocks_of(_list(texts), 1024):
        words = tf.strings.split(spaced_words(as_strings(block)))
        unique, number = (found.numpy() for found in tf.unique(words.flat_values))
        unique = [word.decode("utf-8") for word in unique]
        names = [unicodedata.normalize("NFC", word) for word in unique]
        row = words.value_rowids().numpy()
        paired = [unicode_table.kind_of(word[0]) == unicode_table.PAIRED for word in unique]
        in_pairs += len(np.unique(row[np.array(paired, bool)[number]]))
        if forms:
            joined, again = np.unique([forms.get(n, n) for n in names], return_inverse=True)
            names, number = joined.tolist(), again.reshape(-1)[number]
        # A word counts once for each text that it is in.
        once = np.unique(row * len(names) + number) % max(len(names), 1)
        for counter, numbers in ((count, number), (pairs, once)):
            counter.update(dict(zip(names, np.bincount(numbers, minlength=len(names)).tolist())))
    return count, pairs, in_pairs


def _blocks_of(texts: list[str], step: int) -> Iterator[tuple[int, list[str]]]:
    """(first row, texts) of blocks of bounded length."""
    ends = np.cumsum([len(text) for text in texts])
    at = 0
    while at < len(texts):
        before = ends[at - 1] if at else 0
        fits = int(np.searchsorted(ends, before + _BLOCK_CHARACTERS, "right"))
        end = min(max(fits, at + 1), at + step)
        yield at, texts[at:end]
        at = end


def _list(texts) -> list[str]:
    if isinstance(texts, (str, bytes)):
        raise ValueError("texts is one string, expected a sequence of strings; use [text]")
    return list(texts.tolist() if isinstance(texts, np.ndarray) else texts)
