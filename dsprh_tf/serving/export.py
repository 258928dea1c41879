"""Export of a trained model as two SavedModels in TensorFlow Serving's layout.

Decoding, resizing and the vocabulary are part of the graphs: a client sends JPEG bytes or plain
text and receives packed codes. Loading them needs TensorFlow, but not this package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from dsprh_tf import codes
from dsprh_tf.data import preprocess
from dsprh_tf.data.files import file_sha256, write_bytes
from dsprh_tf.data.text import OLD_RULES
from dsprh_tf.serving.encoder import EXTRA, INFO, KINDS, WORDS, versions

_WARMUP_BATCH = 32
_BATCHING = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
"""


def export_encoders(
    model,
    export_dir,
    bag_of_words=None,
    warmup_images=(),
    warmup_texts=(),
    resize: int = 256,
    method: str | None = None,
) -> dict[str, Path]:
    """Both encoders of a model, published as the next version of an export folder.

    The image encoder's `serving_default` takes `image_bytes` (string [batch]) and its `pixels`
    takes `pixels` (float32 [batch, size, size, 3]); the text encoder's `serving_default` takes
    `text` (string [batch]), its `bow` takes `bow` (float32 [batch, text_size]) and its
    `known_words` counts the words of `text` that are in the vocabulary. An encoder of precomputed
    features has one signature, which takes `features` (float32 [batch, size]). All others return
    `code` (uint8 [batch, bits / 8], see `codes.pack`) and `hash` (float32 [batch, bits], the
    value before the sign).

    Both are written completely under names that TensorFlow Serving ignores and then renamed; both
    get one version number, and a failed export leaves nothing behind.

    Args:
        model: a built `CrossModalHashing`.
        export_dir: folder that receives `image_encoder/<version>` and `text_encoder/<version>`.
        bag_of_words: the model's `BagOfWords`; None if texts are precomputed features.
        warmup_images: encoded image files (bytes) for the warm-up requests.
        warmup_texts: texts for the warm-up requests.
        resize: short side to which images are resized before the centre crop.
        method: name of the method, recorded in the export.

    Returns:
        Paths under `image_encoder`, `text_encoder`, `models_config`, `batching_parameters`.

    Raises:
        ValueError: the model and the bag of words do not fit together, `bits` is not a multiple
            of 8, or `export_dir` is a file.
        OSError: the export could not be written (a full disk); nothing was published.
    """
    codes.check_bits(model.bits)
    if bag_of_words is not None and len(bag_of_words.vocabulary) != model.text_size:
        raise ValueError(
            f"the bag of words has {len(bag_of_words.vocabulary)} words, the model takes "
            f"{model.text_size}: export with the vocabulary of the run"
        )
    export_dir = Path(export_dir)
    if export_dir.exists() and not export_dir.is_dir():
        raise ValueError(f"{export_dir} is a file: give a folder for the export")
    signatures = {
        "image": _image_signatures(model, resize),
        "text": _text_signatures(model, bag_of_words),
    }
    variables = {
        kind: list({id(v): v for f in functions.values() for v in f.variables}.values())
        for kind, functions in signatures.items()
    }
    warmups = {
        "image": _image_warmup(model, list(warmup_images)),
        "text": _text_warmup(model, bag_of_words, list(warmup_texts)),
    }
    info = {
        "bits": int(model.bits),
        "method": method,
        "image_size": model.image_size,
        "resize": resize,
        "vocabulary_size": None if bag_of_words is None else len(bag_of_words.vocabulary),
        "fingerprint": _fingerprint(variables, bag_of_words),
        "tensorflow": tf.__version__,
    }
    unfinished = {
        kind: export_dir / f"{kind}_encoder" / f".unfinished-{uuid.uuid4().hex}" for kind in KINDS
    }
    try:
        for kind, folder in unfinished.items():
            module = tf.Module()
            module.encoder_variables = variables[kind]
            if kind == "text" and bag_of_words is not None:
                module.vectorizer = bag_of_words.layer  # holds the vocabulary's lookup table
            folder.mkdir(parents=True)
            with _quiet():
                tf.saved_model.save(module, str(folder), signatures=signatures[kind])
            extra = folder / EXTRA
            extra.mkdir()
            if kind == "text" and bag_of_words is not None:
                bag_of_words.save(extra / WORDS)
            entry = {"encoder": kind, **info, "files": _checksums(folder)}
            (extra / INFO).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
            _write_warmup(extra / "tf_serving_warmup_requests", f"{kind}_encoder", warmups[kind])
        paths = {
            "models_config": export_dir / "models.config",
            "batching_parameters": export_dir / "batching_parameters.txt",
        }
        for name, text in (("models_config", _models_config()), ("batching_parameters", _BATCHING)):
            write_bytes(paths[name], text.encode("utf-8"))
        published = _publish(unfinished)
    except (OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"the export to {export_dir} failed and nothing was published: {reason}"
        ) from error
    finally:
        for folder in unfinished.values():
            shutil.rmtree(folder, ignore_errors=True)
    return {**{f"{kind}_encoder": published[kind] for kind in KINDS}, **paths}


@contextlib.contextmanager
def _quiet():
    """Keeps TensorFlow's remarks on its own file writing off the screen."""
    verbosity, level = logging.get_verbosity(), tf.get_logger().level
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        tf.get_logger().setLevel(level)


