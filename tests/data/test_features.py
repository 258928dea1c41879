"""Embeddings in the files that people have: read right, or refused in a line with the fix."""

from __future__ import annotations

import os
import re

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from array_helpers import (
    ALL,
    IMAGE,
    LABELS,
    TEXT,
    torch_file,
    write_folder,
    write_hdf5,
    write_mat5,
    write_mat73,
    write_npz,
)

from dsprh_tf.data.features import load_features

ZERO = np.where(np.arange(6)[:, None] == 2, 0, LABELS)
NAMES = np.array(["dog", "cat", "dog", "sea", "cat", "dog"])
CSR = scipy.sparse.csr_matrix


def same(data, image=IMAGE, text=TEXT, labels=LABELS, names=("0", "1")):
    """Whether a data set has these arrays."""
    assert data.name == "features" and data.image_paths is None and data.texts is None
    assert data.image_features.dtype == data.text_features.dtype == np.float32
    np.testing.assert_array_equal(data.image_features, image.astype(np.float32))
    np.testing.assert_array_equal(data.text_features, text.astype(np.float32))
    if labels is None:
        assert data.labels is None and data.label_names == ()
    else:
        np.testing.assert_array_equal(data.labels, labels)
        assert data.label_names == tuple(names)


def refused(path, message):
    with pytest.raises(ValueError, match=message) as error:
        load_features(path)
    assert "\n" not in str(error.value) and path.name in str(error.value)


CONTAINERS = {
    "npz": ("f.npz", write_npz),
    "packed npz": ("f.npz", lambda path, **arrays: np.savez_compressed(path, **arrays)),
    "folder of npy": ("f", write_folder),
    "folder of sparse npz": (
        "f",
        lambda path, **arrays: write_folder(path, **{n: CSR(a) for n, a in arrays.items()}),
    ),
    "MATLAB 4": ("f.mat", lambda path, **arrays: scipy.io.savemat(path, arrays, format="4")),
    "MATLAB 5": ("f.mat", write_mat5),
    "MATLAB 5, not packed": ("f.mat", lambda path, **a: write_mat5(path, packed=False, **a)),
    "MATLAB 5, sparse": (
        "f.mat",
        lambda path, **a: write_mat5(path, **{n: CSR(array) for n, array in a.items()}),
    ),
    "MATLAB 7.3": ("f.mat", write_mat73),
    "MATLAB 7.3, sparse": (
        "f.mat",
        lambda path, **a: write_mat73(path, **{n: CSR(array) for n, array in a.items()}),
    ),
    "HDF5 named .mat": ("f.mat", write_hdf5),
    "HDF5": ("f.h5", write_hdf5),
    "PyTorch": ("f.pt", lambda path, **arrays: path.write_bytes(torch_file(arrays))),
    "older PyTorch": ("f.pth", lambda p, **arrays: p.write_bytes(torch_file(arrays, legacy=True))),
    "folder of PyTorch": ("f", lambda path, **arrays: write_torch_folder(path, arrays)),
    "safetensors": ("f.safetensors", lambda path, **arrays: write_safetensors(path, arrays)),
}


def write_torch_folder(path, arrays):
    path.mkdir()
    for name, array in arrays.items():
        (path / f"{name}.pt").write_bytes(torch_file({"": array}))


def write_safetensors(path, arrays):
    import safetensors.numpy

    safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize(("name", "write"), CONTAINERS.values(), ids=CONTAINERS)
def test_every_container(tmp_path, name, write):
    write(tmp_path / name, **ALL)
    data = load_features(tmp_path / name)
    same(data)
    assert data.ids.tolist() == list("012345") and data.given_split is None
    assert data.notes == (f"6 pairs in {name}: image 4-D, text 3-D, 2 labels",)


def one_hot(*classes):
    return (np.array(classes)[:, None] == np.unique([c for c in classes if c >= 0])).astype(int)


