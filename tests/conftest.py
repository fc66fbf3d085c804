"""What tests of several files share: a real object store, and one in memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """moto's server on a free port of the loopback, and a bucket in it."""
    for package in ("moto", "s3fs"):
        pytest.importorskip(package, reason="pip install '.[dev]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield settings
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def store(server):
    """A client of the server for this process: one, as fsspec keeps it."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.items():
            patch.setenv(name, value)
        yield s3fs.S3FileSystem()


@pytest.fixture
def bucket(store):
    """URL of an empty bucket, for this process and those that it starts."""
    name = f"bucket-{os.urandom(4).hex()}"
    store.mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def memory():
    """URL of an empty place in this process."""
    import fsspec

    system = fsspec.filesystem("memory")
    yield "memory://tests"
    if system.exists("/tests"):
        system.rm("/tests", recursive=True)
