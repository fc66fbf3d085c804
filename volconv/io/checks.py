"""Checks that formats share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.errors import OutOfMemoryError
from volconv.memory import free_memory, in_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.io.volume import VolumeInfo
    from volconv.region import Index5, Region


#: What is there anyway.
_LITTLE = 256 << 20


def check_memory(size: int, name: str) -> None:
    """Refuse to unpack what takes more than half of what is free: systems promise it, and end who takes it.

    Raises
    ------
    OutOfMemoryError
    """
    if size > _LITTLE and size > (most := free_memory() // 2):
        raise OutOfMemoryError(f"{name} takes {in_words(size)} of memory unpacked, and may take {in_words(most)}")


def check_within(region: Region, shape: Index5) -> None:
    """Hold a caller to the volume: libraries that slice would cut a region off without a word.

    Raises
    ------
    ValueError
        The region leaves the volume.
    """
    if any(stop > size for stop, size in zip(region.stop, shape, strict=True)):
        raise ValueError(f"a region must lie within the volume (got {region}, shape {shape})")


def check_block(info: VolumeInfo, region: Region, values: NDArray[Any]) -> None:
    """Hold a caller of ``Sink.write`` to the contract.

    Raises
    ------
    ValueError
        The region leaves the volume, or the values have another shape or dtype than it needs.
    """
    check_within(region, info.shape)
    if values.shape != region.shape:
        raise ValueError(f"values must have the region's shape {region.shape} (got {values.shape})")
    if values.dtype != info.dtype:
        raise ValueError(f"values must have the sink's dtype {info.dtype} (got {values.dtype})")
