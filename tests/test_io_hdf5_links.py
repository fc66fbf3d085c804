"""Nothing outside an HDF5 file is read, whatever way leads there."""

import h5py
import numpy as np
import pytest

from volconv.errors import ReadError
from volconv.io import list_contents, open_volume


@pytest.fixture
def path(tmp_path):
    """A file that leads to another one in every way that there is."""
    array = np.arange(24.0).reshape(2, 3, 4)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["raw"] = array + 100
        file["group/raw"] = array + 100
    (tmp_path / "raw.bin").write_bytes((array + 100).tobytes())
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["inside/raw"] = array
        file["far"] = h5py.ExternalLink("other.h5", "/raw")
        file["groups"] = h5py.ExternalLink("other.h5", "/group")
        file["soft"] = h5py.SoftLink("/inside/raw")
        file["inside/near"] = h5py.SoftLink("raw")
        file["inside/steps"] = h5py.SoftLink("/linked/./near")
        file["linked"] = h5py.SoftLink("inside")
        file["soft_far"] = h5py.SoftLink("/far")
        file["soft_groups"] = h5py.SoftLink("/groups/raw")
        file["circle"] = h5py.SoftLink("/circle")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file.create_dataset("external", (2, 3, 4), "f8", external=[(str(tmp_path / "raw.bin"), 0, 192)])
        for name, source in {
            "virtual_far": h5py.VirtualSource("other.h5", "raw", (2, 3, 4)),
            "virtual_near": h5py.VirtualSource(file["inside/raw"]),
            "virtual_link": h5py.VirtualSource(".", "far", (2, 3, 4)),
            "virtual_external": h5py.VirtualSource(".", "external", (2, 3, 4)),
            "virtual_lost": h5py.VirtualSource(".", "lost", (2, 3, 4)),
            "virtual_group": h5py.VirtualSource(".", "inside", (2, 3, 4)),
        }.items():
            layout = h5py.VirtualLayout((2, 3, 4), "f8")
            layout[:] = source
            file.create_virtual_dataset(name, layout)
        for level in range(6):
            layout = h5py.VirtualLayout((2, 3, 4), "f8")
            below = f"deep{level - 1}" if level else "inside/raw"
            layout[:] = h5py.VirtualSource(".", below, (2, 3, 4))
            file.create_virtual_dataset(f"deep{level}", layout)
    return tmp_path / "v.h5"


@pytest.mark.parametrize(
    "key",
    ["soft", "inside/near", "inside/steps", "linked/raw", "linked/near", "virtual_near", "deep2", "./inside//raw/"],
)
def test_links_within_the_file_are_followed_by_name(path, key):
    with open_volume(f"{path}:{key}") as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], np.arange(24.0).reshape(2, 3, 4))


LINK = (
    r"is reached by an external link to other\.h5:/{}, and links are not followed out of a file; name that file instead"
)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("far", LINK.format("raw")),
        ("groups/raw", LINK.format("group")),
        ("soft_far", LINK.format("raw")),
        ("soft_groups", LINK.format("group")),
        ("circle", "circle: its soft links lead in a circle"),
        ("dangling", "holds no dataset /dangling"),
        (
            "external",
            r"keeps its voxels in another file \(.*raw\.bin\), and other files are not followed; copy it into one",
        ),
        (
            "virtual_far",
            r"is a virtual dataset of other\.h5:raw, and other files are not followed; copy it into one file",
        ),
        ("virtual_link", LINK.format("raw")),
        ("virtual_external", r"virtual_external: keeps its voxels in another file"),
        ("virtual_lost", "is a virtual dataset, and its part lost cannot be found"),
        ("virtual_group", "is a virtual dataset, and its part inside cannot be found"),
        ("deep5", "is a virtual dataset, and its part .* cannot be found"),
    ],
)
def test_ways_out_are_refused(path, key, message):
    with pytest.raises(ReadError, match=message) as caught:
        open_volume(f"{path}:/{key}")
    assert caught.value.message.startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_search_follows_no_links(path):
    names = {entry.name.removeprefix(f"{path}:") for entry in list_contents(path)}
    assert "/inside/raw" in names
    assert not names & {"/far", "/groups/raw", "/soft", "/soft_far", "/linked/raw"}


def test_the_only_dataset_may_lie_outside_too(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("raw", (2, 3, 4), "f8", external=[("elsewhere.bin", 0, 192)])
    with pytest.raises(ReadError, match=r"v\.h5:/raw: keeps its voxels in another file \(elsewhere\.bin\)"):
        open_volume(tmp_path / "v.h5")


def test_links_of_unknown_kinds(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["far"] = h5py.ExternalLink("other.h5", "/raw")
    monkeypatch.setattr(h5py.h5l, "TYPE_EXTERNAL", -5)
    with pytest.raises(ReadError, match="is reached by a link of an unknown kind"):
        open_volume(f"{tmp_path}/v.h5:/far")
