"""The sum as it is written: each output is computed from the voxels that it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.engines import Needs, weight_bytes
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import channels, generic, pack_channels, small
from volconv.shapes import multiply_adds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared
    from volconv.engines.gpu.source import Source
    from volconv.params import Conv3dParams, Triple


#: What there are kernels for beside the generic one: taps along an axis, output channels that read one anew, stride.
MOST_TAPS = 7
MOST_ALONE = 2
MOST_STRIDE = 2


class Direct:
    """See :class:`volconv.engines.gpu.plan.DeviceEngine`."""

    name = "direct"

    def supports(self, problem: Problem) -> str | None:
        """All that is floating."""
        return rates.floating(self.name, problem)

    def cost(self, problem: Problem) -> float:
        """The voxels' way through memory, or the multiply-adds, whichever takes longer."""
        macs = multiply_adds(problem.output_shape, problem.params) / rates.multiply_adds(problem.dtype)
        return rates.LAUNCH + max(rates.through_memory(problem), macs / rates.DIRECT_SHARE)

    def needs(self, problem: Problem) -> Needs:
        """No grid: sums come in the order of their taps."""
        return Needs((1, 1, 1), 0, weight_bytes(problem))

    def workspace(self, problem: Problem, box: Triple) -> int:  # noqa: ARG002  # the protocol's signature
        """Nothing."""
        return 0

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        params, xp = problem.params, device.xp
        if is_small(params):
            return lambda source, out: small(device, stream, source, weight, bias, out)
        biases = xp.asarray(bias)
        if is_common(params):
            packed = xp.asarray(pack_channels(weight, params.groups))
            dilation = params.dilation[0]
            kernel, stride, groups = params.kernel_size, params.stride, params.groups

            def common(source: Source, out: Array) -> None:
                channels(
                    device,
                    stream,
                    source,
                    packed,
                    biases,
                    out,
                    kernel=kernel,
                    stride=stride,
                    dilation=dilation,
                    groups=groups,
                )

            return common
        weights = xp.asarray(weight)

        def compute(source: Source, out: Array) -> None:
            strides, dilations = params.stride, params.dilation
            generic(
                device, stream, source, weights, biases, out, stride=strides, dilation=dilations, groups=params.groups
            )

        return compute


def is_small(params: Conv3dParams) -> bool:
    """Whether each channel is convolved by itself, with a kernel whose sums fit into registers."""
    alone = params.in_channels == params.groups and params.out_channels <= MOST_ALONE * params.groups
    return alone and max(params.kernel_size) <= MOST_TAPS and set(params.stride) == set(params.dilation) == {1}


def is_common(params: Conv3dParams) -> bool:
    """Whether it is a convolution as networks have them: channels share voxels, planes are small, and not dilated."""
    _, kh, kw = params.kernel_size
    if params.in_channels == params.out_channels == params.groups:
        return False
    return max(kh, kw) <= MOST_TAPS and max(params.stride[1:]) <= MOST_STRIDE and params.dilation[1:] == (1, 1)
