"""Outputs that real processes make: Dask's workers here and elsewhere, what kills them, and what is left then."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import volconv
from test_cluster import assert_same_image, assert_same_image_at, marks_of
from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io import Region, create_volume, open_volume
from volconv.memory import parse_memory
from watched import SCRIPT

pytestmark = pytest.mark.slow

#: Some seconds of work, in some 20 tasks.
LINE = ["-k", "gaussian:sigma=3um", "--padding", "same", "--compute-dtype", "float64", "--memory", "700M"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an input, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("cluster")
    z, y, x = np.ogrid[:160, :512, :512]
    values = ((z * z // 50 + y * 3 + x * y // 90) % 251).astype("uint8")[None, None]
    geometry = Geometry.from_spacing((1.0, 1.0, 1.0), "um")
    for name in ("a.zarr", "a.nii"):
        with create_volume(folder / name, shape=values.shape, dtype="uint8", geometry=geometry) as sink:
            sink.write(Region.whole(values.shape), values)
    done = subprocess.run(command("one.zarr", "--pyramid"), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def _in_it(folder, monkeypatch):
    monkeypatch.chdir(folder)


def command(output, *more, source="a.zarr"):
    return [str(SCRIPT), "apply", source, *LINE, "-o", output, *more]


def begun(output, *more, marks=3, source="a.zarr"):
    """A run that has done some tasks."""
    process = subprocess.Popen(command(output, *more, source=source), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(marks_of(output)) < marks:
        time.sleep(0.02)
    assert process.poll() is None, process.stderr.read()
    return process


def ended(process):
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


def failed(process):
    code, said = ended(process)
    assert code == 1, said
    return said


def workers_of(process):
    """Worker processes that have something to do."""
    with contextlib.suppress(psutil.Error):
        return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []


def run(output, *more, code=0, source="a.zarr"):
    line = command(output, *more, source=source)
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr


# --- processes of this machine


def test_two_workers_make_what_one_process_makes():
    run("two.zarr", "--workers", "2", "--pyramid", "--report", "two.json", "--threads", "1")
    assert_same_image("one.zarr", "two.zarr")
    (told,) = json.loads(Path("two.json").read_text())["runs"]
    assert told["cluster"]["tasks"] > 8
    assert told["peak_memory"] <= parse_memory("700M")
    assert told["levels"] > 2


def test_other_programs_take_the_result_for_an_image():
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="pip install '.[dev]'")
    run("valid.zarr", "--workers", "2", "--pyramid")
    multiscales = ngff_zarr.from_ngff_zarr("valid.zarr", validate=True)
    with open_volume("valid.zarr") as volume:
        np.testing.assert_array_equal(np.asarray(multiscales.images[0].data), volume.numpy()[0, 0])
        scale = multiscales.images[0].scale
        assert [scale[axis] for axis in "zyx"] == list(volume.info.geometry.spacing)


def test_a_worker_keeps_to_the_least_bound():
    least = "120M"
    for code in (6, 6, 0):  # the finest level, then the others
        more = ["--workers", "1", "--pyramid", "--memory", least, "--report", "least.json", "-f"]
        said = run("least.zarr", *more, code=code)
        if code:
            least = re.search(r"memory must be at least (\w+)", said)[1]
    (told,) = json.loads(Path("least.json").read_text())["runs"]
    assert told["peak_memory"] <= parse_memory(least)
    assert_same_image("one.zarr", "least.zarr")


@pytest.mark.parametrize("kills", [1, 3])
def test_workers_that_are_killed_lose_nothing(kills):
    output = f"killed{kills}.zarr"
    process = begun(output, "--workers", "2", "--pyramid")
    for _ in range(kills):
        victims = workers_of(process)
        if victims:
            victims[0].kill()
        time.sleep(0.7)
    code, said = ended(process)
    assert code == 0, said
    assert said.count("\n") == 1, said
    assert_same_image("one.zarr", output)
    assert not Path(f"{output}.unfinished").exists()


def kill_workers(process, when=bool):
    """Kill every worker, and those that take its place, until the run ends."""
    while process.poll() is None:
        for victim in workers_of(process):
            with contextlib.suppress(psutil.Error):
                if when(victim):
                    victim.kill()
        time.sleep(0.02)


def test_workers_that_are_always_killed_end_the_run():
    process = begun("doomed.zarr", "--workers", "1", source="a.nii")
    kill_workers(process, when=lambda worker: any(file.path.endswith("a.nii") for file in worker.open_files()))
    said = failed(process)
    assert re.fullmatch(
        r"volconv: error: doomed\.zarr: block z \d+:\d+, y \d+:\d+, x \d+:\d+: its workers died, the last of 4 on "
        r"tls:\S+; their logs may tell why; for want of memory, pass less --memory \(memory=\)\n",
        said,
    ), said
    assert Path("doomed.zarr.unfinished/run.json").is_file()
    run("doomed.zarr", "--workers", "2", "--resume", source="a.nii")
    with open_volume("one.zarr") as one, open_volume("doomed.zarr") as gone_on_with:
        assert one.numpy().tobytes() == gone_on_with.numpy().tobytes()


def impatient(output, *more):
    """A run that waits 3 s for workers."""
    program = (
        "import volconv.cluster.scheduler, sys\n"
        "volconv.cluster.scheduler.WORKERS_PATIENCE = volconv.cluster.scheduler.CLUSTERS_PATIENCE = 3\n"
        "if __name__ == '__main__':\n"
        "    from volconv_cli.main import main\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    Path("impatient.py").write_text(program)
    line = [sys.executable, "impatient.py", *command(output, *more)[1:]]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)


def test_workers_that_are_killed_before_they_have_a_task_end_the_run():
    process = impatient("early.zarr", "--workers", "2")
    while not Path("early.zarr.unfinished/run.json").is_file():
        time.sleep(0.02)
    kill_workers(process)
    said = failed(process)
    assert re.fullmatch(
        r"volconv: error: early\.zarr: no worker was there for 3 s; where each ends as it begins, for want of memory: "
        r"fewer --workers \(workers=\); --resume goes on\n",
        said,
    ), said


def test_workers_that_do_not_start():
    process = subprocess.Popen(command("none.zarr", "--workers", "2"), stderr=subprocess.PIPE, text=True)
    kill_workers(process)
    said = failed(process)
    assert said == (
        "volconv: error: worker processes do not start on this machine; pass fewer --workers; a Python script calls "
        "volconv under if __name__ == '__main__':\n"
    )
    assert not list(Path().glob("none.zarr*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_is_gone_on_with(number):
    output = f"ended{int(number)}.zarr"
    process = begun(output, "--workers", "2", "--pyramid")
    workers = workers_of(process)
    assert len(workers) == 2
    process.send_signal(number)
    code, said = ended(process)
    if number != signal.SIGKILL:
        assert code == 128 + number
        assert said == f"volconv: {'interrupted' if number == signal.SIGINT else 'terminated'}; --resume goes on\n"
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    with pytest.raises(ReadError):
        open_volume(output)
    marks = len(marks_of(output))
    assert "a run that did not finish it left" in run(output, "--workers", "2", "--pyramid", code=4)
    run(output, "--workers", "2", "--pyramid", "--resume", "--report", f"{output}.json")
    (told,) = json.loads(Path(f"{output}.json").read_text())["runs"]
    assert told["cluster"]["resumed"] == marks >= 3
    assert_same_image("one.zarr", output)


def test_ctrl_c_in_python():
    program = (
        "import volconv, sys\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        volconv.apply('a.zarr', 'py.zarr', 'gaussian:sigma=3um', padding='same', workers=2,\n"
        "                      compute_dtype='float64', memory='700M')\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(77)\n"
    )
    Path("program.py").write_text(program)
    process = subprocess.Popen([sys.executable, "program.py"], stderr=subprocess.PIPE, text=True)
    while not marks_of("py.zarr"):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert (code, said) == (77, "")
    run("py.zarr", "--workers", "2", "--resume")


def test_a_block_that_fails_is_told_with_its_place():
    for damaged in Path("a.zarr/0").rglob("c/1/2/*"):  # of planes 64 to 127, lines 256 to 383
        damaged.rename(damaged.with_suffix(".kept"))
        damaged.write_bytes(b"damage")
    try:
        said = run("failed.zarr", "--workers", "2", code=3)
    finally:
        for kept in Path("a.zarr/0").rglob("*.kept"):
            kept.rename(kept.with_suffix(""))
    assert re.match(
        r"volconv: error: failed\.zarr: block z \d+:\d+, y \d+:\d+, x \d+:\d+: a\.zarr: cannot be read: ", said
    )
    assert said.count("\n") == 1


# --- a cluster


#: Dask's command; and where volconv is not installed.
DASK = "from dask.__main__ import main; main()"
BARE = f"import sys; sys.modules['volconv'] = None; {DASK}"


@contextlib.contextmanager
def dask(*workers, scheduler=DASK):
    """Address of a Dask scheduler with workers, each with some options; and the processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    lines = [
        (scheduler, f"scheduler --host 127.0.0.1 --port {port} --no-dashboard"),
        *((code, f"worker {address} {options} --no-dashboard") for code, options in workers),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([sys.executable, "-c", code, *line.split()], cwd="/", **quiet) for code, line in lines]
    try:
        with client_of(address) as client:
            if workers:
                client.wait_for_workers(len(workers), timeout=60)
        yield address, started
    finally:
        for process in started[::-1]:
            process.terminate()
        for process in started:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def cluster():
    """A scheduler with two workers, one of two threads."""
    with dask((DASK, "--nthreads 2 --memory-limit 2GiB"), (DASK, "--nthreads 1 --memory-limit 1GiB")) as started:
        yield started


