"""MIRFlickr-25K in .mat files: every layout they come in, written by these tests."""

from __future__ import annotations

import io
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import array_helpers
import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from dsprh_tf.data import mat_files
from dsprh_tf.data.images import check_images, image_bytes, load_image
from dsprh_tf.data.mirflickr_mat import load_mirflickr25k_mat
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.data.preprocess import resize_crop
from dsprh_tf.data.text import BagOfWords

N, H, W, T, L = 6, 8, 10, 7, 4
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (N, H, W, 3), dtype=np.uint8)  # upright
TAGS = (RNG.random((N, T)) < 0.4).astype(np.float64)
LABELS = (RNG.random((N, L)) < 0.4).astype(np.float64)
TAGS[:, 0] = LABELS[:, 1] = 1  # no empty row


def laid(axes: str, pictures=PICTURES) -> np.ndarray:
    """The pictures with their axes in the order of the letters."""
    return np.ascontiguousarray(pictures.transpose(["NHWC".index(axis) for axis in axes]))


def write_mat5(path, compressed=False, **arrays):
    scipy.io.savemat(path, arrays, do_compression=compressed)


def write_hdf5(path, compressed=False, **arrays):
    """As h5py and other programs write, in the arrays' own order and without a mark."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip" if compressed else None)


def write_mat73(path, compressed=True, **arrays):
    """As MATLAB writes arrays that it holds like this: reversed, behind its header."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            item = file.create_dataset(
                name, data=array.transpose(), compression="gzip" if compressed else None
            )
            item.attrs["MATLAB_class"] = np.bytes_(array.dtype.name)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_sparse73(path, **arrays):
    array_helpers.write_mat73(path, **arrays)


def separate(folder, write_images=write_hdf5, axes="NCWH", write=write_mat5, **changes):
    """The community's three files."""
    arrays = {"IAll": laid(axes), "YAll": TAGS, "LAll": LABELS, **changes}
    write_images(folder / "mirflickr25k-iall.mat", IAll=arrays["IAll"])
    write(folder / "mirflickr25k-yall.mat", YAll=arrays["YAll"])
    write(folder / "mirflickr25k-lall.mat", LAll=arrays["LAll"])


def merged(folder, write=write_hdf5, axes="NCWH", turned=True, **changes):
    """DCMH's one file."""
    tables = {"YAll": TAGS, "LAll": LABELS}
    arrays = {"images": laid(axes), **{k: v.T if turned else v for k, v in tables.items()}}
    arrays.update(changes)
    arrays = {name: array for name, array in arrays.items() if array is not None}
    write(folder / "FLICKR-25K.mat", **arrays)


def check(data, count=N):
    """Pictures upright, tags as words and labels are those that were written."""
    assert data.name == "mirflickr25k_mat"
    assert data.ids.tolist() == [str(i) for i in range(count)]
    for path, pixels in zip(data.image_paths, PICTURES):
        read = load_image(path)
        np.testing.assert_array_equal(read, pixels)
        assert (read.dtype, read.flags.writeable) == (np.uint8, True)
        assert read.flags.c_contiguous
    assert data.vocabulary == tuple(f"tag{t:04}" for t in range(1, T + 1))
    np.testing.assert_array_equal(BagOfWords(data.vocabulary, "lower").encode(data.texts), TAGS)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.label_names == ("label01", "label02", "label03", "label04")
    assert data.text_features is None
    assert data.given_split is None


SEPARATE = {
    "community": (write_hdf5, "NCWH", write_mat5, "6 x 3 x 10 x 8 is images x colours x width"),
    "MATLAB 7.3": (write_mat73, "HWCN", write_mat73, "x height (HDF5 shows MATLAB's axes reversed"),
    "MATLAB 5": (write_mat5, "HWCN", write_mat5, "8 x 10 x 3 x 6 is height x width x colours"),
    "MATLAB 5, N first": (write_mat5, "NHWC", write_mat5, "is images x height x width x colours"),
    "not transposed": (write_hdf5, "NHWC", write_hdf5, "not N x 3 first, height before width"),
    "MATLAB 7.3 of N x 3 x H x W": (write_mat73, "NCHW", write_mat5, "10 x 8 x 3 x 6 is width"),
}


