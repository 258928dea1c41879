"""Readers of runs: weights, run folders, checkpoints, vocabularies, results, trials, exports."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from fuzz import mutators
from fuzz.mutators import Files
from fuzz.target import CHILD, Target, check, npz

# Weights


def _tensor(key: bytes, shape: tuple, legacy: bool = False) -> bytes:
    """Opcodes of a tensor as PyTorch pickles it, without PyTorch."""

    def text(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    def numbers(values) -> bytes:
        return b"(" + b"".join(b"K" + bytes([v]) for v in values) + b"t"

    stride = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    storage = text(b"storage") + b"ctorch\nFloatStorage\n" + text(key) + text(b"cpu")
    count = b"K" + bytes([math.prod(shape)])
    reference = b"(" + storage + count + (b"N" if legacy else b"") + b"tQ"
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    tail = b"K\x00" + numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR"
    return head + reference + tail


def _state_dict(legacy: bool = False) -> bytes:
    def name(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    body = name(b"a.weight") + _tensor(b"0", (3, 4), legacy)
    body += name(b"a.bias") + _tensor(b"1", (3,), legacy)
    return b"\x80\x02}(" + body + b"u."


def _torch_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        members = {"data.pkl": _state_dict(), "version": b"3\n", "byteorder": b"little",
                   "data/0": np.arange(12, dtype="<f4").tobytes(),
                   "data/1": np.arange(3, dtype="<f4").tobytes()}  # fmt: skip
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return out.getvalue()


def _torch_legacy() -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    parts = [pickle.dumps(value, 2) for value in head]
    parts += [_state_dict(legacy=True), pickle.dumps(["0", "1"], 2)]
    for count in (12, 3):
        parts.append(struct.pack("<q", count) + np.arange(count, dtype="<f4").tobytes())
    return b"".join(parts)


def _safetensors() -> bytes:
    import safetensors.numpy

    return safetensors.numpy.save(_named())


def _named() -> dict[str, np.ndarray]:
    return {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}


def _weights(name: str):
    def read(folder: Path) -> None:
        from dsprh_tf.backbones.torch_files import read_weights

        arrays = read_weights(folder / name)
        check(all(isinstance(n, str) for n in arrays), "a name that is no string")
        check(all(a.dtype.kind in "biufV" for a in arrays.values()), "values that are no numbers")
        sum(a.nbytes for a in arrays.values())

    return read


@lru_cache(None)
def _keras_model(kind: str):
    import keras

    name = f"of_{kind.replace('.', '_')}"
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="a"),
            keras.layers.BatchNormalization(name="b"),
        ],
        name=name,
    )


def _keras_samples(kind: str):
    def make() -> list[Files]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"w{kind}"
            model = _keras_model(kind)
            if kind == ".weights.h5":
                model.save_weights(path)
            else:
                import warnings

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model.save(path)
            return [{f"w{kind}": path.read_bytes()}]

    return make


def _keras(kind: str):
    def read(folder: Path) -> None:
        from dsprh_tf.backbones.weights import load_keras

        model = _keras_model(kind)
        load_keras(model, "Tiny", folder / f"w{kind}")
        check(all(np.isfinite(w).all() for w in model.get_weights()), "weights not finite")

    return read


# Run folders


@lru_cache(None)
def _vectors():
    from dsprh_tf.data.dataset import PairDataset

    rng = np.random.default_rng(0)
    return PairDataset(
        name="features",
        ids=[f"item{i}" for i in range(12)],
        image_features=rng.random((12, 4)),
        text_features=rng.random((12, 3)),
        labels=np.eye(2, dtype=np.uint8)[np.arange(12) % 2],
        label_names=("a", "b"),
    )


def _made(write) -> Files:
    """The files that a function leaves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return mutators.read(Path(folder))


def _split_samples() -> list[Files]:
    from dsprh_tf.data.splits import make_split, save_split

    data = _vectors()
    split = make_split(data, queries=3, train=6, validation=2, seed=1)
    return [_made(lambda folder: save_split(folder / "split.json", split, data.ids))]


def _split(folder: Path) -> None:
    from dsprh_tf.data.splits import PARTS, load_split

    split = load_split(folder / "split.json", _vectors())
    parts = {part: getattr(split, part) for part in PARTS}
    for part, indices in parts.items():
        check(indices.dtype == np.int64 and indices.ndim == 1, f"{part} is of another type")
        check(len(np.unique(indices)) == len(indices), f"{part} names a pair twice")
    check(not np.intersect1d(parts["query"], parts["database"]).size, "a query in the database")
    check(not np.intersect1d(parts["train"], parts["validation"]).size, "validation in training")
    check(not np.setdiff1d(parts["train"], parts["database"]).size, "training not in the database")
    check(len(parts["database"]) and len(parts["train"]), "an empty part")
    check(type(split.seed) is int, "the seed is no whole number")


