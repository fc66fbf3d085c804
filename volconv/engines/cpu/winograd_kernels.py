"""The code of :mod:`volconv.engines.cpu.winograd_loops`, as numba compiles it; loaded only to be compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from volconv.engines.cpu.emitter import LONG, Emitter

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

#: ``B^T`` and ``A^T`` of F(2, 3): A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
FORWARD = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
INVERSE = ((1, 1, 1, 0), (0, 1, -1, -1))
_MATRICES = {0: FORWARD, 1: INVERSE}


class _Rows(Emitter):
    """Emits sums and differences of rows."""

    def combine(self, coefficients: tuple[int, ...], rows: list[Any]) -> Any:
        """The sum of some rows, each taken as it is, negated, or not at all."""
        terms = sorted(((c, row) for c, row in zip(coefficients, rows, strict=True) if c), key=lambda term: -term[0])
        total = terms[0][1]
        for c, row in terms[1:]:
            total = self.builder.fadd(total, row) if c > 0 else self.builder.fsub(total, row)
        return total


@intrinsic(prefer_literal=True)
def _transform(typing_context: Any, bias: Any, which: Any, axes: Any, sources: Any, targets: Any, width: Any) -> Any:  # noqa: ARG001  # numba's protocol
    """Multiply rows of voxels by a matrix along one axis or two.

    ``bias`` is an array of one value that is added to all; its dtype is the rows'. ``which`` is 0 for the forward
    matrix, 1 for the inverse, ``axes`` is how many. ``sources`` and ``targets`` are arrays of addresses, in C order of
    the axes; a target of 0 is left out. Sources are read to the end of their last vector; so far targets are
    written where ``which`` is 0.
    """
    matrix, dimensions = _MATRICES[which.literal_value], axes.literal_value
    exact_width = bool(which.literal_value)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        made = _Rows(context, builder, bias.dtype)
        arrays = [context.make_array(signature.args[i])(context, builder, values[i]).data for i in (0, 3, 4)]
        constant_at, source_list, target_list = (builder.ptrtoint(pointer, LONG) for pointer in arrays)
        n, m, width = len(matrix[0]), len(matrix), values[5]
        constant = made.load_splat(constant_at, 0)
        with cgutils.for_range_slice(builder, LONG(0), width, LONG(made.lanes), intp=LONG) as (x, _):
            rows = [
                made.load_vector(made.offset(made.load_long(source_list, LONG(i)), x, made.size), 0)
                for i in range(n**dimensions)
            ]
            if dimensions == 2:
                columns = [[made.combine(matrix[j], rows[k::n]) for k in range(n)] for j in range(m)]
                results = [made.combine(matrix[i], columns[j]) for j in range(m) for i in range(m)]
            else:
                results = [made.combine(matrix[i], rows) for i in range(m)]
            for i, result in enumerate(results):
                address = made.load_long(target_list, LONG(i))
                if not exact_width:
                    made.store(result, made.offset(address, x, made.size))
                    continue
                with builder.if_then(builder.icmp_signed("!=", address, LONG(0))):
                    end = builder.sub(width, x)
                    whole = builder.icmp_signed(">=", end, LONG(made.lanes))
                    at, value = made.offset(address, x, made.size), builder.fadd(result, constant)
                    with builder.if_else(whole) as (full, part):
                        with full:
                            made.store(value, at)
                        with part:
                            made.store_lanes(value, at, LONG(0), end)
        return context.get_dummy_value()

    return types.void(bias, which, axes, sources, targets, width), generate


def forward_function(dtype: np.dtype[Any], axes: int) -> Callable[..., None]:
    """What ``compiled_forward`` compiles; it also takes room for addresses of sources and targets."""
    size = dtype.itemsize

    def forward(like, tiles, data, between, channels, out, pitch, plane, width, sources, targets):
        count = 4**axes
        for c in range(channels):
            for k in range(tiles.shape[0]):
                for i in range(count):
                    d, h = (i // 4, i % 4) if axes == 2 else (i, i)
                    place = tiles[k, 0, d] + (tiles[k, 1, h] if axes == 2 else 0)
                    sources[i] = data + (c * between + place) * size
                    targets[i] = out + (i * plane + (c * tiles.shape[0] + k) * pitch) * size
                _transform(like, 0, axes, sources, targets, width)

    return forward


def inverse_function(dtype: np.dtype[Any], axes: int) -> Callable[..., None]:
    """What ``compiled_inverse`` compiles; it also takes room for addresses of sources and targets."""
    size = dtype.itemsize

    def inverse(products, plane, channel, pitch, tiles, out, between, bias, width, sources, targets):
        for c in range(bias.shape[0]):
            for k in range(tiles.shape[0]):
                for i in range(4**axes):
                    sources[i] = products + (i * plane + c * channel + k * pitch) * size
                for i in range(2**axes):
                    d, h = (i // 2, i % 2) if axes == 2 else (i, i)
                    missing = tiles[k, 0, d] < 0 or tiles[k, axes - 1, h] < 0
                    place = tiles[k, 0, d] + (tiles[k, 1, h] if axes == 2 else 0)
                    targets[i] = 0 if missing else out + (c * between + place) * size
                _transform(bias[c:], 1, axes, sources, targets, width)

    return inverse