@pytest.mark.parametrize(("write_images", "axes", "write", "note"), SEPARATE.values(), ids=SEPARATE)
def test_three_files(tmp_path, write_images, axes, write, note):
    separate(tmp_path, write_images, axes, write)
    data = load_mirflickr25k_mat(tmp_path)
    check(data)
    assert note in data.notes[0]
    assert data.notes[0].startswith("mirflickr25k-iall.mat (")
    stored = "MATLAB 5): YAll 6 x 7 is pairs x tags"
    if write is write_mat73:
        stored = "HDF5): YAll 7 x 6 is tags x pairs, transposed"
    elif write is write_hdf5:
        stored = "HDF5): YAll 6 x 7 is pairs x tags"
    assert data.notes[1] == f"mirflickr25k-yall.mat ({stored}"


MERGED = {
    "DCMH": (write_hdf5, "NCWH", True),
    "MATLAB 7.3": (write_mat73, "HWCN", False),
    "MATLAB 7.3, tables on their side": (write_mat73, "HWCN", True),
    "not transposed": (write_hdf5, "NHWC", False),
    "as MATLAB holds them": (write_hdf5, "HWCN", True),
    "MATLAB 5": (write_mat5, "HWCN", False),
    "MATLAB 5, transposed": (write_mat5, "NCHW", True),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("write", "axes", "turned"), MERGED.values(), ids=MERGED)
def test_merged_file(tmp_path, write, axes, turned, compressed):
    merged(tmp_path, lambda path, **arrays: write(path, compressed, **arrays), axes, turned)
    for place in (tmp_path, tmp_path / "FLICKR-25K.mat"):
        data = load_mirflickr25k_mat(place)
        check(data)
        assert ("read one by one" in data.notes[0]) == (write is not write_mat5)
        on_side = turned != (write is write_mat73)
        assert ["transposed" in note for note in data.notes[1:3]] == [on_side] * 2


def test_other_places_names_and_types(tmp_path):
    for letter in "IYL":
        (tmp_path / "Cleared-Set" / f"{letter}All").mkdir(parents=True)
    base = tmp_path / "Cleared-Set"
    write_mat73(base / "IAll" / "MIRFLICKR25K-IAll.mat", images=laid("HWCN"))
    write_mat5(base / "YAll" / "mirflickr25k-yall.mat", yall=scipy.sparse.csc_matrix(TAGS))
    write_hdf5(base / "LAll" / "mirflickr25k-lall.mat", LALL=LABELS.astype(bool))
    check(load_mirflickr25k_mat(tmp_path))
    check(load_mirflickr25k_mat(base))


def test_notes_say_what_was_taken_and_what_is_missing(tmp_path):
    tags, labels = TAGS.copy(), LABELS.copy()
    tags[[1, 4]] = labels[3] = 0
    separate(tmp_path, YAll=tags, LAll=labels)
    data = load_mirflickr25k_mat(tmp_path)
    assert len(data) == N  # kept as in the file
    known = BagOfWords(data.vocabulary, "lower").known(data.texts)
    assert known.tolist() == [True, False, True, True, False, True]
    assert data.notes[3:] == (
        "the tags have no names in these files: column 1 of YAll is the word tag0001, and so on to "
        "tag0007",
        "6 pairs, as in the file",
        "2 pairs have no tag; training leaves them out",
        "1 pairs have no label, so nothing is relevant to them",
    )


def wrong(row, column, value, table):
    changed = table.copy()
    changed[row, column] = value
    return changed


