"""HDF5: what lies in the file is read, what leads elsewhere is named, a crash is one line."""

from __future__ import annotations

import os
import signal
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import scipy.sparse
from array_helpers import write_mat73

from dsprh_tf.data.arrays import hdf5

ARRAY = np.random.default_rng(0).random((6, 4))


def arrays_of(path):
    return {array.name: array for array in hdf5.list_arrays(path)}


def refused(path, name, message):
    with pytest.raises(ValueError, match=message) as error:
        arrays_of(path)[name].read()
    assert "\n" not in str(error.value) and path.name in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 3)},
        {"chunks": (6, 1), "compression": "gzip"},
        {"chunks": (4, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (1, 4), "compression": "lzf"},
        {"maxshape": (None, 4)},
    ],
    ids=str,
)
def test_layouts(tmp_path, options, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_dataset("a", data=ARRAY, **options)
        file.create_dataset("b", data=ARRAY.astype(">f4"), **options)
        file["single"], file["empty"] = 3.0, np.zeros((0, 4))
    found = arrays_of(tmp_path / "a.h5")
    np.testing.assert_array_equal(found["a"].read(), ARRAY)
    np.testing.assert_array_equal(found["b"].read(), ARRAY.astype("f4"))
    assert found["b"].dtype == np.float32
    assert found["single"].read() == 3 and found["empty"].read().shape == (0, 4)


def test_axes_of_matlab(tmp_path):
    array = np.random.default_rng(0).random((2, 3, 4))
    found = arrays_of(write_mat73(tmp_path / "a.mat", a=array))["a"]
    assert found.marked and found.shape == (2, 3, 4)
    np.testing.assert_array_equal(found.read(), array)


def test_sparse_matrices_of_matlab(tmp_path):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((7, 5)) < 0.3, rng.random((7, 5)), 0)
    path = write_mat73(tmp_path / "a.mat", a=scipy.sparse.csr_matrix(dense),
                       zero=scipy.sparse.csr_matrix((3, 2)))  # fmt: skip
    found = arrays_of(path)
    np.testing.assert_array_equal(found["a"].read(), dense)
    np.testing.assert_array_equal(found["zero"].read(), np.zeros((3, 2)))
    for key, values in (("jc", [0, 9, 1, 2, 3, 3]), ("ir", np.full(dense.astype(bool).sum(), 7))):
        with h5py.File(path, "r+") as file:
            del file[f"a/{key}"]
            file[f"a/{key}"] = values
        refused(path, "a", "a cannot be read .*(pointers|an index) of a sparse matrix")
    with h5py.File(path, "r+") as file:
        del file["a/jc"]
    refused(path, "a", "a is a sparse matrix without data, ir and jc")


def elsewhere(file, other):
    """Items that lead to another file."""
    with h5py.File(other, "w") as target:
        target["a"] = ARRAY
    file["soft"] = h5py.SoftLink("/there")
    file["external"] = h5py.ExternalLink(other, "a")
    layout = h5py.VirtualLayout((6, 4), "f8")
    layout[:] = h5py.VirtualSource(str(other), "a", (6, 4))
    file.create_virtual_dataset("virtual", layout)
    file.create_dataset("outside", (6, 4), "f8", external=[(str(other), 0, 192)])


def others(file):
    """Items of other kinds."""
    file["there"] = ARRAY
    file.create_dataset("references", (2,), h5py.ref_dtype)[0] = file["there"].ref
    cell = file.create_dataset("cell", (2,), h5py.ref_dtype)
    cell[0], cell.attrs["MATLAB_class"] = file["there"].ref, np.bytes_("cell")
    file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.int32))[0] = [1, 2]
    file.create_dataset("complex", data=ARRAY * 1j)
    file.create_dataset("fields", data=np.zeros(3, "i4,f4"))
    file.create_dataset("never", (6, 4), chunks=(2, 2))
    file.create_dataset("plugin", data=ARRAY.astype("f4"), scaleoffset=3, chunks=(2, 2))
    file.create_dataset("nothing", data=h5py.Empty("f8"))
    file.create_dataset("matrix", data=np.array([["a", "b"]], object), dtype=h5py.string_dtype())
    file.create_group("struct").attrs["MATLAB_class"] = np.bytes_("struct")
    file["struct/I_tr"] = ARRAY
    file["handle"] = ARRAY
    file["handle"].attrs["MATLAB_class"] = np.bytes_("function_handle")


NOT_READ = {
    "soft": "a link to another place, which is not followed",
    "external": "a link to .*other.h5, which is not followed",
    "virtual": "values are in other files",
    "outside": "values are in other files",
    "references": "an array of references, which are not followed",
    "cell": "a cell array .*cell2mat",
    "ragged": "rows of different lengths",
    "complex": "complex numbers",
    "fields": "of the type",
    "never": "its values were never written",
    "plugin": "packed by the filter 6, .*h5repack",
    "nothing": "without values",
    "matrix": "strings in another form",
    "struct": r"a struct or group with the fields I_tr, .*'-struct', 'struct', '-v7.3'\)",
    "handle": "a function handle of MATLAB",
}