def _settings() -> dict:
    from dsprh_tf.settings import effective_settings

    given = {"method": "dsprh", "dataset": "features", "data_dir": "f.npz", "bits": 16}
    return effective_settings(given).values


def _run_samples() -> list[Files]:
    values = {**_settings(), "run_dir": "run_1"}
    files: Files = {
        "run_1/flags.json": json.dumps(values, indent=1).encode(),
        "run_1/versions.json": b'{"python": "3.11.7"}',
        "run_1/backbone.json": b'{"sha256": "0"}',
    }
    # A run folder with a checkpoint is never begun anew.
    trained: Files = {**files, "run_1/checkpoints/ckpt-1.index": b"x"}
    return [files, trained]


def _run(folder: Path) -> None:
    from dsprh_tf.run import Run
    from dsprh_tf.run_folder import RunFolder

    run = Run.load(folder / "run_1")
    values = vars(run.settings)
    check(type(values["bits"]) is int and values["bits"] % 8 == 0, "bits")
    check(all(not isinstance(v, float) or math.isfinite(v) for v in values.values()), "not finite")
    opened = RunFolder(folder / "run_1")
    try:
        opened.open(values)
    finally:
        opened.close()


def _vocabulary_samples() -> list[Files]:
    from dsprh_tf.data.text import BagOfWords

    words = ("dog", "beach", "sea", "red")
    return [
        _made(lambda folder: BagOfWords(words).save(folder / "vocabulary.json")),
        {"vocabulary.json": json.dumps({"standardize": "lower", "vocabulary": words}).encode()},
        {
            "vocabulary.json": json.dumps(
                {"standardize": "lower_and_strip_punctuation", "vocabulary": words}
            ).encode()
        },
    ]


def _vocabulary(folder: Path) -> None:
    from dsprh_tf.data.text import BagOfWords

    words = BagOfWords.load(folder / "vocabulary.json")
    check(all(isinstance(word, str) and word for word in words.vocabulary), "a word")
    vectors = words.encode([*words.vocabulary, "dog beach"])
    check(vectors.shape == (words.size + 1, words.size), "vectors of another shape")
    check(bool((np.diagonal(vectors) == 1).all()), "a word is not found by itself")


def _record() -> dict:
    from dsprh_tf.evaluation.retrieval import DIRECTIONS

    curves = {
        "precision_recall": {"recall": [0.5, 1.0], "precision": [0.6, 0.5], "radius": [0, 1]},
        "precision_at_k": {"k": [1, 2], "precision": [0.5, 0.6], "rank": [1, 2]},
    }
    numbers = {"map": 0.5, "map@50": 0.6, "ndcg@50": 0.7, "queries_without_relevant": 0, **curves}
    head = {"format": 1, "method": "dsprh", "bits": 16, "dataset": "features", "seed": 0,
            "ties": "stable", "chance": 0.4, "queries": 3, "database": 9}  # fmt: skip
    return {**head, **dict.fromkeys(DIRECTIONS, numbers)}


def _results_samples() -> list[Files]:
    record = _record()
    return [
        {"results.json": json.dumps(record).encode()},
        {"results.json": json.dumps({**record, "validation_map": 0.5}, indent=1).encode()},
    ]


def _results(folder: Path) -> None:
    from dsprh_tf.evaluation.results import read_results, scalar_table

    record = read_results(folder / "results.json")
    str(record)
    _finite(scalar_table(record))


def _finite(frame) -> None:
    for name in ("map", "map@50", "ndcg@50", "chance"):
        if name in frame:
            values = frame[name].dropna().to_numpy()
            check(values.dtype.kind in "fiu", f"{name} is no number: {values[:3]}")
            check(bool(np.isfinite(values.astype(float)).all()), f"{name} is not finite")


def _trial():
    from dsprh_tf.experiments.trial import Trial

    return Trial("train", "dsprh", 16, 0, {"bits": 16, "alpha": 0.5}, {})


def _trials_samples() -> list[Files]:
    trial = _trial()
    place = f"out/trials/{trial.name}"
    content = {"program": "train", "settings": {"bits": 16.0, "alpha": 0.5}}
    files: Files = {
        f"{place}/trial.json": json.dumps(content).encode(),
        f"{place}/results.json": json.dumps(_record()).encode(),
        f"{place}/seconds.json": b'{"seconds": 12.5}',
    }
    failed = {k: v for k, v in files.items() if "results" not in k}
    return [files, {**failed, f"{place}/failed.json": b'{"reason": "train: no", "exit_code": 2}'}]


def _trials(folder: Path) -> None:
    from dsprh_tf.experiments.estimate import estimate
    from dsprh_tf.experiments.plan import Entry
    from dsprh_tf.experiments.published import published
    from dsprh_tf.experiments.results import mean_curves, read_trials, summarise

    trial, out = _trial(), folder / "out"
    entries = [Entry("DSPRH", 16, trial)]
    table = read_trials(entries, out)
    check(set(table["state"]) <= {"done", "failed", "open"}, "a state")
    _finite(table)
    check(bool(np.isfinite(table["seconds"].astype(float)).all()), "seconds")
    check(math.isfinite(estimate([trial], [trial], out).seconds), "time left")
    summarise(table, published("table2", "mirflickr25k"), "alexnet")
    mean_curves(entries, out)