REFUSED = {
    "no tags": ({"YAll": None}, r"has no array YAll or TAll or tags \(it has LAll,"),
    "no pictures": ({"images": None}, r"has no array IAll or images \(it has LAll, YAll\)"),
    "two pictures": ({"IAll": laid("NCWH")}, "has IAll and images, expected one of them"),
    "fewer tags": ({"YAll": TAGS[:5]}, "images is 6 x 3 x 10 x 8; .*YAll is 5 x 7; .*LAll is 4 x 6"
                   ": no length .* is in all three"),
    "fewer pictures": ({"images": laid("NCWH")[:5]}, "images is 5 x 3 x 10 x 8; .*no length"),
    "floats": ({"images": laid("NCWH") / 255}, "images is 6 x 3 x 10 x 8 of type float64, expected"
               " images of uint8"),
    "vectors": ({"images": np.zeros((N, 512), np.uint8)}, "images is 6 x 512, expected 4 axes"),
    "grey": ({"images": laid("NCWH")[:, :1]}, "images is 6 x 1 x 10 x 8 and has no axis of length"),
    "text": ({"YAll": np.array([b"a"] * N)}, "YAll is 6, expected 2 axes"),
    "strings": ({"YAll": np.array([[b"a"] * T] * N)}, r"YAll is strings in another form"),
    "counts": ({"YAll": wrong(4, 2, 3, TAGS)}, "YAll row 4 .* holds 3, as do 0 more: a count"),
    "halves": ({"LAll": wrong(2, 1, 0.5, LABELS).T}, "LAll column 2 .* holds 0.5"),
    "not a number": ({"LAll": wrong(2, 1, np.nan, LABELS)}, "LAll row 2 .* holds NaN"),
    "N is a side": ({"images": laid("NCWH", PICTURES[:, :, :N])}, "images is 6 x 3 x 6 x 8.*cannot"
                    " be told"),
    "3 is a side": ({"images": laid("NCWH", PICTURES[:, :, :3])}, "cannot be told"),
    "square table": ({"YAll": TAGS[:, :N]}, "YAll is 6 x 6.*cannot be told"),
    "two lengths shared": ({"YAll": np.ones((N, W)), "LAll": np.ones((N, W))}, "cannot be told"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_arrays(tmp_path, changes, message):
    merged(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_mirflickr25k_mat(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "FLICKR-25K.mat") in str(error.value)
    if all(v is not None and v.dtype.kind != "S" for v in changes.values()):
        merged(tmp_path, write_mat5, **changes)
        with pytest.raises(ValueError, match=message):
            load_mirflickr25k_mat(tmp_path)


@pytest.mark.parametrize("write", [write_mat5, write_sparse73], ids=["MATLAB 5", "MATLAB 7.3"])
def test_sparse_tables(tmp_path, write):
    write(tmp_path / "FLICKR-25K.mat", images=laid("HWCN"), YAll=scipy.sparse.csc_matrix(TAGS),
          LAll=scipy.sparse.csc_matrix(LABELS))  # fmt: skip
    check(load_mirflickr25k_mat(tmp_path))


def test_tables_of_minus_one_and_one(tmp_path):
    separate(tmp_path, YAll=2 * TAGS.T - 1, LAll=2 * LABELS - 1)
    data = load_mirflickr25k_mat(tmp_path)
    check(data)
    said = [note for note in data.notes if "-1 was read as 0" in note]
    assert len(said) == 2 and "YAll" in said[0] and "LAll" in said[1]


@pytest.mark.parametrize("names", [("TAll", "LAll"), ("tags", "labels")])
def test_other_names_of_tables(tmp_path, names):
    merged(tmp_path, **{"YAll": None, "LAll": None, **dict(zip(names, (TAGS, LABELS)))})
    check(load_mirflickr25k_mat(tmp_path))


def test_refused_groups(tmp_path):
    """MATLAB 7.3 stores sparse matrices, structs and cells as groups."""
    merged(tmp_path, YAll=None)
    with h5py.File(tmp_path / "FLICKR-25K.mat", "a") as file:
        file.create_group("YAll")["data"] = [1.0]
    with pytest.raises(ValueError, match=r"FLICKR-25K\.mat: YAll is a struct or group with"):
        load_mirflickr25k_mat(tmp_path)


def test_refused_places(tmp_path):
    def refuses(message, place=tmp_path):
        with pytest.raises(ValueError, match=message) as error:
            load_mirflickr25k_mat(place)
        assert "\n" not in str(error.value)

    refuses("none does not exist; put mirflickr25k-iall.mat", tmp_path / "none")
    refuses("is empty; put mirflickr25k-iall.mat")
    separate(tmp_path)
    (tmp_path / "mirflickr25k-yall.mat").unlink()
    refuses("has no mirflickr25k-yall.mat; put")
    merged(tmp_path)
    refuses("has FLICKR-25K.mat and mirflickr25k-iall.mat, .*--data_dir=.*FLICKR-25K.mat")
    check(load_mirflickr25k_mat(tmp_path / "FLICKR-25K.mat"))
    refuses(r"has no array YAll or TAll or tags \(it", tmp_path / "mirflickr25k-iall.mat")


@pytest.mark.parametrize("write", [write_mat5, write_hdf5, write_mat73])
def test_broken_files(tmp_path, write):
    path = tmp_path / "FLICKR-25K.mat"
    merged(tmp_path, write, "HWCN")
    whole = path.read_bytes()
    contents = [whole[: len(whole) * part // 50] for part in range(50)]
    contents += [whole[:-1], b"not a MAT file at all" * 20, b"\0" * 1000, b"\x89HDF\r\n\x1a\n"]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"FLICKR-25K\.mat (cannot be read|has no array)") as e:
            load_mirflickr25k_mat(tmp_path)
        assert "\n" not in str(e.value)
        assert "get it again" in str(e.value)


@pytest.mark.parametrize("write", [write_mat5, write_mat73])
def test_pictures_that_change_or_vanish(tmp_path, write):
    def plain(path, **arrays):
        write(path, False, **arrays)

    separate(tmp_path, plain, "HWCN")
    data = load_mirflickr25k_mat(tmp_path)
    fingerprint = data.fingerprint()
    check(data)
    (tmp_path / "moved").mkdir()
    separate(tmp_path / "moved", plain, "HWCN")
    assert load_mirflickr25k_mat(tmp_path / "moved").fingerprint() == fingerprint
    # Other pixels in a file of the same size.
    size = (tmp_path / "mirflickr25k-iall.mat").stat().st_size
    plain(tmp_path / "mirflickr25k-iall.mat", IAll=laid("HWCN", PICTURES[::-1]))
    assert (tmp_path / "mirflickr25k-iall.mat").stat().st_size == size
    changed = load_mirflickr25k_mat(tmp_path)
    assert changed.fingerprint() != fingerprint
    np.testing.assert_array_equal(load_image(changed.image_paths[0]), PICTURES[-1])

    write(tmp_path / "mirflickr25k-iall.mat", IAll=laid("HWCN", PICTURES[:4]))
    keep, problems, _ = check_images(data.image_paths, "skip")
    assert keep.tolist() == [True] * 4 + [False] * 2
    assert re.match(r"image .*iall\.mat::IAll::.*::4 .*without image 4", problems[0])
    with pytest.raises(ValueError, match=r"^row 5: image .*::5 cannot be read \(IAll is "):
        load_image(data.image_paths[5], 5)
    (tmp_path / "mirflickr25k-iall.mat").unlink()
    with pytest.raises(ValueError, match=r"::0 does not exist; restore the file"):
        load_image(data.image_paths[0])
    with pytest.raises(ValueError, match=r"iall\.mat::IAll::.*No such file"):
        data.take([1, 2]).fingerprint()


def test_paths():
    path = mat_files.picture_path("C:\\a::b.mat", "IAll", "NCWH", 17)
    assert path == "C:\\a::b.mat::IAll::NCWH::17"
    assert mat_files.is_picture(path)
    for other in ("a.jpg", "a.mat", "a::b::c::1", "a.mat::IAll::NCWW::1", "a.mat::I::NCWH::x"):
        assert not mat_files.is_picture(other)


@pytest.mark.parametrize("write", [write_mat5, write_hdf5, write_mat73])
def test_many_threads_read_one_file(tmp_path, write):
    merged(tmp_path, write, "HWCN", write is write_hdf5)
    data = load_mirflickr25k_mat(tmp_path)
    rows = np.random.default_rng(1).integers(0, N, 400)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: load_image(data.image_paths[row]), rows))
    np.testing.assert_array_equal(np.stack(read), PICTURES[rows])


@pytest.mark.parametrize("write", [write_mat5, write_mat73])
def test_batches(tmp_path, write):
    merged(tmp_path, write, "HWCN", False)
    data = load_mirflickr25k_mat(tmp_path)
    source = PairSource(data, BagOfWords(data.vocabulary, "lower"), 6, 7)
    batches = list(source.batches(np.array([4, 0, 5, 2]), 3))
    np.testing.assert_array_equal(
        np.concatenate([batch["bow"] for batch in batches]), TAGS[[4, 0, 5, 2]]
    )
    pixels = np.concatenate([batch["pixels"] for batch in batches])
    for row, found in zip([4, 0, 5, 2], pixels):
        np.testing.assert_array_equal(found, resize_crop(PICTURES[row], 6, 7).numpy())


def test_bytes_for_the_exported_encoder(tmp_path):
    merged(tmp_path)
    path = load_mirflickr25k_mat(tmp_path).image_paths[3]
    with Image.open(io.BytesIO(image_bytes(path))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), PICTURES[3])
    Image.fromarray(PICTURES[0]).save(tmp_path / "a.JPG")
    assert image_bytes(tmp_path / "a.JPG") == (tmp_path / "a.JPG").read_bytes()


def test_full_size_is_read_one_by_one(tmp_path):
    """At the size of the real files: 3 GB of pictures (holes on this disk), 20,015 pairs."""
    count = 20_015
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "mirflickr25k-iall.mat", "w") as file:
        images = file.create_dataset("IAll", (count, 3, 224, 224), np.uint8)
        images[count - 1, 1] = 9
    tags = np.zeros((count, 1386), np.uint8)
    tags[np.arange(count), rng.integers(0, 1386, count)] = 1
    write_mat5(tmp_path / "mirflickr25k-yall.mat", YAll=tags)
    labels = (rng.random((count, 24)) < 0.2).astype(np.uint8)
    write_mat5(tmp_path / "mirflickr25k-lall.mat", LAll=labels)
    tracemalloc.start()
    try:
        data = load_mirflickr25k_mat(tmp_path)
        loaded = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        last = load_image(data.image_paths[-1])
        read = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert len(data) == count
    assert (last == [0, 9, 0]).all()
    assert loaded < 300e6, "of the tables' size, a tenth of the pictures'"
    assert read < 1e6, "a picture is 150 kB"
    assert len(data.vocabulary) == 1386
    np.testing.assert_array_equal(data.labels, labels)


