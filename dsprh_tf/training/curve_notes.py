"""The description of each curve and image in TensorBoard: what it is, and what good looks like.

TensorBoard shows it behind the (i) of a curve in the tabs Scalars and Images.

Measured values are those of the progress bar of a run of `benchmarks/first_hour.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_LOSS = (
    "Mean over the batches of the epoch, on training pairs; no unit. **Good:** falls steeply in "
    "the first epochs, then levels off. **Bad:** flat from the start, or rising (learning rate "
    "too high). Compare runs of the same method and settings only."
)
_MEASURED = (
    "What was measured is DSPRH+ with 64 bits on a frozen MobileNetV2, with 760 pairs of COCO."
)
_TOTAL = (
    "The weighted sum of the terms, which training minimises. It may step up a little as codes "
    "harden. A low training loss says nothing about pairs that were not seen: see validation. "
    "Measured: .76 after epoch 1, .19 after epoch 29."
)
_WEIGHTED = (
    "**Good:** of the size of the others. **Bad:** it stays many times above all others, which "
    "then hardly count (lower its weight), or far below them."
)
_OWN = (
    "Each validation text (or image) is a query, and the only right answer is its own partner, "
    "among all validation pairs and up to 1,000 training pairs. Near ones count as wrong."
)
_UP = (
    "**Good:** rises, then stays. **Bad:** stays at chance, or falls again while the loss falls "
    "(overfitting: fewer epochs, or more pairs)."
)

_NOTES = {
    "codes/balance": (
        "Mean over the bits of |mean sign| among up to 1,000 training pairs, from 0 to 1. 0: each "
        "bit is +1 for half of the items; 1: all bits are constant. **Good:** small, or falling; "
        "1,000 random codes have .03. **Bad:** above .5, or rising: bits that are the same for "
        "most items tell nothing."
    ),
    "codes/bit_correlation": (
        "Mean |correlation| of two different bits among up to 1,000 training pairs, from 0 to 1. "
        "**Good:** small: every bit adds something; 1,000 random codes have .03. **Bad:** near 1: "
        "all bits repeat one. It is larger where the data have few kinds of images."
    ),
    "codes/values": (
        "Codes while training, tanh(alpha_e H), of up to 1,000 training pairs, all bits together. "
        "**Good:** two peaks that move to -1 and +1 with the epochs: little is lost when the sign "
        "is taken. **Bad:** all of it at -1 or +1 from the first epochs (saturated: lower the "
        "learning rate), or one peak at 0 at the end."
    ),
    "training/gradient_norm": (
        "Norm of the gradients of one side, of the last step looked at (each 16th). No unit. "
        "**Good:** of one size over the epochs. **Bad:** growing by orders of magnitude before the "
        "loss jumps (lower the learning rate), or 0 (that side learns nothing)."
    ),
    "per_class": (
        "Mean average precision of the validation pairs with one label, which alone makes items "
        "relevant, mean of both directions, from 0 to 1; at the last epoch. Shown for the 100 most "
        "frequent labels. Chance is the label's share of the items. **Good:** far above it. "
        "**Bad:** a frequent label near it: captions may not name it."
    ),
    "training/images_per_second": (
        "Pairs trained on per second, without evaluation and checkpoints. **Good:** level. The "
        "first epoch is slower, as graphs are compiled. **Bad:** falling: the machine swaps, or "
        "shares its disk or cores."
    ),
    "training/alpha": (
        "Steepness of the tanh between hash values and codes, sqrt(1 + epoch) from epoch 0, or 1 "
        "for methods that do not harden. Nothing to judge: it explains steps in the losses."
    ),
    "training/learning_rate": (
        "Size of the optimizer's steps at the end of the epoch. Level, or falling to 0 with the "
        "cosine schedule. If losses jump or become NaN, lower it (`--lr_image`, `--lr_text`)."
    ),
    "validation/pair_reciprocal_rank": (
        "Mean of 1 / rank of each validation pair's own partner among the validation pairs, both "
        "directions, from 0 to 1: 1 if it is always first. Needs no labels; the epoch in which it "
        "is highest is kept, unless the method is supervised. " + _UP + " Chance is "
        "about (.6 + ln n) / n for n pairs: .09 for 50."
    ),
    "validation/map": (
        "Mean average precision by labels of validation pairs among up to 1,000 training pairs, "
        "mean of image to text and text to image, from 0 to 1. The epoch in which it is highest is "
        "kept. " + _UP
    ),
    "validation/map@50": (
        "Mean average precision by labels among the 50 nearest of up to 1,000 training pairs, from "
        "0 to 1. Only shown: labels choose nothing here. " + _UP + " Chance is the "
        "share of relevant pairs, the dotted line of validation/precision_recall."
    ),
    "validation/recall@": (
        "Share of queries whose own partner is among the first k, from 0 to 1. " + _OWN + " So "
        "small values are usual. " + _UP + " Chance is k divided by the number of items."
    ),
    "validation/median_rank": (
        "Median rank of the own partner, from 1, the best. " + _OWN + " **Good:** falls, then "
        "stays. **Bad:** stays near half the number of items, which is chance."
    ),
    "validation/precision_recall": (
        "Of the validation pairs among training pairs, both directions. **Good:** far above the "
        "dotted line of chance, also at high recall. **Bad:** on it."
    ),
    "validation/recall": (
        "Share of validation queries whose own partner is among the first k. **Good:** rises early "
        "and far above the dotted line of chance. **Bad:** on it."
    ),
    "validation/retrieval": (
        "Validation texts, and the training images nearest to each, with distances in bits; a "
        "green frame shares a label. **Good:** most images fit the text, and distances grow from "
        "left to right. **Bad:** the same images for every text."
    ),
}  # fmt: skip


def curve_note(tag: str, terms: Mapping[str, str]) -> str:
    """Markdown that TensorBoard shows with a tag.

    Args:
        tag: name of a scalar or an image, such as `codes/balance_image`.
        terms: `Method.terms` of the method that is trained.

    Raises:
        KeyError: nothing is said about such a tag.
    """
    group, _, name = tag.partition("/")
    if group == "loss":
        note = f"{_TOTAL if name == 'total' else terms[name]} {_LOSS}"
        return f"{note} {_MEASURED}" if "Measured" in note else note
    if group == "weighted":
        what = terms[name].partition(" Measured")[0]  # that was without the factor
        return f"loss/{name} times its factor in the total: {what} {_WEIGHTED}"
    if tag in _NOTES:
        return _NOTES[tag]
    # Of one side or direction, or at one of several ranks; the longest name fits best.
    return _NOTES[max(filter(tag.startswith, _NOTES), key=len, default=tag)]


def notes_page(tags: Iterable[str], terms: Mapping[str, str]) -> str:
    """Markdown of all notes for TensorBoard's Text tab: its Time Series tab shows none.

    Args:
        tags: names of the scalars and images of a run.
        terms: as in `curve_note`.
    """
    of: dict[str, list[str]] = {}
    for tag in tags:
        of.setdefault(curve_note(tag, terms), []).append(f"`{tag}`")
    return "\n\n".join(f"{', '.join(names)}: {note}" for note, names in of.items())


def result_note(direction: str, name: str) -> str:
    """Markdown for a number of a finished trial, a point in the HParams tab and no curve.

    Args:
        direction: such as `image_to_text`.
        name: a number of `results.json`, such as `map@50` or `median_rank`.
    """
    source, target = direction.split("_to_")
    said = f"`{name}` of test queries, {source}s that search {target}s, at the end of the trial; "
    if name == "median_rank":
        return said + "from 1, **lower is better**."
    return said + "from 0 to 1, **higher is better**. Compare trials on the same data and split."
