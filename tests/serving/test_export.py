"""Exported encoders: TensorFlow Serving's contract, exact codes, atomic publication."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from dsprh_tf import codes
from dsprh_tf.data import preprocess
from dsprh_tf.data.text import BagOfWords
from dsprh_tf.methods import DSPRH
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.serving import export, suggestions
from dsprh_tf.serving.encoder import KINDS, Encoder

BITS, SIZE, RESIZE = 16, 24, 28
WORDS = ("dog", "grass", "red", "beach", "boat")
TEXTS = ["A dog on GRASS.", "red boat, beach!", "zebra", "", "dog dog dog"]


class SmallModel(keras.Model):
    """What an export needs of a model; deliberately with a batch norm and an unused branch."""

    def __init__(self, image_size=SIZE, text_size=5, feature_size=7):
        super().__init__()
        self.bits, self.image_size = BITS, image_size
        self.text_size, self.feature_size = text_size, feature_size
        self.conv = keras.layers.Conv2D(4, 3, strides=2, activation="relu")
        self.norm = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.image_head = keras.layers.Dense(BITS)
        self.text_head = keras.layers.Dense(BITS)
        self.decoder = keras.layers.Dense(1000)  # of no use once the model is trained
        self.encode_text(tf.zeros([1, text_size]))
        if image_size is None:
            self.encode_image({"feature": tf.zeros([1, feature_size])})
        else:
            self.encode_image({"pixels": tf.zeros([1, image_size, image_size, 3])})
        self.decoder(tf.zeros([1, BITS]))

    def encode_image(self, inputs, training=False):
        if self.image_size is None:
            return self.image_head(inputs["feature"])
        x = self.norm(self.conv(inputs["pixels"] / 127.5 - 1.0), training=training)
        return self.image_head(self.pool(x))

    def encode_text(self, bow, training=False):
        return self.text_head(bow)


def jpeg(seed, height=30, width=40):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


IMAGES = [jpeg(0), jpeg(1, 60, 25), jpeg(2, 28, 28), jpeg(3, 1, 90), jpeg(4)]


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(1)
    return SmallModel(), BagOfWords(WORDS)


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    model, bag = small
    folder = tmp_path_factory.mktemp("savedmodels") / "run"
    paths = export.export_encoders(
        model, folder, bag, IMAGES[:2], TEXTS[:2], resize=RESIZE, method="dsprh"
    )
    return folder, paths


@pytest.fixture(scope="module")
def text_encoder(exported):
    return Encoder(exported[0], "text")


def image_hash(model, images):
    pixels = [preprocess.resize_crop(preprocess.decode_image(b), SIZE, RESIZE) for b in images]
    return model.encode_image({"pixels": tf.stack(pixels)}).numpy()


def signature_defs(path):
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert "serve" in graph.meta_info_def.tags
    return graph.signature_def


def predict(path, model, request):
    """What TensorFlow Serving does with a PredictRequest: checks it by the SignatureDef, runs."""
    definition = signature_defs(path)[request.model_spec.signature_name]
    assert definition.method_name == "tensorflow/serving/predict"
    assert set(request.inputs) == set(definition.inputs)
    for name, expected in definition.inputs.items():
        sent = request.inputs[name]
        assert sent.dtype == expected.dtype
        shape = tf.TensorShape(expected.tensor_shape)
        assert shape.is_compatible_with(tf.TensorShape(sent.tensor_shape))
        assert shape[0] is None  # batching needs a free first dimension
    function = model.signatures[request.model_spec.signature_name]
    outputs = function(**{k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()})
    response = predict_pb2.PredictResponse(model_spec=request.model_spec)
    assert set(outputs) == set(definition.outputs)
    for name, value in outputs.items():
        assert value.dtype.as_datatype_enum == definition.outputs[name].dtype
        assert tf.TensorShape(definition.outputs[name].tensor_shape)[0] is None
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    # Over the wire and back.
    return predict_pb2.PredictResponse.FromString(response.SerializeToString())


def predict_request(name, signature, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def check_response(response, h):
    assert set(response.outputs) == {"code", "hash"}
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["hash"]), h, atol=1e-5)
    code = tf.make_ndarray(response.outputs["code"])
    assert code.dtype == np.uint8
    np.testing.assert_array_equal(code, codes.pack(h))


def test_image_contract(small, exported):
    model, path = small[0], exported[1]["image_encoder"]
    loaded = tf.saved_model.load(str(path))
    assert set(loaded.signatures) == {"serving_default", "pixels"}
    h = image_hash(model, IMAGES)
    request = predict_request("image_encoder", "serving_default", image_bytes=IMAGES)
    check_response(predict(path, loaded, request), h)
    one = predict_request("image_encoder", "serving_default", image_bytes=IMAGES[:1])
    check_response(predict(path, loaded, one), h[:1])
    pixels = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    request = predict_request("image_encoder", "pixels", pixels=pixels)
    check_response(predict(path, loaded, request), model.encode_image({"pixels": pixels}).numpy())


def test_text_contract(small, exported):
    (model, bag), path = small, exported[1]["text_encoder"]
    loaded = tf.saved_model.load(str(path))
    assert set(loaded.signatures) == {"serving_default", "bow", "known_words"}
    h = model.encode_text(bag(TEXTS)).numpy()
    check_response(
        predict(path, loaded, predict_request("text_encoder", "serving_default", text=TEXTS)), h
    )
    bow = bag.encode(TEXTS)
    check_response(predict(path, loaded, predict_request("text_encoder", "bow", bow=bow)), h)
    known = predict(path, loaded, predict_request("text_encoder", "known_words", text=TEXTS))
    np.testing.assert_array_equal(tf.make_ndarray(known.outputs["count"]), [2, 3, 0, 0, 1])


def test_empty_batch(exported):
    for kind, name in (("image", "image_bytes"), ("text", "text")):
        loaded = tf.saved_model.load(str(exported[1][f"{kind}_encoder"]))
        out = loaded.signatures["serving_default"](**{name: tf.constant([], tf.string)})
        assert out["code"].shape == (0, BITS // 8)
        assert out["hash"].shape == (0, BITS)


def test_zero_is_a_set_bit():
    h = np.array([[0.0, -0.0, -1e-30, 1e-30, -1, 1, 0, -5]], np.float32)
    np.testing.assert_array_equal(export._outputs(tf.constant(h), 8)["code"], codes.pack(h))


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_requests_run(kind, exported):
    path = exported[1][f"{kind}_encoder"]
    loaded = tf.saved_model.load(str(path))
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(file))
    ]
    name = {"image": "image_bytes", "text": "text"}[kind]
    items = [list(tf.make_ndarray(request.inputs[name])) for request in requests]
    sent = IMAGES[:2] if kind == "image" else [text.encode() for text in TEXTS[:2]]
    assert items == [sent[:1], sent]
    for request in requests:
        assert request.model_spec.name == f"{kind}_encoder"
        predict(path, loaded, request)


def test_server_files(exported):
    folder, paths = exported
    config = text_format.Parse(
        paths["models_config"].read_text(), model_server_config_pb2.ModelServerConfig()
    )
    entries = [(c.name, c.base_path, c.model_platform) for c in config.model_config_list.config]
    assert entries == [(n, f"/models/{n}", "tensorflow") for n in ("image_encoder", "text_encoder")]
    assert "max_batch_size { value: 32 }" in paths["batching_parameters"].read_text()
    infos = [
        json.loads((paths[f"{kind}_encoder"] / "assets.extra" / "encoder.json").read_text())
        for kind in KINDS
    ]
    assert [info.pop("encoder") for info in infos] == ["image", "text"]
    for info in infos:  # each has the checksums of its own files
        assert "saved_model.pb" in info.pop("files")
    assert infos[0] == infos[1]
    assert (infos[0]["bits"], infos[0]["method"]) == (BITS, "dsprh")
    assert infos[0]["vocabulary_size"] == len(WORDS)
    assert len(infos[0]["fingerprint"]) == 64


def test_only_the_encoders_weights_are_exported(exported):
    def shapes(kind):
        prefix = str(exported[1][f"{kind}_encoder"] / "variables" / "variables")
        saved = tf.train.list_variables(prefix)
        return sorted(tuple(shape) for name, shape in saved if "VARIABLE_VALUE" in name)

    assert shapes("text") == sorted([(len(WORDS), BITS), (BITS,)])
    assert shapes("image") == sorted([(3, 3, 3, 4), *[(4,)] * 5, (4, BITS), (BITS,)])


FOREIGN = """
import json, sys
from pathlib import Path
try:
    import dsprh_tf
    raise SystemExit("dsprh_tf can be imported here")