LABEL_ARRAYS = {
    "True and False": (LABELS > 0, LABELS, "01", None),
    "floats": (LABELS.astype(np.float64), LABELS, "01", None),
    "-1 and 1": (LABELS * 2.0 - 1, LABELS, "01", "values -1 and 1, of which -1 was read as 0"),
    "classes from 0": (np.array([0, 2, 1, 0, 2, 1]), one_hot(0, 2, 1, 0, 2, 1), "012",
                       "class indices 0 to 2, 3 classes"),
    "classes from 1, [N, 1]": (np.array([[1.0], [2], [1], [2], [3], [1]]),
                               one_hot(1, 2, 1, 2, 3, 1), "123", "class indices 1 to 3"),
    "classes [1, N]": (np.array([[3, 3, 7, 3, 7, 3]]), one_hot(3, 3, 7, 3, 7, 3), "37",
                       "class indices 3 to 7, 2 classes"),
    "0 and 1 alone": (np.array([0, 1, 1, 0, 0, 1]), one_hot(0, 1, 1, 0, 0, 1), "01",
                      "class indices 0 to 1"),
    "-1 for none": (np.array([0, -1, 1, 0, 1, 0]), one_hot(0, -1, 1, 0, 1, 0), "01",
                    "-1 as no label"),
    "names": (NAMES, one_hot(1, 0, 1, 2, 0, 1), ("cat", "dog", "sea"), r"3 labels \(cat, dog, sea"),
    "names as bytes": (NAMES.astype("S"), one_hot(1, 0, 1, 2, 0, 1), ("cat", "dog", "sea"), "3 l"),
    "names [N, 1]": (NAMES[:, None], one_hot(1, 0, 1, 2, 0, 1), ("cat", "dog", "sea"), "3 labels"),
    "separated names": (np.array(["a;b", "b", "a", "a;b", "", "b"]),
                        [[1, 1], [0, 1], [1, 0], [1, 1], [0, 0], [0, 1]], "ab", "separated by ;"),
    "names [N, K]": (np.array([["a", "b"], ["b", ""], ["a", ""], ["a", "b"], ["", ""], ["b", ""]]),
                     [[1, 1], [0, 1], [1, 0], [1, 1], [0, 0], [0, 1]], "ab", "2 labels, in lists"),
    "transposed": (LABELS.T, LABELS, "01", "labels is 2 x 6, read as 6 x 2: transposed"),
    "[N, 1, L]": (LABELS[:, None], LABELS, "01", None),
    "pairs without a label": (ZERO, ZERO, "01", "1 of 6 pairs have no label"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "expected", "names", "note"), LABEL_ARRAYS.values(), ids=LABEL_ARRAYS
)
def test_labels_are_understood(tmp_path, labels, expected, names, note):
    data = load_features(write_npz(tmp_path / "f.npz", **{**ALL, "labels": labels}))
    same(data, labels=expected, names=names)
    if note is None:
        assert len(data.notes) == 1
    else:
        assert any(re.search(note, line) for line in data.notes[1:]), data.notes


def changed(name, row, column, value):
    array = ALL[name].astype(np.float64)
    array[row, column] = value
    return {**ALL, name: array}


BAD_LABELS = {
    "NaN": (changed("labels", 3, 1, np.nan)["labels"], "labels row 3 .* holds NaN"),
    "counts": (changed("labels", 3, 1, 2)["labels"], "labels row 3 .* holds 2, .*a count"),
    "probabilities": (LABELS * 0.7, r"labels row 0 .* holds 0.7, .*\(labels > 0.5\)"),
    "-1, 0 and 1": (changed("labels", 4, 0, -1)["labels"], "row 4 .*-1, 0 and 1 together"),
    "0 and 255": (LABELS * 255, r"row 0 .* holds 255, .*\(labels > 0\)"),
    "another length": (LABELS[:5], r"labels are \[5, 2\], expected \[6, L\]"),
    "a negative class": (np.array([0, 1, -2, 1, 0, 1]), "row 2 .* holds -2, expected a class"),
    "a score for each pair": (np.array([0, 1, 0.5, 1, 0, 1]), "row 2 .* holds 0.5, one number"),
    "Python objects": (np.array([["dog"], ["cat", "sea"], [], [], [], []], object),
                       "labels is an array of Python objects, .*could run code"),
    "a sparse matrix as an object": (np.array(CSR(LABELS)), "Python objects.*toarray"),
    "empty names": (np.array([""] * 6), "hold no label"),
    "complex": (LABELS * 1j, "complex numbers"),
    "dates": (np.array(["2020-01-01"] * 6, "M8[D]"), "of the type datetime64"),
}  # fmt: skip


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_are_refused(tmp_path, labels, message):
    refused(write_npz(tmp_path / "f.npz", **{**ALL, "labels": labels}), f"f.npz.*{message}")


