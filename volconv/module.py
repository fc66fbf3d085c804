"""Conv3d as an object that holds its weights, named and printed as ``torch.nn.Conv3d``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from volconv.dtypes import result_dtype
from volconv.errors import DtypeError, ParameterError, ShapeError
from volconv.functional import conv3d
from volconv.job import check_bias, parse_dtype
from volconv.params import Conv3dParams, parse_integer, parse_triple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import SupportsIndex

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from volconv.params import Padding, Size3


class Conv3d:
    """A 3-D convolution with its weights.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or 3 ints
        Three are D, H, W.
    padding : int, 3 ints, "valid" or "same"
    groups : int
        Divides ``in_channels`` and ``out_channels``.
    bias : bool
        Whether there is one.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
    device : {"cpu"}, optional
    dtype : dtype, optional
        Of the weights: float16, float32 (the default), float64, complex64 or complex128.
    seed : int or numpy.random.Generator, optional
        For the initial weights.

    Attributes
    ----------
    weight : (out_channels, in_channels/groups, kD, kH, kW) array
    bias : (out_channels,) array or None
        Both are drawn from U(-sqrt(k), sqrt(k)), ``k = groups / (in_channels * prod(kernel_size))``
        (the documentation of ``torch.nn.Conv3d``); complex ones in each part.

    Raises
    ------
    ParameterError, ShapeError, DtypeError

    Examples
    --------
    >>> import numpy as np
    >>> layer = Conv3d(16, 33, (3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0), seed=0)
    >>> layer
    Conv3d(16, 33, kernel_size=(3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0))
    >>> layer(np.zeros((1, 16, 10, 50, 100), np.float32)).shape
    (1, 33, 8, 50, 99)
    """

    weight: NDArray[Any]
    bias: NDArray[Any] | None

    def __init__(
        self,
        in_channels: SupportsIndex,
        out_channels: SupportsIndex,
        kernel_size: Size3,
        stride: Size3 = 1,
        padding: Padding = 0,
        dilation: Size3 = 1,
        groups: SupportsIndex = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        if device not in (None, "cpu"):
            raise ParameterError(f"device must be 'cpu' (got {device!r})")
        kind = parse_dtype("dtype", np.float32 if dtype is None else dtype)
        if kind.name not in ("float16", "float32", "float64", "complex64", "complex128"):
            raise DtypeError(f"dtype must be a floating-point or complex one (got {kind})")
        channels = parse_integer("in_channels", in_channels, at_least=1)
        count = parse_integer("groups", groups, at_least=1)
        if channels % count:
            raise ShapeError(f"groups must divide in_channels (got groups={count}, in_channels={channels})")
        size = parse_triple("kernel_size", kernel_size, at_least=1)
        shape = (parse_integer("out_channels", out_channels, at_least=1), channels // count, *size)
        self._set_parameters(shape, stride, padding, dilation, groups, padding_mode)

        rng = np.random.default_rng(seed)
        bound = math.sqrt(count / (channels * math.prod(size)))

        def draw(shape: tuple[int, ...]) -> NDArray[Any]:
            values: NDArray[Any] = rng.uniform(-bound, bound, shape)
            if kind.kind == "c":
                values = values + 1j * rng.uniform(-bound, bound, shape)
            return values.astype(kind)

        self.weight = draw(shape)
        self.bias = draw(shape[:1]) if bias else None

    @classmethod
    def from_arrays(
        cls,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        stride: Size3 = 1,
        padding: Padding = 0,
        dilation: Size3 = 1,
        groups: SupportsIndex = 1,
        padding_mode: str = "zeros",
    ) -> Self:
        """A layer with given weights, which are copied.

        Parameters
        ----------
        weight : (C_out, C_in/groups, kD, kH, kW) array
        bias : (C_out,) array, optional
        stride, padding, dilation, groups, padding_mode
            As in :class:`Conv3d`.
        """
        layer = cls.__new__(cls)
        values = np.array(weight)
        result_dtype(np.dtype(bool), values.dtype)  # refuses what holds no numbers
        layer._set_parameters(values.shape, stride, padding, dilation, groups, padding_mode)
        layer.weight = values
        biases = check_bias(bias, layer.params)
        layer.bias = None if biases is None else biases.copy()
        return layer

    def _set_parameters(
        self,
        weight_shape: tuple[int, ...],
        stride: Size3,
        padding: Padding,
        dilation: Size3,
        groups: SupportsIndex,
        padding_mode: str,
    ) -> None:
        self.params = Conv3dParams.parse(
            weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode
        )
        # 'same' depends on nothing but the kernel, yet people want to read it back as they wrote it.
        self.padding = padding if isinstance(padding, str) else self.params.padding_low

    in_channels = property(lambda self: self.params.in_channels)
    out_channels = property(lambda self: self.params.out_channels)
    kernel_size = property(lambda self: self.params.kernel_size)
    stride = property(lambda self: self.params.stride)
    dilation = property(lambda self: self.params.dilation)
    groups = property(lambda self: self.params.groups)
    padding_mode = property(lambda self: self.params.padding_mode)

    def __call__(self, input: ArrayLike, *, threads: int | None = None) -> NDArray[Any]:  # noqa: A002  # as in PyTorch
        """Convolve an (N, C_in, D, H, W) or (C_in, D, H, W) array; see :func:`volconv.conv3d`."""
        params = self.params
        return conv3d(
            input,
            self.weight,
            self.bias,
            params.stride,
            self.padding,
            params.dilation,
            params.groups,
            padding_mode=params.padding_mode,
            threads=threads,
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, "weight" and (where there is one) "bias": the layer's own, not copies."""
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Copy weights in, as the layer's dtype.

        Raises
        ------
        ShapeError
            A name is missing or unknown, or a shape differs; the layer is unchanged.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise ShapeError(
                f"state_dict must have the names {', '.join(own)} (got {', '.join(sorted(map(str, state))) or 'none'})"
            )
        arrays = {name: np.asarray(values) for name, values in state.items()}
        for name, values in arrays.items():
            if values.shape != own[name].shape:
                raise ShapeError(f"{name} must have shape {own[name].shape} (got {values.shape})")
            if not np.can_cast(values.dtype, own[name].dtype, "same_kind"):
                raise DtypeError(f"{name} must be of a dtype that {own[name].dtype} can take (got {values.dtype})")
        self.weight = arrays["weight"].astype(self.weight.dtype)
        if self.bias is not None:
            self.bias = arrays["bias"].astype(self.bias.dtype)

    def __repr__(self) -> str:
        p = self.params
        parts = [f"{p.in_channels}, {p.out_channels}, kernel_size={p.kernel_size}, stride={p.stride}"]
        if self.padding != (0, 0, 0):
            parts.append(f"padding={self.padding}")
        if p.dilation != (1, 1, 1):
            parts.append(f"dilation={p.dilation}")
        if p.groups != 1:
            parts.append(f"groups={p.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if p.padding_mode != "zeros":
            parts.append(f"padding_mode={p.padding_mode}")
        return f"{type(self).__name__}({', '.join(parts)})"