def _outputs(h: tf.Tensor, bits: int) -> dict[str, tf.Tensor]:
    """Outputs of an encoding signature for hash values [batch, bits]; see `codes.pack`."""
    h = tf.cast(h, tf.float32)
    octets = tf.reshape(tf.cast(h >= 0, tf.int32), [-1, bits // 8, 8])
    code = tf.reduce_sum(octets * [128, 64, 32, 16, 8, 4, 2, 1], axis=-1)
    return {"code": tf.cast(code, tf.uint8), "hash": h}


def _trace(function, name: str, dtype, shape):
    """Concrete function of one named input."""
    spec = tf.TensorSpec(shape, dtype, name=name)
    return tf.function(function, input_signature=[spec]).get_concrete_function()


def _image_signatures(model, resize: int) -> dict:
    if model.image_size is None:

        def encode_features(features):
            return _outputs(model.encode_image({"feature": features}, training=False), model.bits)

        shape = [None, model.feature_size]
        return {"serving_default": _trace(encode_features, "features", tf.float32, shape)}

    size = model.image_size
    spec = tf.TensorSpec([size, size, 3], tf.float32)

    def read(image_bytes):
        return preprocess.resize_crop(preprocess.decode_image(image_bytes), size, resize)

    def encode_pixels(pixels):
        rows = tf.shape(pixels)[0]
        # oneDNN's convolution returns a wrong shape for an empty batch.
        pixels = tf.cond(rows > 0, lambda: pixels, lambda: tf.zeros([1, size, size, 3]))
        h = model.encode_image({"pixels": pixels}, training=False)
        return _outputs(h[:rows], model.bits)

    def encode_bytes(image_bytes):
        # Loop steps do not depend on each other, so that the executor decodes several at once.
        pixels = tf.map_fn(read, image_bytes, fn_output_signature=spec, parallel_iterations=16)
        return encode_pixels(pixels)

    return {
        "serving_default": _trace(encode_bytes, "image_bytes", tf.string, [None]),
        "pixels": _trace(encode_pixels, "pixels", tf.float32, [None, size, size, 3]),
    }


def _text_signatures(model, bag_of_words) -> dict:
    def encode_bow(bow):
        return _outputs(model.encode_text(bow, training=False), model.bits)

    shape = [None, model.text_size]
    if bag_of_words is None:
        return {"serving_default": _trace(encode_bow, "features", tf.float32, shape)}

    def encode_words(text):
        return encode_bow(bag_of_words(text))

    def known_words(text):
        return {"count": tf.math.count_nonzero(bag_of_words(text), axis=-1, dtype=tf.int32)}

    return {
        "serving_default": _trace(encode_words, "text", tf.string, [None]),
        "bow": _trace(encode_bow, "bow", tf.float32, shape),
        "known_words": _trace(known_words, "text", tf.string, [None]),
    }


def _fingerprint(variables: dict, bag_of_words) -> str:
    """Sha256 of all that decides the codes; equal in the two encoders of one export."""
    digest = hashlib.sha256()
    for kind in KINDS:
        values = [variable.numpy() for variable in variables[kind]]
        # TensorFlow lists the variables of a graph in no fixed order.
        for entry in sorted(
            f"{kind} {v.dtype} {v.shape} {hashlib.sha256(v.tobytes()).hexdigest()}" for v in values
        ):
            digest.update(f"{entry}\n".encode())
    if bag_of_words is not None:
        digest.update("\n".join(bag_of_words.vocabulary).encode("utf-8"))
        if bag_of_words.standardize not in OLD_RULES:
            digest.update(f"\n{bag_of_words.standardize}".encode())
        if bag_of_words.forms:
            digest.update(f"\n{sorted(bag_of_words.forms.items())}".encode())
    return digest.hexdigest()


def _image_warmup(model, images: list) -> tuple[str, np.ndarray]:
    if model.image_size is None:
        return "features", np.zeros([1, model.feature_size], np.float32)
    if not images:
        ramp = np.linspace(0, 255, model.image_size).astype(np.uint8)
        picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), -1)
        images = [tf.io.encode_jpeg(picture).numpy()]
    return "image_bytes", np.array(images[:_WARMUP_BATCH], object)


def _text_warmup(model, bag_of_words, texts: list) -> tuple[str, np.ndarray]:
    if bag_of_words is None:
        return "features", np.zeros([1, model.text_size], np.float32)
    texts = texts or [" ".join(bag_of_words.vocabulary[:4])]
    return "text", np.array(texts[:_WARMUP_BATCH], object)


def _write_warmup(path: Path, model_name: str, warmup: tuple[str, np.ndarray]) -> None:
    """Requests that TensorFlow Serving runs before it offers the version: one item, then all."""
    name, items = warmup
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in (items[:1], items) if len(items) > 1 else (items,):
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=predict_pb2.PredictRequest())
            )
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = "serving_default"
            request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
            writer.write(log.SerializeToString())


def _models_config() -> str:
    config = model_server_config_pb2.ModelServerConfig()
    for kind in KINDS:
        name = f"{kind}_encoder"
        config.model_config_list.config.add(
            name=name, base_path=f"/models/{name}", model_platform="tensorflow"
        )
    return text_format.MessageToString(config)


def _checksums(folder: Path) -> dict[str, dict]:
    """Name -> size and sha256 of all files that decide the codes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in files
    }


def _publish(unfinished: dict[str, Path]) -> dict[str, Path]:
    """Finished folders renamed to the next version number that is free in all of them."""
    version = 1 + max(max(versions(f.parent), default=0) for f in unfinished.values())
    published = {}
    try:
        for kind, folder in unfinished.items():
            target = folder.with_name(str(version))
            os.rename(folder, target)
            published[kind] = target
    except OSError:
        for kind, target in published.items():
            os.rename(target, unfinished[kind])  # the caller removes it
        raise
    return published