def test_a_label_for_each_pair_is_an_id(tmp_path):
    wide = np.ones((40_000, 1), np.float16)
    path = write_npz(tmp_path / "f.npz", image=wide, text=wide, labels=np.arange(40_000))
    refused(path, "40,000 different labels of 40,000 pairs: ids, not labels")


VECTORS = {
    "[N, 1, D]": (IMAGE[:, None], IMAGE, "image is 6 x 1 x 4, read as 6 x 4"),
    "[N, D, 1, 1]": (IMAGE[..., None, None], IMAGE, "image is 6 x 4 x 1 x 1, read as 6 x 4"),
    "[1, N, D]": (IMAGE[None], IMAGE, "image is 1 x 6 x 4, read as 6 x 4"),
    "float16": (IMAGE.astype(np.float16), IMAGE.astype(np.float16), None),
    "float64, big endian": (IMAGE.astype(">f8"), IMAGE, None),
    "integers": ((IMAGE * 9).astype(np.int8), (IMAGE * 9).astype(np.int8), None),
    "True and False": (IMAGE > -3, IMAGE > -3, None),
    "by columns": (np.asfortranarray(IMAGE), IMAGE, None),
    "zeros": (IMAGE * (np.arange(6) > 1)[:, None], IMAGE * (np.arange(6) > 1)[:, None],
              "2 of 6 pairs have an image of zeros"),
}  # fmt: skip


@pytest.mark.parametrize(("image", "expected", "note"), VECTORS.values(), ids=VECTORS)
def test_vectors_are_understood(tmp_path, image, expected, note):
    data = load_features(write_npz(tmp_path / "f.npz", **{**ALL, "image": image}))
    same(data, image=expected)
    assert data.notes[1:] == (() if note is None else (note,))