@pytest.mark.parametrize(("name", "message"), NOT_READ.items(), ids=NOT_READ)
def test_what_is_not_read_is_named(tmp_path, name, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        elsewhere(file, tmp_path / "other.h5")
        others(file)
    refused(tmp_path / "a.h5", name, f"a.h5: {name} is .*{message}")


def test_groups(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/image"], file["deep/er/still/a"] = ARRAY, ARRAY
        file["train/itself"] = file["train"]  # a circle
    found = arrays_of(tmp_path / "a.h5")
    np.testing.assert_array_equal(found["train/image"].read(), ARRAY)
    assert "deep/er/still/a" in found and len(found) < 20
    assert "a struct or group with the fields image, itself" in found["train"].problem


def test_strings(tmp_path):
    names = ["dog", "", "Käse", "c"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["long"] = np.array(names, object)
        file["fixed"] = np.array(["dog", "cat"], "S5")
        file["rows"] = np.array([[100, 99], [111, 97], [103, 32]], np.uint16)
        file["rows"].attrs["MATLAB_class"] = np.bytes_("char")
    found = arrays_of(tmp_path / "a.h5")
    assert found["long"].read().tolist() == names
    assert found["fixed"].read().tolist() == ["dog", "cat"]
    assert found["rows"].read().tolist() == ["dog", "ca"]


def test_a_chunk_that_unpacks_to_more_than_a_chunk(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        item = file.create_dataset("a", (2, 4), "f8", chunks=(2, 4), compression="gzip")
        item.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**22)))
    refused(tmp_path / "a.h5", "a", "a chunk of at most 1,088 bytes takes")


def test_more_values_declared_than_memory_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        item = file.create_dataset("a", (10**6, 10**6), "f4", chunks=(100, 100))
        item[0, 0] = 1
    refused(tmp_path / "a.h5", "a", "a is 1,000,000 x 1,000,000: 4,000.0 GB in memory")


# The process


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=ARRAY, chunks=(1, 4))
    return tmp_path / "a.h5"


def test_a_crash_is_one_line_and_the_next_file_is_read(path):
    array = arrays_of(path)["a"]
    with h5py.File(path.with_name("large.h5"), "w") as file:
        file["a"] = np.zeros((3, 10**6))  # two blocks, of which the second is under way
    answer = hdf5._PROCESS.ask(do="values", path=str(path.with_name("large.h5")), name="a")
    next(answer)
    os.killpg(hdf5._PROCESS._running.pid, signal.SIGKILL)
    hdf5._PROCESS._running.wait()
    with pytest.raises(ValueError, match="the HDF5 library crashes on it"):
        list(answer)
    np.testing.assert_array_equal(array.read(), ARRAY)


def test_an_answer_that_nobody_waits_for(path):
    answer = hdf5._PROCESS.ask(do="values", path=str(path), name="a")
    next(answer)
    answer.close()
    np.testing.assert_array_equal(arrays_of(path)["a"].read(), ARRAY)


def test_a_fork_has_a_process_of_its_own(path):
    expected = arrays_of(path)["a"].read()
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = np.array_equal(arrays_of(path)["a"].read(), expected)
            hdf5._PROCESS.close()
        finally:
            os._exit(0 if ok else 1)
    for _ in range(20):
        np.testing.assert_array_equal(arrays_of(path)["a"].read(), expected)
    assert os.waitpid(child, 0)[1] == 0


def test_threads(path):
    array = arrays_of(path)["a"]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda i: hdf5.read_part(path, "a", (i % 6, slice(None))), range(60)))
        whole = list(pool.map(lambda _: array.read(), range(8)))
    np.testing.assert_array_equal(rows, ARRAY[np.arange(60) % 6])
    assert all(np.array_equal(found, ARRAY) for found in whole)


def test_a_file_that_changes_between_parts(path):
    row = (2, slice(None))
    np.testing.assert_array_equal(hdf5.read_part(path, "a", row), ARRAY[2])
    with h5py.File(path, "r+") as file:  # nobody holds a lock on it
        file["a"][2] = 7
        file["more"] = np.zeros(1000)
    np.testing.assert_array_equal(hdf5.read_part(path, "a", row), [7] * 4)
    assert set(arrays_of(path)) == {"a", "more"}
    with h5py.File(path, "w") as file:
        file["a"] = ARRAY.T
    assert arrays_of(path)["a"].shape == (4, 6)
    np.testing.assert_array_equal(hdf5.read_part(path, "a", (2, slice(None))), ARRAY.T[2])


def test_parts_that_there_are_not(path):
    for name, at, message in (
        ("b", (0, 0), "b is missing"),
        ("a", (6, slice(None)), "(out of range|Index)"),
        ("a/b", (0,), "a/b is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            hdf5.read_part(path, name, at)
