"""Which part of a volume: boxes of voxels as values."""

from __future__ import annotations

from dataclasses import dataclass

Index5 = tuple[int, int, int, int, int]

#: The axis order of a C-ordered (N, C, D, H, W) array.
NCDHW: Index5 = (0, 1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Region:
    """A half-open box of voxels, axes (N, C, D, H, W).

    Examples
    --------
    >>> region = Region.whole((1, 2, 10, 20, 30)).along(2, 4, 8)
    >>> region.shape
    (1, 2, 4, 20, 30)
    >>> region.slices[2]
    slice(4, 8, None)
    """

    start: Index5
    stop: Index5

    def __post_init__(self) -> None:
        if any(a < 0 or b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"a region needs 0 <= start <= stop on every axis (got {self.start}, {self.stop})")

    @classmethod
    def whole(cls, shape: Index5) -> Region:
        """All of a volume of this shape."""
        return cls((0, 0, 0, 0, 0), shape)

    @property
    def shape(self) -> Index5:
        """Number of voxels on each axis."""
        n, c, d, h, w = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return n, c, d, h, w

    @property
    def slices(self) -> tuple[slice, slice, slice, slice, slice]:
        """The box as an index into an (N, C, D, H, W) array."""
        n, c, d, h, w = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return n, c, d, h, w

    def along(self, axis: int, start: int, stop: int) -> Region:
        """The same box with another extent on one axis."""
        starts, stops = list(self.start), list(self.stop)
        starts[axis], stops[axis] = start, stop
        return Region(_five(starts), _five(stops))

    def __and__(self, other: Region) -> Region:
        """What two boxes that overlap have in common."""
        return Region(
            _five([max(a, b) for a, b in zip(self.start, other.start, strict=True)]),
            _five([min(a, b) for a, b in zip(self.stop, other.stop, strict=True)]),
        )

    def within(self, outer: Region) -> Region:
        """The same box counted from the first corner of ``outer``."""
        return Region(
            _five([a - o for a, o in zip(self.start, outer.start, strict=True)]),
            _five([b - o for b, o in zip(self.stop, outer.start, strict=True)]),
        )


def _five(values: list[int]) -> Index5:
    n, c, d, h, w = values
    return n, c, d, h, w