BAD_VECTORS = {
    "NaN": (changed("image", 4, 1, np.nan), "image row 4 .*holds NaN"),
    "infinity": (changed("text", 2, 0, -np.inf), "text row 2 .*infinity"),
    "too large for float32": (changed("text", 1, 0, 1e300), "text row 1 .*beyond float32"),
    "complex": ({**ALL, "image": IMAGE * 1j}, "image is of complex numbers"),
    "Python objects": ({**ALL, "image": np.array([[None] * 4] * 6)}, "image is .*Python objects"),
    "strings": ({**ALL, "image": np.array([["a"] * 4] * 6)}, "image holds strings, expected num"),
    "pictures": ({**ALL, "image": np.zeros((6, 5, 7, 3), np.uint8)},
                 "these are pictures: .*--dataset=mirflickr25k_mat"),
    "tokens": ({**ALL, "text": np.zeros((6, 7, 3))}, "text has shape .*mean over tokens"),
    "one number for each pair": ({**ALL, "text": TEXT[:, 0]}, r"text has shape \[6\]"),
    "bfloat16 of NumPy": ({**ALL, "text": TEXT.astype(np.float16).view("V2")}, "bfloat16; save"),
    "a structure": ({**ALL, "text": np.zeros(6, "i4,f4")}, "of the type"),
    "other numbers of pairs": ({**ALL, "text": TEXT[:5]},
                               r"image is \[6, 4\] and text is \[5, 3\]"),
    "one on its side": ({**ALL, "image": IMAGE.T}, r"image is \[4, 6\] and text is \[6, 3\]"),
    "no dimensions": ({**ALL, "image": np.zeros((6, 0))}, "shape"),
    "no pairs": ({"image": IMAGE[:0], "text": TEXT[:0]}, "no pair is left"),
    "no text": ({"image": IMAGE}, r"no array text \(it has image"),
    "two spellings": ({**ALL, "I": IMAGE}, "has image and I, expected one image"),
    "two networks": ({"image_clip": IMAGE, "image_vgg": IMAGE, "text": TEXT},
                     "has image_clip and image_vgg, expected one image; rename"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "message"), BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_vectors_are_refused(tmp_path, arrays, message):
    refused(write_npz(tmp_path / "f.npz", **arrays), f"f.npz.*{message}")


def test_two_files_of_different_lengths_are_both_named(tmp_path):
    folder = write_folder(tmp_path / "f", img=IMAGE, txt=TEXT[:5])
    refused(folder, r"img is \[6, 4\] and txt is \[5, 3\]")


@pytest.mark.parametrize(("name", "write"), [("f.npz", write_npz), ("f.mat", write_mat5),
                                             ("f.h5", write_hdf5)])  # fmt: skip
def test_a_column_for_each_pair(tmp_path, name, write):
    write(tmp_path / name, image=IMAGE.T, text=TEXT.T, labels=LABELS.T)
    data = load_features(tmp_path / name)
    same(data)
    assert "both were transposed, a column for each pair" in data.notes[1]
    assert "labels is 2 x 6, read as 6 x 2: transposed" in data.notes[2]


@pytest.mark.parametrize("labels", [{}, {"labels": LABELS}, {"labels": np.arange(6) % 2},
                                    {"labels": np.ones((4, 6))}])  # fmt: skip
@pytest.mark.parametrize(("name", "write"), [("f.npz", write_npz), ("f.mat", write_hdf5)])
def test_vectors_of_one_length_are_not_transposed(tmp_path, name, write, labels):
    """A pair more in one of two networks' vectors of one length, as CLIP's are."""
    write(tmp_path / name, image=IMAGE, text=np.vstack([IMAGE, IMAGE[:1]]), **labels)
    refused(tmp_path / name, r"image is \[6, 4\] and text is \[7, 4\]")


def test_columns_of_pairs_without_labels_are_refused(tmp_path):
    refused(write_npz(tmp_path / "f.npz", image=IMAGE.T, text=TEXT.T), r"text is \[3, 6\]")


def test_sparse_labels_beside_full_vectors(tmp_path):
    """MATLAB 7.3 holds them as a group, which is no array."""
    path = write_mat73(tmp_path / "f.mat", **{**ALL, "labels": CSR(LABELS)})
    same(load_features(path))


def test_a_column_of_0_and_1_is_two_classes(tmp_path):
    data = load_features(write_npz(tmp_path / "f.npz", **{**ALL, "labels": LABELS[:, :1]}))
    same(data, labels=one_hot(*LABELS[:, 0]))
    assert "read as class indices 0 to 1, 2 classes" in data.notes[1]


def test_matlab73_of_equal_dimensions_is_turned_by_its_mark(tmp_path):
    square = {"image": IMAGE[:4], "text": IMAGE[:4] + 1}
    same(load_features(write_mat73(tmp_path / "s.mat", **square)), *square.values(), labels=None)


def test_a_cell_array_of_names(tmp_path):
    cells = np.array([[name] for name in NAMES], object)
    data = load_features(write_mat5(tmp_path / "f.mat", **{**ALL, "labels": cells}))
    same(data, labels=one_hot(1, 0, 1, 2, 0, 1), names=("cat", "dog", "sea"))


def test_a_matrix_of_characters(tmp_path):
    rows = NAMES.astype("U5")
    data = load_features(write_mat5(tmp_path / "f.mat", **{**ALL, "labels": rows}))
    same(data, labels=one_hot(1, 0, 1, 2, 0, 1), names=("cat", "dog", "sea"))


def test_names_in_hdf5(tmp_path):
    path = write_hdf5(tmp_path / "f.h5", **{**ALL, "labels": NAMES.astype(object)})
    same(load_features(path), labels=one_hot(1, 0, 1, 2, 0, 1), names=("cat", "dog", "sea"))


BFLOAT16 = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)


