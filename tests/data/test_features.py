import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from dsprh_tf.data.features import load_features

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(6, 4))
TEXT = RNG.normal(size=(6, 3)).astype(np.float16)
LABELS = (RNG.random((6, 2)) < 0.5).astype(float)
ALL = {"image": IMAGE, "text": TEXT, "labels": LABELS}


def save_npz(path, arrays):
    np.savez(path, **arrays)


def save_folder(path, arrays):
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)


def save_mat(path, arrays):
    scipy.io.savemat(path, {k: v.astype(np.float64) for k, v in arrays.items()})


def save_sparse_mat(path, arrays):
    sparse = scipy.sparse.csc_matrix(arrays["text"].astype(np.float64))
    save_mat(path, arrays)
    content = scipy.io.loadmat(path)
    scipy.io.savemat(path, {"image": content["image"], "text": sparse, "labels": arrays["labels"]})


def save_hdf5(path, arrays, turn=False, mark=False):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            item = file.create_dataset(name, data=array.T if turn else array)
            if mark:
                item.attrs["MATLAB_class"] = np.bytes_("double")


def save_matlab73(path, arrays):
    save_hdf5(path, arrays, turn=True, mark=True)


def save_turned_hdf5(path, arrays):
    save_hdf5(path, arrays, turn=True)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("f.npz", save_npz),
        ("f", save_folder),
        ("f.mat", save_mat),
        ("sparse.mat", save_sparse_mat),
        ("h.mat", save_hdf5),
        ("m73.mat", save_matlab73),
        ("turned.mat", save_turned_hdf5),
    ],
)
def test_every_container(tmp_path, name, save):
    save(tmp_path / name, ALL)
    data = load_features(tmp_path / name)
    assert data.name == "features"
    np.testing.assert_array_equal(data.image_features, IMAGE.astype(np.float32))
    np.testing.assert_array_equal(data.text_features, TEXT.astype(np.float32))
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.image_features.dtype == data.text_features.dtype == np.float32
    assert data.label_names == ("0", "1")
    assert data.ids.tolist() == list("012345")
    assert data.image_paths is None
    assert data.texts is None
    assert data.notes == (f"6 pairs in {name}: image 4-D, text 3-D, 2 labels",)


def test_matlab73_of_equal_dimensions_is_turned_by_its_mark(tmp_path):
    square = {"image": IMAGE[:4], "text": IMAGE[:4] + 1}
    save_matlab73(tmp_path / "s.mat", square)
    np.testing.assert_array_equal(
        load_features(tmp_path / "s.mat").image_features, IMAGE[:4].astype(np.float32)
    )


@pytest.mark.parametrize("names", [("I", "T", "L"), ("Images", "TEXTS", "Label"), ("img", "txt")])
def test_other_spellings_and_no_labels(tmp_path, names):
    save_npz(tmp_path / "f.npz", dict(zip(names, ALL.values())))
    data = load_features(tmp_path / "f.npz")
    assert data.text_features.shape == (6, 3)
    assert (data.labels is None) == (len(names) == 2)


def changed(name, row, column, value):
    array = ALL[name].astype(np.float64).copy()
    array[row, column] = value
    return {**ALL, name: array}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed("image", 4, 1, np.nan), "f.npz.*image_features row 4 "),
        (changed("text", 2, 0, -np.inf), "f.npz.*text_features row 2 "),
        (changed("labels", 3, 1, 2), "f.npz.*labels row 3 "),
        (changed("labels", 3, 1, 0.5), "f.npz.*labels row 3 "),
        ({**ALL, "labels": LABELS[:5]}, r"labels are \[5, 2\], expected \[6, L\]"),
        ({**ALL, "labels": LABELS[:, 0]}, r"labels has shape \[6\]"),
        ({**ALL, "text": TEXT[:5]}, r"image is \[6, 4\] and text is \[5, 3\]"),
        ({**ALL, "image": IMAGE.T}, r"image is \[4, 6\] and text is \[6, 3\]"),
        ({**ALL, "image": np.zeros((6, 0))}, "shape"),
        ({**ALL, "image": np.array([["a"] * 4] * 6)}, "numeric matrix"),
        ({**ALL, "image": np.array([[None] * 4] * 6)}, "cannot be read .*allow_pickle"),
        ({**ALL, "I": IMAGE}, "has image and I, expected one image"),
        ({"image": IMAGE}, r"no array text \(it has image"),
        ({"image": IMAGE[:0], "text": TEXT[:0]}, "no pair is left"),
    ],
)
def test_refused_arrays(tmp_path, arrays, message):
    save_npz(tmp_path / "f.npz", arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_features(tmp_path / "f.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["f.npz", "f.mat"])
@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04 and no archive" * 20])
def test_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read") as error:
        load_features(tmp_path / name)
    assert "\n" not in str(error.value)


def test_truncated_files(tmp_path):
    for name, save in (("f.npz", save_npz), ("f.mat", save_mat), ("h.mat", save_matlab73)):
        path = tmp_path / name
        save(path, ALL)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=f"{name} (cannot be read|has no array)"):
            load_features(path)


def test_wrong_places(tmp_path):
    with pytest.raises(ValueError, match="does not exist; expected"):
        load_features(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="no array image and no array text"):
        load_features(tmp_path)
    (tmp_path / "f.csv").write_text("1,2", encoding="utf-8")
    with pytest.raises(ValueError, match="not an .npz, a .mat or a folder"):
        load_features(tmp_path / "f.csv")