def client_of(address):
    from distributed import Client

    deadline = time.monotonic() + 60
    while True:  # it may not have begun to listen
        try:
            return Client(address, timeout=5, set_as_default=False)
        except OSError:
            if time.monotonic() > deadline:
                raise


def test_workers_of_a_scheduler(cluster):
    address, _ = cluster
    run("far.zarr", "--scheduler", address, "--pyramid")
    assert_same_image("one.zarr", "far.zarr")
    np.savez("k.npz", k=np.ones((3, 3, 3)))
    mask = np.zeros((1, 1, 160, 512, 512), np.uint8)
    mask[..., 30:, 100:300, 200:] = 1
    with create_volume(
        "mask.nii", shape=mask.shape, dtype="uint8", geometry=Geometry.from_spacing((1.0, 1.0, 1.0), "um")
    ) as sink:
        sink.write(Region.whole(mask.shape), mask)
    more = ["-k", "k.npz:k", "--mask", "mask.nii", "--outside", "0"]
    run("k.zarr", *more, "--scheduler", address)
    run("k1.zarr", *more)
    assert_same_image("k1.zarr", "k.zarr")


def test_a_scheduler_forgets_a_run_that_is_ended(cluster):
    address, _ = cluster
    process = begun("left.zarr", "--scheduler", address)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "volconv: interrupted; --resume goes on\n")
    with client_of(address) as client:
        for _ in range(100):
            left = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
            if not left:
                break
            time.sleep(0.1)
    assert left == 0
    run("left.zarr", "--scheduler", address, "--resume")