def test_bfloat16(tmp_path):
    import json
    import struct

    half = (BFLOAT16.view(np.uint32) >> 16).astype("<u2").tobytes()
    about = {"dtype": "BF16", "shape": [2, 2]}
    header = json.dumps({"image": {**about, "data_offsets": [0, 8]},
                         "text": {**about, "data_offsets": [8, 16]}}).encode()  # fmt: skip
    path = tmp_path / "f.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + half + half)
    same(load_features(path), BFLOAT16, BFLOAT16, labels=None)


# Names


NAMED = {
    "upper case": (("Images", "TEXTS", "Label"), None),
    "letters": (("I", "T", "L"), None),
    "DCMH": (("IAll", "TAll", "LAll"), "image: IAll, text: TAll, labels: LAll"),
    "X, Y and L": (("X", "Y", "L"), "image: X, text: Y, labels: L"),
    "X, text and y": (("X", "T", "y"), "image: X, text: T, labels: y"),
    "XAll, YAll, LAll": (("XAll", "YAll", "LAll"), "image: XAll, text: YAll, labels: LAll"),
    "embeddings": (("image_emb", "caption_emb", "labels"), "image: image_emb, text: caption_emb"),
    "glued": (("imgfeat", "txtfeat", "gnd"), "image: imgfeat, text: txtfeat, labels: gnd"),
    "networks": (("vgg19_fc7", "bow", "classes"), "image: vgg19_fc7, text: bow, labels: classes"),
    "of a name more": (("image_openai", "text_openai", "label_openai"), "image: image_openai"),
}


@pytest.mark.parametrize(("names", "note"), NAMED.values(), ids=NAMED)
def test_names(tmp_path, names, note):
    data = load_features(write_npz(tmp_path / "f.npz", **dict(zip(names, ALL.values()))))
    same(data)
    if note is None:
        assert len(data.notes) == 1
    else:
        assert data.notes[1].startswith("read by their names as ") and note in data.notes[1]


def test_names_of_files(tmp_path):
    names = ("flickr25k_vgg19_20015", "flickr25k_bow_20015", "flickr25k_label_20015")
    same(load_features(write_folder(tmp_path / "f", **dict(zip(names, ALL.values())))))


def test_a_folder_of_matlab_files(tmp_path):
    (tmp_path / "f").mkdir()
    for name, array in zip(("Image", "Tag", "Label"), ALL.values()):
        write_mat5(tmp_path / "f" / f"{name.lower()}.mat", **{name: array})
    same(load_features(tmp_path / "f"))


def test_folders_of_clip_retrieval(tmp_path):
    """img_emb/img_emb_0.npy and text_emb/text_emb_0.npy, beside others."""
    for name, array in (("img_emb", IMAGE), ("text_emb", TEXT), ("metadata", LABELS)):
        write_folder(tmp_path / "f" / name, **{f"{name}_0": array})
    data = load_features(tmp_path / "f")
    same(data, labels=None)
    assert "image: img_emb/img_emb_0, text: text_emb/text_emb_0" in data.notes[1]
    np.save(tmp_path / "f" / "img_emb" / "img_emb_1.npy", IMAGE)
    refused(tmp_path / "f", "has img_emb/img_emb_0 and img_emb/img_emb_1, expected one image")


