"""Kernels as sums of products of three 1-D ones: what weights are a product of, if they are.

A Gaussian or a box is one such term, an unsharp mask a sum of two, a Laplacian of a Gaussian of three. They are found
from the weights, in float64: one term through the largest weight, whose row, column and file must multiply to the rest;
several by singular values (SVD) of the kernel unfolded along one axis, and then of each of its planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.workers import single_threaded_blas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams

    Term = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

#: How far products may be off, in epsilons of the compute dtype, by the largest weight and by the sum of magnitudes:
#: far under the error bound of 16.
TOLERANCE = 0.5
#: Terms that may be worth it.
MOST_TERMS = 4
#: How often a term must be allowed to be rounded in a pass, for the bound on the error to be kept: fewer take longer.
LEAST_ROUNDINGS = 6
#: Sine of the angle between two planes below which they are no basis.
SAME_ROOT = 1e-3
#: Taps above which an SVD would take longer than it could save.
LARGEST = 1 << 18
#: Kernels of fewer taps are as fast without.
LEAST_TAPS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Weights (C_out, 1, kD, kH, kW) as sums of products.

    Parameters
    ----------
    along : 3 arrays
        ``along[i][o, r]`` is the factor of term ``r`` of output channel ``o`` along D, H or W; (C_out, terms, kernel).
    growth : float
        Sum of the terms' magnitudes, over the kernel's.
    """

    along: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    growth: float

    @property
    def terms(self) -> int:
        """How many products are added up."""
        return int(self.along[0].shape[1])


def find_factors(params: Conv3dParams, weight: NDArray[Any], dtype: np.dtype[Any]) -> Factors | None:
    """What these weights are a sum of products of; None where that would not pay.

    Parameters
    ----------
    params : Conv3dParams
    weight : (C_out, C_in/groups, kD, kH, kW) array
        Real.
    dtype : numpy.dtype
        Compute dtype; its epsilon is what products must agree to.

    Examples
    --------
    >>> from volconv.params import Conv3dParams
    >>> box = np.full((1, 1, 5, 5, 5), 0.008)
    >>> find_factors(Conv3dParams.parse(box.shape), box, np.dtype(np.float32)).terms
    1
    """
    kernel = params.kernel_size
    spread = sum(k > 1 for k in kernel)
    # A complex volume's channels are computed in pairs, whose weights are no products of this shape.
    if dtype.kind != "f" or weight.shape[1] != 1:
        return None
    if spread < 2 or np.prod(kernel) < LEAST_TAPS or not np.isfinite(weight).all():
        return None
    epsilon = float(np.finfo(dtype).eps)
    known: dict[bytes, list[Term] | None] = {}
    found: list[list[Term]] = []
    for values in weight[:, 0].astype(np.float64):
        key = values.tobytes()
        if key not in known:
            known[key] = _terms(values, epsilon)
        terms = known[key]
        if terms is None:
            return None
        found.append(terms)
    most = max(map(len, found))
    along = tuple(np.zeros((len(found), most, k)) for k in kernel)
    growth = 1.0
    for o, terms in enumerate(found):
        for r, term in enumerate(terms):
            for axis, factor in zip(along, term, strict=True):
                axis[o, r] = factor
        growth = max(growth, _growth(terms, weight[o]))
    return Factors((along[0], along[1], along[2]), growth)


def roundings(terms: int, growth: float) -> int:
    """How often a term may be rounded in each of three passes, so that all stay under the bound of 16 epsilon.

    Rounded once more are the sums of terms and the bias; all is in proportion to the terms' magnitudes.
    """
    return int((32 / growth - terms) / 3)


def count_terms(kernel: NDArray[np.float64]) -> int | None:
    """How many products of 1-D kernels a (kD, kH, kW) kernel is a sum of, to single precision, whether they pay or not.

    None where they are more than a few, or too many taps to tell.

    Examples
    --------
    >>> count_terms(np.ones((3, 3, 3)))
    1
    """
    terms = _terms(kernel, float(np.finfo(np.float32).eps), least_roundings=-math.inf)
    return None if terms is None else len(terms)


def _terms(kernel: NDArray[np.float64], epsilon: float, least_roundings: float = LEAST_ROUNDINGS) -> list[Term] | None:
    """The fewest products, up to a few, that add up to a (kD, kH, kW) kernel and are not much larger than it."""
    one = _product_through_largest(kernel)
    for product in (one, _closest_product(kernel, one)):
        if _agrees([product], kernel, epsilon):
            return [product]
    if kernel.size > LARGEST:
        return None
    best: list[Term] | None = None
    with single_threaded_blas():  # its threads would go on waiting, on cores that are needed
        for axis in range(3):
            for terms in _splits_along(kernel, axis, epsilon):
                if best is not None and len(terms) >= len(best):
                    continue
                exact_enough = roundings(len(terms), _growth(terms, kernel)) >= least_roundings
                if exact_enough and _agrees(terms, kernel, epsilon):
                    best = terms
    return best