except ModuleNotFoundError:
    pass
import tensorflow as tf
image = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
text = tf.saved_model.load(sys.argv[2]).signatures["serving_default"]
files = [p.read_bytes() for p in sorted(Path(sys.argv[3]).iterdir())]
print(json.dumps([
    image(image_bytes=tf.constant(files))["code"].numpy().tolist(),
    text(text=tf.constant(json.loads(sys.argv[4])))["code"].numpy().tolist(),
]))
"""


def test_loads_without_this_package(small, exported, tmp_path):
    """Nor with tensorflow-text, which registers operations of its own."""
    model, bag = small
    texts = [*TEXTS, "DOG’s", "ＢＯＡＴ<br>be&shy;ach", "東京 e\u0301t&eacute; 👍🏽 red"]
    (tmp_path / "images").mkdir()
    for i, content in enumerate(IMAGES):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(content)
    # -I: neither the current folder nor PYTHONPATH is searched; an installed copy is hidden.
    hidden = "import sys; sys.modules['dsprh_tf'] = sys.modules['tensorflow_text'] = None\n"
    script = hidden + FOREIGN
    paths = [str(exported[1][f"{kind}_encoder"]) for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, *paths, str(tmp_path / "images"), json.dumps(texts)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    image_codes, text_codes = json.loads(done.stdout)
    np.testing.assert_array_equal(image_codes, codes.pack(image_hash(model, IMAGES)))
    np.testing.assert_array_equal(text_codes, codes.pack(model.encode_text(bag(texts)).numpy()))
    np.testing.assert_array_equal(bag(texts)[-3:], np.eye(5)[[0, 3, 2]] + np.eye(5)[[0, 4, 2]] > 0)


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).glob("*_encoder/*"))


def test_versions_count_up_together(small, tmp_path):
    (tmp_path / "text_encoder" / "4").mkdir(parents=True)
    paths = export.export_encoders(*small[:1], tmp_path, small[1], resize=RESIZE)
    assert paths["image_encoder"] == tmp_path / "image_encoder" / "5"
    assert listing(tmp_path) == ["image_encoder/5", "text_encoder/4", "text_encoder/5"]
    # Without examples of the caller's there are warm-up requests all the same.
    for kind in KINDS:
        file = paths[f"{kind}_encoder"] / "assets.extra" / "tf_serving_warmup_requests"
        loaded = tf.saved_model.load(str(paths[f"{kind}_encoder"]))
        (record,) = tf.data.TFRecordDataset(str(file))
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        predict(paths[f"{kind}_encoder"], loaded, log.predict_log.request)


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def fails_at_call(number, real):
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(args)
        return full_disk() if len(calls) == number else real(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (tf.saved_model, "save", 1),
        (tf.saved_model, "save", 2),
        (export, "_write_warmup", 2),
        (export.os, "rename", 1),
        (export.os, "rename", 2),
    ],
)
def test_full_disk_publishes_nothing(small, tmp_path, monkeypatch, owner, name, call):
    monkeypatch.setattr(owner, name, fails_at_call(call, getattr(owner, name)))
    with pytest.raises(OSError, match="nothing was published.*No space left") as caught:
        export.export_encoders(small[0], tmp_path, small[1], resize=RESIZE)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_tensorflow_errors_while_writing_are_one_clear_line(small, tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "No space\nleft")

    monkeypatch.setattr(tf.saved_model, "save", broken)
    with pytest.raises(OSError, match="nothing was published: No space left"):
        export.export_encoders(small[0], tmp_path, small[1], resize=RESIZE)
    assert listing(tmp_path) == []


def test_features_model(tmp_path):
    model = SmallModel(image_size=None)
    export.export_encoders(model, tmp_path)
    features = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    image, text = (Encoder(tmp_path, kind) for kind in KINDS)
    np.testing.assert_array_equal(
        image.encode(features, batch_size=2),
        codes.pack(model.encode_image({"feature": features}).numpy()),
    )
    np.testing.assert_array_equal(
        text.encode(features[:, :5]), codes.pack(model.encode_text(features[:, :5]).numpy())
    )
    with pytest.raises(ValueError, match=r"features \[n, 7\], received shape \[5, 3\]"):
        image.encode(features[:, :3])
    features[[2, 4], 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="row 2 .* holds NaN, infinity or a number beyond float32"):
        image.encode(features)
    with pytest.raises(ValueError, match=r"row 1 .* a number beyond float32"):
        image.encode(np.array([[1.0] * 7, [1e300] * 7]))
    with pytest.raises(ValueError, match="has no vocabulary"):
        text.known_words(["dog"])


def test_encoder(small, exported):
    model, bag = small
    image, text = (Encoder(exported[0], kind) for kind in KINDS)
    assert (image.bits, image.version) == (BITS, 1)
    assert image.info["fingerprint"] == text.info["fingerprint"]
    expected = codes.pack(image_hash(model, IMAGES))
    np.testing.assert_array_equal(image.encode(IMAGES, batch_size=2), expected)
    np.testing.assert_array_equal(
        text.encode(TEXTS, batch_size=3, unknown="allow"),
        codes.pack(model.encode_text(bag(TEXTS)).numpy()),
    )
    assert image.encode([]).shape == (0, BITS // 8)
    np.testing.assert_array_equal(text.known_words(TEXTS), [2, 3, 0, 0, 1])
    with pytest.raises(ValueError, match=r"item 3 cannot be encoded: .*Invalid JPEG") as caught:
        image.encode([*IMAGES[:3], IMAGES[3][:200]], batch_size=2)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="takes bytes, item 1 is str"):
        image.encode([IMAGES[0], "a.jpg"])


def test_few_unknown_words_are_compared_with_the_vocabulary(exported, monkeypatch):
    text, compared = Encoder(exported[0], "text"), []
    difflib = suggestions.difflib
    find = difflib.get_close_matches
    monkeypatch.setattr(
        suggestions.difflib,
        "get_close_matches",
        lambda w, all_: compared.append(w) or find(w, all_),
    )
    words = [*(f"boat{i}" for i in range(5)), "beech", "grasp"]
    for _ in range(2):
        found = text.unknown_words(" ".join(words))
        assert list(found) == words
        assert list(found.values()) == [["boat"]] * 5 + [[], []]
    assert text.unknown_words("Beech!") == {"beech": ["beach"]}
    assert compared == [*words[:5], "beech"]


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("dog,BEACH;red/boat", 4, {}),
        ("the dog’s <b>boat</b>&nbsp;“red”", 3, {}),
        ("ＤＯＧ dog\u00adgrass", 1, {"doggrass": ["grass"]}),
        ("dog,beech’s:Boats", 1, {"beech": ["beach"], "boats": ["boat"]}),
        ("犬が", 0, {"犬が": []}),
        ("don’t", 0, {"don't": []}),
        ("dog don’t", 1, {}),
        ("dog \ud800boat", 2, {}),
        ("!?", 0, {}),
    ],
)
def test_words_are_those_of_the_graph(text_encoder, text, known, unknown):
    encoder = text_encoder
    assert encoder.known_words([text]) == [known]
    assert encoder.unknown_words(text) == unknown
    assert encoder.encode([text], unknown="allow").shape == (1, BITS // 8)
    if known:
        assert encoder.encode([text]).shape == (1, BITS // 8)
    else:
        with pytest.raises(ValueError, match="has no word of the vocabulary of 5 words"):
            encoder.encode([text])
        with pytest.raises(ValueError, match="has no word of the vocabulary of 5 words; unknown: "):
            encoder.check_words([text])


def test_texts_of_unknown_words_get_no_code_in_silence(text_encoder):
    """All of them have one code: a search for one finds what it finds for any other."""
    encoder = text_encoder
    texts = ["dog", "giraffe", "dog giraffe", "zebra", ""]
    with pytest.raises(ValueError) as caught:
        encoder.encode(texts)
    line = str(caught.value)
    assert line.startswith("'giraffe' (item 1), 'zebra' (item 3), '' (item 4) have no word of the")
    assert "unknown: giraffe" in line and "unknown='allow'" in line and "\n" not in line
    codes = encoder.encode(texts, unknown="allow")
    np.testing.assert_array_equal(codes[[3, 4]], codes[[1, 1]])
    np.testing.assert_array_equal(codes[[0, 2]], encoder.encode(["dog", "dog giraffe"]))
    assert encoder.encode([]).shape == (0, BITS // 8)
    many = ["dog"] * 600 + [f"xx{i}" for i in range(30)]
    with pytest.raises(ValueError, match=r"'xx0' \(item 600\), .* and 25 more have no word"):
        encoder.encode(many)
    with pytest.raises(ValueError, match="unknown is 'skip', expected 'error' or 'allow'"):
        encoder.encode(["dog"], unknown="skip")


def test_the_rule_of_words_is_part_of_the_fingerprint(small):
    bags = [BagOfWords(WORDS, rule) for rule in ("words", "tags", "lower")]
    assert len({export._fingerprint({kind: [] for kind in KINDS}, bag) for bag in bags}) == 3


def test_whole_model_with_covariance_branches(tmp_path):
    keras.utils.set_random_seed(2)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    conv_map = keras.layers.Conv2D(6, 5, strides=4, activation="relu")(pixels / 255.0)
    feature = keras.layers.GlobalAveragePooling2D()(conv_map)
    backbone = keras.Model(pixels, {"conv_map": conv_map, "feature": feature})
    sizes = {"bow": len(WORDS), "feature": 6, "conv_map": tuple(conv_map.shape[1:])}
    method = DSPRH(BITS, cov_channels=4, text_hidden=8)
    model = CrossModalHashing(method, sizes, backbone, SIZE)
    bag = BagOfWords(WORDS)
    export.export_encoders(model, tmp_path, bag, resize=RESIZE)
    image, text = (Encoder(tmp_path, kind) for kind in KINDS)
    np.testing.assert_array_equal(image.encode(IMAGES), codes.pack(image_hash(model, IMAGES)))
    np.testing.assert_array_equal(
        text.encode(TEXTS, unknown="allow"), codes.pack(model.encode_text(bag(TEXTS)).numpy())
    )


def test_values_to_search_by(small, tmp_path, monkeypatch):
    model, bag = small
    export.export_encoders(model, tmp_path / "new", bag, resize=RESIZE)
    outputs = export._outputs
    with monkeypatch.context() as patched:  # an export by another program, of codes alone
        patched.setattr(export, "_outputs", lambda h, bits: {"code": outputs(h, bits)["code"]})
        export.export_encoders(model, tmp_path / "codes", bag, resize=RESIZE)
    hashes = {"image": image_hash(model, IMAGES), "text": model.encode_text(bag(TEXTS)).numpy()}
    for kind, items in (("image", IMAGES), ("text", TEXTS)):
        encoder = Encoder(tmp_path / "new", kind)
        values = encoder.encode_values(items, batch_size=2, unknown="allow")
        assert (encoder.has_values, values.dtype) == (True, np.float32)
        np.testing.assert_allclose(values, codes.soften(hashes[kind]), atol=1e-4)
        packed = encoder.encode(items, batch_size=2, unknown="allow")
        np.testing.assert_array_equal(codes.pack(values), packed)
        assert encoder.encode_values([]).shape == (0, BITS)
        former = Encoder(tmp_path / "codes", kind)
        signs = former.encode_values(items, unknown="allow")
        assert not former.has_values
        np.testing.assert_array_equal(signs, codes.unpack(former.encode(items, unknown="allow")))
    with pytest.raises(ValueError, match="has no word of the"):
        encoder.encode_values(["giraffe"])
    with pytest.raises(ValueError, match="unknown is 'skip'"):
        encoder.encode_values(["dog"], unknown="skip")


def test_encoder_of_a_missing_or_damaged_export(tmp_path):
    with pytest.raises(ValueError, match="no exported image encoder in"):
        Encoder(tmp_path, "image")
    with pytest.raises(ValueError, match="kind must be 'image' or 'text', received 'picture'"):
        Encoder(tmp_path, "picture")
    (tmp_path / "image_encoder" / "3").mkdir(parents=True)
    with pytest.raises(ValueError, match="is not a complete export"):
        Encoder(tmp_path, "image")
    extra = tmp_path / "image_encoder" / "3" / "assets.extra"
    extra.mkdir()
    (extra / "encoder.json").write_text('{"bits": 16}')
    with pytest.raises(ValueError, match="is damaged, it has no fingerprint") as caught:
        Encoder(tmp_path, "image")
    assert "\n" not in str(caught.value)


def test_bad_arguments(small, tmp_path):
    with pytest.raises(ValueError, match="2 words, the model takes 5"):
        export.export_encoders(small[0], tmp_path, BagOfWords(["dog", "cat"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        export.export_encoders(small[0], tmp_path / "file", small[1])
