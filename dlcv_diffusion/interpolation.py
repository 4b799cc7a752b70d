"""Between two noises, or four: along the straight line (lerp), or along the sphere on which noise lives (slerp).

Noise of D numbers N(0, 1) has a length near √D. The middle of the straight line between two has length √(D/2), which no
denoiser was trained on; the great circle keeps √D.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .arguments import as_tensor
from .errors import check

PARALLEL = 1e-7  # radians below which slerp is lerp to double precision (θ²/6)
OPPOSITE = 1e-6  # radians of π within which no arc is the shortest

Alpha = float | Sequence[float] | Tensor


def lerp(a: Tensor, b: Tensor, alpha: Alpha) -> Tensor:
    """(1 − α) a + α b: the straight line from a (α = 0) to b (α = 1), computed in float64; (B, …), like a.

    - a, b: (B, …), or (1, …) for all; alpha: one number, or B of them; beyond [0, 1] it extrapolates.

    Raises `UserError` for shapes that do not fit, and for numbers that are not finite.

    >>> lerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), [0.0, 0.5])
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    a64, b64, alphas = _checked(a, b, alpha)
    return ((1 - alphas) * a64 + alphas * b64).to(a.dtype).to(a.device)


def slerp(a: Tensor, b: Tensor, alpha: Alpha) -> Tensor:
    """sin((1 − α) θ) / sin θ · a + sin(α θ) / sin θ · b: the great circle from a to b (Shoemake 1985, eq. 4).

    θ is the angle between the two, each sample one long vector; for θ = 0 it is `lerp`, its limit.

    - a, b, alpha, and what is returned: as for `lerp`. A single image (C, H, W) is given as x[None].

    Raises `UserError` as `lerp` does, for a zero vector, and for vectors in opposite directions.

    >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.7071, 0.7071]])
    """
    a64, b64, alphas = _checked(a, b, alpha)
    theta = angle(a64, b64)
    theta = theta.reshape(-1, *[1] * (a.ndim - 1))
    shortest = (theta <= torch.pi - OPPOSITE).all()
    check(shortest, "slerp: two vectors in opposite directions have no shortest arc; choose another seed, or use lerp")
    parallel = theta < PARALLEL
    sine = torch.where(parallel, 1.0, theta.sin())
    weight_a = torch.where(parallel, 1 - alphas, ((1 - alphas) * theta).sin() / sine)
    weight_b = torch.where(parallel, alphas, (alphas * theta).sin() / sine)
    return (weight_a * a64 + weight_b * b64).to(a.dtype).to(a.device)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """θ, (B,) float64 in [0, π]: the angle between a and b, (B, …), each sample one long vector.

    θ = 2 atan2(|u − v|, |u + v|) of the unit vectors u and v, exact near 0 and π too, where acos(u·v) is not.
    Raises `UserError` for a zero vector, and for different shapes.

    >>> angle(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item() == torch.pi / 2
    True
    """
    _check_batches(a, b)
    alike = a.shape[1:] == b.shape[1:] and (len(a) == len(b) or 1 in (len(a), len(b)))
    check(alike, f"there is no angle between {tuple(a.shape)} and {tuple(b.shape)}; give batches of one shape")
    u, v = ((x.cpu() if x.device.type == "mps" else x).double().flatten(1) for x in (a, b))
    largest = [x.abs().amax(dim=1, keepdim=True) for x in (u, v)]  # by which the squares of huge numbers stay finite
    directed = all((value != 0).all() for value in largest)
    check(directed, "one of the vectors is zero and has no direction; give noise that is not all zeros")
    u, v = (x / value for x, value in zip((u, v), largest, strict=True))
    u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
    return 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))


def corner_grid(
    corners: Tensor, rows: int = 5, columns: int = 5, between: Callable[[Tensor, Tensor, Alpha], Tensor] = slerp
) -> Tensor:
    """A grid of noises between four, (rows, columns, …): down its left and right edges first, then across every row.

    - corners: (4, …), top left, top right, bottom left, bottom right; rows, columns: at least 2.

    Raises `UserError` for others, or as `between` does.

    >>> corner_grid(torch.randn(4, 1, 8, 8), rows=3, columns=5).shape
    torch.Size([3, 5, 1, 8, 8])
    """
    fits = len(corners) == 4 and rows >= 2 and columns >= 2
    check(fits, f"a grid lies between 4 corners in at least 2×2 places, not between {len(corners)} in {rows}×{columns}")
    top_left, top_right, bottom_left, bottom_right = corners.split(1)
    down, across = torch.linspace(0, 1, rows, dtype=torch.float64), torch.linspace(0, 1, columns, dtype=torch.float64)
    left, right = between(top_left, bottom_left, down), between(top_right, bottom_right, down)
    return torch.stack([between(left[i : i + 1], right[i : i + 1], across) for i in range(rows)])


def _checked(a: Tensor, b: Tensor, alpha: Alpha) -> tuple[Tensor, Tensor, Tensor]:
    """a, b and alpha (B, 1, …) in float64 on the CPU, where MPS lacks it, if they are finite and go together."""
    _check_batches(a, b)
    place = torch.device("cpu") if a.device.type == "mps" else a.device
    alphas = alpha.to(place) if isinstance(alpha, Tensor) else alpha  # MPS has no float64
    alphas = as_tensor(alphas, f"alpha is {alpha!r}; give a number, or one for each sample", torch.float64).to(place)
    counts = {len(a), len(b), alphas.numel()} - {1}
    fit = a.shape[1:] == b.shape[1:] and alphas.ndim <= 1 and len(counts) <= 1
    given = f"{tuple(a.shape)} and {tuple(b.shape)} with {alphas.numel()} alphas"
    check(fit, f"cannot interpolate between {given}; give two batches (B, …) of one shape, and one alpha or B of them")
    finite = all(values.isfinite().all() for values in (a, b, alphas))
    check(finite, "cannot interpolate: there are numbers that are not finite (NaN or infinite) in what was given")
    return a.to(place).double(), b.to(place).double(), alphas.reshape(-1, *[1] * (a.ndim - 1))


def _check_batches(*batches: Tensor) -> None:
    for x in batches:
        fits = isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2 and x.numel()
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        check(fits, f"vectors come in batches (B, …) of floating-point numbers, not {given}; x[None] makes one of one")