def test_a_scheduler_that_dies(cluster):
    address, (scheduler, *_) = cluster
    process = begun("lost.zarr", "--scheduler", address)
    scheduler.kill()
    said = failed(process)
    assert re.fullmatch(
        r"volconv: error: lost\.zarr: (block .*: )?the scheduler, or its connection, is lost; --resume goes on\n", said
    ), said
    run("lost.zarr", "--workers", "2", "--resume")


def test_a_worker_that_cannot_write_says_so(cluster):
    address, _ = cluster
    process = begun("array.zarr", "--scheduler", address)
    (array,) = Path("array.zarr.unfinished").glob("*/image/0/zarr.json")
    array.unlink()
    said = failed(process)
    said_so = r"volconv: error: array\.zarr: block z .*: .*image: cannot be written: No array found .*\n"
    assert re.fullmatch(said_so, said), said


def test_a_scheduler_whose_workers_all_go(cluster):
    address, (_, *workers) = cluster
    process = impatient("gone.zarr", "--scheduler", address)
    while not marks_of("gone.zarr"):
        time.sleep(0.02)
    for worker in workers:
        worker.terminate()
    said = failed(process)
    assert said.startswith("volconv: error: gone.zarr: no worker was there for 3 s; "), said
    assert said.count("\n") == 1
    run("gone.zarr", "--workers", "2", "--resume")


