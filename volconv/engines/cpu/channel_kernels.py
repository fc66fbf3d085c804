"""The code of :mod:`volconv.engines.cpu.channel_loops`'s loop, as numba compiles it; loaded only to be compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from volconv.engines.cpu.channel_loops import TILES_TOGETHER, outputs_of_a_tile
from volconv.engines.cpu.emitter import LONG, Emitter
from volconv.engines.cpu.simd import lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from llvmlite import ir


class _Tile(Emitter):
    """Emits the code of one tile: outputs by vectors of channels."""

    def __init__(self, context: Any, builder: ir.IRBuilder, real: types.Type, vectors: int) -> None:
        super().__init__(context, builder, real)
        self.outputs, self.vectors = outputs_of_a_tile(), vectors
        self.places = [(o, v) for o in range(self.outputs) for v in range(vectors)]
        self.sums = {place: cgutils.alloca_once(builder, self.vector) for place in self.places}

    def chain(self, seen: list[Any], offsets: Any, weights: Any, first: Any, end: Any) -> None:
        """Form sums of steps ``first`` to ``end``."""
        builder = self.builder
        for place in self.places:
            builder.store(self.zero, self.sums[place])
        with cgutils.for_range_slice(builder, first, end, LONG(1), intp=LONG) as (step, _):
            row = self.offset(weights, step, self.vectors * self.bytes)
            values = [self.load_vector(row, v) for v in range(self.vectors)]
            tap = builder.mul(self.load_long(offsets, step), LONG(self.size))
            for o, address in enumerate(seen):
                voxel = self.load_splat(builder.add(address, tap), 0)
                for v, value in enumerate(values):
                    place = self.sums[o, v]
                    builder.store(self.multiply_add(value, voxel, builder.load(place)), place)

    def add_to(self, totals: Any, lost: Any, compensated: Any) -> None:
        """Add the sums to totals in memory, and what that rounds away to what was lost before.

        Dekker's Fast2Sum: see ``_Tile._added`` in :mod:`volconv.engines.cpu.tile_kernels`.
        """
        builder = self.builder
        with builder.if_else(compensated) as (kept, plain):
            for branch, keep in ((kept, not self.exact), (plain, False)):
                with branch:
                    for i, place in enumerate(self.places):
                        at = self.offset(totals, i, self.bytes)
                        before, part = self.load(at, self.vector, self.size), builder.load(self.sums[place])
                        after = self.add(before, part)
                        self.store(after, at)
                        if keep:
                            rounded = builder.fsub(part, builder.fsub(after, before))
                            at = self.offset(lost, i, self.bytes)
                            self.store(self.add(self.load(at, self.vector, self.size), rounded), at)


@intrinsic(prefer_literal=True)
def _tile(typing_context: Any, bias: Any, vectors: Any, numbers: Any) -> Any:  # noqa: ARG001  # numba's protocol
    """Some chains of one tile.

    The array only tells the dtype. ``numbers`` are integers: addresses of data and of what the outputs see, of
    offsets and weights, first and last step, length of a chain, addresses of totals and of what they lost, compensated.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001  # numba's protocol
        data, seen, offsets, weights, first, last, chain, totals, lost, compensated = cgutils.unpack_tuple(
            builder, values[2], 10
        )
        tile = _Tile(context, builder, bias.dtype, int(vectors.literal_value))
        addresses = [tile.offset(data, tile.load_long(seen, o), tile.size) for o in range(tile.outputs)]
        keep = builder.icmp_signed("!=", compensated, LONG(0))
        with cgutils.for_range_slice(builder, first, last, chain, intp=LONG) as (start, _):
            stop = builder.add(start, chain)
            end = builder.select(builder.icmp_signed("<", stop, last), stop, last)
            tile.chain(addresses, offsets, weights, start, end)
            tile.add_to(totals, lost, keep)
        return context.get_dummy_value()

    return types.void(bias, vectors, numbers), generate


def channels_function(dtype: np.dtype[Any], vectors: int) -> Callable[..., None]:
    """What :func:`volconv.engines.cpu.channel_loops.compiled_channels` compiles."""
    # Constants of the compiled code.
    outputs, width, size = outputs_of_a_tile(), vectors * lanes(dtype), dtype.itemsize
    tile_size, together = outputs * width, outputs * TILES_TOGETHER
    room = tile_size * TILES_TOGETHER

    def channels(data, out, seen, places, offsets, weights, bias, group, channel, many, sums, work):
        first_group, end_group, group_apart, out_group_apart = group
        count, apart = channel
        chain, chains, compensated = sums
        blocks, steps = weights.shape[1], weights.shape[2]
        part = chain * chains
        for g in range(first_group, end_group):
            source = data + (g - first_group) * group_apart * size
            results = (g - first_group) * out_group_apart
            for b in range(blocks):
                own = weights.ctypes.data + (g * blocks + b) * steps * width * size
                wanted = min(width, count - b * width)
                for begin in range(0, many, together):
                    end = min(begin + together, many)
                    work[:] = 0
                    for p in range((steps + part - 1) // part):
                        first, last = p * part, min((p + 1) * part, steps)
                        for o in range(begin, end, outputs):
                            totals = work.ctypes.data + (o - begin) * width * size
                            _tile(
                                bias,
                                vectors,
                                (
                                    source,
                                    seen.ctypes.data + o * 8,
                                    offsets.ctypes.data,
                                    own,
                                    first,
                                    last,
                                    chain,
                                    totals,
                                    totals + room * size,
                                    compensated,
                                ),
                            )
                    for c in range(wanted):
                        constant, row = bias[g, b, c], (b * width + c) * apart
                        for o in range(begin, end):
                            i = (o - begin) * width + c
                            total, more = work[i], work[room + i]
                            # Where the sum is not finite, neither is what was lost, and it must not count.
                            if compensated and total - total == 0:
                                total += more
                            out[results + row + places[o]] = total + constant

    return channels
