"""Classic baselines against closed forms and naive solutions, their runs and their program."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from dsprh_tf import codes
from dsprh_tf.baseline_run import SETTINGS, BaselineRun
from dsprh_tf.evaluation.own_items import pair_reciprocal_rank
from dsprh_tf.evaluation.results import read_results
from dsprh_tf.evaluation.retrieval import DIRECTIONS, evaluate_directions
from dsprh_tf.methods import METHODS, baselines
from dsprh_tf.methods.baselines import BASELINES
from dsprh_tf.similarity import unit_rows


def linked_pairs(seed=0, rows=200, image=24, text=20, noise=0.3):
    """Pairs of features that mix the same 12 hidden variables, and labels by the first two."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((12, image)), rng.standard_normal((12, text))
    rng = np.random.default_rng([1, seed])
    hidden = rng.standard_normal((rows, 12)) * np.linspace(2, 0.5, 12)
    sides = (hidden @ m + noise * rng.standard_normal((rows, m.shape[1])) for m in mixing)
    labels = np.eye(4, dtype=np.uint8)[2 * (hidden[:, 0] > 0) + (hidden[:, 1] > 0)]
    return (*(side.astype(np.float32) for side in sides), labels)


def random_covariance(rng, size):
    root = rng.standard_normal((size, 3 * size))
    return root @ root.T / (3 * size)


class TestCanonicalDirections:
    def test_correlations_of_a_known_relation(self):
        """Hidden pairs of given correlations, mixed by any invertible matrices."""
        rng = np.random.default_rng(0)
        known = np.array([0.9, 0.6, 0.25, 0.0])
        mix_image, mix_text = rng.standard_normal((6, 6)), rng.standard_normal((4, 4))
        cross = mix_image[:, :4] @ np.diag(known) @ mix_text.T
        image, text = mix_image @ mix_image.T, mix_text @ mix_text.T
        a, b, correlations = baselines.canonical_directions(image, text, cross, ridge=0)
        np.testing.assert_allclose(correlations, known, atol=1e-9)
        np.testing.assert_allclose(a.T @ image @ a, np.eye(4), atol=1e-9)
        np.testing.assert_allclose(b.T @ text @ b, np.eye(4), atol=1e-9)
        np.testing.assert_allclose(a.T @ cross @ b, np.diag(known), atol=1e-9)

    @pytest.mark.parametrize("ridge", [0, 0.5])
    def test_equals_the_naive_eigenproblem(self, ridge):
        rng = np.random.default_rng(1)
        joint = random_covariance(rng, 9)
        image, text, cross = joint[:5, :5], joint[5:, 5:], joint[:5, 5:]
        a, _, correlations = baselines.canonical_directions(image, text, cross, ridge)
        image = image + ridge * np.diag(image).mean() * np.eye(5)
        text = text + ridge * np.diag(text).mean() * np.eye(4)
        matrix = np.linalg.inv(image) @ cross @ np.linalg.inv(text) @ cross.T
        values, vectors = np.linalg.eig(matrix)
        order = np.argsort(-values.real)[:4]
        np.testing.assert_allclose(correlations**2, values.real[order], atol=1e-9)
        for ours, theirs in zip(a.T, vectors.real.T[order]):
            assert abs(ours @ theirs) / np.linalg.norm(ours) == pytest.approx(1)

    def test_unusable_covariances_are_refused(self):
        eye, zero = np.eye(3), np.zeros((3, 3))
        with pytest.raises(ValueError, match="text features of all training pairs are alike"):
            baselines.canonical_directions(eye, zero, zero)
        with pytest.raises(ValueError, match="image features is singular: give a ridge above 0"):
            baselines.canonical_directions(np.diag([1.0, 1, 0]), eye, zero, ridge=0)