def _growth(terms: list[Term], kernel: NDArray[np.float64]) -> float:
    """Sum of the terms' magnitudes, over the kernel's."""
    magnitude = sum(float(np.prod([np.abs(f).sum() for f in term])) for term in terms)
    total = float(np.abs(kernel).sum())
    return magnitude / total if total else 1.0


def _product_through_largest(kernel: NDArray[np.float64]) -> Term:
    """The one product that has the kernel's values on the lines through its largest."""
    d, h, w = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    largest = kernel[d, h, w] or 1.0
    return kernel[:, h, w] / largest, kernel[d, :, w] / largest, kernel[d, h, :].copy()


def _closest_product(kernel: NDArray[np.float64], start: Term) -> Term:
    """A product nearer to a kernel whose values were rounded: least squares along each axis in turn, twice."""
    d, h, w = start
    for _ in range(2):
        d = np.einsum("dhw,h,w->d", kernel, h, w) / ((h @ h) * (w @ w) or 1.0)
        h = np.einsum("dhw,d,w->h", kernel, d, w) / ((d @ d) * (w @ w) or 1.0)
        w = np.einsum("dhw,d,h->w", kernel, d, h) / ((d @ d) * (h @ h) or 1.0)
    return d, h, w


def _splits_along(kernel: NDArray[np.float64], axis: int, epsilon: float) -> Iterator[list[Term]]:
    """Terms by singular values: along one axis, then within each plane; where there are two planes, of others too."""
    planes = np.moveaxis(kernel, axis, 0)
    nothing = max(epsilon / 4, 2 * float(np.finfo(np.float64).eps)) * float(np.linalg.norm(kernel))
    found = _singular(planes.reshape(len(planes), -1), nothing)
    if len(found) > MOST_TERMS:
        return
    lines, flat = np.stack([line for line, _ in found]), np.stack([plane for _, plane in found])
    pair = flat.reshape(-1, *planes.shape[1:])
    for basis in (np.eye(len(found)), *(_simpler(pair) if len(found) == 2 else ())):
        terms = []
        for line, plane in zip(np.linalg.inv(basis).T @ lines, np.tensordot(basis, pair, 1), strict=True):
            for first, second in _singular(plane, nothing):
                factors = [first, second]
                factors.insert(axis, line)
                terms.append((factors[0], factors[1], factors[2]))
        if len(terms) <= MOST_TERMS:
            yield terms


def _simpler(pair: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Bases of what two planes span in which one, or both, are products, if they are of rank 2 in common.

    A plane ``c*A + s*B`` is a product where its determinant is 0, a quadratic form in c and s. Two roots make both
    products, as of a difference of Gaussians. Where they are one, only one is, as of a Laplacian of a Gaussian.
    """
    left = np.linalg.svd(np.concatenate(pair, 1), full_matrices=False)[0][:, :2]
    right = np.linalg.svd(np.concatenate(pair, 0), full_matrices=False)[2][:2].T
    a, b = left.T @ pair @ right
    if a.shape != (2, 2):
        return
    square, other = float(np.linalg.det(a)), float(np.linalg.det(b))
    mixed = float(a[0, 0] * b[1, 1] + a[1, 1] * b[0, 0] - a[0, 1] * b[1, 0] - a[1, 0] * b[0, 1])
    c, s = max((-mixed, 2 * square), (2 * other, -mixed), key=lambda root: math.hypot(*root))
    if (length := math.hypot(c, s)) == 0:
        return
    yield np.array([[c, s], [-s, c]]) / length
    discriminant = mixed**2 - 4 * square * other
    if discriminant > 0:
        half = -(mixed + math.copysign(math.sqrt(discriminant), mixed)) / 2
        basis = np.array([[half, square], [other, half]])
        basis /= np.linalg.norm(basis, axis=1, keepdims=True)
        if abs(np.linalg.det(basis)) > SAME_ROOT:
            yield basis


def _singular(matrix: NDArray[np.float64], nothing: float) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Products of a column and a row that add up to a matrix, but for what is next to nothing."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return [(u[:, i], s[i] * v[i]) for i in range(len(s)) if s[i] > nothing]


def _agrees(terms: list[Term], kernel: NDArray[np.float64], epsilon: float) -> bool:
    """Whether terms add up to the kernel, by the largest difference and by the sum of differences."""
    total = sum(np.multiply.outer(np.multiply.outer(d, h), w) for d, h, w in terms)
    off, size = np.abs(total - kernel), np.abs(kernel)
    # float64 has nothing to form its own products in; a few roundings are allowed for.
    allowed = max(TOLERANCE * epsilon, 4 * float(np.finfo(np.float64).eps))
    return bool(off.max() <= allowed * size.max() and off.sum() <= allowed * size.sum())
