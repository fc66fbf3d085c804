"""What needs a GPU: ``pytest -m gpu`` runs it, and everywhere else it is skipped with the probe's reason."""

from __future__ import annotations

import pytest

from volconv.engines.gpu.probe import probe


@pytest.fixture(autouse=True, scope="session")
def gpu():
    """The GPU that volconv computes on."""
    found = probe()
    if not found.usable:
        pytest.skip(f"no GPU: {found.reason}")
    return found.devices[0]


@pytest.fixture
def fill_memory():
    """A function that takes all of the GPU's memory but so many bytes, until the test ends."""
    import cupy

    runtime, held = cupy.cuda.runtime, []

    def fill(left):
        cupy.get_default_memory_pool().free_all_blocks()
        free, _ = runtime.memGetInfo()
        if free > left:
            held.append(runtime.malloc(free - left))

    yield fill
    for address in held:
        runtime.free(address)
