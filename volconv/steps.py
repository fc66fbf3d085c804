"""Which voxels each block of outputs needs of the source, and which of them the block before it has already."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volconv.padding import Piece
from volconv.region import Region
from volconv.shapes import padded_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from volconv.padding import PaddedAxis
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5


@dataclass(frozen=True, slots=True)
class Step:
    """One block of outputs and its input.

    Parameters
    ----------
    block : Region
        Of the output.
    channels : int
        Of the input.
    piece : Piece
        Parts of the input, side by side.
    kept : int
        Planes along D, the first of the piece, that are the last ones of the piece before.
    """

    block: Region
    channels: int
    piece: Piece
    kept: int

    @property
    def shape(self) -> Index5:
        """Of the input (N, C, D, H, W)."""
        d, h, w = self.piece.size
        return self.block.shape[0], self.channels, d, h, w

    def fresh(self) -> Iterator[tuple[Region, Region]]:
        """What must be read: regions of the source, and where in the piece they go."""
        depth, *plane = self.piece.extents
        if self.kept:
            ((low, high),) = depth
            depth = ((low + self.kept, high),) if low + self.kept < high else ()
        first, last = self.block.start[0], self.block.stop[0]
        for d, h, w in itertools.product(depth, *plane):
            z, y, x = (self.piece.place(axis, part[0]) for axis, part in enumerate((d, h, w)))
            size = d[1] - d[0], h[1] - h[0], w[1] - w[0]
            yield (
                Region((first, 0, d[0], h[0], w[0]), (last, self.channels, d[1], h[1], w[1])),
                Region((0, 0, z, y, x), (last - first, self.channels, z + size[0], y + size[1], x + size[2])),
            )


def steps(
    blocks: Iterable[Region],
    axes: Sequence[PaddedAxis],
    params: Conv3dParams,
    counts: tuple[int, int],
    origin: Triple = (0, 0, 0),
) -> Iterator[Step]:
    """The steps of a run, in the order of its blocks.

    Parameters
    ----------
    blocks : iterable of Region
        Of the output.
    axes : 3 PaddedAxis
        Of the input.
    params : Conv3dParams
    counts : 2 ints
        Volumes and channels of the input; one volume is that of all outputs.
    origin : 3 ints
        Where on the whole output's grid blocks are counted from.

    Examples
    --------
    >>> from volconv.params import Conv3dParams
    >>> from volconv.padding import padded_axes
    >>> from volconv.region import Region
    >>> from volconv.tiling import io_blocks
    >>> params = Conv3dParams.parse((1, 1, 3, 3, 3), padding="same")
    >>> blocks = io_blocks(Region.whole((1, 1, 6, 9, 9)), 1, (2, 9, 9))
    >>> found = steps(blocks, padded_axes((6, 9, 9), params), params, (1, 1))
    >>> [(step.piece.extents[0], step.kept) for step in found]
    [(((0, 3),), 0), (((1, 5),), 2), (((3, 6),), 2)]
    """
    last: Step | None = None
    for block in blocks:
        extents = []
        for i, axis in enumerate(axes):
            start, stop = block.start[2 + i] + origin[i], block.stop[2 + i] + origin[i]
            span = padded_interval(start, stop, params.stride[i], params.effective_kernel[i])
            extents.append(tuple(axis.extents(*span)))
        piece = Piece(tuple(extents))
        shown = block if counts[0] > 1 else block.along(0, 0, 1)
        last = Step(shown, counts[1], piece, _kept(last, shown, piece))
        yield last


def _kept(last: Step | None, block: Region, piece: Piece) -> int:
    """How many planes two pieces share, where the one goes on along D from the other."""
    if last is None or (last.block.start[0], last.block.stop[0]) != (block.start[0], block.stop[0]):
        return 0
    if last.piece.extents[1:] != piece.extents[1:] or not len(last.piece.extents[0]) == len(piece.extents[0]) == 1:
        return 0
    (a, b), (c, d) = last.piece.extents[0][0], piece.extents[0][0]
    return max(0, b - c) if a <= c and b <= d else 0