@pytest.fixture(scope="module")
def scenes_mat(scenes_dir, tmp_path_factory):
    """The drawn scenes as DCMH's file: their words as tag columns."""
    from dsprh_tf.data.pairs import load_pairs

    scenes = load_pairs(scenes_dir)
    words = BagOfWords.fit(scenes.texts, 2)
    folder = tmp_path_factory.mktemp("mat")
    pictures = np.stack([load_image(path)[:70, :76] for path in scenes.image_paths])
    write_hdf5(
        folder / "FLICKR-25K.mat",
        True,
        images=laid("NCWH", pictures),
        YAll=words.encode(scenes.texts).T,
        LAll=scenes.labels.T,
    )
    return folder


def test_training_and_evaluation(program, small_flags, scenes_mat, tmp_path):
    outcome = program(
        "train",
        *small_flags,
        "--dataset=mirflickr25k_mat",
        f"--data_dir={scenes_mat}",
        "--fusion_weights=0,0,1",
        "--image_size=32",
        "--resize=36",
        "--epochs=1",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert outcome.code == 0, outcome.err[-2000:]
    assert "data: FLICKR-25K.mat (HDF5): images 120 x 3 x 76 x 70 is images x" in outcome.out
    assert (tmp_path / "run" / "results.json").exists()
