"""conv3d on arrays of every kind: memory layouts, dtypes, ``out``, threads, and the memory that it takes."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

import reference
import volconv
from cases import few, values
from tolerances import allowed, assert_matches
from volconv.engines.cpu.correlation import Correlation
from volconv.engines.cpu.fft import PreparedFft
from volconv.engines.cpu.gemm import PreparedGemm
from volconv.errors import DtypeError, ShapeError

ALGORITHMS = ("direct", "fft", "gemm")
SHAPE = (2, 4, 6, 7, 9)
PARAMETERS = {"stride": (1, 2, 1), "padding": (1, 0, 2), "groups": 2}


def arrays(dtype="float32", seed=5):
    rng = np.random.default_rng(seed)
    return [values(rng, shape, dtype) for shape in (SHAPE, (6, 2, 3, 2, 3), (6,))]


def reversed_view(array):
    return array[(slice(None, None, -1),) * array.ndim].copy()[(slice(None, None, -1),) * array.ndim]


def every_second(array):
    room = np.zeros([2 * n for n in array.shape], array.dtype)
    view = room[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def transposed(array):
    return np.ascontiguousarray(array.transpose()).transpose()


def unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


LAYOUTS = {
    "reversed": reversed_view,
    "every second": every_second,
    "Fortran": np.asfortranarray,
    "transposed": transposed,
    "read-only": read_only,
    "unaligned": unaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "byte-swapped and reversed": lambda a: reversed_view(a.astype(a.dtype.newbyteorder("S"))),
    "list": lambda a: a.astype("complex128" if a.dtype.kind == "c" else "float64").tolist(),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_layout_changes_no_bit_and_no_input(algorithm, layout, dtype):
    plain = arrays(dtype)
    if layout == "list":  # Python's numbers are double
        plain = [a.astype(np.result_type(dtype, np.float64)) for a in plain]
    laid_out = [LAYOUTS[layout](a) for a in plain]
    before = [np.array(a).tobytes() for a in laid_out]
    expected = volconv.conv3d(*plain, algorithm=algorithm, **PARAMETERS)
    got = volconv.conv3d(*laid_out, algorithm=algorithm, **PARAMETERS)
    assert got.dtype == expected.dtype
    assert got.dtype.isnative
    assert got.tobytes() == expected.tobytes()
    assert [np.array(a).tobytes() for a in laid_out] == before


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "list"])
def test_layout_changes_no_integer(layout):
    plain = arrays("int16")
    laid_out = [LAYOUTS[layout](a) for a in plain]
    got = volconv.conv3d(*laid_out, **PARAMETERS)
    np.testing.assert_array_equal(got, volconv.conv3d(*plain, **PARAMETERS))
    triples = {"stride": (1, 2, 1), "padding": (1, 0, 2)}
    np.testing.assert_array_equal(got, reference.conv3d(*plain, **triples, groups=2).astype(np.int64))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_no_input_is_ever_written_to(algorithm, dtype, mode):
    x, w, b = arrays(dtype)
    before = [a.tobytes() for a in (x, w, b)]
    volconv.conv3d(x, w, b, algorithm=algorithm, padding_mode=mode, **PARAMETERS)
    assert [a.tobytes() for a in (x, w, b)] == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_broadcast_arrays(algorithm):
    x = np.broadcast_to(np.float32([1, 2, 3, 4]).reshape(4, 1, 1, 1), SHAPE)
    w = np.broadcast_to(np.float32(0.5), (6, 2, 3, 2, 3))
    b = np.broadcast_to(np.float32(0.25), 6)
    assert 0 in x.strides
    got = volconv.conv3d(x, w, b, algorithm=algorithm, **PARAMETERS)
    expected = volconv.conv3d(x.copy(), w.copy(), b.copy(), algorithm=algorithm, **PARAMETERS)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_four_axes_are_one_volume_without_n(algorithm):
    x, w, b = arrays()
    batch = volconv.conv3d(x, w, b, algorithm=algorithm, **PARAMETERS)
    for n in range(len(x)):
        single = volconv.conv3d(x[n], w, b, algorithm=algorithm, **PARAMETERS)
        assert single.shape == batch.shape[1:]
        assert single.tobytes() == batch[n].tobytes()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_no_volumes_give_no_outputs(algorithm, dtype):
    x, w, b = arrays(dtype)
    got = volconv.conv3d(x[:0], w, b, algorithm=algorithm, **PARAMETERS)
    assert got.shape == (0, 6, 6, 3, 11)
    assert got.dtype == dtype


def test_no_volumes_of_integers():
    w = np.full((1, 1, 1, 1, 1), 2**64 - 1, np.uint64)
    got = volconv.conv3d(np.zeros((0, 1, 3, 3, 3), np.uint8), w)
    assert got.shape == (0, 1, 3, 3, 3)
    assert got.dtype == np.int64


def test_bools_are_counted():
    rng = np.random.default_rng(0)
    x = rng.random((1, 1, 6, 6, 6)) > 0.5
    got = volconv.conv3d(x, np.ones((1, 1, 3, 3, 3), bool), padding="same")
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, reference.conv3d(x, np.ones((1, 1, 3, 3, 3), bool), padding="same").astype(int))


# --- dtypes

NUMBERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "float32", "float64", "complex64", "complex128"]


@pytest.mark.parametrize(
    ("x", "w", "expected"),
    [
        ("int16", "float32", "float32"),
        ("uint8", "float16", "float16"),
        ("int16", "float16", "float32"),
        ("int32", "float32", "float64"),
        ("float32", "complex64", "complex64"),
        ("float64", "complex64", "complex128"),
        ("int64", "complex64", "complex128"),
        ("bool", "float16", "float16"),
        ("uint8", "int8", "int64"),
        ("bool", "bool", "int64"),
        ("uint64", "int8", "int64"),
    ],
)
def test_result_dtype_table(x, w, expected):
    one = np.ones((1, 1, 2, 2, 2))
    assert volconv.conv3d(one.astype(x), one.astype(w)).dtype == expected
    assert volconv.conv3d(one.astype(w), one.astype(x)).dtype == expected


@pytest.mark.parametrize(("x", "w"), list(itertools.product(NUMBERS + FLOATS, repeat=2)))
def test_result_dtype_is_numpys(x, w):
    volume, weight = np.full((1, 1, 2, 2, 2), 1, x), np.full((1, 1, 1, 1, 2), 1, w)
    got = volconv.conv3d(volume, weight)
    assert got.dtype == (np.int64 if x in NUMBERS and w in NUMBERS else np.result_type(volume, weight))
    assert (got == 2).all()


@pytest.mark.parametrize(
    ("x", "w"), [("int16", "float32"), ("uint8", "float16"), ("int32", "float32"), ("float32", "complex64")]
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mixed_dtypes_have_the_results_precision(x, w, algorithm):
    rng = np.random.default_rng(1)
    volume, weight = values(rng, (1, 2, 5, 6, 7), x), values(rng, (3, 2, 3, 3, 3), w)
    got = volconv.conv3d(volume, weight, algorithm=algorithm)
    expected = reference.conv3d(volume.astype(got.dtype), weight.astype(got.dtype))
    assert_matches(got, expected, allowed(got.dtype, volume.astype(got.dtype), weight.astype(got.dtype)))


def test_float16_is_summed_in_float32():
    # 4096 ones and a half: float16 alone would stop counting at 2048.
    x = np.ones((1, 4096, 1, 1, 1), np.float16)
    for algorithm in ALGORITHMS:
        got = volconv.conv3d(x, np.full((1, 4096, 1, 1, 1), 0.5, np.float16), np.float16([3]), algorithm=algorithm)
        assert got.dtype == np.float16
        assert got.item() == np.float16(2051)


def test_float16_that_overflows_is_infinite_without_a_warning():
    got = volconv.conv3d(np.full((1, 1, 2, 1, 1), 60000, np.float16), np.ones((1, 1, 2, 1, 1), np.float16))
    assert got.item() == np.inf


@pytest.mark.parametrize("dtype", [d for d in NUMBERS if d != "bool"])
def test_integers_are_exact(dtype):
    rng = np.random.default_rng(2)
    info = np.iinfo(dtype)
    top = min(info.max, 2**58)
    x = rng.integers(max(info.min, -top), top, (1, 2, 3, 4, 5), dtype, endpoint=True)
    w = rng.integers(-2, 2, (3, 2, 2, 1, 2), np.int8)
    b = np.array([-(2**55) + 1, 0, 2**55 + 1])
    got = volconv.conv3d(x, w, b, padding=1)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, reference.conv3d(x, w, b, padding=(1, 1, 1)).astype(np.int64))


def test_integers_beyond_doubles():
    x = np.full((1, 1, 1, 1, 1), 2**53 + 1)
    assert volconv.conv3d(x, np.full((1, 1, 1, 1, 1), 3)).item() == 3 * (2**53 + 1)
    assert volconv.conv3d(x, x // x, padding=1, padding_value=2**61 + 1).max() == 2**61 + 1
    largest = np.full((1, 1, 1, 1, 1), 2**63 - 1, np.uint64)
    assert volconv.conv3d(largest, np.ones((1, 1, 1, 1, 1), int)).item() == 2**63 - 1
    assert volconv.conv3d(largest, np.full((1, 1, 1, 1, 1), -1)).item() == -(2**63) + 1


@pytest.mark.parametrize(
    ("x", "w", "bias", "value"),
    [
        (np.full((1, 1, 1, 1, 1), 2**63, np.uint64), [1], None, 0),
        (np.full((1, 1, 2, 1, 1), 2**62), [1, 1], None, 0),
        (np.full((1, 1, 2, 1, 1), 2**62), [1, -1], None, 0),  # it might
        (np.full((1, 1, 1, 1, 1), -(2**63)), [1], None, 0),
        (np.full((1, 1, 1, 1, 1), 2**32), [2**31], None, 0),
        (np.full((1, 1, 1, 1, 1), 2**63 - 1), [1], [1], 0),
        (np.full((1, 1, 1, 1, 1), 1), [2**63], None, 0),
        (np.full((1, 1, 1, 1, 1), 1), [1], np.array([2**63], np.uint64), 0),
        (np.full((1, 1, 1, 1, 1), 1), [1], None, 2**63),
        (np.full((1, 1, 1, 1, 1), 1), [2], None, 2**62),
    ],
)
def test_integer_sums_that_might_not_fit_are_refused(x, w, bias, value):
    weight = np.array(w).reshape(1, 1, -1, 1, 1)
    with pytest.raises(DtypeError, match=r"integer sums must fit in int64 \(got values up to \d+ .*float64$"):
        volconv.conv3d(x, weight, bias, padding=1, padding_value=value)


# --- out


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "every second"])
def test_out_receives_the_result(algorithm, dtype, layout):
    x, w, b = arrays(dtype)
    expected = volconv.conv3d(x, w, b, algorithm=algorithm, **PARAMETERS)
    blank = np.full(expected.shape, 77, expected.dtype)
    if layout == "reversed":
        out = blank[:, ::-1, :, ::-1, ::-1]
    elif layout == "every second":
        blank = np.full([2 * n for n in expected.shape], 77, expected.dtype)
        out = blank[(slice(1, None, 2),) * 5]
    else:
        blank = out = np.full(expected.shape, 77, expected.dtype, order=layout)
    got = volconv.conv3d(x, w, b, algorithm=algorithm, out=out, **PARAMETERS)
    assert got is out
    assert out.tobytes() == expected.tobytes()
    if layout == "every second":  # and nothing between
        assert (blank == 77).sum() == blank.size - out.size


def test_out_without_n_and_of_no_volumes():
    x, w, b = arrays()
    expected = volconv.conv3d(x[0], w, b, **PARAMETERS)
    assert volconv.conv3d(x[0], w, b, out=np.empty_like(expected), **PARAMETERS).tobytes() == expected.tobytes()
    none = volconv.conv3d(x[:0], w, b, **PARAMETERS)
    assert volconv.conv3d(x[:0], w, b, out=none, **PARAMETERS) is none


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda a: np.empty_like(a, dtype=np.float64), r"dtype float32 and shape .* \(got float64 "),
        (lambda a: np.empty_like(a, dtype=">f4"), r"dtype float32 and shape .* \(got >f4 "),
        (lambda a: np.empty_like(a)[0], r"shape \(2, 6, 6, 3, 11\) \(got float32 \(6, 6, 3, 11\)\)"),
        (lambda a: np.empty_like(a)[..., :-1], r"\(got float32 \(2, 6, 6, 3, 10\)\)"),
        (lambda a: a.tolist(), r"out must be an array .* \(got list\)"),
        (read_only, r"out must be writable \(got a read-only array\)"),
        (lambda a: np.broadcast_to(a[:1], a.shape), r"out must be writable"),
    ],
)
def test_wrong_out_is_refused(out, message):
    x, w, b = arrays()
    with pytest.raises(ShapeError, match=message):
        volconv.conv3d(x, w, b, out=out(volconv.conv3d(x, w, b, **PARAMETERS)), **PARAMETERS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_out_may_overlap_the_input(algorithm, dtype, shift):
    rng = np.random.default_rng(4)
    room = values(rng, (1, 2, 9 + shift, 10, 11), dtype)
    w = values(rng, (2, 2, 3, 3, 3), dtype)
    x, out = room[:, :, :9], room[:, :, shift:]
    expected = volconv.conv3d(x.copy(), w, padding="same", algorithm=algorithm)
    got = volconv.conv3d(x, w, padding="same", algorithm=algorithm, out=out)
    assert got is out
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_out_may_be_the_weights_or_the_bias(algorithm):
    rng = np.random.default_rng(4)
    x, w = values(rng, (1, 1, 5, 5, 5), "float32"), values(rng, (1, 1, 3, 3, 3), "float32")
    expected = volconv.conv3d(x, w.copy(), algorithm=algorithm)
    assert volconv.conv3d(x, w, algorithm=algorithm, out=w).tobytes() == expected.tobytes()
    b = np.float32([2])
    expected = volconv.conv3d(x[:, :, :3, :3, :3], x[:, :, 2:, 2:, 2:], b, algorithm=algorithm)
    volconv.conv3d(x[:, :, :3, :3, :3], x[:, :, 2:, 2:, 2:], b, algorithm=algorithm, out=b.reshape(1, 1, 1, 1, 1))
    assert b.tobytes() == expected.tobytes()


# --- threads


def blas_threads():
    return [
        (library["filepath"], library["num_threads"])
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]


def test_eight_callers_at_once_get_the_same_bits_and_leave_blas_alone():
    x, w, b = arrays()
    x = np.tile(x, (1, 1, 3, 3, 3))
    expected = {a: volconv.conv3d(x, w, b, algorithm=a, threads=1, **PARAMETERS).tobytes() for a in ALGORITHMS}
    before = blas_threads()
    assert before

    def call(i):
        algorithm = ALGORITHMS[i % len(ALGORITHMS)]
        got = volconv.conv3d(x, w, b, algorithm=algorithm, threads=1 + i % 3, **PARAMETERS)
        return got.tobytes() == expected[algorithm]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(64)))
    assert blas_threads() == before


def test_a_callers_own_blas_limit_is_kept():
    x, w, b = arrays()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        inside = blas_threads()
        volconv.conv3d(x, w, b, algorithm="gemm", **PARAMETERS)
        assert blas_threads() == inside


def test_blas_is_released_after_an_error(monkeypatch):
    from volconv.engines.cpu.gemm import PreparedGemm

    def fail(self, block, out, first_group):  # noqa: ARG001  # the protocol's signature
        raise ZeroDivisionError

    x, w, b = arrays()
    before = blas_threads()
    monkeypatch.setattr(PreparedGemm, "__call__", fail)
    for threads in (1, 3):
        with pytest.raises(ZeroDivisionError):
            volconv.conv3d(x, w, b, algorithm="gemm", threads=threads, **PARAMETERS)
    assert blas_threads() == before


# --- memory

MEASURE = """
import sys
import numpy as np
import volconv

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