# Checkpoints and exports


@lru_cache(None)
def _small_model(text_hidden: int = 8):
    import keras

    from dsprh_tf.methods import DSPRH
    from dsprh_tf.model import CrossModalHashing
    from dsprh_tf.training.optimizers import make_optimizer

    keras.utils.set_random_seed(0)
    method = DSPRH(16, fusion_weights=(0, 0.5, 0.5), cov_channels=4, text_hidden=text_hidden)
    model = CrossModalHashing(method, {"bow": 3, "feature": 4, "conv_map": None}, None, None)
    model.compile(make_optimizer("sgd", 0.1), make_optimizer("sgd", 0.1))
    return model


def _checkpoint_samples() -> list[Files]:
    from dsprh_tf.training.checkpoints import Checkpoints

    def write(folder: Path) -> None:
        checkpoints = Checkpoints(_small_model(), folder / "run")
        for epoch in range(2):
            checkpoints.save(epoch, 0.5 + epoch / 10)

    return [_made(write)]


def _checkpoints(folder: Path) -> None:
    from dsprh_tf.training.checkpoints import Checkpoints

    model = _small_model()
    checkpoints = Checkpoints(model, folder / "run")
    epoch = checkpoints.restore_selected()
    check(epoch in (1, 2), f"epoch {epoch}")
    check(checkpoints.resume() in (1, 2), "a run with checkpoints begins at epoch 0")
    check(all(np.isfinite(w).all() for w in model.get_weights()), "weights not finite")


@lru_cache(None)
def _export_model():
    import keras
    import tensorflow as tf

    class Small(keras.Model):
        def __init__(self):
            super().__init__()
            self.bits, self.image_size, self.text_size, self.feature_size = 16, None, 4, 4
            self.image_head, self.text_head = keras.layers.Dense(16), keras.layers.Dense(16)
            self.encode_text(tf.zeros([1, 4]))
            self.encode_image({"feature": tf.zeros([1, 4])})

        def encode_image(self, inputs, training=False):
            return self.image_head(inputs["feature"])

        def encode_text(self, bow, training=False):
            return self.text_head(bow)

    keras.utils.set_random_seed(0)
    return Small()


def _export_samples() -> list[Files]:
    from dsprh_tf.data.text import BagOfWords
    from dsprh_tf.serving.export import export_encoders

    words = BagOfWords(("dog", "beach", "sea", "red"))
    files = _made(lambda folder: export_encoders(_export_model(), folder / "e", words))
    return [{n: c for n, c in files.items() if "text_encoder" in n}]


_RIGHT: dict[str, np.ndarray] = {}


def _export(folder: Path) -> None:
    from dsprh_tf.serving.encoder import Encoder

    encoder = Encoder(folder / "e", "text")
    texts = ["dog", "the red sea", "beach"]
    code = encoder.encode(texts)
    check(code.shape == (3, encoder.bits // 8) and code.dtype == np.uint8, "codes")
    encoder.known_words(texts)
    encoder.unknown_words("dog zebra beech")
    fingerprint = encoder.info["fingerprint"]
    # An export with a fingerprint that is known gives the codes that are known.
    right = _RIGHT.setdefault(fingerprint, code) if len(_RIGHT) < 1 else _RIGHT.get(fingerprint)
    check(right is None or np.array_equal(right, code), "another code under the same fingerprint")


TARGETS = [
    Target("weights_pt", lambda: [{"w.pt": _torch_zip()}], _weights("w.pt")),
    Target("weights_pth", lambda: [{"w.pth": _torch_legacy()}], _weights("w.pth")),
    Target("weights_safetensors", lambda: [{"w.safetensors": _safetensors()}],
           _weights("w.safetensors")),
    Target("weights_npz", lambda: [{"w.npz": npz(**_named())}], _weights("w.npz")),
    Target("weights_h5", _keras_samples(".weights.h5"), _keras(".weights.h5"), allowed=CHILD),
    Target("weights_old_h5", _keras_samples(".h5"), _keras(".h5"), allowed=CHILD),
    Target("weights_keras", _keras_samples(".keras"), _keras(".keras"), allowed=CHILD),
    Target("split", _split_samples, _split),
    Target("run_folder", _run_samples, _run, keeps=True),
    Target("vocabulary", _vocabulary_samples, _vocabulary),
    Target("results", _results_samples, _results),
    Target("trials", _trials_samples, _trials),
    Target("checkpoints", _checkpoint_samples, _checkpoints, keeps=True),
    Target("export", _export_samples, _export),
]  # fmt: skip
