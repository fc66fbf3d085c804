"""What a run reads and writes of its files: bytes, their order, temporary files, and the time that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volconv.io.raw import in_turn
from volconv.padding import padded_axes
from volconv.pieces import covered
from volconv.region import Region
from volconv.steps import steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.budget import Ends
    from volconv.io.volume import VolumeInfo
    from volconv.params import Conv3dParams

#: Bytes a second of voxels that lie as they are, that are packed, and that are unpacked (set by
#: tests/benchmarks/large.py).
PLAIN_RATE = 1.5e9
PACKING_RATE = 250e6
UNPACKING_RATE = 400e6


@dataclass(frozen=True, slots=True)
class Traffic:
    """What goes to and from files.

    Parameters
    ----------
    read_bytes, written_bytes : int
        Of stored voxels, as they are unpacked.
    halo : float
        Share of what is needed that is read more than once.
    in_turn : bool
        The source is read once, from start to end.
    source_spool, target_spool : int
        Bytes of temporary files for what does not come in a file's order.
    source_cache, target_cache : int
        Memory for pieces of files that are kept unpacked.
    seconds : float
        Predicted for the whole run.
    """

    read_bytes: int
    written_bytes: int
    halo: float
    in_turn: bool
    source_spool: int
    target_spool: int
    source_cache: int
    target_cache: int
    seconds: float

    @property
    def spool_bytes(self) -> int:
        """Of all temporary files."""
        return self.source_spool + self.target_spool


def traffic(
    params: Conv3dParams, ends: Ends, blocks: Sequence[Region], caches: tuple[int, int], compute_seconds: float
) -> Traffic:
    """Follow a run through its blocks, without a voxel."""
    source, target = ends.source, ends.target
    axes = padded_axes(source.shape[2:], params)
    regions = [region for step in steps(blocks, axes, params) for region, _ in step.fresh()]
    read = sum(math.prod(region.shape) for region in regions)
    once = sum(
        math.prod(region.shape)
        for step in steps([Region.whole(target.shape)] if blocks else [], axes, params)
        for region, _ in step.fresh()
    )
    turns = source.access.in_turn and in_turn(regions, source.shape, source.access.order)
    follows = target.access.in_turn and in_turn(blocks, target.shape, target.access.order, gaps=False)
    chunk, unpacked = source.access.chunk, read
    if source.access.packed and chunk is not None:
        unpacked = sum(covered(region, chunk, kept=caches[0] > 0) for region in regions)
    read_bytes, written_bytes = read * source.dtype.itemsize, target.nbytes if blocks else 0
    return Traffic(
        read_bytes=read_bytes,
        written_bytes=written_bytes,
        halo=max(0.0, read / once - 1) if once else 0.0,  # blocks may skip what strides do
        in_turn=turns,
        source_spool=0 if turns else source.access.spool_bytes,
        target_spool=0 if follows else target.access.spool_bytes,
        source_cache=caches[0],
        target_cache=caches[1],
        seconds=max(
            compute_seconds,
            unpacked * source.dtype.itemsize / (UNPACKING_RATE if _packed(source) else PLAIN_RATE),
            written_bytes / (PACKING_RATE if _packed(target) else PLAIN_RATE),
        ),
    )


def _packed(info: VolumeInfo) -> bool:
    return info.access.packed or info.access.spool_bytes > 0