def test_a_scheduler_without_workers():
    with dask() as (address, _):
        said = failed(impatient("empty.zarr", "--scheduler", address))
    start = f"start some with 'dask worker {address}'"
    assert said == f"volconv: error: the scheduler at {address} has no workers, 3 s long; {start}\n"


@pytest.mark.parametrize("who", ["scheduler", "worker", "worker with a nanny"])
def test_who_lacks_volconv_says_so(who):
    code = BARE if who == "worker" else DASK
    options = "--no-nanny" if who == "worker" else ""
    if who == "worker with a nanny":
        Path("bare").mkdir(exist_ok=True)
        Path("bare/preload.py").write_text("import sys\nsys.modules['volconv'] = None\n")
        options = f"--preload {Path('bare/preload.py').absolute()}"
    with dask((code, options), scheduler=BARE if who == "scheduler" else DASK) as (address, _):
        said = run("lacks.zarr", "--scheduler", address, code=1)
    assert re.fullmatch(
        rf"volconv: error: tcp://\S+ must have volconv {re.escape(volconv.__version__)} \(ModuleNotFoundError: .*\); "
        "scheduler and workers need the same as is here\n",
        said,
    ), said
    assert not Path("lacks.zarr.unfinished").exists()


@pytest.mark.parametrize("what", ["nothing", "silence", "HTTP", "a worker", "no certificate"])
def test_what_is_no_scheduler(what):
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        if what == "silence":
            listener.listen()
        elif what == "HTTP":
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
            opened.enter_context(contextlib.closing(server.socket))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            opened.callback(server.shutdown)
            address = f"tcp://127.0.0.1:{server.server_address[1]}"
        elif what == "a worker":
            scheduler, _ = opened.enter_context(dask((DASK, "--no-nanny")))
            with client_of(scheduler) as client:
                (address,) = client.scheduler_info()["workers"]
        elif what == "no certificate":
            address = "tls://127.0.0.1:8786"
        started = time.monotonic()
        said = run("nobody.zarr", "--scheduler", address, code=1)
    assert said.startswith(f"volconv: error: no scheduler answers at {address} ("), said
    assert said.count("\n") == 1
    assert ("it is a Worker" in said) == (what == "a worker")
    assert ("tls:// needs" in said) == (what == "no certificate")
    assert time.monotonic() - started < 60
    assert not Path("nobody.zarr.unfinished").exists()


# --- an object store


def test_workers_at_an_object_store(bucket, store):
    volconv.convert("a.zarr", f"{bucket}/a.zarr")
    output = f"{bucket}/b.zarr"
    more = ["--workers", "2", "--pyramid", "--co", "chunks=64,128,128"]
    process = subprocess.Popen(command(output, *more, source=f"{bucket}/a.zarr"), stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        store.invalidate_cache()
        if len(store.glob(f"{output}.unfinished/*/done/*")) >= 3:
            break
        time.sleep(0.1)
    workers_of(process)[0].kill()
    time.sleep(2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.raises(ReadError, match="is no OME-Zarr image"):
        open_volume(output)
    done = subprocess.run(
        [*command(output, *more, source=f"{bucket}/a.zarr"), "--resume"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_same_image_at("one.zarr", output)
    store.invalidate_cache()
    assert store.find(f"{output}.unfinished") == []
