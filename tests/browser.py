"""A headless Chromium for tests of pages, driven through its own protocol over a pipe (no library is needed)."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Seconds that a browser may take for anything.
PATIENCE = 60


def executable():
    """Where Chromium is; skips the test, and says why, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs Chromium (apt-get install chromium), and there is none")


class Browser:
    """One page at a time."""

    def __init__(self, process, reader, writer):
        self._process, self._reader, self._writer = process, reader, writer
        self._last, self._session = 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Do what the protocol's method does, and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def open(self, path, *, width=1000, height=800, scheme="light", media="screen"):
        """Load a page; ``events`` holds what happened meanwhile."""
        self.events.clear()
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression):
        """What an expression of JavaScript gives, as JSON can hold it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    @property
    def complaints(self):
        """Errors and warnings of the console, exceptions, and requests for anything but the page and what is in it."""
        found = []
        for event in self.events:
            method, told = event.get("method"), event.get("params", {})
            if method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(told["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(str(told["args"]))
            elif method == "Runtime.exceptionThrown":
                found.append(str(told["exceptionDetails"]))
            elif method == "Network.requestWillBeSent":
                address = told["request"]["url"]
                if not address.startswith(("data:", "file:", "blob:")):
                    found.append(f"asks for {address}")
        return found

    def screenshot(self, path):
        """A PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path):
        """The page as it is printed."""
        printed = self.call("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
        Path(path).write_bytes(base64.b64decode(printed["data"]))

    def _next(self):
        message = bytearray()
        while not message.endswith(b"\0"):
            piece = self._reader.read1(1 << 16) if not self._rest else b""
            piece, self._rest = self._rest + piece, b""
            assert piece, "Chromium has gone"
            first, end, self._rest = piece.partition(b"\0")
            message += first + end
        return json.loads(message[:-1])

    _rest = b""


#: Puts two descriptors where Chromium expects them, and becomes it.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def _pipe():
    """A pipe whose descriptors are neither 3 nor 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


@contextmanager
def browser():
    """A :class:`Browser`, gone afterwards."""
    program = executable()
    (to_it, ours_out), (ours_in, from_it) = _pipe(), _pipe()
    with tempfile.TemporaryDirectory() as profile:
        # It reads commands from descriptor 3 and answers on 4.
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(to_it), str(from_it), *command],
            pass_fds=(to_it, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        try:
            with os.fdopen(ours_in, "rb") as reader, os.fdopen(ours_out, "wb") as writer:
                yield Browser(process, reader, writer)
        finally:
            process.terminate()
            process.wait(PATIENCE)
