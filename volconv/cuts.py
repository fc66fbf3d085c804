"""How a run between two files is cut up, and what is held meanwhile: as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volconv.io.volume import VolumeInfo
    from volconv.params import Triple


@dataclass(frozen=True, slots=True)
class Ends:
    """The files that a run is between, as a plan sees them; a mask is read beside the source."""

    source: VolumeInfo
    target: VolumeInfo
    mask: VolumeInfo | None = None

    @property
    def read(self) -> tuple[VolumeInfo, ...]:
        """Those that are read."""
        return (self.source,) if self.mask is None else (self.source, self.mask)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds at most, in bytes.

    Parameters
    ----------
    bound : int
        What it may hold.
    libraries : int
        The interpreter and the libraries.
    weights : int
        As they are given, and as they are prepared.
    threads : int
        Padded blocks of work items, and what algorithms hold beside them.
    files : int
        Of formats: pieces that are packed or unpacked, and those that are kept.
    blocks : int
        Input and output of I/O blocks.
    """

    bound: int
    libraries: int
    weights: int
    threads: int
    files: int
    blocks: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.libraries + self.weights + self.threads + self.files + self.blocks


@dataclass(frozen=True, slots=True)
class Cut:
    """How a run is cut up.

    Parameters
    ----------
    threads : int
    item_groups, item_box
        Of a work item.
    volumes, box
        Of an I/O block: how many volumes, and outputs (D, H, W).
    copies : int
        I/O blocks that are held: 2 where the next one is read, and the last one written, while one is computed.
    caches : tuple of ints
        Memory for pieces that are kept unpacked: of target, source and, if there is one, mask.
    memory : Memory
    """

    threads: int
    item_groups: int
    item_box: Triple
    volumes: int
    box: Triple
    copies: int
    caches: tuple[int, ...]
    memory: Memory