class TestCanonicalSpace:
    def test_axes_vary_as_the_correlations_to_a_power(self):
        image, text, _ = linked_pairs()
        plain, scaled = (
            baselines.canonical_space(image, text, 8, ridge=1e-6, power=p) for p in (0, 3)
        )
        x, y = (side(features) for side, features in zip(plain, (image, text)))
        covariance = x.T @ x / len(x)
        np.testing.assert_allclose(covariance, np.eye(8), atol=1e-3)
        correlations = np.diagonal(x.T @ y / len(x))
        assert (np.diff(correlations) < 1e-3).all()
        expected = x * correlations**3
        np.testing.assert_allclose(scaled[0](image), expected, atol=1e-2)

    def test_blocks_do_not_change_it(self, monkeypatch):
        image, text, _ = linked_pairs()
        whole = [
            side(x) for side, x in zip(baselines.canonical_space(image, text, 4), linked_pairs())
        ]
        monkeypatch.setattr(baselines, "_BLOCK_BYTES", 4 * 24 * 7)
        space = baselines.canonical_space(image, text, 4)
        for side, features, expected in zip(space, (image, text), whole):
            values = side(features)
            values *= np.sign((values * expected).sum(axis=0))  # an axis has no sign
            np.testing.assert_allclose(values, expected, atol=1e-4)

    def test_only_as_many_axes_as_there_is_correlation(self):
        image, text, _ = linked_pairs()
        text[:, 3:] = 0
        assert baselines.canonical_space(image, text, 64)[0].matrix.shape == (24, 3)
        signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        with pytest.raises(ValueError, match="do not correlate at all: check that row i"):
            baselines.canonical_space(signs[:, :1], signs[:, 1:], 8)


class TestHyperplanes:
    @pytest.mark.parametrize("angle", [0.2, 1.0, 2.5])
    def test_bits_agree_as_often_as_the_angle_says(self, angle):
        planes = baselines.random_hyperplanes(16, 20_000, np.random.default_rng(5))
        rng = np.random.default_rng(6)
        x, y = np.linalg.qr(rng.standard_normal((16, 2)))[0].T
        y = np.cos(angle) * x + np.sin(angle) * y
        agree = ((x @ planes >= 0) == (y @ planes >= 0)).mean()
        assert agree == pytest.approx(1 - angle / np.pi, abs=0.014)  # 4 standard deviations

    @pytest.mark.parametrize("bits", [8, 16, 40])
    def test_columns_are_orthonormal_within_groups(self, bits):
        planes = baselines.random_hyperplanes(16, bits, np.random.default_rng(0))
        assert planes.shape == (16, bits)
        for start in range(0, bits, 16):
            group = planes[:, start : start + 16]
            np.testing.assert_allclose(group.T @ group, np.eye(group.shape[1]), atol=1e-12)

    def test_each_plane_is_uniform(self):
        """No preferred side: the first coordinate's mean is 0 within chance."""
        rng = np.random.default_rng(2)
        firsts = [baselines.random_hyperplanes(4, 4, rng)[0] for _ in range(2000)]
        assert np.abs(np.mean(firsts, axis=0)).max() < 4 * 0.5 / np.sqrt(2000)


