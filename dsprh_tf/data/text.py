"""Texts as bags of words: the multi-hot vectors that the text network reads."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from dsprh_tf.data.files import read_json, write_json

STANDARDIZE = ("lower_and_strip_punctuation", "lower")

# English function words, as they are spelt once punctuation is gone. They say nothing about what
# an image shows.
_FUNCTION_WORDS = """
a about above across after again against ain all along also am among an and another any are arent
around as at away be because been before behind being below beneath beside between beyond both but
by can cannot cant could couldnt did didnt do does doesnt doing dont down during each either else
every few for from had hadnt has hasnt have havent having he her here hers herself him himself his
how i if im in inside into is isnt it its itself ive just may me might more most much must my
myself near neither no nor not of off on once only onto or other our ours ourselves out outside
over own per same shall she should shouldnt so some such than that thats the their theirs them
themselves then there theres these they theyre this those though through throughout to too toward
towards under until unto up upon us very was wasnt we were werent what whats when where whether
which while who whom whose why will with within without would wouldnt yet you your yours yourself
yourselves youre
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

_BLOCK_VALUES = 4_000_000  # values of a multi-hot block while encoding: bounds memory


class BagOfWords:
    """A multi-hot vector over a word list, the text features of DJSRH, DSAH and DSPRH.

    Built on `keras.layers.TextVectorization`, so that the word list travels inside the exported
    graph and a served model splits words exactly as training did.

    Args:
        vocabulary: D_T distinct words, in column order. Upper case is lowered, in ASCII only, as
            TensorFlow lowers the texts.
        standardize: "lower_and_strip_punctuation" for words of prose, "lower" for fixed tags,
            which may hold punctuation ("c++").

    Attributes:
        vocabulary: the D_T words.
        size: D_T.
        layer: the TextVectorization; its column 0 stands for unknown words.

    Raises:
        ValueError: no word; a word that occurs twice; a word that no text can contain (because of
            a space, or of punctuation that is stripped).
    """

    def __init__(self, vocabulary: Sequence[str], standardize: str = "lower_and_strip_punctuation"):
        if standardize not in STANDARDIZE:
            raise ValueError(f"standardize is {standardize!r}, expected one of {STANDARDIZE}")
        if not len(vocabulary):
            raise ValueError("the vocabulary is empty, expected at least one word")
        lowered = tf.strings.lower(tf.constant([str(word) for word in vocabulary])).numpy()
        self.vocabulary = tuple(word.decode("utf-8") for word in lowered)
        self.standardize = standardize
        if len(set(self.vocabulary)) != self.size:
            twice = next(word for word in self.vocabulary if self.vocabulary.count(word) > 1)
            raise ValueError(
                f"vocabulary word {twice!r} occurs twice (upper case is lowered); drop one of them"
            )
        if "" in self.vocabulary or "[UNK]" in self.vocabulary:
            raise ValueError("the vocabulary holds an empty word or '[UNK]'; drop it")
        self.layer = keras.layers.TextVectorization(
            output_mode="multi_hot",
            standardize=standardize,
            split="whitespace",
            vocabulary=list(self.vocabulary),
        )
        # The column of each word, in the vector of that word alone.
        own = self._blocks(self.vocabulary, lambda block, at: np.diagonal(block, offset=at))
        lost = np.flatnonzero(np.concatenate(own) == 0)
        if len(lost):
            raise ValueError(
                f"vocabulary word {self.vocabulary[lost[0]]!r} can never be found in a text "
                f"standardized by {standardize!r}; take out its spaces, or use standardize='lower'"
            )

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        min_pairs: int = 5,
        stop_words: bool = True,
        max_words: int | None = None,
    ) -> BagOfWords:
        """The bag of words of a corpus: words in at least `min_pairs` texts.

        Args:
            texts: [n] training texts; those of queries must stay out.
            min_pairs: the number of texts that a word must occur in.
            stop_words: whether English function words are left out.
            max_words: keep only so many of the most frequent words.

        Returns:
            Words by descending document frequency, then by the alphabet.

        Raises:
            ValueError: no word is left.
        """
        texts = _strings(texts)
        counter = keras.layers.TextVectorization(
            output_mode="int",
            ragged=True,
            standardize="lower_and_strip_punctuation",
            split="whitespace",
        )
        blocks = [texts[at : at + 1024] for at in range(0, len(texts), 1024)]
        if blocks:
            counter.adapt(tf.data.Dataset.from_tensor_slices(texts).batch(1024))
        words = [str(word) for word in counter.get_vocabulary()]  # "", "[UNK]", words
        pairs = np.zeros(len(words), np.int64)
        # Keras leaves the lookup table of an empty word list uninitialized.
        for block in blocks if len(words) > 2 else ():
            tokens = counter(tf.constant(block))  # ragged [block, words of the text]
            keys = tokens.value_rowids().numpy() * len(words) + tokens.values.numpy()
            # A word counts once for each text that it is in.
            pairs += np.bincount(np.unique(keys) % len(words), minlength=len(words))
        left_out = STOP_WORDS if stop_words else frozenset()
        counted = [
            (-int(n), word)
            for n, word in zip(pairs[2:], words[2:])
            if n >= min_pairs and word not in left_out
        ]
        vocabulary = [word for _, word in sorted(counted)][:max_words]
        if not vocabulary:
            raise ValueError(
                f"no word occurs in {min_pairs} or more of the {len(texts):,} training texts"
                f"{' once stop words are left out' if stop_words else ''}; give more texts or "
                "lower min_pairs"
            )
        return cls(vocabulary)

    @classmethod
    def load(cls, path: str | os.PathLike) -> BagOfWords:
        """The bag of words that `save` wrote."""
        fix = "write it again with BagOfWords.save"
        content = read_json(path, fix)
        if not isinstance(content, dict) or set(content) != {"standardize", "vocabulary"}:
            raise ValueError(f"{path} is not a saved vocabulary; {fix}")
        return cls(content["vocabulary"], content["standardize"])

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary as JSON, atomically."""
        write_json(path, {"standardize": self.standardize, "vocabulary": list(self.vocabulary)})

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
        if not tf.is_tensor(texts):
            texts = tf.constant(_strings(texts), tf.string)
        return tf.cast(self.layer(texts), tf.float32)[:, 1:]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """The multi-hot vectors of any number of texts: float32 [n, D_T]."""
        vectors = self._blocks(texts, lambda block, at: block)
        return np.concatenate([np.zeros((0, self.size), np.float32), *vectors])

    def known(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text holds at least one word of the vocabulary: bool [n]."""
        hits = self._blocks(texts, lambda block, at: block.any(axis=1))
        return np.concatenate([np.zeros(0, bool), *hits])

    def _blocks(self, texts, reduce):
        """`reduce(vectors, first row)` for each block of texts."""
        texts = _strings(texts)
        step = max(1, min(4096, _BLOCK_VALUES // self.size))
        return [
            reduce(self(texts[at : at + step]).numpy(), at) for at in range(0, len(texts), step)
        ]


def _strings(texts) -> list[str]:
    if isinstance(texts, (str, bytes)):
        raise ValueError("texts is one string, expected a sequence of strings; use [text]")
    return list(texts.tolist() if isinstance(texts, np.ndarray) else texts)
