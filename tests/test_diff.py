"""Whether two files hold the same volume: values, places, and where they differ."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import h5py
import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine

from command import ANISO, NUCLEI, make_nifti, noise
from volconv import copying
from volconv import difference as module
from volconv.difference import diff, differences
from volconv.errors import OutOfMemoryError, ParameterError, ReadError
from volconv.geometry import Geometry
from volconv.io import ArraySource, OpenVolume, Region, Scaling, VolumeInfo, open_volume

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def source(array, geometry=None):
    return ArraySource(np.asarray(array).reshape((1,) * (5 - np.ndim(array)) + np.shape(array)), geometry)


def interesting(dtype):
    """The ends of a dtype, what lies beside them and beside 2**53, and small numbers."""
    if np.dtype(dtype).kind == "f":
        limit = np.finfo(dtype)
        values = [0.0, 1.0, -2.5, float(limit.max), -float(limit.max), float(limit.smallest_subnormal), 2.0**15]
        return np.array([*values, *([2.0**53, 2.0**63, -(2.0**63)] if dtype != "float16" else [])], dtype)
    limit = np.iinfo(dtype)
    around = [m + d for m in (0, 2**31, 2**53, -(2**53), limit.min, limit.max) for d in (-1, 0, 1, 1025)]
    return np.array([v for v in around if limit.min <= v <= limit.max], dtype)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement((*INTEGERS, *FLOATS), 2)))
def test_differences_are_exact_for_integers_and_nearly_so_for_floats(one, other):
    a, b = (grid.ravel() for grid in np.meshgrid(interesting(one), interesting(other)))
    for x, y in ((a, b), (b, a)):
        exact = [abs(Fraction(v.item()) - Fraction(w.item())) for v, w in zip(x, y)]
        found = differences((x, y)).tolist()
        if one in INTEGERS and other in INTEGERS:
            assert found == [min(distance, 2**64 - 1) for distance in exact]
            continue
        for got, right in zip(found, exact):
            assert (got == 0) == (right == 0)
            if right > Fraction(1.5) * Fraction(np.finfo(np.float64).max):
                assert got == math.inf
            else:
                assert abs(Fraction(got) - right) <= right * Fraction(2) ** -51


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_equals_nan_and_an_infinity_itself(dtype):
    values = np.array([np.nan, np.inf, -np.inf, 1], dtype)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    expected = [0 if v == w or (v != v and w != w) else math.inf for v, w in zip(a, b)]
    assert differences((a, b)).tolist() == expected


@pytest.mark.parametrize("integer", ["uint8", "int64", "uint64"])
def test_integers_against_what_is_not_finite(integer):
    floats = np.array([np.nan, np.inf, -np.inf])
    for pair in ((np.ones(3, integer), floats), (floats, np.ones(3, integer))):
        assert differences(pair).tolist() == [math.inf] * 3


def test_complex_by_modulus_and_by_part():
    nan = np.nan
    a = np.array([3 + 4j, complex(nan, 1), complex(nan, 1), complex(1, np.inf)])
    b = np.array([0 + 0j, complex(nan, 1), complex(nan, 4), complex(2, np.inf)])
    assert differences((a, b)).tolist() == [5, 0, 3, 1]
    assert differences((a[:1].astype(np.complex64), np.array([3], np.int16))).tolist() == [4]


def test_integers_stored_alike_keep_their_exactness_when_scaled():
    a, b = np.array([2**62 + 1, 10]), np.array([2**62, 7])
    alike = Scaling(-0.1, 1e6)
    assert differences((a, b), (alike, alike)).tolist() == [0.1, 3 * 0.1]
    assert differences((a[1:], b[1:]), (alike, Scaling(0.1, 0))).tolist() == [1e6 - 1 - 0.7]
    assert differences((a[1:], b[1:]), (None, Scaling(2, 1))).tolist() == [5]
    floats = a[1:].astype(float), b[1:].astype(float)
    assert differences(floats, (Scaling(2, 1), Scaling(2, 1))).tolist() == [6]
    assert differences((a[1:] + 1j, b[1:]), (Scaling(2, 1), None)).tolist() == [abs(21 + 2j - 7)]


def test_a_volume_is_the_same_as_itself():
    for path in (ANISO, NUCLEI):
        found = diff(path, path)
        assert (found.same, found.same_geometry, found.differing, found.largest) == (True, True, 0, 0)
        assert found.voxel is found.world is found.values is None
        assert found.names == (str(path), str(path))
        with open_volume(path) as volume:
            assert diff(volume, volume).same
            assert found.notes == volume.info.notes != ()
            assert found.dtypes == (volume.info.dtype.name,) * 2


def test_where_the_largest_difference_is():
    array = noise((9, 10, 11), "int16")
    other = array.copy()
    other[2, 3, 4] += 1
    other[5, 6, 7] -= 3
    other[5, 6, 8] += 3
    affine = nibabel.affines.from_matvec([[-2, 0.1, 0], [0, 0.5, 0.2], [0, 0, 3]], [10, -20, 30])
    found = diff(make_nifti("a.nii", array, affine), make_nifti("b.nii.gz", other, affine))
    assert not found.same
    assert found.same_geometry
    assert (found.differing, found.largest, found.voxel) == (3, 3, (0, 0, 5, 6, 7))
    assert found.values == (array[5, 6, 7], array[5, 6, 7] - 3)
    with open_volume("a.nii") as volume:
        assert found.world == tuple(apply_affine(volume.info.geometry.matrix, (7, 6, 5)).tolist())
    np.testing.assert_allclose(found.world, apply_affine(affine, (7, 6, 5)), rtol=1e-6)


def test_time_and_channels_have_a_place_too():
    a = np.zeros((3, 2, 4, 5, 6), np.float32)
    b = a.copy()
    b[2, 1, 3, 4, 5] = -0.5
    found = diff(source(a, Geometry.from_spacing((3, 2, 1))), source(b, Geometry.from_spacing((3, 2, 1))))
    assert (found.voxel, found.world, found.values) == ((2, 1, 3, 4, 5), (5, 8, 9), (0, -0.5))
    assert diff(source(a), source(b)).world is None


def test_the_tolerance_is_what_may_be_reached():
    a, b = source(np.zeros((1, 1, 3))), source(np.array([[[0, 0.25, 0.5]]]))
    for tolerance, differing in ((0, 2), (0.2, 2), (0.25, 1), (0.5, 0), (1e300, 0)):
        found = diff(a, b, tolerance=tolerance)
        assert (found.differing, found.same, found.tolerance) == (differing, differing == 0, tolerance)
        assert (found.largest, found.voxel) == (0.5, (0, 0, 0, 0, 2))


def test_the_tolerance_of_integers():
    a, b = source(np.zeros((1, 1, 3), np.int64)), source(np.array([[[1, 2, 3]]]))
    for tolerance, differing in ((0, 3), (0.9, 3), (1, 2), (2.5, 1), (3, 0), (1e30, 0)):
        assert diff(a, b, tolerance=tolerance).differing == differing
    low, high = source(np.zeros((1, 1, 1), np.int64)), source(np.full((1, 1, 1), 2**53 + 1))
    assert diff(low, high, tolerance=2.0**53).differing == 1
    assert diff(low, high).largest == 2**53 + 1
    assert diff(low, high).values == (0, 2**53 + 1)


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf, -math.inf])
def test_a_tolerance_is_a_number_from_0(tolerance):
    with pytest.raises(ParameterError, match=rf"tolerance must be a number from 0 \(got {tolerance}\)"):
        diff("gone.nii", "gone.nii", tolerance=tolerance)


def test_large_integers_in_files():
    h5py.File("a.h5", "w").create_dataset("x", data=np.full((2, 3, 4), 2**60, np.int64)).file.close()
    values = np.full((2, 3, 4), 2**60, np.uint64)
    values[1, 2, 3] += 1
    h5py.File("b.h5", "w").create_dataset("x", data=values).file.close()
    h5py.File("c.h5", "w").create_dataset("x", data=np.full((2, 3, 4), 2.0**60)).file.close()
    for one, other in (("a.h5", "b.h5"), ("b.h5", "c.h5"), ("c.h5", "b.h5")):
        found = diff(one, other)
        assert (found.differing, found.largest, found.voxel) == (1, 1, (0, 0, 1, 2, 3))
    assert diff("a.h5", "c.h5").same


def test_real_values_are_compared_and_dtype_does_not_count():
    array = noise((5, 6, 7), "int16")
    image = nibabel.Nifti1Image(array.transpose(), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    image.header.set_xyzt_units("mm")
    image.to_filename("scaled.nii")
    make_nifti("real.nii", array * np.float64(0.5) + 3)
    found = diff("scaled.nii", "real.nii")
    assert found.same
    assert found.dtypes == ("int16", "float64")
    make_nifti("plain.nii", array)
    assert not diff("scaled.nii", "plain.nii").same
    make_nifti("wide.nii", array.astype(np.int32))
    assert diff("plain.nii", "wide.nii").same


def test_stored_alike_and_scaled_otherwise_is_different():
    array = np.full((2, 3, 4), 4, np.int16)
    for name, slope in (("a.nii", 0.5), ("b.nii", 2)):
        image = nibabel.Nifti1Image(array, np.eye(4))
        image.header.set_slope_inter(slope, 0)
        image.to_filename(name)
    found = diff("a.nii", "b.nii")
    assert (found.differing, found.largest, found.values) == (24, 6, (2, 8))


def test_nan_everywhere_is_the_same():
    values = noise((5, 6, 7))
    values[:3] = np.nan
    other = values.copy()
    found = diff(source(values), source(other))
    assert (found.same, found.largest, found.voxel) == (True, 0, None)
    other[4, 5, 6] = np.nan
    found = diff(source(values), source(other))
    assert (found.differing, found.largest, found.voxel) == (1, math.inf, (0, 0, 4, 5, 6))
    assert diff(source(values), source(other), tolerance=1e308).differing == 1


def test_geometry():
    array = noise((5, 6, 7))
    millimetres = source(array, Geometry.from_spacing((1, 1, 1), "mm"))
    assert diff(millimetres, source(array, Geometry.from_spacing((1e-3,) * 3, "m"))).same
    assert diff(millimetres, source(array, Geometry.from_spacing((1, 1, 1.00001), "mm"))).same
    for other in (
        Geometry.from_spacing((1, 1, 1), "um"),
        Geometry.from_spacing((1, 1, 1.01), "mm"),
        Geometry.from_spacing((1, 1, 1), "mm", (0, 0, 0.01)),
        None,
    ):
        found = diff(millimetres, source(array, other))
        assert (found.same, found.same_geometry, found.differing) == (False, False, 0)
        assert found.geometries == (millimetres.info.geometry, other or Geometry())


def test_of_other_shapes_nothing_more_is_compared():
    class Unread(ArraySource):
        def read(self, region):
            raise AssertionError(region)

    a, b = Unread(np.zeros((1, 1, 2, 3, 4))), Unread(np.zeros((1, 1, 2, 4, 3), np.int8))
    found = diff(a, b)
    assert not found.same
    assert found.shapes == ((1, 1, 2, 3, 4), (1, 1, 2, 4, 3))
    assert found.dtypes == ("float64", "int8")
    assert found.same_geometry is found.differing is found.largest is found.voxel is None


def test_many_blocks_and_progress(monkeypatch):
    calls = []

    def small(shape, chunks, voxel_bytes, _, *order):
        return blocks(shape, chunks, voxel_bytes, voxel_bytes * 40, *order)

    blocks = copying.blocks
    monkeypatch.setattr(copying, "blocks", small)
    a = np.random.default_rng(0).normal(size=(2, 2, 5, 6, 7))
    b = a + np.random.default_rng(1).normal(size=a.shape)
    found = diff(source(a), source(b), tolerance=1, progress=lambda *done: calls.append(done))
    apart = abs(a - b)
    assert found.differing == np.count_nonzero(apart > 1)
    assert found.voxel == np.unravel_index(apart.argmax(), a.shape)
    assert found.largest == apart.max()
    assert found.values == (a[found.voxel], b[found.voxel])
    assert calls[-1] == (a.nbytes + b.nbytes,) * 2
    assert calls == sorted(calls)
    assert len(calls) > 10


def test_the_first_of_equal_differences_is_told(monkeypatch):
    monkeypatch.setattr(copying, "blocks", lambda shape, *_: [Region.whole(shape).along(2, z, z + 1) for z in range(4)])
    other = np.zeros((4, 5, 6))
    other[1, 2, 3] = other[1, 2, 4] = other[3] = 7
    assert diff(source(np.zeros((4, 5, 6))), source(other)).voxel == (0, 0, 1, 2, 3)


def test_memory_is_bounded():
    largest = 0

    class Endless(OpenVolume):
        info = VolumeInfo((2, 3, 400, 500, 600), np.dtype(np.uint8))

        def read(self, region):
            nonlocal largest
            largest = max(largest, math.prod(region.shape))
            return np.broadcast_to(np.uint8(7), region.shape)

    assert diff(Endless(), Endless()).same
    assert 2**16 < largest * module._VOXEL_BYTES <= copying.BLOCK_BYTES


def test_files_that_cannot_be_read():
    make_nifti("a.nii", noise())
    for pair in (("a.nii", "gone.nii"), ("gone.nii", "a.nii")):
        with pytest.raises(ReadError, match=r"gone\.nii: no such file"):
            diff(*pair)


def test_out_of_memory():
    class Hungry(ArraySource):
        def read(self, region):
            raise MemoryError(region)

    with pytest.raises(OutOfMemoryError, match="volume: needs more memory than there is"):
        diff(Hungry(np.zeros((1, 1, 1, 1, 1))), source(np.zeros((1, 1, 1))))


def test_as_json():
    def document(a, b, **options):
        return json.loads(json.dumps(diff(a, b, **options).as_dict(), allow_nan=False))

    millimetres = Geometry.from_spacing((3, 2, 1))
    one, other = np.zeros((1, 2, 3), np.int64), np.zeros((1, 2, 3), np.int64)
    other[0, 1, 2] = 2**60 + 1
    assert document(source(one, millimetres), source(other, millimetres), tolerance=0.5) == {
        "schema_version": 1,
        "same": False,
        "files": ["volume", "volume"],
        "shapes": [[1, 1, 1, 2, 3]] * 2,
        "dtypes": ["int64", "int64"],
        "affines": [[[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]] * 2,
        "units": ["mm", "mm"],
        "same_geometry": True,
        "time_steps": [None, None],
        "same_time_step": None,
        "tolerance": 0.5,
        "differing_voxels": 1,
        "largest_difference": 2**60 + 1,
        "voxel": [0, 0, 0, 1, 2],
        "world": [2, 2, 0],
        "values": [0, 2**60 + 1],
        "notes": [],
    }
    nan = document(source(np.array([[[1.0]]])), source(np.array([[[np.nan]]])))
    assert (nan["largest_difference"], nan["values"], nan["world"]) == ("inf", [1, "nan"], None)
    pair = document(source(np.array([[[1 + 2j]]])), source(np.array([[[complex(1, -np.inf)]]])))
    assert (pair["largest_difference"], pair["values"]) == ("inf", [[1, 2], [1, "-inf"]])
    shapes = document(source(np.zeros((1, 1, 1))), source(np.zeros((1, 1, 2))))
    assert {key for key, value in shapes.items() if value is None} == {
        "same_geometry",
        "same_time_step",
        "differing_voxels",
        "largest_difference",
        "voxel",
        "world",
        "values",
    }