dtype, mode, algorithm = sys.argv[1:]
def convolve(x):
    w = np.full((2, 1, 3, 3, 3), 0.25, np.float32)
    return volconv.conv3d(x, w, padding="same", padding_mode=mode, algorithm=algorithm, threads=2)

convolve(np.ones((1, 1, 8, 8, 8), dtype))
before = kilobytes("VmRSS")
x = np.ones((1, 1, 192, 192, 192), dtype)
out = convolve(x)
assert out.dtype == np.float32
print((kilobytes("VmHWM") - before) * 1024 - x.nbytes - out.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("dtype", few(["float32", "uint8"], "float32"))
@pytest.mark.parametrize("mode", few(["zeros", "reflect"], "zeros"))
@pytest.mark.parametrize("algorithm", ["direct", "channels", "winograd", "gemm"])
def test_memory_is_input_output_and_at_most_100_megabytes(dtype, mode, algorithm):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, dtype, mode, algorithm], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) <= 100e6


def test_weights_are_let_go_of():
    x, w = np.ones((1, 1, 60, 60, 60), np.float32), np.ones((1, 1, 7, 7, 7), np.float32)
    for algorithm in ALGORITHMS:
        volconv.conv3d(x, w, algorithm=algorithm)
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) in (Correlation, PreparedFft, PreparedGemm)]
