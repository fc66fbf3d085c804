"""``volconv view``: which voxels are shown where, and what is said when they cannot be."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from matplotlib import image as pictures

from command import NUCLEI, make_nifti, names, noise, volconv
from niftifiles import OBLIQUE
from volconv import Geometry, open_volume
from volconv.io import ArraySource
from volconv.view import view
from volconv.view.png import draw_png
from volconv.view.scene import gather
from volconv.view.slices import slices_of, window_of


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_close(got, expected, dtype):
    np.testing.assert_allclose(got, expected, rtol=8 * np.finfo(dtype).eps)


def canonical(path, world):
    """Axial, coronal and sagittal slices through a place, anterior and superior on top, left on the left: nibabel's."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    x, y, z = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), world)).astype(int)
    voxels = np.asarray(image.dataobj)
    return [voxels[:, :, z].T[::-1], voxels[:, y, :].T[::-1], voxels[x].T[::-1]]


AFFINES = {
    "RAS": np.diag([1, 2, 3, 1.0]),
    "LPS": nibabel.affines.from_matvec(np.diag([-1, -2, 3.0]), [9, 8, 7]),
    "SLA": nibabel.affines.from_matvec(np.array([[0, -2, 0], [0, 0, 1], [3, 0, 0.0]]), [1, 2, 3]),
    "IPR": nibabel.affines.from_matvec(np.array([[0, 0, 1], [0, -2, 0], [-3, 0, 0.0]]), [1, 2, 3]),
    "oblique": OBLIQUE,
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_body_is_shown_upright_whatever_its_axes(affine):
    make_nifti("a.nii", noise((5, 6, 7)), affine)
    with open_volume("a.nii") as volume:
        shown = slices_of(volume, (1, 4, 2))
    for plane, expected in zip(shown.planes, canonical("a.nii", shown.world)):
        np.testing.assert_array_equal(plane.values, expected)
        assert plane.values[plane.cross] == shown.value
    assert [plane.title for plane in shown.planes] == ["axial", "coronal", "sagittal"]
    assert ["".join(plane.letters) for plane in shown.planes] == ["LRAP", "LRSI", "PASI"]
    zooms = nibabel.as_closest_canonical(nibabel.load("a.nii")).header.get_zooms()
    for plane, (row, column) in zip(shown.planes, [(1, 0), (2, 0), (2, 1)]):
        assert_close(plane.spacing, (float(zooms[row]), float(zooms[column])), np.float32)
    assert (shown.tilt > 1) == (affine is OBLIQUE)


def test_axes_have_names_where_no_directions_are_known():
    with open_volume(NUCLEI) as volume:
        shown = slices_of(volume, (3, 40, 50))
    voxels = tifffile.imread(NUCLEI)
    expected = [voxels[3], voxels[:, 40], voxels[:, :, 50]]
    for plane, values in zip(shown.planes, expected):
        np.testing.assert_array_equal(plane.values, values)
        assert plane.values[plane.cross] == voxels[3, 40, 50]
    assert [(plane.title, "".join(plane.letters)) for plane in shown.planes] == [
        ("XY", "XY"),
        ("XZ", "XZ"),
        ("YZ", "YZ"),
    ]
    assert (shown.tilt, shown.world) == (0, None)


def test_a_spacing_alone_is_no_orientation():
    with h5py.File("a.h5", "w") as file:
        file["data"] = noise()
        file["data"].attrs["element_size_um"] = [2.0, 0.5, 0.5]
    with open_volume("a.h5") as volume:
        assert not slices_of(volume).oriented
    make_nifti("b.nii", noise(), AFFINES["LPS"])
    volconv("convert", "b.nii", "b.h5", "-q")
    with open_volume("b.h5") as volume, open_volume("b.nii") as same:
        assert [plane.letters for plane in slices_of(volume).planes] == [p.letters for p in slices_of(same).planes]


def test_a_stream_is_read_once_and_gives_the_same(monkeypatch):
    array = noise((40, 50, 60))
    make_nifti("a.nii", array, AFFINES["SLA"])
    make_nifti("a.nii.gz", array, AFFINES["SLA"])
    monkeypatch.setattr("volconv.copying.BLOCK_BYTES", 1 << 17)
    with open_volume("a.nii") as one, open_volume("a.nii.gz") as other:
        for plane, same in zip(slices_of(one, (7, 8, 9)).planes, slices_of(other, (7, 8, 9)).planes):
            np.testing.assert_array_equal(plane.values, same.values)


def test_the_first_of_several_is_shown_and_a_note_tells(capsys):
    array = noise((2, 3, 4, 5, 6), "uint8")
    nibabel.Nifti1Image(array.transpose(4, 3, 2, 0, 1), np.eye(4)).to_filename("a.nii")
    volconv("view", "a.nii", "-o", "a.png", "--json")
    out, err = capsys.readouterr()
    assert json.loads(out)["volumes"][0]["value"] == array[0, 0, 2, 2, 3]
    assert "a.nii: has 2 volumes in time and 3 channels; of each the first is shown" in err
    volconv("view", "a.nii", "-o", "b.png", "--json", "--time", 1, "--channel", 2, "-q")
    out, err = capsys.readouterr()
    assert json.loads(out)["volumes"][0]["value"] == array[1, 2, 2, 2, 3]
    assert err == ""


def test_scaled_and_complex_values_are_real_ones():
    nifti = nibabel.Nifti1Image(np.full((3, 3, 3), 7, np.int16), np.eye(4))
    nifti.header.set_slope_inter(0.1, -1)
    nifti.to_filename("a.nii")
    with open_volume("a.nii") as volume:
        value = gather([volume]).volumes[0].value
    assert_close(value, nibabel.load("a.nii").get_fdata()[0, 0, 0], np.float64)
    scene = gather([ArraySource(np.full((1, 1, 3, 3, 3), 3 - 4j))])
    assert scene.volumes[0].value == 5
    assert scene.notes == ("volume: voxels are complex, and shown by their modulus",)


def test_the_window():
    values = np.arange(27000.0).reshape(1, 1, 30, 30, 30)
    shown = slices_of(ArraySource(values))
    pooled = np.concatenate([values[0, 0, 15].ravel(), values[0, 0, :, 15].ravel(), values[0, 0, :, :, 15].ravel()])
    assert window_of([shown]) == tuple(np.percentile(pooled, (0.5, 99.5)))
    sparse = np.zeros((1, 1, 30, 30, 30))
    sparse[0, 0, 15, 15, 15] = 3
    assert window_of([slices_of(ArraySource(sparse))]) == (0, 3)
    assert window_of([slices_of(ArraySource(sparse * np.nan))]) == (0, 1)
    assert gather([ArraySource(values)], window=(5, 6)).window == (5, 6)


def test_other_grids_are_cut_at_the_same_place_in_the_world():
    make_nifti("a.nii", noise((20, 20, 20)), AFFINES["LPS"])
    volconv("apply", "a.nii", "-k", "box:size=3", "--stride", "3", "-o", "b.nii", "-q")
    with open_volume("a.nii") as a, open_volume("b.nii") as b:
        scene = gather([a, b], at="10,4,7")
    one, other = scene.volumes
    assert (one.voxel, other.voxel) == ((7, 4, 10), (2, 1, 3))
    assert one.world == other.world  # the middle of the box that became it
    assert scene.difference is None
    assert "no difference is shown: the two volumes do not lie on one grid" in scene.notes


def test_a_place_in_the_world():
    make_nifti("a.nii", noise(), OBLIQUE)
    x, y, z = nibabel.affines.apply_affine(OBLIQUE, (3, 4, 5))
    for at in (f"{x},{y},{z}mm", f"{x * 1e3},{y * 1e3},{z * 1e3} um", "3,4,5"):
        with open_volume("a.nii") as volume:
            found = gather([volume], at=at).volumes[0]
        assert found.voxel == (5, 4, 3)
        assert_close(found.world, (x, y, z), np.float32)


def test_a_place_between_voxels_is_in_the_nearest():
    make_nifti("a.nii", noise(), AFFINES["RAS"])
    for at in ("1.4,4.8,9.2mm", "0.6,3.2,7.6mm"):
        with open_volume("a.nii") as volume:
            assert gather([volume], at=at).volumes[0].voxel == (3, 2, 1)


def test_without_units_each_has_its_own_middle():
    small, large = ArraySource(np.ones((1, 1, 4, 4, 4))), ArraySource(np.ones((1, 1, 9, 9, 9)))
    assert [one.voxel for one in gather([large, small]).volumes] == [(4, 4, 4), (2, 2, 2)]
    assert [one.voxel for one in gather([large, small], at="1,2,3").volumes] == [(3, 2, 1)] * 2


def test_the_difference():
    make_nifti("a.nii", noise(), AFFINES["IPR"])
    change = noise(seed=1) - 100
    make_nifti("b.nii", noise() + change, AFFINES["IPR"])
    make_nifti("c.nii", change, AFFINES["IPR"])
    with open_volume("a.nii") as a, open_volume("b.nii") as b, open_volume("c.nii") as c:
        scene, expected = gather([a, b]), slices_of(c)
    for plane, same in zip(scene.difference.planes, expected.planes):
        np.testing.assert_array_equal(plane.values, same.values)
    assert scene.largest == max(np.abs(plane.values).max() for plane in expected.planes)


def test_equal_infinities_do_not_differ():
    values = np.full((1, 1, 3, 3, 3), np.inf)
    scene = gather([ArraySource(values), ArraySource(values)])
    assert (scene.difference.value, scene.largest) == (0, 0)
    assert scene.as_dict()["volumes"][0]["value"] == "inf"


def drawn(scene):
    file = io.BytesIO()
    draw_png(scene, file)
    return pictures.imread(io.BytesIO(file.getvalue())), file.getvalue()


def test_spacing_is_respected_in_the_picture():
    bright = ArraySource(np.ones((1, 1, 10, 20, 20)), Geometry.from_spacing((4, 1, 1), "um"))
    picture, content = drawn(gather([bright], window=(0, 1)))
    white = (picture[..., :3] > 0.99).all(axis=-1)
    columns = np.flatnonzero(np.diff(white.sum(axis=0) > 50)).reshape(-1, 2)
    sizes = []
    for left, right in columns:
        rows = np.flatnonzero(white[:, left + 20])
        sizes.append((rows[-1] - rows[0], right - left))
    tall = [height / width for height, width in sizes]
    np.testing.assert_allclose(tall, [1, 2, 2], rtol=0.02)  # pixels are whole
    assert content == drawn(gather([bright], window=(0, 1)))[1]


def test_grey_values_are_those_of_the_window():
    ramp = np.repeat(np.linspace(0, 100, 5), 20)[None, None, None, None].repeat(60, axis=3).repeat(60, axis=2)
    picture, _ = drawn(gather([ArraySource(ramp)], window=(0, 100)))
    levels = {round(float(v), 2) for v in picture[picture.shape[0] // 3, :, 0]}
    assert {0.0, 0.25, 0.5, 0.75, 1.0} <= levels


def test_what_is_not_finite_is_coloured_and_counted():
    values = np.ones((1, 1, 9, 9, 9))
    values[..., :4] = np.nan
    picture, _ = drawn(gather([ArraySource(values), ArraySource(values)]))
    assert (np.abs(picture[..., :3] - np.array([0x5B, 0x3F, 0x8C]) / 255).max(axis=-1) < 0.01).mean() > 0.1


def test_the_command_writes_a_picture_and_tells(capsys):
    make_nifti("a.nii", noise(), AFFINES["RAS"])
    make_nifti("b.nii", noise() + 2, AFFINES["RAS"])
    volconv("view", "a.nii", "b.nii", "-o", "out.PNG", "--window", "0,100", "--at", "1,2,3", "--json")
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["window"] == [0, 100]
    assert facts["volumes"][1]["world"] == [1, 4, 9]
    assert facts["difference"] == {"value": 2, "largest_in_slices": 2}
    assert err == (
        "a.nii and b.nii -> out.PNG: voxel 1,2,3 (x,y,z), which is 1,4,9 mm, window 0 to 100, largest difference "
        "in the slices 2\n"
    )
    assert pictures.imread("out.PNG").ndim == 3
    assert names(".") == ["a.nii", "b.nii", "out.PNG"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "out.jpg"], 2, r"output must end in \.png or \.html \(got 'out\.jpg'\)"),
        (["-o", "there.png"], 4, "there.png: the output already exists; pass -f"),
        (["-o", "no/out.png"], 1, "no/out.png: the output's folder does not exist"),
        ([], 2, "Missing option '-o' / '--output'"),
        (["-o", "o.png", "--at", "1,2"], 2, r"at must be x,y,z, three numbers .* \(got '1,2'\)"),
        (["-o", "o.png", "--at", "1,2,3ft"], 2, r"at must be x,y,z, .* \(got '1,2,3ft'\)"),
        (["-o", "o.png", "--at", "1,2,1e999mm"], 2, "at must be x,y,z"),
        (["-o", "o.png", "--at", "1,2,3.5"], 2, r"at must count whole voxels from 0 \(got '1,2,3\.5'\)"),
        (["-o", "o.png", "--at", "1,2,9"], 5, r"at must lie within a\.nii, .* 0,0,0 to 10,9,8 \(got 1,2,9, which"),
        (["-o", "o.png", "--at", "1,2,-9mm"], 5, r"got 1,2,-9mm, which is voxel 1,1,-3 of it"),
        (["-o", "o.png", "--window", "5"], 2, r"must be LO,HI, two numbers with a comma between \(got '5'\)"),
        (["-o", "o.png", "--window", "5,5"], 2, r"window must be lo,hi, two numbers that grow \(got 5,5\)"),
        (["-o", "o.png", "--window", "nan,5"], 2, r"window must be lo,hi, two numbers that grow \(got nan,5\)"),
        (["gone.nii", "-o", "o.png"], 3, "gone.nii: no such file"),
        (["far.nii", "-o", "o.png"], 5, r"at must lie within far\.nii, .* \(got the first volume's middle, which"),
    ],
)
def test_errors(capsys, arguments, code, message):
    make_nifti("a.nii", noise(), AFFINES["RAS"])
    make_nifti("far.nii", noise(), nibabel.affines.from_matvec(np.eye(3), [500, 0, 0]))
    Path("there.png").touch()
    volconv("view", "a.nii", *arguments, code=code)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(message, err), err
    assert "o.png" not in names(".")


def test_a_place_in_the_world_needs_a_unit(capsys):
    volconv("view", NUCLEI, "-o", "o.png", "--at", "1,2,3um", code=2)
    assert re.search(r"at in um needs a spacing, and .*nuclei\.tif states none; state it", capsys.readouterr().err)


def test_without_matplotlib(capsys, monkeypatch):
    make_nifti("a.nii", noise())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    volconv("view", "a.nii", "-o", "a.png", code=1)
    assert capsys.readouterr().err == (
        "volconv: error: a.png: a PNG is drawn by matplotlib, which is not installed; pip install 'volconv[view]', "
        "or write a page (-o out.html), which needs nothing\n"
    )
    assert names(".") == ["a.nii"]


def test_nothing_is_left_when_drawing_fails(monkeypatch):
    make_nifti("a.nii", noise())
    monkeypatch.setattr("volconv.view.png.draw_png", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        view(["a.nii"], "a.png")
    assert names(".") == ["a.nii"]