def test_what_is_not_read_is_named(tmp_path):
    more = {"image_names": NAMES, "text_lengths": np.ones(6), "I_val": IMAGE, "seed": np.array(1)}
    data = load_features(write_npz(tmp_path / "f.npz", **ALL, **more))
    same(data)
    assert data.notes[1:] == ("not read: I_val, image_names, text_lengths",)


def parts_of(names: str, **rows):
    """Arrays of parts: names are templates by role, separated by blanks."""
    return {
        template.replace("*", part): array[at]
        for template, array in zip(names.split(), ALL.values())
        for part, at in rows.items()
    }


QUERY, DATABASE = slice(0, 2), slice(2, 6)
SPLITS = {
    "I_tr, I_te": parts_of("I_* T_* L_*", te=QUERY, tr=DATABASE),
    "train_img, test_img": parts_of("*_img *_txt *_label", test=QUERY, train=DATABASE),
    "XTrain, XTest": parts_of("X* Y* L*", Test=QUERY, Train=DATABASE),
    "XDatabase, XTest": {
        **{f"{letter}{part}": array[at] for letter, array in zip("XY", (IMAGE, TEXT))
           for part, at in (("Test", QUERY), ("Database", DATABASE))},
        "databaseL": LABELS[DATABASE], "testL": LABELS[QUERY],
    },
    "image_query, image_retrieval": parts_of("image_* text_* label_*", query=QUERY,
                                             retrieval=DATABASE),
}  # fmt: skip


@pytest.mark.parametrize("arrays", SPLITS.values(), ids=SPLITS)
def test_a_split_of_two_parts(tmp_path, arrays):
    data = load_features(write_npz(tmp_path / "f.npz", **arrays))
    same(data)
    assert {k: v.tolist() for k, v in data.given_split.items()} == {
        "query": [0, 1], "database": [2, 3, 4, 5]
    }  # fmt: skip
    assert data.ids[0] == "query-0" and data.ids[2][-2:] == "-0"
    assert data.notes[1].startswith("the file's own split: 2 queries (")


SPLITS_OF_THREE = {
    "I_tr, I_db, I_te": parts_of("I_* T_* L_*", te=QUERY, db=DATABASE, tr=slice(3, 5)),
    "I_tra, I_tr, I_te": parts_of("I_* T_* L_*", te=QUERY, tr=DATABASE, tra=slice(3, 5)),
    "train, retrieval, query": parts_of("*_image *_text *_labels", query=QUERY,
                                        retrieval=DATABASE, train=slice(3, 5)),
}  # fmt: skip


@pytest.mark.parametrize("arrays", SPLITS_OF_THREE.values(), ids=SPLITS_OF_THREE)
def test_training_pairs_are_found_in_the_database(tmp_path, arrays):
    data = load_features(write_npz(tmp_path / "f.npz", **arrays))
    same(data)
    assert {k: v.tolist() for k, v in data.given_split.items()} == {
        "query": [0, 1], "database": [2, 3, 4, 5], "train": [3, 4]
    }  # fmt: skip
    assert "2 of them found in the database by their values" in data.notes[1]


def test_training_pairs_that_are_not_in_the_database_join_it(tmp_path):
    arrays = parts_of("I_* T_* L_*", te=slice(0, 1), db=slice(1, 3), tr=slice(2, 6))
    data = load_features(write_npz(tmp_path / "f.npz", **arrays))
    same(data)
    assert data.given_split["database"].tolist() == [1, 2, 3, 4, 5]
    assert data.given_split["train"].tolist() == [2, 3, 4, 5]
    assert "1 of them found in the database by their values, 3 added to it" in data.notes[1]


def test_parts_as_groups_and_as_files(tmp_path):
    parts = {"query": QUERY, "retrieval": DATABASE}
    (tmp_path / "g").mkdir()
    for part, at in parts.items():
        write_folder(tmp_path / "g" / part, **{n: a[at] for n, a in ALL.items()})
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for part, at in parts.items():
            for name, array in ALL.items():
                file[f"{part}/{name}"] = array[at]
    (tmp_path / "f").mkdir()
    for part, at in parts.items():
        write_npz(tmp_path / "f" / f"{part}.npz", **{n: a[at] for n, a in ALL.items()})
    for path in (tmp_path / "f.h5", tmp_path / "f", tmp_path / "g"):
        data = load_features(path)
        same(data)
        assert data.given_split["query"].tolist() == [0, 1]


