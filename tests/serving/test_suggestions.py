"""Known words that look like unknown ones, and the encoder that finds them."""

from __future__ import annotations

from dsprh_tf.serving.encoder import Encoder
from dsprh_tf.serving.suggestions import describe


def test_describe():
    assert describe({"a": ["b", "c"], "d": ["c"]}) == "unknown: a, d; near: b, c"


def test_unknown_words_of_the_encoder(exported):
    text = Encoder(exported, "text")
    word = text.vocabulary[0]
    assert text.unknown_words(f"{word} {word.upper()}!") == {}
    assert set(text.unknown_words("the of")) == {"the", "of"}
    assert set(text.unknown_words("the xyzzy of")) == {"xyzzy"}
    assert Encoder(exported, "image").vocabulary == ()
