"""The command as a whole, and the package it is installed with: help, exit codes, what is imported when."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from safetensors.numpy import save_file

import volconv as library
import volconv_cli
from command import make_nifti, names, noise, volconv
from volconv.errors import VolconvError
from volconv_cli import exits
from volconv_cli.main import COMMANDS

SCRIPT = Path(sys.executable).parent / "volconv"
#: Every command that has a help of its own.
HELPS = [[], *([name] for name in COMMANDS), *(["kernel", name] for name in ("list", "show", "save"))]
HEAVY = {
    "distributed",
    "numpy",
    "numba",
    "nibabel",
    "h5py",
    "tifffile",
    "isal",
    "torch",
    "scipy",
    "rich",
    "zarr",
    "fsspec",
    "pydantic",
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def help_of(capsys, *command):
    volconv(*command, "--help")
    out, err = capsys.readouterr()
    assert err == ""
    return out


# --- help


@pytest.mark.parametrize("command", HELPS)
def test_help_fits_80_columns_and_goes_to_stdout(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, *command)
    assert max(map(len, text.splitlines())) <= 80
    volconv(*command, "-h")
    assert capsys.readouterr().out == text
    assert "Examples:" in text


def test_help_tells_the_exit_codes(capsys):
    text = help_of(capsys)
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^ +(\d+) +\w", text, re.MULTILINE)} == codes


def test_every_error_has_a_code():
    kinds = [kind for kind in vars(library.errors).values() if inspect.isclass(kind) and issubclass(kind, VolconvError)]
    assert {kind.__name__: exits.code_of(kind("")) for kind in kinds} == {
        "BackendError": 1,
        "ClusterError": 1,
        "VolconvError": 1,
        "ParameterError": 2,
        "ConfigError": 2,
        "ShapeError": 5,
        "DtypeError": 5,
        "ReadError": 3,
        "WriteError": 1,
        "OutputExistsError": 4,
        "OutOfMemoryError": 6,
    }


def make_what_examples_name():
    """Small files under the names that the help's examples use."""
    make_nifti("brain.nii.gz", noise((12, 13, 14), "uint8"))
    make_nifti("brain.nii", noise((12, 13, 14), "int16"))
    make_nifti("m.nii", noise((12, 13, 14), "uint8") // 100)
    make_nifti("smooth.nii.gz", noise((12, 13, 14), "float32"))
    for name in ("t1", "t2"):
        make_nifti(f"{name}.nii.gz", noise((12, 13, 14), "int16"))
    make_nifti("ct.nii", noise((12, 13, 14), "int16"))
    for i in (1, 2):
        make_nifti(f"sub-{i}.nii.gz", noise((12, 13, 14), "uint8", seed=i))
    tifffile.imwrite("cells.tif", noise((12, 13, 14), "uint16"), photometric="minisblack", metadata={"axes": "ZYX"})
    rng = np.random.default_rng(0)
    layer = {"encoder.0.weight": rng.standard_normal((8, 1, 3, 3, 3)), "encoder.0.bias": rng.standard_normal(8)}
    save_file(layer, "unet.safetensors")
    np.savez("unet2.npz", weight=rng.standard_normal((8, 2, 3, 3, 3)))
    Path("smooth.toml").write_text('kernel = "gaussian:sigma=1.5mm"\npadding = "same"\n')
    Path("out").mkdir()


@pytest.mark.parametrize("command", HELPS)
def test_examples_in_the_help_work(capsys, command):
    lines = [line.strip() for line in help_of(capsys, *command).splitlines() if line.startswith("    volconv ")]
    assert len(lines) >= 3
    assert not command or all(f"{line} ".startswith(f"volconv {' '.join(command)} ") for line in lines)
    make_what_examples_name()
    for line in lines:
        words = []
        for word in shlex.split(line)[1:]:
            words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
        volconv(*words)
        out, err = capsys.readouterr()
        if words[0] == "apply" and "-n" in words:
            assert " -> " in out
        elif words[0] == "apply":
            target = words[words.index("-o") + 1]
            subjects = [target.format(stem=f"sub-{i}", ext=".nii.gz", name=f"sub-{i}.nii.gz") for i in (1, 2)]
            done = subjects if "{" in target else [target]
            assert all(Path(name).is_file() or Path(name, "zarr.json").is_file() for name in done)
            assert out == ""
        elif words[:2] == ["kernel", "save"]:
            assert Path(words[3].partition(":")[0]).stat().st_size > 0
            assert out == err == ""
        elif words[0] == "convert":
            made = ("brain.h5", "cells.nii.gz", "first.nii", "both.nii.gz")
            assert any(name in words and Path(name).is_file() for name in made)
            assert out == ""
        elif words[0] == "view":
            assert Path(words[words.index("-o") + 1]).is_file()
            assert out == ""
        elif words[0] == "shape":
            assert " -> " in out or '"output_shape"' in out
            assert err == ""
        else:
            assert out != ""


def test_units_and_axes_are_worded_alike(capsys):
    for command in HELPS:
        words = " ".join(help_of(capsys, *command).split())
        for start in re.finditer("mm, um", words):
            # Lengths of kernels are not in metres, and may be in voxels.
            assert words[start.start() :].startswith(("mm, um, nm or m", "mm, um, nm or voxels")), command
        for option in ("--stride", "--dilation", "--padding", "--kernel-size", "--spacing"):
            for told in re.findall(rf" {option} ([A-Z]\S*)", words):
                assert told.startswith("D,H,W"), (command, option, told)


def completed(*words):
    """What bash offers for the last of these words, and whether it adds names of files."""
    line = " ".join(words)
    script = f"""
        PATH={SCRIPT.parent}:$PATH
        compopt() {{ printf '%s %s\\n' "$@"; }}
        eval "$(_VOLCONV_COMPLETE=bash_source volconv)"
        COMP_WORDS=({line}{" ''" if not words[-1] else ""}); COMP_CWORD={len(words) - 1}
        _volconv_completion volconv "{words[-1]}"
        printf '%s\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash, and there is none")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["volconv", ""], [*COMMANDS]),
        (["volconv", "ap"], ["apply"]),
        (["volconv", "kernel", "s"], ["save", "show"]),
        (["volconv", "apply", "--padding-"], ["--padding-mode", "--padding-value"]),
        (["volconv", "apply", "--padding-mode", "re"], ["reflect", "replicate"]),
        (["volconv", "apply", "x.nii", "-k", "ga"], ["gabor", "gaussian", "-o default"]),
        (["volconv", "apply", "br"], ["-o default"]),
        (["volconv", "convert", "a.nii", "b"], ["-o default"]),
    ],
)
def test_a_shell_completes(words, offered):
    assert sorted(filter(None, completed(*words))) == sorted(offered)


# --- how it ends


def test_version(capsys):
    volconv("--version")
    assert capsys.readouterr().out == f"volconv {library.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aply"], r"No such command 'aply'; did you mean apply\? "),
        (["app"], r"No such command 'app'; did you mean apply\? "),  # no abbreviations
        (["xyz"], r"No such command 'xyz' \("),
        (["kernel", "shw"], r"No such command 'shw'; did you mean show\? "),
        (["--nope"], r"No such option '--nope' \("),
        (["--verson"], r"No such option '--verson'; did you mean --version\? "),
        (["apply", "--pading", "1"], r"No such option '--pading'; did you mean --padding\? "),
        (["shape", "--hlep"], r"No such option '--hlep'; did you mean --help\? "),
        (["apply", "-k", "identity", "-o", "x.nii"], r"Missing argument 'INPUT\.\.\.'"),
        (["apply", "x.nii", "-o", "y.nii"], r"Missing option '-k' / '--kernel'"),
        (["apply", "x.nii", "-k", "identity"], r"Missing option '-o' / '--output'"),
        (["apply", "x.nii", "-k"], r"Option '-k' requires an argument"),
        (["shape", "x.nii", "y.nii", "-k", "identity"], r"[Uu]nexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(capsys, arguments, message):
    volconv(*arguments, code=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("volconv: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert re.search(r"\(see 'volconv( apply| shape| kernel)? --help'\)\n$", err), err


def test_no_arguments_show_the_help(capsys):
    with pytest.raises(SystemExit) as ended:
        volconv_cli.main.main([])
    assert ended.value.code in (0, 2)  # click 8.1 and later ones differ
    out, err = capsys.readouterr()
    assert "Usage: volconv [OPTIONS] COMMAND" in out + err


def test_interrupted(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("volconv.functional.apply", interrupt)
    make_nifti("x.nii", noise())
    volconv("apply", "x.nii", "-k", "identity", "-o", "y.nii", code=130)
    assert capsys.readouterr().err.splitlines()[-1] == "volconv: interrupted"


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("volconv.functional.apply", fail)
    make_nifti("x.nii", noise())
    with pytest.raises(ZeroDivisionError):
        volconv_cli.main.main(["apply", "x.nii", "-k", "identity", "-o", "y.nii"])


def test_the_installed_command():
    make_nifti("in.nii", noise())
    for arguments, code in (
        (["shape", "in.nii", "-k", "box:size=3"], 0),
        (["apply", "in.nii", "-k", "box:size=3", "-o", "out.nii"], 0),
        (["apply", "in.nii", "-k", "box:size=3", "-o", "out.nii"], 4),
        (["apply", "gone.nii", "-k", "box:size=3", "-o", "out.nii"], 3),
    ):
        done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert (done.stdout == "") == (arguments[0] == "apply")
    assert names(".") == ["in.nii", "out.nii"]


def test_a_reader_that_leaves_early_is_no_bug():
    line = f"{shlex.quote(str(SCRIPT))} shape --input-shape 9,9,9 --kernel-size 3 | true"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# --- the package


def imported_by(code):
    program = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import volconv; volconv.__all__, volconv.__version__, dir(volconv)",
        "import volconv; volconv.ShapeError",
        "import volconv.errors, volconv.params, volconv.shapes",
        "import volconv; volconv.output_shape((1, 5, 5, 5), (1, 1, 3, 3, 3))",
        "from volconv_cli.main import main",
    ],
)
def test_imports_stay_light(code):
    assert not imported_by(code) & HEAVY


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["nope"], *([*names, "--help"] for names in HELPS if names)]
)
def test_help_and_usage_errors_stay_light(arguments):
    code = f"from volconv_cli.main import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    assert not imported_by(code) & HEAVY


LIBRARIES = HEAVY - {"numpy", "scipy"}  # what takes SciPy is numba, where it is installed


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        pytest.param(["info", "v.nii"], {"nibabel"}, marks=pytest.mark.slow),
        (["info", "v.nii.gz"], {"nibabel", "isal"}),
        (["info", "v.tif"], {"tifffile"}),
        (["info", "v.h5"], {"h5py"}),
        pytest.param(["info", "--formats"], set(), marks=pytest.mark.slow),
        (["doctor"], set()),
        (["shape", "v.nii", "-k", "box:size=3"], {"nibabel"}),
        pytest.param(["shape", "v.tif", "-k", "box:size=3", "--json"], {"tifffile"}, marks=pytest.mark.slow),
        pytest.param(["shape", "--input-shape", "9,9,9", "--kernel-size", "3"], set(), marks=pytest.mark.slow),
        (["kernel", "list"], set()),
        pytest.param(["kernel", "show", "log:sigma=2um", "--spacing", "1um"], set(), marks=pytest.mark.slow),
        pytest.param(["kernel", "show", "box:size=3mm", "--like", "v.nii"], {"nibabel"}, marks=pytest.mark.slow),
        pytest.param(["kernel", "save", "sobel", "s.npz"], set(), marks=pytest.mark.slow),
        (["kernel", "save", "sobel", "s.h5"], {"h5py"}),
        pytest.param(["convert", "v.nii", "o.nii"], {"nibabel"}, marks=pytest.mark.slow),
        (["convert", "v.tif", "o.h5"], {"tifffile", "h5py"}),
        pytest.param(["diff", "v.nii", "v.nii"], {"nibabel"}, marks=pytest.mark.slow),
        pytest.param(
            ["apply", "v.nii", "-k", "box:size=3", "-o", "o.nii"], {"nibabel", "numba"}, marks=pytest.mark.slow
        ),
        (["apply", "v.nii.gz", "-k", "box:size=3", "-o", "o.nii"], {"nibabel", "numba", "isal"}),
        pytest.param(
            ["apply", "v.nii", "-k", "box:size=3", "-o", "o.nii.gz"],
            {"nibabel", "numba", "isal"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["apply", "v.tif", "-k", "box:size=3", "-o", "o.tif"], {"tifffile", "numba"}, marks=pytest.mark.slow
        ),
        (["apply", "v.h5", "-k", "box:size=3", "-o", "o.h5"], {"h5py", "numba"}),
        (["apply", "v.nii", "-k", "box:size=3", "-o", "o.nii", "-n"], {"nibabel"}),
    ],
)
def test_a_command_loads_the_libraries_of_its_files_alone(arguments, needed):
    make_nifti("v.nii", noise())
    make_nifti("v.nii.gz", noise())
    tifffile.imwrite("v.tif", noise(), photometric="minisblack", metadata={"axes": "ZYX"})
    with h5py.File("v.h5", "w") as file:
        file["data"] = noise()
    code = f"from volconv_cli.main import main\ntry:\n    main({arguments!r})\n"
    code += "except SystemExit as ended:\n    assert not ended.code, ended.code"
    assert imported_by(code) & LIBRARIES <= needed


def test_importing_volconv_does_not_touch_the_command():
    assert not imported_by("import volconv; volconv.conv3d, volconv.open_volume, volconv.Conv3d") & {"click"}


def test_all_is_sorted_and_every_name_resolves():
    assert list(library.__all__) == sorted(library.__all__, key=lambda name: (name.lower() == name, name))
    for name in library.__all__:
        assert getattr(library, name) is not None
    assert set(dir(library)) == set(library.__all__)
    with pytest.raises(AttributeError, match="module 'volconv' has no attribute 'conv2d'"):
        library.conv2d  # noqa: B018  # asking is the test


def test_all_is_what_is_public():
    program = (
        "import volconv\n"
        "print(' '.join(n for n in vars(volconv) if not n.startswith('_') and n not in"
        " ('annotations', 'import_module', 'TYPE_CHECKING', 'Any')))\n"
        "print(' '.join(volconv._HOMES))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    there, lazy = (set(line.split()) for line in done.stdout.split("\n")[:2])
    assert there == set()
    assert lazy | {"__version__"} == set(library.__all__)
    # Every error of the tree can be caught by a name of the package.
    errors = {
        n for n, kind in vars(library.errors).items() if inspect.isclass(kind) and kind.__module__.startswith("volconv")
    }
    assert errors <= set(library.__all__)


@pytest.mark.parametrize("package", [library, volconv_cli], ids=["volconv", "volconv_cli"])
def test_every_module_can_be_imported_and_says_what_it_is(package):
    found = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    assert len(found) >= 5
    for name in found:
        module = importlib.import_module(name)
        assert module.__doc__, name


def test_public_names_have_documentation_with_an_example():
    for name in library.__all__:
        thing = getattr(library, name)
        if name != "__version__":
            assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert "Examples\n--------\n>>> " in inspect.getdoc(thing) or name == "open_stack", name