def test_parts_are_read_together(tmp_path):
    """A class that only one part has, and a class index that one part lacks."""
    arrays = parts_of("I_* T_* L_*", te=QUERY, tr=DATABASE)
    arrays["L_te"], arrays["L_tr"] = np.array([1, 3]), np.array([1, 1, 2, 2])
    data = load_features(write_npz(tmp_path / "f.npz", **arrays))
    same(data, labels=one_hot(1, 3, 1, 1, 2, 2), names="123")
    arrays["L_tr"] = np.array([1, 1, 2, np.nan])
    refused(write_npz(tmp_path / "f.npz", **arrays), "L_tr row 3 .*NaN")
    arrays["L_tr"] = LABELS[DATABASE]
    refused(write_npz(tmp_path / "f.npz", **arrays), "the same columns in all parts")
    arrays = {name: array for name, array in arrays.items() if name != "L_tr"}
    refused(write_npz(tmp_path / "f.npz", **arrays), "has L_te but no labels of the train part")
    arrays["I_tr"] = IMAGE[DATABASE, :3]
    del arrays["L_te"]
    refused(write_npz(tmp_path / "f.npz", **arrays), "I_te is 4-D and I_tr 3-D")


def test_one_part_alone_is_all(tmp_path):
    data = load_features(write_npz(tmp_path / "f.npz", **parts_of("I_* T_* L_*", tr=slice(None))))
    same(data)
    assert data.given_split is None and data.ids[0] == "0"


# Files


@pytest.mark.parametrize("name", ["f.npz", "f.mat", "f.h5", "f.pt", "f.safetensors"])
@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04 and no archive" * 20,
                                     bytes(1000), b"\x80\x05" * 50])  # fmt: skip
def test_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, f"{name} cannot be read")


def test_truncated_files(tmp_path):
    for name, write in CONTAINERS.values():
        if name == "f":
            continue
        path = tmp_path / name
        write(path, **ALL)
        whole = path.read_bytes()
        for part in range(1, 8):
            path.write_bytes(whole[: len(whole) * part // 8])
            refused(path, f"{name}.* (cannot be read|has no array)")


WRONG_KINDS = {
    "f.pkl": "is a pickle, which could run code; save its arrays with np.savez",
    "f.csv": "is a table; .*--dataset=pairs",
    "f.txt": "has the ending '.txt'; expected a .npz, .mat",
}


@pytest.mark.parametrize(("name", "message"), WRONG_KINDS.items(), ids=WRONG_KINDS)
def test_files_of_other_kinds(tmp_path, name, message):
    (tmp_path / name).write_text("1,2", encoding="utf-8")
    refused(tmp_path / name, message)
    refused(tmp_path, f"no array image and no array text .it has {name}")


def test_wrong_places(tmp_path):
    refused(tmp_path / "none.npz", "does not exist; expected")
    refused(tmp_path, r"no array image and no array text \(it has no files\)")
    os.mkfifo(tmp_path / "f.npz")
    refused(tmp_path / "f.npz", "is a pipe or a device")
    (tmp_path / "f.mat").symlink_to("/dev/zero")
    refused(tmp_path / "f.mat", "is a pipe or a device")


def test_wide_sparse_text_that_memory_cannot_hold(tmp_path):
    rows = np.arange(20_000)
    wide = scipy.sparse.coo_matrix((rows + 1.0, (rows, rows)), (20_000, 50_000))
    image = np.ones((20_000, 1), np.float32)
    refused(
        write_folder(tmp_path / "f", image=image, text=wide),
        r"text.npz is 20,000 x 50,000: 4.0 GB in memory, .*keep fewer columns",
    )