class TestITQ:
    def test_rotation_is_orthogonal_and_lowers_the_quantisation_error(self):
        rng = np.random.default_rng(0)
        corners = rng.choice([-1.0, 1.0], (400, 16)) + 0.3 * rng.standard_normal((400, 16))
        hidden = np.linalg.qr(rng.standard_normal((16, 16)))[0]
        values = corners @ hidden

        def error(rotation):
            rotated = values @ rotation
            return ((np.sign(rotated) - rotated) ** 2).mean()

        found = baselines.itq_rotation(values, seed=3)
        np.testing.assert_allclose(found.T @ found, np.eye(16), atol=1e-12)
        assert error(found) == pytest.approx(error(hidden.T), rel=0.05)  # the corners again
        others = [np.linalg.qr(rng.standard_normal((16, 16)))[0] for _ in range(20)]
        assert error(found) < 0.3 * min(map(error, [np.eye(16), *others]))

    def test_every_iteration_lowers_the_error(self):
        values = np.random.default_rng(0).standard_normal((200, 8)) * np.linspace(3, 0.1, 8)
        errors = []
        for iterations in range(12):
            rotated = values @ baselines.itq_rotation(values, 0, iterations)
            errors.append(((np.sign(rotated) - rotated) ** 2).mean())
        assert (np.diff(errors) <= 1e-12).all()
        assert errors[-1] < 0.95 * errors[0]

    def test_the_seed_decides(self):
        values = np.random.default_rng(1).standard_normal((100, 8))
        first, again, other = (baselines.itq_rotation(values, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.1


GENERAL = sorted(name for name, kind in BASELINES.items() if not kind.only_shared)


@pytest.mark.parametrize("name", GENERAL)
class TestEveryBaseline:
    def test_held_out_partners_find_each_other(self, name):
        image, text, _ = linked_pairs(0)
        fitted = baselines.fit(name, image, text, 16, seed=0)
        image, text, labels = linked_pairs(1, rows=60)
        values = fitted.encode(image, text)
        assert values[0].shape == values[1].shape == (60, 16)
        if fitted.binary:
            assert pair_reciprocal_rank(*map(codes.pack, values)) > 0.5
        else:
            nearest = (unit_rows(values[0]) @ unit_rows(values[1]).T).argmax(axis=1)
            assert (nearest == np.arange(60)).mean() > 0.8
        results = evaluate_directions(*(
            fitted.encoded(*linked_pairs(seed, rows)) for seed, rows in ((1, 60), (2, 150))
        ))  # fmt: skip
        for direction in DIRECTIONS:
            assert results[direction]["map"] > 1.3 * results["chance"], direction

    def test_same_seed_same_values_whatever_the_block(self, name, monkeypatch):
        image, text, _ = linked_pairs()
        first = baselines.fit(name, image, text, 16, seed=1).encode(image, text)
        fitted = baselines.fit(name, image, text, 16, seed=1)
        monkeypatch.setattr(baselines, "_BLOCK_BYTES", 4 * 24 * 7)
        for a, b in zip(first, fitted.encode(image, text)):
            np.testing.assert_allclose(a, b, atol=1e-5)
            assert a.dtype.kind == "f"

    def test_lengths_of_features_do_not_matter(self, name):
        """Rows count by direction; whole numbers (bags of words) are features, too."""
        image, text, _ = linked_pairs()
        text = (text > 0).astype(np.uint8)
        scale = np.random.default_rng(0).uniform(0.5, 2, (len(image), 1))
        fitted = baselines.fit(name, image, text, 16, seed=0)
        scaled = baselines.fit(name, image * scale, text * 1.5, 16, seed=0)
        before, after = fitted.encode(image, text), scaled.encode(image * scale, text)
        agree = [(np.sign(a) == np.sign(b)).mean() for a, b in zip(before, after)]
        assert min(agree) > 0.99

    def test_shared_space(self, name):
        """Both modalities by the same map: equal embeddings get equal codes."""
        image, _, labels = linked_pairs()
        fitted = baselines.fit(name, image, image + 0, 16, seed=0, shared_space=True)
        encoded = fitted.encoded(image, image, labels)
        np.testing.assert_array_equal(encoded.image_codes, encoded.text_codes)
        assert encoded.image_within is None
        assert encoded.text_within is None
        if not fitted.binary:
            np.testing.assert_array_equal(encoded.image_codes, image)
        with pytest.raises(ValueError, match="24 dimensions and text features 20"):
            baselines.fit(name, image, linked_pairs()[1], 16, seed=0, shared_space=True)

    def test_more_bits_than_dimensions(self, name):
        image, text, _ = linked_pairs()
        if name == "cca_itq":
            with pytest.raises(ValueError, match="span 20, fewer than 32 bits"):
                baselines.fit(name, image, text, 32, seed=0)
            return
        values = baselines.fit(name, image, text, 32, seed=0).encode(image, text)
        assert values[0].shape == values[1].shape == (200, 32 if name == "lsh" else 20)


def test_within_a_modality_lsh_and_float_use_the_features_themselves():
    image, text, labels = linked_pairs()
    text = (text > 0).astype(np.uint8)
    encoded = baselines.fit("float", image, text, 8, seed=0).encoded(image, text, labels)
    np.testing.assert_array_equal(encoded.image_within, image)
    np.testing.assert_array_equal(encoded.text_within, text)
    assert encoded.text_within.dtype == np.float32  # uint8 would pass for packed codes
    encoded = baselines.fit("lsh", image, text, 8, seed=0).encoded(image, text, labels)
    assert encoded.image_within.shape == encoded.text_within.shape == (200, 1)
    # 4,000 bits of it estimate the angles of the centred features.
    many = baselines.fit("lsh", image, text, 4000, seed=0).encoded(image[:9], text[:9], labels[:9])
    distance = codes.hamming_distance(many.image_within, many.image_within) / 4000
    centred = unit_rows(unit_rows(image[:9]) - unit_rows(image).mean(axis=0))
    angles = np.arccos(np.clip(centred @ centred.T, -1, 1)) / np.pi
    np.testing.assert_allclose(distance, angles, atol=0.035)
    assert baselines.fit("cca_itq", image, text, 8, seed=0).image_within is None


def test_cca_itq_rotates_the_float_embedding():
    image, text, _ = linked_pairs()
    embeddings, values = (
        np.concatenate(baselines.fit(name, image, text, 16, seed=0).encode(image, text))
        for name in ("float", "cca_itq")
    )
    np.testing.assert_allclose(values @ values.T, embeddings @ embeddings.T, atol=1e-4)


class TestSign:
    def test_codes_are_the_signs_and_nothing_is_fitted(self):
        image, text, labels = linked_pairs(text=24)
        image[0, :3] = 0, -0.0, -1e-30
        fitted = baselines.fit("sign", image, text, 24, seed=0, shared_space=True)
        encoded = fitted.encoded(image, text, labels)
        np.testing.assert_array_equal(encoded.image_codes, np.packbits(image >= 0, axis=1))
        np.testing.assert_array_equal(encoded.text_codes, np.packbits(text >= 0, axis=1))
        assert encoded.image_within is None and encoded.text_within is None
        assert codes.unpack(encoded.image_codes)[0, :3].tolist() == [1, 1, -1]

    def test_what_has_no_signs_of_its_own_is_refused(self):
        image, text, _ = linked_pairs(text=24)
        for changed, message in (
            ({"bits": 16}, "embeddings have 24, received 16 bits: give --bits=24, or .* lsh"),
            ({"bits": 32}, "embeddings have 24, received 32 bits"),
            ({"shared_space": False}, "give --shared_space if they share a space"),
            ({"text_features": linked_pairs()[1]}, "24 dimensions and text features 20"),
            ({"image_features": abs(image)}, "image embeddings has one sign in all training pairs"),
            ({"text_features": -abs(text) - 1}, "text embeddings has one sign in all"),
        ):  # fmt: skip
            call = {"image_features": image, "text_features": text, "bits": 24, **changed}
            with pytest.raises(ValueError, match=message) as error:
                baselines.fit("sign", **{"seed": 0, "shared_space": True, **call})
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "pca"}, "baseline is 'pca', expected one of cca_itq, float, lsh"),
        ({"bits": 12}, "bits must be a positive multiple of 8"),
        ({"text_features": np.ones((7, 5))}, r"\[200, 24\] and \[7, 5\], expected"),
        ({"image_features": np.ones(200)}, r"\[200\] and \[200, 20\], expected"),
        ({"text_features": np.full((200, 5), np.nan)}, "text features hold nan or inf"),
        ({"image_features": np.ones((200, 5))}, "image features of all training pairs are alike"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(change, message):
    image, text, _ = linked_pairs()
    call = {"name": "float", "image_features": image, "text_features": text, "bits": 8, "seed": 0}
    with pytest.raises(ValueError, match=message) as error:
        baselines.fit(**{**call, **change})
    assert "\n" not in str(error.value)


def test_the_first_bad_row_is_named_and_other_widths_are_refused(monkeypatch):
    monkeypatch.setattr(baselines, "_BLOCK_BYTES", 4 * 24 * 7)
    image, text, _ = linked_pairs()
    image[[33, 40], 2] = np.inf
    with pytest.raises(ValueError, match="image features hold nan or inf in training row 33,"):
        baselines.fit("lsh", image, text, 8, seed=0)
    fitted = baselines.fit("lsh", *linked_pairs()[:2], 8, seed=0)
    with pytest.raises(ValueError, match=r"shape \[200, 23\], expected \[n, 24\]"):
        fitted.encode(image[:, 1:], text)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Precomputed features of linked pairs; the first 24 columns are both modalities' space."""
    image, text, labels = linked_pairs(0, rows=120, text=24)
    path = tmp_path_factory.mktemp("features") / "vectors.npz"
    np.savez(path, image=image, text=text, labels=labels)
    return path


def vector_flags(path, run_dir, *changes):
    return [
        "--dataset=features", f"--data_dir={path}", "--queries=20", "--train_pairs=90",
        "--bits=16", f"--run_dir={run_dir}", *changes,
    ]  # fmt: skip


class TestRun:
    """The library side of the program."""

    def settings(self, vectors):
        return {
            "dataset": "features", "data_dir": str(vectors), "queries": 20, "train_pairs": 90,
            "bits": 16,
        }  # fmt: skip

    def test_python_writes_what_the_program_writes(self, program, vectors, tmp_path):
        record = BaselineRun("lsh", tmp_path / "python", **self.settings(vectors)).evaluate()
        outcome = program("baseline", "--baseline=lsh", *vector_flags(vectors, tmp_path / "cli"))
        assert str(record) in outcome.out
        files = [(tmp_path / name / "results.json").read_bytes() for name in ("python", "cli")]
        assert files[0] == files[1]
        flags = [json.loads((tmp_path / n / "flags.json").read_text()) for n in ("python", "cli")]
        assert set(flags[0]) == {*SETTINGS, "baseline", "shared_space"}
        assert {n for n in flags[0] if flags[0][n] != flags[1][n]} == {"run_dir"}

    def test_a_finished_folder_of_an_earlier_version_is_read(self, vectors, tmp_path):
        run = BaselineRun("lsh", tmp_path, **self.settings(vectors))
        first = run.evaluate()
        flags = json.loads((tmp_path / "flags.json").read_text())
        flags["reference"] = flags.pop("baseline")
        (tmp_path / "flags.json").write_text(json.dumps(flags))
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert run.evaluate() == first
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
        with pytest.raises(ValueError, match=r"other flags \(--baseline: was lsh\)"):
            BaselineRun("float", tmp_path, **self.settings(vectors)).evaluate()

    def test_the_folder_is_free_again_also_after_an_error(self, vectors, tmp_path):
        settings = {**self.settings(vectors), "bits": 64}
        for name, works in (("cca_itq", False), ("lsh", True)):
            run = BaselineRun(name, tmp_path, **settings)
            if works:
                assert run.evaluate()["method"] == name
            else:
                with pytest.raises(ValueError, match="fewer than 64 bits"):
                    run.evaluate()

    def test_the_folder_is_named_by_the_baseline(self):
        assert str(BaselineRun("float", seed=3).folder.path) == "runs/float-pairs-64-3"

    @pytest.mark.parametrize(
        ("name", "settings", "message"),
        [
            ("pca", {}, "baseline is 'pca', expected one of cca_itq, float, lsh, sign"),
            ("sign", {}, "the baseline sign compares .* as they are: give --shared_space"),
            ("lsh", {"epochs": 3}, "epochs does not count for a baseline, expected some of bits,"),
            ("lsh", {"beta": 3}, "beta does not count for a baseline"),
            ("lsh", {"bits": 12}, "bits must be a positive multiple of 8"),
            ("lsh", {"image_size": 300}, "--image_size=300 is larger than --resize=256"),
        ],
    )
    def test_wrong_settings_are_refused_before_any_data_is_read(self, name, settings, message):
        with pytest.raises(ValueError, match=f"^{message}") as error:
            BaselineRun(name, **settings)
        assert "\n" not in str(error.value)


class TestProgram:
    @pytest.mark.parametrize("name", GENERAL)
    def test_features_end_to_end(self, program, vectors, tmp_path, name):
        flags = [f"--baseline={name}", *vector_flags(vectors, tmp_path / "run")]
        # It could not be trained on vectors: what a flag file says of training does not count.
        method = next(name for name, m in METHODS.items() if not m.takes_features)
        outcome = program("baseline", *flags, "--gamma=0.5", "--epochs=7", f"--method={method}")
        assert outcome.code == 0, outcome.err
        record = read_results(tmp_path / "run" / "results.json")
        assert (record["method"], record["bits"], record["dataset"]) == (name, 16, "features")
        assert (record["queries"], record["database"]) == (20, 100)
        for direction in DIRECTIONS:
            assert record[direction]["map"] > 1.2 * record["chance"]
            assert f"{record[direction]['map@50']:.4f}" in outcome.out
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert {"results.csv", "curves.png", "flags.json", "split.json", "versions.json"} <= names

    def test_the_fit_sees_training_pairs_and_no_labels(self, program, vectors, tmp_path):
        """Its codes are those of a fit on the run's own training pairs."""
        run_dir = tmp_path / "run"
        flags = vector_flags(vectors, run_dir, "--baseline=cca_itq", "--validation=10")
        assert program("baseline", *flags).code == 0
        split = json.loads((run_dir / "split.json").read_text())
        assert len(split["train"]) == 80
        arrays = np.load(vectors)
        rows = {part: np.array(split[part], int) for part in ("train", "query", "database")}
        pairs = {part: (arrays["image"][r], arrays["text"][r]) for part, r in rows.items()}
        fitted = baselines.fit("cca_itq", *pairs["train"], 16, seed=0)
        expected = evaluate_directions(
            *(fitted.encoded(*pairs[p], arrays["labels"][rows[p]]) for p in ("query", "database"))
        )
        record = read_results(run_dir / "results.json")
        assert {d: record[d] for d in DIRECTIONS} == {d: expected[d] for d in DIRECTIONS}

    def test_finished_run_is_printed_and_others_are_refused(self, program, vectors, tmp_path):
        run_dir = tmp_path / "run"
        flags = ["--baseline=lsh", *vector_flags(vectors, run_dir)]
        first = program("baseline", *flags)
        before = {path: path.stat().st_mtime_ns for path in run_dir.iterdir()}
        again = program("baseline", *flags, "--data_dir=/moved", "--beta=0.2", "--cache_dir=x")
        assert again.code == 0
        assert again.out == re.sub("^data: .*\n", "", first.out, flags=re.MULTILINE)
        assert {path: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before
        line = program("baseline", *flags, "--baseline=float", "--seed=1").line
        assert "results of other flags (--seed: was 0, --baseline: was lsh)" in line
        changed = program("baseline", *flags, "--baseline=float", "--seed=1", "--overwrite")
        assert changed.code == 0, changed.err
        assert read_results(run_dir / "results.json")["method"] == "float"

    def test_half_written_is_redone_and_other_versions_are_refused(
        self, program, vectors, tmp_path
    ):
        run_dir = tmp_path / "run"
        flags = ["--baseline=lsh", *vector_flags(vectors, run_dir)]
        assert program("baseline", *flags).code == 0
        results = run_dir / "results.json"
        record = results.read_bytes()
        results.unlink()
        (run_dir / "split.json").write_text("{")
        assert program("baseline", *flags).code == 0
        assert results.read_bytes() == record
        results.write_text(record.decode().replace('"format": 1', '"format": 0'))
        assert f"{results} is a results file of another version" in program("baseline", *flags).line

    def test_shared_space(self, program, vectors, tmp_path):
        flags = vector_flags(vectors, tmp_path / "run", "--shared_space", "--baseline=cca_itq")
        outcome = program("baseline", *flags)
        assert outcome.code == 0, outcome.err
        assert json.loads((tmp_path / "run" / "flags.json").read_text())["shared_space"] is True

    def test_sign(self, program, vectors, tmp_path):
        flags = vector_flags(vectors, tmp_path / "run", "--shared_space", "--baseline=sign")
        assert "give --bits=24" in program("baseline", *flags).line
        outcome = program("baseline", *flags, "--bits=24")
        assert outcome.code == 0, outcome.err
        assert read_results(tmp_path / "run" / "results.json")["bits"] == 24

    def test_images_and_texts(self, program, small_flags, tmp_path):
        """The frozen backbone's features, from the cache that a trained run would use."""
        cache = tmp_path / "cache"
        flags = [*small_flags, f"--cache_dir={cache}", f"--run_dir={tmp_path / 'run'}"]
        outcome = program("baseline", *flags, "--baseline=cca_itq", "--bits=8")
        assert outcome.code == 0, outcome.err
        assert "frozen backbone" in outcome.err
        record = read_results(tmp_path / "run" / "results.json")
        assert (record["queries"], record["database"]) == (20, 100)
        assert record["text_to_text"]["map"] > 1.2 * record["chance"]
        flags[-1] = f"--run_dir={tmp_path / 'other'}"
        outcome = program("baseline", *flags, "--baseline=float", "--bits=8")
        assert outcome.code == 0, outcome.err
        assert "frozen backbone" not in outcome.err

    def test_what_cannot_be_done_is_one_line(self, program, vectors, tmp_path):
        flags = vector_flags(vectors, tmp_path / "run")
        assert "needs --baseline, one of cca_itq, float, lsh" in program("baseline", *flags).line
        flags.append("--baseline=cca_itq")
        assert "fewer than 64 bits" in program("baseline", *flags, "--bits=64").line

    @pytest.mark.parametrize("baseline", ["lsh", "float"])
    def test_without_labels_own_texts_are_looked_for(self, program, vectors, tmp_path, baseline):
        arrays = np.load(vectors)
        np.savez(tmp_path / "bare.npz", image=arrays["image"], text=arrays["text"])
        flags = [*vector_flags(tmp_path / "bare.npz", tmp_path / "run"), f"--baseline={baseline}"]
        outcome = program("baseline", *flags)
        assert outcome.code == 0, outcome.err
        assert "no labels: recall and median rank of each query's own text or image" in outcome.out
        record = read_results(tmp_path / "run" / "results.json")
        assert record["compared_by"] == ("cosine" if baseline == "float" else "hamming")
        assert 0 < record["neighbour_map"] <= 1 and "map" not in record["image_to_text"]
        size = record["queries"] + record["database"]
        assert 1 <= record["text_to_image"]["median_rank"] <= size

    def test_help(self, program):
        outcome = program("baseline", "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert re.findall(r"^(\w+):$", outcome.out, re.M) == [
            "baseline",
            "data",
            "features",
            "run",
        ]
        for flag in re.findall(r"^  --(\w+)", outcome.out, re.M):
            assert re.search(rf"^  --{flag} +\S", outcome.out, re.M), f"{flag} is not explained"
