"""Arrays that are read and written as files are."""

from __future__ import annotations

from dataclasses import replace

from volconv.io.array import ArraySink, ArraySource
from volconv.io.volume import Access


class FileSource(ArraySource):
    """An array that is read as files are: into memory of the reader's."""

    def __init__(self, array):
        super().__init__(array)
        self.info = replace(self.info, access=Access(order=(1, 0, 2, 3, 4)))

    def read(self, region):
        raise AssertionError(f"files are read into memory that is there (got {region})")


class FileSink(ArraySink):
    """An array that is written as files are."""

    def __init__(self, array):
        super().__init__(array)
        self.info = replace(self.info, access=Access(order=(0, 2, 1, 3, 4)))

    def view(self, region):
        raise AssertionError(f"files are no memory (got {region})")
