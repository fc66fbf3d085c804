"""In which order the five axes of weights are kept: PyTorch's, or that of TensorFlow and Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: (C_out, C_in/groups, kD, kH, kW) and (kD, kH, kW, C_in/groups, C_out).
LAYOUTS = ("oidhw", "dhwio")


def arranged(
    weight: NDArray[Any],
    layout: str | None,
    stated: str | None,
    in_channels: int,
    groups: int | None,
    out_channels: int | None = None,
    volumes: int | None = None,
    name: str = "kernel",
) -> tuple[NDArray[Any], str | None]:
    """Weights in PyTorch's order, and the order that they were in.

    Parameters
    ----------
    weight : ndarray
        Of 5 axes; with fewer there are no two orders.
    layout : str or None
        What the user says: one of :data:`LAYOUTS`.
    stated : str or None
        What the file's kind says.
    in_channels : int
        Channels of the volume.
    groups : int or None
        What the user asked for; 1 by default.
    out_channels : int or None
        Size of the bias that the weights come with.
    volumes : int or None
        How many volumes there are, where they might be meant to be channels.
    name : str
        What they are called in errors.

    Raises
    ------
    ParameterError
        Both orders are possible and the user says nothing, or an order of an array that has none.

    Examples
    --------
    >>> import numpy as np
    >>> weight, layout = arranged(np.ones((3, 3, 3, 1, 8)), None, None, in_channels=1, groups=None)
    >>> weight.shape, layout
    ((8, 1, 3, 3, 3), 'dhwio')
    """
    if layout not in (None, *LAYOUTS):
        raise ParameterError(f"weight_layout must be one of {', '.join(LAYOUTS)} (got {layout!r})")
    if weight.ndim != 5:
        if layout is not None:
            raise ParameterError(f"weight_layout is for kernels of 5 axes (got shape {weight.shape} in {name})")
        return weight, None
    layout = layout or stated or _only_fitting(weight, in_channels, groups, out_channels, volumes, name)
    return (weight.transpose(4, 3, 0, 1, 2) if layout == "dhwio" else weight), layout


def _only_fitting(
    weight: NDArray[Any], in_channels: int, groups: int | None, out_channels: int | None, volumes: int | None, name: str
) -> str:
    """The order in which weights fit the volume; PyTorch's where neither does, or both are the same."""
    fits = []
    for layout in LAYOUTS:
        outs, ins = weight.shape[:2] if layout == "oidhw" else weight.shape[:-3:-1]
        if ins * (groups or 1) == in_channels and outs % (groups or 1) == 0 and out_channels in (None, outs):
            fits.append(layout)
    if len(fits) == 2 and not _same(weight):
        raise ParameterError(
            f"weight_layout must be given: {weight.shape} in {name} fits the volume as "
            f"(C_out, C_in, kD, kH, kW) and as (kD, kH, kW, C_in, C_out)",
            hint="--weight-layout oidhw is PyTorch's order, dhwio that of TensorFlow and Keras",
        )
    return "oidhw" if not fits or weight.shape[1] == volumes else fits[0]


def _same(weight: NDArray[Any]) -> bool:
    other = weight.transpose(4, 3, 0, 1, 2)
    return other.shape == weight.shape and bool(np.array_equal(weight, other))
